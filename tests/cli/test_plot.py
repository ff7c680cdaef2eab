"""One figure to a file, and the errors where there is none."""

from pathlib import Path

import pytest

from dtbench.analysis.results import SuiteResults
from dtbench.cli import plot
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from tests.support import mixed_ledger
from tests.support.gym_ledger import SUITE, TASKS, results_of

CARD = {"return_histogram": {"counts": [3, 1], "edges": [0.0, 1.0, 2.0]}, "return_mean": 0.5, "return_max": 2.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    suite = {**SUITE, "tasks": TASKS[:2], "contenders": {name: {} for name in ("DT", "BC")}}
    found = results_of(tmp_path_factory.mktemp("ledger"), suite=suite)
    for record in found.records:
        record.provenance["dataset"]["card"].update(CARD)
    return found


@pytest.mark.parametrize("kind", ["targets", "progress", "bars", "profiles", "improvement", "data"])
@pytest.mark.parametrize("task", [None, TASKS[0]])
def test_every_kind_is_drawn_of_a_task_and_of_all(results: SuiteResults, kind: str, task: str | None) -> None:
    assert plot.draw(results, kind, task).png.startswith(b"\x89PNG")


def test_all_kinds_are_named_where_the_asked_one_is_none(results: SuiteResults) -> None:
    with pytest.raises(UnknownName, match="bars, data, improvement, profiles, progress, targets"):
        plot.draw(results, "pie")


def test_scores_of_several_scales_have_no_profile(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"different scales: name one with --task"):
        plot.draw(mixed_ledger.results_of(tmp_path), "profiles")


def test_one_contender_beats_nobody(tmp_path: Path) -> None:
    found = results_of(tmp_path, suite={**SUITE, "tasks": TASKS[:1], "contenders": {"DT": {}}})
    with pytest.raises(NothingToReport, match="fewer than two contenders"):
        plot.draw(found, "improvement")


def test_data_without_a_histogram_are_not_drawn(tmp_path: Path) -> None:
    found = results_of(tmp_path, suite={**SUITE, "tasks": TASKS[:1], "contenders": {"DT": {}}})
    with pytest.raises(NothingToReport, match="no trial recorded"):
        plot.draw(found, "data")


@pytest.mark.parametrize(("ending", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_ending_chooses_the_format(results: SuiteResults, tmp_path: Path, ending: str, begin: bytes) -> None:
    path = tmp_path / f"figure{ending}"
    plot.write_drawing(plot.draw(results, "improvement"), path)
    assert path.read_bytes().startswith(begin)
