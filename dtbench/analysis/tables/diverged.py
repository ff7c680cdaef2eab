"""Trials that diverged: they have no number, count in no mean, and are named wherever a mean lacks them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dtbench.analysis.suite_analysis import TableInputs
from dtbench.analysis.tables.table import Cell, Column, Table
from dtbench.ledger.trial_spec import TrialState

CountOf = Callable[[Sequence[str]], int | str]  # from the texts of a table's row


def not_on_every_task(*, diverged: bool) -> str:
    """Return the text of a contender that has no number on some task."""
    return f"{TrialState.DIVERGED}, no number on every task" if diverged else "not run on every task"


def with_diverged(table: Table, count_of: CountOf) -> Table:
    """Return the table with a column of how many runs behind a row diverged; as it is where none did."""
    counts = [count_of([cell.text for cell in row]) for row in table.rows]
    if not any(counts):
        return table
    cells = [Cell(str(count), count) if isinstance(count, int) else Cell(count) for count in counts]
    rows = tuple((*row, cell) for row, cell in zip(table.rows, cells, strict=True))
    return replace(table, columns=(*table.columns, Column("Diverged", number=True)), rows=rows)


def of_contender(inputs: TableInputs, tasks: Sequence[str]) -> CountOf:
    """Return the count of rows that begin with a contender."""
    return lambda row: inputs.diverged(tasks)[row[0]]


def of_cell(inputs: TableInputs, *, over: Sequence[str] = (), beside: Mapping[str, str] | None = None) -> CountOf:
    """Return the count of rows that begin with a task and a contender.

    The task may be "all" of those of `over`; `beside` names the tasks that others of a row are held against.
    """

    def count_of(row: Sequence[str]) -> int:
        task, contender, *_ = row
        tasks = over if over and task == "all" else [task, (beside or {}).get(task, "")]
        return inputs.diverged(tasks)[contender]

    return count_of


def of_pair(inputs: TableInputs, first: str) -> CountOf:
    """Return the count of rows that begin with a task and a rival of the first contender: like "CQL 1"."""

    def count_of(row: Sequence[str]) -> str:
        task, rival, *_ = row
        counts = {name: inputs.status(task, name).diverged for name in (first, rival)}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)

    return count_of
