"""Data made here by D4RL's recipe, with behaviour policies that dtbench trained and ships.

Recipe "sac" is D4RL's: one run of soft actor-critic a robot, whose snapshots play all kinds of data. Recipe "ppo" is
dtbench's first: nearly deterministic policies, kept because data in narrow tubes are a case by themselves.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dtbench.data import store
from dtbench.data.trajectories import TrajectoryDataset
from dtbench.domains.d4rl.behavior import BehaviorPolicy
from dtbench.domains.d4rl.recording import Share, record
from dtbench.domains.d4rl.robots import REACHER, Physics, Robot
from dtbench.errors import UnknownName

POLICIES = Path(__file__).parent / "policies"
SEED = 0
# Raise one when equal arguments begin to give other data.
RECIPES: Mapping[str, int] = {"sac": 1, "ppo": 2}  # ppo 2: what follows a cut-off is recorded
_MILLION = 1_000_000
# Steps of D4RL's v2 sets (Fu et al. 2020); replay is what SAC's buffer held when it was mediocre.
_REPLAY_STEPS = {"hopper": 402_000, "walker2d": 302_000, "halfcheetah": 202_000}


def default_steps(robot: Robot, kind: str) -> int:
    """As many steps as D4RL's set of this kind has; a million for Reacher."""
    if robot.name == REACHER:
        return _MILLION
    return {"medium-replay": _REPLAY_STEPS[robot.name], "medium-expert": 2 * _MILLION}.get(kind, _MILLION)


def checked_recipe(robot: Robot, recipe: str) -> str:
    """The recipe, or the robot's default for ""; raise UnknownName where the robot has no such policies."""
    there = recipes_of(robot)
    if recipe and recipe not in there:
        raise UnknownName(f"recipe of {robot.name}", str(recipe), there)
    return recipe or there[0]


def recipes_of(robot: Robot) -> list[str]:
    """The recipes whose policies are shipped, the default first."""
    return [recipe for recipe in RECIPES if (POLICIES / recipe / robot.name / "manifest.json").exists()]


def load_generated(
    robot: Robot, kind: str, *, steps: int, seed: int = SEED, physics: Physics = "d4rl", recipe: str = ""
) -> TrajectoryDataset:
    """Open the data of this kind, or make it and keep it first."""
    return store.open_or_make(
        stored_name(robot, kind, steps=steps, seed=seed, physics=physics, recipe=recipe),
        lambda: make_generated(robot, kind, steps=steps, seed=seed, physics=physics, recipe=recipe),
    )


def make_generated(
    robot: Robot, kind: str, *, steps: int, seed: int, physics: Physics, recipe: str = ""
) -> TrajectoryDataset:
    """Play the policies of this kind; equal arguments give equal data.

    random: uniform actions. medium, expert: one policy. medium-replay: the policies along training up to the medium
    one, as a replay buffer holds them: each for as many steps, in proportion, as training took from it to the next.
    medium-expert: half and half.
    """
    recipe = checked_recipe(robot, recipe)
    played = policy_shares(robot, kind, recipe)
    shares = [Share(_policy(recipe, robot.name, name), weight) for name, weight in played]
    made = record(robot, shares, steps=steps, seed=seed, physics=physics, cut_last=kind == "medium-replay")
    names = [name or "uniform" for name, _ in played]
    measured = manifest_of(robot, recipe).get("measured", {}) if kind != "random" else {}
    return made.with_info(
        {
            "kind": kind,
            "policies": names,
            "policy_returns": [{"policy": name, **measured[name]} for name in names if name in measured],
            "recipe": recipe,
            "recipe_version": RECIPES[recipe],
        }
    )


def policy_shares(robot: Robot, kind: str, recipe: str) -> list[tuple[str | None, float]]:
    """Files of the policies that play, in order, with their shares; None plays uniformly at random."""
    if kind == "random":
        return [(None, 1.0)]
    manifest = manifest_of(robot, recipe)
    if kind == "medium-replay":
        return [(name, float(weight)) for name, weight in _replay(manifest)]
    names = {"medium": ["medium"], "expert": ["expert"], "medium-expert": ["medium", "expert"]}[kind]
    return [(manifest[name], 1.0) for name in names]


def manifest_of(robot: Robot, recipe: str) -> dict[str, Any]:
    """Which policy plays what, and the returns that were measured when they were chosen."""
    found: dict[str, Any] = json.loads((POLICIES / recipe / robot.name / "manifest.json").read_text())
    return found


def stored_name(robot: Robot, kind: str, *, steps: int, seed: int, physics: Physics, recipe: str = "") -> str:
    """The name under which the store keeps such data."""
    recipe = checked_recipe(robot, recipe)
    return f"generated-{robot.name}-{kind}-{steps}-seed{seed}-{physics}-{recipe}{RECIPES[recipe]}"


def is_stored(
    robot: Robot, kind: str, *, steps: int, seed: int = SEED, physics: Physics = "d4rl", recipe: str = ""
) -> bool:
    """Whether it has been made already."""
    name = stored_name(robot, kind, steps=steps, seed=seed, physics=physics, recipe=recipe)
    return (store.root() / name / "meta.json").exists()


def _replay(manifest: Mapping[str, Any]) -> list[tuple[str | None, float]]:
    """PPO's manifest lists files, of equal shares; SAC's lists a file, or null for the warm-up, and its steps."""
    return [(entry, 1.0) if isinstance(entry, str) else (entry[0], entry[1]) for entry in manifest["replay"]]


@cache
def _policy(recipe: str, robot: str, name: str | None) -> BehaviorPolicy | None:
    return BehaviorPolicy.load(POLICIES / recipe / robot / name) if name else None
