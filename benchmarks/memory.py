"""How much memory trials take: one on half a million Atari steps, and four at once on one file of a million Gym steps.

    python benchmarks/memory.py --out results/performance/memory.json

Whole trials, with their evaluations and checkpoints, of shipped suites' contenders run by `run_trial` in processes of
their own, on made-up data that lie in the store. Linux only. Of one process the peak of resident memory counts
(VmHWM), in which pages of a mapped file count where they were touched; of several the sum of proportional sizes
(PSS), in which a page that n processes share counts a n-th in each; it is read a few times a second while they run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atari_memory import store_random_play
from contest import options, ready, say
from machine import peak_resident, report, surroundings
from made_data import hopper_shaped

from dtbench.data import cache
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.suite.planning import contender_on, load_suite, resolved_hyperparameters
from dtbench.trial import run_trial

TASKS = Path(__file__).with_name("made_tasks.py")
ATARI_STEPS, GYM_STEPS = 500_000, 1_000_000
ATARI_GOAL, GYM_GOAL = 2.0, 1.2  # GB of one trial; GB of four beyond one
TOGETHER = {"four of DT": ("DT",) * 4, "DT, TD3+BC, IQL, CQL": ("DT", "TD3+BC", "IQL", "CQL")}
UPDATES, EVERY = 60, 0.1  # gradient steps of a trial; seconds between two looks at its size
FRAMES, QUICK_FRAMES = 800, 40  # of a game of Pong: once its windows are full, an evaluation grows no more
GIGABYTE = 1e9


def main() -> None:
    """Measure, and print all as JSON, the figures that have a goal in words too."""
    chosen = arguments()
    if chosen.trial:
        print(json.dumps(of_this_process(*chosen.trial)))
        return
    figures: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for part in chosen.parts:
        with tempfile.TemporaryDirectory() as folder:
            found, details[part] = {"atari": atari, "gym": gym}[part](Path(folder), chosen)
            figures += found
    for figure in figures:
        say(f"{figure['what']}: {figure['value']:.2f} {figure['unit']}, goal: less than {figure['goal']:g}")
    report({"figures": figures, "details": details, **surroundings()}, chosen.out)


def atari(folder: Path, chosen: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The peak of a trial of DT and of one of QR-DQN, the suite `atari` with its preset `cpu`."""
    steps = 2000 if chosen.quick else ATARI_STEPS
    stored = folder / "stored"
    store_random_play(stored, steps=steps, scratch=folder)
    sizes = {}
    for name in ("DT", "QR-DQN"):
        spec = spec_of("atari", chosen.presets[0], name, game="pong", stored=stored, updates=chosen.updates)
        options_of = {**spec.task_options, "max_frames": QUICK_FRAMES if chosen.quick else FRAMES}
        spec = replace(spec, task_options=options_of)
        (sizes[name],), _ = at_once([spec], folder)
    return [
        {
            "what": f"{name} on {steps} Atari steps, peak resident",
            "value": found["peak_resident_bytes"] / GIGABYTE,
            "unit": "GB",
            "goal": ATARI_GOAL,
        }
        for name, found in sizes.items()
    ], {"steps": steps, "trials": sizes}


def gym(folder: Path, chosen: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Four trials at once against one, the suite `d4rl` with its preset `paper`."""
    steps = 2000 if chosen.quick else GYM_STEPS
    stored = folder / "stored"
    cache.save(hopper_shaped(steps), stored)
    figures = []
    details: dict[str, Any] = {"steps": steps}
    for label, names in chosen.together.items():
        specs = [
            spec_of("d4rl", chosen.presets[1], name, game="hopper", stored=stored, updates=chosen.updates, seed=seed)
            for seed, name in enumerate(names)
        ]
        singles = [at_once([spec], folder / f"{label} {spec.seed} alone")[1] for spec in unlike(specs)]
        _, four = at_once(specs, folder / label)
        details[label] = {"one_pss_bytes": singles, "four_pss_bytes": four}
        figures.append(
            {
                "what": f"{label} at once on one file of {steps} steps, beyond the largest alone",
                "value": (four - max(singles)) / GIGABYTE,
                "unit": "GB",
                "goal": GYM_GOAL,
            }
        )
    return figures, details


def unlike(specs: Sequence[TrialSpec]) -> list[TrialSpec]:
    """The first of each contender."""
    return list({spec.contender: spec for spec in reversed(specs)}.values())


def spec_of(
    suite: str, preset: str, contender: str, *, game: str, stored: Path, updates: int, seed: int = 0
) -> TrialSpec:
    """A short trial of a suite's contender on stored data, evaluated once on the way and at the end."""
    task = {"pong": "atari:pong", "hopper": "hopper-medium-v2"}[game]
    settled = contender_on(load_suite(suite, preset=preset).contenders[contender], task)
    targets = (20.0, 0.0) if game == "pong" else (3600.0, 1800.0)
    discrete = game == "pong" and settled.algorithm == "dt_atari"
    return TrialSpec(
        suite="memory",
        contender=contender,
        task=f"{TASKS}:{game}",
        task_version=1,
        task_options={"stored": str(stored)},
        dataset_digest=cache.load(stored).digest,
        dataset_source="auto",
        algorithm=settled.algorithm,
        algorithm_version="1",
        hyperparameters=resolved_hyperparameters(settled),
        seed=seed,
        budget=updates,
        evaluation=EvaluationSpec(
            episodes=10, every=max(1, updates // 2), targets=targets, action_mode="sample" if discrete else "argmax"
        ),
    )


def at_once(specs: Sequence[TrialSpec], root: Path) -> tuple[list[dict[str, Any]], int]:
    """What each trial's process says of itself, and the greatest sum of their proportional sizes, in bytes."""
    root.mkdir(parents=True, exist_ok=True)
    running = []
    for number, spec in enumerate(specs):
        path = root / f"{number}.json"
        path.write_text(json.dumps(spec.to_json()))
        command = [sys.executable, __file__, "--trial", str(path), str(root / f"runs-{number}")]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, sum(proportional_size(process.pid) for process in running))
        time.sleep(EVERY)
    said = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    return [json.loads(text.splitlines()[-1]) for text in said], most


def proportional_size(pid: int) -> int:
    """PSS of a process in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def of_this_process(path: str, root: str) -> dict[str, Any]:
    """Run the trial of a file, and give the peak of this process's resident memory."""
    spec = TrialSpec.from_json(json.loads(Path(path).read_text()))
    imported = peak_resident()
    state = run_trial(replace(spec, resources={"cpu": 1.0, "gpu": 0.0}), Path(root))
    assert state == "done", "\n".join(path.read_text() for path in Path(root).rglob("error.txt"))
    return {"imported_bytes": imported, "peak_resident_bytes": peak_resident()}


def arguments() -> argparse.Namespace:
    """As given; small where asked to be quick."""
    parser = options(__doc__)
    parser.add_argument("--parts", nargs="+", choices=("atari", "gym"), default=["gym", "atari"])
    parser.add_argument("--updates", type=int, default=UPDATES, help="gradient steps of a trial")
    parser.add_argument("--trial", nargs=2, metavar=("SPEC", "ROOT"), help=argparse.SUPPRESS)
    chosen = ready(parser)
    chosen.presets, chosen.together = ("cpu", "paper"), TOGETHER
    if chosen.quick:
        chosen.updates, chosen.presets, chosen.together = 2, ("smoke", "smoke"), {"two of DT": ("DT", "DT")}
    return chosen


if __name__ == "__main__":
    main()
