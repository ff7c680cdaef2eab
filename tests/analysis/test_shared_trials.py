"""A trial is its settings and its data: what one suite has archived, no other suite trains again."""

import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dtbench.analysis.archive import read_archive
from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.results_directory import keep_scores, load_results, shared_keys, suites_by_name
from dtbench.cli.run import main
from dtbench.cli.status import status_of
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from tests.support.tiny_ledger import finish, spec_of

BC, DT = (spec_of("hill", name, 0) for name in ("BC", "DT"))


def plan(ledger: Ledger, name: str, specs: Sequence[TrialSpec], **changes: Any) -> Mapping[str, Any]:
    """Save a suite of these trials."""
    labelled = [spec.labelled(suite=name, contender=spec.contender) for spec in specs]
    document = {
        "name": name,
        "preset": "cpu",
        "overrides": [],
        "tasks": list(dict.fromkeys(spec.task for spec in specs)),
        "seeds": sorted({spec.seed for spec in specs}),
        "contenders": {spec.contender: {"algorithm": spec.algorithm} for spec in specs},
        "evaluation": {},
        "trials": [spec.to_json() for spec in labelled],
    }
    return ledger.save_suite({**document, **changes})


def archive(folder: Path, name: str, *finished: tuple[TrialSpec, float]) -> None:
    """Archive a suite that was planned with one trial after the other, and remove its ledger."""
    ledger = Ledger(folder / "runs")
    for number, (spec, score) in enumerate(finished, start=1):
        finish(ledger, spec, score)
        document = plan(ledger, name, [one for one, _ in finished[:number]])
        keep_scores(document, ledger, folder / "scores")
    shutil.rmtree(ledger.root)


def means(results: SuiteResults) -> dict[str, float]:
    return {str(name): float(rows.score.mean()) for name, rows in final_rows(results).groupby("contender")}


def test_a_suite_has_the_archived_trials_of_others_under_its_own_name(tmp_path: Path) -> None:
    archive(tmp_path, "first", (BC, 30.0), (dataclasses.replace(BC, seed=1), 50.0))
    ledger = Ledger(tmp_path / "runs")
    document = plan(ledger, "second", [BC, DT])
    finish(ledger, DT, 70.0)
    kept = keep_scores(document, ledger, tmp_path / "scores")
    assert means(kept) == means(read_archive(tmp_path / "scores", "second")) == {"BC": 30.0, "DT": 70.0}
    assert {(record.spec.suite, record.spec.seed) for record in kept.records} == {("second", 0)}
    assert not kept.unfinished
    assert means(read_archive(tmp_path / "scores", "first")) == {"BC": 40.0}


def test_superseded_trials_of_other_suites_count_and_contenders_may_share_one(tmp_path: Path) -> None:
    archive(tmp_path, "first", (BC, 30.0), (dataclasses.replace(BC, train_steps=40), 60.0))
    assert [one.spec.key for one in read_archive(tmp_path / "scores", "first").superseded] == [BC.key]
    ledger = Ledger(tmp_path / "runs")
    twin = BC.labelled(suite="second", contender="the same")
    kept = keep_scores(plan(ledger, "second", [BC, twin]), ledger, tmp_path / "scores")
    assert means(kept) == {"BC": 30.0, "the same": 30.0}


@pytest.mark.parametrize("change", [{"seed": 7}, {"train_steps": 30}, {"dataset_digest": "b" * 64}])
def test_other_trials_stay_missing(tmp_path: Path, change: dict[str, Any]) -> None:
    archive(tmp_path, "first", (BC, 30.0))
    ledger, other = Ledger(tmp_path / "runs"), dataclasses.replace(BC, **change)
    kept = keep_scores(plan(ledger, "second", [other]), ledger, tmp_path / "scores")
    assert not kept.records
    assert [one.state for one in kept.unfinished] == [TrialState.MISSING]


@pytest.mark.parametrize("file", ["first.csv", "first/trials.jsonl", "first/episodes.parquet", "first/suite.json"])
def test_a_damaged_archive_of_another_suite_does_not_stop_this_one(tmp_path: Path, file: str) -> None:
    archive(tmp_path, "first", (BC, 30.0))
    assert shared_keys(tmp_path / "scores", "second", {BC.key, DT.key}) == {BC.key}
    (tmp_path / "scores" / file).write_text("no table\n")
    assert shared_keys(tmp_path / "scores", "second", {BC.key, DT.key}) == set()
    ledger = Ledger(tmp_path / "runs")
    document = plan(ledger, "second", [BC, DT])
    finish(ledger, DT, 70.0)
    assert means(keep_scores(document, ledger, tmp_path / "scores")) == {"DT": 70.0}


def test_another_preset_keeps_one_name_beside_trials_that_it_shares(tmp_path: Path) -> None:
    archive(tmp_path, "second", (dataclasses.replace(BC, train_steps=40), 60.0))
    archive(tmp_path, "first", (BC, 30.0))
    ledger = Ledger(tmp_path / "runs")
    document = plan(ledger, "second", [BC, DT], preset="smoke")
    finish(ledger, DT, 70.0)
    for _ in range(2):
        assert keep_scores(document, ledger, tmp_path / "scores").name == "second-smoke"
        assert list(suites_by_name(ledger, tmp_path / "scores")) == ["second-smoke"]
    assert sorted(found.name for found in load_results(tmp_path)) == ["first", "second", "second-smoke"]
    assert means(read_archive(tmp_path / "scores", "second")) == {"BC": 60.0}


def test_run_trains_nothing_that_another_suite_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "-s", "graph", "--preset", "smoke", "-c", "BC", "--local", "--results", str(tmp_path)]
    assert run(monkeypatch, *command) == 0
    shutil.rmtree(tmp_path / "runs")
    capsys.readouterr()
    assert run(monkeypatch, *command, "--name", "again") == 0
    printed = capsys.readouterr().out
    assert "again: 1 trials, 1 done, 0 to run" in printed
    assert "1 of the done are archived trials of other suites" in printed
    assert not list((tmp_path / "runs").glob("*/*/result.json"))
    assert status_of(tmp_path).counts("again")[TrialState.DONE] == 1
    first, second = (read_archive(tmp_path / "scores", name).records[0] for name in ("graph", "again"))
    assert first.episodes().equals(second.episodes())


def run(monkey: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line interface in this process and return its exit code."""
    monkey.setattr(sys, "argv", ["dtbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code))
