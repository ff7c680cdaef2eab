"""The best score to expect of so many settings tried (Dodge et al. 2019)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtbench.search import SearchRecord


@dataclass(frozen=True, slots=True)
class ExpectedBest:
    """A curve: the best to be expected of n settings, for n from 1 to all that were tried."""

    task: str
    tried: str  # what counts as a setting
    values: tuple[float, ...]  # the scores that were found

    @property
    def curve(self) -> NDArray[np.float64]:
        """At n = 1, 2, ... as many as there are."""
        return expected_best(self.values, np.arange(1, len(self.values) + 1))


def expected_best(values: Sequence[float], n: ArrayLike) -> NDArray[np.float64]:
    """E[max of n] for n values drawn with replacement: sum over v_(i) of v_(i) ((i/B)^n - ((i-1)/B)^n).

    v_(1) <= ... <= v_(B) are the values in order: the exact mean of the largest order statistic under their empirical
    distribution (Dodge et al. 2019, "Show Your Work", eq. 7 and 8).
    """
    ordered = np.sort(np.asarray(values, np.float64))
    share = np.arange(len(ordered) + 1) / len(ordered)
    powers = share[None, :] ** np.atleast_1d(np.asarray(n, np.float64))[:, None]
    return np.asarray(np.diff(powers, axis=1) @ ordered)


def expected_curves(record: SearchRecord) -> Iterator[ExpectedBest]:
    """For each task: settings at the task's own target, and, where several were asked, pairs of setting and target."""
    for task in record.question.tasks:
        scores = [sample.scores(record.question, task, sample.last_step(record.question)) for sample in record.samples]
        asked: Sequence[float | None] = record.question.targets[task] or (None,)
        own = asked[0]
        at = "" if own is None else f" at the task's own target {own:g}"
        if found := _counted([one.get(own) for one in scores]):
            yield ExpectedBest(task, f"settings{at}", found)
        if len(asked) > 1 and (found := _counted([one.get(target) for one in scores for target in asked])):
            yield ExpectedBest(task, f"pairs of a setting and one of {len(asked)} targets", found)


def _counted(scores: Sequence[float | None]) -> tuple[float, ...]:
    """Every score, the lowest one for those that are missing; nothing where all are."""
    found = [score for score in scores if score is not None]
    return tuple(min(found) if score is None else score for score in scores) if found else ()
