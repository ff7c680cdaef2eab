import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS, PHYSICS, Physics
from dtbench.domains.d4rl.reacher_2d import Reacher2dEnv

GYMNASIUMS = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d"}


@pytest.fixture(autouse=True)
def _no_deprecation_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium calls v4 out of date, which is why it is asked for
        yield


def gymnasiums(robot: str, version: str) -> Callable[[], Any]:
    return lambda: gym.make(f"{GYMNASIUMS[robot]}-{version}", disable_env_checker=True)


def random_actions(robot: str, games: int, steps: int) -> np.ndarray:
    shape = (steps, games, LOCOMOTION_ENVS[robot].action_size)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("robot", GYMNASIUMS)
@pytest.mark.parametrize("version", ["v4", "v5"])
def test_games_are_gymnasiums_own_to_the_bit(robot: str, version: Physics) -> None:
    seeds = [5, 7, 6]
    ours, theirs = (
        LocomotionVectorEnv(LOCOMOTION_ENVS[robot], 3, physics=version),
        [gymnasiums(robot, version)() for _ in seeds],
    )
    seen, _ = ours.reset(seed=seeds)
    assert seen.dtype == np.float32
    for game, seed in enumerate(seeds):
        np.testing.assert_array_equal(seen[game], theirs[game].reset(seed=seed)[0].astype(np.float32))
    running = np.ones(3, bool)
    for actions in random_actions(robot, 3, 100):
        seen, rewards, terminated, truncated, _ = ours.step(actions)
        for game in np.flatnonzero(running):
            observation, reward, ended, cut_off, _ = theirs[game].step(actions[game])
            np.testing.assert_array_equal(seen[game], observation.astype(np.float32))
            assert (rewards[game], terminated[game], truncated[game]) == (reward, ended, cut_off)
        running &= ~terminated
    assert running.all() == (robot == "halfcheetah")  # the others fell


def test_games_are_those_of_gymnasiums_vector_environment() -> None:
    ours, theirs = (
        LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 3, physics="v4"),
        SyncVectorEnv([gymnasiums("hopper", "v4")] * 3),
    )
    # One seed gives game i that seed plus i.
    np.testing.assert_array_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0].astype(np.float32))
    for actions in random_actions("hopper", 3, 8):
        mine, sync = ours.step(actions), theirs.step(actions)
        np.testing.assert_array_equal(mine[0], sync[0].astype(np.float32))
        for column in (1, 2, 3):
            np.testing.assert_array_equal(mine[column], sync[column])


def test_a_game_is_cut_off_where_gymnasium_cuts_it_off() -> None:
    ours, theirs = (
        LocomotionVectorEnv(LOCOMOTION_ENVS["halfcheetah"], 1, physics="v4"),
        gymnasiums("halfcheetah", "v4")(),
    )
    ours.reset(seed=3)
    theirs.reset(seed=3)
    for step, actions in enumerate(random_actions("halfcheetah", 1, 1000), start=1):
        _, rewards, terminated, truncated, _ = ours.step(actions)
        _, reward, _, cut_off, _ = theirs.step(actions[0])
        assert rewards[0] == reward
        assert truncated[0] == cut_off == (step == 1000)
        assert not terminated[0]


def test_what_the_other_games_do_changes_nothing_in_a_game() -> None:
    actions = random_actions("walker2d", 2, 15)
    together, alone = (
        LocomotionVectorEnv(LOCOMOTION_ENVS["walker2d"], 2),
        LocomotionVectorEnv(LOCOMOTION_ENVS["walker2d"], 1),
    )
    together.reset(seed=[1, 2])
    alone.reset(seed=[2])
    for chosen in actions:
        np.testing.assert_array_equal(together.step(chosen)[0][1], alone.step(chosen[1:])[0][0])


@pytest.mark.parametrize("robot", LOCOMOTION_ENVS)
@pytest.mark.parametrize("physics", PHYSICS)
def test_any_number_of_threads_gives_the_same_bits(robot: str, physics: Physics) -> None:
    several = [
        LocomotionVectorEnv(LOCOMOTION_ENVS[robot], 7, physics=physics, threads=threads) for threads in (1, 2, 3, 50)
    ]
    for games in several:
        games.reset(seed=3)
    for actions in random_actions(robot, 7, 60):
        alone, *others = [games.step(actions)[:4] for games in several]
        for other in others:
            for ours, theirs in zip(other, alone, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    for games in several:
        games.close()


def test_what_goes_wrong_in_a_thread_is_raised() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 4, threads=2)
    games.reset(seed=0)
    with pytest.raises(ValueError, match="broadcast"):
        games.step(np.zeros((4, 2), np.float32))


