"""Minari's datasets as trajectories; minari_export.py writes them."""

import hashlib
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset, is_flat, make_dataset, single_precision
from dtbench.data.download import check_reachable
from dtbench.data.hdf5 import check_contents
from dtbench.errors import FOREIGN, InvalidDataset, InvalidValue, MissingDataset, one_line

HUB = "https://huggingface.co"  # where Minari keeps its datasets
UNKNOWN_FINALS = (
    "dtbench_unknown_final_observations"  # in the metadata of an export: they repeat the last observations
)
FRAME = (84, 84)
FRAME_STACK = 4

Array = NDArray[Any]
ToFrame = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

# Packages whose environments may be made because a dataset names them.
_MAKERS = ("gymnasium", "gymnasium_robotics", "minigrid", "ale_py", "shimmy")
# Errors of Minari and its libraries for damaged files.
_LIBRARY = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
)
_BATCH = 256  # frames converted at a time
_READER = 2  # part of an import's identity: raise it when the reader gives other arrays for the same files


@dataclass(frozen=True, slots=True)
class MinariSet:
    """The metadata of a local Minari dataset."""

    dataset_id: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    reference: tuple[float, float] | None  # the returns that score 0 and 100, where given
    algorithm: str  # that recorded it
    environment: str  # id of its environment, or ""
    final_observations: bool = True  # whether those after the last steps are known


def local_sets() -> list[str]:
    """Return the ids of the Minari datasets on this machine; none where minari is not installed."""
    if not set_folder("").is_dir():
        return []
    try:
        return sorted(import_minari().list_local_datasets())
    except MissingDataset:
        return []
    except Exception as error:  # one broken set is enough for Minari to list none
        raise InvalidDataset(f"{set_folder('')} cannot be listed: {error}. Move the broken set out of it.") from error


def is_local(dataset_id: str) -> bool:
    """Return whether this dataset is on this machine."""
    return (set_folder(check_id(dataset_id)) / "data").is_dir()


def check_id(dataset_id: str) -> str:
    """Return a dataset's id, as in mujoco/hopper/medium-v0; InvalidValue for one that leaves their directory."""
    if len(dataset_id) > 200 or not re.fullmatch(
        r"(?:[A-Za-z0-9_-][\w.-]*/)*[A-Za-z0-9_-][\w.-]*", dataset_id, re.ASCII
    ):
        raise InvalidValue(
            f"minari:{dataset_id:.100} is not an id of a dataset: write e.g. minari:mujoco/hopper/medium-v0."
        )
    return dataset_id


def describe(dataset_id: str) -> MinariSet:
    """Return a local dataset's metadata; MissingDataset where it is not here, InvalidDataset where it is broken."""
    found = _opened(dataset_id)
    try:
        return _described(dataset_id, found)
    except _LIBRARY as error:
        raise InvalidDataset(_unreadable(dataset_id, error)) from error


def _described(dataset_id: str, found: Any) -> MinariSet:
    metadata = found.storage.metadata
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    spec = found.env_spec
    return MinariSet(
        dataset_id=dataset_id,
        observation_space=single_precision(found.observation_space),
        action_space=single_precision(found.action_space),
        reference=None if low is None or high is None or low == high else (float(low), float(high)),
        algorithm=one_line(str(metadata.get("algorithm_name") or "unknown"), 100),
        environment=spec.id if spec is not None else "",
        final_observations=not metadata.get(UNKNOWN_FINALS, False),
    )


def _unreadable(dataset_id: str, error: Exception) -> str:
    why = str(error) or type(error).__name__
    return f"minari:{dataset_id} cannot be read: {why}. Delete {set_folder(dataset_id)} and fetch it again."


def make_environment(dataset_id: str, kwargs: Mapping[str, Any] = MappingProxyType({})) -> gym.Env[Any, Any]:
    """Return the dataset's evaluation environment; InvalidDataset where it names none that can be made."""
    found = _opened(dataset_id)
    if found.env_spec is None:
        raise InvalidDataset(
            f"minari:{dataset_id}: its environment cannot be made: the set names none. Export it as a file in "
            "D4RL's layout (dtbench data export) and evaluate as gym:ENVIRONMENT with task_options.file=FILE."
        )
    try:
        _check_code(dataset_id, found.storage.metadata)
        made: gym.Env[Any, Any] = found.recover_environment(eval_env=True, **kwargs)
    except InvalidDataset:
        raise
    except FOREIGN as error:  # what other packages' environments raise shares no base class
        raise InvalidDataset(
            f"minari:{dataset_id}: its environment cannot be made: {type(error).__name__}: {error}. "
            "Install the package that it is from, or run with --import MODULE, which registers it."
        ) from error
    return made


