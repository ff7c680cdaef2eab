"""All benchmarks one after another, each in its own process: `make bench`. Results go to results/performance.

    python -m benchmarks.run [--only NAME ...] [--quick] [--peers PYTHON]

Prints one Markdown table of all ratios; `--table` prints it from the results that exist, without measuring.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timing import log, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "performance"
BENCHMARKS = ("training_step", "td_update", "rollout")


def main() -> None:
    """Run the benchmarks, then print the table; exit with status 1 where one failed."""
    options = _parse()
    failed = []
    if not options.table:
        options.out.mkdir(parents=True, exist_ok=True)
        failed = [name for name in options.only if not _succeeds(name, options)]
    print(all_ratios(options.out))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}.")


def all_ratios(folder: Path) -> str:
    """Return one Markdown table of the ratios of all results in the directory `folder`."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return table(
        [{**row, "what": f"{name}: {row['what']}"} for name, result in results.items() for row in result["ratios"]]
    )


def _succeeds(name: str, options: argparse.Namespace) -> bool:
    out = (options.out / f"{name}.json").resolve()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out)]
    command += ["--quick"] if options.quick else []
    command += ["--peers", options.peers] if options.peers and name == "td_update" else []
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
    log(f"{name}: {time.monotonic() - started:.0f} s" + ("" if code == 0 else f", failed with status {code}"))
    return code == 0


def _parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory for the results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: checks that all run")
    parser.add_argument("--peers", default=os.environ.get("DTBENCH_PEERS_PYTHON"), help="interpreter that has d3rlpy")
    parser.add_argument("--table", action="store_true", help="print the table of the results that exist")
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
