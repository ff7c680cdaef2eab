"""From a suite's file to its trials: tasks x contenders x seeds, with presets, checked before anything starts."""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from dtbench import registry
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import DtbenchError, InvalidValue, UnknownName, one_line
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.suite.loading import check_names, overridden, read_document, select, with_preset
from dtbench.suite.schema import (
    LARGEST_SEED,
    MOST_TRIALS,
    Contender,
    ContenderSettings,
    Evaluation,
    Resources,
    Suite,
    of_task,
    stated,
    validated,
)
from dtbench.task import Task
from dtbench.trial import open_trial

SWEEP_REACH = 1.5  # the sweep of targets goes so far from the data's lowest return (or 0) towards its best
_OVERRIDDEN = [name for name in Suite.model_fields if name not in ("preset", "overrides")]


def load_suite(
    name: str,
    *,
    preset: str | None = None,
    seeds: str | None = None,
    source: str | None = None,
    overrides: Sequence[str] = (),
) -> Suite:
    """Read a suite by name or path and apply, in this order, preset, overrides, seeds and source.

    `seeds` is "0..4" or "0,2,5"; `overrides` are "path=value": a path into the suite, or one that begins with a
    contender's name and ends with one of its settings. They also replace what was said otherwise for some tasks.
    Raises UnknownName, InvalidValue or InvalidSuite, before anything is computed.
    """
    document = read_document(name)
    presets = document.pop("presets", {})
    default = document.pop("default_preset", None)
    chosen = preset or default or next(iter(presets), "")
    if chosen:
        if not isinstance(chosen, str) or chosen not in presets:
            raise UnknownName(f"preset of {document.get('name', name)}", str(chosen), presets)
        document = with_preset(document, presets[chosen])
    for text in overrides:
        document = overridden(document, text, suite=_OVERRIDDEN, contender=Contender.model_fields)
    if seeds is not None:
        document["seeds"] = parse_seeds(seeds)
    if source is not None:
        document["source"] = source
    suite = validated(document | {"preset": chosen, "overrides": list(overrides)})
    check(suite)
    return suite


def narrow(suite: Suite, *, tasks: Sequence[str] = (), contenders: Sequence[str] = ()) -> Suite:
    """Keep the tasks and contenders of these names or patterns; raise UnknownName where none matches."""
    changes: dict[str, Any] = {}
    if tasks:
        changes["tasks"] = select("task", suite.tasks, tasks)
    if contenders:
        kept = select("contender", suite.contenders, contenders)
        changes["contenders"] = {name: suite.contenders[name] for name in kept}
    return suite.model_copy(update=changes)


def check(suite: Suite) -> None:
    """Raise UnknownName, InvalidSuite or InvalidValue for a name, a number or a hyperparameter that cannot be."""
    check_names(suite.name, suite.contenders)
    if (trials := len(suite.tasks) * len(suite.contenders) * len(suite.seeds)) > MOST_TRIALS:
        raise InvalidValue(
            f"suite {suite.name} has {trials} trials, at most {MOST_TRIALS} are meant: say fewer seeds, or cut it up."
        )
    registered = registry.task_names()
    for task in suite.tasks:
        if ":" not in task and task not in registered:
            raise UnknownName("task", task, registered)
    for contender in suite.contenders.values():
        for task in ("", *suite.tasks):
            settled = contender_on(contender, task)
            registry.make_algorithm(settled.algorithm, _differences(settled))
    _check_patterns(suite)
    if len(set(suite.seeds)) != len(suite.seeds):
        raise InvalidValue(f"seeds {suite.seeds} name a seed twice.")


