"""Trials that diverged: they have no number, count in no mean, and are named wherever a mean lacks them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dtbench.analysis.tables.table import Cell, Column, Table
from dtbench.ledger.store import DIVERGED, Unfinished

Counts = Mapping[tuple[str, str], int]  # by (task, contender)


Told = Callable[[Sequence[str]], int | str]  # from the texts of a table's row


def diverged_of(unfinished: Iterable[Unfinished]) -> Counter[tuple[str, str]]:
    """How many trials of each task and contender diverged."""
    return Counter((trial.spec.task, trial.spec.contender) for trial in unfinished if trial.state == DIVERGED)


def diverged_over(diverged: Counts, tasks: Sequence[str]) -> Counter[str]:
    """How many runs of each contender diverged on these tasks; those of whom none did are not there."""
    found: Counter[str] = Counter()
    for (task, contender), count in diverged.items():
        if task in tasks:
            found[contender] += count
    return found


def diverged_text(diverged: Counts, missing: Counts, finished: Counts) -> tuple[str, ...]:
    """A sentence that names the cells with how many of their seeds diverged; none where no trial did."""
    told = [
        f"{cell[1]} on {cell[0]} ({count} of {missing.get(cell, 0) + finished.get(cell, 0)} seeds)"
        for cell, count in sorted(diverged.items())
    ]
    text = "A trial whose loss became NaN has diverged: it has no score, and every number is of the other seeds alone."
    return (f"{text} Diverged: {'; '.join(told)}.",) if told else ()


def not_on_every_task(*, diverged: bool) -> str:
    """What is said of a contender that has no number on some task."""
    return f"{DIVERGED}, no number on every task" if diverged else "not run on every task"


def with_diverged(table: Table, told: Told) -> Table:
    """The table with a column that says how many runs behind a row diverged; as it is where none did."""
    said = [told([cell.text for cell in row]) for row in table.rows]
    if not any(said):
        return table
    cells = [Cell(str(text), text) if isinstance(text, int) else Cell(text) for text in said]
    rows = tuple((*row, cell) for row, cell in zip(table.rows, cells, strict=True))
    return replace(table, columns=(*table.columns, Column("Diverged", number=True)), rows=rows)


def of_contender(diverged: Counts, tasks: Sequence[str]) -> Told:
    """For rows that begin with a contender."""
    return lambda row: diverged_over(diverged, tasks)[row[0]]


def of_cell(diverged: Counts, *, over: Sequence[str] = (), beside: Mapping[str, str] | None = None) -> Told:
    """For rows that begin with a task and a contender.

    The task may be "all" of those of `over`; `beside` names the tasks that others of a row are held against.
    """

    def told(row: Sequence[str]) -> int:
        task, contender, *_ = row
        tasks = over if over and task == "all" else [task, (beside or {}).get(task, "")]
        return diverged_over(diverged, tasks)[contender]

    return told


def of_pair(diverged: Counts, first: str) -> Told:
    """For rows that begin with a task and a rival of the first contender: like "CQL 1"."""

    def told(row: Sequence[str]) -> str:
        task, rival, *_ = row
        counts = {name: diverged.get((task, name), 0) for name in (first, rival)}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)

    return told
