"""What a run came to, on the terminal: the scores so far, and what failed."""

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.table import Table

from dtbench.cli.progress import complain, say, show, trial_name
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState


def say_scores(
    finals: pd.DataFrame, contenders: Sequence[str], tasks: Sequence[str], diverged: Mapping[tuple[str, str], int]
) -> None:
    """The suite's scores so far: means over training seeds at the last checkpoint, n seeds; holes stay holes.

    A line for each contender, or for each task where those are more: a table that is too wide cannot be read.
    `diverged` counts the seeds of a (contender, task) that did.
    """
    groups = finals.groupby(["contender", "task"]).score.agg(["mean", "count"])
    cells = {key: f"{count} diverged" for key, count in diverged.items()}
    for key, row in groups.iterrows():
        besides = f", {cells[key]}" if key in cells else ""
        cells[key] = f"{row['mean']:.1f} ({int(row['count'])}{besides})"
    tall = len(tasks) > len(contenders)
    lines, columns = (tasks, contenders) if tall else (contenders, tasks)
    table = Table("task" if tall else "contender")
    for column in columns:
        table.add_column(column, justify="right")
    for line in lines:
        keys = [(column, line) if tall else (line, column) for column in columns]
        table.add_row(line, *(cells.get(key, "not run") for key in keys))
    say("score at the last checkpoint: mean over n training seeds (n)")
    show(table)


def say_what_failed(specs: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Name every trial of these that failed or diverged, and the last line of its traceback."""
    for spec in specs:
        state, path = ledger.state(spec), ledger.folder(spec) / "error.txt"
        if state in (TrialState.FAILED, TrialState.DIVERGED):
            reason = ledger.failure(spec).message or "no reason is recorded"
            complain(f"{state}: {trial_name(spec)}: {reason}\n        see {path}")
