"""One figure of one suite, drawn from the ledger into one file."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dtbench.analysis import figures, suite_analysis
from dtbench.analysis.figures import Drawing
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.tables.targets import all_targets
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from dtbench.ledger.store import write_bytes

FORMATS = (".png", ".svg", ".pdf")


def draw(results: SuiteResults, kind: str, task: str | None = None) -> Drawing:
    """The figure of this kind for a task, or for all tasks of the suite together.

    Raises UnknownName or InvalidValue for a kind or task that is none or is several, NothingToReport where no trial
    has finished or there is nothing of this kind to draw.
    """
    if kind not in KINDS:
        raise UnknownName("kind of figure", kind, KINDS)
    suite = results.suite.get("name")
    known = list(results.suite.get("tasks") or sorted({record.spec.task for record in results.records}))
    chosen = choose_task(known, task) if task is not None else known[0] if len(known) == 1 else None
    if not any(chosen in (None, record.spec.task) for record in results.records):
        raise NothingToReport(f"no trial of {chosen or suite} has finished. Run it first: dtbench run -s {suite}")
    drawing = KINDS[kind](suite_analysis.analyze(results), chosen)
    if drawing is None:
        where = chosen or f"the tasks of {suite}"
        raise NothingToReport(f"nothing to draw: {_LACKING[kind]} on {where}.")
    return drawing


def choose_task(known: Sequence[str], asked: str) -> str:
    """The one task of this name, of this name up to its version, matching this pattern, or beginning so.

    Raises UnknownName where none does and InvalidValue where several do.
    """
    rules: tuple[Callable[[str], bool], ...] = (
        lambda task: task == asked,
        lambda task: re.sub(r"-v\d+$", "", task) == asked,
        lambda task: fnmatch.fnmatchcase(task, asked),
        lambda task: task.startswith(asked),
    )
    for fits in rules:
        found = [task for task in known if fits(task)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidValue(f"task {asked!r} fits {', '.join(found)}: name one of them.")
    raise UnknownName("task", asked, known)


def check_file(path: Path) -> Path:
    """The path itself; raise InvalidValue where its ending is none of FORMATS."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidValue(f"{path}: a figure is written as {', '.join(FORMATS)}.")
    return path


def write_drawing(drawing: Drawing, path: Path) -> None:
    """Write the figure in the format that the file's ending names; raise InvalidValue for any other ending."""
    kind = check_file(path).suffix.lower()
    content = drawing.pdf() if kind == ".pdf" else drawing.svg if kind == ".svg" else drawing.png
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    except OSError as error:
        raise InvalidValue(f"cannot write {path}: {error.strerror or error}.") from error


def _targets(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    found = [one for one in all_targets(analysis) if task in (None, one.task)]
    if len(found) == 1:
        return figures.draw_targets(analysis, found[0])
    return figures.draw_target_grid(analysis, found)


def _progress(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    if task is None:
        return figures.draw_progress_grid(analysis, analysis.tasks)
    return figures.draw_progress(analysis, task)


def _bars(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    numbers, published = analysis.inputs.estimates, analysis.published
    if task is None:
        shown = [*analysis.tasks, *analysis.shown_averages]
        return figures.draw_grouped_bars(analysis, shown, estimates=numbers, published=published)
    return figures.draw_bars(analysis, task, estimates=numbers, published=published)


def _profiles(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    over = _of_one_scale(analysis, task)
    return figures.draw_profiles(analysis, analysis.matrices(over), tasks=over)


def _improvement(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    over = _of_one_scale(analysis, task)
    return figures.draw_improvement(analysis, analysis.matrices(over), analysis.contenders[0], tasks=over)


def _data(analysis: SuiteAnalysis, task: str | None) -> Drawing | None:
    facts = {name: (found.get("dataset") or {}).get("card") or {} for name, found in analysis.provenance.items()}
    cards = {name: facts[name] for name in analysis.tasks if name in facts and task in (None, name)}
    targets = {record.spec.task: record.spec.evaluation.targets for record in analysis.results.records}
    return figures.draw_data_cards(analysis, cards, targets=targets)


def _of_one_scale(analysis: SuiteAnalysis, task: str | None) -> tuple[str, ...]:
    """The task, or all where they can be averaged; raise InvalidValue where they are of several scales."""
    if task is not None:
        return (task,)
    if len(analysis.scales) > 1:
        raise InvalidValue(
            f"the tasks {', '.join(analysis.tasks)} have scores of several scales: name one with --task."
        )
    return tuple(analysis.tasks)


KINDS: dict[str, Callable[[SuiteAnalysis, str | None], Drawing | None]] = {
    "targets": _targets,
    "progress": _progress,
    "bars": _bars,
    "profiles": _profiles,
    "improvement": _improvement,
    "data": _data,
}
_LACKING = {
    "targets": "no contender was asked for more than one target return",
    "progress": "no trial has finished",
    "bars": "no trial has finished",
    "profiles": "no contender has finished a trial on every task",
    "improvement": "fewer than two contenders, the first among them, have finished a trial on every task",
    "data": "no trial recorded how the returns of its data are spread",
}
