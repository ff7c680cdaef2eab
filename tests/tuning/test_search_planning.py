"""Searches planned and their candidates trained, without Ray: rungs, what is refused, what a killed search keeps."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.cli.tune import tuned_suite
from dtbench.errors import DtbenchError, IncompatibleTask, InvalidValue, LedgerError, UnknownName
from dtbench.ledger.store import Ledger
from dtbench.suite.planning import load_suite, narrow, trial_specs
from dtbench.tuning import ray_tune
from dtbench.tuning.planning import Search, plan_search, rungs_of
from dtbench.tuning.ray_tune import SearchState, search_state, train_candidate
from dtbench.tuning.search import Candidate, SearchRecord, TuneOptions, read_record
from dtbench.tuning.space import read_space

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
FULL = TuneOptions(samples=3)
ASHA = TuneOptions(samples=3, asha=True, reduction_factor=2)


@pytest.fixture
def toy(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY, sort_keys=False))


def planned(options: TuneOptions = FULL, *, contender: str = "DT", space: Any = None, **changes: Any) -> Search:
    suite = narrow(load_suite("toy.yaml", **changes), contenders=[contender])
    return plan_search(suite, read_space(space or SPACE, "here"), options, Path("results"))


def searched(search: Search) -> SearchRecord:
    """Train every candidate, one after another, as a Ray worker does."""
    with search_state(search) as state:
        for setting in search.settings:
            train_candidate(search, setting, lambda step, found: state.update(found) and None, state.ended)
        return state.record


def outcome(record: SearchRecord) -> list[Any]:
    return [(one.hyperparameters, one.state, one.steps, one.scores) for one in record.candidates]


@pytest.mark.usefixtures("toy")
def test_a_search_trains_and_plays_what_no_report_uses() -> None:
    search = planned()
    reported = trial_specs(load_suite("toy.yaml"))
    assert {spec.seed for spec in search.specs} == {1000}
    assert {spec.evaluation.purpose for spec in search.specs} == {"tuning"}
    assert search.config.evaluation_seeds == {"key-to-door-1k": (20_000_000, 20_000_003)}
    assert not {spec.key for spec in search.specs} & {spec.key for spec in reported}


@pytest.mark.usefixtures("toy")
def test_every_candidate_is_trained_in_the_searchs_own_ledger_and_every_target_is_kept() -> None:
    search = planned()
    record = searched(search)
    assert [one.state for one in record.candidates] == ["done"] * 3
    assert record.steps == 3 * 8
    assert record.settings_tried == 6
    for one in record.candidates:
        assert {(score.step, score.target) for score in one.scores} == {
            (s, t) for s in (2, 4, 6, 8) for t in (1.0, 0.5)
        }
        assert one.episodes == 4 * 2 * 4
    assert not list(Ledger(Path("results/runs")).records())
    assert len(list(Ledger(search.root).records())) == 3


@pytest.mark.usefixtures("toy")
def test_a_contender_without_targets_is_tried_once_a_setting() -> None:
    record = searched(planned(TuneOptions(samples=1), contender="BC"))
    assert record.config.targets == {"key-to-door-1k": ()}
    assert {score.target for score in record.candidates[0].scores} == {None}
    assert record.settings_tried == 1


@pytest.mark.usefixtures("toy")
def test_rungs_are_evaluations_that_lie_a_factor_apart() -> None:
    specs = planned().specs
    assert rungs_of(specs, FULL) == (8,)
    assert rungs_of(specs, ASHA) == (2, 4, 8)
    assert rungs_of(specs, dataclasses.replace(ASHA, grace=3)) == (4, 8)
    with pytest.raises(InvalidValue, match="nothing to stop at"):
        rungs_of(specs, dataclasses.replace(ASHA, grace=8))


class Killed(BaseException):
    """What no part of a search may catch."""


@pytest.mark.usefixtures("toy")
def test_a_search_that_was_killed_continues_to_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = searched(planned(FULL))
    Path("results").rename("whole")
    calls, real = [], ray_tune.run_trial

    def mortal(*arguments: Any, **others: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise Killed
        return real(*arguments, **others)

    monkeypatch.setattr(ray_tune, "run_trial", mortal)
    with pytest.raises(Killed):
        searched(planned(ASHA))
    assert len(read_record(planned(ASHA).root / "search.json").candidates) < 3
    assert outcome(searched(planned(ASHA))) == outcome(whole)
    runs = len(calls)
    assert outcome(searched(planned(ASHA))) == outcome(whole)
    assert len(calls) == runs  # nothing was left to do


@pytest.mark.usefixtures("toy")
def test_a_candidate_that_ended_earlier_reports_its_scores_and_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    search, reports = planned(ASHA), list[tuple[int, Candidate]]()
    train_candidate(search, search.settings[0], lambda step, found: reports.append((step, found)))
    done = reports[-1][1]
    stopped = reports[1][1].model_copy(update={"state": "stopped"})
    monkeypatch.setattr(ray_tune, "run_trial", None)
    for ended, steps in ((done, [2, 4, 8]), (stopped, [2, 4])):
        reports.clear()
        train_candidate(search, search.settings[0], lambda step, found: reports.append((step, found)), [ended])
        assert reports == [(step, ended) for step in steps]


@pytest.mark.usefixtures("toy")
def test_more_samples_continue_a_search_and_another_configuration_does_not() -> None:
    first = searched(planned(TuneOptions(samples=1)))
    more = searched(planned(TuneOptions(samples=2)))
    assert outcome(more)[:1] == outcome(first)
    with pytest.raises(LedgerError, match=r"another configuration: its evaluation_seeds, overrides, trials differ"):
        searched(planned(overrides=["evaluation.episodes=5"]))
    with pytest.raises(LedgerError, match="has 2 samples"):
        searched(planned(TuneOptions(samples=1)))


FRAGILE = """
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


