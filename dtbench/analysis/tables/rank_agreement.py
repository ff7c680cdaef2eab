"""The table of how far our scores rank contenders as published ones do."""

from collections.abc import Sequence

from dtbench.analysis.published import PublishedTable
from dtbench.analysis.rank_agreement import FEWEST, RULE, rank_agreement, ranked_pairs
from dtbench.analysis.suite_analysis import TableInputs
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number_cell, with_interval

COLUMNS = (
    Column("Published"),
    Column("Tasks", number=True),
    Column("Cells", number=True),
    Column("Tau within tasks", number=True),
    Column("Tau over all cells", number=True),
)


def rank_agreement_table(references: Sequence[PublishedTable], inputs: TableInputs) -> Table | None:
    """Return a row a published table with enough cells beside ours; None where there is none."""
    rows = []
    for table in references:
        found = rank_agreement(ranked_pairs(table, inputs))
        if found.cells < FEWEST or found.overall is None:
            continue
        within, overall = (
            hole() if tau is None else Cell(with_interval(tau, interval, decimals=2), rank=tau)
            for tau, interval in (
                (found.within, found.within_interval),
                (found.overall, found.overall_interval),
            )
        )
        rows.append((Cell(table.title), number_cell(found.tasks, 0), number_cell(found.cells, 0), within, overall))
    if not rows:
        return None
    return Table("rank-agreement", "Do our scores rank as published ones do?", COLUMNS, tuple(rows), (RULE,))
