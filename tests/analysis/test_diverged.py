"""Trials that diverged are shown as such, and never make a mean better in silence."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from dtbench.analysis.archive import read_archive, write_archive
from dtbench.analysis.compare import LOST, Rule, Side, compare, scores_of, table_of
from dtbench.analysis.page.build import build_report
from dtbench.analysis.page.trials import trial_data
from dtbench.analysis.results import SuiteResults, collect
from dtbench.analysis.suite_analysis import CellStatus, SuiteAnalysis, analyze
from dtbench.analysis.tables.scores import no_number, score_text
from dtbench.cli.rliable import write_rliable
from dtbench.ledger.store import Ledger
from tests.support.drawn_figures import drawn_figures
from tests.support.gym_ledger import SUITE, finish, spec_of
from tests.support.published_verdicts import verdicts

MEDIUM, REPLAY = TASKS = ["hopper-medium-v2", "hopper-medium-replay-v2"]
NAMES = ["DT", "BC", "CQL"]
TRACEBACK = "Traceback\n  ...\ndtbench.trial.Diverged: diverged: loss is not finite at step 40.\n"
ONE = {(MEDIUM, "CQL", 1)}
ALL = {(REPLAY, "BC", seed) for seed in range(3)}


def fill(root: Path, diverged: set[tuple[str, str, int]], *, planned: int = 3, ran: int = 3) -> SuiteResults:
    """Two tasks, three contenders: `ran` seeds, of which the suite plans the first."""
    ledger = Ledger(root)
    specs = [spec_of(task, name, seed, source="d4rl") for task in TASKS for name in NAMES for seed in range(ran)]
    for spec in specs:
        if (spec.task, spec.contender, spec.seed) in diverged:
            ledger.record_failure(spec, cause="diverged", text=TRACEBACK, step=40)
        else:
            finish(ledger, spec)
    suite = {**SUITE, "tasks": TASKS, "contenders": {name: {} for name in NAMES}, "seeds": list(range(planned))}
    trials = [spec.to_json() for spec in specs if spec.seed < planned]
    return collect(ledger.save_suite({**suite, "trials": trials}), ledger)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return fill(tmp_path_factory.mktemp("ledger"), ONE | ALL)


@pytest.fixture(scope="module")
def analysis(results: SuiteResults) -> SuiteAnalysis:
    return analyze(results)


@pytest.fixture(scope="module")
def files(results: SuiteResults) -> dict[str, bytes]:
    return build_report([results])


def rows(files: dict[str, bytes], name: str) -> dict[tuple[str, ...], dict[str, str]]:
    """A table's rows by the texts that begin them: contender, or task and contender."""
    found = list(csv.DictReader(io.StringIO(files[f"d4rl/tables/{name}.csv"].decode())))
    heads = [head for head in list(found[0])[:2] if head in ("Task", "Contender", "Rival")]
    return {tuple(row[head] for head in heads): row for row in found}


def test_a_cell_says_how_many_of_its_seeds_diverged() -> None:
    assert no_number(CellStatus(3, 3, 3)) == "diverged: 3 of 3 seeds"
    assert no_number(CellStatus(3, 3, 1)) == "no number: 2 of 3 seeds returned NaN, 1 diverged"
    assert no_number(CellStatus(3, 1)) == "no number: 1 of 3 seeds returned NaN"
    assert score_text(None, CellStatus(3, 3, 3)) == "diverged: 3 of 3 seeds"


def test_the_score_table_marks_a_mean_that_lacks_a_diverged_seed(files: dict[str, bytes]) -> None:
    scores = rows(files, "scores")
    medium, replay = (next(head for head in scores[("DT",)] if head.startswith(f"{task} ")) for task in TASKS)
    assert scores[("CQL",)][medium].endswith("(n = 2 of 3: 1 diverged)")
    assert scores[("BC",)][replay] == "diverged: 3 of 3 seeds"
    assert scores[("DT",)][medium].endswith("(n = 3)")
    latex = files["d4rl/tables/scores.tex"].decode()
    assert "1 diverged" in latex
    assert "diverged: 3 of 3 seeds" in latex


def test_a_contender_with_a_diverged_seed_is_never_the_best(tmp_path: Path) -> None:
    found = build_report([fill(tmp_path, {(task, "DT", 0) for task in TASKS})])
    line = next(line for line in found["d4rl/report.md"].decode().splitlines() if line.startswith("| DT"))
    assert "1 diverged" in line
    assert "**" not in line


def test_nothing_is_compared_with_a_paper_where_seeds_diverged(analysis: SuiteAnalysis) -> None:
    found = verdicts(analysis)
    assert found[MEDIUM, "CQL"].startswith("not comparable: ")
    assert found[MEDIUM, "CQL"].endswith("1 seed diverged")
    assert found[REPLAY, "BC"].endswith("3 seeds diverged")
    assert "diverged" not in found[MEDIUM, "DT"]


def test_the_papers_own_table_says_diverged_in_its_cell(files: dict[str, bytes]) -> None:
    name = next(name for name in files if "paper-table-2" in name and name.endswith(".csv"))
    lines = list(csv.reader(io.StringIO(files[name].decode())))
    cells = [text for line in lines for text in line if text.startswith("diverged / ")]
    assert cells  # the task's, and those of averages over it
    assert all("/ not comparable (" in text for text in cells)
    assert "3 seeds diverged." in files["index.html"].decode()


