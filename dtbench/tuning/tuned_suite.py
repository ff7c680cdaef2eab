"""A search's winner as a suite of its own: the contender with the best setting, asked for the best target return."""

from pathlib import Path
from typing import Any

import yaml

from dtbench.ledger.store import write_bytes
from dtbench.suite.planning import load_suite
from dtbench.suite.schema import Suite
from dtbench.tuning.search import SearchRecord


def tuned_document(suite: Suite, base: str, record: SearchRecord) -> dict[str, Any]:
    """The suite `<search>` with the contender "<label> tuned", for `dtbench run`.

    `suite` is as it was tuned, `base` its name or path. Everything of the contender is said, also in the preset under
    which it was tuned, so that nothing of the base can change it; tasks, data and evaluation are the base's.
    """
    best = record.best
    assert best is not None
    label, targets = f"{record.question.contender} tuned", best.targets(record.question)
    contender = _contender(suite, record)
    own = [task for task in record.question.tasks if task in load_suite(base, preset=suite.preset or None).tasks]
    said: dict[str, Any] = {"contenders": {label: contender}}
    if own:
        said["tasks"] = own
    asked = {
        task: _first(target, record.question.targets[task]) for task, target in targets.items() if target is not None
    }
    if own and asked:
        said["by_task"] = _by_task(suite, {task: asked[task] for task in own if task in asked})
    elif len({tuple(found) for found in asked.values()}) == 1:  # tuned on what the suite does not report on
        said["evaluation"] = {"targets": next(iter(asked.values()))}
    title = f"{suite.title}: {record.question.contender} as the search {record.name} found it"
    document: dict[str, Any] = {"name": record.name, "title": title, "base": base, **said}
    if suite.preset:
        document |= {"default_preset": suite.preset, "presets": {suite.preset: said}}
    return document


def write_tuned_suite(path: Path, suite: Suite, base: str, record: SearchRecord) -> None:
    """Write the winner's suite atomically."""
    text = yaml.dump(
        tuned_document(suite, base, record), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=118
    )
    write_bytes(path, f"# Written by dtbench tune. Run it: dtbench run --suite FOLDER/{path.name}\n{text}".encode())


class _Plain(yaml.SafeDumper):
    """Says twice what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Aliases are for readers of programs."""
        return True


def _contender(suite: Suite, record: SearchRecord) -> dict[str, Any]:
    """The contender as it was tuned, its best setting above whatever it says of tasks."""
    (found,) = suite.contenders.values()
    best, tasks = record.best, record.question.tasks
    assert best is not None
    setting = dict(best.hyperparameters)
    plain: dict[str, Any] = found.model_dump(mode="json", exclude_defaults=True) | {"train_steps": found.train_steps}
    plain["hyperparameters"] = {**plain.get("hyperparameters", {}), **setting}
    plain["description"] = f"{record.question.contender} with the best of {record.settings_tried} settings tried"
    by_task = {task: value.model_dump(mode="json", exclude_unset=True) for task, value in found.by_task.items()}
    if by_task:
        for task in tasks:
            own = by_task.pop(task, {})
            by_task[task] = {**own, "hyperparameters": {**own.get("hyperparameters", {}), **setting}}
        plain["by_task"] = by_task
    return plain


def _by_task(suite: Suite, asked: dict[str, list[float]]) -> dict[str, Any]:
    """What the suite says by task, with the best target first; the last that is said counts."""
    said = {task: value.model_dump(mode="json", exclude_unset=True) for task, value in suite.by_task.items()}
    for task, targets in asked.items():
        own = said.pop(task, {})
        said[task] = {**own, "evaluation": {**own.get("evaluation", {}), "targets": targets}}
    return said


def _first(target: float, tried: tuple[float, ...]) -> list[float]:
    return [target, *(other for other in tried if other != target)]