def _check_code(dataset_id: str, metadata: Mapping[str, Any]) -> None:
    """Raise InvalidDataset where code of an unknown package would make the environment, e.g. os.system."""
    spec = json.loads(metadata.get("eval_env_spec") or metadata.get("env_spec") or "{}")
    for part in (spec, *spec.get("additional_wrappers", ())):
        entry = part.get("entry_point")
        registered = gym.registry.get(str(part.get("id")))
        known = registered is not None and registered.entry_point == entry
        if entry is not None and not known and str(entry).partition(":")[0].partition(".")[0] not in _MAKERS:
            raise InvalidDataset(
                f"minari:{dataset_id}: its environment is made by {entry!r:.100}, which dtbench does not run. "
                "Run with --import MODULE, the module that registers it in gymnasium."
            )


def load_minari(dataset_id: str, *, spaces: tuple[gym.Space[Any], gym.Space[Any]] | None = None) -> TrajectoryDataset:
    """Open a local dataset; it is read into the store when it is new or has changed.

    `spaces` are of observations and actions, by default the dataset's with floats in single precision. Raises
    MissingDataset where it is not local, InvalidDataset for spaces that are neither vectors nor Discrete.
    """
    metadata = describe(dataset_id)
    observation_space, action_space = spaces or (metadata.observation_space, metadata.action_space)

    def make() -> TrajectoryDataset:
        for path in _files(dataset_id):  # their arrays are held together
            check_contents(path, ("observations", "actions", "rewards", "terminations"))
        return _read(metadata, observation_space, action_space)

    return cache.open_or_make(_stored_name(dataset_id, f"{observation_space} {action_space}"), make)


def load_minari_frames(
    dataset_id: str,
    *,
    actions: int,
    to_frame: ToFrame | None = None,
) -> TrajectoryDataset:
    """Open a local dataset of Atari frames; it is read into the store when it is new or has changed.

    Observations are bytes of [84, 84], [84, 84, 1] or [1, 84, 84], or stacks [F, 84, 84] or [84, 84, F] with the
    oldest frame first. `to_frame` converts a batch [n, ...] of any others to [n, 84, 84]. Rewards are clipped to
    [-1, 1], and `extras["raw_rewards"]` has the raw ones. At most one episode of observations is held in memory.

    Raises MissingDataset where the set is not local; InvalidDataset where its actions are not Discrete(`actions`),
    its observations are not frames, or the stacks of an episode are not consecutive.
    """
    metadata = describe(dataset_id)
    converter = "" if to_frame is None else f"{to_frame.__module__}.{to_frame.__qualname__}"
    with ExitStack() as reading:

        def make() -> TrajectoryDataset:
            cache.root().mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=cache.root(), prefix=".minari.")
            path = Path(reading.enter_context(scratch)) / "frames"
            return _read_frames(metadata, path, actions=actions, to_frame=to_frame)

        name = _stored_name(
            dataset_id, f"frames {actions} {FRAME_STACK} {converter} True"
        )  # True: rewards are clipped
        return cache.open_or_make(name, make)


def fetch_minari(dataset_id: str) -> None:
    """Download a dataset unless it is local; raise MissingDataset within seconds where that fails."""
    if is_local(dataset_id):
        return
    minari = import_minari()
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() not in ("1", "ON", "YES", "TRUE"):
            check_reachable(HUB)  # huggingface_hub itself tries for 23 s
        minari.download_dataset(dataset_id)
    except Exception as error:  # the hub's client raises what its HTTP library raises, which shares no base class
        raise MissingDataset(
            f"minari:{dataset_id} could not be downloaded: {str(error).strip() or type(error).__name__}. "
            f"Put it into {set_folder(dataset_id)}, or set MINARI_DATASETS_PATH. {_here()}"
        ) from error


def import_minari() -> Any:
    """Return the package minari; raise MissingDataset where it is not installed."""
    try:
        import minari
    except ImportError as error:
        raise MissingDataset(f"{error}. Minari's datasets need: pip install 'dtbench[minari]'.") from error
    return minari


