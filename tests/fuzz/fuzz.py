"""Fuzz everything that reads what others wrote: python tests/fuzz/fuzz.py --minutes 10 --seed 0.

Every target runs in turn, in a process of its own, until the time is up; then counts are printed, and what was found.
Exit code 1 where something was found: a traceback, an error of several lines, a crash, or no end.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings  # noqa: E402  # after the path is set

from tests.fuzz.outcome import Target, outcome_of  # noqa: E402
from tests.fuzz.targets import TARGETS, fresh_folder  # noqa: E402

EXAMPLES = 100  # a turn
TURN = 15.0  # seconds, then the next target has its turn
PATIENCE = 120  # seconds that a turn may take, before it counts as without end


def main() -> int:
    """Fuzz until the time is up; print what came of it."""
    options = _options()
    until = time.monotonic() + 60 * options.minutes
    counts: dict[str, Counter[str]] = {target.name: Counter() for target in TARGETS}
    findings: dict[str, str] = {}
    turn = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < until:
            target = TARGETS[turn % len(TARGETS)]
            if not options.only or options.only in target.name:
                outcomes, found = _turn(target, options.seed + turn, Path(folder), until)
                counts[target.name].update(outcomes)
                for line in found:
                    if line.splitlines()[-1] not in findings:
                        print(f"{target.name}: {line}\n", flush=True)
                    findings.setdefault(line.splitlines()[-1], target.name)
            turn += 1
    for name, outcomes in counts.items():
        summary = ", ".join(f"{kind} {count}" for kind, count in outcomes.most_common())
        print(f"{name:<18} {sum(outcomes.values()):>7}  {summary}")
    print(f"{sum(map(Counter.total, counts.values()))} inputs, {len(findings)} findings")
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of a target's name")
    return parser.parse_args()


def _turn(target: Target, number: int, folder: Path, until: float) -> tuple[Counter[str], Sequence[str]]:
    """Some inputs for one target, in a process that may die of them."""
    path = folder / "outcomes.json"
    path.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(target, number, folder, until))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return Counter({"no end": 1}), [f"no end in {PATIENCE} s: {_last(folder)}"]
    if not path.exists():
        return Counter({"died": 1}), [f"exit code {process.exitcode}: {_last(folder)}"]
    outcomes, found = json.loads(path.read_text())
    return Counter(outcomes), found


def _last(folder: Path) -> str:
    return (folder / "last").read_text(errors="replace")[:2000]


def _work(target: Target, number: int, folder: Path, until: float) -> None:
    until = min(until, time.monotonic() + TURN)
    outcomes: Counter[str] = Counter()
    found: list[str] = []

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(target.inputs)
    def fuzz(inputs: Any) -> None:
        if time.monotonic() > until:
            return
        (folder / "last").write_text(repr(inputs)[:100_000], errors="backslashreplace")
        try:
            with fresh_folder(folder) as place:
                outcomes[outcome_of(target.check, place, inputs)] += 1
        except Exception:
            outcomes["FOUND"] += 1
            text = traceback.format_exc()
            if len(found) < 5 and not any(text.splitlines()[-1] in line for line in found):
                found.append(f"{repr(inputs)[:1500]}\n{text[-3000:]}".encode(errors="backslashreplace").decode())

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        fuzz()
    (folder / "outcomes.json").write_text(json.dumps([outcomes, found]))


if __name__ == "__main__":
    sys.exit(main())
