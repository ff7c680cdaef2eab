"""The report: built from a small ledger that was made up here."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.page.build import build_report, write_report
from dtbench.analysis.page.html import unpacked
from dtbench.analysis.results import SuiteResults, joined, score_table
from dtbench.analysis.suite_analysis import analyze
from dtbench.errors import NothingToReport
from dtbench.ledger.store import Ledger, TrialRecord, Unfinished, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec, TrialState
from tests.support.drawn_figures import drawn_figures
from tests.support.published_verdicts import verdicts

KEY_TO_DOOR = "key-to-door-1k"
GRAPH = "graph-0"
STEPS = (0, 50, 100)
CONDITIONED = ("DT",)

SUITE: dict[str, Any] = {
    "name": "made-up",
    "title": "Made up <b>& small</b>",
    "description": "A ledger invented for a test: 100 % of it.",
    "preset": "cpu",
    "overrides": ["contenders.DT.train_steps=100"],
    "tasks": [KEY_TO_DOOR, GRAPH],
    "seeds": [0, 1, 2],
    "contenders": {
        "DT": {"algorithm": "dt", "train_steps": 100, "description": "returns | as tokens"},
        "BC successful": {"algorithm": "bc", "train_steps": 100},
        "CQL": {"algorithm": "cql", "train_steps": 100},
    },
    "evaluation": {"episodes": 20, "every": 50, "targets": None},
    "published": [
        {
            "file": "decision_transformer.csv",
            "table": "6",
            "title": "Table 6",
            "datasets": {KEY_TO_DOOR: "1K random trajectories", "key-to-door-10k": "10K random trajectories"},
            "contenders": {"DT": "DT", "BC successful": "%BC", "CQL": "CQL"},
            "metric": "success_rate_pct",
        }
    ],
}


def spec_of(task: str, contender: str, seed: int) -> TrialSpec:
    targets = (1.0, 0.5, 0.0) if task == KEY_TO_DOOR else (-1.0,)
    return TrialSpec(
        suite="made-up",
        contender=contender,
        task=task,
        task_version=1,
        dataset_digest="0123456789abcdef" * 4,
        dataset_source="generated",
        algorithm=contender.split()[0].lower(),
        algorithm_version="1",
        hyperparameters={"rate": 1e-3, "model": {"num_layers": 2, "kind": contender}},
        seed=seed,
        train_steps=100,
        evaluation=EvaluationSpec(episodes=20, every=50, targets=targets, action_mode="greedy"),
    )


def episodes_of(spec: TrialSpec) -> pd.DataFrame:
    """A success for every target met: the better, the longer trained; contenders and seeds differ by a little."""
    skill = {"DT": 14, "BC successful": 13, "CQL": 3}[spec.contender] + spec.seed
    targets = spec.evaluation.targets if spec.contender in CONDITIONED else (np.nan,)
    rows = []
    for step in STEPS:
        for target in targets:
            for episode in range(20):
                asked = 1.0 if np.isnan(target) or spec.task == GRAPH else target
                won = episode < skill * asked * step / 100
                rows.append(one_episode(spec.task, won=won, step=step, target=target, episode=episode))
    return pd.DataFrame(rows)


def one_episode(task: str, *, won: bool, step: int, target: float, episode: int) -> dict[str, Any]:
    row = {"step": step, "target": target, "episode": episode, "seed": 10_000_000 + episode}
    if task == KEY_TO_DOOR:
        return {**row, "return": float(won), "length": 40, "score": 100.0 * won}
    length = 1 + episode % 3 if won else 10
    path = {"start": 4, "shortest": 1 + episode % 3, "reached": won, "path": "4-0", "novel": episode < 2}
    return {**row, "return": -float(length), "length": length, "score": 100.0 * won, **path}


def provenance_of(spec: TrialSpec) -> dict[str, Any]:
    info: dict[str, Any] = {"recipe": "walks_at_random", "seed": 0}
    if spec.task == GRAPH:
        info |= {"walk_steps_to_goal": {"1": 10, "5": 30, "inf": 60}, "shortest_steps": {"1": 5, "2": 5, "3": 2}}
    card = {"episodes": 1000, "steps": 40_000, "return_mean": 0.03, "return_max": 1.0, "length_mean": 40.0}
    return {
        "commit": "abc1234",
        "versions": {"python": "3.11.2", "torch": "2.9.0"},
        "device": "cpu",
        "dataset": {"source": "generated", "digest": spec.dataset_digest, "info": info, "card": card},
        "task": {
            "name": spec.task,
            "domain": "graph" if spec.task == GRAPH else "key_to_door",
            "description": f"What {spec.task} asks.",
            "score_name": "success rate (%)",
        },
    }


def finish(ledger: Ledger, spec: TrialSpec, provenance: Mapping[str, Any]) -> None:
    folder = ledger.create(spec)
    write_frame(folder / "episodes.parquet", episodes_of(spec))
    write_lines(folder / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in STEPS])
    write_json(folder / "provenance.json", provenance)
    result = {"status": "done", "action_mode": "greedy", "steps": 100, "parameters": 1234}
    write_json(folder / "result.json", result)


def results_of(root: Path, suite: Mapping[str, Any], *, missing: Sequence[tuple[str, str, int]] = ()) -> SuiteResults:
    ledger = Ledger(root)
    cells = [(t, c, s) for t in suite["tasks"] for c in suite["contenders"] for s in suite["seeds"]]
    specs = [spec_of(*cell) for cell in cells if cell not in missing]
    for spec in specs:
        finish(ledger, spec, provenance_of(spec))
    records = tuple(record for record in map(ledger.record, specs) if record)
    return results_with(suite, records, tuple(Unfinished(spec_of(*cell), TrialState.MISSING) for cell in missing))


def results_with(
    suite: Mapping[str, Any], records: tuple[TrialRecord, ...], unfinished: tuple[Unfinished, ...] = ()
) -> SuiteResults:
    episodes = joined({record.spec.key: record.episodes() for record in records})
    return SuiteResults(suite, records, unfinished, score_table(records), episodes)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return results_of(tmp_path_factory.mktemp("ledger"), SUITE)


@pytest.fixture(scope="module")
def folder(whole: SuiteResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([whole], tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    """The suite's own folder."""
    return folder / "made-up"


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text()


