"""A report of a ledger with holes says what is missing and invents nothing."""

import csv
import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dtbench.analysis.page.build import build_report, check_report
from dtbench.analysis.page.html import unpacked
from dtbench.analysis.page.trials import trial_data
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import SuiteAnalysis, analyze
from tests.support import holed_ledger
from tests.support.drawn_figures import drawn_figures
from tests.support.holed_ledger import HOSTILE


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return holed_ledger.results_of(tmp_path_factory.mktemp("ledger"), tasks=3, contenders=6, seeds=4, episodes=4)


@pytest.fixture(scope="module")
def analysis(results: SuiteResults) -> SuiteAnalysis:
    return analyze(results)


@pytest.fixture(scope="module")
def files(results: SuiteResults) -> dict[str, bytes]:
    return build_report([results])


def rows(files: dict[str, bytes], name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files[f"holed/tables/{name}.csv"].decode())))


def test_trials_that_scored_nan_have_no_number_and_are_counted(analysis: SuiteAnalysis) -> None:
    assert ("task-0", "rival 4") not in analysis.inputs.estimates
    assert len(analysis.inputs.estimates["task-1", "rival 3"].values) == 3
    assert analysis.inputs.status("task-1", "rival 3").missing == 1
    assert all(math.isfinite(ours.mean) for ours in analysis.inputs.estimates.values())


def test_a_single_seed_has_a_mean_and_no_interval(analysis: SuiteAnalysis) -> None:
    assert analysis.inputs.estimates["task-1", "rival 2"].interval is None


def test_every_trial_without_a_number_is_listed_with_its_reason(
    files: dict[str, bytes], analysis: SuiteAnalysis
) -> None:
    listed = rows(files, "not-run")
    assert len(listed) == sum(status.missing for status in analysis.inputs.statuses.values())
    why = {(row["Task"], row["Contender"], row["Seed"]): row["Why"] for row in listed}
    assert why["task-0", "rival 1", "1"] == "failed: </script><b>ValueError: it broke</b>"
    assert why["task-0", "rival 3", "0"] == "its score is NaN"
    assert why["nobody-ran-this", "DT", "0"] == "never began"


def test_a_task_that_nobody_ran_is_said_so(files: dict[str, bytes]) -> None:
    text = files["holed/report.md"].decode()
    assert "have no finished trial: nobody-ran-this." in text
    assert "not run" in text


def test_no_file_says_nan_but_in_a_sentence(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        if name.endswith((".csv", ".tex")):
            text = re.sub(r"its score is NaN|no number: \d of \d seeds returned NaN", "", content.decode())
            assert "nan" not in text.lower(), name


def test_names_from_the_ledger_cannot_become_markup(files: dict[str, bytes]) -> None:
    page = files["index.html"].decode()
    assert "<script>alert(1)" not in page
    assert "<b>ValueError" not in page
    assert json.dumps(HOSTILE) in unpacked(page)  # whole, where a script reads it as text
    for name, content in files.items():
        if name.endswith(".md"):
            assert "<" not in content.decode().replace(r"\<", "")
    for svg in drawn_figures(page).values():
        assert "script" not in {element.tag for element in ElementTree.fromstring(svg).iter()}


def test_trials_of_the_page_have_no_nan_and_all_states(analysis: SuiteAnalysis) -> None:
    trials = trial_data(analysis)["trials"]
    assert {trial["state"] for trial in trials} == {"done", "nan", "failed", "missing"}
    assert len(trials) == len(analysis.results.records) + len(analysis.results.unfinished)
    assert all(trial["score"] is None for trial in trials if trial["state"] == "nan")
    assert "it broke" in next(trial["error"] for trial in trials if trial["state"] == "failed")


def test_a_report_equals_itself_and_differs_after_a_changed_letter(
    results: SuiteResults, files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert check_report([results], tmp_path) == []
    path = tmp_path / "holed" / "tables" / "scores.csv"
    path.write_text(path.read_text().replace("DT", "DX", 1))
    (tmp_path / "holed" / "tables" / "stale.csv").write_text("old")
    (tmp_path / "holed" / "report.md").unlink()  # output, which need not be there
    differences = check_report([results], tmp_path)
    assert [sentence.split(str(tmp_path))[1].split()[0] for sentence in differences if "stale" not in sentence] == [
        "/holed/tables/scores.csv",
    ]
    assert len(differences) == 1 or "left over" in differences[-1]