def test_an_ended_game_stands_still_and_gives_no_reward() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 2)
    games.reset(seed=0)
    for actions in random_actions("hopper", 2, 200):
        observations, _, terminated, _, _ = games.step(actions)
        if terminated[0]:
            break
    assert terminated[0]
    for actions in random_actions("hopper", 2, 3):
        later, rewards, terminated, truncated, _ = games.step(actions)
        np.testing.assert_array_equal(later[0], observations[0])
        assert rewards[0] == 0
        assert terminated[0]
        assert not truncated[0]


def test_a_reset_mask_begins_only_those_games_again() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 3)
    first, _ = games.reset(seed=[4, 5, 6])
    for actions in random_actions("hopper", 3, 3):
        before = games.step(actions)[0]
    mask = np.array([False, True, False])
    after, _ = games.reset(seed=[None, 5, None], options={"reset_mask": mask})
    np.testing.assert_array_equal(after[1], first[1])
    np.testing.assert_array_equal(after[~mask], before[~mask])
    # The others go on from where they were: as if nothing had happened.
    undisturbed = LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 3)
    undisturbed.reset(seed=[4, 5, 6])
    for actions in random_actions("hopper", 3, 3):
        undisturbed.step(actions)
    chosen = random_actions("hopper", 3, 1)[0]
    np.testing.assert_array_equal(games.step(chosen)[0][~mask], undisturbed.step(chosen)[0][~mask])


def test_options_without_a_reset_mask_begin_every_game_again() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 2)
    first, _ = games.reset(seed=0)
    games.step(random_actions("hopper", 2, 1)[0])
    np.testing.assert_array_equal(games.reset(seed=0, options={"else": 1})[0], first)


def test_a_reset_gives_a_game_its_whole_horizon_again() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["reacher2d"], 2)
    games.reset(seed=0)
    idle = np.zeros((2, 2), np.float32)
    for _ in range(60):
        games.step(idle)
    games.reset(options={"reset_mask": np.array([True, False])})
    for step in range(61, 161):
        *_, truncated, _ = games.step(idle)
        assert truncated.tolist() == [step == 160, step >= 100]


def test_delayed_games_give_their_whole_return_with_the_last_step() -> None:
    prompt, late = (
        LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 3),
        LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 3, delayed=True),
    )
    prompt.reset(seed=0)
    late.reset(seed=0)
    earned, given, done = np.zeros(3), np.zeros(3), np.zeros(3, bool)
    for actions in random_actions("hopper", 3, 300):
        earned += prompt.step(actions)[1]
        _, rewards, terminated, _, _ = late.step(actions)
        assert (rewards[~terminated] == 0).all()
        assert (rewards[done] == 0).all()  # not given a second time
        given += rewards
        done |= terminated
    assert done.all()
    np.testing.assert_allclose(given, earned)


def test_a_delayed_game_that_is_cut_off_gives_its_return_then() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["halfcheetah"], 1, delayed=True)
    prompt = LocomotionVectorEnv(LOCOMOTION_ENVS["halfcheetah"], 1)
    games.reset(seed=0)
    prompt.reset(seed=0)
    earned = 0.0
    for actions in random_actions("halfcheetah", 1, 1000):
        earned += float(prompt.step(actions)[1][0])
        _, rewards, _, truncated, _ = games.step(actions)
        assert rewards[0] == pytest.approx(earned if truncated[0] else 0)
    assert truncated[0]


def test_a_delayed_game_begun_again_has_earned_nothing() -> None:
    games = LocomotionVectorEnv(dataclasses.replace(LOCOMOTION_ENVS["halfcheetah"], horizon=5), 1, delayed=True)
    returns = []
    for idle in (0, 3):  # steps played before the reset that counts
        games.reset(seed=0)
        for actions in random_actions("halfcheetah", 1, idle):
            games.step(actions)
        games.reset(seed=1)
        returns.append(sum(games.step(actions)[1][0] for actions in random_actions("halfcheetah", 1, 5)))
    assert returns[0] == returns[1]