def shown(page: str) -> str:
    """The page without its scripts and packed data."""
    return re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)


def test_equal_ledgers_give_reports_identical_to_the_byte(folder: Path, tmp_path: Path) -> None:
    write_report([results_of(tmp_path / "ledger", SUITE)], tmp_path / "again")
    assert files_below(tmp_path / "again") == files_below(folder)


def test_the_report_has_all_its_files(folder: Path, report: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("index.html", "README.md", "manifest.json"),
        *("made-up", "overview"),
    }
    assert {"report.md", "tables/suites.csv", "tables/verdicts.tex"} <= set(files_below(folder / "overview"))
    names = set(files_below(report))
    assert "report.md" in names
    assert "index.html" not in names
    for table in ("scores", "paper-table-6", "aggregate", "paths", "seeds", "data", "hyperparameters", "software"):
        assert {f"tables/{table}.csv", f"tables/{table}.tex"} <= names
    for figure in (f"final-{GRAPH}", f"progress-{KEY_TO_DOOR}", f"targets-{KEY_TO_DOOR}", f"steps-{GRAPH}"):
        assert f"figures/{figure}.png" in names


def test_one_page_holds_every_suite_and_each_has_its_directory(whole: SuiteResults, tmp_path: Path) -> None:
    other = results_of(tmp_path / "ledger", {**SUITE, "name": "other", "title": "The other", "tasks": [GRAPH]})
    page = write_report([whole, other], tmp_path / "report").read_text()
    assert 'href="#suite-made-up"' in page
    assert 'href="#suite-other"' in page
    assert '<h2 id="other--title" tabindex="-1">The other</h2>' in page
    for name in ("made-up", "other"):
        assert (tmp_path / "report" / name / "tables/scores.csv").exists()
        assert rf"\label{{tab:{name}-scores}}" in (tmp_path / "report" / name / "tables/scores.tex").read_text()


