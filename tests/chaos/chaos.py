"""Kill drivers, workers and nodes at random moments of sweeps; nothing may be lost, run twice, or come out otherwise.

    python tests/chaos/chaos.py --kills 50 --seed 0

Ends with 0 and a line of figures where every sweep ended with the table, to the byte, of an undisturbed one.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos import sweep

KINDS = ("driver", "worker", "worker", "node")  # in these proportions
MOST_COMMANDS = 40  # that one sweep may need: each killed driver is a command more


def main() -> int:
    """Run sweeps until so many processes were killed; say what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-steps", type=int, default=600, help="gradient steps of a trial")
    parser.add_argument("--seeds", type=int, default=4, help="trials of each of three contenders")
    parser.add_argument(
        "--longest", type=float, default=20.0, help="seconds between two kills; on a busy machine more"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="an end to it all, reached or not")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one otherwise")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="dtbench-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DTBENCH_OFFLINE", "1")
    os.environ.setdefault("DTBENCH_DATA", str(folder / "data"))
    campaign = Campaign(folder, options)
    try:
        figures = campaign.run()
    except Broken as error:
        print(f"BROKEN: {error}\nseed {options.seed}, files in {folder}", flush=True)
        return 1
    print(json.dumps(figures))
    return 0 if figures["killed"] >= options.kills else 1


class Broken(Exception):
    """What must never happen has happened."""


class Campaign:
    """Sweeps of one suite, each in a results folder of its own, all on one cluster."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options, self.rng = folder, options, random.Random(options.seed)
        self.killed: collections.Counter[str] = collections.Counter()
        self.commands = self.trials = 0
        self.deadline = time.monotonic() + 60 * options.minutes
        self.file = sweep.write_suite(
            folder, sweep.suite("chaos", train_steps=options.train_steps, seeds=options.seeds)
        )

    def run(self) -> dict[str, Any]:
        """Sweep after sweep, until enough were killed."""
        began, sweeps = time.monotonic(), 0
        whole = self.folder / "undisturbed"
        if sweep.run(self.folder, self.file, "--local", "--results", str(whole)).wait():
            raise Broken("the undisturbed sweep failed")
        with sweep.nodes(3, self.folder / "home") as self.nodes:
            while sum(self.killed.values()) < self.options.kills and time.monotonic() < self.deadline:
                sweeps += 1
                self.sweep(self.folder / f"sweep-{sweeps}", _table(whole))
                print(f"sweep {sweeps}: as undisturbed; killed so far {dict(self.killed)}", flush=True)
        return {
            "killed": sum(self.killed.values()),
            "by kind": dict(self.killed),
            "sweeps": sweeps,
            "trials": self.trials,
            "commands": self.commands,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "seed": self.options.seed,
        }

    def sweep(self, results: Path, expected: bytes) -> None:
        """One sweep, the same command again and again until it ends well, then its table."""
        seen: dict[str, tuple[int, int, bytes]] = {}
        for _ in range(MOST_COMMANDS):
            self.commands += 1
            driver = sweep.run(
                self.folder,
                self.file,
                *(
                    "--address",
                    self.nodes.address,
                    "--results",
                    str(results),
                    "--checkpoint-minutes",
                    "0.01",
                    "--retry-failed",
                ),
                log=results.with_suffix(".log"),
            )
            self.disturb(driver, results, seen)
            if driver.returncode == 0:
                break
        else:
            raise Broken(f"{results.name} did not end in {MOST_COMMANDS} commands")
        self.look(results, seen)
        if len(seen) != 3 * self.options.seeds:
            raise Broken(f"{len(seen)} trials of {3 * self.options.seeds} have finished")
        if _table(results) != expected:
            raise Broken(f"the table of {results.name} differs from the undisturbed one")
        self.trials += len(seen)

    def disturb(self, driver: subprocess.Popen[bytes], results: Path, seen: dict[str, Any]) -> None:
        """Kill something now and then while the driver lives."""
        deadline = time.monotonic() + 600
        while driver.poll() is None:
            if time.monotonic() > deadline:
                driver.kill()
                raise Broken(f"{results.name}: a command took more than ten minutes")
            moment = self.rng.uniform(0.5, self.options.longest)
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=moment)
            self.look(results, seen)
            if driver.poll() is None and sum(self.killed.values()) < self.options.kills:
                self.kill(self.rng.choice(KINDS), driver, results)

    def kill(self, kind: str, driver: subprocess.Popen[bytes], results: Path) -> None:
        """SIGKILL to the driver or to a worker at its trial; or the loss of a node, and a new one in its place."""
        if kind == "driver":
            driver.kill()
            driver.wait()
        elif kind == "worker":
            at_work = sorted(sweep.workers(results))
            if not at_work:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(at_work), signal.SIGKILL)
        else:
            self.nodes.order(f"remove {self.rng.randrange(8)}")
            self.nodes.order("add")
        self.killed[kind] += 1

    def look(self, results: Path, seen: dict[str, tuple[int, int, bytes]]) -> None:
        """Whatever was finished must still be there, as it was."""
        now = sweep.finished(results)
        for name, before in seen.items():
            if now.get(name) != before:
                raise Broken(f"{name} had finished and was {'run again' if name in now else 'lost'}")
        seen.update(now)


def _table(results: Path) -> bytes:
    return (results / "scores" / "chaos.csv").read_bytes()


if __name__ == "__main__":
    sys.exit(main())
