"""The papers' tables in their own shape, with ours in every cell."""

import itertools
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from dtbench.analysis.page.paper_tables import all_paper_tables, cell_verdict, paper_table, references_of, with_ours
from dtbench.analysis.published import RunConditions, published_tables
from dtbench.analysis.statistics import Estimate, Interval
from dtbench.analysis.suite_analysis import SuiteAnalysis, TableInputs, analyze, return_inputs
from dtbench.analysis.tables.table import DASH, Cell, Table
from dtbench.errors import InvalidSuite, UnknownName
from dtbench.suite.loading import read_document, suite_names
from tests.support import gym_ledger
from tests.support.table_inputs import inputs

D4RL = {name: RunConditions("d4rl", "d4rl") for name in ("hopper-medium-v2", "hopper-medium-delayed-v2")}


def ours(mean: float, reach: float | None = 1.0, seeds: int = 5) -> Estimate:
    return Estimate((mean,) * seeds, mean, None if reach is None else Interval(mean - reach, mean + reach))


def table_of(suite: str, found: TableInputs, number: str, *, value: str = "score") -> Table:
    tables = published_tables(read_document(suite), value=value)
    return paper_table([table for table in tables if table.table == number], found)


def cells_of(table: Table) -> dict[tuple[str, ...], Mapping[str, Cell]]:
    """Cells by row labels and column."""
    labels = sum(not column.number for column in table.columns if column.shown)
    names = [column.name for column in table.columns]
    return {
        tuple(cell.text for cell in row[:labels]): dict(zip(names[labels:], row[labels:], strict=True))
        for row in table.rows
    }


@pytest.fixture(scope="module")
def untouched() -> list[Table]:
    """Every table that a shipped suite refers to, before anything ran."""
    found = [one for name in suite_names() for one in references_of(read_document(name))]
    return [paper_table(references, TableInputs()) for _, references in sorted(found, key=lambda one: one[0])]


def named(tables: list[Table], name: str) -> Table:
    return next(table for table in tables if table.name == name)