def test_suites_drawn_in_processes_of_their_own_give_equal_bytes(whole: SuiteResults, tmp_path: Path) -> None:
    found = [whole, results_of(tmp_path / "ledger", {**SUITE, "name": "other", "tasks": [GRAPH]})]
    assert build_report(found, workers=2) == build_report(found)


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert not re.search(r"https?:|<link|<img|@import", page)
    assert not re.search(r"//[a-z]", shown(page))
    assert "<script src" not in page
    assert "default-src &#39;none&#39;; " in page
    addresses = re.findall(r'(?:href|src)="([^"]*)"', shown(page))
    assert addresses
    assert all(address.startswith("#") for address in addresses)


def test_every_id_on_the_page_is_unique_and_every_reference_has_one(page: str, whole: SuiteResults) -> None:
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    opened = {f"cell-{record.spec.cell}" for record in whole.records}  # by the page's script, in a dialog
    references = set(re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]*)', shown(page)))
    assert references - set(ids) == opened | {"details--title"}


def test_the_suites_words_cannot_become_markup(page: str, report: Path) -> None:
    assert "Made up &lt;b&gt;&amp; small&lt;/b&gt;" in page
    assert "<b>" not in shown(page)
    for path in (report / "report.md", report.parent / "overview" / "report.md"):
        assert "Made up" in path.read_text()
        assert "<b>" not in path.read_text().replace(r"\<b>", "")


def test_figures_follow_the_page_into_the_dark(page: str, folder: Path) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    drawn = len(list(folder.glob("*/figures/*.png")))
    figures = unpacked(page).replace(r"\"", '"')
    assert figures.count('<svg role="img" aria-label="') == page.count("<figcaption>") == drawn


