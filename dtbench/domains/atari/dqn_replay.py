"""The DQN-replay shards (Agarwal et al. 2020): the 1 % of them that Chen et al. (2021) train on, read into the store.

A shard is one of 50 buffers of a DQN's training run: gzipped .npy files of a million frames, actions, clipped rewards
and terminals each. The transitions are those of the public code of Chen et al. (kzl/decision-transformer,
atari/create_dataset.py at f04280e, whose capacity of 100,000 was a million before); what it gets wrong is not copied:

* After a visit that ran into the capacity it drops the transitions but keeps the ends of their episodes.
* The first step of each episode but the first has the length of the episode before as its timestep, the others are one
  too small; until August 2021 returns-to-go were misaligned too. Here both follow from whole episodes.
* Its stacks contain frames of the previous episode. Here those are zeros.

Dopamine stores three transitions of zeros before each episode (circular_replay_buffer.py, `_add_zero_transition`).
They are part of the data there and here: all episodes begin with them but those that a shard's begin cuts.
"""

import gzip
import hashlib
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.errors import InvalidDataset, InvalidValue, MissingDataset

Array = NDArray[Any]

BUFFERS = 50  # of a DQN's run
FRAME_STACK = 4
FRAME = (84, 84)

_READER = 1  # part of an import's identity: raise it when the reader gives other arrays for the same files
_ROWS = 1024  # frames held in memory at once: 7 MB


@dataclass(frozen=True, slots=True)
class Visit:
    """Whole episodes read in one go: a buffer's entries `first` to `last`, which is a terminal."""

    buffer: int
    first: int
    last: int

    @property
    def steps(self) -> int:
        """The number of transitions read."""
        return self.last - self.first + 1


def find_shards(game: str) -> Path | None:
    """Return the directory with at least one complete shard of this game, or None.

    $DQN_REPLAY_DIR, by default ~/.dqn_replay, holds a directory of the game's name (in any capitalisation) with
    1/replay_logs or with the shards themselves; or it is, or is in, a directory of that name.
    """
    return next((folder for folder in _folders(game) if _complete(folder, range(BUFFERS))), None)


def find_parts(game: str) -> Path | None:
    """Return the directory with at least one file of a shard of this game, or None."""
    return next((folder for folder in _folders(game) if any(folder.glob("$store$_*"))), None)


def plan_visits(
    terminals: Mapping[int, NDArray[np.bool_]],
    *,
    steps: int,
    seed: int,
    num_buffers: int = BUFFERS,
    capacity: int = 100_000,
    trajectories_per_visit: int = 10,
) -> list[Visit]:
    """Return the visits that make up the data, in order, at least `steps` transitions (Chen et al. 2021).

    The last `num_buffers` of 50 are equally likely to be visited next, with the draws of numpy's global generator;
    one that is not among `terminals` (buffer -> [n]) is skipped. A visit continues where the last one to its buffer
    ended and reads `trajectories_per_visit` + 1 episodes, because the public code counts after it compares. One that
    would reach the end of the buffer, or its entry number `capacity`, reads nothing.

    Raises MissingDataset where no buffer can be visited, InvalidDataset where the buffers hold too few such episodes,
    and InvalidValue for options out of range.
    """
    _check_options(steps, num_buffers, capacity)
    drawn_from = _drawn_from(num_buffers)
    waiting = {
        buffer: deque(_visits(buffer, terminals[buffer][:capacity], trajectories_per_visit + 1))
        for buffer in drawn_from
        if buffer in terminals
    }
    if not waiting:
        raise MissingDataset(f"none of the buffers {drawn_from[0]} to {drawn_from[-1]} is there.")
    plan: list[Visit] = []
    left = steps
    rng = np.random.RandomState(seed)  # what numpy's global generator is in the public code
    while left > 0:
        if not any(waiting.values()):
            raise InvalidDataset(
                f"{steps} steps are too many: by visits of {trajectories_per_visit + 1} whole episodes within the "
                f"first {capacity} entries, the buffers {', '.join(map(str, waiting))} give {steps - left}."
            )
        drawn = int(rng.choice(drawn_from, 1)[0])
        if waiting.get(drawn):
            plan.append(waiting[drawn].popleft())
            left -= plan[-1].steps
    return plan


