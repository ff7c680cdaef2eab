"""The table of which learners had finished."""

from collections.abc import Mapping, Sequence

from dtbench.analysis.convergence import RULE, Convergence
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number_cell

TRIED = (
    "Settings tried: different settings in the recorded searches on this task or on other draws of its data; pairs of "
    "setting and target return where the suite states the row's target (headline_target), since then it was chosen "
    "too. What people tried by hand is not in it. A pair is not decided in favour of the side with more."
)


def convergence_table(
    found: Mapping[tuple[str, str], Convergence],
    contenders: Sequence[str],
    tried: Mapping[tuple[str, str], int] | None = None,
) -> Table | None:
    """Return a row a task and contender, with the settings that searches tried for it; None where nothing ran."""
    if not found:
        return None
    order = {name: place for place, name in enumerate(contenders)}
    names = (
        "Share of value",
        "Q / return",
        "Correlation",
        "Effective share",
        "Change of Q (%)",
        "Change of score",
        "±",
    )
    columns = (
        Column("Task"),
        Column("Contender"),
        Column("Converged"),
        *(Column(name, number=True) for name in names),
        Column("Settings tried", number=True),
    )
    tried = tried or {}
    rows = []
    for (task, contender), one in sorted(found.items(), key=lambda item: (item[0][0], order.get(item[0][1], 0))):
        numbers = (one.share, one.ratio, one.correlation, one.effective)
        moved = None if one.value_change is None else 100 * one.value_change
        rows.append(
            (
                Cell(task),
                Cell(contender),
                Cell(one.word, kind="undecided" if one.reason else "hole" if one.unknown else ""),
                *(hole() if number is None else number_cell(number, 2) for number in numbers),
                hole() if moved is None else number_cell(moved, 1),
                *(
                    hole() if number is None else number_cell(number, 1)
                    for number in (one.score_change, one.score_noise)
                ),
                number_cell(tried.get((task, contender), 0), 0),
            )
        )
    return Table("convergence", "Which learners had finished", columns, tuple(rows), (RULE, TRIED))
