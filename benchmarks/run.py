"""All benchmarks, one after another: `make bench`. Results lie in results/performance, one table is printed.

    python benchmarks/run.py [--only NAME ...] [--quick] [--peers PYTHON] [--corl PATH]

Each is a script of its own, in a process of its own, and can be run alone. What none of them can do here (no GPU, no
d3rlpy) they say in a line. `--table` prints the table of what lies in results/performance, and measures nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contest import say, table

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "performance"
FIGURES = HERE.parent / "tools" / "docs_speed.py"
SCRIPTS: dict[str, tuple[str, ...]] = {  # name -> sizes that keep all of it below 25 minutes on two cores
    "training_step": (),
    "td_update": (),
    "rollout": (),
    "key_to_door": ("--share", "0.2"),
    "memory": (),
    "scale": ("--rounds", "1"),
    "sweep_overhead": ("--trials", "16", "--budget", "240", "--idle", "20"),
    "gpu": (),
}
NO_QUICK = {"sweep_overhead": ("--trials", "2", "--budget", "2", "--idle", "2")}


def main() -> None:
    """Run what is asked for, then print the table; ends with status 1 where a script failed."""
    chosen = arguments()
    failed = []
    if not chosen.table:
        chosen.out.mkdir(parents=True, exist_ok=True)
        failed = [name for name in chosen.only if not succeeds(name, chosen)]
    print(in_words(chosen.out))
    if not chosen.table and (chosen.out / "scale.json").exists() and chosen.out == RESULTS:
        subprocess.run([sys.executable, str(FIGURES)], check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}.")


def succeeds(name: str, chosen: argparse.Namespace) -> bool:
    """Run one script, whose JSON goes to its file and whose words go to standard error."""
    command = [sys.executable, str(HERE / f"{name}.py"), *SCRIPTS[name], "--out", str(chosen.out / f"{name}.json")]
    if chosen.quick:
        command += NO_QUICK.get(name, ("--quick",))
    if chosen.peers and name == "td_update":
        command += ["--peers", chosen.peers]
    if chosen.corl and name in ("training_step", "gpu"):
        command += ["--corl", str(chosen.corl)]
    say(f"\n{name} ...")
    began = time.monotonic()
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    say(f"{name}: {time.monotonic() - began:.0f} s" + ("" if code == 0 else f", failed with status {code}"))
    return code == 0


def in_words(folder: Path) -> str:
    """One table of all ratios, then the figures that are none."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    for name, result in results.items():
        rows += [{**row, "what": f"{name}: {row['what']}"} for row in result.get("ratios", ())]
        lines += [_figure(name, figure) for figure in result.get("figures", ())]
        if name == "sweep_overhead":
            lines.append(f"{name}: with Ray {result['ratio_to_alone']:.2f} x the trials' own time over the cores")
        lines += [f"{name}: {curve['what']}: exponent {curve['exponent']:.2f}" for curve in result.get("curves", ())]
    return "\n".join([table(rows) if rows else "no ratios", *lines])


def _figure(name: str, figure: dict[str, Any]) -> str:
    missed = "" if figure["value"] < figure["goal"] else " (missed)"
    return f"{name}: {figure['what']}: {figure['value']:.2f} {figure['unit']}, goal < {figure['goal']:g}{missed}"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """As given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: says whether all run at all")
    parser.add_argument("--peers", default=os.environ.get("DTBENCH_PEERS_PYTHON"), help="interpreter that has d3rlpy")
    parser.add_argument("--corl", type=Path, help="a checkout of CORL, to time its own network")
    parser.add_argument("--table", action="store_true", help="print the table of what was measured before")
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
