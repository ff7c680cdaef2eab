"""The settings of a suite that was searched are those that its records choose, and no others."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from dtbench.analysis.convergence import ENOUGH, planned_share
from dtbench.analysis.training_length import DECAY
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.suite.planning import contender_on, load_suite, trial_specs
from dtbench.tuning.search import Candidate, SearchRecord, read_records

SEARCHED = ("d4rl", "delayed-reward")
RECORDS = [
    one for one in read_records(Path(__file__).parents[2] / "results" / "searches") if one.config.suite in SEARCHED
]
ROUNDED = 0.006  # of a setting that is written with three digits


@cache
def planned(suite: str, preset: str) -> tuple[TrialSpec, ...]:
    return tuple(trial_specs(load_suite(suite, preset=preset), make_data=False))


def spec_of(record: SearchRecord, task: str) -> TrialSpec:
    specs = planned(record.config.suite, record.config.preset)
    return next(one for one in specs if (one.task, one.contender) == (task, record.config.contender))


def able(record: SearchRecord, task: str) -> Iterator[tuple[float, Candidate, float | None]]:
    """Score, candidate and target return of all whose backups reach the value that a verdict asks for.

    A reward at the end needs as many backups as an episode has steps, whatever the discount: spaces see to that.
    """
    spec, at_the_end = spec_of(record, task), "delayed" in task
    for one in record.candidates:
        tried = replace(spec, hyperparameters={**spec.hyperparameters, **one.hyperparameters})
        share = planned_share(tried)
        if one.state == TrialState.DONE and (share is None or at_the_end or share >= ENOUGH):
            for target, score in one.by_target(record.config, task, one.last_step(record.config)).items():
                yield score, one, target


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: one.name)
def test_every_set_has_the_best_setting_and_target_of_its_search(record: SearchRecord) -> None:
    for task in record.config.tasks:
        _, best, target = max(able(record, task), key=lambda found: found[0])
        ours = spec_of(record, task).hyperparameters
        for name, value in best.hyperparameters.items():
            wanted = pytest.approx(value, rel=ROUNDED) if isinstance(value, float) else value
            assert ours[name] == wanted, f"{name} on {task}: setting {best.number + 1}"
        suite = load_suite(record.config.suite, preset=record.config.preset)
        asked = contender_on(suite.contenders[record.config.contender], task).headline_target
        first = next(
            iter(record.config.targets[task]), None
        )  # of generated data it follows from them: null in the suite
        assert asked == (None if target == first else target)


def test_everyone_was_searched_with_as_many_settings_on_the_same_sets() -> None:
    efforts: dict[str, set[object]] = {}
    for one in RECORDS:
        effort = (len(one.candidates), one.config.tasks, one.config.overrides)
        efforts.setdefault(one.config.suite, set()).add(effort)
    assert {suite: len(found) for suite, found in efforts.items()} == dict.fromkeys(efforts, 1)
    searched = {one.config.contender for one in RECORDS if one.config.suite == "d4rl"}
    assert searched == {spec.contender for spec in planned("d4rl", "cpu")}


@pytest.mark.parametrize("suite", ["context-length", "percent-bc", "delayed-reward", "precision"])
def test_suites_that_vary_something_else_keep_the_settings_of_before_on_every_set(suite: str) -> None:
    given: dict[str, set[str]] = {}
    planned_suite = load_suite(suite, preset="cpu")
    for spec in trial_specs(planned_suite, make_data=False):
        assert contender_on(planned_suite.contenders[spec.contender], spec.task).headline_target is None
        if "hopper" in spec.task and "delayed" not in spec.task and spec.contender in ("DT", "BC", "BC 10%"):
            settings = {name: value for name, value in spec.hyperparameters.items() if name != DECAY}  # as train_steps
            given.setdefault(spec.contender, set()).add(str(sorted(settings.items())))
    assert given
    assert {name: len(settings) for name, settings in given.items()} == dict.fromkeys(given, 1)


@pytest.mark.parametrize("preset", ["cpu", "paper"])
@pytest.mark.parametrize("suite", ["d4rl", "delayed-reward", "percent-bc"])
def test_everyone_acts_with_the_last_weights_on_gym(suite: str, preset: str) -> None:
    assert {spec.hyperparameters.get("ema_decay", 0.0) for spec in planned(suite, preset)} == {0.0}
