"""Searches at work: what is asked made into a plan, samples advanced from rung to rung in a ledger of their own."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dtbench import registry
from dtbench.errors import DtbenchError, IncompatibleTask, InvalidValue, LedgerError
from dtbench.ledger import lock
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import contender_on, resolved_hyperparameters, trial_specs
from dtbench.suite.schema import Suite
from dtbench.trial import open_trial, run_trial
from dtbench.tuning.search import ENDED, Question, Row, Sample, SearchRecord, read_record, write_record
from dtbench.tuning.space import Setting, Space, check_space, draw, grid, plain_space

FIRST_SEED = 1000  # training seeds of searches begin here: suites report on small ones
REDUCTION_FACTOR = 3  # Li et al. (2018), Hyperband: 3 or 4; the gentler one loses fewer that learn slowly
SAMPLES = 32

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of a search, beside its suite and its space."""

    searcher: str = "random"
    samples: int | None = None  # None: SAMPLES, or the whole grid
    asha: bool = False
    grace: int | None = None  # gradient steps before a sample may be stopped; None: see `rungs_of`
    reduction_factor: int = REDUCTION_FACTOR
    seeds: int = 1
    seed: int = 0
    local: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A search that can begin: nothing was computed yet but the data's digests."""

    name: str
    question: Question
    asked: int
    space: Space
    specs: tuple[TrialSpec, ...]  # the contender's own, one for each task and training seed
    settings: tuple[Setting, ...]  # all samples where they are known beforehand: not for optuna
    root: Path  # of the search's ledger

    def specs_of(self, setting: Setting) -> list[TrialSpec]:
        """The trials of a sample; raise InvalidValue for a setting that the algorithm does not take."""
        return [
            dataclasses.replace(
                spec, hyperparameters=registry.all_hyperparameters(spec.algorithm, {**spec.hyperparameters, **setting})
            )
            for spec in self.specs
        ]

    @property
    def resources(self) -> Mapping[str, float]:
        """What one sample takes while it runs."""
        return self.specs[0].resources


class Proposals(Protocol):
    """Where samples come from."""

    def next(self) -> Sample | None:
        """A sample to begin or to continue; None where there is no further one."""
        ...

    def tell(self, sample: Sample) -> None:
        """Hear of a sample that has ended."""
        ...


def plan_search(suite: Suite, space: Space, asked: Asked, results: Path, name: str | None = None) -> Plan:
    """Make a plan of a suite narrowed to one contender; opens the datasets, computes nothing else.

    Raises UnknownName, InvalidValue or IncompatibleTask for whatever cannot be: space, tasks, rungs, samples.
    """
    label, algorithm = _check_contender(suite, space)
    for task in suite.tasks:
        registry.make_task(task, suite.options_of(task)).tuning_seeds(suite.evaluation_of(task).episodes)
    settings = _settings(space, asked)
    specs = _tuning_specs(suite, asked.seeds)
    rungs = rungs_of(specs, asked)
    takes_targets = _check_learners(specs, stopped=len(rungs) > 1)
    scheduler = "none" if not asked.asha else "halving" if asked.local else "asha"
    question = Question(
        suite=suite.name,
        preset=suite.preset,
        overrides=tuple(suite.overrides),
        contender=label,
        algorithm=algorithm,
        tasks=tuple(suite.tasks),
        trials=tuple(spec.key for spec in specs),
        space={one: {kind: tuple(v) for kind, v in said.items()} for one, said in plain_space(space).items()},
        searcher=asked.searcher,
        seed=asked.seed,
        scheduler=scheduler,
        rungs=rungs,
        reduction_factor=asked.reduction_factor if asked.asha else 1,
        training_seeds=tuple(dict.fromkeys(spec.seed for spec in specs)),
        evaluation_seeds={spec.task: _ends_of_seeds(spec) for spec in specs},
        targets={spec.task: spec.evaluation.targets if takes_targets else () for spec in specs},
        score_names={spec.task: registry.make_task(spec.task, spec.task_options).score_name for spec in specs},
        data={spec.task: spec.dataset_source for spec in specs},
    )
    found = name or _default_name(question)
    count = len(settings) or asked.samples or SAMPLES
    plan = Plan(found, question, count, space, specs, settings, results / "runs" / "searches" / found)
    for setting in settings:
        plan.specs_of(setting)
    return plan


