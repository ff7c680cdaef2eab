"""Which snapshots of a training run become the medium, expert and replay policies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from dtbench.domains.d4rl.env_specs import REACHER, Robot
from dtbench.domains.d4rl.generation import BehaviorPolicy, mean_return
from dtbench.errors import InvalidValue

# Mean and standard deviation of the returns of D4RL's medium-v2 sets, from public logs (see
# results/published/decision_transformer.csv); nobody has Reacher's, and 40 is one of the targets in the public code.
MEDIUM = {
    "halfcheetah": (4770.335, 355.7504),
    "hopper": (1422.0562, 378.9537),
    "walker2d": (2852.0884, 1095.4434),
    REACHER: (40.0, 30.0),
}
CANDIDATES = 6  # snapshots that are measured again for each choice
MASTERED = 0.9  # of the best return that training reaches
TOLERANCE = 0.15  # of the medium policy's mean return


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One policy of a training run, with the returns of the few episodes that the run itself played with it."""

    run: str  # the run's folder: seed0, seed1, ...
    step: int
    mean: float
    std: float

    @property
    def name(self) -> str:
        """Its file, seen from the folder of all runs."""
        return f"{self.run}/{snapshot_name(self.step)}"


def choose_policies(
    robot: Robot, folder: Path, *, medium: tuple[float, float], replay: int = 16, episodes: int = 100
) -> dict[str, Any]:
    """Write manifest.json: which snapshots of the training runs in `folder` play medium, expert and medium-replay.

    `medium` is the mean and standard deviation of the returns of D4RL's medium set. Medium is the snapshot nearest to
    both (each difference relative), among those whose mean is within 15 % and that come before their run first
    reaches nine tenths of the best return of all runs, for later ones are lapses of a good policy; expert the one of
    the highest mean return; replay are `replay` snapshots of medium's run, spread evenly from the first to medium.
    The training curves, of few episodes, make the short list; `episodes` games on other seeds decide. Snapshots
    chosen for nothing are removed. Raises InvalidValue where no snapshot comes near the medium return.
    """
    runs = {path.parent.name: _curve(path) for path in sorted(folder.glob("*/curve.json"))}
    measured: dict[Snapshot, tuple[float, float]] = {}

    def returns_of(snapshot: Snapshot) -> tuple[float, float]:
        if snapshot not in measured:
            policy = BehaviorPolicy.load(folder / snapshot.name)
            measured[snapshot] = mean_return(robot, policy, episodes=episodes, seed=1)
        return measured[snapshot]

    def distance(returns: tuple[float, float]) -> float:
        return sum(abs(ours - theirs) / theirs for ours, theirs in zip(returns, medium, strict=True))

    everything = [snapshot for curve in runs.values() for snapshot in curve]
    mastered = MASTERED * max(snapshot.mean for snapshot in everything)
    early = [snapshot for curve in runs.values() for snapshot in takewhile(lambda s: s.mean < mastered, curve)]
    near = sorted(early, key=lambda snapshot: distance((snapshot.mean, snapshot.std)))[:CANDIDATES]
    within = [snapshot for snapshot in near if abs(returns_of(snapshot)[0] - medium[0]) <= TOLERANCE * medium[0]]
    if not within:
        raise InvalidValue(f"{folder}: no snapshot returns {medium[0]:g} within {TOLERANCE:.0%}. Train on.")
    middle = min(within, key=lambda snapshot: distance(returns_of(snapshot)))
    expert = max(sorted(everything, key=lambda s: -s.mean)[:CANDIDATES], key=lambda s: returns_of(s)[0])
    until = [snapshot for snapshot in runs[middle.run] if snapshot.step <= middle.step]
    manifest: dict[str, Any] = {
        "medium": middle.name,
        "medium_return": [round(value, 1) for value in returns_of(middle)],
        "expert": expert.name,
        "expert_return": [round(value, 1) for value in returns_of(expert)],
        "replay": [snapshot.name for snapshot in _spread(until, replay)],
        "measured_episodes": episodes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    kept = {manifest["medium"], manifest["expert"], *manifest["replay"]}
    for path in folder.glob("*/step-*.npz"):
        if str(path.relative_to(folder)) not in kept:
            path.unlink()
    return manifest


def snapshot_name(step: int) -> str:
    """The file of the snapshot taken at this environment step."""
    return f"step-{step:08d}.npz"


def _curve(path: Path) -> list[Snapshot]:
    rows = json.loads(path.read_text())
    return [Snapshot(path.parent.name, row["step"], row["return_mean"], row["return_std"]) for row in rows]


def _spread(snapshots: Sequence[Snapshot], count: int) -> list[Snapshot]:
    places = np.unique(np.linspace(0, len(snapshots) - 1, min(count, len(snapshots))).round().astype(int))
    return [snapshots[int(place)] for place in places]
