"""Searches in this process: rungs, halving, what is refused, what a killed search keeps, the winner's suite."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtbench.errors import DtbenchError, IncompatibleTask, InvalidValue, LedgerError, UnknownName
from dtbench.ledger.store import Ledger
from dtbench.suite.planning import load_suite, narrow, trial_specs
from dtbench.tuning import driver
from dtbench.tuning.driver import Asked, Plan, journal_of, plan_search, run_locally, rungs_of, survivors
from dtbench.tuning.proposals import proposals_of
from dtbench.tuning.search import SearchRecord, read_record
from dtbench.tuning.space import read_space
from dtbench.tuning.tuned_suite import write_tuned_suite

DT = {"hidden_size": 8, "num_layers": 1, "context": 4, "batch_size": 4, "return_scale": 1.0}
TOY: dict[str, Any] = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0, 1],
    "evaluation": {"episodes": 4, "every": 2, "targets": [1.0, 0.5]},
    "contenders": {
        "DT": {"algorithm": "dt", "train_steps": 8, "hyperparameters": DT},
        "BC": {"algorithm": "dt", "train_steps": 8, "hyperparameters": {**DT, "returns": "none"}},
    },
}
SPACE = {"learning_rate": {"log": [0.001, 0.1]}, "hidden_size": {"choices": [4, 8]}}
LOCAL = Asked(samples=4, local=True)
HALVING = dataclasses.replace(LOCAL, asha=True, reduction_factor=2)


@pytest.fixture
def toy(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY, sort_keys=False))


def planned(asked: Asked = LOCAL, *, contender: str = "DT", space: Any = None, **changes: Any) -> Plan:
    suite = narrow(load_suite("toy.yaml", **changes), contenders=[contender])
    return plan_search(suite, read_space(space or SPACE, "here"), asked, Path("results"))


def searched(plan: Plan) -> SearchRecord:
    with journal_of(plan) as journal:
        run_locally(plan, journal, proposals_of(plan, journal), lambda line: None)
        return journal.record


def outcome(record: SearchRecord) -> list[Any]:
    return [(one.hyperparameters, one.state, one.steps, one.rows) for one in record.samples]


@pytest.mark.usefixtures("toy")
def test_a_search_trains_and_plays_what_no_report_uses() -> None:
    plan = planned()
    reported = trial_specs(load_suite("toy.yaml"))
    assert {spec.seed for spec in plan.specs} == {1000}
    assert {spec.evaluation.purpose for spec in plan.specs} == {"tuning"}
    assert plan.question.evaluation_seeds == {"key-to-door-1k": (20_000_000, 20_000_003)}
    assert not {spec.key for spec in plan.specs} & {spec.key for spec in reported}


@pytest.mark.usefixtures("toy")
def test_every_sample_is_trained_and_every_target_is_kept() -> None:
    record = searched(planned())
    assert [sample.state for sample in record.samples] == ["done"] * 4
    assert record.steps == 4 * 8
    assert record.settings_tried == 8
    for sample in record.samples:
        assert {(row.step, row.target) for row in sample.rows} == {(s, t) for s in (2, 4, 6, 8) for t in (1.0, 0.5)}
        assert sample.episodes == 4 * 2 * 4


@pytest.mark.usefixtures("toy")
def test_a_contender_without_targets_is_tried_once_a_setting() -> None:
    record = searched(planned(dataclasses.replace(LOCAL, samples=1), contender="BC"))
    assert record.question.targets == {"key-to-door-1k": ()}
    assert {row.target for row in record.samples[0].rows} == {None}
    assert record.settings_tried == 1


def test_the_best_of_a_rung_go_on_and_of_equals_the_earlier() -> None:
    assert survivors({0: 1.0, 1: 5.0, 2: 5.0, 3: 2.0, 4: 0.0}, 2) == [1, 2, 3]
    assert survivors({0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}, 4) == [0]
    assert survivors({7: 3.0}, 4) == [7]


@pytest.mark.usefixtures("toy")
def test_rungs_are_evaluations_that_lie_a_factor_apart() -> None:
    specs = planned().specs
    assert rungs_of(specs, LOCAL) == (8,)
    assert rungs_of(specs, HALVING) == (2, 4, 8)
    assert rungs_of(specs, dataclasses.replace(HALVING, grace=3)) == (4, 6, 8)
    with pytest.raises(InvalidValue, match="nothing to stop at"):
        rungs_of(specs, dataclasses.replace(HALVING, grace=8))


@pytest.mark.usefixtures("toy")
def test_halving_spends_what_its_rungs_say() -> None:
    record = searched(planned(HALVING))
    assert record.question.scheduler == "halving"
    assert sorted(sample.steps for sample in record.samples) == [2, 2, 4, 8]  # 4 to step 2, 2 to step 4, 1 to step 8
    assert sorted(sample.state for sample in record.samples) == ["done", "stopped", "stopped", "stopped"]
    assert not list(Path("results").glob("**/result.json"))[1:]


@pytest.mark.usefixtures("toy")
def test_what_was_stopped_and_continued_scores_as_what_was_not() -> None:
    halved = searched(planned(HALVING))
    whole = searched(planned())
    for one, other in zip(halved.samples, whole.samples, strict=True):
        assert one.hyperparameters == other.hyperparameters
        assert set(one.rows) <= set(other.rows)


class Killed(BaseException):
    """What no part of a search may catch."""


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("asked", [LOCAL, HALVING], ids=["in full", "halving"])
def test_a_search_that_was_killed_continues_to_the_same_record(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = searched(planned(asked))
    Path("results").rename("whole")
    calls, real = [], driver.run_trial

    def mortal(*arguments: Any, **options: Any) -> str:
        calls.append(arguments)
        if len(calls) == 3:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(driver, "run_trial", mortal)
    with pytest.raises(Killed):
        searched(planned(asked))
    assert len(read_record(planned(asked).root / "search.json").samples) < 5
    again = searched(planned(asked))
    assert outcome(again) == outcome(whole)
    runs = len(calls)
    assert outcome(searched(planned(asked))) == outcome(whole)
    assert len(calls) == runs  # nothing was left to do


@pytest.mark.usefixtures("toy")
def test_more_samples_continue_a_search_and_another_question_does_not() -> None:
    first = searched(planned(dataclasses.replace(LOCAL, samples=2)))
    more = searched(planned(dataclasses.replace(LOCAL, samples=3)))
    assert outcome(more)[:2] == outcome(first)
    with pytest.raises(LedgerError, match=r"was asked otherwise: its evaluation_seeds, overrides, trials differ"):
        searched(planned(overrides=["evaluation.episodes=5"]))
    with pytest.raises(LedgerError, match="has 3 samples already"):
        searched(planned(dataclasses.replace(LOCAL, samples=2)))


DIVERGING = """
from dataclasses import dataclass
from baselines.uniform_random import UniformRandomLearner


