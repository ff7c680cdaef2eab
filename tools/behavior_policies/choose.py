"""Choose from a SAC run which snapshots play medium, expert and medium-replay, and put them where dtbench ships them.

    python tools/behavior_policies/choose.py RUN [--out dtbench/domains/d4rl/policies/sac]

Medium is the snapshot nearest to mean and standard deviation of D4RL's medium returns, within 15 % of the mean and
before the run has reached nine tenths of its best; expert the one of the highest mean return; medium-replay are the
snapshots from the warm-up to medium, each for as many steps as training took from it to the next. The run's curve, of
few episodes, makes the short lists; episodes on other seeds decide. Replay's policies are shipped in one byte a
weight, medium and expert in two: rounded to one byte HalfCheetah's expert lost 8 % of its return.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from train import write_json

from dtbench.domains.d4rl.env_specs import REACHER, LocomotionEnv, locomotion_env
from dtbench.domains.d4rl.generation import BehaviorPolicy, mean_return

# Mean and standard deviation of the returns of D4RL's medium-v2 sets, from public logs (see
# results/published/decision_transformer.csv); Reacher has none, and 40 is one of the targets in the public code.
MEDIUM = {
    "halfcheetah": (4770.335, 355.7504),
    "hopper": (1422.0562, 378.9537),
    "walker2d": (2852.0884, 1095.4434),
    REACHER: (40.0, 30.0),
}
MASTERED = 0.9  # of the best return that training reaches
TOLERANCE = 0.15  # of the medium policy's mean return

EPISODES = 50
MEDIUM_CANDIDATES, EXPERT_CANDIDATES = 8, 5
MOST_POLICIES = 180  # of a replay: at 22 KB each, less than 4 MB a robot


@dataclass(frozen=True)
class Snapshot:
    """A policy of the run and what its curve says of it."""

    path: Path
    step: int
    mean: float  # of a few episodes


@dataclass(frozen=True)
class Measured:
    """Mean and standard deviation of a policy's returns."""

    mean: float
    std: float


def snapshots_of(run: Path) -> list[Snapshot]:
    """Snapshots whose return the curve tells: the better of episodes of their own and of training before them."""
    found = []
    for row in json.loads((run / "curve.json").read_text()):
        known = [row[name] for name in ("return_mean", "training_return") if row.get(name) is not None]
        if known:
            found.append(Snapshot(run / "snapshots" / f"step-{row['step']:08d}.npz", row["step"], max(known)))
    return found


def choose(robot: LocomotionEnv, run: Path) -> dict[str, Any]:
    """Return the manifest, with files named as in the run."""
    everything = snapshots_of(run)
    target, spread = MEDIUM[robot.name]
    best = max(snapshot.mean for snapshot in everything)
    early = list(takewhile(lambda snapshot: snapshot.mean < MASTERED * best, everything))
    near = sorted(early, key=lambda snapshot: abs(snapshot.mean - target))[:MEDIUM_CANDIDATES]
    measured = {snapshot: returns_of(robot, snapshot.path) for snapshot in near}
    within = [snapshot for snapshot in near if abs(measured[snapshot].mean - target) <= TOLERANCE * target]
    if not within:
        raise SystemExit(f"{run}: no snapshot returns {target:g} within {TOLERANCE:.0%}. Train on.")
    medium = min(
        within,
        key=lambda s: abs(measured[s].mean - target) / target + abs(measured[s].std - spread) / spread,
    )
    finalists = sorted(everything, key=lambda snapshot: -snapshot.mean)[:EXPERT_CANDIDATES]
    measured |= {snapshot: returns_of(robot, snapshot.path) for snapshot in finalists}
    expert = max(finalists, key=lambda snapshot: measured[snapshot].mean)
    training = json.loads((run / "training.json").read_text())["settings"]
    return {
        "medium": medium.path.name,
        "medium_return": _rounded(measured[medium]),
        "expert": expert.path.name,
        "expert_return": _rounded(measured[expert]),
        "replay": replay_of(run, warmup=training["warmup"], until=medium.step),
        "measured": {
            snapshot.path.name: {
                "with_noise": round(measured[snapshot].mean, 1),
                "without_noise": round(returns_of(robot, snapshot.path, noise=False).mean, 1),
                "episodes": EPISODES,
            }
            for snapshot in (medium, expert)
        },
        "trained_steps": everything[-1].step,
    }


def replay_of(run: Path, *, warmup: int, until: int) -> list[list[Any]]:
    """Files and steps of what the buffer held when training reached step `until`; null is the uniform warm-up.

    Where more snapshots were kept than may be shipped, every second one, or third, plays for its successors too.
    """
    files = sorted((run / "snapshots").glob("step-*.npz"))
    steps = [(path, int(path.stem.removeprefix("step-"))) for path in files]
    inside = [(path, step) for path, step in steps if warmup <= step < until]
    inside = inside[:: 1 + len(inside) // MOST_POLICIES]
    ends = [step for _, step in inside[1:]] + [until]
    played = [[path.name, end - step] for (path, step), end in zip(inside, ends, strict=True)]
    return [[None, warmup], *played]


def returns_of(robot: LocomotionEnv, path: Path, *, noise: bool = True) -> Measured:
    """Return what the shipped policy earns in episodes on seeds of their own."""
    return Measured(*mean_return(robot, BehaviorPolicy.load(path), episodes=EPISODES, seed=1, noise=noise))


def ship(run: Path, out: Path, manifest: dict[str, Any]) -> None:
    """Copy the chosen policies, and what they come from, into a directory."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in (manifest["medium"], manifest["expert"]):
        shutil.copyfile(run / "snapshots" / name, out / name)
    for name, _ in manifest["replay"]:
        if name:
            BehaviorPolicy.load(run / "snapshots" / name).save(out / name, bytes_per_weight=1)
    curve = json.loads((run / "curve.json").read_text())
    lines = ",\n".join(json.dumps(row) for row in curve)
    (out / "curve.json").write_text(f"[\n{lines}\n]\n")
    shutil.copyfile(run / "training.json", out / "training.json")
    write_json(out / "manifest.json", manifest)


def _rounded(measured: Measured) -> list[float]:
    return [round(measured.mean, 1), round(measured.std, 1)]


def main() -> None:
    """Parse the command line, choose and ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Directory of a run of train.py.")
    parser.add_argument("--out", type=Path, default=Path("dtbench/domains/d4rl/policies/sac"))
    arguments = parser.parse_args()
    name = json.loads((arguments.run / "training.json").read_text())["robot"]
    robot = locomotion_env(name)
    manifest = choose(robot, arguments.run)
    ship(arguments.run, arguments.out / name, manifest)
    print(json.dumps({key: value for key, value in manifest.items() if key != "replay"}, indent=1))
    print(
        f"medium-replay: {len(manifest['replay'])} policies over {sum(steps for _, steps in manifest['replay'])} steps"
    )


if __name__ == "__main__":
    main()
