"""The store: datasets as plain .npy files and a meta.json, opened memory-mapped."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from dtbench.data.trajectories import (
    ARRAYS,
    Array,
    TrajectoryDataset,
    digest_of,
    space_from_json,
    space_to_json,
    statistics_card,
    validate,
)
from dtbench.errors import InvalidDataset, MissingDataset

FORMAT = 1  # of meta.json; another number is refused

_READING_ONLY: ContextVar[bool] = ContextVar("_READING_ONLY", default=False)


def root() -> Path:
    """Where datasets are kept: $DTBENCH_DATA, else the user's cache folder."""
    configured = os.environ.get("DTBENCH_DATA")
    if configured:
        return Path(configured).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dtbench" / "data"


def open_or_make(name: str, make: Callable[[], TrajectoryDataset]) -> TrajectoryDataset:
    """Open the dataset `name`, or make it and keep it first. Concurrent makers agree on one winner."""
    folder = root() / _safe(name)
    if not (folder / "meta.json").exists():
        if _READING_ONLY.get():
            raise MissingDataset(f"no dataset in {folder}, and none is made while datasets are only listed.")
        save(make(), folder)
    return load(folder)


@contextmanager
def reading_only() -> Iterator[None]:
    """Within, `open_or_make` makes nothing and raises MissingDataset instead: a listing must not take minutes."""
    token = _READING_ONLY.set(True)
    try:
        yield
    finally:
        _READING_ONLY.reset(token)


def save(dataset: TrajectoryDataset, folder: Path) -> None:
    """Write a dataset; an existing one of that name stays as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
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
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True, allow_nan=False) + "\n")
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Path, *, verify: bool = False) -> TrajectoryDataset:
    """Open a stored dataset memory-mapped; `verify` reads it all and compares its digest.

    Raises MissingDataset where there is none and InvalidDataset where files are damaged.
    """
    if not (folder / "meta.json").exists():
        raise MissingDataset(f"no dataset in {folder}: meta.json is missing.")
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = {name: _mapped(folder / f"{name}.npy") for name in ARRAYS}
        if meta["format"] != FORMAT:
            raise InvalidDataset(f"{folder} has format {meta['format']}, this dtbench reads {FORMAT}. {_REMEDY}")
        dataset = TrajectoryDataset(
            **arrays,
            observation_space=space_from_json(meta["observation_space"]),
            action_space=space_from_json(meta["action_space"]),
            digest=meta["digest"],
            info=meta["info"],
            frame_stack=int(meta.get("frame_stack", 1)),
            extras={name: _mapped(folder / f"extra-{_safe(name)}.npy") for name in meta.get("extras", ())},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(f"{folder} cannot be read: {error}. {_REMEDY}") from error
    if verify:
        validate(dataset)
        if digest_of(dataset) != dataset.digest:
            raise InvalidDataset(f"{folder} is not what was stored: its digest differs. {_REMEDY}")
    return dataset


def _mapped(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


_REMEDY = "Delete that folder: generated data will be made again, files read again."


def _move_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process was faster, and its data are as good; or a broken folder without meta.json is in the way.
        if not (folder / "meta.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
