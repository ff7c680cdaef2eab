"""One table object for all formats, and the tables of results.

HTML, Markdown, LaTeX and CSV are written from the same cells, so that formats cannot differ.
"""

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from dtbench.analysis import statistics
from dtbench.analysis.published import NOT_RUN, Circumstances, Published, PublishedTable, verdict
from dtbench.analysis.statistics import Array, Estimate, Interval, Statistic, estimate

BOLD_RULE = (
    "Bold: the highest mean of a task and every mean whose 95 % interval overlaps its interval; "
    "nothing is bold where the highest mean has no interval, and no mean without one is."
)

AGGREGATE_RULE = (
    "Seeds are resampled within each task (stratified percentile bootstrap, 2000 resamples, fixed seed). Median: of "
    "the tasks' means. IQM: mean of the middle half of all runs. A contender that misses a task has no numbers."
)

MANY_TASKS = 5  # with more than these, tasks become rows and figures share a grid

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"  # a hole; what stands before a negative number

Estimates = Mapping[tuple[str, str], Estimate]  # by (task, contender)
Counts = Mapping[tuple[str, str], int]  # by (task, contender)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one place of a table says."""

    text: str
    value: float | int | None = None  # the number behind the text, for CSV
    strong: bool = False
    kind: str = ""  # a CSS class: hole, agrees, differs, ...


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; `shown` is False for what only the CSV has room for."""

    name: str
    number: bool = False
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below a caption; each row's first cell is its heading."""

    name: str  # of its files
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def html(self) -> Markup:
        """A table with a caption and scopes, in a box that scrolls sideways where it must."""
        head = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(_css("number" if column.number else ""), column.name)
            for column in self._shown_columns()
        )
        body = Markup("\n").join(map(self._html_row, self.rows))
        return Markup(
            '<div class="scroll" role="region" tabindex="0" aria-label="{0}">\n<table>\n<caption>{0}</caption>\n'
            "<thead><tr>{1}</tr></thead>\n<tbody>\n{2}\n</tbody>\n</table>\n</div>{3}"
        ).format(self.caption, head, body, Markup("").join(map(Markup('\n<p class="note">{}</p>').format, self.notes)))

    def markdown(self) -> str:
        """A pipe table below its caption, the notes after it."""
        head = [escape_markdown(column.name) for column in self._shown_columns()]
        rule = ["---:" if column.number else ":---" for column in self._shown_columns()]
        rows = [[_markdown_cell(cell) for cell in self._shown_cells(row)] for row in self.rows]
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
        notes = "".join(f"\n{escape_markdown(note)}\n" for note in self.notes)
        return f"**{escape_markdown(self.caption)}**\n\n" + "\n".join(lines) + "\n" + notes

    def latex(self) -> str:
        """A booktabs table, caption and label included; it needs the package booktabs and no other."""
        align = "".join("r" if column.number else "l" for column in self._shown_columns())
        head = [escape_latex(column.name) for column in self._shown_columns()]
        rows = [[_latex_cell(cell) for cell in self._shown_cells(row)] for row in self.rows]
        sentences = " ".join((f"{self.caption}." if self.notes else self.caption, *self.notes))
        lines = [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escape_latex(sentences)}}}",
            f"  \\label{{tab:{self.name}}}",
            f"  \\begin{{tabular}}{{{align}}}",
            r"    \toprule",
            f"    {' & '.join(head)} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(row)} \\\\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Every column, numbers with ten digits; dashes are left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.name for column in self.columns])
        writer.writerows([[_csv_cell(cell) for cell in row] for row in self.rows])
        return text.getvalue()

    def _shown_columns(self) -> list[Column]:
        return [column for column in self.columns if column.shown]

    def _shown_cells(self, row: Sequence[Cell]) -> list[Cell]:
        return [cell for cell, column in zip(row, self.columns, strict=True) if column.shown]

    def _html_row(self, row: Sequence[Cell]) -> Markup:
        first, *others = zip(self._shown_cells(row), self._shown_columns(), strict=True)
        cells = [Markup('<th scope="row">{}</th>').format(_html_text(first[0]))]
        for cell, column in others:
            kinds = f"{'number' if column.number else ''} {cell.kind}".strip()
            cells.append(Markup("<td{}>{}</td>").format(_css(kinds), _html_text(cell)))
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def estimates_of(finals: pd.DataFrame, column: str = "score") -> dict[tuple[str, str], Estimate]:
    """The estimate of every cell that has a finished trial, from rows of task, contender, seed and the column."""
    groups = finals.groupby(["task", "contender"], sort=True)[column]
    return {(str(task), str(contender)): estimate(values.tolist()) for (task, contender), values in groups}