def load_shards(
    folder: Path,
    game: str,
    *,
    actions: int,
    steps: int = 500_000,
    seed: int = 123,
    num_buffers: int = BUFFERS,
    capacity: int = 100_000,
) -> TrajectoryDataset:
    """Open the transitions of `plan_visits`; they are read into the store when the files are new or have changed.

    Observations are stacks of the last four frames, [4, 84, 84] of bytes; `actions` is the size of the game's action
    set. A shard that lacks one of its four files is skipped and listed in `info`. While reading, the frames are
    twice on the store's disk: 7 GB for 500,000 steps.

    All but the frames is checked before any frame is read. The checksum of a file of frames covers all of it and is
    compared only where the frames needed are half of it or more; its length is always checked.

    Raises MissingDataset where no shard is complete, and InvalidDataset, with the file, for one that is broken.
    """
    _check_options(steps, num_buffers, capacity)
    present = _complete(folder, _drawn_from(num_buffers))
    if not present:
        raise MissingDataset(
            f"{game}: no complete shard in {folder}: each needs {', '.join(_file(c, 'N') for c in _COLUMNS)} with the "
            f"same N, {BUFFERS - num_buffers} to {BUFFERS - 1}. Put them there, or set DQN_REPLAY_DIR."
        )
    options = {"steps": steps, "seed": seed, "num_buffers": num_buffers, "capacity": capacity}
    key = hashlib.sha256(f"{_identity(folder, present)} {actions} {options} {_READER}".encode()).hexdigest()[:12]

    def make() -> TrajectoryDataset:
        terminals = _all_terminals(folder, present, capacity)
        try:
            plan = plan_visits(terminals, **options)
        except InvalidDataset as error:
            raise InvalidDataset(f"{folder}: {error} Add shards, or ask for fewer steps.") from error
        info = {"source": "dqn-replay", "game": game, **options, **_info(plan, present, num_buffers)}
        return _read(folder, plan, terminals, actions=actions, info=info)

    return cache.open_or_make(f"dqn-replay-{_plain(game)}-seed{seed}-{key}", make)