def test_a_game_that_falls_with_its_last_step_ended_and_was_not_cut_off() -> None:
    actions = random_actions("hopper", 1, 200)
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["hopper"], 1)
    games.reset(seed=0)
    falls = next(step for step, chosen in enumerate(actions, start=1) if games.step(chosen)[2][0])
    games = LocomotionVectorEnv(dataclasses.replace(LOCOMOTION_ENVS["hopper"], horizon=falls), 1)
    games.reset(seed=0)
    for chosen in actions[:falls]:
        *_, terminated, truncated, _ = games.step(chosen)
    assert (terminated[0], truncated[0]) == (True, False)


@pytest.mark.parametrize("physics", PHYSICS)
def test_reacher2d_is_a_gymnasium_environment(physics: Physics) -> None:
    check_env(LOCOMOTION_ENVS["reacher2d"].make(physics), skip_render_check=True)


def placed(theta: tuple[float, float], goal: tuple[float, float]) -> Reacher2dEnv:
    """The arm at rest with these joint angles and this goal."""
    env = Reacher2dEnv()
    env.reset(seed=0)
    env.data.mocap_pos[0, :2] = goal
    env.set_state(np.array(theta), np.zeros(2))
    return env


# Shoulder and elbow are mounted at 0.785 and -0.785: these angles stretch the arm along x, the tip is at 0.6 + 0.45.
STRETCHED = (-0.785, 0.785)


@pytest.mark.parametrize(
    ("goal", "reward"),
    [
        ((1.0, 0.0), 1.0),  # 0.05 away
        ((0.99, 0.03), 1.0),  # 0.06 + 0.03
        ((0.9, 0.0), 0.0),  # 0.15 away
        ((0.98, 0.07), 0.0),  # 0.07 + 0.07, though 0.099 by Euclid
        ((1.12, 0.0), 1.0),  # 0.07 on the far side
    ],
)
def test_reacher2d_rewards_an_l1_distance_below_a_tenth(goal: tuple[float, float], reward: float) -> None:
    # No gravity: an arm at rest without torque stays.
    assert placed(STRETCHED, goal).step(np.zeros(2, np.float32))[1] == reward


def test_reacher2d_observes_angles_velocities_tip_goal_and_their_difference() -> None:
    env = placed(STRETCHED, (0.8, 0.3))
    seen = env.step(np.zeros(2, np.float32))[0]
    sine, cosine = np.sin(0.785), np.cos(0.785)
    by_hand = [-sine, sine, cosine, cosine, 0, 0, 1.05, 0, 0.8, 0.3, 0.25, -0.3]
    np.testing.assert_allclose(seen, by_hand, atol=1e-12)
    moved = env.step(np.array([0.5, -1.0], np.float32))[0]
    assert env.dt == pytest.approx(0.15)  # 15 steps of 0.01 s
    np.testing.assert_allclose(moved[4:6], 0.15 * env.data.qvel)
    assert abs(moved[4:6]).min() > 0.01


def test_reacher2ds_torques_are_cut_to_their_bounds_and_it_never_ends() -> None:
    strong, full = placed(STRETCHED, (0.8, 0.3)), placed(STRETCHED, (0.8, 0.3))
    for _ in range(5):
        seen, _, terminated, truncated, _ = strong.step(np.array([9.0, -9.0], np.float32))
        np.testing.assert_array_equal(seen, full.step(np.array([1.0, -1.0], np.float32))[0])
        assert not terminated
        assert not truncated


def test_goals_lie_in_the_ring_between_a_half_and_one_and_joints_begin_at_rest() -> None:
    observations, _ = LocomotionVectorEnv(LOCOMOTION_ENVS["reacher2d"], 300).reset(seed=0)
    radii = np.linalg.norm(observations[:, 8:10], axis=1)
    assert radii.min() >= 0.5
    assert radii.max() <= 1.0
    # Even in area: half of the goals within a radius of sqrt((0.25 + 1) / 2) = 0.79, within three standard errors.
    assert abs((radii < 0.7906).mean() - 0.5) < 3 * 0.5 / np.sqrt(300)
    np.testing.assert_array_equal(observations[:, 4:6], 0)


def test_every_game_keeps_its_own_goal() -> None:
    games = LocomotionVectorEnv(LOCOMOTION_ENVS["reacher2d"], 2)
    goals = games.reset(seed=[1, 2])[0][:, 8:10]
    assert not np.allclose(goals[0], goals[1])
    for actions in random_actions("reacher2d", 2, 10):
        np.testing.assert_array_equal(games.step(actions)[0][:, 8:10], goals)
    after = games.reset(seed=[None, 3], options={"reset_mask": np.array([False, True])})[0][:, 8:10]
    np.testing.assert_array_equal(after[0], goals[0])
    assert not np.allclose(after[1], goals[1])
