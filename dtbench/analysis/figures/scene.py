"""What the figures of a suite are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from dtbench.analysis.published import Circumstances


@dataclass(frozen=True, slots=True)
class Scene:
    """What every figure of a suite is drawn from."""

    contenders: Sequence[str]  # in table order
    scores: pd.DataFrame  # all checkpoints and targets, COLUMNS of scores.py
    finals: pd.DataFrame  # a row a trial: its last checkpoint at its headline target
    score_names: Mapping[str, str]  # by task
    circumstances: Mapping[str, Circumstances]  # by task
    smoke: bool = False
    diverged: Mapping[tuple[str, str], int] = field(default_factory=dict)  # trials, by (task, contender)

    def title(self, task: str) -> str:
        """The task, with where its data came from."""
        source = self.source(task)
        return f"{task} (data: {source})" if source else task

    def source(self, task: str) -> str:
        """Where the task's data came from; empty where no trial says."""
        return self.circumstances.get(task, Circumstances()).source

    def shared_score(self, tasks: Sequence[str]) -> str:
        """The name of the score that all of these tasks share; empty where they have several."""
        names = {self.score_names[task] for task in tasks if task in self.score_names}
        return names.pop() if len(names) == 1 else ""