def fragile(source: str) -> None:
    contenders = {"F": {"algorithm": "fragile:Fragile", "train_steps": 2}}
    Path("fragile.py").write_text(source)
    Path("toy.yaml").write_text(yaml.safe_dump(TOY | {"contenders": contenders}))


def test_what_diverged_is_not_tried_again_and_what_crashed_is() -> None:
    fragile(FRAGILE)
    search = planned(TuneOptions("grid"), contender="F", space={"rate": {"choices": [0.0, 1.0, 2.0]}})
    states = {one.hyperparameters["rate"]: one.state for one in searched(search).candidates}
    assert states == {0.0: "done", 1.0: "diverged", 2.0: "failed"}
    with search_state(search) as state:
        assert {one.hyperparameters["rate"] for one in state.ended} == {0.0, 1.0}


def test_what_cannot_be_stopped_midway_is_not_given_to_asha() -> None:
    fragile(FRAGILE.replace("rate = 0.0", "rate = 0.0\n    resumable = False", 1))
    space, every = {"rate": {"choices": [0.0, 0.5]}}, ["evaluation.every=1"]
    asha = TuneOptions("grid", asha=True, reduction_factor=2)
    with pytest.raises(IncompatibleTask, match="tune it without --asha"):
        planned(asha, contender="F", space=space, overrides=every)
    assert searched(planned(TuneOptions("grid"), contender="F", space=space)).best is not None


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (FULL, {"contender": "*"}, "tunes one contender, not DT, BC"),
        (FULL, {"space": {"hiden_size": {"choices": [4]}}}, "Did you mean 'hidden_size'"),
        (FULL, {"space": {"hidden_size": {"choices": ["wide"]}}}, "hidden_size = 'wide'"),
        (FULL, {"overrides": ["tasks=[graph-0]"]}, "none is left to tune on"),
        (FULL, {"overrides": ["DT.train_steps=0"]}, "its train_steps is 0"),
        (TuneOptions("grid", samples=3), {"space": {"hidden_size": {"choices": [4, 8]}}}, "Leave --samples out"),
        (TuneOptions("grid"), {}, "a grid takes choices"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(
    options: TuneOptions, changes: Any, message: str
) -> None:
    with pytest.raises(DtbenchError, match=message):
        planned(options, **changes)
    assert not Path("results").exists()


@pytest.mark.usefixtures("toy")
def test_without_optuna_its_searcher_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DtbenchError, match=r"pip install 'dtbench\[search\]'"):
        planned(TuneOptions("optuna", samples=2))


def test_the_best_setting_is_a_suite_that_no_preset_of_its_base_changes() -> None:
    presets = {"cpu": {"contenders": {"DT": {"hyperparameters": {"hidden_size": 16}, "train_steps": 6}}}, "smoke": {}}
    contenders = {"DT": {**TOY["contenders"]["DT"], "by_task": {"key-*": {"hyperparameters": {"learning_rate": 1.0}}}}}
    document = TOY | {"presets": presets, "contenders": contenders}
    Path("toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    search = planned(TuneOptions(samples=1))
    record = searched(search)
    (best,) = record.candidates
    Path("best.yaml").write_text(yaml.safe_dump(tuned_suite(search, record, "toy.yaml")))
    specs = trial_specs(load_suite("best.yaml"))
    assert [(spec.contender, spec.seed, spec.train_steps) for spec in specs] == [
        ("DT tuned", 0, 6),
        ("DT tuned", 1, 6),
    ]
    assert {spec.evaluation.purpose for spec in specs} == {"report"}
    assert specs[0].hyperparameters == search.specs_of(best.hyperparameters)[0].hyperparameters
    assert specs[0].evaluation.targets[0] == best.targets(record.config)["key-to-door-1k"]
    assert sorted(specs[0].evaluation.targets) == [0.5, 1.0]


@pytest.mark.usefixtures("toy")
def test_two_searches_of_one_name_do_not_run_at_once() -> None:
    with search_state(planned()), pytest.raises(LedgerError, match="in use"), search_state(planned()):
        pass


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(UnknownName):
        planned()


@pytest.mark.usefixtures("toy")
def test_what_a_search_finds_is_printed_as_json_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_search(search: Search, state: SearchState, say: Callable[[str], None], *, address: str | None) -> None:
        for setting in search.settings:
            train_candidate(search, setting, lambda step, found: state.update(found) and None, state.ended)
            say("one more")

    monkeypatch.setattr(ray_tune, "run_search", run_search)
    Path("space.yaml").write_text("hidden_size: {choices: [4, 8]}\n")
    asked = ["tune", "-s", "toy.yaml", "-c", "DT", "--space", "space.yaml", "--searcher", "grid", "--json"]
    found = json.loads(CliRunner().invoke(app, asked).stdout)
    assert {one["hyperparameters"]["hidden_size"] for one in found["settings"]} == {4, 8}
    assert found["settings"][0]["score"] >= found["settings"][1]["score"]
    assert found["settings_tried"] == 4
    assert read_record(Path(found["record"])).name == found["search"] == found["suite"]["name"]
    assert list(found["suite"]["contenders"]) == ["DT tuned"]


@pytest.mark.usefixtures("toy")
def test_the_first_candidate_is_the_suites_own_setting() -> None:
    search = planned(TuneOptions(samples=3))
    assert search.settings[0] == {}
    assert search.specs_of(search.settings[0]) == list(search.specs)
    assert all(set(setting) == set(SPACE) for setting in search.settings[1:])
    assert planned(TuneOptions(samples=1)).settings == ({},)
