"""Checks of the Gym tasks' data: D4RL's files against public logs, generated data against its recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.download import check_file
from dtbench.domains.d4rl import files, generation, rerecorded
from dtbench.domains.d4rl.env import WALKERS
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS, LocomotionEnv, locomotion_env
from dtbench.domains.d4rl.replay import verify_dataset, verify_file
from dtbench.errors import InvalidDataset, MissingDataset, abridged

FEW_ERRORS = 3.0  # standard errors by which a mean may be off
NOT_D4RL = "made by dtbench with behaviour policies of its own: this is NOT D4RL's data, nor comparable as if it were"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its outcome."""

    passed: bool
    text: str


def findings(dataset: TrajectoryDataset, *, remake: bool = False, file: Path | None = None) -> Iterator[Finding]:
    """Yield all checks of a dataset of these tasks.

    `remake` records generated data again, which takes as long as the first time. `file` is the file of the data where
    it is not D4RL's.
    """
    source, robot = dataset.info.get("source"), _robot_of(dataset)
    if source in (files.SOURCE, files.EXCERPT):
        file = file or files.find_file(str(dataset.info["dataset"]))
        yield _file(dataset, file)
        yield from _statistics(dataset)
    elif source in (rerecorded.NAME, rerecorded.PART):
        yield from rerecorded_statistics(dataset)
    elif source == "generated" and robot is not None:
        yield Finding(True, NOT_D4RL)
        yield from _recipe(dataset)
    if remake and source in (rerecorded.NAME, rerecorded.PART, "generated") and robot is not None:
        yield _remade(dataset)
    if robot in WALKERS and not dataset.info.get("delayed"):
        yield from _physics(dataset, locomotion_env(robot), file)


def rerecorded_statistics(dataset: TrajectoryDataset) -> Iterator[Finding]:
    """Yield the policies, and the difference of the mean return from that of D4RL's set, in standard errors."""
    digests = [digest[:12] or "uniform" for digest in dataset.info["policy_digests"]]
    played = ", ".join(f"{name} ({digest})" for name, digest in zip(dataset.info["policies"], digests, strict=True))
    yield Finding(True, f"recorded again with D4RL's own policies: {played}")
    known = files.known_statistics(str(dataset.info["dataset"]))
    if known is None or known.return_mean is None:
        return
    returns = dataset.returns
    ours = returns.std() / np.sqrt(len(returns))
    theirs = (known.return_std or 0.0) / np.sqrt(known.episodes or np.inf)
    off = (returns.mean() - known.return_mean) / np.hypot(ours, theirs)
    yield Finding(
        bool(abs(off) <= FEW_ERRORS),
        f"mean return {returns.mean():.1f} ± {ours:.1f} (s.d. {returns.std():.1f}, {len(returns)} episodes); D4RL's "
        f"set has {known.return_mean:.1f} (s.d. {known.return_std or float('nan'):.1f}): {off:+.1f} standard errors",
    )


def _robot_of(dataset: TrajectoryDataset) -> str | None:
    """Return the robot of the data."""
    named = dataset.info.get("robot") or str(dataset.info.get("dataset", "")).partition("-")[0]
    return str(named) if named in LOCOMOTION_ENVS else None


def _physics(dataset: TrajectoryDataset, robot: LocomotionEnv, file: Path | None) -> Iterator[Finding]:
    """Find the physics by replaying transitions of the file, else of the observations."""
    try:
        verdict = verify_file(file, robot) if file is not None else verify_dataset(dataset, robot)
    except (InvalidDataset, MissingDataset) as error:
        yield Finding(False, str(error))
        return
    expected = str(dataset.info.get("physics", "d4rl"))
    *lines, summary = verdict.lines()
    yield from (Finding(True, line) for line in lines)
    fits = expected in verdict.physics
    yield Finding(fits, summary if fits else f"{summary}, where {expected} was expected")


def _file(dataset: TrajectoryDataset, path: Path | None) -> Finding:
    if path is None:
        return Finding(False, f"the file {dataset.info['file']} that it was read from is missing")
    try:
        sha256 = check_file(path)
    except InvalidDataset as error:
        return Finding(False, str(error))
    return Finding(sha256 == dataset.info["sha256"], f"file {path}: sha256 {sha256}")


def _statistics(dataset: TrajectoryDataset) -> Iterator[Finding]:
    known = files.known_statistics(str(dataset.info["dataset"]))
    returns = dataset.returns
    if dataset.info.get("source") == files.EXCERPT:
        yield Finding(False, f"AN EXCERPT: {dataset.info['excerpt']}; its returns are not compared with D4RL's")
        return
    if known is None:
        return
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


def _recipe(dataset: TrajectoryDataset) -> Iterator[Finding]:
    info, robot = dataset.info, locomotion_env(str(dataset.info["robot"]))
    longest = int(dataset.lengths.max())
    yield Finding(longest <= robot.horizon, f"longest episode: {longest} of at most {robot.horizon} steps")
    share = dataset.num_steps / int(info["asked_steps"])
    yield Finding(0.9 < share <= 1, f"steps: {dataset.num_steps} of {info['asked_steps']}")
    cut = ~np.asarray(dataset.terminals)[dataset.offsets[1:] - 1]
    early = int((cut & (dataset.lengths < robot.horizon)).sum())
    policies = list(info.get("policies", ()))
    allowed = len(policies) if info.get("kind") == "medium-replay" else 0
    yield Finding(
        early <= allowed, f"episodes truncated before the time limit: {early}, by the recipe at most {allowed}"
    )
    recipe = str(info.get("recipe"))
    there = recipe in generation.recipes_of(robot)
    shares = generation.policy_shares(robot, str(info.get("kind")), recipe) if there else []
    played = [name or "uniform" for name, _ in shares]
    yield Finding(policies == played, f"behaviour policies: {', '.join(map(str, abridged(policies)))}")
    same = there and info.get("recipe_version") == generation.RECIPES[recipe]
    recorded = f"recipe {recipe} {info.get('recipe_version', '')}".strip()
    yield Finding(same, f"{recorded}, seed {info.get('seed')}, physics {info.get('physics')}")


def _remade(dataset: TrajectoryDataset) -> Finding:
    info = dataset.info
    robot, kind = locomotion_env(str(info["robot"])), str(info["kind"])
    recording = generation.Recording(robot, kind, int(info["asked_steps"]), int(info["seed"]), info["physics"])
    if info["source"] != "generated":
        again = rerecorded.make(recording, rerecorded.policies_of(robot, kind))
    else:
        again = generation.make_generated(recording, recipe=str(info["recipe"]))
    if info.get("delayed"):
        again = again.delayed()
    return Finding(again.digest == dataset.digest, f"made again: digest {again.digest}")
