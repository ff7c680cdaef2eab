"""A seeded sample of mutated results; `python tests/fuzz/mutations.py --count 5000` tries many."""

import contextlib
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fuzz import mutations

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = (*range(1, 12), 40, 138, 140, 280, 635)  # the last ones ended in tracebacks


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return mutations.prepared(tmp_path_factory.mktemp("mutations"), ROOT / "results" / "searches")


@pytest.mark.timeout(600)
def test_no_change_of_a_file_ends_in_a_traceback_or_outside(original: Path) -> None:
    for number in SAMPLE:
        mutations.check(original, original.parent / "work", number, 0, mutations.commands_of(number))


def test_a_damaged_trial_is_listed_and_the_others_are_reported(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "work")
    with contextlib.chdir(tmp_path / "work"):
        damaged = sorted(Path("results/runs/graph-0").glob("BC-seed0-*"))[0]
        (damaged / "episodes.parquet").write_bytes(b"PAR1")
        _all_list_it(code=0)  # the archive has its episodes
        assert damaged.name.rpartition("-")[2] in Path("results/scores/toy.csv").read_text()
        shutil.rmtree("results/scores")
        _all_list_it(code=1)
        assert "BC" in Path("results/scores/toy.csv").read_text()  # of the other seed


def _all_list_it(*, code: int) -> None:
    for command in (mutations.RUN, ("report", "--suite", "toy"), *mutations.SHORT[3:]):
        outcome = CliRunner().invoke(mutations.app, list(command))
        assert outcome.exit_code == (code if command[0] == "run" else 0), outcome.output
        assert "left out: cannot read results/runs/graph-0/BC-seed0" in outcome.output
