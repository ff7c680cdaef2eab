"""Plan a suite's trials (tasks x contenders x seeds) and check that they can start."""

import dataclasses
import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from dtbench import registry
from dtbench.data.actions import is_unit
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.memory import free_memory
from dtbench.errors import FOREIGN, DtbenchError, InvalidValue, UnknownName, one_line
from dtbench.foreign import add_imports
from dtbench.ledger.plans import same_contender
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.suite.environments import check_environments
from dtbench.suite.loading import LONGEST_NAME, check_names, overridden, read_document, select, with_likes, with_preset
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

SWEEP_REACH = 1.5  # the sweep's highest target, in units of the data's range of returns
BUDGET = "train_steps"  # as a hyperparameter: the contender's gradient steps
_OVERRIDDEN = [name for name in Suite.model_fields if name not in ("preset", "overrides")]


def load_suite(
    path: str,
    *,
    name: str | None = None,
    preset: str | None = None,
    seeds: str | None = None,
    source: str | None = None,
    overrides: Sequence[str] = (),
) -> Suite:
    """Read a suite by name or path; apply, in this order, preset, `like`, overrides, seeds, source; call it `name`.

    `seeds` is "0..4" or "0,2,5"; `overrides` are "path=value": a path into the suite, or a contender's name and one of
    its settings. They also override `by_task`. Raises UnknownName, InvalidValue or InvalidSuite.
    """
    document = read_document(path)
    presets = document.pop("presets", {})
    default = document.pop("default_preset", None)
    preset = preset or default or next(iter(presets), "")
    if preset:
        if not isinstance(preset, str) or preset not in presets:
            raise UnknownName(f"preset of {document.get('name', path)}", str(preset), presets)
        document = with_preset(document, presets[preset])
    document = with_likes(document)
    for text in overrides:
        document = overridden(document, text, suite=_OVERRIDDEN, contender=Contender.model_fields)
    if seeds is not None:
        document["seeds"] = parse_seeds(seeds)
    if source is not None:
        document["source"] = source
    if name is not None:
        document["name"] = name
    suite = validated(document | {"preset": preset, "overrides": list(overrides)})
    add_imports(suite.imports)
    check(suite)
    return suite


def narrow(suite: Suite, *, tasks: Sequence[str] = (), contenders: Sequence[str] = ()) -> Suite:
    """Keep the tasks and contenders of these names or patterns; raise UnknownName where none matches."""
    changes: dict[str, Any] = {}
    if tasks:
        changes["tasks"] = select("task", suite.tasks, tasks)
    if contenders:
        selected = select("contender", suite.contenders, contenders)
        changes["contenders"] = {name: suite.contenders[name] for name in selected}
    return suite.model_copy(update=changes)


def check_source(suite: Suite) -> None:
    """Raise UnknownName where one of the suite's tasks does not have its source of data, before any are opened."""
    for name in suite.tasks:
        registry.make_task(name, suite.options_of(name)).check_source(suite.source)


def with_variants(suite: Suite, saved: Mapping[str, Any] | None) -> Suite:
    """Name contenders that overrides change in a suite that ran without them, e.g. "DT (learning_rate=0.01)".

    `saved` is the suite as it ran before, if it did. All other changes supersede what ran.
    """
    if saved is None or saved.get("preset") != suite.preset:
        return suite
    document, contenders = resolved_document(suite, ()), {}
    for label, contender in suite.contenders.items():
        changes = [change for text in suite.overrides if (change := _change_of(label, text))]
        variant = f"{label} ({', '.join(changes)})"
        is_variant = changes and len(variant) <= LONGEST_NAME and not same_contender(document, saved, label)
        contenders[variant if is_variant else label] = contender
    return suite.model_copy(update={"contenders": contenders})


def _change_of(label: str, override: str) -> str:
    """Return the change of this contender alone that an override states, "" where it states another."""
    path, _, value = override.partition("=")
    head, _, setting = path.partition(".")
    return f"{setting}={value}" if setting and fnmatch.fnmatchcase(label, head) else ""


def check(suite: Suite) -> None:
    """Raise UnknownName, InvalidSuite or InvalidValue for an unknown name or an invalid value."""
    check_names(suite.name, suite.contenders)
    if (trials := len(suite.tasks) * len(suite.contenders) * len(suite.seeds)) > MOST_TRIALS:
        raise InvalidValue(
            f"suite {suite.name} has {trials} trials, and the maximum is {MOST_TRIALS}. Use fewer seeds, or split it."
        )
    registered = registry.task_names()
    for task in suite.tasks:
        if ":" not in task and task not in registered:
            raise UnknownName("task", task, registered)
    for contender in suite.contenders.values():
        for task in ("", *suite.tasks):
            resolved_hyperparameters(contender, task)
    _check_patterns(suite)
    if len(set(suite.seeds)) != len(suite.seeds):
        raise InvalidValue(f"seeds {suite.seeds} contain a seed twice. Write each once.")


