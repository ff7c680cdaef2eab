"""How long a report of a large ledger takes, holes, failures and NaN included: python -m benchmarks.large_report."""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import report, surroundings
from dtbench.analysis.archive import read_archive, write_archive
from dtbench.analysis.page.build import write_report
from dtbench.analysis.results import collect
from dtbench.ledger.store import Ledger
from tests.support import holed_ledger


def main() -> None:
    """Fill a ledger, collect it, archive it, report it; print seconds, bytes and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--contenders", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="Keep ledger and report here; one that is full is used again.")
    parser.add_argument("--out", type=Path, help="Write the result as JSON.")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp())
    ledger, seconds = Ledger(folder / "runs"), {}
    clock = time.monotonic()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = round(time.monotonic() - clock, 1), time.monotonic()

    document = ledger.remembered_suites().get("holed") or holed_ledger.fill(
        ledger.root,
        tasks=chosen.tasks,
        contenders=chosen.contenders,
        seeds=chosen.seeds,
        episodes=chosen.episodes,
    )
    lap("fill")
    results = collect(document, ledger)
    lap("collect")
    write_archive(results, folder / "scores")
    lap("write archive")
    archived = read_archive(folder / "scores", "holed")
    lap("read archive")
    page = write_report([archived], folder / "report")
    lap("report")
    outcome = {
        "trials": {"planned": len(document["trials"]), "finished": len(results.records)},
        "seconds": seconds,
        "index.html": page.stat().st_size,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    report({**outcome, **surroundings()}, chosen.out)


if __name__ == "__main__":
    main()
