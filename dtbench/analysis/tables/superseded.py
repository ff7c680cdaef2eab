"""The table of superseded trials, which count in no other."""

from dtbench.analysis.results import SuiteResults
from dtbench.analysis.statistics import estimate
from dtbench.analysis.superseded import cells
from dtbench.analysis.tables.table import Cell, Column, Table, number_cell


def superseded_table(results: SuiteResults) -> Table:
    """Return a row for each superseded configuration."""
    rows = []
    for label, task, scores in cells(results):
        known = scores.dropna().tolist()
        mean = estimate(known).mean if known else None
        rows.append((Cell(task), Cell(label), number_cell(len(scores), 0), number_cell(mean)))
    columns = (Column("task"), Column("contender"), Column("n", number=True), Column("score", number=True))
    return Table(name="superseded", caption="Superseded trials: mean final score", columns=columns, rows=tuple(rows))