def _opened(dataset_id: str) -> Any:
    minari = import_minari()
    if not is_local(dataset_id):
        raise MissingDataset(
            f"minari:{dataset_id} is not in {set_folder('')}. Run `dtbench data get minari:{dataset_id}`. {_here()}"
        )
    try:
        for path in _files(dataset_id):
            check_contents(path)
        return minari.load_dataset(dataset_id)
    except (*_LIBRARY, ImportError, InvalidDataset) as error:
        raise InvalidDataset(_unreadable(dataset_id, error)) from error


def set_folder(dataset_id: str) -> Path:
    """Return the directory of a local dataset; "": that of all."""
    # As minari.storage.datasets_root_dir, which creates the folder when asked.
    configured = os.environ.get("MINARI_DATASETS_PATH")
    return (Path(configured) if configured else Path.home() / ".minari" / "datasets") / dataset_id


def _files(dataset_id: str) -> list[Path]:
    return sorted((set_folder(dataset_id) / "data").rglob("*.hdf5"))


def _here() -> str:
    return f"Here: {', '.join(local_sets()) or 'none'}."


def _stored_name(dataset_id: str, what: str) -> str:
    """Return the name in the store of a dataset read as `what`; it changes with the files."""
    files = sorted(path for path in set_folder(dataset_id).rglob("*") if path.is_file())
    stats = " ".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    identity = f"{stats} {what} {_READER}"
    return f"minari-{dataset_id}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _read(metadata: MinariSet, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> TrajectoryDataset:
    for name, space in (("observations", observation_space), ("actions", action_space)):
        if not is_flat(space):
            raise InvalidDataset(
                f"minari:{metadata.dataset_id}: its {name} are {space}: dtbench reads vectors and Discrete."
            )
    try:
        columns = _columns(_episodes(metadata))
        finals = _stacked(columns["final_observations"], observation_space) if metadata.final_observations else None
        return make_dataset(
            observations=_stacked(columns["observations"], observation_space),
            actions=_stacked(columns["actions"], action_space),
            rewards=np.concatenate(columns["rewards"]).astype(np.float32),
            terminals=np.concatenate(columns["terminals"]).astype(bool),
            lengths=_lengths(columns),
            observation_space=observation_space,
            action_space=action_space,
            info={**_provenance(metadata), **_normalization(metadata.reference)},
            final_observations=finals,
        )
    except (ValueError, TypeError, LookupError, OSError, MemoryError, InvalidDataset) as error:
        raise InvalidDataset(f"minari:{metadata.dataset_id}: {error}") from error


def _read_frames(metadata: MinariSet, path: Path, *, actions: int, to_frame: ToFrame | None) -> TrajectoryDataset:
    """Read the set with its frames in the file at `path`, memory-mapped."""
    space = metadata.action_space
    if not isinstance(space, gym.spaces.Discrete) or (space.start, space.n) != (0, actions):
        raise InvalidDataset(
            f"minari:{metadata.dataset_id}: its actions are {space}, the game's are Discrete({actions})."
        )
    try:
        with path.open("wb") as file:
            columns = _columns(_written(_episodes(metadata), file, _frame_reader(metadata, to_frame)))
        raw = np.concatenate(columns["rewards"]).astype(np.float32)
        return make_dataset(
            observations=np.memmap(path, np.uint8, "r", shape=(len(raw), *FRAME)),
            actions=np.concatenate(columns["actions"]),
            rewards=raw.clip(-1, 1),
            terminals=np.concatenate(columns["terminals"]).astype(bool),
            lengths=_lengths(columns),
            observation_space=gym.spaces.Box(0, 255, (FRAME_STACK, *FRAME), np.uint8),
            action_space=gym.spaces.Discrete(actions),
            info={**_provenance(metadata), **_screens(metadata)},
            frame_stack=FRAME_STACK,
            extras={"raw_rewards": raw},
        )
    except (ValueError, TypeError, LookupError, OSError, MemoryError, InvalidDataset) as error:
        raise InvalidDataset(f"minari:{metadata.dataset_id}: {error}") from error


def _frame_reader(metadata: MinariSet, to_frame: ToFrame | None) -> Callable[[Array], Array]:
    """Return the function from an episode's observations [n, ...] to frames [n, 84, 84]."""
    space = metadata.observation_space
    if isinstance(space, gym.spaces.Box) and space.dtype == np.uint8:
        shape = space.shape
        if shape == FRAME:
            return np.asarray
        if shape[1:] == FRAME:
            return _newest
        if shape[:2] == FRAME and shape[2:] not in ((), (3,)):  # three bytes at the end are red, green and blue
            return lambda stacks: _newest(np.moveaxis(stacks, -1, 1))
        if to_frame is not None:
            return partial(_converted, to_frame)
    raise InvalidDataset(f"its observations are {space}: neither frames of 84 x 84 bytes nor stacks of them.")


