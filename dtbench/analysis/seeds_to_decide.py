"""The variance of a difference in its parts, and how many training seeds would decide it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dtbench.analysis.statistics import LEVEL, Array

POWER = 0.8  # of the repetitions of a plan that decide
MOST = 1000  # seeds that a plan may ask for


@dataclass(frozen=True, slots=True)
class Spread:
    """A difference and the parts of its variance."""

    difference: float
    ours: float  # variance between the means of training seeds; the episodes' noise of each alone is in it
    theirs: float
    ours_seeds: int
    theirs_seeds: int
    shared: float  # variance of the mean luck of the episodes, which is the same for all training seeds
    episodes: int

    def parts(self, tasks: int) -> list[tuple[float, int]]:
        """Return the variances that add up to that of a mean over so many tasks, with degrees of freedom."""
        made = [
            (self.ours / self.ours_seeds, self.ours_seeds - 1),
            (self.theirs / self.theirs_seeds, self.theirs_seeds - 1),
        ]
        made.append((self.shared, max(self.episodes - 1, 1)))
        return [(variance / tasks**2, degrees) for variance, degrees in made]

    def variance(self, more: NDArray[np.int_]) -> Array:
        """Return the difference's variance with so many more training seeds on each side."""
        return self.ours / (self.ours_seeds + more) + self.theirs / (self.theirs_seeds + more) + self.shared


def spread_of(ours: Array, theirs: Array) -> Spread:
    """Return the parts, from complete scores of two training seeds and more on each side."""
    return Spread(
        difference=float(ours.mean() - theirs.mean()),
        ours=float(ours.mean(axis=1).var(ddof=1)),
        theirs=float(theirs.mean(axis=1).var(ddof=1)),
        ours_seeds=len(ours),
        theirs_seeds=len(theirs),
        shared=_luck_variance(ours, theirs) / ours.shape[1],
        episodes=ours.shape[1],
    )


def seeds_to_decide(spreads: Sequence[Spread], tests: int = 1) -> int | None:
    """Return the seeds that decide the mean difference over tasks, undecided so far; None where MOST are too few.

    As one of so many `tests`, at the level of the strictest (Bonferroni).
    """
    more = np.arange(1, MOST + 1)
    variance = sum((spread.variance(more) for spread in spreads), np.zeros(len(more))) / len(spreads) ** 2
    difference = abs(float(np.mean([spread.difference for spread in spreads])))
    enough = (difference > 0) & (difference >= _reach(tests) * np.sqrt(variance))
    return int(more[enough.argmax()]) if enough.any() else None


def hidden_by_episodes(spreads: Sequence[Spread], tests: int = 1) -> bool:
    """Return whether no number of training seeds would do, as one of so many `tests`."""
    shared = math.sqrt(sum(spread.shared for spread in spreads)) / len(spreads)
    return abs(float(np.mean([spread.difference for spread in spreads]))) < _reach(tests) * shared


def _reach(tests: int) -> float:
    """Return how many standard deviations a difference must be from 0, for its interval to exclude 0 with POWER."""
    normal = NormalDist()
    return normal.inv_cdf(1 - (1 - LEVEL) / tests / 2) + normal.inv_cdf(POWER)


def _luck_variance(ours: Array, theirs: Array) -> float:
    """Return the variance between episodes of what one adds to the difference of every two training seeds.

    That of the episodes' mean differences less what residuals (analysis of variance without repetition) leave in it.
    0 with a single episode, whose luck cannot be seen.
    """
    if ours.shape[1] < 2:
        return 0.0
    left = sum(_residual_variance(scores) / len(scores) for scores in (ours, theirs))
    return max(0.0, float((ours.mean(axis=0) - theirs.mean(axis=0)).var(ddof=1)) - left)


def _residual_variance(scores: Array) -> float:
    """Return the variance of [training seeds, episodes] that neither the training seed nor the episode explains."""
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((residual**2).sum() / ((scores.shape[0] - 1) * (scores.shape[1] - 1)))
