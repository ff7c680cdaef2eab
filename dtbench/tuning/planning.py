"""Plan a search from a suite, a space and options, and check it before anything runs."""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtbench import registry
from dtbench.errors import DtbenchError, IncompatibleTask, InvalidValue
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import contender_on, resolved_hyperparameters, trial_specs
from dtbench.suite.schema import Suite
from dtbench.trial import open_trial
from dtbench.tuning.search import SAMPLES, SearchConfig, TuneOptions
from dtbench.tuning.space import Setting, Space, check_space, draw, grid

FIRST_SEED = 1000  # of training in searches; suites report on small seeds


@dataclass(frozen=True, slots=True)
class Search:
    """A planned search."""

    name: str
    config: SearchConfig
    num_samples: int
    space: Space
    specs: tuple[TrialSpec, ...]  # with the contender's hyperparameters, one for each task and training seed
    settings: tuple[Setting, ...]  # of all candidates; () for optuna, which proposes them later
    root: Path  # of the search's ledger

    def specs_of(self, setting: Setting) -> list[TrialSpec]:
        """Return a candidate's trials; raise InvalidValue for a setting that the algorithm refuses."""
        return [
            dataclasses.replace(
                spec, hyperparameters=registry.all_hyperparameters(spec.algorithm, {**spec.hyperparameters, **setting})
            )
            for spec in self.specs
        ]


def plan_search(suite: Suite, space: Space, options: TuneOptions, results: Path, name: str | None = None) -> Search:
    """Plan a search for the one contender of a narrowed suite; opens the datasets.

    Raises UnknownName, InvalidValue or IncompatibleTask for a space, tasks, rungs or samples that do not work.
    """
    label, algorithm = _check_contender(suite, space)
    for task in suite.tasks:
        registry.make_task(task, suite.options_of(task)).tuning_seeds(suite.evaluation_of(task).episodes)
    settings = _settings(space, options)
    specs = _tuning_specs(suite, options.seeds)
    rungs = rungs_of(specs, options)
    takes_targets = _check_learners(specs, stopped=len(rungs) > 1)
    config = SearchConfig(
        suite=suite.name,
        preset=suite.preset,
        overrides=tuple(suite.overrides),
        contender=label,
        algorithm=algorithm,
        tasks=tuple(suite.tasks),
        trials=tuple(spec.key for spec in specs),
        space={name: {values.kind: values.values} for name, values in space.items()},
        searcher=options.searcher,
        seed=options.seed,
        scheduler="asha" if options.asha else "none",
        rungs=rungs,
        reduction_factor=options.reduction_factor if options.asha else 1,
        training_seeds=tuple(dict.fromkeys(spec.seed for spec in specs)),
        evaluation_seeds={spec.task: _ends_of_seeds(spec) for spec in specs},
        targets={spec.task: spec.evaluation.targets if takes_targets else () for spec in specs},
        score_names={spec.task: registry.make_task(spec.task, spec.task_options).score_name for spec in specs},
        data={spec.task: spec.dataset_source for spec in specs},
    )
    name = name or _default_name(config)
    count = len(settings) or options.samples or SAMPLES
    root = (results / "runs" / "searches" / name).resolve()  # for workers in other working directories
    search = Search(name, config, count, space, specs, settings, root)
    for setting in settings:
        search.specs_of(setting)
    return search


def rungs_of(specs: Sequence[TrialSpec], options: TuneOptions) -> tuple[int, ...]:
    """Return the gradient steps of the evaluations at which candidates may be stopped; the last is train_steps.

    The first is `grace`, by default train_steps over the reduction factor's square; each is the factor times the one
    before (Li et al. 2020, ASHA).
    """
    schedules = {(spec.train_steps, spec.evaluation.every) for spec in specs}
    if len(schedules) > 1:
        raise InvalidValue(f"tasks with different train_steps or evaluations ({sorted(schedules)}). Tune one by one.")
    ((train_steps, every),) = schedules
    if train_steps < 1:
        raise InvalidValue("the contender is not trained: its train_steps is 0. Tune another one.")
    if not options.asha:
        return (train_steps,)
    factor = options.reduction_factor
    rung = math.ceil((options.grace or train_steps / factor**2) / every) * every
    if rung >= train_steps:
        raise InvalidValue(
            f"--asha has nothing to stop at: {train_steps} steps are evaluated every {every}, and --grace is "
            f"{options.grace or 'not set'}. Evaluate more often: evaluation.every={max(1, train_steps // factor**2)}."
        )
    rungs = []
    while rung < train_steps:
        rungs.append(rung)
        rung *= factor
    return (*rungs, train_steps)


def _check_contender(suite: Suite, space: Space) -> tuple[str, str]:
    """Return the one contender's label and algorithm."""
    if len(suite.contenders) != 1:
        raise InvalidValue(f"a search tunes one contender, not {', '.join(suite.contenders)}: name one with -c.")
    ((label, contender),) = suite.contenders.items()
    algorithms = sorted({contender_on(contender, task).algorithm for task in suite.tasks})
    if len(algorithms) > 1:
        raise InvalidValue(f"{label} is {' and '.join(algorithms)} on these tasks: tune them one by one, with -t.")
    for task in suite.tasks:
        check_space(space, algorithms[0], resolved_hyperparameters(contender, task))
    return label, algorithms[0]


def _settings(space: Space, options: TuneOptions) -> tuple[Setting, ...]:
    if options.searcher == "grid":
        if options.samples is not None:
            raise InvalidValue("--searcher grid tries all settings. Leave --samples out.")
        return tuple(grid(space, options.seed))
    if options.searcher == "optuna":
        if importlib.util.find_spec("optuna") is None:
            raise DtbenchError("--searcher optuna needs optuna: pip install 'dtbench[search]', or --searcher random.")
        return ()
    # The first candidate changes nothing: a search never ends with less than the suite has.
    return ({}, *draw(space, (options.samples or SAMPLES) - 1, options.seed))


def _tuning_specs(suite: Suite, seeds: int) -> tuple[TrialSpec, ...]:
    """Return the contender's trials, with training seeds and evaluation episodes that no report uses."""
    seeded = suite.model_copy(update={"seeds": list(range(FIRST_SEED, FIRST_SEED + seeds))})
    return tuple(
        dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, purpose="tuning", sweep=()))
        for spec in trial_specs(seeded)
    )


def _check_learners(specs: Sequence[TrialSpec], *, stopped: bool) -> bool:
    """Return whether the contender is return-conditioned; raise an error where it cannot start or be stopped."""
    takes_targets = False
    for spec in {spec.task: spec for spec in specs}.values():
        try:
            trial = open_trial(spec, check_only=True)
        except DtbenchError as error:
            raise type(error)(f"{spec.contender} on {spec.task}: {error}") from None
        if stopped and not trial.resumable:
            raise IncompatibleTask(f"{spec.contender} cannot continue after a stop: tune it without --asha.")
        takes_targets = takes_targets or trial.learner.return_conditioned
    return takes_targets


def _ends_of_seeds(spec: TrialSpec) -> tuple[int, int]:
    seeds = registry.make_task(spec.task, spec.task_options).tuning_seeds(spec.evaluation.episodes)
    return min(seeds), max(seeds)


def _default_name(config: SearchConfig) -> str:
    parts = (config.suite, config.contender, *config.tasks, config.searcher, config.scheduler)
    plain = ["".join(letter if letter.isalnum() else "-" for letter in part).strip("-").lower() for part in parts]
    return "-".join(plain if config.scheduler != "none" else plain[:-1])[:120]