@dataclass(frozen=True, slots=True)
class _Column:
    """The array in one file of a shard: [n, *shape] of a type."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()


_OBSERVATION = _Column("observation", np.dtype("u1"), FRAME)
_ACTION = _Column("action", np.dtype("<i4"))
_REWARD = _Column("reward", np.dtype("<f4"))
_TERMINAL = _Column("terminal", np.dtype("u1"))
_COLUMNS = (_OBSERVATION, _ACTION, _REWARD, _TERMINAL)


def _folders(game: str) -> list[Path]:
    """Return the directories that may hold the shards of a game."""
    root = cache.directory_of(os.environ.get("DQN_REPLAY_DIR") or "~/.dqn_replay")
    own = [root] if any(_plain(part) == _plain(game) for part in root.parts) else []
    try:
        inside = sorted(root.iterdir()) if root.is_dir() else []
    except OSError as error:
        raise MissingDataset(
            f"{root} cannot be read: {error.strerror}. Set DQN_REPLAY_DIR to another directory."
        ) from error
    named = [*own, *(folder for folder in inside if _plain(folder.name) == _plain(game))]
    return [folder / below for folder in named for below in ("1/replay_logs", "")]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _check_options(steps: int, num_buffers: int, capacity: int) -> None:
    if steps < 1 or capacity < 1 or not 1 <= num_buffers <= BUFFERS:
        raise InvalidValue(
            f"steps={steps} and capacity={capacity} must be 1 or more, num_buffers={num_buffers} in 1 to {BUFFERS}."
        )


def _drawn_from(num_buffers: int) -> range:
    return range(BUFFERS - num_buffers, BUFFERS)


def _file(column: _Column, buffer: int | str) -> str:
    return f"$store$_{column.name}_ckpt.{buffer}.gz"


def _complete(folder: Path, buffers: Sequence[int]) -> list[int]:
    """Return the buffers whose four files are all in the directory."""
    return [buffer for buffer in buffers if all((folder / _file(column, buffer)).is_file() for column in _COLUMNS)]


def _identity(folder: Path, buffers: Sequence[int]) -> str:
    paths = [folder.resolve() / _file(column, buffer) for buffer in buffers for column in _COLUMNS]
    return " ".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)


def _info(plan: Sequence[Visit], present: Sequence[int], num_buffers: int) -> dict[str, Any]:
    return {
        "buffers": sorted({visit.buffer for visit in plan}),
        "visits": len(plan),
        "missing_buffers": sorted({*_drawn_from(num_buffers)} - {*present}),
        "rule": "whole episodes, 11 a visit: kzl/decision-transformer atari/create_dataset.py at f04280e",
    }


def _visits(buffer: int, terminals: NDArray[np.bool_], episodes: int) -> Iterator[Visit]:
    """Yield the visits that a buffer allows, in order."""
    # The public code compares with the capacity after it has counted a step: no visit may end with the last entry.
    ends = np.flatnonzero(terminals[:-1])[episodes - 1 :: episodes].tolist()
    for before, last in zip([-1, *ends], ends, strict=False):
        yield Visit(buffer, before + 1, last)


class _Rows:
    """The rows of one file, read in order; damage raises InvalidDataset with the file."""

    def __init__(self, path: Path, stream: gzip.GzipFile, column: _Column) -> None:
        self.path, self._stream, self._column = path, stream, column
        self.count = _count(path, stream, column)
        self._read = 0
        _check_size(path, stream.tell() + self.count * self._bytes)

    def read(self, rows: int) -> Array:
        """Return the next rows, [rows, *shape]."""
        with _reading(self.path):
            data = self._stream.read(rows * self._bytes)
        if len(data) < rows * self._bytes:
            raise InvalidDataset(f"{self.path} ends within its {self.count} rows. {_REMEDY}")
        self._read += rows
        return np.frombuffer(data, self._column.dtype).reshape(rows, *self._column.shape)

    def finish(self) -> None:
        """Read the rest, so that gzip compares the checksum; raise InvalidDataset for further bytes."""
        while self._read < self.count:
            self.read(min(_ROWS, self.count - self._read))
        with _reading(self.path):
            more = self._stream.read(1)
        if more:
            raise InvalidDataset(f"{self.path} goes on after its {self.count} rows. {_REMEDY}")

    def finish_if_cheap(self) -> None:
        """Finish where that costs no more than the rows read so far."""
        if self.count <= 2 * self._read:
            self.finish()

    @property
    def _bytes(self) -> int:
        return int(np.prod(self._column.shape, dtype=int)) * self._column.dtype.itemsize


@contextmanager
def _opened(folder: Path, column: _Column, buffer: int) -> Iterator[_Rows]:
    path = folder / _file(column, buffer)
    with _reading(path):
        stream = gzip.GzipFile(path)
    with stream:
        yield _Rows(path, stream, column)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (*cache.NPY_ERRORS, EOFError, zlib.error) as error:
        raise InvalidDataset(
            f"{path} cannot be read as a gzipped .npy: {str(error) or type(error).__name__}. {_REMEDY}"
        ) from error


_REMEDY = "Delete it and fetch it again: it may be cut short."


def _count(path: Path, stream: gzip.GzipFile, column: _Column) -> int:
    """Read the header of a .npy and return its number of rows; raise InvalidDataset unless it fits the column."""
    with _reading(path):
        # Version 1.0 is what numpy writes for plain types; its headers are short, so a damaged one costs no memory.
        if (version := np.lib.format.read_magic(stream)) != (1, 0):
            raise ValueError(f"its version is {version}, not (1, 0)")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    fits = dtype == column.dtype and shape[:1] > (0,) and shape[1:] == column.shape
    if not fits or (fortran_order and column.shape):
        wanted = f"{column.dtype} of shape {('n', *column.shape)}, rows first"
        raise InvalidDataset(f"{path} holds {dtype} of shape {shape}, where {column.name}s are {wanted}.")
    return int(shape[0])


def _check_size(path: Path, size: int) -> None:
    """Compare with the size at the end of a gzip file, which reveals an incomplete file without reading it."""
    with _reading(path), path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        stated = int.from_bytes(file.read(), "little")
    if stated != size % 2**32:
        raise InvalidDataset(f"{path} is cut short or damaged: its last bytes do not give its size. {_REMEDY}")


def _all_terminals(folder: Path, buffers: Sequence[int], capacity: int) -> dict[int, NDArray[np.bool_]]:
    for buffer in buffers:
        _check_lengths(folder, buffer)
    return {buffer: _terminals(folder, buffer, capacity) for buffer in buffers}


def _check_lengths(folder: Path, buffer: int) -> None:
    counts = {}
    for column in _COLUMNS:
        with _opened(folder, column, buffer) as rows:
            counts[rows.path] = rows.count
    usual = max(counts.values(), key=list(counts.values()).count)
    for path, count in counts.items():
        if count != usual:
            raise InvalidDataset(f"{path} has {count} rows where others of buffer {buffer} have {usual}.")


def _terminals(folder: Path, buffer: int, capacity: int) -> NDArray[np.bool_]:
    values = _column(folder, _TERMINAL, buffer, rows=capacity)
    # Dopamine saves a buffer before it writes the last entry, which is whatever lay in memory; no episode ends there.
    wrong = np.flatnonzero(values[:-1] > 1)
    if len(wrong):
        path = folder / _file(_TERMINAL, buffer)
        raise InvalidDataset(f"{path} holds {values[wrong[0]]} in row {wrong[0]}, where a terminal is 0 or 1.")
    return values.astype(bool)


def _column(folder: Path, column: _Column, buffer: int, *, rows: int) -> Array:
    """Return the first rows of a file that is read to its end."""
    with _opened(folder, column, buffer) as opened:
        values = opened.read(min(rows, opened.count)).copy()
        opened.finish()
    return values


def _read(
    folder: Path,
    plan: Sequence[Visit],
    terminals: Mapping[int, NDArray[np.bool_]],
    *,
    actions: int,
    info: Mapping[str, Any],
) -> TrajectoryDataset:
    ends = _along(plan, terminals)
    needed = {visit.buffer: visit.last + 1 for visit in plan}  # a buffer's last visit counts
    taken = {buffer: _column(folder, _ACTION, buffer, rows=rows) for buffer, rows in needed.items()}
    rewards = {buffer: _column(folder, _REWARD, buffer, rows=rows) for buffer, rows in needed.items()}
    for buffer in needed:
        inside = (taken[buffer] >= 0) & (taken[buffer] < actions)
        _check_rows(folder / _file(_ACTION, buffer), taken[buffer], inside, f"an action is 0 to {actions - 1}")
        finite = np.isfinite(rewards[buffer])
        _check_rows(folder / _file(_REWARD, buffer), rewards[buffer], finite, "a reward is finite")
    return make_dataset(
        observations=_frames(folder, plan),
        actions=_along(plan, taken),
        rewards=_along(plan, rewards),
        terminals=ends,
        lengths=np.diff(np.flatnonzero(ends), prepend=-1),
        observation_space=gym.spaces.Box(0, 255, (FRAME_STACK, *FRAME), np.uint8),
        action_space=gym.spaces.Discrete(actions),
        info=info,
        frame_stack=FRAME_STACK,
    )


def _along(plan: Sequence[Visit], values: Mapping[int, Array]) -> Array:
    """Return the rows of all visits, in the order of the plan, [N]."""
    return np.concatenate([values[visit.buffer][visit.first : visit.last + 1] for visit in plan])


def _check_rows(path: Path, values: Array, good: NDArray[np.bool_], wanted: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise InvalidDataset(f"{path} holds {values[row]} in row {row}, where {wanted}.")


def _frames(folder: Path, plan: Sequence[Visit]) -> NDArray[np.uint8]:
    """Return the frames of all visits, [N, 84, 84], mapped from an unnamed temporary file."""
    steps = sum(visit.steps for visit in plan)
    cache.root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache.root()) as file:
        for buffer in sorted({visit.buffer for visit in plan}):
            with _opened(folder, _OBSERVATION, buffer) as rows:
                # Visits to one buffer follow upon each other from its first entry on, so it is read straight through.
                for offset, visit in _offsets(plan, buffer):
                    file.seek(offset * FRAME[0] * FRAME[1])
                    for begin in range(0, visit.steps, _ROWS):
                        file.write(rows.read(min(_ROWS, visit.steps - begin)).data)
                rows.finish_if_cheap()
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=(steps, *FRAME))


def _offsets(plan: Sequence[Visit], buffer: int) -> Iterator[tuple[int, Visit]]:
    """Yield the visits to a buffer, each with the number of steps before it in the plan."""
    offset = 0
    for visit in plan:
        if visit.buffer == buffer:
            yield offset, visit
        offset += visit.steps
