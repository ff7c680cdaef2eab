"""The v2 files of D4RL (Fu et al. 2020): paths, downloads and published statistics."""

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dtbench.data import cache
from dtbench.data.d4rl_hdf5 import exported_source, read_d4rl
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.download import download, sha256_of
from dtbench.data.minari import describe, load_minari
from dtbench.domains.d4rl.env_specs import KINDS, LOCOMOTION_ENVS, REACHER, LocomotionEnv
from dtbench.errors import InvalidDataset, MissingDataset, UnknownName
from dtbench.suite import package_data

URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"  # d4rl/infos.py, DATASET_URLS

SOURCE = "d4rl"
EXCERPT = "d4rl-excerpt"  # the source of a file that holds far fewer episodes than D4RL's
_EXCERPT_SHARE = 0.9  # of the public count of episodes, below which a file is an excerpt
_READER = 2  # part of an import's identity: raise it when the reader gives other arrays for the same file


@dataclass(frozen=True, slots=True)
class KnownStatistics:
    """Statistics of a file in public logs; None where unknown."""

    episodes: int | None
    return_mean: float | None
    return_std: float | None
    return_min: float | None
    return_max: float | None


def names() -> list[str]:
    """Return the datasets that D4RL published files of, e.g. hopper-medium-v2."""
    return [f"{robot}-{kind}-v2" for robot in LOCOMOTION_ENVS if robot != REACHER for kind in KINDS]


def file_name(name: str) -> str:
    """Return the file of a dataset, e.g. hopper_medium_replay-v2.hdf5; raise UnknownName for other names."""
    if name not in names():
        raise UnknownName("D4RL file", name, names())
    robot, _, kind = name.removesuffix("-v2").partition("-")
    return f"{robot}_{kind.replace('-', '_')}-v2.hdf5"


def directories() -> list[Path]:
    """Return the directories to search: $D4RL_DATASET_DIR, that of d4rl, and dtbench's downloads."""
    configured = os.environ.get("D4RL_DATASET_DIR")
    own = [cache.directory_of(configured)] if configured else []
    return [*own, Path.home() / ".d4rl" / "datasets", cache.root() / "downloads"]


def find_file(name: str) -> Path | None:
    """Return D4RL's file of a dataset on this machine, or None."""
    paths = [directory / file_name(name) for directory in directories()]
    return next((path for path in paths if path.is_file()), None)


def fetch(name: str) -> None:
    """Download D4RL's file of a dataset unless it is local; raise MissingDataset where that fails."""
    if find_file(name) is None:
        download(URL + file_name(name), directories()[-1] / file_name(name))


def load(name: str, robot: LocomotionEnv) -> TrajectoryDataset:
    """Open D4RL's file of a dataset; it is read into the store when it is new or has changed.

    A file that dtbench exported from other data keeps the source of that data in `info`. Raises
    MissingDataset where there is no file, InvalidDataset for a broken one.
    """
    path = find_file(name)
    if path is None:
        raise MissingDataset(
            f"{name}: no file {file_name(name)} in {', '.join(map(str, directories()))}. "
            f"Run `dtbench data get {name}`, or set D4RL_DATASET_DIR."
        )
    return load_file(path, name, robot, horizon=robot.horizon)


def load_file(
    path: Path, name: str, robot: LocomotionEnv, *, horizon: int | None = None, clip_actions: bool = False
) -> TrajectoryDataset:
    """Open a file in D4RL's layout as data of this robot, through the store; raise MissingDataset where it is not.

    `horizon` and `clip_actions` are those of `read_d4rl`.
    """
    if not path.is_file():
        raise MissingDataset(f"{name}: there is no file {path}.")
    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {robot.name} {_READER}"
    if horizon != robot.horizon or clip_actions:
        identity += f" {horizon} {clip_actions}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]

    def make() -> TrajectoryDataset:
        exported = exported_source(path)
        found = read_d4rl(
            path,
            observation_space=robot.observation_space,
            action_space=robot.action_space,
            horizon=horizon,
            clip_actions=clip_actions,
            info={"source": exported or SOURCE, "dataset": name, "file": path.name, "sha256": sha256_of(path)},
        )
        claimed = exported in (None, f"file (says {SOURCE})")
        few = _shortfall(name, found.num_episodes) if claimed else ""
        return found.with_info({"source": EXCERPT, "excerpt": few}) if few else found

    return cache.open_or_make(f"{name}-d4rl-{key}", make)


def public_episodes(name: str) -> int | None:
    """Return the public number of episodes of D4RL's file, with an unfinished last one; None where unknown."""
    robot, _, kind = name.partition("-")
    with package_data.find("published", "tfds_d4rl_v2_episodes.csv").open(newline="", encoding="utf-8") as text:
        counts = {(row["env"], row["dataset"]): row["mean"] for row in csv.DictReader(text)}
    count = counts.get((robot, kind))
    return int(count) if count else None


def _shortfall(name: str, episodes: int) -> str:
    """Describe an excerpt; return "" where the file has about as many episodes as D4RL's."""
    public = public_episodes(name)
    if public is None or episodes >= _EXCERPT_SHARE * public:
        return ""
    return f"{episodes} of about {public} episodes of {name}"


def known_statistics(name: str) -> KnownStatistics | None:
    """Return the statistics of D4RL's file in the published tables, or None."""
    robot, _, kind = name.partition("-")
    with package_data.find("published", "decision_transformer.csv").open(newline="", encoding="utf-8") as text:
        rows = [
            row
            for row in csv.DictReader(text)
            if row["table"] == "dataset stats" and (row["env"], row["dataset"]) == (robot, kind)
        ]
    means = {row["metric"]: float(row["mean"]) for row in rows}
    stds = {row["metric"]: float(row["std"]) for row in rows if row["std"]}
    if not means:
        return None
    episodes = means.get("n_trajectories")
    return KnownStatistics(
        episodes=None if episodes is None else int(episodes),
        return_mean=means.get("traj_return_mean"),
        return_std=stds.get("traj_return_mean"),
        return_min=means.get("traj_return_min"),
        return_max=means.get("traj_return_max"),
    )


def load_minari_for(robot: LocomotionEnv, dataset_id: str) -> TrajectoryDataset:
    """Return a Minari dataset as data of a robot, e.g. mujoco/hopper/medium-v0 for Hopper.

    It was recorded with gymnasium's v5 physics and other policies than D4RL's. Raises InvalidDataset where its spaces
    are not the robot's.
    """
    metadata = describe(dataset_id)
    ours = (robot.observation_space, robot.action_space)
    if (metadata.observation_space.shape, metadata.action_space.shape) != (ours[0].shape, ours[1].shape):
        raise InvalidDataset(
            f"minari:{dataset_id} has observations {metadata.observation_space} and actions {metadata.action_space}: "
            f"{robot.name} has {ours[0]} and {ours[1]}."
        )
    return load_minari(dataset_id, spaces=ours)