def _newest(stacks: Array) -> Array:
    """Return each stack's last frame, from [n, F, 84, 84]; raise InvalidDataset unless stacks are consecutive."""
    for position in range(stacks.shape[1] - 1):
        wrong = np.flatnonzero((stacks[1:, position] != stacks[:-1, position + 1]).any(axis=(1, 2)))
        if len(wrong):
            raise InvalidDataset(
                f"the stack of frames of step {wrong[0] + 1} of an episode does not follow from the one before: "
                "stacks must hold consecutive frames, the oldest first."
            )
    return stacks[:, -1]


def _converted(to_frame: ToFrame, observations: Array) -> Array:
    batches = (observations[first : first + _BATCH] for first in range(0, len(observations), _BATCH))
    return np.concatenate([to_frame(batch) for batch in batches])


def _written(episodes: Iterable[dict[str, Array]], file: BinaryIO, frames_of: Callable[[Array], Array]) -> Any:
    """Append the frames of the episodes to the file; yield the episodes without observations."""
    for episode in episodes:
        observations = episode.pop("observations")
        episode.pop("final_observations")  # of no use to learners of frames
        frames = frames_of(observations)
        if frames.shape != (len(observations), *FRAME) or frames.dtype != np.uint8:
            raise InvalidDataset(f"{len(observations)} observations made frames {frames.shape} of {frames.dtype}.")
        np.ascontiguousarray(frames).tofile(file)
        yield episode


def _episodes(metadata: MinariSet) -> Iterator[dict[str, Array]]:
    """Yield each episode's arrays; Minari stores one observation more than actions, that after the last step."""
    for episode in _iterated(metadata.dataset_id):
        steps = len(episode.rewards)
        if not steps:
            continue
        if len(episode.observations) != steps + 1 or len(episode.actions) != steps:
            counts = f"{len(episode.observations)} observations and {len(episode.actions)} actions"
            raise InvalidDataset(f"episode {episode.id} has {counts} for {steps} rewards.")
        yield {
            "observations": np.asarray(episode.observations)[:steps],
            "final_observations": np.asarray(episode.observations)[steps:],
            "actions": np.asarray(episode.actions),
            "rewards": np.asarray(episode.rewards).reshape(steps),
            "terminals": np.asarray(episode.terminations).reshape(steps),
        }


def _iterated(dataset_id: str) -> Iterator[Any]:
    try:
        yield from _opened(dataset_id).iterate_episodes()
    except _LIBRARY as error:
        raise InvalidDataset(str(error) or type(error).__name__) from error


def _columns(episodes: Iterable[Mapping[str, Array]]) -> dict[str, list[Array]]:
    columns: dict[str, list[Array]] = defaultdict(list)
    for episode in episodes:
        for name, array in episode.items():
            columns[name].append(array)
    if not columns:
        raise InvalidDataset("it holds no episode.")
    return columns


def _lengths(columns: Mapping[str, list[Array]]) -> NDArray[np.int64]:
    return np.array([len(rewards) for rewards in columns["rewards"]])


def _stacked(arrays: list[Array], space: gym.Space[Any]) -> Array:
    stacked = np.concatenate(arrays)
    return stacked.astype(np.float32) if isinstance(space, gym.spaces.Box) and stacked.dtype.kind == "f" else stacked


def _provenance(metadata: MinariSet) -> Mapping[str, Any]:
    return {
        "source": "minari",
        "dataset": metadata.dataset_id,
        "algorithm": metadata.algorithm,
        "environment": metadata.environment,
    }


def _normalization(reference: tuple[float, float] | None) -> Mapping[str, Any]:
    if reference is None:
        return {"normalisation": "none: the set names no reference scores"}
    return {"normalisation": "Minari's own", "reference": list(reference)}


def _screens(metadata: MinariSet) -> Mapping[str, Any]:
    """Return the original observations' space and compression."""
    encoded = getattr(_opened(metadata.dataset_id).storage, "jpeg_encoding", True)  # Minari had no choice before 0.5.4
    image = min((metadata.observation_space.shape or ())[:2]) >= 32  # as minari.dataset.minari_storage.is_image_space
    return {"observed": str(metadata.observation_space), "compression": "JPEG, lossy" if encoded and image else "none"}
