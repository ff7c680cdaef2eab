"""What can be checked of the Gym tasks' data: D4RL's files against public logs, generated data against its recipe."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dtbench.data.download import check_file
from dtbench.data.trajectories import TrajectoryDataset
from dtbench.domains.d4rl import files, generated
from dtbench.domains.d4rl.infos import disagreements, installed_infos
from dtbench.domains.d4rl.robots import ROBOTS, robot_named
from dtbench.errors import InvalidDataset

NOT_D4RL = "made by dtbench with behaviour policies of its own: this is NOT D4RL's data, nor comparable as if it were"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    passed: bool
    text: str


def findings(dataset: TrajectoryDataset, *, remake: bool = False) -> Iterator[Finding]:
    """Look at everything that is known of the dataset; nothing where it is no dataset of these tasks.

    `remake` plays the behaviour policies of generated data again, which takes as long as making it did.
    """
    if dataset.info.get("source") == "d4rl":
        yield _file(dataset)
        yield from _statistics(dataset)
        yield _package()
    elif dataset.info.get("source") == "generated" and dataset.info.get("robot") in ROBOTS:
        yield Finding(True, NOT_D4RL)
        yield from _recipe(dataset)
        if remake:
            yield _remade(dataset)


def _file(dataset: TrajectoryDataset) -> Finding:
    path = files.find_file(str(dataset.info["dataset"]))
    if path is None:
        return Finding(False, f"the file {dataset.info['file']} that it was read from is no longer here")
    try:
        sha256 = check_file(path)
    except InvalidDataset as error:
        return Finding(False, str(error))
    return Finding(sha256 == dataset.info["sha256"], f"file {path}: sha256 {sha256}")


def _statistics(dataset: TrajectoryDataset) -> Iterator[Finding]:
    known = files.known_statistics(str(dataset.info["dataset"]))
    if known is None:
        return
    returns = dataset.returns
    if known.episodes is not None:
        ours = dataset.num_episodes
        yield Finding(ours == known.episodes, f"episodes: {ours} here, {known.episodes} in public logs")
    pairs = (
        ("mean return", returns.mean(), known.return_mean),
        ("standard deviation of returns", returns.std(), known.return_std),
        ("lowest return", returns.min(), known.return_min),
        ("highest return", returns.max(), known.return_max),
    )
    for name, value, published in pairs:
        if published is not None:
            # Logs print sums of float32, some to one decimal.
            close = abs(value - published) <= 0.06 + 1e-4 * abs(published)
            yield Finding(bool(close), f"{name}: {value:.4f} here, {published} in public logs of D4RL v2")


def _package() -> Finding:
    infos = installed_infos()
    if infos is None:
        return Finding(True, "the package d4rl is not installed, so its constants were not compared with ours")
    wrong = disagreements(infos)
    return Finding(not wrong, "; ".join(wrong) or f"reference scores and addresses are those of d4rl {infos.version}")


def _recipe(dataset: TrajectoryDataset) -> Iterator[Finding]:
    info, robot = dataset.info, robot_named(str(dataset.info["robot"]))
    longest = int(dataset.lengths.max())
    yield Finding(longest <= robot.horizon, f"longest episode: {longest} of at most {robot.horizon} steps")
    share = dataset.num_steps / int(info["asked_steps"])
    yield Finding(0.9 < share <= 1, f"steps: {dataset.num_steps} of {info['asked_steps']} asked for")
    cut = ~np.asarray(dataset.terminals)[dataset.offsets[1:] - 1]
    early = int((cut & (dataset.lengths < robot.horizon)).sum())
    policies = list(info.get("policies", ()))
    allowed = len(policies) if info.get("kind") == "medium-replay" else 0
    yield Finding(
        early <= allowed, f"episodes cut off before the time limit: {early}, by the recipe at most {allowed}"
    )
    expected = [name or "uniform" for name in generated.policy_names(robot, str(info.get("kind")))]
    yield Finding(policies == expected, f"behaviour policies: {', '.join(policies)}")
    same = info.get("recipe") == generated.RECIPE
    yield Finding(same, f"recipe {info.get('recipe')}, seed {info.get('seed')}, physics {info.get('physics')}")


def _remade(dataset: TrajectoryDataset) -> Finding:
    info = dataset.info
    again = generated.make_generated(
        robot_named(str(info["robot"])),
        str(info["kind"]),
        steps=int(info["asked_steps"]),
        seed=int(info["seed"]),
        physics=info["physics"],
    )
    if info.get("delayed"):
        again = again.delayed()
    return Finding(again.digest == dataset.digest, f"made again: digest {again.digest}")
