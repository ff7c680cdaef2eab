"""The table of which learners had finished."""

from collections.abc import Mapping, Sequence

from dtbench.analysis.convergence import RULE, Change, Convergence
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number_cell
from dtbench.analysis.training_length import Gain

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
    fewer = ("Fewer steps", "Gain over them", "± of it") if any(one.gain for one in found.values()) else ()
    more = ("More steps", "Gain with them", "± of that gain") if any(one.more for one in found.values()) else ()
    names = (
        "Share of value",
        "Q / return",
        "Correlation",
        "Effective share",
        "Change of Q (%)",
        "Change of score",
        "±",
        "Since half",
        "± of that",
        *fewer,
        *more,
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
        moved = None if one.value_change is None else 100 * one.value_change
        numbers = (
            *((number, 2) for number in (one.share, one.ratio, one.correlation, one.effective)),
            *((number, 1) for number in (moved, *_points(one.score), *_points(one.since_half))),
            *zip(_gain(one.gain, "fewer") if fewer else (), (0, 1, 1), strict=False),
            *zip(_gain(one.more, "steps") if more else (), (0, 1, 1), strict=False),
        )
        rows.append(
            (
                Cell(task),
                Cell(contender),
                Cell(one.word, kind="undecided" if one.reason else "hole" if one.unknown else ""),
                *(hole() if number is None else number_cell(number, digits) for number, digits in numbers),
                number_cell(tried.get((task, contender), 0), 0),
            )
        )
    return Table("convergence", "Which learners had finished", columns, tuple(rows), (RULE, TRIED))


def _points(change: Change | None) -> tuple[float | None, float | None]:
    return (None, None) if change is None else (change.points, change.noise)


def _gain(gain: Gain | None, length: str) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if gain is None else (getattr(gain, length), gain.change, gain.noise)
