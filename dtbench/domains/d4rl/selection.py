"""Which snapshots of a training run become the medium, expert and replay policies."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dtbench.domains.d4rl.behavior import BehaviorPolicy
from dtbench.domains.d4rl.recording import mean_return
from dtbench.domains.d4rl.robots import Robot
from dtbench.errors import InvalidValue

CANDIDATES = 6  # snapshots that are measured again for each choice
PASSED = 1.5  # times the medium mean
TOLERANCE = 0.15  # of the medium policy's mean return


def choose_policies(
    robot: Robot, folder: Path, *, medium: tuple[float, float], replay: int = 16, episodes: int = 100
) -> dict[str, Any]:
    """Write manifest.json: the snapshots that play medium, expert and medium-replay.

    `medium` is the mean and standard deviation of the returns of D4RL's medium set. Medium is the snapshot nearest to
    both (each difference relative), among those whose mean is within 15 % and that training has passed before it first
    reaches 1.5 times the medium mean, for later ones are lapses of a good policy; expert the one of the highest mean return;
    replay are `replay` snapshots spread evenly from the first to the medium one. The training curve, of few
    episodes, makes the short list; `episodes` games on other seeds decide. Snapshots chosen for nothing are removed.
    Raises InvalidValue where no snapshot comes near the medium return.
    """
    curve = json.loads((folder / "curve.json").read_text())
    measured: dict[int, tuple[float, float]] = {}

    def returns_of(step: int) -> tuple[float, float]:
        if step not in measured:
            policy = BehaviorPolicy.load(folder / snapshot_name(step))
            measured[step] = mean_return(robot, policy, episodes=episodes, seed=1)
        return measured[step]

    def distance(mean: float, std: float) -> float:
        return abs(mean - medium[0]) / medium[0] + abs(std - medium[1]) / medium[1]

    good = [row["step"] for row in curve if row["return_mean"] > PASSED * medium[0]]
    early = [row for row in curve if not good or row["step"] < good[0]]
    near = sorted(early, key=lambda row: distance(row["return_mean"], row["return_std"]))[:CANDIDATES]
    within = [row["step"] for row in near if abs(returns_of(row["step"])[0] - medium[0]) <= TOLERANCE * medium[0]]
    if not within:
        raise InvalidValue(f"{folder}: no snapshot returns {medium[0]:g} within {TOLERANCE:.0%}. Train on.")
    middle = min(within, key=lambda step: distance(*returns_of(step)))
    best = sorted(curve, key=lambda row: -row["return_mean"])[:CANDIDATES]
    expert = max((row["step"] for row in best), key=lambda step: returns_of(step)[0])
    steps = _spread([row["step"] for row in curve if row["step"] <= middle], replay)
    manifest = {
        "medium": snapshot_name(middle),
        "medium_return": [round(value, 1) for value in returns_of(middle)],
        "expert": snapshot_name(expert),
        "expert_return": [round(value, 1) for value in returns_of(expert)],
        "replay": [snapshot_name(step) for step in steps],
        "measured_episodes": episodes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    kept = {manifest["medium"], manifest["expert"], *manifest["replay"]}
    for path in folder.glob("step-*.npz"):
        if path.name not in kept:
            path.unlink()
    return manifest


def snapshot_name(step: int) -> str:
    """The file of the snapshot taken at this environment step."""
    return f"step-{step:08d}.npz"


def _spread(steps: Sequence[int], count: int) -> list[int]:
    places = np.unique(np.linspace(0, len(steps) - 1, min(count, len(steps))).round().astype(int))
    return [steps[place] for place in places]
