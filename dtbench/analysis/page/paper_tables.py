"""The papers' own tables, row by row and method by method, with ours in every cell and holes where nobody ran."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dtbench.analysis.published import (
    NOT_PLANNED,
    NOT_RUN,
    VALUES,
    PublishedEntry,
    PublishedTable,
    published_tables,
    spread_note,
    verdict,
)
from dtbench.analysis.statistics import MARGIN, Estimate
from dtbench.analysis.suite_analysis import SuiteAnalysis, TableInputs, return_inputs
from dtbench.analysis.tables.scores import BOLD_RULE, best_on
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, number
from dtbench.ledger.trial_spec import TrialState
from dtbench.suite.loading import read_document, suite_names

CELL_RULE = (
    "Each cell: ours / published, then the difference and the verdict, which the page tells by colour and sign (= "
    "agrees, \N{NOT EQUAL TO} differs, ? undecided, none where the two may not be compared) and on hovering. Ours is "
    "the mean over training seeds at the last checkpoint; no difference stands where nothing may be compared, and a "
    "dash alone where the paper prints nothing."
)

_SIGNS = {"agrees": " =", "differs": " \N{NOT EQUAL TO}", "undecided": " ?"}
_WIDE = 8  # columns, beyond which those without a number of ours stand in the CSV alone
_OF = {"score": "", "return": " Ours here are returns in the task's own points."}


def all_paper_tables(suites: Mapping[str, SuiteAnalysis]) -> list[Table]:
    """Return every table of which something ran in these suites, in the papers' order."""
    found = []
    for suite, analysis in sorted(suites.items()):
        document = read_document(suite) if suite in suite_names() else analysis.results.suite
        for order, table in _suite_tables(document, analysis):
            found.append((order, suite, replace(table, notes=(f"Suite: {suite}.", *table.notes))))
    found.sort(key=lambda one: one[:2])
    names = [table.name for *_, table in found]
    return [replace(t, name=f"{t.name}-{suite}") if names.count(t.name) > 1 else t for _, suite, t in found]


def paper_tables(analysis: SuiteAnalysis) -> list[Table]:
    """Return the tables that a suite refers to and of which something ran, in the papers' order."""
    found = _suite_tables(analysis.results.suite, analysis)
    return [table for _, table in sorted(found, key=lambda one: one[0])]


def _suite_tables(suite: Mapping[str, Any], analysis: SuiteAnalysis) -> Iterator[tuple[Any, Table]]:
    """Yield each table of which something ran, with its sorting key among the papers' tables."""
    for order, references in references_of(suite):
        inputs = analysis.inputs if references[0].value == "score" else return_inputs(analysis)
        table = with_ours(paper_table(references, inputs))
        if table.rows:
            yield order, table


def references_of(suite: Mapping[str, Any]) -> Iterator[tuple[Any, list[PublishedTable]]]:
    """Yield the references of a suite to each paper's table, with the table's sorting key among all."""
    for value in VALUES:
        referred = sorted(published_tables(suite, value=value), key=_order)
        for order, references in itertools.groupby(referred, key=_order):
            yield order, list(references)


def with_ours(table: Table) -> Table:
    """Return the table without rows that have no number of ours, and if it is wide without such columns.

    Notes name them; the CSV keeps the columns.
    """
    width = len(table.columns)
    labels = sum(column.shown and not column.number for column in table.columns)
    rows = [row for row in table.rows if any(map(_has_ours, row))]
    few = width - labels - 1 <= _WIDE
    seen = [few or not c.number or any(_has_ours(row[place]) for row in rows) for place, c in enumerate(table.columns)]
    absent = [" ".join(cell.text for cell in row[:labels]) for row in table.rows if row not in rows]
    left = [column.name for column, shown in zip(table.columns, seen, strict=True) if not shown]
    columns = (replace(c, shown=c.shown and shown) for c, shown in zip(table.columns, seen, strict=True))
    notes = (*table.notes, *_left_out(absent, left))
    return replace(table, columns=tuple(columns), rows=tuple(rows), notes=notes)


