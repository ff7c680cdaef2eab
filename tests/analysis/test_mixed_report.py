"""The report of a suite whose tasks come from several domains, from a ledger that was made up here."""

import re
from pathlib import Path

import pandas as pd
import pytest

from dtbench.analysis.page.build import write_report
from dtbench.analysis.results import COLUMNS, SuiteResults, write_scores
from dtbench.analysis.suite_analysis import analyze
from dtbench.analysis.tables import targets
from dtbench.cli.plot import draw
from tests.support import published_verdicts
from tests.support.drawn_figures import drawn_figures
from tests.support.mixed_ledger import BREAKOUT, HOPPER, KEY_TO_DOOR, POINTS, PONG, SCORES, SUITE, TABLE_1, results_of

CONTENDERS = ["DT", "BC", "CQL"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return results_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def report(mixed: SuiteResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's own folder."""
    return report_of(mixed, tmp_path_factory.mktemp("report"))


def report_of(results: SuiteResults, folder: Path) -> Path:
    return write_report([results], folder).parent / "demo"


def table(report: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(report / "tables" / f"{name}.csv")


def file_name(task: str) -> str:
    return task.replace(":", "-")


def verdicts(folder: Path, **changes: object) -> dict[str, str]:
    """Of Pong's DT, BC and CQL beside the paper's Table 1."""
    entry = {**TABLE_1, **{name: changes.pop(name) for name in ("protocol",) if name in changes}}
    suite = {**SUITE, "tasks": [PONG], "published": [entry]}
    results = results_of(folder / "runs", suite=suite, **changes)  # type: ignore[arg-type]
    return {contender: verdict for (_, contender), verdict in published_verdicts.verdicts(analyze(results)).items()}


def test_the_score_table_says_each_tasks_score(report: Path) -> None:
    names = list(table(report, "scores").columns[1:])
    assert names == [f"{task} (score: {SCORES[task]}; data: generated)" for task in SUITE["tasks"]]
    assert table(report, "tasks")["Score"].tolist() == [SCORES[task] for task in SUITE["tasks"]]


def test_nothing_is_averaged_over_tasks_of_different_scales(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert "The tasks are scored on 3 scales, which their names say." in text
    assert "average over" not in text
    assert "Over all tasks" not in text
    assert not list((report / "tables").glob("aggregate*"))


def test_scoring_rules_are_compared_task_by_task(report: Path) -> None:
    assert not (report / "tables/rules.csv").exists()
    for place in (1, 2, 3):
        assert table(report, f"rules-{place}")["Contender"].tolist() == CONTENDERS
    assert f"The score on {PONG} and the rank" in (report / "report.md").read_text()
    assert (report / "report.md").read_text().count("All rules read the same trials.") == 1


def test_the_list_of_trials_says_what_their_scores_are(report: Path) -> None:
    assert f"Scores. {KEY_TO_DOOR}: success rate (%)" in (report / "report.md").read_text()


def test_every_task_has_its_curve_of_targets_on_its_own_axis(report: Path) -> None:
    names = {path.stem for path in (report / "figures").glob("targets*.png")}
    assert names == {"targets", *(f"targets-{file_name(task)}" for task in SUITE["tasks"])}
    assert table(report, "targets")["Task"].tolist() == SUITE["tasks"]
    figures = drawn_figures((report.parent / "index.html").read_text())
    for task in SUITE["tasks"]:
        drawn = figures[f"progress-{file_name(task)}"]
        assert "".join(SCORES[task].split()) in "".join(re.sub(r"<[^>]*>", "", drawn).split())  # over several lines


def test_a_suite_of_several_domains_can_be_drawn_in_one_figure_that_names_every_score(mixed: SuiteResults) -> None:
    for kind in ("bars", "progress"):
        text = draw(mixed, kind).svg.decode()
        assert "success rate (%)" in text
        assert "protocol" in text


def test_tasks_of_one_scale_are_averaged_and_others_left_out(tmp_path: Path) -> None:
    suite = {**SUITE, "tasks": [KEY_TO_DOOR, BREAKOUT, PONG]}
    report = report_of(results_of(tmp_path / "runs", suite=suite), tmp_path / "report")
    assert "Over 2 tasks, gamer-normalised score (protocol official-dt)" in (report / "report.md").read_text()
    games = table(report, "aggregate-1").set_index("Contender")
    scores = table(report, "seeds")
    own = scores[(scores["Contender"] == "BC") & (scores["Task"] != KEY_TO_DOOR)]
    assert games.loc["BC", "Mean"] == pytest.approx(own.groupby("Task")["Score"].mean().mean())
    assert games.loc["BC", "IQM"] == pytest.approx(own["Score"].sort_values().iloc[1:3].mean())


def test_one_scale_says_its_name_once(tmp_path: Path) -> None:
    suite = {**SUITE, "tasks": [BREAKOUT, PONG]}
    report = report_of(results_of(tmp_path / "runs", suite=suite), tmp_path / "report")
    assert list(table(report, "scores").columns[1:]) == [f"{task} (data: generated)" for task in suite["tasks"]]
    assert (report / "tables/aggregate.csv").exists()
    assert (report / "tables/rules.csv").exists()


def test_targets_are_held_against_returns_in_their_own_units(mixed: SuiteResults) -> None:
    found = targets.task_targets(mixed.records, PONG, CONTENDERS)
    assert found is not None
    assert found.units == "clipped rewards"
    (dt,) = found.achieved
    # Nine tenths of 5, 10 and 20, and 20 x (0.01 a seed + 0.001 an episode) more: means 0.005 and 0.0015.
    assert dt.curve == pytest.approx([4.63, 9.13, 18.13])
    assert found.levels["BC"].mean == pytest.approx(10.13)


def test_tasks_without_target_units_keep_the_return(mixed: SuiteResults) -> None:
    found = targets.task_targets(mixed.records, HOPPER, CONTENDERS)
    assert found is not None
    assert found.units == ""
    assert found.levels["BC"].mean == pytest.approx(3600 * 0.5065)


def test_the_axis_says_that_returns_are_clipped(report: Path) -> None:
    figures = drawn_figures((report.parent / "index.html").read_text())
    assert "achieved return (clipped rewards)" in figures[f"targets-{file_name(PONG)}"]
    assert "clipped" not in figures[f"targets-{HOPPER}"]
    grid = figures["targets"]
    assert "achieved return<" in grid
    assert "clipped rewards" in grid
    assert f"Targets and returns of {PONG} are sums of clipped rewards" in (report / "report.md").read_text()


def test_what_was_achieved_has_a_column_of_its_own_in_the_scores(mixed: SuiteResults, tmp_path: Path) -> None:
    write_scores(mixed.scores, tmp_path / "scores.csv")
    rows = pd.read_csv(tmp_path / "scores.csv")
    assert list(rows.columns) == list(COLUMNS)
    pong = rows[rows["task"] == PONG]
    assert (pong["return_mean"] / pong["achieved_mean"]).to_numpy() == pytest.approx(POINTS)
    assert rows[rows["task"] != PONG]["achieved_mean"].isna().all()


def test_scores_of_suites_without_target_units_have_the_columns_they_always_had(tmp_path: Path) -> None:
    results = results_of(tmp_path / "runs", suite={**SUITE, "tasks": [KEY_TO_DOOR, HOPPER]})
    write_scores(results.scores, tmp_path / "scores.csv")
    committed = Path(__file__).parents[2] / "results/scores/key-to-door.csv"
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == committed.read_text().splitlines()[0]


def test_committed_scores_are_written_back_to_the_byte(tmp_path: Path) -> None:
    for path in (Path(__file__).parents[2] / "results/scores").glob("*.csv"):
        rows = pd.read_csv(path)
        if "achieved_mean" not in rows:
            write_scores(rows.assign(achieved_mean=float("nan"))[list(COLUMNS)], tmp_path / path.name)
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_published_number_of_another_protocol_is_not_comparable_contender_by_contender(tmp_path: Path) -> None:
    verdict_of = verdicts(tmp_path, sources={PONG: "dqn-replay"})
    assert "protocol" not in verdict_of["DT"]
    assert verdict_of["CQL"] == "not comparable: protocol official-dt"


def test_the_protocol_that_a_task_was_made_with_is_the_one_that_counts(tmp_path: Path) -> None:
    verdict_of = verdicts(tmp_path, sources={PONG: "dqn-replay"}, options={PONG: {"protocol": "dopamine"}})
    assert verdict_of["DT"] == "not comparable: protocol dopamine"
    assert "protocol" not in verdict_of["CQL"]


def test_one_protocol_can_be_given_for_a_whole_table(tmp_path: Path) -> None:
    verdict_of = verdicts(tmp_path, protocol="dopamine", sources={PONG: "dqn-replay"})
    assert set(verdict_of.values()) == {"not comparable: protocol official-dt"}


def test_data_and_protocol_are_both_named(tmp_path: Path) -> None:
    assert verdicts(tmp_path)["CQL"] == "not comparable: generated data; protocol official-dt"


def test_options_are_printed_beside_every_score(tmp_path: Path) -> None:
    made_with = {PONG: {"protocol": "dopamine", "reward_units": "official"}}
    report = report_of(results_of(tmp_path / "runs", options=made_with), tmp_path / "report")
    assert table(report, "scores").columns[3].endswith("data: generated; protocol: dopamine; reward_units: official)")
    assert "protocol: dopamine; reward_units: official" in table(report, "data")["Options"].tolist()


def test_the_page_says_what_epsilon_means(tmp_path: Path) -> None:
    results = results_of(tmp_path / "runs", modes={"CQL": "epsilon_greedy"})
    text = write_report([results], tmp_path / "report").read_text()
    assert "greedy, but with probability 0.001 any action, as Dopamine evaluates: CQL; greedy: BC, DT." in text
    assert "epsilon_greedy" in table(tmp_path / "report/demo", "contenders")["Actions"].tolist()


def test_a_task_that_has_not_run_is_not_shown_and_belongs_to_no_scale(tmp_path: Path) -> None:
    report = report_of(results_of(tmp_path / "runs", missing=[PONG]), tmp_path / "report")
    assert PONG not in " ".join(table(report, "scores").columns)
    assert f"have no finished trial: {PONG}" in (report / "report.md").read_text()
    assert "Over all tasks" not in (report / "report.md").read_text()


def test_equal_ledgers_of_several_domains_give_equal_pages(report: Path, tmp_path: Path) -> None:
    again = report_of(results_of(tmp_path / "runs"), tmp_path / "report")
    files = sorted(path.relative_to(report.parent) for path in report.parent.rglob("*.*"))
    assert {"index.html", "README.md", "manifest.json", "demo", "overview"} == {path.parts[0] for path in files}
    assert files == sorted(path.relative_to(again.parent) for path in again.parent.rglob("*.*"))
    for path in files:
        assert (again.parent / path).read_bytes() == (report.parent / path).read_bytes()


def test_no_file_and_no_id_has_a_colon_in_its_name(report: Path) -> None:
    ids = re.findall(r'\bid="([^"]*)"', (report.parent / "index.html").read_text())
    assert len(ids) == len(set(ids))
    assert not [name for name in (*ids, *(path.name for path in report.parent.rglob("*"))) if ":" in name]