def rungs_of(specs: Sequence[TrialSpec], asked: Asked) -> tuple[int, ...]:
    """The gradient steps at which samples may be stopped, all of them evaluations; the budget is the last.

    The first is `grace`, or the budget over the reduction factor's square; each further one is so many times later.
    """
    budgets = {(spec.train_steps, spec.evaluation.every) for spec in specs}
    if len(budgets) > 1:
        raise InvalidValue(f"tasks with different budgets or evaluations ({sorted(budgets)}): tune them one by one.")
    ((budget, every),) = budgets
    if budget < 1:
        raise InvalidValue("the contender learns nothing: its budget is 0. Tune another one.")
    if not asked.asha:
        return (budget,)
    factor = asked.reduction_factor
    if factor < 2:
        raise InvalidValue(f"--reduction-factor {factor}: it must be 2 or more.")
    first = asked.grace or budget / factor**2
    found = []
    while first < budget:
        found.append(math.ceil(first / every) * every)
        first *= factor
    rungs = sorted({step for step in found if step < budget})
    if not rungs:
        raise InvalidValue(
            f"--asha has nothing to stop at: {budget} steps are evaluated every {every}, and --grace is "
            f"{asked.grace or 'not said'}. Evaluate more often: evaluation.every={max(1, budget // factor**2)}."
        )
    return (*rungs, budget)


def advance(sample: Sample, specs: Sequence[TrialSpec], root: Path, step: int) -> Sample:
    """Train the trials of a sample to a step, from their checkpoints on; give what is known of it then."""
    ledger, state = Ledger(root), "running"
    for spec in specs:
        begun = _spent(ledger, spec).steps
        if ledger.state(spec) == "done" or begun >= step < spec.train_steps:
            continue
        outcome = run_trial(spec, ledger, should_stop=_Until(begun, step))
        if outcome in ("failed", "diverged"):
            state = outcome
            break
    if state == "running" and step >= specs[0].train_steps:
        state = "done"
    spent = [_spent(ledger, spec) for spec in specs]
    return dataclasses.replace(
        sample,
        state=state,
        steps=sum(one.steps for one in spent),
        seconds=sum(one.seconds for one in spent),
        rows=tuple(row for one in spent for row in one.rows),
    )


class Journal:
    """The record of a search while it runs: on disk after every change, so that a killed search can be continued."""

    def __init__(self, plan: Plan) -> None:
        """Begin, or continue what the same command began; raise LedgerError where the search was another one."""
        self.plan, self.path = plan, plan.root / "search.json"
        self.record = SearchRecord(plan.name, plan.question, plan.asked)
        if self.path.exists():
            earlier = read_record(self.path)
            _check_same(earlier, plan)
            self.record = dataclasses.replace(self.record, samples=earlier.samples)

    def keep(self, sample: Sample) -> None:
        """Write what is now known of a sample."""
        self.record = self.record.with_sample(sample)
        write_record(self.path, self.record)

    def sample(self, number: int) -> Sample:
        """What is known of a sample."""
        return next(one for one in self.record.samples if one.number == number)

    def unfinished(self) -> list[Sample]:
        """Samples that were begun and not ended, and those that failed: they are tried again."""
        return [sample for sample in self.record.samples if sample.state not in ENDED]


@contextmanager
def journal_of(plan: Plan) -> Iterator[Journal]:
    """The journal of a search, held against a second run of it."""
    with lock.acquire(plan.root):
        yield Journal(plan)


