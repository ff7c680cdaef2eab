"""Export of a dataset for RLlib's offline API: Parquet files of one row a transition, cached beside the datasets."""

import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from baselines.networks import flat_observations
from dtbench import TrajectoryDataset
from dtbench.data import data_root

RECIPE = 1  # of the layout; part of the directory's name
FOLLOWED, CUT_OFF = "followed", "cut-off"  # directories of steps with known or without successor, and of others
FILES = 64  # at most; each seed reads them in an order of its own
LEAST_ROWS = 500  # of a file, but the last


def export(dataset: TrajectoryDataset) -> Path:
    """Write the dataset for RLlib unless it is written; return the directory that holds `FOLLOWED` and `CUT_OFF`.

    Observations are flat numbers (indices become one-hot), discrete actions count from 0, others lie in [-1, 1], as
    RLlib's modules expect. `terminateds` is the environment's end, `truncateds` a cut-off, whose unknown `new_obs`
    repeats `obs`. Rows are shuffled once, since RLlib makes its batches of neighbours.
    """
    folder: Path = data_root() / f"rllib-{dataset.digest[:16]}-recipe{RECIPE}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            # Written one level down, as the temporary directory itself is for this user alone.
            written = Path(temporary) / "export"
            _write(dataset, written)
            _move_into_place(written, folder)
    return folder


def features(observations: NDArray[Any], space: gym.Space[Any]) -> NDArray[np.float32]:
    """Flatten observations of single steps, [N, features]."""
    flat = flat_observations(torch.from_numpy(np.array(observations)), space)
    return np.ascontiguousarray(flat.numpy(), np.float32)


def transitions(dataset: TrajectoryDataset) -> dict[str, NDArray[Any]]:
    """Return the columns that RLlib reads, one row a step, in the order of the data."""
    steps = np.arange(dataset.num_steps)
    last = dataset.offsets[1:] - 1
    following = steps + 1
    following[last] = last
    terminals = np.array(dataset.terminals, bool)
    cut_off = np.zeros(dataset.num_steps, bool)
    cut_off[last] = ~terminals[last]
    observations = features(dataset.observations_at(steps), dataset.observation_space)
    return {
        "eps_id": np.repeat(np.arange(dataset.num_episodes), dataset.lengths),
        "obs": observations,
        "actions": _actions(dataset),
        "rewards": np.asarray(dataset.rewards, np.float32),
        "new_obs": observations[following],
        "terminateds": terminals,
        "truncateds": cut_off,
    }


def _actions(dataset: TrajectoryDataset) -> NDArray[Any]:
    if isinstance(dataset.action_space, gym.spaces.Discrete):
        return np.asarray(dataset.actions, np.int64) - int(dataset.action_space.start)
    return np.asarray(dataset.actions, np.float32).clip(-1, 1)


def _write(dataset: TrajectoryDataset, folder: Path) -> None:
    columns = transitions(dataset)
    order = np.random.default_rng(0).permutation(dataset.num_steps)
    cut_off = columns["truncateds"][order]
    for name, rows in ((FOLLOWED, order[~cut_off]), (CUT_OFF, order[cut_off])):
        (folder / name).mkdir(parents=True)
        files = max(1, min(FILES, len(rows) // LEAST_ROWS)) if len(rows) else 0
        for number, part in enumerate(np.array_split(rows, files) if files else ()):
            table = pa.table({column: _column(values[part]) for column, values in columns.items()})
            pq.write_table(table, folder / name / f"part-{number:03d}.parquet")


def _column(values: NDArray[Any]) -> Any:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _move_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another trial was faster; its files are the same
            raise
