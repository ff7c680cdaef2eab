import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtbench import InvalidValue, make_dataset
from dtbench.data import dataset
from dtbench.data.dataset import digest_of, observation_moments, space_from_json, space_to_json, statistics_card
from dtbench.errors import InvalidDataset
from dtbench.testing import toy_dataset
from tests.support.episodes import episodes


def test_returns_to_go_sum_the_rewards_that_are_left_of_the_episode() -> None:
    data = episodes([3, 2], [1, 2, 3, 10, 20], [True, False])
    assert data.returns_to_go.tolist() == [6, 5, 3, 30, 20]
    assert data.returns.tolist() == [6, 30]
    assert data.timesteps.tolist() == [0, 1, 2, 0, 1]


def test_best_keeps_whole_episodes_by_return_within_a_fraction_of_timesteps() -> None:
    data = episodes([4, 2, 2, 2], [0, 0, 0, 4, 0, 3, 0, 2, 0, 1], [True] * 4)
    # Half of 10 steps: the best episode takes 4, the next would make 6.
    assert data.best(0.5).returns.tolist() == [4]
    assert data.best(0.6).returns.tolist() == [4, 3]
    assert data.best(1.0).num_episodes == 4


def test_best_keeps_at_least_one_episode() -> None:
    assert episodes([5, 5], [0] * 9 + [1], [True, True]).best(0.01).returns.tolist() == [1]


@pytest.mark.parametrize("fraction", [0, -1, 1.5])
def test_best_refuses_impossible_fractions(fraction: float) -> None:
    with pytest.raises(InvalidValue, match="fraction"):
        episodes([1], [0], [True]).best(fraction)


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(-5, 5)), min_size=1, max_size=8), st.floats(0.01, 1))
def test_best_never_exceeds_its_timesteps_unless_one_episode_does(
    pairs: list[tuple[int, float]], fraction: float
) -> None:
    lengths = [length for length, _ in pairs]
    rewards = [value / length for length, value in pairs for _ in range(length)]
    data = episodes(lengths, rewards, [True] * len(lengths))
    kept = data.best(fraction)
    assert kept.num_episodes == 1 or kept.num_steps <= fraction * data.num_steps + 1e-6
    assert kept.returns.max() == data.returns.max()


def test_at_least_says_what_the_best_episode_returns_when_none_is_good_enough() -> None:
    with pytest.raises(InvalidValue, match="returns 1"):
        episodes([1, 1], [0, 1], [True, True]).at_least(2)


def test_delayed_moves_each_reward_to_its_episodes_end() -> None:
    data = episodes([3, 2], [1, 2, 3, 10, 20], [True, False])
    delayed = data.delayed()
    assert delayed.rewards.tolist() == [0, 0, 6, 0, 30]
    assert delayed.returns.tolist() == data.returns.tolist()
    assert delayed.digest != data.digest


def test_the_digest_follows_content_and_nothing_else() -> None:
    one, same = (episodes([2, 1], [0, 1, 2], [True, False]) for _ in range(2))
    other = episodes([2, 1], [0, 1, 2.5], [True, False])
    cut = episodes([2, 1], [0, 1, 2], [False, False])
    assert one.digest == same.digest == digest_of(one)
    assert len({one.digest, other.digest, cut.digest}) == 3


def test_a_terminal_step_inside_an_episode_is_refused() -> None:
    data = episodes([3], [0, 0, 0], [True])
    with pytest.raises(InvalidDataset, match="terminal"):
        make_dataset(
            observations=data.observations,
            actions=data.actions,
            rewards=data.rewards,
            terminals=np.array([True, False, True]),
            lengths=data.lengths,
            observation_space=data.observation_space,
            action_space=data.action_space,
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rewards", np.array([0, np.nan, 0], np.float32), "finite"),
        ("actions", np.array([0, 1, 9]), "actions"),
        ("actions", np.array([0, 1]), "2 rows"),
        ("observations", np.zeros((3, 2), np.float32), "shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field: str, value: np.ndarray, message: str) -> None:
    data = episodes([3], [0, 0, 0], [True])
    names = ("observations", "actions", "rewards", "terminals", "observation_space", "action_space")
    parts = {name: getattr(data, name) for name in names} | {field: value}
    with pytest.raises(InvalidDataset, match=message):
        make_dataset(**parts, lengths=data.lengths)


def test_datasets_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        episodes([1], [0], [True]).digest = "x"  # type: ignore[misc]


def test_the_card_counts_episodes_that_were_cut_off() -> None:
    card = statistics_card(episodes([2, 1], [1, 1, 5], [True, False]))
    assert card["cut_off_episodes"] == 1
    assert card["return_max"] == 5
    assert card["best_episode"] == 1
    assert sum(card["return_histogram"]["counts"]) == 2


@pytest.mark.parametrize("reward", [0.0, 1.0, -3e30])
def test_equal_returns_have_one_bar(reward: float) -> None:
    histogram = statistics_card(episodes([2, 2], [reward] * 4, [True, True]))["return_histogram"]
    low, high = histogram["edges"]
    assert histogram["counts"] == [2]
    assert low < np.float32(2 * reward) < high


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(4),
        gym.spaces.Discrete(3, start=2),
        gym.spaces.Box(-1, 1, (2, 3)),
        gym.spaces.Box(-np.inf, np.inf, (2,)),
        gym.spaces.Box(np.array([-1.0, -np.inf]), np.array([1.0, 5.0]), dtype=np.float64),
        gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
    ],
)
def test_spaces_survive_json(space: gym.Space) -> None:
    assert space_from_json(space_to_json(space)) == space


def test_keep_is_best_then_at_least_and_everything_by_default() -> None:
    data = episodes([2, 2, 2], [0, 1, 0, 2, 0, 3], [True] * 3)
    assert data.keep() is data
    assert data.keep(best_fraction=0.7).returns.tolist() == [2, 3]
    assert data.keep(best_fraction=0.7, minimum_return=3).returns.tolist() == [3]
    with pytest.raises(InvalidValue, match="fraction"):
        data.keep(best_fraction=1.5)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8])
def test_moments_are_numpys_whatever_the_number_of_parts(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MOMENT_ROWS", 7)
    values = (100 + 50 * np.random.default_rng(0).standard_normal((100, 3))).astype(kind)
    mean, std = dataset.mean_and_std(values)
    np.testing.assert_allclose(mean, values.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=0, dtype=np.float64), rtol=1e-12)


def test_constant_columns_are_named_and_not_blown_up() -> None:
    data = toy_dataset(discrete_actions=False)
    observations = data.observations.copy()
    observations[:, 1], observations[:, 3] = 0.1, 1e30
    constant = dataclasses.replace(data, observations=observations)
    assert statistics_card(constant)["constant_observations"] == [1, 3]
    mean, std = observation_moments(constant)
    assert std[[1, 3]].tolist() == [1, 1]
    assert ((observations - mean.astype(np.float32))[:, 1] == 0).all()


@pytest.mark.parametrize(("factor", "offset"), [(1e-20, 0), (1e30, 0), (1, 1e6)])
def test_columns_of_any_size_are_finite_when_normalised(factor: float, offset: float) -> None:
    data = toy_dataset(discrete_actions=False)
    observations = data.observations.copy()
    observations[:, 0] = observations[:, 0] * factor + offset
    mean, std = observation_moments(dataclasses.replace(data, observations=observations))
    scaled = (observations - mean.astype(np.float32)) / (std + 1e-6).astype(np.float32)
    assert np.isfinite(scaled).all()
    assert abs(scaled).max() < 10
