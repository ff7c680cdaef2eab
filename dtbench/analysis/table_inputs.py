"""What tables are made from: estimates, the conditions they ran under, and which seeds lack a number."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from dtbench.analysis.published import RunConditions
from dtbench.analysis.statistics import Estimate, estimate
from dtbench.ledger.store import Unfinished
from dtbench.ledger.trial_spec import TrialState

Estimates = Mapping[tuple[str, str], Estimate]  # by (task, contender)


@dataclass(frozen=True, slots=True)
class CellStatus:
    """How many trials of one contender on one task have no number, and why."""

    missing: int = 0
    broken: int = 0  # of them, those that ended: as NaN, or because they diverged
    diverged: int = 0  # of those, the latter
    link: str = ""  # the id on the page that the cell's numbers lead to


@dataclass(frozen=True, slots=True)
class TableInputs:
    """The numbers of a suite by (task, contender), averages over tasks among the tasks; empty where nothing ran."""

    estimates: Estimates = field(default_factory=dict)
    conditions: Mapping[str, RunConditions] = field(default_factory=dict)  # by task
    statuses: Mapping[tuple[str, str], CellStatus] = field(default_factory=dict)

    def status(self, task: str, contender: str) -> CellStatus:
        """Return the status of a cell, without counts where nothing is known of it."""
        return self.statuses.get((task, contender), CellStatus())

    def conditions_of(self, task: str) -> RunConditions:
        """Return what a task ran under."""
        return self.conditions.get(task, RunConditions())

    def diverged(self, tasks: Sequence[str]) -> Counter[str]:
        """Return how many trials of each contender diverged on these tasks, of those with any."""
        found: Counter[str] = Counter()
        for (task, contender), status in self.statuses.items():
            if task in tasks and status.diverged:
                found[contender] += status.diverged
        return found


def estimates_of(finals: pd.DataFrame, column: str = "score") -> dict[tuple[str, str], Estimate]:
    """Return the estimate of each cell with a number, from rows of task, contender, seed and the column."""
    groups = finals.dropna(subset=[column]).groupby(["task", "contender"], sort=True)[column]
    return {(str(task), str(contender)): estimate(values.tolist()) for (task, contender), values in groups}


def diverged_of(unfinished: Iterable[Unfinished]) -> Counter[tuple[str, str]]:
    """Return how many trials of each task and contender diverged."""
    lost = (trial.spec for trial in unfinished if trial.state == TrialState.DIVERGED)
    return Counter((spec.task, spec.contender) for spec in lost)
