"""A row of a table has one configuration: what was planned before is listed apart and never averaged."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dtbench import load_scores
from dtbench.analysis.archive import read_archive
from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.results import SuiteResults, collect, score_table
from dtbench.analysis.results_directory import keep_scores
from dtbench.analysis.superseded import labelled, sentences
from dtbench.cli.run import main
from dtbench.cli.status import OTHERS, status_of
from dtbench.errors import LedgerError
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from tests.support.tiny_ledger import finish, spec_of


def planned(ledger: Ledger, specs: Sequence[TrialSpec], *, score: float, **changes: Any) -> Mapping[str, Any]:
    """Plan a suite of these trials and finish them."""
    labels = {spec.contender: {"algorithm": spec.algorithm, "train_steps": spec.train_steps} for spec in specs}
    document = {
        "name": "tiny",
        "preset": "cpu",
        "overrides": [],
        "tasks": list(dict.fromkeys(spec.task for spec in specs)),
        "seeds": sorted({spec.seed for spec in specs}),
        "contenders": labels,
        "evaluation": {},
        "trials": [spec.to_json() for spec in specs],
    }
    for spec in specs:
        if not (ledger.folder(spec) / "result.json").exists():
            finish(ledger, spec, score)
    return ledger.save_suite({**document, **changes})


def means(results: SuiteResults) -> dict[tuple[str, str], tuple[float, int]]:
    groups = final_rows(results).groupby(["task", "contender"])["score"]
    return {(str(t), str(c)): (float(scores.mean()), len(scores)) for (t, c), scores in groups}


BC, DT = (spec_of("hill", name, 0) for name in ("BC", "DT"))
CHANGES = {
    "an edited algorithm": ({"algorithm_version": "2"}, "algorithm_version=1"),
    "other data": ({"dataset_digest": "c" * 64, "dataset_source": "d4rl"}, "dataset_source=generated"),
    "a new version of the task": ({"task_version": 2}, "task_version=1"),
    "other task options": ({"task_options": {"physics": "mujoco"}}, ""),
    "another hyperparameter": ({"hyperparameters": {"hidden_size": 9}}, "hidden_size=8"),
    "longer training": ({"train_steps": 40}, "train_steps=20"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_trial_of_equal_seed_is_no_second_seed(tmp_path: Path, name: str) -> None:
    changes, what = CHANGES[name]
    ledger = Ledger(tmp_path / "runs")
    planned(ledger, [BC], score=10.0)
    document = planned(ledger, [dataclasses.replace(BC, **changes)], score=30.0)
    results = collect(document, ledger)
    assert means(results) == {("hill", "BC"): (30.0, 1)}
    (line,) = sentences(results)
    assert what in line
    assert line.endswith("on hill: 10.0 (1)")
    kept = read_and_kept(document, ledger, tmp_path)
    assert means(kept) == means(results)
    assert list(sentences(kept)) == [line]


def read_and_kept(document: Mapping[str, Any], ledger: Ledger, tmp_path: Path) -> SuiteResults:
    keep_scores(document, ledger, tmp_path / "scores")
    return read_archive(tmp_path / "scores", "tiny")


def test_the_score_file_has_superseded_trials_under_names_of_their_own(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    planned(ledger, [BC], score=10.0)
    read_and_kept(planned(ledger, [dataclasses.replace(BC, train_steps=40)], score=30.0), ledger, tmp_path)
    scores = load_scores(tmp_path)
    assert scores.groupby(["task", "contender", "step", "seed"]).size().max() == 1
    assert set(scores.contender) == {"BC", "BC (train_steps=20)"}


def test_a_configuration_that_is_planned_again_has_its_row_and_its_seeds_again(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path / "runs"), dataclasses.replace(BC, train_steps=40)
    planned(ledger, [BC, dataclasses.replace(BC, seed=1)], score=10.0)
    planned(ledger, [other], score=30.0)
    results = collect(planned(ledger, [BC], score=10.0), ledger)
    assert means(results) == {("hill", "BC"): (10.0, 2)}
    assert [record.spec.key for record in results.superseded] == [other.key]


def test_contenders_that_learned_from_other_data_share_no_table(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    planned(ledger, [BC, DT], score=10.0)
    results = collect(planned(ledger, [dataclasses.replace(DT, dataset_digest="c" * 64)], score=30.0), ledger)
    assert means(results) == {("hill", "DT"): (30.0, 1)}
    assert {record.spec.contender for record in results.superseded} == {"BC", "DT"}


def test_one_average_over_tasks_has_one_definition_of_its_contender(tmp_path: Path) -> None:
    ledger, valley = Ledger(tmp_path / "runs"), spec_of("valley", "BC", 0)
    planned(ledger, [BC, valley], score=10.0)
    results = collect(planned(ledger, [dataclasses.replace(BC, train_steps=40)], score=30.0), ledger)
    assert means(results) == {("hill", "BC"): (30.0, 1)}
    assert {record.spec.task for record in labelled(results)} == {"valley", "hill"}


def test_other_trials_under_the_suites_name_are_listed_apart(tmp_path: Path) -> None:
    """Ledgers are joined by copying, and earlier versions forgot what they had planned."""
    ledger = Ledger(tmp_path / "runs")
    finish(ledger, dataclasses.replace(BC, dataset_digest="c" * 64), 10.0)
    results = collect(planned(ledger, [BC], score=30.0), ledger)
    assert means(results) == {("hill", "BC"): (30.0, 1)}
    assert len(results.superseded) == 1


def test_a_plan_of_two_configurations_shows_the_last_one(tmp_path: Path) -> None:
    ledger, newer = Ledger(tmp_path / "runs"), dataclasses.replace(BC, algorithm_version="2")
    document = planned(ledger, [BC, newer], score=10.0)
    assert [record.spec.key for record in collect(document, ledger).records] == [newer.key]


def test_scores_of_two_configurations_are_refused(tmp_path: Path) -> None:
    ledger, newer = Ledger(tmp_path / "runs"), dataclasses.replace(BC, algorithm_version="2")
    finish(ledger, BC, 10.0)
    finish(ledger, newer, 30.0)
    records = list(ledger.records())
    with pytest.raises(LedgerError, match="BC on hill has trials of two configurations"):
        score_table(records)
    with pytest.raises(LedgerError, match="BC on hill has seed 0 twice"):
        score_table([records[0], records[0]])


def test_a_narrower_plan_keeps_tasks_contenders_and_seeds_that_finished(tmp_path: Path) -> None:
    ledger, valley = Ledger(tmp_path / "runs"), spec_of("valley", "BC", 0)
    planned(ledger, [BC, DT, valley], score=10.0)
    document = planned(ledger, [dataclasses.replace(DT, seed=1)], score=30.0, overrides=["evaluation.episodes=2"])
    results = collect(document, ledger)
    assert means(results) == {("hill", "BC"): (10.0, 1), ("hill", "DT"): (20.0, 2), ("valley", "BC"): (10.0, 1)}
    assert document["seeds"] == [0, 1]
    assert document["tasks"] == ["hill", "valley"]


def test_status_knows_the_suite_of_everything_that_it_planned(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    planned(ledger, [BC], score=10.0)
    planned(ledger, [dataclasses.replace(BC, train_steps=40)], score=30.0)
    finish(ledger, dataclasses.replace(BC, seed=1, task_version=3), 10.0)
    finish(ledger, spec_of("hill", "BC", 0, suite="unknown", digest="d" * 64), 10.0)
    trials = status_of(tmp_path).trials
    assert [(trial.suites, trial.superseded) for trial in trials] == [
        (("tiny",), False), (("tiny",), True), (("tiny",), True), ((OTHERS,), False)
    ]  # fmt: skip


SUITE = """
title: Robots
tasks: ["tests.support.toy_tasks:robot"]
seeds: [0]
evaluation: {episodes: 2, every: 2}
contenders:
  BC: {algorithm: bc, train_steps: 2, hyperparameters: {hidden_size: 8}}  # equal: they share a trial
  Cloning: {algorithm: bc, train_steps: 2, hyperparameters: {hidden_size: 8}}
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dtbench", "run", "--suite", "robots.yaml", "--local", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def contenders_in(name: str = "robots") -> set[str]:
    return set(load_scores("results", suites=[name]).contender)


def test_an_override_makes_a_variant_beside_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("robots.yaml").write_text(SUITE)
    run(monkeypatch)
    run(monkeypatch, "-c", "BC", "BC.learning_rate=0.01", "--seeds", "1")
    assert contenders_in() == {"BC", "BC (learning_rate=0.01)", "Cloning"}
    run(monkeypatch, "-c", "Cl*", "Cl*.train_steps=4", "evaluation.episodes=3")
    assert contenders_in() == {"BC", "BC (learning_rate=0.01)", "Cloning", "Cloning (train_steps=4)"}
    assert {trial.suites for trial in status_of(Path("results")).trials} == {("robots",)}


def test_a_name_makes_a_suite_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("robots.yaml").write_text(SUITE)
    run(monkeypatch)
    run(monkeypatch, "--name", "long", "train_steps=4")
    assert "superseded" not in capsys.readouterr().out
    assert contenders_in() == contenders_in("long") == {"BC", "Cloning"}
    run(monkeypatch, "train_steps=4")
    text = capsys.readouterr()
    assert "--name NAME makes a suite of its own" in text.err
    assert "superseded: BC (train_steps=2)" in text.out
