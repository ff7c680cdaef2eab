"""What follows a cut-off: kept, read, written and drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dtbench import TrajectoryDataset, TransitionSampler, make_dataset
from dtbench.data import cache
from dtbench.data.d4rl_hdf5 import read_d4rl, write_d4rl
from dtbench.data.dataset import statistics_card
from dtbench.errors import InvalidDataset

SEEING = spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACTING = spaces.Box(-1, 1, (1,), np.float32)


def dataset(**changes: Any) -> TrajectoryDataset:
    """Steps 0 and 1 that end with a fall, steps 2 to 4 that are cut off; observation i is i, finals are 10 and 20."""
    parts: dict[str, Any] = {
        "observations": np.arange(5, dtype=np.float32)[:, None],
        "actions": np.float32([[0], [1], [-1], [0.5], [0]]),
        "rewards": np.arange(5, dtype=np.float32),
        "terminals": np.array([False, True, False, False, False]),
        "lengths": np.array([2, 3]),
        "observation_space": SEEING,
        "action_space": ACTING,
        "final_observations": np.float32([[10], [20]]),
        **changes,
    }
    return make_dataset(**parts)


def drawn(data: TrajectoryDataset) -> dict[float, tuple[float, bool]]:
    """What follows each observation, and whether it is terminal."""
    sampler = TransitionSampler(data, batch_size=200, rng=np.random.default_rng(0), device=torch.device("cpu"))
    batch = sampler.sample()
    rows = zip(batch.observations[:, 0], batch.next_observations[:, 0], batch.terminals, strict=True)
    return {float(here): (float(there), bool(terminal)) for here, there, terminal in rows}


def test_the_last_step_of_a_cut_off_episode_leads_to_its_final_observation() -> None:
    assert drawn(dataset()) == {0: (1, False), 1: (0, True), 2: (3, False), 3: (4, False), 4: (20, False)}


def test_without_finals_that_step_is_left_out_and_counted() -> None:
    bare = dataset(final_observations=None)
    assert drawn(bare) == {0: (1, False), 1: (0, True), 2: (3, False), 3: (4, False)}
    assert (bare.unknown_transitions, dataset().unknown_transitions) == (1, 0)
    assert statistics_card(bare)["unknown_transitions"] == 1


def test_td_learners_see_the_delayed_reward_of_an_episode_that_was_cut_off() -> None:
    sampler = TransitionSampler(
        dataset().delayed(), batch_size=200, rng=np.random.default_rng(0), device=torch.device("cpu")
    )
    assert set(sampler.sample().rewards.tolist()) == {0.0, 1.0, 9.0}  # 0 + 1, and 2 + 3 + 4


def test_finals_are_part_of_the_digest_and_go_with_their_episodes() -> None:
    assert dataset().digest != dataset(final_observations=None).digest
    assert dataset().digest != dataset(final_observations=np.float32([[10], [21]])).digest
    chosen = dataset().select([1])
    assert chosen.final_observations is not None
    assert chosen.final_observations.tolist() == [[20]]


def test_they_come_back_from_the_store_and_from_a_file(tmp_path: Path) -> None:
    cache.save(dataset(), tmp_path / "kept")
    assert cache.load(tmp_path / "kept", verify=True).digest == dataset().digest
    write_d4rl(dataset(), tmp_path / "a.hdf5")
    read = read_d4rl(tmp_path / "a.hdf5", observation_space=SEEING, action_space=ACTING, horizon=9)
    assert read.digest == dataset().digest
    (tmp_path / "kept" / "final_observations.npy").unlink()
    with pytest.raises(InvalidDataset, match="cannot be read"):
        cache.load(tmp_path / "kept")


@pytest.mark.parametrize(
    ("following", "state"),
    [
        (np.float32([[1], [10], [3], [4], [20]]), "used"),
        (np.float32([[1], [10], [9], [4], [20]]), "ignored: row 2 is not the observation of the row after it"),
        (np.float32([[1], [10], [3], [4], [np.nan]]), "ignored: not finite"),
        (np.zeros((5, 2), np.float32), "ignored: shape (5, 2)"),
        (np.zeros((3, 1), np.float32), "ignored: shape (3, 1)"),
        (None, "absent"),
    ],
)
def test_next_observations_of_a_file_are_used_where_they_are_those_of_the_rows(
    tmp_path: Path, following: Any, state: str
) -> None:
    write_d4rl(dataset(final_observations=None), tmp_path / "a.hdf5")
    if following is not None:
        with h5py.File(tmp_path / "a.hdf5", "r+") as file:
            file["next_observations"] = following
    read = read_d4rl(tmp_path / "a.hdf5", observation_space=SEEING, action_space=ACTING, horizon=9)
    assert read.info["next_observations"] == state
    assert (read.final_observations is not None) == (state == "used")


@pytest.mark.parametrize(
    ("final", "state"),
    [
        (np.zeros((3, 1), np.float32), "3 rows for 2 episodes"),
        (np.zeros((2, 2), np.float32), "have shape"),
        (np.zeros((2, 1), np.float64), "holds float64"),
        (np.full((2, 1), np.inf, np.float32), "not finite"),
    ],
)
def test_finals_that_do_not_fit_are_refused(final: Any, state: str) -> None:
    with pytest.raises(InvalidDataset, match=state):
        dataset(final_observations=final)


def test_the_card_tells_how_many_action_numbers_lie_on_a_bound() -> None:
    assert statistics_card(dataset())["actions_on_bound"] == pytest.approx(2 / 5)
    unbounded = replace(dataset(), action_space=spaces.Box(-np.inf, np.inf, (1,), np.float32))
    assert statistics_card(unbounded)["actions_on_bound"] is None
