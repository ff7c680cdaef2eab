"""A dataset as what RLlib's offline API reads: Parquet files of one row a transition, in the store, written once."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from baselines.networks import action_scale, flat_observations
from dtbench import TrajectoryDataset
from dtbench.data import data_root

RECIPE = 1  # of the layout: another one gets another folder
FOLLOWED, CUT_OFF = "followed", "cut-off"  # folders of steps whose successor is known, or the episode's end, or not
FILES = 64  # at most; each seed reads them in an order of its own
LEAST_ROWS = 500  # of a file, but the last


def export(dataset: TrajectoryDataset) -> Path:
    """Write the dataset for RLlib, or find it written; give the folder of both folders.

    Observations are flat numbers (indices become one-hot), discrete actions count from 0, others lie in [-1, 1]: so
    RLlib's modules expect them. `terminateds` is the environment's end, `truncateds` a cut-off, whose `new_obs`
    repeats `obs` because nobody knows it. Rows are shuffled once, since RLlib makes its batches of neighbours.
    """
    folder: Path = data_root() / f"rllib-{dataset.digest[:16]}-recipe{RECIPE}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            _write(dataset, temporary)
            _move_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def features(observations: NDArray[Any], space: gym.Space[Any]) -> NDArray[np.float32]:
    """Observations of single steps as flat numbers, [N, features]."""
    flat = flat_observations(torch.from_numpy(np.array(observations)), space)
    return np.ascontiguousarray(flat.numpy(), np.float32)


def transitions(dataset: TrajectoryDataset) -> dict[str, NDArray[Any]]:
    """The columns that RLlib reads, a row for each step, in the order of the data."""
    steps = np.arange(dataset.num_steps)
    last = dataset.offsets[1:] - 1
    following = np.minimum(steps + 1, dataset.num_steps - 1)
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
    scale = action_scale(dataset.action_space, torch.device("cpu"))
    unit = scale.to_unit(torch.from_numpy(np.array(dataset.actions)))
    return np.ascontiguousarray(unit.clamp(-1, 1).numpy(), np.float32)


def _write(dataset: TrajectoryDataset, folder: Path) -> None:
    columns = transitions(dataset)
    order = np.random.default_rng(0).permutation(dataset.num_steps)
    cut_off = columns["truncateds"][order]
    for name, rows in ((FOLLOWED, order[~cut_off]), (CUT_OFF, order[cut_off])):
        (folder / name).mkdir()
        files = max(1, min(FILES, len(rows) // LEAST_ROWS)) if len(rows) else 0
        for number, part in enumerate(np.array_split(rows, files) if files else ()):
            table = pa.table({column: _column(values[part]) for column, values in columns.items()})
            pq.write_table(table, folder / name / f"part-{number:03d}.parquet")


def _column(values: NDArray[Any]) -> Any:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _move_into_place(temporary: Path, folder: Path) -> None:
    # mkdtemp's folders are for the user alone; a store may be shared.
    temporary.chmod(0o777 & ~_umask())
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another trial was faster, and its files are the same
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