class Learner(UniformRandomLearner):
    rate = 0.0

    def update(self):
        if self.rate > 1:
            raise RuntimeError("too fast")
        return {"loss": float("nan") if self.rate == 1 else 0.0}


@dataclass(frozen=True)
class Fragile:
    '''Diverges at 1, crashes above.'''

    rate: float = 0.0

    def learner(self, dataset, *, seed, device):
        learner = Learner(int(dataset.action_space.n))
        learner.rate = self.rate
        return learner
"""


def test_what_diverged_is_not_tried_again_and_what_crashed_is(tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(DIVERGING)
    contenders = {"F": {"algorithm": "fragile:Fragile", "train_steps": 2}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY | {"contenders": contenders}))
    space = {"rate": {"choices": [0.0, 1.0, 2.0]}}
    plan = planned(Asked("grid", local=True), contender="F", space=space)
    states = {sample.hyperparameters["rate"]: sample.state for sample in searched(plan).samples}
    assert states == {0.0: "done", 1.0: "diverged", 2.0: "failed"}
    with journal_of(plan) as journal:
        assert [sample.hyperparameters["rate"] for sample in journal.unfinished()] == [2.0]


def test_what_cannot_be_stopped_midway_is_not_given_to_asha(tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(DIVERGING.replace("rate = 0.0", "rate = 0.0\n    resumable = False", 1))
    contenders = {"F": {"algorithm": "fragile:Fragile", "train_steps": 8}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY | {"contenders": contenders}))
    space = {"rate": {"choices": [0.0, 0.5]}}
    with pytest.raises(IncompatibleTask, match="tune it without --asha"):
        planned(Asked("grid", local=True, asha=True, reduction_factor=2), contender="F", space=space)
    assert searched(planned(Asked("grid", local=True), contender="F", space=space)).best is not None


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("asked", "changes", "told"),
    [
        (LOCAL, {"contender": "*"}, "tunes one contender, not DT, BC"),
        (LOCAL, {"space": {"widht": {"choices": [4]}}}, "Did you mean 'width'"),
        (LOCAL, {"space": {"hidden_size": {"choices": ["wide"]}}}, "width = 'wide'"),
        (LOCAL, {"overrides": ["tasks=[graph-0]"]}, "none is left to tune on"),
        (LOCAL, {"overrides": ["DT.train_steps=0"]}, "its budget is 0"),
        (Asked("grid", samples=3), {"space": {"hidden_size": {"choices": [4, 8]}}}, "leave --samples out"),
        (Asked("grid"), {}, "log cannot be tried in full"),
        (Asked("optuna", local=True, asha=True), {}, "leave --local out"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(asked: Asked, changes: Any, told: str) -> None:
    with pytest.raises(DtbenchError, match=told):
        planned(asked, **changes)
    assert not Path("results").exists()


@pytest.mark.usefixtures("toy")
def test_the_winner_is_a_suite_that_runs_with_its_target_first() -> None:
    record = searched(planned(dataclasses.replace(LOCAL, samples=2)))
    best = record.best
    assert best is not None
    write_tuned_suite(Path("best.yaml"), narrow(load_suite("toy.yaml"), contenders=["DT"]), "toy.yaml", record)
    (first, *_) = specs = trial_specs(load_suite("best.yaml"))
    assert {spec.contender for spec in specs} == {"DT tuned"}
    assert {spec.seed for spec in specs} == {0, 1}
    assert {spec.evaluation.purpose for spec in specs} == {"report"}
    assert first.evaluation.targets[0] == best.targets(record.question)["key-to-door-1k"]
    assert sorted(first.evaluation.targets) == [0.5, 1.0]
    (tuned,) = planned().specs
    settled = {**tuned.hyperparameters, **best.hyperparameters}
    assert first.hyperparameters == settled
    assert first.train_steps == 8


def test_no_preset_and_no_exception_of_the_base_changes_the_winner(tmp_path: Path) -> None:
    presets = {"cpu": {"contenders": {"DT": {"hyperparameters": {"hidden_size": 16}, "train_steps": 6}}}, "smoke": {}}
    contenders = {"DT": {**TOY["contenders"]["DT"], "by_task": {"key-*": {"hyperparameters": {"learning_rate": 1.0}}}}}
    document = TOY | {"presets": presets, "contenders": contenders}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    record = searched(planned(dataclasses.replace(LOCAL, samples=1)))
    write_tuned_suite(tmp_path / "best.yaml", narrow(load_suite("toy.yaml"), contenders=["DT"]), "toy.yaml", record)
    (spec, _) = trial_specs(load_suite("best.yaml"))
    assert spec.train_steps == 6
    assert {name: spec.hyperparameters[name] for name in SPACE} == record.samples[0].hyperparameters


@pytest.mark.usefixtures("toy")
def test_optuna_is_told_what_an_earlier_run_found() -> None:
    pytest.importorskip("optuna")
    asked = Asked("optuna", samples=3, local=True)
    first = searched(planned(asked))
    with journal_of(planned(dataclasses.replace(asked, samples=5))) as journal:
        proposals: Any = proposals_of(journal.plan, journal)
        known = proposals.search._ot_study.trials
        assert [trial.value for trial in known] == [one.objective(first.question) for one in first.samples]
        run_locally(journal.plan, journal, proposals, lambda line: None)
        assert outcome(journal.record)[:3] == outcome(first)
        assert len(journal.record.samples) == 5


@pytest.mark.usefixtures("toy")
def test_optuna_ends_where_a_space_has_no_further_setting() -> None:
    pytest.importorskip("optuna")
    record = searched(planned(Asked("optuna", samples=9, local=True), space={"hidden_size": {"choices": [4, 8]}}))
    assert sorted(one.hyperparameters["width"] for one in record.samples) == [4, 8]


@pytest.mark.usefixtures("toy")
def test_without_optuna_its_searcher_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DtbenchError, match=r"pip install 'dtbench\[search\]'"):
        searched(planned(Asked("optuna", samples=2, local=True)))


@pytest.mark.usefixtures("toy")
def test_two_searches_of_one_name_do_not_run_at_once() -> None:
    with journal_of(planned()), pytest.raises(LedgerError, match="in use"), journal_of(planned()):
        pass


@pytest.mark.usefixtures("toy")
def test_a_searchs_trials_are_in_no_other_ledger() -> None:
    plan = planned(dataclasses.replace(LOCAL, samples=1))
    searched(plan)
    assert not list(Ledger(Path("results/runs")).records())
    assert len(list(Ledger(plan.root).records())) == 1


def test_an_unknown_suite_or_space_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        planned()