def test_every_table_of_the_paper_is_there_before_anything_ran(untouched: list[Table]) -> None:
    numbers = [f"paper-table-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 12)]
    found = [table.name for table in untouched if table.name in numbers]
    assert [name for name, _ in itertools.groupby(found)] == numbers  # several suites may refer to one
    others = [table.name for table in untouched if table.name not in numbers]
    assert {"paper-corl-readme-last-scores", "paper-d3rlpy-benchmark", "paper-jax-corl-readme"} <= set(others)
    assert [table.name for table in untouched[-len(others) :]] == others  # after the paper's
    for table in untouched:
        texts = [cell.text for row in table.rows for cell in row if " / " in cell.text]
        assert texts
        ends = (f" / {DASH} / not run", f" / {DASH} / not in this suite")
        assert all(text.startswith(f"{DASH} / ") and text.endswith(ends) for text in texts)


def test_methods_that_nobody_here_has_are_columns_too(untouched: list[Table]) -> None:
    names = [column.name for column in named(untouched, "paper-table-2").columns if column.shown]
    assert names == ["Dataset", "Environment", "DT", "CQL", "BEAR", "BRAC-v", "AWR", "BC"]
    assert "No contender of the suite stands for BEAR, BRAC-v, AWR." in named(untouched, "paper-table-2").notes
    row = cells_of(named(untouched, "paper-table-2"))["medium", "hopper"]
    assert row["BEAR"].text.endswith("not in this suite")
    assert row["CQL"].text.endswith("not run")
    assert "QR-DQN" in [column.name for column in named(untouched, "paper-table-1").columns]


def test_no_two_columns_that_a_page_shows_have_one_name(untouched: list[Table]) -> None:
    library = named(untouched, "paper-d3rlpy-benchmark")
    assert [column.name for column in library.columns if column.number] == [
        "DT (last checkpoint)",
        "DT (best checkpoint)",
    ]
    for table in untouched:
        names = [column.name for column in table.columns if column.shown]
        assert len(set(names)) == len(names), table.name


def test_rows_are_the_papers(untouched: list[Table]) -> None:
    rows = list(cells_of(named(untouched, "paper-table-2")))
    assert len(rows) == 14
    assert rows[0] == ("medium-expert", "halfcheetah")
    assert rows[-1] == ("average all", "12 tasks")
    assert list(cells_of(named(untouched, "paper-table-5"))) == [("Breakout",), ("Qbert",), ("Pong",), ("Seaquest",)]


def test_what_the_paper_leaves_out_is_a_dash(untouched: list[Table]) -> None:
    assert cells_of(named(untouched, "paper-table-2"))["medium", "reacher"]["BEAR"].text == DASH


def test_columns_with_v0_numbers_say_so(untouched: list[Table]) -> None:
    note_of_data = next(note for note in named(untouched, "paper-table-2").notes if "D4RL v0 data" in note)
    for name in ("CQL but for medium-expert reacher", "BEAR", "BRAC-v", "AWR"):
        assert name in note_of_data
    assert any("v0" in note for note in named(untouched, "paper-corl-readme-last-scores").notes)
    assert any(note.startswith("CQL (dense): D4RL v0 data") for note in named(untouched, "paper-table-7").notes)


def test_a_cell_is_ours_theirs_difference_and_verdict() -> None:
    found = inputs({("hopper-medium-v2", "DT"): ours(60.0)}, D4RL)
    cells = cells_of(table_of("d4rl", found, "2"))["medium", "hopper"]
    minus = "\N{MINUS SIGN}"
    assert cells["DT"].text == f"60.0 / 67.6 ± 1.0 / {minus}7.6 / differs"
    assert cells["DT"].kind == "differs"
    assert cells["BC"].text == f"{DASH} / 63.9 / {DASH} / not run"


def test_the_page_shows_two_numbers_and_a_sign_of_what_ran() -> None:
    found = inputs({("hopper-medium-v2", "DT"): ours(60.0)}, D4RL)
    table = with_ours(table_of("d4rl", found, "2"))
    ((label, *_),) = table.rows
    assert label.text == "medium"
    assert cells_of(table)["medium", "hopper"]["DT"].short == "60.0 / 67.6 \N{NOT EQUAL TO}"
    assert f">{DASH} / 63.9</td>" in table.html()
    assert "not run" not in table.html()
    assert any(note.startswith("Rows without a number of ours: medium-expert halfcheetah, ") for note in table.notes)
    wide = with_ours(table_of("d4rl", found, "CORL README last scores"))
    assert [column.name for column in wide.columns if column.shown and column.number] == ["DT"]
    assert any(note.startswith("Columns without a number of ours, in the CSV: BC, ") for note in wide.notes)


def test_reasons_are_letters_with_notes() -> None:
    here = {"hopper-medium-v2": RunConditions("generated", "d4rl")}
    found = inputs({("hopper-medium-v2", "DT"): ours(60.0), ("hopper-medium-v2", "CQL"): ours(50.0)}, here)
    table = table_of("d4rl", found, "2")
    cells = cells_of(table)["medium", "hopper"]
    assert cells["DT"].text == f"60.0 / 67.6 ± 1.0 / {DASH} / not comparable (a)"
    assert cells["CQL"].text == f"50.0 / 58.0 / {DASH} / not comparable (a, b)"
    assert "(a) Not comparable: generated data." in table.notes
    assert "(b) Not comparable: D4RL v0 data, quoted by the paper." in table.notes


def test_the_best_of_ours_is_bold_where_its_interval_allows() -> None:
    task = "hopper-medium-v2"
    near = Estimate((57.0, 58, 60, 62, 61), 59.6, Interval(57, 62))
    found = inputs({(task, "DT"): ours(60), (task, "BC"): near, (task, "CQL"): ours(10)}, D4RL)
    cells = cells_of(table_of("d4rl", found, "2"))["medium", "hopper"]
    assert [cells[name].strong for name in ("DT", "BC", "CQL", "BEAR")] == [True, True, False, False]
    alone = inputs({(task, "DT"): ours(60, None, 1), (task, "BC"): ours(59)}, D4RL)
    assert not any(cell.strong for cell in cells_of(table_of("d4rl", alone, "2"))["medium", "hopper"].values())


def test_missing_single_and_broken_seeds_are_named() -> None:
    task = "hopper-medium-v2"
    found = inputs(
        {(task, "DT"): ours(60, seeds=2), (task, "BC"): ours(59, None, 1)},
        D4RL,
        missing={(task, "DT"): 1, (task, "CQL"): 3},
        broken={(task, "DT"): 1, (task, "CQL"): 3},
    )
    table = table_of("d4rl", found, "2")
    cells = cells_of(table)["medium", "hopper"]
    assert cells["DT"].text.startswith("60.0 (n = 2 of 3) / 67.6")
    assert cells["BC"].text.startswith("59.0 (1 seed) / 63.9")
    assert cells["CQL"].text.startswith("no number / 58.0")
    assert not cells["DT"].strong
    assert "1 seed returned NaN" in " ".join(table.notes)
    assert "3 seeds returned NaN" in " ".join(table.notes)
    assert "one seed has no interval" in " ".join(table.notes)
    assert "nan" not in table.markdown() + table.csv()


def test_several_references_to_one_table_become_one() -> None:
    late, dense = "hopper-medium-delayed-v2", "hopper-medium-v2"
    found = inputs({(late, "DT"): ours(60.0), (dense, "DT"): ours(67.0), (dense, "BC 10%"): ours(65.0)}, D4RL)
    table = table_of("delayed-reward", found, "7")
    cells = cells_of(table)[("medium",)]
    assert cells["DT (delayed)"].text == f"60.0 / 60.7 ± 4.5 / {chr(0x2212)}0.7 / undecided"
    assert cells["DT (dense)"].text == f"67.0 / 67.6 / {chr(0x2212)}0.6 / agrees"
    assert cells["%BC (reward-agnostic)"].text == f"65.0 / 65.9 / {chr(0x2212)}0.9 / agrees"
    assert table.caption.startswith("Chen et al. (2021), Table 7, hopper")
    assert cells["Our tasks"].text == f"{late}, {dense}"


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("d4rl", "agrees"),
        ("re-recorded", "agrees"),
        ("d4rl-excerpt", "not comparable: an excerpt of D4RL's data"),
        ("re-recorded-part", "not comparable: a part of a set re-recorded with D4RL's policy"),
        ("generated, re-recorded", "not comparable: generated data"),
    ],
)
def test_data_recorded_again_with_d4rls_policy_may_be_compared_and_are_called_so(source: str, verdict: str) -> None:
    task = "hopper-medium-v2"
    found = inputs({(task, "DT"): ours(67.6)}, {task: RunConditions(source, physics="d4rl")})
    (reference,) = (table for table in published_tables(read_document("d4rl")) if table.table == "2")
    assert cell_verdict(reference, task, "DT", found) == verdict
    note = f"Data re-recorded with D4RL's policy: {task}."
    assert (note in table_of("d4rl", found, "2").notes) == ("re-recorded" in source.split(", "))