def run_locally(plan: Plan, journal: Journal, proposals: Proposals, say: Say) -> None:
    """Run the samples one after another in this process, or, by halving, all of them from rung to rung."""
    if plan.question.scheduler == "halving":
        _halve(plan, journal, proposals, say)
        return
    while sample := proposals.next():
        journal.keep(sample)
        sample = advance(sample, plan.specs_of(sample.hyperparameters), plan.root, plan.question.budget)
        journal.keep(sample)
        proposals.tell(sample)
        say(told(sample, plan))


def survivors(scores: Mapping[int, float], factor: int) -> list[int]:
    """The best of the samples, one in `factor` rounded up, by number; of equals the earlier ones."""
    kept = math.ceil(len(scores) / factor)
    return sorted(sorted(scores, key=lambda number: (-scores[number], number))[:kept])


def told(sample: Sample, plan: Plan) -> str:
    """A line on a sample that has ended, or passed a rung."""
    question = plan.question
    score, step = sample.objective(question), sample.last_step(question)
    setting = ", ".join(f"{name}={value}" for name, value in sample.hyperparameters.items())
    targets = {target for target in sample.targets(question).values() if target is not None}
    asked = f" (target {', '.join(f'{target:g}' for target in sorted(targets))})" if targets else ""
    scored = "no score" if score is None else f"{score:.1f} after {step} steps{asked}"
    return f"{sample.state:<8} {sample.number + 1}/{plan.asked}  {scored}  {setting}"


@dataclass(frozen=True, slots=True)
class _Spent:
    steps: int = 0
    seconds: float = 0.0
    rows: tuple[Row, ...] = ()


class _Until:
    """Says when a trial that goes on from one step has come to another; asked once a step."""

    def __init__(self, begun: int, step: int) -> None:
        self.now, self.step = begun, step

    def __call__(self) -> bool:
        self.now += 1
        return self.now >= self.step


def _halve(plan: Plan, journal: Journal, proposals: Proposals, say: Say) -> None:
    """Synchronous successive halving (Jamieson & Talwalkar 2016): of all that reach a rung the best go on.

    What an earlier run has decided is decided again, from the same scores.
    """
    begun = {sample.number: sample for sample in journal.record.samples}
    while sample := proposals.next():
        begun[sample.number] = sample
    alive = sorted(begun)
    for rung in plan.question.rungs:
        scores = {}
        for number in alive:
            sample = begun[number]
            if sample.state not in ENDED and (sample.last_step(plan.question) or 0) < rung:
                journal.keep(sample)
                begun[number] = advance(sample, plan.specs_of(sample.hyperparameters), plan.root, rung)
                journal.keep(begun[number])
                say(told(begun[number], plan))
            score = begun[number].objective(plan.question, rung)
            scores[number] = float("-inf") if score is None else score
        if rung == plan.question.budget:
            return
        kept = survivors(scores, plan.question.reduction_factor)
        for number in set(alive) - set(kept):
            if begun[number].state == "running":
                begun[number] = dataclasses.replace(begun[number], state="stopped")
                journal.keep(begun[number])
        alive = kept


def _check_contender(suite: Suite, space: Space) -> tuple[str, str]:
    """The one contender's label and algorithm."""
    if len(suite.contenders) != 1:
        raise InvalidValue(f"a search tunes one contender, not {', '.join(suite.contenders)}: name one with -c.")
    ((label, contender),) = suite.contenders.items()
    settled = {task: contender_on(contender, task) for task in suite.tasks}
    algorithms = sorted({found.algorithm for found in settled.values()})
    if len(algorithms) > 1:
        raise InvalidValue(f"{label} is {' and '.join(algorithms)} on these tasks: tune them one by one, with -t.")
    for task in suite.tasks:
        check_space(space, algorithms[0], resolved_hyperparameters(contender, task))
    return label, algorithms[0]


