"""The overview is counted from the trials of all suites and names what nobody ran."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dtbench.analysis.page.html import SuitePage, markdown
from dtbench.analysis.page.overview import overview, suite_table, verdict_table
from dtbench.analysis.page.section import Section
from dtbench.analysis.suite_analysis import SuiteAnalysis, analyze
from dtbench.analysis.tables.protocol import SMOKE
from dtbench.analysis.tables.table import Table
from dtbench.suite.loading import suite_names
from tests.support.tiny_ledger import Scores, tiny_ledger

HOSTILE = "<script>alert(1)</script> | `x` & $y$ *z*"

MIXED: Scores = {
    ("above", "DT"): (50.0, 51.0, 52.0),
    ("above", "BC"): (10.0, 11.0, 12.0),
    ("below", "DT"): (10.0, 11.0, 12.0),
    ("below", "BC"): (50.0, 51.0, 52.0),
    ("undecided", "DT"): (10.0, 50.0, 90.0),
    ("undecided", "BC"): (90.0, 50.0, 10.0),
    ("one-sided", "DT"): (50.0, 51.0, 52.0),
    ("one-sided", "BC"): (None, None, None),
    ("absent", "DT"): (None, None, None),
    ("absent", "BC"): (None, None, None),
}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> SuiteAnalysis:
    return analyze(tiny_ledger(tmp_path_factory.mktemp("mixed"), MIXED))


@pytest.fixture(scope="module")
def sections(analysis: SuiteAnalysis) -> dict[str, Section]:
    return {section.heading: section for section in overview([analysis])}


def rows(table: Table) -> list[dict[str, str]]:
    names = [column.name for column in table.columns]
    return [dict(zip(names, (cell.text for cell in row), strict=True)) for row in table.rows]


def test_verdicts_are_counted_task_by_task(analysis: SuiteAnalysis) -> None:
    (row,) = rows(verdict_table([analysis]))
    assert (row["Suite"], row["First"], row["Against"]) == ("tiny", "DT", "BC")
    names = ("Tasks", "Above", "Match", "Below", "Undecided", "Few seeds or not converged", "Not both ran")
    assert [row[name] for name in names] == list("3000031")  # three seeds decide nothing


def test_draws_of_the_same_data_are_counted_once(tmp_path: Path) -> None:
    results = tiny_ledger(tmp_path, MIXED)
    drawn = analyze(replace(results, suite={**results.suite, "draws": ["[bu]*"]}))  # below and undecided
    assert list(drawn.inputs.over_draws) == ["[bu], mean of 2 draws"]
    (row,) = rows(verdict_table([drawn]))
    assert (row["Tasks"], row["Not both ran"]) == ("2", "1")


def test_a_suite_says_how_much_of_it_ran(analysis: SuiteAnalysis) -> None:
    (row,) = rows(suite_table([analysis]))
    assert row["Tasks"] == "4 of 5"
    assert row["Trials"] == "21 of 30"
    assert (row["Contenders"], row["Seeds"], row["Data"]) == ("2", "3", "generated")


def test_suites_and_tasks_that_nobody_ran_are_named(sections: dict[str, Section]) -> None:
    text = " ".join(sections["Planned, but without a number"].paragraphs)
    assert all(name in text for name in suite_names())
    assert "Of tiny: tasks absent." in text


def test_a_suite_that_is_no_papers_has_no_papers_tables(sections: dict[str, Section]) -> None:
    assert "The paper's tables" not in sections


def test_only_what_ran_is_shown(analysis: SuiteAnalysis, sections: dict[str, Section]) -> None:
    assert analysis.absent == (["absent"], [])
    assert sections["Planned, but without a number"].closed == "What these suites lack, in 2 lines"
    for name, section in sections.items():
        texts = [cell.text for table in section.tables for row in table.rows for cell in row]
        assert "absent" not in texts, name


def test_smoke_is_named_beside_the_suite_and_stamped_on_the_figure(tmp_path: Path, analysis: SuiteAnalysis) -> None:
    smoke = analyze(tiny_ledger(tmp_path, suite="quick", preset="smoke"))
    alone = {section.heading: section for section in overview([smoke])}
    assert alone["Suites"].paragraphs == (f"Of quick: {SMOKE}",)
    assert b"SMOKE: numbers" in alone["Averages by suite"].more[0].svg
    both = {section.heading: section for section in overview([analysis, smoke])}
    assert both["Suites"].paragraphs == (f"Of quick: {SMOKE}",)
    figure = both["Averages by suite"].more[0].svg
    assert b"quick, SMOKE" in figure
    assert b"SMOKE: numbers" not in figure


def test_no_smoke_without_the_smoke_preset(sections: dict[str, Section]) -> None:
    assert sections["Suites"].paragraphs == ()
    assert b"SMOKE" not in sections["Averages by suite"].more[0].svg


def test_names_from_the_ledger_cannot_become_markup(tmp_path: Path) -> None:
    scores: Scores = {(task, name): (1.0, 2.0) for task in ("a", HOSTILE) for name in ("DT", HOSTILE)}
    results = tiny_ledger(tmp_path, {**scores, (f"absent {HOSTILE}", "DT"): (None,)}, suite="quick", preset=HOSTILE)
    found = tuple(overview([analyze(results)]))
    page = SuitePage("overview", "All", description="", facts=(), warning="", sections=found, trials={})
    text = markdown(page).replace(r"\<", "")
    assert "script>alert(1)" in text
    assert "<" not in text
    for table in (table for section in found for table in section.tables):
        assert "<script" not in table.html()
        pipes = {line.replace(r"\|", "").count("|") for line in table.markdown().splitlines() if line.startswith("|")}
        assert len(pipes) == 1
    for drawing in (drawing for section in found for drawing in (*section.drawings, *section.more)):
        ElementTree.fromstring(drawing.svg)
