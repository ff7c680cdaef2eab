"""`dtbench plot`: draw one figure of a suite into a file."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dtbench.analysis import suite_analysis
from dtbench.analysis.figures.bars import draw_bars, draw_grouped_bars
from dtbench.analysis.figures.curves import draw_progress, draw_progress_grid
from dtbench.analysis.figures.data_card import draw_data_cards
from dtbench.analysis.figures.profiles import draw_improvement, draw_profiles
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.figures.targets import draw_target_grid, draw_targets
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.tables.targets import all_targets
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from dtbench.ledger.store import write_bytes

FORMATS = (".png", ".svg", ".pdf")


def draw(results: SuiteResults, kind: str, task: str | None = None) -> Drawing:
    """Return the figure of this kind for a task, or for all tasks of the suite together.

    Raises UnknownName or InvalidValue for a kind or task that is unknown or ambiguous, NothingToReport where no trial
    has finished or there is nothing of this kind to draw.
    """
    if kind not in KINDS:
        raise UnknownName("kind of figure", kind, KINDS)
    suite = results.suite.get("name")
    known = list(results.suite.get("tasks") or sorted({record.spec.task for record in results.records}))
    task = choose_task(known, task) if task is not None else known[0] if len(known) == 1 else None
    if not any(task in (None, record.spec.task) for record in results.records):
        raise NothingToReport(f"no trial of {task or suite} has finished. Run it first: dtbench run -s {suite}")
    drawing = KINDS[kind](suite_analysis.analyze(results), task)
    if drawing is None:
        raise NothingToReport(f"nothing to draw: {_MISSING[kind]} on {task or f'the tasks of {suite}'}.")
    return drawing


def choose_task(known: Sequence[str], name: str) -> str:
    """Return the task of this name, with or without its version, or the one that matches it as pattern or beginning.

    Raises UnknownName where no task matches and InvalidValue where several do.
    """
    rules: tuple[Callable[[str], bool], ...] = (
        lambda task: task == name,
        lambda task: re.sub(r"-v\d+$", "", task) == name,
        lambda task: fnmatch.fnmatchcase(task, name),
        lambda task: task.startswith(name),
    )
    for rule in rules:
        matching = [task for task in known if rule(task)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise InvalidValue(f"task {name!r} matches {', '.join(matching)}. Name one of them.")
    raise UnknownName("task", name, known)


def check_file(path: Path) -> Path:
    """Return the path; raise InvalidValue where its suffix is not one of FORMATS."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidValue(f"{path}: a figure's suffix is one of {', '.join(FORMATS)}.")
    return path


def write_drawing(drawing: Drawing, path: Path) -> None:
    """Write the figure in the format of the file's suffix; raise InvalidValue where that fails."""
    kind = check_file(path).suffix.lower()
    content = drawing.pdf() if kind == ".pdf" else drawing.svg if kind == ".svg" else drawing.png
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    except OSError as error:
        raise InvalidValue(f"cannot write {path}: {error.strerror or error}.") from error


def _targets(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    targets = [one for one in all_targets(analysis) if task in (None, one.task)]
    if len(targets) == 1:
        return draw_targets(analysis, targets[0])
    return draw_target_grid(analysis, targets)


def _progress(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    if task is None:
        return draw_progress_grid(analysis, analysis.tasks)
    return draw_progress(analysis, task)


def _bars(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    estimates, published = analysis.inputs.estimates, analysis.published
    if task is None:
        groups = [*analysis.tasks, *analysis.shown_averages]
        return draw_grouped_bars(analysis, groups, estimates=estimates, published=published)
    return draw_bars(analysis, task, estimates=estimates, published=published)


def _profiles(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    tasks = _of_one_scale(analysis, task)
    return draw_profiles(analysis, analysis.matrices(tasks), tasks=tasks)


def _improvement(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    tasks = _of_one_scale(analysis, task)
    return draw_improvement(analysis, analysis.matrices(tasks), analysis.contenders[0], tasks=tasks)


def _data(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    known = {name: (data.get("dataset") or {}).get("card") or {} for name, data in analysis.provenance.items()}
    cards = {name: known[name] for name in analysis.tasks if name in known and task in (None, name)}
    targets = {record.spec.task: record.spec.evaluation.targets for record in analysis.results.records}
    return draw_data_cards(analysis, cards, targets=targets)


def _of_one_scale(analysis: SuiteAnalysis, task: str | None) -> tuple[str, ...]:
    """Return the task, or all tasks; raise InvalidValue where their scores have different scales."""
    if task is not None:
        return (task,)
    if len(analysis.scales) > 1:
        raise InvalidValue(f"the scores of {', '.join(analysis.tasks)} have different scales: name one with --task.")
    return tuple(analysis.tasks)


KINDS: dict[str, Callable[[SuiteAnalysis, str | None], Drawing | None]] = {
    "targets": _targets,
    "progress": _progress,
    "bars": _bars,
    "profiles": _profiles,
    "improvement": _improvement,
    "data": _data,
}
_MISSING = {
    "targets": "no contender was evaluated at more than one target return",
    "progress": "no trial has finished",
    "bars": "no trial has finished",
    "profiles": "no contender has finished a trial on every task",
    "improvement": "fewer than two contenders, the first among them, have finished a trial on every task",
    "data": "no trial recorded the distribution of its data's returns",
}
