"""How long trials will take: finished ones tell, the learners of the others are timed for a moment."""

import heapq
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from dtbench import registry
from dtbench.algorithm import Learner
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import DtbenchError, InvalidValue
from dtbench.evaluation import Evaluator, action_mode
from dtbench.ledger.lock import processors
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.task import Task

UPDATES = 3  # at least so many gradient steps are timed, after as many to warm up
SECONDS = 1.5  # for one learner, of which the last third goes to its games
ALL_SECONDS = 40.0  # for all of them: many learners get less each

Basis = Literal["measured", "timed", "scaled", "unknown"]
OnLearner = Callable[[int, int, TrialSpec], None]
"""(learners timed so far, learners to time, a trial of the one that is timed now)"""


@dataclass(frozen=True, slots=True)
class Speed:
    """What trying a learner for a moment told."""

    update: float  # seconds of a gradient step
    game_step: float  # seconds of one step of one game, learner and environment together
    return_conditioned: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long one trial of a cell takes, and how that is known.

    "measured": the mean of the cell's finished trials; "timed": at most, from the learner's speed; "scaled": by the
    slowest finished trial of the same algorithm, on whatever task; "unknown": `reason` says why, `seconds` is 0.
    """

    seconds: float
    basis: Basis
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Estimates of cells whose learners were timed, and what that cost."""

    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by `TrialSpec.cell`
    learners: int = 0
    seconds: float = 0.0


def measured(specs: Iterable[TrialSpec], ledger: Ledger) -> dict[str, Estimate]:
    """Mean seconds of the cells that have finished trials; the others are left out."""
    found = {}
    for spec in _one_of_each_cell(specs):
        seconds = [record.result["seconds"] for record in ledger.siblings(spec)]
        if seconds:
            found[spec.cell] = Estimate(sum(seconds) / len(seconds), "measured")
    return found


def scaled(specs: Iterable[TrialSpec], ledger: Ledger) -> dict[str, Estimate]:
    """By the slowest rate, per gradient step, of the same algorithm's finished trials; others are left out."""
    rates: dict[str, float] = {}
    for record in ledger.records():
        rate = record.result["seconds"] / max(record.spec.budget, 1)
        rates[record.spec.algorithm] = max(rate, rates.get(record.spec.algorithm, 0.0))
    return {
        spec.cell: Estimate(rates[spec.algorithm] * max(spec.budget, 1), "scaled")
        for spec in _one_of_each_cell(specs)
        if spec.algorithm in rates
    }


def calibrate(specs: Iterable[TrialSpec], on_learner: OnLearner | None = None) -> Calibration:
    """Time the learners of these trials, once for trials whose learners and games cost the same.

    Takes about `SECONDS` for each learner and `ALL_SECONDS` in all, whichever is less, and what building them takes.
    Writes nothing. A learner that fails as a trial would fail leaves its cells unknown; a DtbenchError, which is a
    mistake in what was asked, is raised.
    """
    began = time.perf_counter()
    cells = _one_of_each_cell(specs)
    opened = {spec.task: _opened(spec) for spec in cells}
    alike: dict[str, list[TrialSpec]] = {}
    for spec in cells:
        alike.setdefault(_cost_of(spec, *opened[spec.task]), []).append(spec)
    seconds = min(SECONDS, ALL_SECONDS / max(len(alike), 1))
    estimates = {}
    for done, group in enumerate(alike.values()):
        if on_learner:
            on_learner(done, len(alike), group[0])
        speed = _tried(group[0], *opened[group[0].task], seconds=seconds)
        for spec in group:
            estimates[spec.cell] = (
                Estimate(0.0, "unknown", speed)
                if isinstance(speed, str)
                else Estimate(trial_seconds(spec, speed, longest=_longest(opened[spec.task][1])), "timed")
            )
    return Calibration(estimates, len(alike), time.perf_counter() - began)


def time_learner(spec: TrialSpec, task: Task, dataset: TrajectoryDataset, *, seconds: float = SECONDS) -> Speed:
    """Build the learner as the trial would, then time its gradient steps and the steps of its games."""
    device = torch.device("cuda" if spec.resources.get("gpu", 0) > 0 and torch.cuda.is_available() else "cpu")
    algorithm = registry.make_algorithm(spec.algorithm, spec.hyperparameters)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(spec.resources.get("cpu", 1))))
    try:
        learner = algorithm.learner(dataset, seed=spec.seed, device=device)
        update = _seconds_per_update(learner, device, seconds * 2 / 3) if spec.budget else 0.0
        evaluator = Evaluator(
            make_env=task.make_env,
            seeds=task.evaluation_seeds(spec.evaluation.episodes),
            action_mode=action_mode(spec.evaluation.action_mode),
            action_seed=spec.seed,
            device=device,
            target_units=task.target_units,
            streaming=spec.evaluation.rollout == "streaming",
        )
        game_step = evaluator.probe(learner, spec.evaluation.targets, seconds=seconds / 3)
        return Speed(update, game_step, learner.return_conditioned)
    finally:
        torch.set_num_threads(threads)