def test_aggregates_count_what_diverged_and_say_who_misses_a_task_for_it(files: dict[str, bytes]) -> None:
    aggregate = rows(files, "aggregate")
    assert aggregate[("BC",)]["Mean"] == "diverged, no number on every task"
    assert {name: row["Diverged"] for (name,), row in aggregate.items()} == {"DT": "0", "BC": "3", "CQL": "1"}
    rules = rows(files, "rules")
    assert rules[("BC",)]["Last checkpoint"] == "diverged, no number on every task"
    assert rules[("CQL",)]["Diverged"] == "1"


def test_pairs_tell_on_which_side_trials_diverged(files: dict[str, bytes]) -> None:
    pairs = rows(files, "pairs")
    assert pairs[REPLAY, "BC"]["Verdict"] == "BC diverged"
    assert pairs[REPLAY, "BC"]["Diverged"] == "BC 3"
    assert pairs[MEDIUM, "CQL"]["Diverged"] == "CQL 1"
    assert pairs[MEDIUM, "BC"]["Diverged"] == ""


def test_the_text_names_what_diverged_and_tells_it_from_what_failed(files: dict[str, bytes]) -> None:
    text = files["d4rl/report.md"].decode()
    assert f"Diverged: BC on {REPLAY} (3 of 3 seeds); CQL on {MEDIUM} (1 of 3 seeds)." in text
    assert "Of the planned trials 4 diverged (a loss became NaN)." in text
    why = {(row["Task"], row["Contender"]): row["Why"] for row in rows(files, "not-run").values()}
    assert why[MEDIUM, "CQL"] == "diverged: loss is not finite at step 40."
    assert rows(files, "contenders")[("BC",)]["Trials finished"] == "3"
    assert "3, 3 diverged" in text


def test_figures_do_not_say_not_run_of_what_diverged(files: dict[str, bytes]) -> None:
    drawn = drawn_figures(files["index.html"].decode())
    assert "(3 diverged)" in drawn[f"final-{REPLAY}"]
    assert "not run" not in drawn[f"final-{REPLAY}"]
    assert "(1 diverged)" in drawn[f"final-{MEDIUM}"]


def test_trials_of_the_page_say_diverged_and_why(analysis: SuiteAnalysis) -> None:
    lost = [trial for trial in trial_data(analysis)["trials"] if trial["state"] == "diverged"]
    assert len(lost) == 4
    assert all("not finite at step 40" in trial["error"] for trial in lost)
    cells = trial_data(analysis)["cells"]
    assert analysis.inputs.status(REPLAY, "BC").link.removeprefix("cell-") in cells


def test_without_diverged_trials_nothing_speaks_of_them(tmp_path: Path) -> None:
    for name, content in build_report([fill(tmp_path, set())]).items():
        if name.endswith((".csv", ".tex", ".md")):
            assert "iverged" not in content.decode(), name
        if name == "index.html":
            assert not [text for text in drawn_figures(content.decode()).values() if "iverged" in text]


def test_further_seeds_that_diverged_count_as_those_that_finished_do(tmp_path: Path) -> None:
    found = analyze(fill(tmp_path, {(MEDIUM, "CQL", 2)}, planned=2))
    assert len(found.inputs.estimates[MEDIUM, "DT"].values) == 3
    assert len(found.inputs.estimates[MEDIUM, "CQL"].values) == 2
    assert [found.inputs.status(MEDIUM, name).diverged for name in NAMES] == [0, 0, 1]


def test_an_archive_keeps_state_and_cause(results: SuiteResults, tmp_path: Path) -> None:
    lost = replace(results.unfinished[0], state="failed", cause="worker died", error="the worker died three times")
    kept = replace(results, unfinished=(lost, *results.unfinished[1:]))
    write_archive(kept, tmp_path)
    again = read_archive(tmp_path, "d4rl")
    assert [(one.state, one.cause) for one in again.unfinished] == [(o.state, o.cause) for o in kept.unfinished]
    listed = build_report([again])["d4rl/tables/not-run.csv"].decode()
    assert "failed (worker died): the worker died three times" in listed


def test_exports_name_what_they_leave_out(results: SuiteResults, tmp_path: Path) -> None:
    assert f"contender CQL, seed 1: diverged on {MEDIUM}" in write_rliable(results, tmp_path / "b.npz")


def test_a_contender_that_diverged_altogether_is_a_regression(results: SuiteResults, tmp_path: Path) -> None:
    before = Side("old", {"d4rl": scores_of(fill(tmp_path, set()))})
    after = Side("new", {"d4rl": scores_of(results)})
    pairs = {(pair.task, pair.contender): pair for pair in compare(before, after)}
    gone, fewer = pairs[REPLAY, "BC"], pairs[MEDIUM, "CQL"]
    assert gone.verdict == LOST
    assert Rule().broken_by(gone)
    assert fewer.remarks == ("in B 1 seed diverged: left out",)
    assert any("3 seeds diverged" in note for note in table_of(list(pairs.values()), before, after, Rule()).notes)
