"""Searches in the report: there where a record is, part of what --check looks at, and nothing without one."""

import re
import sys
from pathlib import Path

import pytest

from dtbench.analysis.compare import text
from dtbench.analysis.figures.searches import draw_searches_together
from dtbench.analysis.page.html import unpacked
from dtbench.analysis.page.overview import SEARCHES_HEADING, searches_section
from dtbench.analysis.tables.searches import best_table, budget_table
from dtbench.cli.run import main
from dtbench.tuning.search import write_record
from tests.support.search_records import record
from tests.support.tiny_ledger import tiny_ledger

RECORD = Path("results/searches/tiny-dt-grid-asha.json")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dtbench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_search_shows_in_the_report_and_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny_ledger(tmp_path / "results")
    assert run(monkeypatch, "report") == 0
    before = {path: path.read_bytes() for path in Path("report").rglob("*") if path.is_file()}
    assert SEARCHES_HEADING not in Path("report/overview/report.md").read_text()

    write_record(RECORD, record())
    assert run(monkeypatch, "report", "--check") == 1
    assert "search" in capsys.readouterr().out
    assert run(monkeypatch, "report") == 0
    assert SEARCHES_HEADING in unpacked(Path("report/index.html").read_text())
    for name in ("searches", "search-tiny-dt-grid-asha"):
        assert Path(f"report/overview/tables/{name}.csv").exists()
        assert Path(f"report/overview/tables/{name}.tex").exists()
    assert Path("report/overview/figures/expected-best-tiny-dt-grid-asha.png").exists()
    assert run(monkeypatch, "report", "--check") == 0
    assert run(monkeypatch, "report", "--suite", "tiny", "--check") == 0

    RECORD.unlink()
    assert run(monkeypatch, "report") == 0
    assert {path: path.read_bytes() for path in Path("report").rglob("*") if path.is_file()} == before


def test_a_damaged_record_stops_the_report_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny_ledger(tmp_path / "results")
    RECORD.parent.mkdir(parents=True)
    RECORD.write_text("{")
    assert run(monkeypatch, "report") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_budget_counts_settings_steps_and_episodes() -> None:
    (row,) = budget_table([record()]).rows
    assert [cell.text for cell in row[:6]] == ["tiny-dt-grid-asha", "tiny", "DT", "valley", "grid", "ASHA"]
    # three samples at two targets, one to the end, one diverged; 10 + 40 of 3 x 40 steps; 12 episodes
    assert [cell.text for cell in row[6:13]] == ["3", "6", "1", "1", "50", "42 %", "12"]
    assert row[-1].value == 80.0


def test_the_best_setting_comes_first_with_its_target() -> None:
    table = best_table(record(), 5)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["2", "80.0", "60", "40", "done", "16"],
        ["1", "30.0", "60", "10", "stopped", "8"],
    ]
    assert "best of 6 settings of DT on valley" in text(table)


def test_points_of_the_curves_explain_themselves() -> None:
    (section,) = searches_section([record()])
    (drawing,) = section.drawings
    labels = [label for marks in drawing.marks for label in marks.labels]
    assert len(labels) == 3 + 6
    assert any(
        re.search(r"best of 1 settings at the task's own target 100: 33\.3 expected", label) for label in labels
    )
    assert not list(searches_section([]))


def test_searches_of_several_contenders_on_the_same_data_share_an_axis() -> None:
    dt = record()
    cql = dt.model_copy(update={"name": "cql", "config": dt.config.model_copy(update={"contender": "CQL"})})
    (together,) = draw_searches_together([dt, cql])
    assert together.name == "expected-best-together-tiny-valley"
    labels = [label for marks in together.marks for label in marks.labels]
    assert len(labels) == 2 * 6  # pairs of a setting and a target
    elsewhere = cql.config.model_copy(update={"overrides": ("task_options.seed=1",)})
    assert not draw_searches_together([dt, cql.model_copy(update={"config": elsewhere})])
    assert not draw_searches_together([dt, dt])


def test_names_of_a_record_are_escaped() -> None:
    (section,) = searches_section([record("<script>alert(1)</script>")])
    assert all("<script>" not in table.html() for table in section.tables)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "dt", "--searcher", "randon"], "Did you mean 'random'"),
        (["--space", "dtt"], "Did you mean 'dt'"),
        (["--space", "dt", "--results", "s3://bucket/results"], "needs a directory"),
        (["--space", "cql"], "unknown hyperparameter of dt"),
        (["--space", "dt", "-t", "key-to-dor-1k"], "Did you mean 'key-to-door-1k'"),
    ],
)
def test_a_mistyped_command_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(monkeypatch, "tune", "--suite", "key-to-door", "-c", "DT", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.ray
def test_a_search_from_the_command_line_ends_with_a_table_and_a_suite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("space.yaml").write_text("learning_rate: {choices: [0.001, 0.01]}\n")
    options = ["--suite", "key-to-door", "--preset", "smoke", "-c", "DT", "--space", "space.yaml", "--name", "tiny"]
    assert run(monkeypatch, "tune", *options, "--searcher", "grid", "evaluation.episodes=2") == 0
    output = capsys.readouterr().out
    assert "4 settings tried, 12 gradient steps of 12 in full: results/searches/tiny.json" in output
    Path("tiny.yaml").write_text(output[output.index("name: tiny") :])
    assert run(monkeypatch, "run", "--dry-run", "--suite", "tiny.yaml") == 0
