"""Choose which snapshots of PPO runs play a robot's medium, expert and replay data, or a game's data.

Both write manifest.json into the folder of all runs and remove the snapshots that are chosen for nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from choose import MASTERED, MEDIUM, TOLERANCE

from dtbench.data import generator
from dtbench.domains.atari import generation as atari
from dtbench.domains.atari.emulator import PROTOCOLS, AtariEmulator
from dtbench.domains.d4rl.env_specs import LocomotionEnv
from dtbench.domains.d4rl.generation import BehaviorPolicy, mean_return

CANDIDATES = 6  # snapshots that are measured again for each choice
ROBOT_EPISODES, REPLAY_POLICIES = 100, 16
GAME_LEVELS, GAME_EPISODES = 8, 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One policy of a training run, with the returns of the few episodes that the run itself played with it."""

    run: str  # the run's folder: seed0, seed1, ...
    step: int
    mean: float
    std: float

    @property
    def name(self) -> str:
        """Its file, relative to the folder of all runs."""
        return f"{self.run}/{snapshot_name(self.step)}"


def snapshot_name(step: int) -> str:
    """Return the file of the snapshot taken at this environment step."""
    return f"step-{step:08d}.npz"


def choose_for_robot(robot: LocomotionEnv, folder: Path) -> dict[str, Any]:
    """Choose the policies of medium, expert and medium-replay, and return the manifest.

    Medium is the snapshot nearest to mean and standard deviation of D4RL's medium returns (each difference relative),
    among those whose mean is within 15 % and that come before their run first reaches nine tenths of the best return
    of all runs, for later ones are lapses of a good policy; expert the one of the highest mean return; replay are
    snapshots of medium's run, spread evenly from the first to medium. Training curves make the short list; episodes
    on other seeds decide. Exits where no snapshot comes near the medium return.
    """
    runs = {path.parent.name: _robot_curve(path) for path in sorted(folder.glob("*/curve.json"))}
    target = MEDIUM[robot.name]
    measured: dict[Snapshot, tuple[float, float]] = {}

    def returns_of(snapshot: Snapshot) -> tuple[float, float]:
        if snapshot not in measured:
            policy = BehaviorPolicy.load(folder / snapshot.name)
            measured[snapshot] = mean_return(robot, policy, episodes=ROBOT_EPISODES, seed=1)
        return measured[snapshot]

    def distance(returns: tuple[float, float]) -> float:
        return sum(abs(ours - theirs) / theirs for ours, theirs in zip(returns, target, strict=True))

    everything = [snapshot for curve in runs.values() for snapshot in curve]
    mastered = MASTERED * max(snapshot.mean for snapshot in everything)
    early = [snapshot for curve in runs.values() for snapshot in takewhile(lambda s: s.mean < mastered, curve)]
    near = sorted(early, key=lambda snapshot: distance((snapshot.mean, snapshot.std)))[:CANDIDATES]
    within = [snapshot for snapshot in near if abs(returns_of(snapshot)[0] - target[0]) <= TOLERANCE * target[0]]
    if not within:
        raise SystemExit(f"{folder}: no snapshot returns {target[0]:g} within {TOLERANCE:.0%}. Train on.")
    medium = min(within, key=lambda snapshot: distance(returns_of(snapshot)))
    expert = max(sorted(everything, key=lambda s: -s.mean)[:CANDIDATES], key=lambda s: returns_of(s)[0])
    replay = _spread([snapshot for snapshot in runs[medium.run] if snapshot.step <= medium.step], REPLAY_POLICIES)
    manifest: dict[str, Any] = {
        "medium": medium.name,
        "medium_return": [round(value, 1) for value in returns_of(medium)],
        "expert": expert.name,
        "expert_return": [round(value, 1) for value in returns_of(expert)],
        "replay": [snapshot.name for snapshot in replay],
        "measured_episodes": ROBOT_EPISODES,
    }
    _write(folder, manifest, {medium.name, expert.name, *manifest["replay"]})
    return manifest


def choose_for_game(game: str, folder: Path) -> dict[str, Any]:
    """Choose the policies that make a game's data, worst first, and return the manifest.

    Of the run whose returns rise highest, the first snapshot that reaches each of `GAME_LEVELS` returns, evenly spread
    from the lowest of its curve to the highest: what a replay buffer would hold, but evenly over skill. Exits where no
    run has finished an episode.
    """
    curves = {path.parent.name: _game_curve(path) for path in sorted(folder.glob("*/curve.json"))}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        raise SystemExit(f"{folder}: no run has finished an episode. Train on.")
    best = max(curves, key=lambda name: max(mean for _, mean in curves[name]))
    means = [mean for _, mean in curves[best]]
    levels = np.linspace(min(means), max(means), GAME_LEVELS)
    reached = [next(step for step, mean in curves[best] if mean >= level) for level in levels]
    names = [f"{best}/{snapshot_name(step)}" for step in dict.fromkeys(reached)]
    measured = {name: measured_returns(game, atari.RamPolicy.load(folder / name)) for name in names}
    manifest: dict[str, Any] = {
        "policies": sorted(names, key=lambda name: measured[name]["return_mean"]),
        "measured": measured,
        "random": measured_returns(game, None),
        "measured_episodes": GAME_EPISODES,
    }
    _write(folder, manifest, set(names))
    return manifest


def measured_returns(
    game: str, policy: atari.RamPolicy | None, *, episodes: int = GAME_EPISODES, seed: int = 0
) -> dict[str, float]:
    """Return mean and standard deviation of the raw returns of episodes without sticky actions."""
    returns = [_return(game, policy, generator(seed, 19, episode)) for episode in range(episodes)]
    return {"return_mean": round(float(np.mean(returns)), 2), "return_std": round(float(np.std(returns)), 2)}


def _return(game: str, policy: atari.RamPolicy | None, rng: np.random.Generator) -> float:
    emulator = AtariEmulator(game, PROTOCOLS["official-dt"])
    emulator.begin(int(rng.integers(2**31)))
    before = ram = emulator.ram()[None]
    total = 0.0
    while not (emulator.terminated or emulator.truncated):
        action = atari.choose_action(game, policy, ram, before, rng.random(1))
        total += emulator.step(int(action[0]), seen=False)
        before, ram = ram, emulator.ram()[None]
    return total


def _write(folder: Path, manifest: dict[str, Any], kept: Iterable[str]) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    for path in folder.glob("*/step-*.npz"):
        if str(path.relative_to(folder)) not in kept:
            path.unlink()


def _robot_curve(path: Path) -> list[Snapshot]:
    rows = json.loads(path.read_text())
    return [Snapshot(path.parent.name, row["step"], row["return_mean"], row["return_std"]) for row in rows]


def _game_curve(path: Path) -> list[tuple[int, float]]:
    """Return steps and mean returns, each averaged with its neighbours: a snapshot sees few episodes."""
    rows = [row for row in json.loads(path.read_text()) if row["return_mean"] is not None]
    means = np.array([row["return_mean"] for row in rows])
    smooth = [float(means[max(0, i - 1) : i + 2].mean()) for i in range(len(rows))]
    return [(row["step"], mean) for row, mean in zip(rows, smooth, strict=True)]


def _spread(snapshots: Sequence[Snapshot], count: int) -> list[Snapshot]:
    indices = np.unique(np.linspace(0, len(snapshots) - 1, min(count, len(snapshots))).round().astype(int))
    return [snapshots[int(index)] for index in indices]