def test_a_smoke_run_is_compared_with_nothing() -> None:
    task = "hopper-medium-v2"
    found = inputs({(task, "DT"): ours(67.6)}, {task: RunConditions("d4rl", physics="d4rl", smoke=True)})
    cell = cells_of(table_of("d4rl", found, "2"))["medium", "hopper"]["DT"]
    assert cell.text == f"67.6 / 67.6 ± 1.0 / {DASH} / not comparable (a)"


def test_table_12_is_held_against_returns() -> None:
    pong = "atari:pong"
    here = {pong: RunConditions("dqn-replay", protocol="official-dt")}
    cells = cells_of(table_of("atari", inputs({(pong, "DT"): ours(16.0)}, here), "12", value="return"))
    assert cells[("Pong",)]["DT"].text == f"16.0 / 17.1 ± 2.9 / {chr(0x2212)}1.1 / undecided"


def test_tables_of_returns_are_not_among_those_of_scores() -> None:
    atari = read_document("atari")
    assert [table.table for table in published_tables(atari)] == ["1"]
    assert [table.table for table in published_tables(atari, value="return")] == ["12"]


def test_a_value_that_nobody_has_is_refused() -> None:
    reference = read_document("atari")["published"][1]
    with pytest.raises(UnknownName, match="return"):
        published_tables({"published": [{**reference, "value": "returns"}]})
    averages: list[dict[str, Any]] = [{"name": "a", "tasks": ["*"], "dataset": "1% DQN-replay", "env": "Pong"}]
    with pytest.raises(InvalidSuite, match="no average"):
        published_tables({"published": [{**reference, "averages": averages}]})


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> SuiteAnalysis:
    results = gym_ledger.results_of(tmp_path_factory.mktemp("ledger"), missing=[("hopper-medium-v2", "CQL")])
    return analyze(results)


def test_a_suite_that_ran_fills_its_tables(analysis: SuiteAnalysis) -> None:
    table = named(all_paper_tables({"d4rl": analysis}), "paper-table-2")
    cells = cells_of(table)["medium", "hopper"]
    mean = analysis.inputs.estimates["hopper-medium-v2", "DT"].mean
    assert cells["DT"].text == f"{mean:.1f} / 67.6 ± 1.0 / {DASH} / not comparable (a)"
    assert cells["DT"].link == analysis.inputs.status("hopper-medium-v2", "DT").link
    assert cells["CQL"].text == f"{DASH} / 58.0 / {DASH} / not run"
    assert "Suite: d4rl." in table.notes
    assert "Seeds behind a number of ours: 3." in table.notes


def test_returns_come_from_the_trials_own_returns(analysis: SuiteAnalysis) -> None:
    finals = analysis.finals
    own = finals[(finals["task"] == "hopper-medium-v2") & (finals["contender"] == "DT")]["return_mean"]
    assert return_inputs(analysis).estimates["hopper-medium-v2", "DT"].mean == pytest.approx(own.mean())


def test_all_formats_hold_every_published_number(untouched: list[Table]) -> None:
    for table in untouched:
        for row in table.rows:
            for text in (table.markdown(), table.csv()):
                assert all(cell.text in text for cell in row if " / " in cell.text)
            assert all(cell.short in table.html() for cell in row)
        assert table.latex().count("not run") == sum("not run" in cell.text for row in table.rows for cell in row)


def test_papers_are_read_without_torch_and_ray() -> None:
    code = "import dtbench.analysis.page.paper_tables, sys; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
