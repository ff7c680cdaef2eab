"""Data made here by D4RL's recipe, with behaviour policies that dtbench trained and ships."""

import json
from collections.abc import Sequence
from pathlib import Path

from dtbench.data import store
from dtbench.data.trajectories import TrajectoryDataset
from dtbench.domains.d4rl.behavior import BehaviorPolicy
from dtbench.domains.d4rl.recording import record
from dtbench.domains.d4rl.robots import Physics, Robot

POLICIES = Path(__file__).parent / "policies"
STEPS = 1_000_000  # of each kind, as in most of D4RL's sets
SEED = 0
RECIPE = 1  # raise it when equal arguments begin to give other data


def load_generated(
    robot: Robot, kind: str, *, steps: int = STEPS, seed: int = SEED, physics: Physics = "d4rl"
) -> TrajectoryDataset:
    """Open the data of this kind, or make it and keep it first."""
    return store.open_or_make(
        stored_name(robot, kind, steps=steps, seed=seed, physics=physics),
        lambda: make_generated(robot, kind, steps=steps, seed=seed, physics=physics),
    )


def make_generated(robot: Robot, kind: str, *, steps: int, seed: int, physics: Physics) -> TrajectoryDataset:
    """Play the policies of this kind; equal arguments give equal data.

    random: uniform actions. medium, expert: one policy. medium-replay: the policies along training up to the medium
    one, an equal share each, as a replay buffer holds them. medium-expert: half and half.
    """
    names = policy_names(robot, kind)
    policies = [BehaviorPolicy.load(POLICIES / robot.name / name) if name else None for name in names]
    made = record(robot, policies, steps=steps, seed=seed, physics=physics, cut_last=kind == "medium-replay")
    return made.with_info({"kind": kind, "policies": [name or "uniform" for name in names], "recipe": RECIPE})


def policy_names(robot: Robot, kind: str) -> Sequence[str | None]:
    """Files of the policies that play, in order; None plays uniformly at random."""
    if kind == "random":
        return [None]
    manifest = json.loads((POLICIES / robot.name / "manifest.json").read_text())
    names: dict[str, list[str | None]] = {
        "medium": [manifest["medium"]],
        "expert": [manifest["expert"]],
        "medium-replay": manifest["replay"],
        "medium-expert": [manifest["medium"], manifest["expert"]],
    }
    return names[kind]


def stored_name(robot: Robot, kind: str, *, steps: int, seed: int, physics: Physics) -> str:
    """The name under which the store keeps such data."""
    return f"generated-{robot.name}-{kind}-{steps}-seed{seed}-{physics}-recipe{RECIPE}"


def is_stored(robot: Robot, kind: str, *, steps: int, seed: int = SEED, physics: Physics = "d4rl") -> bool:
    """Whether it has been made already."""
    return (store.root() / stored_name(robot, kind, steps=steps, seed=seed, physics=physics) / "meta.json").exists()
