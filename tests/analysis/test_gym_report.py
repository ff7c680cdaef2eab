"""The report of a suite of ten Gym tasks, from a ledger that was made up here."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dtbench.analysis.page.build import write_report
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import SuiteAnalysis, analyze
from dtbench.cli.plot import choose_task, draw, write_drawing
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from tests.support.gym_ledger import SUITE, TASKS, results_of
from tests.support.published_verdicts import verdicts

HOPPER, WALKER, REACHER = "hopper-medium-v2", "walker2d-medium-v2", "reacher2d-medium"
SOURCES = {task: "d4rl" for task in TASKS if task.startswith("hopper")} | {"halfcheetah-medium-v2": "minari"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def whole(results: Path) -> SuiteResults:
    return results_of(results / "runs", sources=SOURCES, missing=[(REACHER, "CQL")])


def dtbench_plot(results: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dtbench.cli.run import main; main()", "plot", "--results", str(results)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def report(whole: SuiteResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's own folder."""
    return write_report([whole], tmp_path_factory.mktemp("report")).parent / "d4rl"


def table(report: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(report / "tables" / f"{name}.csv")


@pytest.fixture(scope="module")
def analysis(whole: SuiteResults) -> SuiteAnalysis:
    return analyze(whole)


def test_no_generated_score_is_held_against_a_published_one(analysis: SuiteAnalysis) -> None:
    generated = {
        cell: verdict
        for cell, verdict in verdicts(analysis).items()
        if "generated" in analysis.inputs.conditions_of(cell[0]).source
    }
    assert len(generated) > 10
    assert all(verdict.startswith("not comparable: generated data") for verdict in generated.values())


def test_verdicts_follow_the_source_of_the_data(analysis: SuiteAnalysis) -> None:
    found = verdicts(analysis)
    assert found["halfcheetah-medium-v2", "DT"] == "not comparable: Minari data"
    assert found[HOPPER, "DT"] == "undecided: fewer than 5 seeds"
    assert found[HOPPER, "CQL"] == "not comparable: D4RL v0 data, quoted by the paper"


def test_published_averages_stand_beside_ours_with_what_is_wrong_with_them(
    analysis: SuiteAnalysis, report: Path
) -> None:
    ours, scores = analysis.inputs.estimates["average without Reacher", "BC"], table(report, "seeds")
    own = scores[(scores["Contender"] == "BC") & (scores["Task"] != REACHER)]
    assert ours.mean == pytest.approx(own.groupby("Task")["Score"].mean().mean())
    rows = table(report, "paper-table-2").set_index(["Dataset", "Environment"])
    assert rows.loc["average w/o reacher", "BC"].iloc[0].startswith(f"{ours.mean:.1f} / 46.4 / ")
    assert "printed BC averages are swapped" in (report / "report.md").read_text()


def test_a_missing_task_leaves_the_average_without_it(report: Path) -> None:
    every, without = (table(report, name).set_index("Contender") for name in ("aggregate", "aggregate-2"))
    assert every.loc["CQL", "Mean"] == "not run on every task"
    assert without.loc["CQL", "IQM"] > 0
    scores = table(report, "scores").set_index("Task")
    assert scores.filter(like="average over 10 tasks", axis=0)["CQL"].tolist() == ["not run"]
    assert scores.filter(like="average without Reacher", axis=0)["CQL"].str.endswith("(n = 3)").all()


def test_every_score_says_which_data_and_physics_it_comes_from(report: Path) -> None:
    scores = table(report, "scores")
    assert scores["Task"][0] == f"{HOPPER} (data: d4rl; physics: d4rl; steps: 200000)"
    assert scores["Task"].str.contains(r"\(data: ").all()
    assert (table(report, "data")["Options"] == "physics: d4rl; steps: 200000").all()
    assert table(report, "seeds")["Data"].notna().all()


def test_many_tasks_share_figures_and_the_page_stays_small(report: Path) -> None:
    names = {path.stem for path in (report / "figures").iterdir()}
    kinds = ("final", "progress", "targets")
    assert names == {
        "profiles",
        "improvement",
        "rank-agreement",
        *kinds,
        *(f"{kind}-{task}" for kind in kinds for task in TASKS),
    }
    assert (report.parent / "index.html").stat().st_size < 5_000_000
    assert not re.search(r"https?:|<script[^>]*src|<img", (report.parent / "index.html").read_text())


def test_ids_on_the_page_are_unique(report: Path) -> None:
    ids = re.findall(r'\bid="([^"]*)"', (report.parent / "index.html").read_text())
    assert len(ids) == len(set(ids))


def test_published_numbers_are_drawn_only_where_they_are_comparable(whole: SuiteResults) -> None:
    assert b"published: Chen" in draw(whole, "bars", HOPPER).svg
    assert b"published: Chen" not in draw(whole, "bars", WALKER).svg


def test_the_targets_table_has_a_row_for_each_task(report: Path) -> None:
    rows = table(report, "targets").set_index("Task")
    assert list(rows.index) == TASKS
    assert (rows["Coefficient"] - 1).abs().max() < 0.1  # inside the data the made-up contender obeys
    assert (rows["Rank correlation"] > 0.9).all()


def test_training_curves_know_the_headline_target_alone(whole: SuiteResults, report: Path) -> None:
    seeds = table(report, "seeds")
    assert set(seeds[(seeds["Task"] == HOPPER) & (seeds["Contender"] == "DT")]["Target"]) == {3600.0}
    assert set(seeds["Episodes"]) == {10}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("hopper-medium-replay-v2", "hopper-medium-replay-v2"),
        ("hopper-medium", HOPPER),
        ("hopper-medium-e", "hopper-medium-expert-v2"),
        ("reach", REACHER),
        ("walker*replay*", "walker2d-medium-replay-v2"),
    ],
)
def test_a_task_is_found_by_as_much_of_its_name_as_is_its_own(asked: str, found: str) -> None:
    assert choose_task(TASKS, asked) == found