def trial_specs(
    suite: Suite, on_dataset: Callable[[str], None] | None = None, *, make_data: bool = True
) -> list[TrialSpec]:
    """Return every trial of the suite, seed by seed, so that all contenders have one result early.

    Opens the datasets, and generates or downloads missing ones: their digests belong to the trials' keys. Without
    `make_data` trials whose data are not on disk have no digest, and neither the targets nor the key of their run.
    `on_dataset` is called with the name of each task before its data are opened.
    """
    specs = []
    tasks = {name: registry.make_task(name, suite.options_of(name)) for name in suite.tasks}
    sources: dict[str, str] = {}
    datasets: dict[str, TrajectoryDataset | None] = {}
    for name, task in tasks.items():
        if on_dataset:
            on_dataset(name)
        sources[name] = task.resolve(suite.source, fetch=make_data)
        datasets[name] = task.open(sources[name]) if make_data or _is_on_disk(task, sources[name]) else None
    contenders = {
        (name, label): contender_on(contender, name) for name in tasks for label, contender in suite.contenders.items()
    }
    evaluations = {
        (name, label): _evaluation_spec(suite.evaluation_of(name), contender, tasks[name], datasets[name])
        for (name, label), contender in contenders.items()
    }
    for (name, label), contender in contenders.items():
        _check_headline(f"{label} on {name}", contender.headline_target, evaluations[name, label].targets)
    for seed in suite.seeds:
        for (name, label), contender in contenders.items():
            specs.append(
                TrialSpec(
                    suite=suite.name,
                    contender=label,
                    task=name,
                    task_version=tasks[name].version,
                    task_options=suite.options_of(name),
                    environment=tasks[name].environment,
                    **_data_fields(datasets[name], sources[name]),
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


def _check_headline(where: str, target: float | None, evaluated: Sequence[float]) -> None:
    if target is not None and target not in evaluated:
        known = ", ".join(f"{one:g}" for one in evaluated) or "none"
        raise InvalidValue(
            f"{where}: headline_target {target:g} is not evaluated. Target returns there: {known}. Choose one of "
            "them, or list more under evaluation.targets."
        )


def _is_on_disk(task: Task, source: str) -> bool:
    """Return whether a source's data need neither the network nor minutes; tasks of one source make theirs at once."""
    named = {one.name: one for one in task.sources}
    return source not in named or named[source].available()


def _data_fields(dataset: TrajectoryDataset | None, source: str) -> dict[str, str]:
    """Return the fields of a specification that describe its data; without digest where there are none yet."""
    if dataset is None:
        return {"dataset_digest": "", "open_from": source, "dataset_source": source}
    return {
        "action_scale": "" if is_unit(dataset.action_space) else "unit",
        "dataset_digest": dataset.digest,
        "open_from": source,
        "dataset_source": str(dataset.info.get("source", "unknown")),
    }


def check_fit(specs: Iterable[TrialSpec]) -> None:
    """Step every task's environment, and build every contender's learner on its best episode, before any trial runs.

    Raises IncompatibleTask for environments that do not work and spaces that do not fit, InvalidValue for
    hyperparameters that do not work. Learners in files are not built: they may crash their process, which only a
    worker survives. Nor are those whose data are not on disk.
    """
    specs = list(specs)
    check_environments(specs)
    pairs = {(spec.task, spec.contender): spec for spec in specs if ":" not in spec.algorithm and spec.dataset_digest}
    for spec in pairs.values():
        try:
            _check_memory(spec)
            open_trial(spec, check_only=True)
        except DtbenchError as error:
            error.args = (f"{spec.contender} on {spec.task}: {error}",)
            raise error from None
        except FOREIGN as error:
            if _starts_with_defaults(spec):
                raise InvalidValue(_cannot_start(spec, error)) from error
            continue  # a failure for another reason belongs to the trial's record


def _check_memory(spec: TrialSpec) -> None:
    """Raise InvalidValue where the hidden layers alone do not fit into memory: weights, gradients and two moments."""
    sizes = [spec.hyperparameters.get(name) for name in ("hidden_size", "num_layers")]
    hidden, layers = (size if isinstance(size, int) else 1 for size in sizes)
    needed, free = 4 * 4 * hidden * hidden * max(layers - 1, 0), free_memory()
    if needed > free:
        raise InvalidValue(
            f"hidden_size {hidden} and num_layers {layers} need {needed / 2**30:.0f} GiB of memory, and "
            f"{free / 2**30:.0f} are free. Make the network smaller."
        )


def _starts_with_defaults(spec: TrialSpec) -> bool:
    try:
        open_trial(dataclasses.replace(spec, hyperparameters={}), check_only=True)
    except FOREIGN:
        return False
    return True


def _cannot_start(spec: TrialSpec, error: BaseException) -> str:
    defaults = registry.all_hyperparameters(spec.algorithm, {})
    changed = {name: value for name, value in spec.hyperparameters.items() if value != defaults.get(name)}
    reason = one_line(f"{type(error).__name__}: {error}", 160)
    where = f"{spec.contender} on {spec.task}"
    return f"{where} cannot start ({reason}). With its defaults it can: check {one_line(str(changed), 200)}."


def contender_on(contender: Contender, task: str) -> Contender:
    """Return the contender on one task ("": on none in particular), without `by_task`.

    Where a task changes the algorithm, its hyperparameters and preset replace the contender's, else they are merged.
    """
    settings: dict[str, Any] = {name: getattr(contender, name) for name in ContenderSettings.model_fields}
    for matching in of_task(contender.by_task, task):
        changes = stated(matching)
        if changes.get("algorithm", settings["algorithm"]) != settings["algorithm"]:
            settings |= {"hyperparameters": {}, "hyperparameter_preset": ""}
        hyperparameters = {**settings["hyperparameters"], **changes.get("hyperparameters", {})}
        settings |= {**changes, "hyperparameters": hyperparameters}
    return contender.model_copy(update={**settings, "by_task": {}})


def resolved_hyperparameters(contender: Contender, task: str = "") -> dict[str, Any]:
    """Return all hyperparameters as plain JSON: defaults < preset < contender < task.

    A value "train_steps", as of a learning rate's decay, stands for the contender's budget.
    """
    contender = contender_on(contender, task)
    hyperparameters: Mapping[str, Any] = contender.hyperparameters
    if preset := contender.hyperparameter_preset:
        presets = registry.algorithm_presets(contender.algorithm)
        if preset not in presets:
            raise UnknownName(f"preset of {contender.algorithm}", preset, presets)
        hyperparameters = {**presets[preset], **hyperparameters}
    hyperparameters = {
        name: contender.train_steps if value == BUDGET else value for name, value in hyperparameters.items()
    }
    return registry.all_hyperparameters(contender.algorithm, hyperparameters)


def _check_patterns(suite: Suite) -> None:
    """Raise UnknownName for a pattern of `by_task` that matches no task; tasks of other presets and suites count."""
    known = list(dict.fromkeys((*suite.tasks, *registry.task_names())))
    schemes = {name.partition(":")[0] for name in known if ":" in name}
    patterns = list(suite.by_task)
    for contender in suite.contenders.values():
        patterns += contender.by_task
    for pattern in patterns:
        is_external = ":" in pattern and pattern.partition(":")[0] not in schemes  # files and schemes list no tasks
        if not is_external and not fnmatch.filter(known, pattern):
            raise UnknownName("task or pattern", pattern, known)


def resolved_document(suite: Suite, specs: Iterable[TrialSpec]) -> dict[str, Any]:
    """Return the suite as plain JSON with all hyperparameters and planned trials, for the ledger and the report."""
    document = suite.model_dump(mode="json")
    specs = list(specs)
    if not suite.imports:
        del document["imports"]
    if suite.margin is None:
        del document["margin"]
    if not suite.draws:
        del document["draws"]
    for label, contender in suite.contenders.items():
        document["contenders"][label]["hyperparameters"] = resolved_hyperparameters(contender)
        document["contenders"][label]["action_mode"] = contender.action_mode or suite.evaluation.action_mode
        document["contenders"][label]["by_task"] = _stated(contender.by_task)
    document["by_task"] = _stated(suite.by_task)
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


def _stated(settings: Mapping[str, BaseModel]) -> dict[str, Any]:
    return {pattern: value.model_dump(mode="json", exclude_unset=True) for pattern, value in settings.items()}


def _evaluation_spec(
    evaluation: Evaluation, contender: Contender, task: Task, dataset: TrajectoryDataset | None
) -> EvaluationSpec:
    own = task.target_returns if dataset is None else task.targets(dataset)
    targets = own if evaluation.targets is None else evaluation.targets
    return EvaluationSpec(
        episodes=evaluation.episodes,
        every=contender.eval_interval or evaluation.every,
        targets=tuple(map(float, targets)),
        action_mode=contender.action_mode or evaluation.action_mode,
        sweep=_sweep(dataset, evaluation.sweep) if evaluation.sweep and dataset else (),
    )


def _resources(resources: Resources) -> dict[str, float]:
    extra = {"extra_cpu": float(resources.extra_cpu)} if resources.extra_cpu else {}
    return {"cpu": float(resources.cpu), "gpu": resources.gpu, **extra}


def _sweep(dataset: TrajectoryDataset, size: int) -> tuple[float, ...]:
    """Return `size` targets from 0, or the data's lowest return if below, to beyond the data's best.

    They have one decimal, or the three digits of their distance where that is less than 1.
    """
    low, best = min(0.0, float(dataset.returns.min())), float(dataset.returns.max())
    reach = SWEEP_REACH * (best - low)
    step = reach / max(size - 1, 1)
    decimals = 1 if step >= 1 or step == 0 else 2 - math.floor(math.log10(step))
    targets = (round(float(target), decimals) + 0.0 for target in np.linspace(low, low + reach, size))
    return tuple(dict.fromkeys(targets))
