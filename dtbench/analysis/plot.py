"""One figure of one suite, drawn from the ledger into one file."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dtbench.analysis import figures, report
from dtbench.analysis.figures import Drawing
from dtbench.analysis.report import Material
from dtbench.analysis.scores import SuiteResults
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from dtbench.ledger import write_bytes

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
    drawing = KINDS[kind](report.gather(results), chosen)
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


def _targets(material: Material, task: str | None) -> Drawing | None:
    found = [one for one in report.all_targets(material) if task in (None, one.task)]
    if len(found) == 1:
        return figures.draw_targets(material.scene, found[0])
    return figures.draw_target_grid(material.scene, found)


def _progress(material: Material, task: str | None) -> Drawing | None:
    if task is None:
        return figures.draw_progress_grid(material.scene, material.tasks)
    return figures.draw_progress(material.scene, task)


def _bars(material: Material, task: str | None) -> Drawing | None:
    scene, numbers, published = material.scene, material.estimates, material.published
    if task is None:
        shown = [*material.tasks, *material.shown_averages]
        return figures.draw_grouped_bars(scene, shown, estimates=numbers, published=published)
    return figures.draw_bars(scene, task, estimates=numbers, published=published)


KINDS: dict[str, Callable[[Material, str | None], Drawing | None]] = {
    "targets": _targets,
    "progress": _progress,
    "bars": _bars,
}
_LACKING = {
    "targets": "no contender was asked for more than one target return",
    "progress": "no trial has finished",
    "bars": "no trial has finished",
}
