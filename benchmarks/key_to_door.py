"""How long the suite `key-to-door` takes with its preset `cpu`: this code against the code of another checkout.

    python benchmarks/key_to_door.py --share 0.2 --out results/performance/key_to_door.json [--before PATH]

Without `--before`, the commit before the work on speed is checked out into a folder that is removed again. Both codes
run the same trials in turn, each in a process of its own that has run one before: one seed of every contender on
every task asked for, with a share of the budget, of the episodes and of the steps between evaluations, so that
training and evaluation keep their weights. The suite's time is the sum over its cells and seeds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from answers import Ask, answering
from contest import options, ready, say, spread
from machine import report, surroundings

SUITE, PRESET = "key-to-door", "cpu"
BEFORE = "1cfd85e"  # the last commit before the work on speed
HERE = Path(__file__).resolve().parents[1]
GOAL = 2.0


def main() -> None:
    """Run all cells with both codes, and print seconds, scores and ratios as JSON."""
    chosen = arguments()
    if chosen.serve:
        serve(chosen.serve)
        return
    with ExitStack() as stack:
        before = chosen.before or stack.enter_context(worktree(BEFORE))
        sides = {"before": stack.enter_context(trials_of(before)), "now": stack.enter_context(trials_of(HERE))}
        cells = measure(sides, chosen)
    ratio = {side: [sum(cell["seconds"][side][n] for cell in cells) for n in range(chosen.rounds)] for side in sides}
    times = spread([then / now for then, now in zip(ratio["before"], ratio["now"], strict=True)])
    row = {
        "what": f"{SUITE} --preset {PRESET}, all trials",
        "ours": "now",
        "peer": "before" if chosen.before else BEFORE,
        "milliseconds": {
            side: round(1000 * statistics.median(ratio[name]) / chosen.share, 1)
            for side, name in (("ours", "now"), ("peer", "before"))
        },
        "times_faster": times,
        "goal": GOAL,
    }
    say(f"{row['what']}: {times['median']:.2f} times as fast ({times['least']:.2f} to {times['most']:.2f})")
    report({"share": chosen.share, "ratios": [row], "cells": cells, **surroundings()}, chosen.out)


def measure(sides: dict[str, Ask], chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds and scores of every cell, round by round, with the codes in turn."""
    found = []
    for task in chosen.tasks:
        for contender in chosen.contenders or contenders():
            cell: dict[str, Any] = {"task": task, "contender": contender}
            cell |= {"seconds": {side: [] for side in sides}, "score": {side: [] for side in sides}}
            for number in range(chosen.rounds):
                for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                    asked = {"task": task, "contender": contender, "seed": number, "share": chosen.share}
                    answer = sides[side](asked)
                    cell["seconds"][side].append(answer["seconds"])
                    cell["score"][side].append(answer["score"])
            took = {side: round(statistics.median(seconds), 2) for side, seconds in cell["seconds"].items()}
            say(f"{contender} on {task}: {took['before']} s before, {took['now']} s now")
            found.append(cell)
    return found


def contenders() -> list[str]:
    """Those of the suite; its random player learns nothing, and is left out."""
    from dtbench.suite.planning import load_suite

    return [name for name, one in load_suite(SUITE, preset=PRESET).contenders.items() if one.budget]


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A checkout of a commit of this repository, in a folder that is removed again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "before"
        subprocess.run(
            ["git", "-C", HERE, "worktree", "add", "--detach", path, commit], check=True, capture_output=True
        )
        try:
            yield path
        finally:
            subprocess.run(["git", "-C", HERE, "worktree", "remove", "--force", path], check=True, capture_output=True)


@contextmanager
def trials_of(checkout: Path) -> Iterator[Ask]:
    """A process that runs trials with the code of a checkout."""
    path = f"{checkout}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, __file__, "--serve", str(checkout)]
    with answering(command, {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}) as (said, ask):
        assert Path(said["code"]).resolve().is_relative_to(Path(checkout).resolve()), said
        yield ask


def serve(checkout: str) -> None:
    """Answer with the seconds and the last score of every trial asked for; only what both codes have is used."""
    os.chdir(checkout)  # the suite of this code, not of the folder that it was called from
    import dtbench
    from dtbench.suite.planning import load_suite, trial_specs
    from dtbench.trial import run_trial

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    out.write(json.dumps({"code": dtbench.__file__}) + "\n")
    specs: dict[str, Any] = {}
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        if asked["task"] not in specs:
            suite = load_suite(SUITE, preset=PRESET, overrides=[f"tasks=[{asked['task']}]"])
            specs[asked["task"]] = {spec.contender: spec for spec in trial_specs(suite)}
        spec = shortened(specs[asked["task"]][asked["contender"]], asked)
        with tempfile.TemporaryDirectory() as folder:
            if number == 0:  # what the first trial of a process pays for once
                short = replace(spec.evaluation, episodes=1)
                run_trial(replace(spec, budget=1, evaluation=short), Path(folder) / "warm-up")
            began = time.perf_counter()
            state = run_trial(spec, Path(folder))
            seconds = time.perf_counter() - began
            assert state == "done", state
            out.write(json.dumps({"seconds": seconds, "score": last_score(Path(folder))}) + "\n")


def shortened(spec: Any, asked: dict[str, Any]) -> Any:
    """A share of a trial: of its steps, of those between evaluations, and of its episodes."""
    share: float = asked["share"]

    def part(whole: int) -> int:
        return max(1, round(whole * share))

    evaluation = replace(spec.evaluation, every=part(spec.evaluation.every), episodes=part(spec.evaluation.episodes))
    return replace(spec, seed=asked["seed"], budget=part(spec.budget), evaluation=evaluation)


def last_score(root: Path) -> float:
    """The mean of the last checkpoint's first target; the warm-up's trial is another folder's."""
    import pandas as pd

    (path,) = (found for found in root.rglob("episodes.parquet") if "warm-up" not in found.parts)
    episodes = pd.read_parquet(path)
    last = episodes[episodes["step"] == episodes["step"].max()]
    chosen = last[last["target"] == last["target"].iloc[0]] if last["target"].notna().any() else last
    return round(float(chosen["score"].mean()), 2)


def arguments() -> argparse.Namespace:
    """As given; small where asked to be quick."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--before", type=Path, help=f"a checkout of the code to compare with; without, {BEFORE}")
    parser.add_argument("--share", type=float, default=0.2, help="of every trial; 1 runs them whole")
    parser.add_argument("--tasks", nargs="+", default=["key-to-door-1k"])
    parser.add_argument("--contenders", nargs="+", help="these alone")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = ready(parser)
    if chosen.quick:
        chosen.share = 0.004
    return chosen


if __name__ == "__main__":
    main()
