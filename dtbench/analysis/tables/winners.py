"""Where does each contender win: the best of each family on each task."""

from collections.abc import Sequence

from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.tables.scores import best_on
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number
from dtbench.ledger.families import FAMILIES

RULE = (
    "The highest mean of each family, and of all. Bold as in the tables of scores: only with five seeds a side, and "
    "where both converged. Filter the rows by a task, a suite, a contender or a family."
)


def winners_table(analyses: Sequence[SuiteAnalysis]) -> Table:
    """Return a row for each suite and task, a column for each family, and who has the highest mean."""
    shown = [name for name in FAMILIES if any(name in analysis.families.values() for analysis in analyses)]
    rows = [_row(analysis, task, shown) for analysis in analyses for task in analysis.ran]
    columns = (Column("Task"), Column("Suite"), *(Column(f"Best {FAMILIES[name]}", number=True) for name in shown))
    return Table(
        "winners", "The best of each family on each task", (*columns, Column("Highest")), tuple(rows), (RULE,)
    )


def _row(analysis: SuiteAnalysis, task: str, shown: Sequence[str]) -> tuple[Cell, ...]:
    ours = {
        name: analysis.inputs.estimates[task, name].mean
        for name in analysis.contenders
        if (task, name) in analysis.inputs.estimates
    }
    bold = best_on(task, list(ours), analysis.inputs)
    cells = []
    for family in shown:
        able = [name for name in ours if analysis.families.get(name) == family]
        best = max(able, key=ours.__getitem__, default="")
        link = analysis.inputs.status(task, best).link
        text = f"{best} {number(ours[best], 1)}" if best else ""
        cells.append(Cell(text, strong=best in bold, link=link, rank=ours[best]) if best else hole())
    first = max(ours, key=ours.__getitem__)
    ahead = [name for name in ours if ours[name] == ours[first]]
    families = dict.fromkeys(FAMILIES[analysis.families.get(name, "other")] for name in ahead)
    suite = Cell(analysis.results.name, link=f"suite-{analysis.results.name}")
    return (Cell(task), suite, *cells, Cell(f"{', '.join(ahead)} ({', '.join(families)})"))