def _settings(space: Space, asked: Asked) -> tuple[Setting, ...]:
    if asked.searcher == "grid":
        if asked.samples is not None:
            raise InvalidValue("--searcher grid tries all settings: leave --samples out.")
        return tuple(grid(space, asked.seed))
    if asked.searcher == "optuna":
        if asked.local and asked.asha:
            raise InvalidValue(
                "--local --asha halves samples that are all known beforehand, and optuna chooses each by those before "
                "it: leave --local out, or take --searcher random."
            )
        return ()
    return tuple(draw(space, asked.samples or SAMPLES, asked.seed))


def _tuning_specs(suite: Suite, seeds: int) -> tuple[TrialSpec, ...]:
    """The contender's own trials, with training seeds and evaluation episodes that no report uses."""
    chosen = suite.model_copy(update={"seeds": list(range(FIRST_SEED, FIRST_SEED + seeds))})
    return tuple(
        dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, purpose="tuning", sweep=()))
        for spec in trial_specs(chosen)
    )


def _check_learners(specs: Sequence[TrialSpec], *, stopped: bool) -> bool:
    """Begin the contender on each task; whether it takes target returns. Raise where it cannot be stopped midway."""
    takes_targets = False
    for spec in {spec.task: spec for spec in specs}.values():
        try:
            trial = open_trial(spec, check_only=True)
        except DtbenchError as error:
            raise type(error)(f"{spec.contender} on {spec.task}: {error}") from None
        if stopped and not trial.resumable:
            raise IncompatibleTask(f"{spec.contender} cannot be stopped and continued: tune it without --asha.")
        takes_targets = takes_targets or trial.learner.return_conditioned
    return takes_targets


def _ends_of_seeds(spec: TrialSpec) -> tuple[int, int]:
    seeds = registry.make_task(spec.task, spec.task_options).tuning_seeds(spec.evaluation.episodes)
    return min(seeds), max(seeds)


def _default_name(question: Question) -> str:
    parts = (question.suite, question.contender, *question.tasks, question.searcher, question.scheduler)
    plain = ["".join(letter if letter.isalnum() else "-" for letter in part).strip("-").lower() for part in parts]
    return "-".join(plain if question.scheduler != "none" else plain[:-1])[:120]


def _check_same(earlier: SearchRecord, plan: Plan) -> None:
    """Raise LedgerError where a search of this name asked something else."""
    then, now = dataclasses.asdict(earlier.question), dataclasses.asdict(plan.question)
    if other := sorted(name for name in then if then[name] != now[name]):
        raise LedgerError(
            f"the search {plan.name} in {plan.root} was asked otherwise: its {', '.join(other)} differ. "
            "Say the command that began it, or another --name."
        )
    if len(earlier.samples) > plan.asked:
        raise LedgerError(
            f"the search {plan.name} has {len(earlier.samples)} samples already: ask for so many or more."
        )


def _spent(ledger: Ledger, spec: TrialSpec) -> _Spent:
    """How far a trial has come, and what its evaluations gave: its checkpoint knows, whatever its state."""
    path = ledger.folder(spec) / "checkpoint.pt"
    if not path.exists():
        return _Spent(ledger.failure(spec).step or 0)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        rows = tuple(row for columns in state["episodes"] for row in _rows(spec, columns))
        return _Spent(int(state["step"]), float(state["seconds"]), rows)
    except Exception as error:
        raise LedgerError(f"{path} cannot be read: {error}. Delete it to begin the trial anew.") from error


def _rows(spec: TrialSpec, columns: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
    targets, scores = np.asarray(columns["target"], float), np.asarray(columns["score"], float)
    step = int(columns["step"][0])
    for target in dict.fromkeys(None if math.isnan(one) else one for one in targets.tolist()):
        own = scores[np.isnan(targets) if target is None else targets == target]
        yield Row(spec.task, spec.seed, step, target, round(float(own.mean()), 6), len(own))
