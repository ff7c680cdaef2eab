"""D4RL's HDF5 layout: flat arrays cut into whole episodes, read and written."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.files import atomic_path
from dtbench.errors import InvalidDataset, MissingDataset, one_line

Array = NDArray[Any]
HDF5_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError)  # of h5py, for damaged files
KEYS = ("observations", "actions", "rewards", "terminals")
FOLLOWING = "next_observations"
WRITER = "dtbench"
ACTION_ROUNDING = 1e-5  # by which an action may exceed its bounds, relative to them: float32 and tanh round

_MOST_PACKED = 1100  # to one: DEFLATE reaches at most 1032
_UNWRITTEN = 2**26  # bytes that may be left at their fill value, as flags that are all False


def read_d4rl(
    path: Path,
    *,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    horizon: int,
    info: Mapping[str, Any] | None = None,
) -> TrajectoryDataset:
    """Read a file in D4RL's layout; numbers become float32, an unfinished last episode is dropped.

    An episode ends at a terminal or a timeout; in an old file without `timeouts` after `horizon` steps at the latest,
    where an episode truncated earlier is joined to the next. A terminal has priority over a timeout of the same step.
    `next_observations` give the final observations, unless they disagree with the following rows, as in some files:
    `info["next_observations"]` says so. Other keys (infos/*, metadata/*) are
    ignored.

    Raises MissingDataset where there is no file, and InvalidDataset, with file and key, for any other layout.
    """
    if not path.is_file():
        raise MissingDataset(f"no file {path}.")
    columns = _read(path)
    for key in ("rewards", "terminals", "timeouts"):
        if key in columns:
            columns[key] = _flat(path, key, columns[key])
    _check_lengths(path, columns)
    terminals = _flags(path, "terminals", columns["terminals"])
    if "timeouts" in columns:
        ends = np.flatnonzero(terminals | _flags(path, "timeouts", columns["timeouts"]))
    else:
        ends = _ends_by_horizon(terminals, horizon)
    if not len(ends):
        raise InvalidDataset(f"{path}: no episode ends within its {len(terminals)} steps: see terminals and timeouts.")
    spaces = {"observations": observation_space, "actions": action_space}
    arrays = {key: _as_space(path, key, columns[key], space) for key, space in spaces.items()}
    arrays["rewards"] = _finite(path, "rewards", columns["rewards"])
    arrays["terminals"] = terminals
    _check_bounds(path, arrays["actions"], action_space)
    whole = int(ends[-1]) + 1
    final, state = _final_observations(path, arrays["observations"], ends)
    try:
        return make_dataset(
            observations=arrays["observations"][:whole],
            actions=arrays["actions"][:whole],
            rewards=arrays["rewards"][:whole],
            terminals=arrays["terminals"][:whole],
            lengths=np.diff(ends, prepend=-1),
            observation_space=observation_space,
            action_space=action_space,
            final_observations=final,
            info={**(info or {}), "unfinished_steps": len(terminals) - whole, FOLLOWING: state},
        )
    except InvalidDataset as error:
        raise InvalidDataset(f"{path}: {error}") from error


def write_d4rl(
    dataset: TrajectoryDataset, path: Path, *, timeouts: bool = True, compression: str | None = "gzip"
) -> None:
    """Write a dataset in D4RL's layout, float32, atomically; `read_d4rl` returns it with the same digest.

    `metadata/` has the source of the data. `next_observations` are written where final observations are known.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "written_by": WRITER,
        "source": str(dataset.info.get("source", "unknown")),
        "digest": dataset.digest,
        "info": json.dumps(dict(dataset.info), sort_keys=True),
    }
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for key, array in _columns(dataset, timeouts).items():
            file.create_dataset(key, data=array, compression=compression)
        for key, text in facts.items():
            file[f"metadata/{key}"] = text


def exported_source(path: Path) -> str | None:
    """Return the source of the data of a file that `write_d4rl` wrote; None for any other file."""
    try:
        with h5py.File(path, "r") as file:
            written = {key: own_value(path, file, f"metadata/{key}").asstr()[()] for key in ("written_by", "source")}
    except (*HDF5_ERRORS, InvalidDataset):
        return None
    source = written["source"]
    named = written["written_by"] == WRITER and isinstance(source, str) and re.fullmatch(r"[\w .:/+-]{1,80}", source)
    return str(source) if named else None


def _read(path: Path) -> dict[str, Array]:
    try:
        with h5py.File(path, "r") as file:
            present = [*KEYS, "timeouts"] if "timeouts" in file else KEYS
            columns = {key: numeric_column(path, file, key) for key in present}
            check_room(path, list(columns.values()))
            return {key: _values(path, key, column) for key, column in columns.items()}
    except HDF5_ERRORS as error:
        reason = one_line(str(error), 200).strip("'\"") or type(error).__name__
        raise InvalidDataset(
            f"{path} cannot be read as HDF5: {reason}. Delete it and fetch it again: it may be cut short."
        ) from error


def _final_observations(path: Path, observations: Array, ends: NDArray[np.int64]) -> tuple[Array | None, str]:
    """Return the final observations, [E, *observation] or None, and the state of the file's key."""
    try:
        with h5py.File(path, "r") as file:
            if file.get(FOLLOWING, getlink=True) is None:
                return None, "absent"
            column = numeric_column(path, file, FOLLOWING)
            if column.shape != (column.shape[0], *observations.shape[1:]) or len(column) < len(observations):
                return None, f"ignored: shape {column.shape}"
            check_room(path, [column])
            following = column[: len(observations)]
    except (*HDF5_ERRORS, InvalidDataset):
        return None, "ignored: cannot be read"
    following = following.astype(observations.dtype)
    inner = np.ones(len(observations), bool)
    inner[ends] = False
    inner[-1] = False
    rows = np.flatnonzero(inner)
    wrong = rows[_differ(following[rows], observations[rows + 1])]
    if len(wrong):
        return None, f"ignored: row {wrong[0]} is not the observation of the row after it"
    final = following[ends]
    if np.issubdtype(final.dtype, np.floating) and not np.isfinite(final).all():
        return None, "ignored: not finite"
    return final, "used"


def _differ(left: Array, right: Array) -> NDArray[np.bool_]:
    """Return which rows differ by more than rounding."""
    near: NDArray[np.bool_] = np.isclose(left, right, rtol=1e-4, atol=1e-4).reshape(len(left), -1)
    different: NDArray[np.bool_] = np.logical_not(near).max(axis=1)
    return different


def numeric_column(path: Path, file: Any, key: str) -> Any:
    """Return the unread array of a key, e.g. infos/qpos; raise InvalidDataset unless it holds numbers."""
    if file.get(key, getlink=True) is None:
        raise InvalidDataset(
            f"{path}: no key {key!r}. It holds: {one_line(', '.join(sorted(file)), 200) or 'nothing'}."
        )
    found = own_value(path, file, key)
    if not isinstance(found, h5py.Dataset):
        raise InvalidDataset(f"{path}: {key!r} is a group of {len(found)} entries, not an array.")
    if found.dtype.kind not in "biuf":
        raise InvalidDataset(f"{path}: {key!r} holds {found.dtype}, not numbers.")
    if not found.shape:
        raise InvalidDataset(f"{path}: {key!r} is one value, not an array with a row for each step.")
    if found.nbytes > found.id.get_storage_size() * _MOST_PACKED + _UNWRITTEN:
        raise InvalidDataset(
            f"{path}: {key!r} declares {found.nbytes} bytes and holds {found.id.get_storage_size()}. "
            "Delete the file and fetch it again."
        )
    return found


def own_value(path: Path, file: Any, key: str) -> Any:
    """Return the item of a key; links are refused, as they may lead to any file."""
    item = file
    for part in key.split("/"):
        if not isinstance(item, h5py.Group) or item.get(part, getlink=True) is None:
            raise InvalidDataset(f"{path}: no key {key!r}.")
        if isinstance(item.get(part, getlink=True), h5py.ExternalLink | h5py.SoftLink):
            raise InvalidDataset(f"{path}: {key!r} is a link. Put the array itself into the file.")
        item = item[part]
    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise InvalidDataset(f"{path}: {key!r} lies in other files. Put the array itself into the file.")
    return item


def read_column(path: Path, file: Any, key: str) -> Array:
    """Return the numbers of a key; raise InvalidDataset where there are none or memory does not suffice."""
    column = numeric_column(path, file, key)
    check_room(path, [column])
    values: Array = column[()]
    return values


def check_room(path: Path, columns: Sequence[Any]) -> None:
    """Raise InvalidDataset for columns that do not fit into this machine's memory."""
    needed, free = sum(column.nbytes for column in columns), _memory()
    if needed > free:
        raise InvalidDataset(f"{path} needs {needed} bytes of memory, and {free} are free. Use a larger machine.")


def _memory() -> int:
    """Return the available bytes of memory; without limit where the system does not state them."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return sys.maxsize


def _values(path: Path, key: str, column: Any) -> Array:
    try:
        array: Array = column[()]
    except HDF5_ERRORS as error:
        raise InvalidDataset(
            f"{path}: {key!r} cannot be read: {error}. Delete the file and fetch it again."
        ) from error
    return array


def _flat(path: Path, key: str, values: Array) -> Array:
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.ndim != 1:
        raise InvalidDataset(f"{path}: {key!r} has shape {values.shape}, not [N] or [N, 1].")
    return values


def _check_lengths(path: Path, columns: Mapping[str, Array]) -> None:
    steps = len(columns["rewards"])
    if not steps:
        raise InvalidDataset(f"{path}: 'rewards' is empty.")
    for key, values in columns.items():
        if len(values) != steps:
            raise InvalidDataset(f"{path}: {key!r} has {len(values)} rows where 'rewards' has {steps}.")


def _flags(path: Path, key: str, values: Array) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = values.astype(bool)
    wrong = np.flatnonzero(values != flags)  # nan, 2 or -1
    if len(wrong):
        raise InvalidDataset(f"{path}: {key!r} holds {values[wrong[0]]} in row {wrong[0]}, not 0 or 1.")
    return flags


def _ends_by_horizon(terminals: NDArray[np.bool_], horizon: int) -> NDArray[np.int64]:
    """Return the last step of every episode without timeouts: a terminal, or the `horizon`-th step."""
    starts = np.concatenate([[0], np.flatnonzero(terminals) + 1])
    lengths = np.diff(starts, append=len(terminals))
    step = np.arange(len(terminals)) - np.repeat(starts, lengths)
    return np.flatnonzero(terminals | (step % horizon == horizon - 1))


def _as_space(path: Path, key: str, values: Array, space: gym.Space[Any]) -> Array:
    """Return integers where the space has integers, else finite float32, of the space's shape."""
    if values.shape[1:] != space.shape:
        raise InvalidDataset(f"{path}: {key!r} has rows of shape {values.shape[1:]}, the task's have {space.shape}.")
    if space.dtype is not None and not np.issubdtype(space.dtype, np.floating):
        if not np.issubdtype(values.dtype, np.integer):
            raise InvalidDataset(f"{path}: {key!r} holds {values.dtype}, the task has integers: {space}.")
        return values
    return _finite(path, key, values)


def _finite(path: Path, key: str, values: Array) -> Array:
    with np.errstate(over="ignore"):  # too large for float32 becomes inf
        values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
        raise InvalidDataset(f"{path}: {key!r} holds {values[row].tolist()} in row {row}: not finite as float32.")
    return values


def _check_bounds(path: Path, actions: Array, space: gym.Space[Any]) -> None:
    if not isinstance(space, gym.spaces.Box):
        return
    slack = ACTION_ROUNDING * np.maximum(1, np.maximum(abs(space.low), abs(space.high)))
    low, high = space.low - slack, space.high + slack
    if (actions.min(axis=0) < low).any() or (actions.max(axis=0) > high).any():
        outside = (actions < low) | (actions > high)
        row = int(np.flatnonzero(outside.reshape(len(actions), -1).any(axis=1))[0])
        raise InvalidDataset(f"{path}: 'actions' holds {actions[row].tolist()} in row {row}, outside of {space}.")


def _columns(dataset: TrajectoryDataset, timeouts: bool) -> dict[str, Array]:
    columns = {key: np.asarray(getattr(dataset, key)) for key in KEYS}
    if dataset.final_observations is not None:
        following = np.concatenate([columns["observations"][1:], columns["observations"][:1]])
        following[dataset.offsets[1:] - 1] = dataset.final_observations
        columns[FOLLOWING] = following
    columns = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in columns.items()}
    if timeouts:
        columns["timeouts"] = np.zeros(dataset.num_steps, bool)
        columns["timeouts"][dataset.offsets[1:] - 1] = True
        columns["timeouts"] &= ~columns["terminals"]
    return columns