def trial_seconds(spec: TrialSpec, speed: Speed, *, longest: int) -> float:
    """What a trial takes at this speed if every evaluation game lasts `longest` steps."""
    games = evaluation_games(spec, return_conditioned=speed.return_conditioned)
    return spec.budget * speed.update + games * longest * speed.game_step


def evaluations(spec: TrialSpec) -> int:
    """How often a trial is evaluated: every so many steps and after the last."""
    return max(1, math.ceil(spec.budget / spec.evaluation.every))


def evaluation_games(spec: TrialSpec, *, return_conditioned: bool) -> int:
    """Games of all of a trial's evaluations together; the last also asks for the targets of the sweep."""
    asked = spec.evaluation
    if not return_conditioned:
        return evaluations(spec) * asked.episodes
    return ((evaluations(spec) - 1) * len(asked.targets) + len(asked.last_targets)) * asked.episodes


def parallel_trials(resources: Mapping[str, float]) -> int:
    """How many such trials Ray would run at once on this machine; 0 where not even one fits."""
    fit = processors() // (max(1.0, resources.get("cpu", 1.0)) + resources.get("extra_cpu", 0.0))
    if resources.get("gpu", 0.0) > 0:
        fit = min(fit, torch.cuda.device_count() / resources["gpu"])
    return int(fit)


def check_room(specs: Iterable[TrialSpec]) -> None:
    """Raise InvalidValue for a trial that this machine can never begin: Ray would wait for its resources for ever."""
    for spec in specs:
        if parallel_trials(spec.resources) == 0:
            raise InvalidValue(
                f"{spec.contender} on {spec.task} asks for {dict(spec.resources)}, which this machine has not. Say "
                "resources.gpu=0 (and resources.cpu=N), --preset cpu, or --address of a cluster that has it."
            )


def wall_seconds(trials: Sequence[float], parallel: int) -> float:
    """When the last of these trials ends, each beginning in turn on the first of `parallel` places that is free."""
    free = [0.0] * parallel
    for seconds in trials:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _one_of_each_cell(specs: Iterable[TrialSpec]) -> list[TrialSpec]:
    found: dict[str, TrialSpec] = {}
    for spec in specs:
        found.setdefault(spec.cell, spec)
    return list(found.values())


def _opened(spec: TrialSpec) -> tuple[Task, TrajectoryDataset]:
    task = registry.make_task(spec.task, spec.task_options)
    return task, task.open(spec.open_from or spec.dataset_source)


def _cost_of(spec: TrialSpec, task: Task, dataset: TrajectoryDataset) -> str:
    """Equal for trials whose gradient steps and game steps cost the same."""
    shapes = [list(dataset.observations.shape[1:]), list(dataset.actions.shape[1:])]
    asked = [spec.evaluation.episodes, len(spec.evaluation.targets), spec.evaluation.action_mode, spec.budget > 0]
    # Robots of equal shapes differ in their physics: partials of equal arguments have equal names.
    names = [spec.algorithm, spec.algorithm_version, repr(task.make_env)]
    return json.dumps([*names, spec.hyperparameters, shapes, asked, spec.resources], sort_keys=True)


def _tried(spec: TrialSpec, task: Task, dataset: TrajectoryDataset, *, seconds: float) -> Speed | str:
    """The learner's speed, or why it has none."""
    try:
        return time_learner(spec, task, dataset, seconds=seconds)
    except DtbenchError as error:
        raise DtbenchError(f"{spec.contender} on {spec.task}: {error}") from None
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _seconds_per_update(learner: Learner, device: torch.device, seconds: float) -> float:
    _updated(learner, device, UPDATES, 0.0)
    done, spent = _updated(learner, device, UPDATES, seconds)
    return spent / done


def _updated(learner: Learner, device: torch.device, updates: int, seconds: float) -> tuple[int, float]:
    """Take at least so many gradient steps and go on for so long; what was done, and how long it took."""
    began, done, spent = time.perf_counter(), 0, 0.0
    while done < updates or spent < seconds:
        learner.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a GPU's work goes on after `update` has returned
        done, spent = done + 1, time.perf_counter() - began
    return done, spent


def _longest(dataset: TrajectoryDataset) -> int:
    return int(dataset.lengths.max())