def score_table(
    estimates: Estimates,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    headings: Mapping[str, str],
    missing: Counts,
) -> Table:
    """Mean and interval of contenders x tasks, turned round for more than MANY_TASKS; the best in bold by BOLD_RULE.

    `headings` name the tasks, means over tasks among them.
    """
    best = {task: best_contenders(_on(task, estimates, contenders)) for task in tasks}

    def shown(task: str, contender: str) -> Cell:
        strong = contender in best[task]
        return _score_cell(estimates.get((task, contender)), missing.get((task, contender), 0), strong=strong)

    caption = "Final score: mean over training seeds, with its 95 % interval and the number of seeds"
    if len(tasks) > MANY_TASKS:
        stamps = {headings[task].removeprefix(task).strip() for task in tasks if headings.get(task, task) != task}
        if len(stamps) == 1:  # said once for all
            caption, headings = f"{caption} {stamps.pop()}", {}
        names = (Column("Task"), *(Column(contender, number=True) for contender in contenders))
        turned = [(Cell(headings.get(task, task)), *(shown(task, name) for name in contenders)) for task in tasks]
        return Table("scores", caption, names, tuple(turned), (BOLD_RULE,))
    columns = (Column("Contender"), *(Column(headings.get(task, task), number=True) for task in tasks))
    rows = [(Cell(name), *(shown(task, name) for task in tasks)) for name in contenders]
    return Table("scores", caption, columns, tuple(rows), (BOLD_RULE,))


def best_contenders(estimates: Mapping[str, Estimate]) -> set[str]:
    """Who is shown in bold by BOLD_RULE."""
    if not estimates:
        return set()
    highest = max(estimates.values(), key=lambda ours: ours.mean).interval
    if highest is None:
        return set()
    return {name for name, ours in estimates.items() if ours.interval and ours.interval.overlaps(highest)}


def comparison_table(
    published: PublishedTable,
    estimates: Estimates,
    *,
    name: str,
    episodes: Counts,
    missing: Counts,
    circumstances: Mapping[str, Circumstances],
) -> Table:
    """Ours beside one table of a paper, a row for each task and contender; `circumstances` are those of each task."""
    rows = []
    for task, contender in itertools.product(published.tasks, published.contenders):
        cell = (task, contender)
        ours, theirs = estimates.get(cell), published.numbers.get(cell)
        here = circumstances.get(task, Circumstances())
        why_not = published.why_not(task, contender, here)
        labels = (Cell(task), Cell(contender), Cell(here.source or DASH))
        ran = (*_ours(ours, missing.get(cell, 0)), number_cell(episodes.get(cell), 0))
        compared = None if why_not else ours  # a difference would say that there is something to compare
        rows.append((*labels, *ran, *_theirs(theirs, compared), _verdict_cell(ours, theirs, why_not)))
    notes = tuple(note for note in (published.note, _spread_note(published), *_number_notes(published)) if note)
    return Table(name, f"Ours beside the published numbers: {published.title}", _COMPARISON, tuple(rows), notes)


