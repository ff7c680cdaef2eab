"""Nobody reads what is printed: the command does its work all the same."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = "from dtbench.cli.run import main; main()"
SUITE = "{name: toy, tasks: [graph-0], seeds: [0], contenders: {Random: {algorithm: random, train_steps: 0}}}"


@pytest.mark.parametrize(
    "streams", [">/dev/full", ">&-", "2>/dev/full >/dev/full", ">&- 2>&-", "<&- >&- 2>&-", "| true"]
)
def test_a_run_that_nobody_reads_ends_with_its_scores(streams: str, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SUITE)
    command = f"set -o pipefail; '{sys.executable}' -c '{RUN}' run --suite toy.yaml --local {streams}"
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "graph-0" in (tmp_path / "results" / "scores" / "toy.csv").read_text()


@pytest.mark.parametrize("command", ["list tasks", "status", "list suites", "--help"])
def test_a_command_whose_reader_went_away_says_nothing(command: str, tmp_path: Path) -> None:
    for stream in (">/dev/full", "| true"):
        shell = f"set -o pipefail; '{sys.executable}' -c '{RUN}' {command} {stream}"
        ran = subprocess.run(["bash", "-c", shell], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