def _has_ours(cell: Cell) -> bool:
    return bool(cell.short) and cell.kind != "hole"


def paper_table(references: Sequence[PublishedTable], inputs: TableInputs) -> Table:
    """Return a table of a paper in its own shape, from all references of a suite to it.

    A paper's table may be several references: its Table 7 has a column for each contender and kind of reward.
    """
    grid, reasons = _Grid(references), _Letters()
    rows = []
    for row in grid.rows:
        best = _best(grid.of_row(row), inputs)
        labels = [Cell(text) for text in grid.labels(row)]
        tasks = dict.fromkeys(entry.task for _, entry in grid.of_row(row) if entry.task)
        cells = [_cell(grid.cells.get((row, column)), inputs, best, reasons) for column in grid.columns]
        rows.append((*labels, *cells, Cell(", ".join(tasks))))
    columns = [*(Column(name) for name in grid.label_names), *(Column(name, number=True) for name in grid.headings)]
    caption = f"{grid.title}: ours / published"
    notes = (
        CELL_RULE + _OF[references[0].value],
        *_seed_notes(grid, inputs),
        *reasons.notes(),
        *_notes(grid, inputs),
    )
    return Table(grid.name, caption, (*columns, Column("Our tasks", shown=False)), tuple(rows), notes)


Row = tuple[str, str]  # dataset and environment
Method = tuple[str, str, str]  # metric, our contender, the paper's name where we have none
Printed = tuple[PublishedTable, PublishedEntry]


class _Grid:
    """The entries of a paper's table by row and column, in the order of the file of published numbers."""

    def __init__(self, references: Sequence[PublishedTable]) -> None:
        self.references = references
        self.printed: list[Printed] = sorted(_printed(references), key=lambda one: one[1].line)
        # What the suite does not run of a method that it runs elsewhere stands in the same column.
        self._contenders = {
            (entry.metric, entry.method): entry.contender for _, entry in self.printed if entry.contender
        }
        self.cells = {(entry.row, self._method(entry)): (table, entry) for table, entry in self.printed}
        self.rows = list(dict.fromkeys(entry.row for _, entry in self.printed))
        self.columns = list(dict.fromkeys(self._method(entry) for _, entry in self.printed))
        self.headings = [self._heading(column) for column in self.columns]
        self._varies = [len({row[column] for row in self.rows}) > 1 for column in (0, 1)]
        if not any(self._varies):
            self._varies = [True, False]

    @property
    def title(self) -> str:
        """Return what the references' titles have in common, and the label that all rows share."""
        common = ", ".join(self.references[0].title.split(", ")[: self._common_parts()])
        shared = [label for label, varies in zip(self.rows[0], self._varies, strict=True) if not varies]
        return ", ".join([common or self.references[0].title, *shared])

    @property
    def name(self) -> str:
        """Return the name of the table's files."""
        table = self.references[0].table
        return f"paper-table-{table}" if table.isdigit() else f"paper-{re.sub(r'[^a-z0-9]+', '-', table.lower())}"

    @property
    def label_names(self) -> list[str]:
        return [name for name, varies in zip(("Dataset", "Environment"), self._varies, strict=True) if varies]

    def labels(self, row: Row) -> list[str]:
        """Return what heads a row: all that rows differ in."""
        return [label for label, varies in zip(row, self._varies, strict=True) if varies]

    def of_row(self, row: Row) -> list[Printed]:
        return [(table, entry) for table, entry in self.printed if entry.row == row]

    def of_column(self, column: Method) -> list[PublishedEntry]:
        return [entry for _, entry in self.printed if self._method(entry) == column]

    def _method(self, entry: PublishedEntry) -> Method:
        contender = entry.contender or self._contenders.get((entry.metric, entry.method), "")
        return (entry.metric, contender, "" if contender else entry.method)

    def _heading(self, column: Method) -> str:
        names = " / ".join(dict.fromkeys(entry.method for entry in self.of_column(column)))
        several = len({metric for metric, _, _ in self.columns}) > 1
        if not several:
            return names
        title = next(table.title for table, entry in self.printed if self._method(entry) == column)
        apart = ", ".join(title.split(", ")[self._common_parts() :])  # "d3rlpy, best checkpoint": best checkpoint
        under = re.search(r"\(([^()]+)\)$", column[0])
        kind = under[1] if under else apart
        return f"{names} ({kind})" if kind else names

    def _common_parts(self) -> int:
        """Return how many of the first parts of the references' titles are the same."""
        parts = zip(*(table.title.split(", ") for table in self.references), strict=False)
        return len(list(itertools.takewhile(lambda names: len(set(names)) == 1, parts)))