def aggregate_table(scores: Mapping[str, Array], *, first: str, name: str = "aggregate", over: str = "") -> Table:
    """Contenders over all tasks, or those that `over` names, from seeds x tasks; those that miss a task are holes.

    The last column is the probability that `first` improves on the row's contender.
    """
    rows = [(Cell(contender), *_aggregates(matrix, scores.get(first))) for contender, matrix in scores.items()]
    columns = [Column("Contender"), *(Column(statistic, number=True) for statistic in _AGGREGATES)]
    columns.append(Column(f"P({first} improves on it)", number=True))
    caption = f"Over {over or 'all tasks of the suite'}, with 95 % intervals"
    return Table(name, caption, tuple(columns), tuple(rows), (AGGREGATE_RULE,))


def path_table(
    finals: pd.DataFrame, *, tasks: Sequence[str], contenders: Sequence[str], measures: Mapping[str, str]
) -> Table:
    """Measures of paths (columns of `finals`, in per cent) for each task and contender, then over all tasks."""
    ran = set(zip(finals["task"], finals["contender"], strict=True))
    found = {name: estimates_of(finals.dropna(subset=[name]), name) for name in measures}
    rows = [
        (Cell(task), Cell(contender), *(_path_cell(found[name].get((task, contender))) for name in measures))
        if (task, contender) in ran
        else (Cell(task), Cell(contender), Cell(NOT_RUN, kind="hole"), *[hole()] * (len(measures) - 1))
        for task in tasks
        for contender in contenders
    ]
    if len(tasks) > 1:
        for contender in contenders:
            own = finals[finals["contender"] == contender]
            rows.append((Cell("all"), Cell(contender), *(_over_all(own, name, tasks) for name in measures)))
    columns = (Column("Task"), Column("Contender"), *(Column(name, number=True) for name in measures.values()))
    caption = "Paths at the last checkpoint: mean over seeds, with 95 % intervals"
    return Table("paths", caption, columns, tuple(rows))


_COMPARISON = (
    Column("Task"),
    Column("Contender"),
    Column("Data"),
    Column("Ours", number=True),
    Column("95% low", number=True),
    Column("95% high", number=True),
    Column("Seeds", number=True),
    Column("Episodes", number=True),
    Column("Published", number=True),
    Column("Published std", number=True, shown=False),
    Column("Source", shown=False),
    Column("Difference", number=True),
    Column("Verdict"),
)
_AGGREGATES: dict[str, Statistic] = {"Mean": statistics.mean, "Median": statistics.median, "IQM": statistics.iqm}


def hole() -> Cell:
    """Where something might be expected and nothing is."""
    return Cell(DASH, kind="hole")


def number_cell(value: float | None, decimals: int = 1) -> Cell:
    """A number, or a visible hole."""
    return hole() if value is None or math.isnan(value) else Cell(number(value, decimals), value)


def number(value: float | None, decimals: int = 1) -> str:
    """A number as the report prints it, a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


def with_interval(value: float, interval: Interval | None, decimals: int = 1) -> str:
    """Like "61.2 [50.1, 70.3]"."""
    ends = f" [{number(interval.low, decimals)}, {number(interval.high, decimals)}]" if interval else ""
    return number(value, decimals) + ends


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Text that Markdown prints as it is, inside pipe tables too."""
    return re.sub(r"([\\`*_|<])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    DASH: "--", MINUS: "$-$", "\N{MULTIPLICATION SIGN}": r"$\times$", "∞": r"$\infty$", "±": r"$\pm$", "≥": r"$\geq$",
}  # fmt: skip


def _on(task: str, estimates: Estimates, contenders: Sequence[str]) -> dict[str, Estimate]:
    return {name: estimates[task, name] for name in contenders if (task, name) in estimates}


def _score_cell(ours: Estimate | None, missing: int, *, strong: bool) -> Cell:
    if ours is None:
        return Cell(NOT_RUN, kind="hole")
    return Cell(f"{with_interval(ours.mean, ours.interval)} (n = {_seeds(ours, missing)})", strong=strong)


def _seeds(ours: Estimate, missing: int) -> str:
    """How many seeds stand behind a number, and how many should."""
    done = len(ours.values)
    return f"{done} of {done + missing}" if missing else str(done)


