"""Minari's datasets as trajectories; the only module that imports minari."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.data import store
from dtbench.data.download import check_reachable
from dtbench.data.trajectories import TrajectoryDataset, make_dataset
from dtbench.errors import InvalidDataset, MissingDataset

HUB = "https://huggingface.co"  # where Minari keeps its datasets

_READER = 1  # part of an import's identity: raise it when the reader gives other arrays for the same files


@dataclass(frozen=True, slots=True)
class MinariSet:
    """What a local Minari dataset says of itself."""

    dataset_id: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    reference: tuple[float, float] | None  # the returns that score 0 and 100, where its makers gave them
    algorithm: str  # what made it, as its makers say
    environment: str  # the id of its environment, "" where there is none


def local_sets() -> list[str]:
    """The ids of the Minari datasets on this machine; none where minari is not installed."""
    if not _folder("").is_dir():
        return []
    try:
        return sorted(_minari().list_local_datasets())
    except MissingDataset:
        return []


def is_local(dataset_id: str) -> bool:
    """Whether this dataset lies on this machine."""
    return (_folder(dataset_id) / "data").is_dir()


def describe(dataset_id: str) -> MinariSet:
    """What a local dataset says of itself; MissingDataset where it is not here, InvalidDataset where it is broken."""
    found = _opened(dataset_id)
    metadata = found.storage.metadata
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    spec = found.env_spec
    return MinariSet(
        dataset_id=dataset_id,
        observation_space=single_precision(found.observation_space),
        action_space=single_precision(found.action_space),
        reference=None if low is None or high is None or low == high else (float(low), float(high)),
        algorithm=str(metadata.get("algorithm_name") or "unknown"),
        environment=spec.id if spec is not None else "",
    )


def make_environment(dataset_id: str) -> gym.Env[Any, Any]:
    """The environment that the dataset is to be evaluated in; InvalidDataset where it names none that can be made."""
    found = _opened(dataset_id)
    try:
        made: gym.Env[Any, Any] = found.recover_environment(eval_env=True)
    except (ValueError, ImportError, gym.error.Error) as error:
        raise InvalidDataset(f"minari:{dataset_id}: its environment cannot be made: {error}.") from error
    return made


def load_minari(dataset_id: str, *, spaces: tuple[gym.Space[Any], gym.Space[Any]] | None = None) -> TrajectoryDataset:
    """Open a local dataset; the first time, and after it changed, it is read into the store.

    `spaces` are of observations and actions, by default the dataset's own with floats in single precision. Raises
    MissingDataset where it is not here, InvalidDataset for spaces that are neither vectors nor Discrete.
    """
    said = describe(dataset_id)
    observation_space, action_space = spaces or (said.observation_space, said.action_space)
    identity = f"{_identity(_folder(dataset_id))} {observation_space} {action_space} {_READER}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]

    def make() -> TrajectoryDataset:
        return _read(said, observation_space, action_space)

    return store.open_or_make(f"minari-{dataset_id}-{key}", make)


def fetch_minari(dataset_id: str) -> None:
    """Download a dataset unless it is here; raise MissingDataset, within seconds, where that cannot be done."""
    if is_local(dataset_id):
        return
    minari = _minari()
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() not in ("1", "ON", "YES", "TRUE"):
            check_reachable(HUB)  # huggingface_hub alone tries for 23 s
        minari.download_dataset(dataset_id)
    except Exception as error:  # the hub's client raises what its HTTP library raises, which shares no base class
        raise MissingDataset(
            f"minari:{dataset_id} could not be downloaded: {str(error).strip() or type(error).__name__}. "
            f"Put it into {_folder(dataset_id)}, or set MINARI_DATASETS_PATH. {_here()}"
        ) from error


def single_precision(space: gym.Space[Any]) -> gym.Space[Any]:
    """The same space in float32: what learners compute in, and D4RL stores."""
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return gym.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), space.shape, np.float32)
    return space


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise MissingDataset(f"{error}. Minari's datasets need: pip install 'dtbench[minari]'.") from error
    return minari


def _opened(dataset_id: str) -> Any:
    minari = _minari()
    if not is_local(dataset_id):
        raise MissingDataset(
            f"minari:{dataset_id} is not in {_folder('')}. Run `dtbench data get minari:{dataset_id}`. {_here()}"
        )
    try:
        return minari.load_dataset(dataset_id)
    except (OSError, ValueError, KeyError, AssertionError, ImportError) as error:
        raise InvalidDataset(f"minari:{dataset_id} in {_folder(dataset_id)} cannot be read: {error}.") from error


def _folder(dataset_id: str) -> Path:
    # As minari.storage.datasets_root_dir, which creates the folder when asked.
    configured = os.environ.get("MINARI_DATASETS_PATH")
    return (Path(configured) if configured else Path.home() / ".minari" / "datasets") / dataset_id


def _here() -> str:
    return f"Here: {', '.join(local_sets()) or 'none'}."


def _identity(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return " ".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)


def _read(said: MinariSet, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> TrajectoryDataset:
    for name, space in (("observations", observation_space), ("actions", action_space)):
        flat = isinstance(space, gym.spaces.Discrete) or (isinstance(space, gym.spaces.Box) and len(space.shape) == 1)
        if not flat:
            raise InvalidDataset(
                f"minari:{said.dataset_id}: its {name} are {space}: dtbench reads vectors and Discrete."
            )
    try:
        columns = _columns(_opened(said.dataset_id).iterate_episodes())
        return make_dataset(
            observations=_stacked(columns["observations"], observation_space),
            actions=_stacked(columns["actions"], action_space),
            rewards=np.concatenate(columns["rewards"]).astype(np.float32),
            terminals=np.concatenate(columns["terminals"]).astype(bool),
            lengths=np.array([len(rewards) for rewards in columns["rewards"]]),
            observation_space=observation_space,
            action_space=action_space,
            info=_info(said),
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AssertionError, InvalidDataset) as error:
        raise InvalidDataset(f"minari:{said.dataset_id}: {error}") from error


def _columns(episodes: Iterable[Any]) -> dict[str, list[NDArray[Any]]]:
    """The arrays of each episode; Minari keeps one observation more than actions, the one after the last step."""
    columns: dict[str, list[NDArray[Any]]] = {"observations": [], "actions": [], "rewards": [], "terminals": []}
    for episode in episodes:
        steps = len(episode.rewards)
        if not steps:
            continue
        if len(episode.observations) != steps + 1 or len(episode.actions) != steps:
            counts = f"{len(episode.observations)} observations and {len(episode.actions)} actions"
            raise InvalidDataset(f"episode {episode.id} has {counts} for {steps} rewards.")
        columns["observations"].append(np.asarray(episode.observations)[:steps])
        columns["actions"].append(np.asarray(episode.actions))
        columns["rewards"].append(np.asarray(episode.rewards).reshape(steps))
        columns["terminals"].append(np.asarray(episode.terminations).reshape(steps))
    if not columns["rewards"]:
        raise InvalidDataset("it holds no episode.")
    return columns


def _stacked(arrays: list[NDArray[Any]], space: gym.Space[Any]) -> NDArray[Any]:
    stacked = np.concatenate(arrays)
    return stacked.astype(np.float32) if isinstance(space, gym.spaces.Box) and stacked.dtype.kind == "f" else stacked


def _info(said: MinariSet) -> Mapping[str, Any]:
    info = {
        "source": "minari",
        "dataset": said.dataset_id,
        "algorithm": said.algorithm,
        "environment": said.environment,
    }
    if said.reference is None:
        return {**info, "normalisation": "none: the set names no reference scores"}
    return {**info, "normalisation": "Minari's own", "reference": list(said.reference)}