def trial_specs(suite: Suite, on_dataset: Callable[[str], None] | None = None) -> list[TrialSpec]:
    """Every trial of the suite: seeds first, so that all contenders have one result early.

    Opens the datasets, and makes or fetches those that are missing: their digests belong to the trials' keys.
    `on_dataset` hears the name of each task before its data are opened.
    """
    specs = []
    tasks = {name: registry.make_task(name, suite.options_of(name)) for name in suite.tasks}
    origins, datasets = {}, {}
    for name, task in tasks.items():
        if on_dataset:
            on_dataset(name)
        origins[name] = task.resolve(suite.source)
        datasets[name] = task.open(origins[name])
    settled = {
        (name, label): contender_on(contender, name) for name in tasks for label, contender in suite.contenders.items()
    }
    evaluations = {
        (name, label): _evaluation_spec(suite.evaluation_of(name), contender, tasks[name], datasets[name])
        for (name, label), contender in settled.items()
    }
    for seed in suite.seeds:
        for (name, label), contender in settled.items():
            specs.append(
                TrialSpec(
                    suite=suite.name,
                    contender=label,
                    task=name,
                    task_version=tasks[name].version,
                    task_options=suite.options_of(name),
                    dataset_digest=datasets[name].digest,
                    open_from=origins[name],
                    dataset_source=str(datasets[name].info.get("source", "unknown")),
                    algorithm=contender.algorithm,
                    algorithm_version=registry.algorithm_version(contender.algorithm),
                    hyperparameters=resolved_hyperparameters(contender),
                    seed=seed,
                    train_steps=contender.train_steps,
                    evaluation=evaluations[name, label],
                    resources=_resources(suite.resources),
                )
            )
    return specs


def check_fit(specs: Iterable[TrialSpec]) -> None:
    """Begin every contender on the best episode of every task; raise what its learner raises, before any trial runs.

    Algorithms in files are left to their trials: what is being written may take its process down, and only a worker
    can be replaced. IncompatibleTask for spaces that do not fit, InvalidValue for hyperparameters that cannot be.
    """
    pairs = {(spec.task, spec.contender): spec for spec in specs if ":" not in spec.algorithm}
    for spec in pairs.values():
        try:
            open_trial(spec, check_only=True)
        except DtbenchError as error:
            error.args = (f"{spec.contender} on {spec.task}: {error}",)
            raise error from None
        except Exception as error:
            if _begins_with_defaults(spec):
                raise InvalidValue(_cannot_begin(spec, error)) from error
            continue  # a failure that is no mistake of the user's belongs to the trial's record


def _begins_with_defaults(spec: TrialSpec) -> bool:
    """Whether it is for the hyperparameters that a contender cannot begin."""
    try:
        open_trial(dataclasses.replace(spec, hyperparameters={}), check_only=True)
    except Exception:
        return False
    return True


def _cannot_begin(spec: TrialSpec, error: Exception) -> str:
    usual = registry.all_hyperparameters(spec.algorithm, {})
    own = {name: value for name, value in spec.hyperparameters.items() if value != usual.get(name)}
    reason = one_line(f"{type(error).__name__}: {error}", 160)
    where = f"{spec.contender} on {spec.task}"
    return f"{where} cannot begin ({reason}). With its defaults it can: look at {one_line(str(own), 200)}."


def contender_on(contender: Contender, task: str) -> Contender:
    """The contender as it is on one task, with nothing left to be said by task; "" is no task in particular.

    Hyperparameters of a task are laid over the contender's own, of which another algorithm keeps none, nor the preset.
    """
    settings: dict[str, Any] = {name: getattr(contender, name) for name in ContenderSettings.model_fields}
    for differences in of_task(contender.by_task, task):
        said = stated(differences)
        if said.get("algorithm", settings["algorithm"]) != settings["algorithm"]:
            settings |= {"hyperparameters": {}, "hyperparameter_preset": ""}
        hyperparameters = {**settings["hyperparameters"], **said.get("hyperparameters", {})}
        settings |= {**said, "hyperparameters": hyperparameters}
    return contender.model_copy(update={**settings, "by_task": {}})


def resolved_hyperparameters(contender: Contender, task: str = "") -> dict[str, Any]:
    """All hyperparameters as plain JSON: defaults, over them the preset, the differences, and those of the task."""
    settled = contender_on(contender, task)
    return registry.all_hyperparameters(settled.algorithm, _differences(settled))


