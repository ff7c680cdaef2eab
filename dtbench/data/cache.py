"""The store of datasets: plain .npy files and a meta.json, opened memory-mapped."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tokenize import TokenError

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path

from dtbench.data.dataset import (
    ARRAYS,
    Array,
    TrajectoryDataset,
    check_shapes,
    digest_of,
    space_from_json,
    space_to_json,
    statistics_card,
    validate,
)
from dtbench.errors import InvalidDataset, InvalidValue, MissingDataset

# Of damaged files: numpy evaluates a header as Python, and RecursionError is a RuntimeError.
NPY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TokenError,
)
FORMAT = 1  # of meta.json; another number is refused
MOST_FRAMES = 1000  # of a stack
FINAL = "final_observations"

_READING_ONLY: ContextVar[bool] = ContextVar("_READING_ONLY", default=False)


def root() -> Path:
    """Return the directory of the datasets: $DTBENCH_DATA, else in the user's cache directory."""
    configured = os.environ.get("DTBENCH_DATA")
    return directory_of(configured) if configured else user_cache_path("dtbench", appauthor=False) / "data"


def directory_of(text: str) -> Path:
    """Return the directory that an environment variable names; InvalidValue where its ~user does not exist."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidValue(f"{text!r} is not a directory: {error}. Set the variable to one that exists.") from error


data_root = root  # its public name


def open_or_make(name: str, make: Callable[[], TrajectoryDataset]) -> TrajectoryDataset:
    """Open the dataset `name`; make and store it first where it is missing. One process makes it, others wait."""
    folder = root() / _safe(name)
    if not (folder / "meta.json").exists():
        if is_reading_only():
            raise MissingDataset(f"no dataset in {folder}, and listing datasets makes none.")
        with _one_maker(folder):
            if not (folder / "meta.json").exists():
                save(make(), folder)
    return load(folder)


@contextmanager
def _one_maker(folder: Path) -> Iterator[None]:
    """Hold the lock under which a dataset is made; it ends with its process."""
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # who waited for this file finds the data made
        lock.release()


@contextmanager
def reading_only() -> Iterator[None]:
    """Make `open_or_make` raise MissingDataset instead of making data: a listing must not take minutes."""
    token = _READING_ONLY.set(True)
    try:
        yield
    finally:
        _READING_ONLY.reset(token)


def is_reading_only() -> bool:
    """Return whether `reading_only` is active."""
    return _READING_ONLY.get()


def save(dataset: TrajectoryDataset, folder: Path) -> None:
    """Write a dataset unless it exists; raise InvalidValue where the store cannot be written."""
    try:
        _save(dataset, folder)
    except OSError as error:
        raise _unwritable(folder.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> InvalidValue:
    return InvalidValue(f"cannot write datasets to {folder}: {error.strerror or error}. Set DTBENCH_DATA.")


def _save(dataset: TrajectoryDataset, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        temporary = Path(scratch) / folder.name  # with the permissions of an ordinary directory
        temporary.mkdir()
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
        if dataset.final_observations is not None:
            np.save(temporary / f"{FINAL}.npy", dataset.final_observations, allow_pickle=False)
        for name, array in dataset.extras.items():
            np.save(temporary / f"extra-{_safe(name)}.npy", array, allow_pickle=False)
        meta = {
            "format": FORMAT,
            "digest": dataset.digest,
            "observation_space": space_to_json(dataset.observation_space),
            "action_space": space_to_json(dataset.action_space),
            "info": dict(dataset.info),
            "card": statistics_card(dataset),
            **({"frame_stack": dataset.frame_stack} if dataset.frame_stack > 1 else {}),
            **({"extras": sorted(dataset.extras)} if dataset.extras else {}),
            **({FINAL: True} if dataset.final_observations is not None else {}),
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True, allow_nan=False) + "\n")
        _move_into_place(temporary, folder)


def load(folder: Path, *, verify: bool = False) -> TrajectoryDataset:
    """Open a stored dataset memory-mapped; `verify` reads it all and compares its digest.

    Raises MissingDataset where there is none and InvalidDataset where files are damaged.
    """
    if not (folder / "meta.json").exists():
        raise MissingDataset(f"no dataset in {folder}: meta.json is missing.")
    try:
        dataset = _opened(folder)
        check_shapes(dataset)
    except (*NPY_ERRORS, InvalidDataset) as error:
        raise InvalidDataset(f"{folder} cannot be read: {str(error) or type(error).__name__}. {_REMEDY}") from error
    if verify:
        validate(dataset)
        if digest_of(dataset) != dataset.digest:
            raise InvalidDataset(f"{folder} was changed: its digest differs. {_REMEDY}")
    return dataset


def _opened(folder: Path) -> TrajectoryDataset:
    meta = json.loads((folder / "meta.json").read_text())
    if meta["format"] != FORMAT:
        raise InvalidDataset(f"it has format {meta['format']!r:.40}, this dtbench reads {FORMAT}")
    digest, info, frame_stack = meta["digest"], meta["info"], meta.get("frame_stack", 1)
    if not isinstance(info, dict) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise InvalidDataset("meta.json lacks digest or info")
    if type(frame_stack) is not int or not 1 <= frame_stack <= MOST_FRAMES:
        raise InvalidDataset(f"frame_stack is {frame_stack!r:.40}, not a number from 1 to {MOST_FRAMES}")
    return TrajectoryDataset(
        **{name: _mapped(folder / f"{name}.npy") for name in ARRAYS},
        observation_space=space_from_json(meta["observation_space"]),
        action_space=space_from_json(meta["action_space"]),
        digest=digest,
        info=info,
        frame_stack=frame_stack,
        extras={name: _mapped(folder / f"extra-{_safe(name)}.npy") for name in meta.get("extras", ())},
        final_observations=_mapped(folder / f"{FINAL}.npy") if meta.get(FINAL) else None,
    )


def _mapped(path: Path) -> Array:
    # Not np.load: that opens zip files too, whatever their name.
    array: Array = np.lib.format.open_memmap(path, mode="r")
    return array


_REMEDY = "Delete that directory: generated data is made again, files are read again."


def _move_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process was faster, with equal data; or a broken directory without meta.json is in the way.
        if not (folder / "meta.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
