"""D4RL's HDF5 layout: flat arrays cut into whole episodes, read and written."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.files import atomic_path
from dtbench.data.hdf5 import HDF5_ERRORS, INTACT, check_room, numeric_column, text_of
from dtbench.errors import InvalidDataset, MissingDataset, one_line

Array = NDArray[Any]
KEYS = ("observations", "actions", "rewards", "terminals")
FLAGS = {  # D4RL's names, and the keys that are read for them, the first that exists
    "terminals": ("terminals", "terminations"),
    "timeouts": ("timeouts", "truncations"),
    "dones": ("dones", "episode_terminals"),  # terminal or timeout
}
FOLLOWING = "next_observations"
WRITER = "dtbench"
BELIEVED = ("generated", "file")  # beginnings of sources that a file may claim: they are no real data
ACTION_ROUNDING = 1e-5  # by which an action may exceed its bounds, relative to them: float32 and tanh round

_COPY = "python -c \"import h5py, numpy as np; f = h5py.File('my.hdf5', 'w'); {}\""
_RECIPES = {
    ".npz": "Convert it: " + _COPY.format("[f.create_dataset(k, data=v) for k, v in np.load('my.npz').items()]"),
    ".csv": "Write its columns as HDF5, as docs/howto/dataset.md shows.",
    ".pkl": "Pickles are code and never read: write its arrays as HDF5, as docs/howto/dataset.md shows.",
}


def read_d4rl(
    path: Path,
    *,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    horizon: int | None,
    clip_actions: bool = False,
    info: Mapping[str, Any] | None = None,
) -> TrajectoryDataset:
    """Read a file in D4RL's layout; numbers become float32, an unfinished last episode is dropped.

    An episode ends at a terminal or a timeout, and a terminal has priority over a timeout of the same step. Without
    `timeouts` it ends where `next_observations` are not those of the next row, or else after `horizon` steps at the
    latest, as in D4RL's old files, where an episode truncated earlier is joined to the next; without a `horizon` such
    a file is refused. `next_observations` give the final observations, unless they disagree with the following rows,
    as in some files: `info["next_observations"]` says so. Gymnasium's names of flags are read too, other keys
    (infos/*, metadata/*) are ignored. `clip_actions` moves actions to their bounds, and `info` counts them.

    Raises MissingDataset where there is no file, and InvalidDataset, with file and key, for any other layout.
    """
    if not path.is_file():
        raise MissingDataset(f"no file {path}.")
    spaces = {"observations": observation_space, "actions": action_space}
    columns = _read(path, spaces)
    notes = {**(info or {})}
    arrays = {key: _as_space(path, key, columns[key], space) for key, space in spaces.items()}
    arrays["rewards"] = _finite(path, "rewards", columns["rewards"])
    arrays["actions"], outside = _bounded(path, arrays["actions"], action_space, clip=clip_actions)
    if outside:
        notes["clipped_actions"] = outside
    flags = {key: _flags(path, key, columns[key]) for key in FLAGS if key in columns}
    arrays["terminals"], ends, found = _ends(path, flags, arrays["observations"], horizon)
    if found != "timeouts":
        notes["episodes_end_by"] = found
    if not len(ends):
        steps = len(arrays["terminals"])
        raise InvalidDataset(f"{path}: no episode ends within its {steps} steps: see terminals and timeouts.")
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
            info={**notes, "unfinished_steps": len(arrays["terminals"]) - whole, FOLLOWING: state},
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
    """Return the source of the data of a file that `write_d4rl` wrote; None for any other file.

    Anybody can write such a file, so that real data is only what the file says of itself.
    """
    try:
        with h5py.File(path, "r") as file:
            writer, source = (text_of(path, file, f"metadata/{key}") for key in ("written_by", "source"))
    except (*HDF5_ERRORS, InvalidDataset):
        return None
    if writer != WRITER or not re.fullmatch(r"[\w .:/+-]{1,80}", source):
        return None
    return source if source.startswith(BELIEVED) else f"file (says {source})"


def _read(path: Path, spaces: Mapping[str, gym.Space[Any]]) -> dict[str, Array]:
    """Return the arrays of the file by D4RL's names, all with one row a step; check sizes before reading."""
    try:
        with h5py.File(path, "r") as file:
            keys = {key: key for key in ("rewards", *spaces)} | _flag_keys(path, file)
            columns = {name: numeric_column(path, file, key) for name, key in keys.items()}
            _check_shapes(path, columns, spaces)
            check_room(path, list(columns.values()))
            return {name: _values(path, name, column, spaces.get(name)) for name, column in columns.items()}
    except HDF5_ERRORS as error:
        reason = one_line(str(error), 200).strip("'\"") or type(error).__name__
        remedy = _RECIPES.get(path.suffix.lower(), INTACT)
        raise InvalidDataset(f"{path} cannot be read as HDF5: {reason}. {remedy}") from error


def _flag_keys(path: Path, file: Any) -> dict[str, str]:
    """Return the keys of the file that hold `terminals`, `timeouts` or what stands for them."""
    found = {name: key for name, keys in FLAGS.items() for key in reversed(keys) if key in file}
    if "terminals" in found:
        done = found.pop("dones", None)
        found = ({"timeouts": done} if done else {}) | found
    elif "dones" not in found:
        found["terminals"] = "terminals"  # whose absence is reported
    return found


def _ends(
    path: Path, flags: Mapping[str, NDArray[np.bool_]], observations: Array, horizon: int | None
) -> tuple[NDArray[np.bool_], NDArray[np.int64], str]:
    """Return the terminals, the last step of every episode, and where it was read."""
    either = flags["terminals"] if "terminals" in flags else flags["dones"]
    if "timeouts" in flags:
        terminals = either if "terminals" in flags else either & ~flags["timeouts"]
        return terminals, np.flatnonzero(either | flags["timeouts"]), "timeouts"
    if "terminals" in flags and horizon is None:
        ends = _ends_by_following(path, observations, either)
        if ends is not None:
            return either, ends, FOLLOWING
    if horizon is None:
        raise InvalidDataset(
            f"{path}: no key 'timeouts', so that nothing tells where an episode was cut off. Add it, or "
            "next_observations, or set task_options.episode_length=N, the most steps of an episode: one ends at "
            f"{'a terminal' if 'terminals' in flags else 'a done, which at step N is a timeout'} or after N steps."
        )
    ends = _ends_by_horizon(either, horizon)
    late = np.zeros(len(either), bool)
    late[ends[np.diff(ends, prepend=-1) == horizon]] = "terminals" not in flags
    return either & ~late, ends, f"episode_length {horizon}"


def _ends_by_following(path: Path, observations: Array, terminals: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Return the last steps of episodes by `next_observations`; None where they do not fit most of the rows.

    The last row ends an episode where that is as long as the longest.
    """
    following, _ = _following(path, observations)
    if following is None:
        return None
    ended = terminals.copy()
    ended[:-1] |= _differ(following[:-1], observations[1:])
    if 2 * ended.sum() > len(ended):
        return None
    ends = np.flatnonzero(ended)
    rest = len(ended) - 1 - (ends[-1] if len(ends) else -1)
    if rest and rest >= np.diff(ends, prepend=-1).max(initial=1):
        ends = np.append(ends, len(ended) - 1)
    return ends


def _following(path: Path, observations: Array) -> tuple[Array | None, str]:
    """Return `next_observations` of the file's rows, or None and why not."""
    try:
        with h5py.File(path, "r") as file:
            if file.get(FOLLOWING, getlink=True) is None:
                return None, "absent"
            column = numeric_column(path, file, FOLLOWING)
            if math.prod(column.shape[1:]) != math.prod(observations.shape[1:]) or len(column) < len(observations):
                return None, f"ignored: shape {column.shape}"
            check_room(path, [column])
            rows: Array = column[: len(observations)]
    except (*HDF5_ERRORS, InvalidDataset):
        return None, "ignored: cannot be read"
    return rows.reshape(observations.shape).astype(observations.dtype), "used"


def _final_observations(path: Path, observations: Array, ends: NDArray[np.int64]) -> tuple[Array | None, str]:
    """Return the final observations, [E, *observation] or None, and the state of the file's key."""
    following, state = _following(path, observations)
    if following is None:
        return None, state
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


def _check_shapes(path: Path, columns: Mapping[str, Any], spaces: Mapping[str, gym.Space[Any]]) -> None:
    """Raise InvalidDataset for unread columns of unequal lengths or of rows that do not fit; [N, 1] is [N]."""
    steps = len(columns["rewards"])
    if not steps:
        raise InvalidDataset(f"{path}: 'rewards' is empty.")
    for key, column in columns.items():
        if len(column) != steps:
            raise InvalidDataset(f"{path}: {key!r} has {len(column)} rows where 'rewards' has {steps}.")
        shape, row = spaces[key].shape if key in spaces else (), column.shape[1:]
        if row == shape or (row, shape) in (((1,), ()), ((), (1,))):
            continue
        if key not in spaces:
            raise InvalidDataset(f"{path}: {key!r} has shape {column.shape}, not [N] or [N, 1].")
        one_hot = isinstance(spaces[key], gym.spaces.Discrete) and row == (int(spaces[key].n),)  # type: ignore[attr-defined]
        mend = " Write their argmax(axis=1)." if one_hot else ""
        raise InvalidDataset(f"{path}: {key!r} has rows of shape {row}, the task's have {shape}.{mend}")


def _values(path: Path, key: str, column: Any, space: gym.Space[Any] | None) -> Array:
    """Read a column; its rows get the shape of the space, that of a number without one."""
    try:
        array: Array = column[()]
    except HDF5_ERRORS as error:
        raise InvalidDataset(f"{path}: {key!r} cannot be read: {error}. {INTACT}") from error
    return array.reshape(len(array), *((space.shape or ()) if space else ()))


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
    """Return integers where the space has integers, also those written as floats, else finite float32."""
    if space.dtype is None or np.issubdtype(space.dtype, np.floating):
        return _finite(path, key, values)
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole = np.nan_to_num(values).clip(-(2.0**31), 2.0**31 - 1).astype(np.int64)
    wrong = np.flatnonzero((whole != values).reshape(len(values), -1).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        raise InvalidDataset(
            f"{path}: {key!r} holds {values[row].tolist()} in row {row}, the task has integers: {space}."
        )
    return whole


def _finite(path: Path, key: str, values: Array) -> Array:
    with np.errstate(over="ignore"):  # too large for float32 becomes inf
        values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
        raise InvalidDataset(f"{path}: {key!r} holds {values[row].tolist()} in row {row}: not finite as float32.")
    return values


def _bounded(path: Path, actions: Array, space: gym.Space[Any], *, clip: bool) -> tuple[Array, int]:
    """Return actions within their bounds, up to rounding, and how many rows were clipped for it."""
    if not isinstance(space, gym.spaces.Box):
        return actions, 0
    slack = ACTION_ROUNDING * np.maximum(1, np.maximum(abs(space.low), abs(space.high)))
    low, high = space.low - slack, space.high + slack
    if (actions.min(axis=0) >= low).all() and (actions.max(axis=0) <= high).all():
        return actions, 0
    rows = np.flatnonzero(((actions < low) | (actions > high)).reshape(len(actions), -1).any(axis=1))
    if not clip:
        raise InvalidDataset(
            f"{path}: 'actions' holds {actions[rows[0]].tolist()} in row {rows[0]}, outside of {space}, as in "
            f"{len(rows)} of {len(actions)} rows. Where that is noise, set task_options.clip_actions=true."
        )
    return np.clip(actions, space.low, space.high).astype(actions.dtype), len(rows)


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