def _differences(contender: Contender) -> dict[str, Any]:
    """What a contender's hyperparameters say otherwise than the defaults, its preset included."""
    if not contender.hyperparameter_preset:
        return contender.hyperparameters
    presets = registry.algorithm_presets(contender.algorithm)
    if contender.hyperparameter_preset not in presets:
        raise UnknownName(f"preset of {contender.algorithm}", contender.hyperparameter_preset, presets)
    return {**presets[contender.hyperparameter_preset], **contender.hyperparameters}


def _check_patterns(suite: Suite) -> None:
    """Raise UnknownName for a pattern that fits no task at all.

    One that fits none of the suite's may be meant for tasks that a preset left out, or that a base has.
    """
    known = list(dict.fromkeys((*suite.tasks, *registry.task_names())))
    schemes = {name.partition(":")[0] for name in known if ":" in name}
    patterns = list(suite.by_task)
    for contender in suite.contenders.values():
        patterns += contender.by_task
    for pattern in patterns:
        elsewhere = ":" in pattern and pattern.partition(":")[0] not in schemes  # files and schemes list no tasks
        if not elsewhere and not fnmatch.filter(known, pattern):
            raise UnknownName("task or pattern", pattern, known)


def resolved_document(suite: Suite, specs: Iterable[TrialSpec]) -> dict[str, Any]:
    """The suite as plain JSON, hyperparameters and planned trials written out, for the ledger and the report."""
    document = suite.model_dump(mode="json")
    specs = list(specs)
    for label, contender in suite.contenders.items():
        document["contenders"][label]["hyperparameters"] = resolved_hyperparameters(contender)
        document["contenders"][label]["action_mode"] = contender.action_mode or suite.evaluation.action_mode
        document["contenders"][label]["by_task"] = _plainly_said(contender.by_task)
    document["by_task"] = _plainly_said(suite.by_task)
    document["trials"] = [spec.to_json() for spec in specs]
    return document


def parse_seeds(text: str) -> list[int]:
    """Read "0..4" as 0, 1, 2, 3, 4 and "1,3" as 1, 3; commas join both. Raises InvalidValue otherwise."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:\.\.([0-9]{1,10}))?\s*", part)
        if not match:
            raise InvalidValue(f"seeds {text!r:.60}: write 0..4, or 0,2,5, of numbers up to {LARGEST_SEED}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last > LARGEST_SEED:
            raise InvalidValue(f"seeds {text!r:.60}: {last} is too large. Write numbers up to {LARGEST_SEED}.")
        if last < first:
            raise InvalidValue(f"seeds {text!r:.60}: {first}..{last} counts downwards. Write {last}..{first}.")
        if len(seeds) + last - first >= MOST_TRIALS:
            raise InvalidValue(f"seeds {text!r:.60} are more than {MOST_TRIALS}. Write fewer, e.g. 0..4.")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


def _plainly_said(settings: Mapping[str, BaseModel]) -> dict[str, Any]:
    return {pattern: value.model_dump(mode="json", exclude_unset=True) for pattern, value in settings.items()}


def _evaluation_spec(
    evaluation: Evaluation, contender: Contender, task: Task, dataset: TrajectoryDataset
) -> EvaluationSpec:
    targets = task.targets(dataset) if evaluation.targets is None else evaluation.targets
    return EvaluationSpec(
        episodes=evaluation.episodes,
        every=contender.eval_interval or evaluation.every,
        targets=tuple(map(float, targets)),
        action_mode=contender.action_mode or evaluation.action_mode,
        sweep=_sweep(dataset, evaluation.sweep) if evaluation.sweep else (),
    )


def _resources(asked: Resources) -> dict[str, float]:
    extra = {"extra_cpu": float(asked.extra_cpu)} if asked.extra_cpu else {}
    return {"cpu": float(asked.cpu), "gpu": asked.gpu, **extra}


def _sweep(dataset: TrajectoryDataset, size: int) -> tuple[float, ...]:
    """So many targets from nothing, or the lowest return below it, to half as far again as the data's best."""
    low, best = min(0.0, float(dataset.returns.min())), float(dataset.returns.max())
    return tuple(round(float(target), 1) for target in np.linspace(low, low + SWEEP_REACH * (best - low), size))