def test_a_name_that_fits_several_tasks_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"'hopper' matches hopper-medium-v2, hopper-medium-replay-v2"):
        choose_task(TASKS, "hopper")


def test_an_unknown_task_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'hopper-medium-v2'"):
        choose_task(TASKS, "hoper-medium")


@pytest.mark.parametrize("kind", ["targets", "progress", "bars"])
@pytest.mark.parametrize("task", [HOPPER, None])
def test_every_kind_is_drawn_for_one_task_and_for_all(whole: SuiteResults, kind: str, task: str | None) -> None:
    drawing = draw(whole, kind, task)
    assert (HOPPER in drawing.name) == (task is not None)
    assert drawing.svg.startswith(b"<?xml")


def test_the_endings_name_the_format(whole: SuiteResults, tmp_path: Path) -> None:
    drawing = draw(whole, "targets", HOPPER)
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        write_drawing(drawing, tmp_path / "new" / f"figure.{ending}")
        assert (tmp_path / "new" / f"figure.{ending}").read_bytes().startswith(start)
    with pytest.raises(InvalidValue, match=r"suffix is one of \.png, \.svg, \.pdf"):
        write_drawing(drawing, tmp_path / "figure.gif")


def test_equal_ledgers_give_equal_pdfs(whole: SuiteResults) -> None:
    assert draw(whole, "targets", HOPPER).pdf() == draw(whole, "targets", HOPPER).pdf()


def test_nothing_to_draw_says_why(tmp_path: Path) -> None:
    suite = {**SUITE, "tasks": [HOPPER, WALKER], "contenders": {"CQL": {}}}
    results = results_of(tmp_path, suite=suite, missing=[(WALKER, "CQL")])
    with pytest.raises(NothingToReport, match="no contender was evaluated at more than one target return on hopper"):
        draw(results, "targets", HOPPER)
    with pytest.raises(NothingToReport, match="no trial of walker2d-medium-v2 has finished"):
        draw(results, "bars", "walker2d")
    with pytest.raises(UnknownName, match=r"Known: bars, data, improvement, profiles, progress, targets\."):
        draw(results, "target", HOPPER)


@pytest.mark.usefixtures("whole")
def test_the_command_draws_into_the_file_it_names(results: Path, tmp_path: Path) -> None:
    done = dtbench_plot(results, "--suite", "d4rl", "--task", "hopper-medium")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()) == (tmp_path / "targets-hopper-medium-v2.png").resolve()
    assert (tmp_path / "targets-hopper-medium-v2.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "d4r"], "Did you mean 'd4rl'"),
        (["--suite", "d4rl", "--task", "hoper-medium"], "Did you mean 'hopper-medium-v2'"),
        (["--suite", "d4rl", "--out", "figure.gif"], "suffix is one of"),
    ],
)
@pytest.mark.usefixtures("whole")
def test_a_mistake_is_one_line(results: Path, arguments: list[str], message: str) -> None:
    done = dtbench_plot(results, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