def test_the_figures_are_those_that_the_results_give(folder: Path) -> None:
    names = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/figures/*.png")}
    by_task = {f"{kind}-{task}" for kind in ("final", "progress") for task in SUITE["tasks"]}
    others = {f"targets-{KEY_TO_DOOR}", f"steps-{GRAPH}", "profiles", "improvement", "rank-agreement"}
    assert names == {f"made-up/figures/{name}" for name in by_task | others} | {
        f"overview/figures/{name}" for name in ("answer-td", "answer-imitation", "target-tiles", "suites")
    }


def test_the_page_says_which_checkpoint_and_target_count(page: str, report: Path) -> None:
    for text in (page, (report / "report.md").read_text()):
        assert "The last checkpoint of each trial counts." in text
        assert f"{KEY_TO_DOOR}: 1 (all asked: 1, 0.5, 0)" in text
        assert "20 episodes for each target return, every 50 gradient steps" in text


def test_the_page_says_what_ran_on_what(page: str) -> None:
    for text in ("abc1234", "2.9.0", "0123456789abcdef", "model.num_layers", "contenders.DT.train_steps=100"):
        assert text in shown(page)
    assert "walks_at_random" in unpacked(page)
    assert "walks_at_random" not in page


def test_the_final_score_is_that_of_the_last_checkpoint_at_the_first_target(whole: SuiteResults) -> None:
    finals = final_rows(whole)
    dt = finals[(finals["task"] == KEY_TO_DOOR) & (finals["contender"] == "DT")]
    assert dt["score"].tolist() == [70.0, 75.0, 80.0]  # 14, 15 and 16 of 20 episodes
    assert dt["successes"].tolist() == [14, 15, 16]
    assert set(dt["step"]) == {100}
    assert set(dt["target"]) == {1.0}


def test_finals_come_in_the_suites_order(whole: SuiteResults) -> None:
    finals = final_rows(whole)
    assert list(dict.fromkeys(finals["task"])) == SUITE["tasks"]
    assert list(dict.fromkeys(finals["contender"])) == list(SUITE["contenders"])


def test_the_verdicts_follow_from_the_ledger(whole: SuiteResults) -> None:
    rows = verdicts(analyze(whole))
    assert rows[KEY_TO_DOOR, "DT"] == "not comparable: not converged (score moved by +36.7 since half)"
    assert rows["key-to-door-10k", "DT"] == "not run"


def test_paths_are_counted_from_the_last_checkpoint(report: Path) -> None:
    rows = pd.read_csv(report / "tables/paths.csv").set_index("Contender")
    assert rows.loc["DT", "Goal reached (%)"] == 75
    assert rows.loc["DT", "Novel (% of all paths)"] == 10  # 2 of 20
    assert rows.loc["DT", "Novel (% of paths that reach the goal)"] == pytest.approx(
        (200 / 14 + 200 / 15 + 200 / 16) / 3
    )
    assert "15.8 % are not sub-paths" in (report / "report.md").read_text()


def test_a_report_with_holes_shows_them(tmp_path: Path) -> None:
    missing = [(GRAPH, "CQL", seed) for seed in (0, 1, 2)] + [(KEY_TO_DOOR, "DT", 2)]
    results = results_of(tmp_path / "ledger", SUITE, missing=missing)
    text = write_report([results], tmp_path / "report").read_text()
    scores = pd.read_csv(tmp_path / "report/made-up/tables/scores.csv").set_index("Contender")
    assert scores.loc["CQL", f"{GRAPH} (data: generated)"] == "not run"
    assert scores.loc["DT", f"{KEY_TO_DOOR} (data: generated)"].endswith("(n = 2 of 3)")
    assert "14 of 18" in text
    assert "4 never began" in text
    assert all(spec.key in shown(text) for spec in results.not_run)


def test_a_complete_report_says_so(page: str) -> None:
    assert "Every planned trial has finished." in page


def test_smoke_is_loud_on_the_page_and_on_every_figure(tmp_path: Path) -> None:
    write_report([results_of(tmp_path / "ledger", {**SUITE, "preset": "smoke"})], tmp_path / "report")
    assert 'role="note">SMOKE: numbers mean nothing' in (tmp_path / "report/index.html").read_text()
    assert "**SMOKE: numbers mean nothing" in (tmp_path / "report/made-up/report.md").read_text()
    drawings = drawn_figures((tmp_path / "report/index.html").read_text())
    assert drawings
    assert all("SMOKE: numbers" in drawing for drawing in drawings.values())


def test_no_smoke_without_the_smoke_preset(folder: Path, page: str) -> None:
    assert "SMOKE" not in unpacked(page)


def test_a_suite_that_says_little_and_a_ledger_that_recorded_little_still_give_a_report(tmp_path: Path) -> None:
    ledger, spec = Ledger(tmp_path / "ledger"), spec_of(KEY_TO_DOOR, "CQL", 0)
    finish(ledger, spec, provenance={})
    write_json(ledger.folder(spec) / "result.json", {"status": "done", "action_mode": ""})
    records = tuple(ledger.records())
    text = write_report([results_with({"name": "little"}, records)], tmp_path / "report").read_text()
    assert "not recorded" in text
    assert (tmp_path / "report/little/tables/scores.csv").exists()
    assert not (tmp_path / "report/little/tables/paper-table-6.csv").exists()


def test_nothing_finished_is_nothing_to_report(tmp_path: Path) -> None:
    results = results_of(tmp_path / "ledger", {**SUITE, "tasks": []})
    with pytest.raises(NothingToReport, match="no trial of made-up has finished"):
        write_report([results], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_users_matplotlib_settings_change_nothing(whole: SuiteResults, folder: Path, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        write_report([whole], tmp_path / "again")
    assert files_below(tmp_path / "again") == files_below(folder)


def test_a_later_report_leaves_nothing_of_an_earlier_one_and_spares_what_is_not_its_own(
    whole: SuiteResults, tmp_path: Path
) -> None:
    write_report([results_of(tmp_path / "runs", SUITE, missing=[(GRAPH, "CQL", 2)])], tmp_path / "report")
    tables = tmp_path / "report" / "made-up" / "tables"
    assert (tables / "not-run.csv").exists()
    (tables / "notes.txt").write_text("mine")
    write_report([whole], tmp_path / "report")
    assert not (tables / "not-run.csv").exists()
    assert (tables / "notes.txt").read_text() == "mine"


def test_a_suite_that_is_no_longer_reported_takes_its_files_with_it(whole: SuiteResults, tmp_path: Path) -> None:
    other = results_of(tmp_path / "runs", {**SUITE, "name": "other", "tasks": [GRAPH]})
    write_report([whole, other], tmp_path / "report")
    write_report([whole], tmp_path / "report")
    assert (tmp_path / "report/made-up/report.md").exists()
    assert not [path for path in (tmp_path / "report/other").rglob("*") if path.is_file()]
