"""A few inputs of each fuzzer, the same every time; `python tests/fuzz/fuzz.py --minutes 10` tries many."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import ledgers
from tests.fuzz.outcome import Target, outcome_of
from tests.fuzz.targets import TARGETS, fresh_folder

EXAMPLES = {
    "report": 4,
    "ledger": 8,
    "ledger cut": 8,
    "suite document": 25,
    "suite planned": 25,
    "minari": 15,
    "seeds": 100,
}


@pytest.fixture(scope="module")
def above(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_what_nobody_intended_is_read_or_refused_in_one_line(target: Target, above: Path) -> None:
    if target.name == "minari":
        pytest.importorskip("minari")

    @settings(
        max_examples=EXAMPLES.get(target.name, 40),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def check(given: Any) -> None:
        with fresh_folder(above) as folder:
            outcome_of(target.check, folder, given)

    with fresh_folder(above):
        check()


def cuts() -> Iterator[tuple[str, int]]:
    """The begin of every file, its end, and places between, a few hundred bytes apart."""
    with fresh_folder(Path("cuts").absolute()):
        sizes = ledgers.files("runs")
    first_trial = next(name for name, _ in sizes if name.endswith("result.json")).rpartition("/")[0]
    for name, size in sizes:
        if name.startswith((first_trial, "runs/suites")):
            yield from ((name, length) for length in dict.fromkeys((0, 1, size // 2, size - 2, size - 1)))


def test_a_ledger_whose_files_were_cut_gives_right_results_or_one_line(above: Path) -> None:
    refused = 0
    for cut in cuts():
        with fresh_folder(above) as folder:
            refused += outcome_of(ledgers.cut, folder, cut) == "LedgerError"
    assert refused > 15
