import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dtbench.domains.key_to_door import env as k2d
from dtbench.domains.key_to_door.data import random_walks
from dtbench.domains.key_to_door.env import HORIZON, KeyToDoorEnv, KeyToDoorVectorEnv

NORTH, SOUTH, WEST, EAST = range(4)


@pytest.mark.filterwarnings("ignore")
def test_the_single_game_passes_gymnasiums_checker() -> None:
    check_env(KeyToDoorEnv())


def test_a_single_game_is_a_row_of_the_vector_environment() -> None:
    vector, single = KeyToDoorVectorEnv(3), KeyToDoorEnv()
    many, _ = vector.reset(seed=[5, 6, 7])
    one, _ = single.reset(seed=6)
    assert (many[1] == one).all()
    rng = np.random.default_rng(0)
    for _ in range(HORIZON):
        actions = rng.integers(4, size=3)
        many, rewards, terminated, _, _ = vector.step(actions)
        one, reward, ended, _, _ = single.step(actions[1])
        assert (many[1] == one).all()
        assert (rewards[1], terminated[1]) == (reward, ended)


def exact_random_success() -> float:
    """Probability that a uniform walk takes the key in phase 1 and reaches the door in phase 3, by Markov chain."""

    def spread(distribution: np.ndarray, walls: np.ndarray) -> np.ndarray:
        after = np.zeros_like(distribution)
        for row, column in np.argwhere(distribution > 0):
            mass = distribution[row, column]
            for move in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                to = (row + move[0], column + move[1])
                after[to if not walls[to] else (row, column)] += mass / 4
        return after

    def reach(room: int, start: np.ndarray, goal: tuple[int, int], steps: int) -> float:
        walls = np.array([[symbol == "#" for symbol in line] for line in k2d.ROOMS[room]])
        here, arrived = start.copy(), 0.0
        for _ in range(steps):
            here = spread(here, walls)
            arrived += here[goal]
            here[goal] = 0
        return arrived

    def cells(room: int, symbol: str) -> list[tuple[int, int]]:
        return [(r, c) for r, line in enumerate(k2d.ROOMS[room]) for c, s in enumerate(line) if s == symbol]

    start = np.zeros((7, 11))
    for cell in cells(0, "+"):
        start[cell] = 1 / len(cells(0, "+"))
    key = np.mean([reach(0, start, goal, k2d.PHASE_STEPS[0]) for goal in cells(0, "k")])
    start = np.zeros((7, 11))
    start[cells(2, "+")[0]] = 1
    return float(key * reach(2, start, cells(2, "d")[0], k2d.PHASE_STEPS[2]))


def test_random_walks_succeed_as_often_as_the_markov_chain_says() -> None:
    expected = exact_random_success()
    assert expected == pytest.approx(0.0295, abs=0.0005)
    data = random_walks(40_000, seed=123)
    standard_error = np.sqrt(expected * (1 - expected) / data.num_episodes)
    assert data.returns.mean() == pytest.approx(expected, abs=4 * standard_error)


def test_only_the_key_opens_the_door() -> None:
    for has_key in (False, True):
        env = KeyToDoorVectorEnv(1)
        env.reset(seed=0)
        env.elapsed[:] = 30
        env.position[:] = (2, 5)
        env.has_key[:] = has_key
        _, reward, terminated, _, _ = env.step(np.array([NORTH]))
        assert (reward[0], terminated[0]) == (float(has_key), has_key)


def test_the_key_once_taken_is_seen_nowhere() -> None:
    env = KeyToDoorVectorEnv(2)
    env.reset(seed=0)
    env.elapsed[:] = 29
    env.has_key[:] = (False, True)
    env.position[:] = (3, 3)
    observations, _, _, _, _ = env.step(np.array([NORTH, NORTH]))
    assert (observations[0] == observations[1]).all()


def test_phases_last_15_15_and_16_steps() -> None:
    env = KeyToDoorVectorEnv(1)
    env.reset(seed=0)
    phases, ended = [], []
    for _ in range(HORIZON):
        _, _, terminated, truncated, info = env.step(np.array([SOUTH]))
        phases.append(int(info["phase"][0]))
        ended.append(bool(terminated[0]))
        assert not truncated[0]
    assert [phases.index(1) + 1, phases.index(2) + 1] == [15, 30]
    assert ended == [False] * 45 + [True]


def test_an_ended_episode_stands_still_until_it_is_reset() -> None:
    env = KeyToDoorVectorEnv(2)
    first, _ = env.reset(seed=0)
    for _ in range(HORIZON):
        last = env.step(np.array([SOUTH, SOUTH]))[0]
    seen, reward, terminated, _, info = env.step(np.array([NORTH, NORTH]))
    assert (seen == last).all()
    assert (reward[0], terminated[0], info["phase"][0], env.elapsed[0]) == (0, True, 2, HORIZON)
    seen, info = env.reset(seed=0, options={"reset_mask": np.array([True, False])})
    assert (seen[0] == first[0]).all()
    assert info["phase"].tolist() == [0, 2]


def test_equal_seeds_give_equal_walks_and_others_do_not() -> None:
    assert random_walks(50, seed=1).digest == random_walks(50, seed=1).digest != random_walks(50, seed=2).digest


def test_walks_end_at_the_door_or_after_the_last_phase() -> None:
    data = random_walks(2000, seed=3)
    assert data.terminals.sum() == data.num_episodes
    failed = data.returns == 0
    assert (data.lengths[failed] == HORIZON).all()
    assert (data.lengths[~failed] <= HORIZON).all()
    assert set(np.unique(data.returns)) == {0, 1}