class _Letters:
    """A letter for each reason why numbers are not comparable, in the order of their first use."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def of(self, reasons: Sequence[str]) -> str:
        """Return the letters of the reasons, like "(a, b)"."""
        for reason in reasons:
            count = len(self._given)
            self._given.setdefault(reason, chr(ord("a") + count) if count < 26 else str(count + 1))
        return f"({', '.join(self._given[reason] for reason in reasons)})"

    def notes(self) -> Iterator[str]:
        """Yield what each letter stands for."""
        yield from (f"({letter}) Not comparable: {reason}." for reason, letter in self._given.items())


def _order(table: PublishedTable) -> tuple[bool, str, bool, int, str]:
    """Return a sorting key: the paper's numbered tables first, then those of others."""
    numbered = table.table.isdigit()
    other = table.file != "decision_transformer.csv"
    return (other, table.file, not numbered, int(table.table) if numbered else 0, table.table)


def _printed(references: Sequence[PublishedTable]) -> Iterator[Printed]:
    """Yield each printed number once, with the reference that names our task and contender where one does."""
    found: dict[int, Printed] = {}
    for table in references:
        for entry in table.entries:
            if entry.line not in found or (entry.task and not found[entry.line][1].task):
                found[entry.line] = (table, entry)
    yield from found.values()


def _best(printed: Sequence[Printed], inputs: TableInputs) -> set[tuple[str, str]]:
    """Return our bold cells of a row: the best of each task where several of the paper's methods ran."""
    best = set()
    for task in {entry.task for _, entry in printed if entry.contender}:
        names = sorted({entry.contender for _, entry in printed if entry.task == task and entry.contender})
        if sum((task, name) in inputs.estimates for name in names) > 1:
            best |= {(task, name) for name in best_on(task, names, inputs)}
    return best


def cell_verdict(table: PublishedTable, task: str, contender: str, inputs: TableInputs) -> str:
    """Return what VERDICT_RULE says of ours beside a printed number, and why where they are not comparable."""
    status, ours = inputs.status(task, contender), inputs.estimates.get((task, contender))
    why_not = table.why_not(
        task, contender, inputs.conditions_of(task), broken=status.broken, diverged=status.diverged
    )
    why_not = why_not or status.bar
    margin = None if table.value == "return" else MARGIN
    return verdict(ours, table.numbers.get((task, contender)), why_not=why_not, broken=status.broken, margin=margin)


def _cell(printed: Printed | None, inputs: TableInputs, best: set[tuple[str, str]], letters: _Letters) -> Cell:
    if printed is None:
        return hole()
    table, entry = printed
    cell, theirs, status = (entry.task, entry.contender), entry.number, inputs.status(entry.task, entry.contender)
    ours = inputs.estimates.get(cell) if all(cell) else None
    if ours is None and not status.broken:
        text = f"{DASH} / {theirs.printed} / {DASH} / {NOT_RUN if all(cell) else NOT_PLANNED}"
        return Cell(text, kind="hole", short=f"{DASH} / {_alone(theirs.printed)}")
    word, _, reasons = cell_verdict(table, *cell, inputs).partition(": ")
    gap = DASH if ours is None or reasons else _difference(ours.mean - theirs.mean, theirs.decimals)
    all_diverged = ours is None and status.diverged == status.broken
    mean = TrialState.DIVERGED if all_diverged else _mean(ours, theirs.decimals, status.missing)
    judged = f"{word} {letters.of(reasons.split('; '))}" if reasons else word
    return Cell(
        f"{mean} / {theirs.printed} / {gap} / {judged}",
        strong=cell in best,
        kind=word.replace(" ", "-"),
        link=status.link,
        rank=ours.mean if ours else None,
        short=f"{mean} / {_alone(theirs.printed)}{_SIGNS.get(word, '')}",
    )