def _ours(ours: Estimate | None, missing: int) -> tuple[Cell, ...]:
    if ours is None:
        return Cell(NOT_RUN, kind="hole"), hole(), hole(), Cell("0", 0)
    low, high = (ours.interval.low, ours.interval.high) if ours.interval else (None, None)
    return number_cell(ours.mean), number_cell(low), number_cell(high), Cell(_seeds(ours, missing), len(ours.values))


def _theirs(published: Published | None, ours: Estimate | None) -> tuple[Cell, ...]:
    if published is None:
        return hole(), hole(), hole(), hole()
    difference = None if ours is None else ours.mean - published.mean
    return (
        Cell(published.printed, published.mean),
        number_cell(published.std),
        Cell(published.source),
        number_cell(difference),
    )


def _verdict_cell(ours: Estimate | None, published: Published | None, why_not: str) -> Cell:
    said = verdict(ours, published, why_not=why_not) or "no published number"
    kind = "hole" if ours is None or published is None else said.partition(":")[0].replace(" ", "-")
    return Cell(said, kind=kind)


def _spread_note(published: PublishedTable) -> str:
    bare = [number for number in published.numbers.values() if number.std is None]
    source = f"Source: {published.source}." if published.source else ""
    if not bare:
        return source
    how_many = "no spread" if len(bare) == len(published.numbers) else "no spread for some numbers"
    seeds = " and does not say how many seeds" if all(number.seeds is None for number in bare) else ""
    return f"{source} It prints {how_many}{seeds}.".strip()


def _number_notes(published: PublishedTable) -> list[str]:
    """What the file of published numbers says of single ones, e.g. a mistake in the paper."""
    said: dict[str, list[str]] = {}
    for (task, contender), printed in published.numbers.items():
        if printed.note:
            said.setdefault(printed.note, []).append(f"{contender} on {task}")
    return [f"{', '.join(where) if len(where) <= 4 else f'{len(where)} numbers'}: {n}." for n, where in said.items()]


def _aggregates(matrix: Array, first: Array | None) -> list[Cell]:
    complete = matrix.size > 0 and bool((~np.isnan(matrix)).any(axis=0).all())
    if not complete:
        return [Cell("not run on every task", kind="hole")] + [hole()] * len(_AGGREGATES)
    cells = [_aggregate_cell(statistic, matrix, decimals=1) for statistic in _AGGREGATES.values()]
    if first is matrix or first is None or np.isnan(first).all(axis=0).any():
        return [*cells, hole()]
    return [*cells, _aggregate_cell(statistics.probability_of_improvement, first, matrix, decimals=2)]


def _aggregate_cell(statistic: Statistic, *samples: Array, decimals: int) -> Cell:
    value = float(statistic(*samples))
    repeated = all(((~np.isnan(scores)).sum(axis=0) > 1).all() for scores in samples)
    interval = statistics.bootstrap_interval(statistic, *samples) if repeated else None
    return Cell(with_interval(value, interval, decimals), value)


def _path_cell(ours: Estimate | None) -> Cell:
    return hole() if ours is None else Cell(with_interval(ours.mean, ours.interval), ours.mean)


def _over_all(own: pd.DataFrame, measure: str, tasks: Sequence[str]) -> Cell:
    """Mean over tasks; a hole where a task is missing."""
    matrix = own.pivot_table(index="seed", columns="task", values=measure).reindex(columns=list(tasks)).to_numpy(float)
    missing = matrix.size == 0 or bool(np.isnan(matrix).all(axis=0).any())
    return hole() if missing else _aggregate_cell(statistics.mean, matrix, decimals=1)


def _html_text(cell: Cell) -> Markup:
    return Markup("<strong>{}</strong>").format(cell.text) if cell.strong else escape(cell.text)


def _css(kinds: str) -> Markup:
    return Markup(' class="{}"').format(kinds) if kinds else Markup("")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"**{text}**" if cell.strong else text


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.strong else text


def _csv_cell(cell: Cell) -> str:
    if cell.value is not None:
        return f"{cell.value:.10g}"
    return cell.text.removeprefix(DASH)  # programs read nothing where people read a dash