def _left_out(rows: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    if rows:
        yield f"Rows without a number of ours: {', '.join(rows)}."
    if columns:
        yield f"Columns without a number of ours, in the CSV: {', '.join(columns)}."


def _alone(printed: str) -> str:
    """Return a printed number without its spread."""
    return printed.partition(" \N{PLUS-MINUS SIGN} ")[0]


def _mean(ours: Estimate | None, decimals: int, missing: int) -> str:
    """Return our mean, with the number of seeds where some are missing or there is one."""
    if ours is None:
        return "no number"
    seeds = len(ours.values)
    note = f" (n = {seeds} of {seeds + missing})" if missing else " (1 seed)" if ours.interval is None else ""
    return number(ours.mean, decimals) + note


def _difference(value: float, decimals: int) -> str:
    return (
        f"+{number(value, decimals)}" if value > 0 and number(value, decimals).strip("0.") else number(value, decimals)
    )


def _seed_notes(grid: _Grid, inputs: TableInputs) -> Iterator[str]:
    averages = {name for table in grid.references for name in table.averages}
    cells = {(entry.task, entry.contender) for _, entry in grid.printed if entry.task not in averages}
    counts = sorted({len(inputs.estimates[cell].values) for cell in cells if cell in inputs.estimates})
    if counts:
        yield f"Seeds behind a number of ours: {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}."
        yield BOLD_RULE.replace("Bold:", "Bold, among ours:")


def _notes(grid: _Grid, inputs: TableInputs) -> Iterator[str]:
    """Yield whose numbers the table prints, which contender stands for which method, and remarks on numbers."""
    headings = dict(zip(grid.columns, grid.headings, strict=True))
    renamed = [f"{name} for {headings[metric, name, '']}" for metric, name, _ in grid.columns if name]
    renamed = [text for text in renamed if not _same(*text.split(" for ", 1))]
    if renamed:
        yield f"Ours under another name: {', '.join(renamed)}."
    absent = [headings[column] for column in grid.columns if not column[1]]
    if absent:
        yield f"No contender of the suite stands for {', '.join(absent)}."
    yield from dict.fromkeys(filter(None, (table.rerecorded_note(inputs.conditions) for table in grid.references)))
    yield from dict.fromkeys(table.note for table in grid.references if table.note)
    if spread := spread_note([entry.number for _, entry in grid.printed]):
        yield spread
    yield from _number_notes(grid)


def _same(ours: str, theirs: str) -> bool:
    """Return whether the two names are equal but for what a metric adds in brackets."""
    return ours.replace(" ", "") == re.sub(r" \([^()]*\)$", "", theirs).replace(" ", "")


def _number_notes(grid: _Grid) -> Iterator[str]:
    """Yield what the file says of numbers: of whole columns at once, of others by their rows."""
    for text in dict.fromkeys(entry.number.note for _, entry in grid.printed if entry.number.note):
        where: dict[str, list[str]] = {}
        for column, heading in zip(grid.columns, grid.headings, strict=True):
            rows = _rows(grid, column, text)
            if rows is not None:
                where.setdefault(rows, []).append(heading)
        named = (f"{', '.join(dict.fromkeys(names))}{rows}" for rows, names in where.items())
        yield f"{'; '.join(named)}: {text}."


def _rows(grid: _Grid, column: Method, note: str) -> str | None:
    """Return in which rows of a column the note holds: "" for all, None for none."""
    entries = grid.of_column(column)
    rows = [" ".join(grid.labels(entry.row)) for entry in entries if entry.number.note == note]
    others = [" ".join(grid.labels(entry.row)) for entry in entries if entry.number.note != note]
    if not rows:
        return None
    fewer = f" but for {', '.join(others)}" if others else ""
    return fewer if len(others) < len(rows) else f" in {', '.join(rows)}"
