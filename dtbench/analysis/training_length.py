"""What more gradient steps brought: trials that differ in their number alone, one beside the other.

A learning rate that falls to nothing over the steps of a training makes its score stand still at the end, however few
the steps are, so that only another training with fewer steps shows whether their number still matters.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dtbench.analysis import statistics
from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import TrialSpec

DECAY = "decay_steps"  # the hyperparameter: gradient steps over which a learning rate falls to 0
FEWEST = 2  # pairs of trials, below which nothing is compared
HALF = 0.5  # of the steps, that a shorter training may have at most

Row = tuple[str, str]  # contender and key of a trial: two contenders may share it, at other target returns


@dataclass(frozen=True, slots=True)
class Gain:
    """The gain in score of a training over another with fewer steps."""

    fewer: int  # gradient steps of the shorter training
    steps: int  # and of the longer one
    change: float  # of the mean score, in points
    interval: statistics.Interval | None  # 95 %, over training seeds or over draws of the data

    @property
    def noise(self) -> float | None:
        """Return half of the interval's width."""
        return None if self.interval is None else self.interval.half_width

    def over_last(self, share: float) -> float:
        """Return what the steps after `share` of all brought, were the gain even in the logarithm of their number."""
        return self.change * -math.log(share) / math.log(self.steps / self.fewer)


def rate_falls(spec: TrialSpec) -> bool:
    """Return whether the learning rate of a trial falls to 0 within its steps."""
    decay = spec.hyperparameters.get(DECAY)
    return isinstance(decay, int | float) and 0 < decay <= spec.train_steps


def row_of(record: TrialRecord) -> Row:
    """Return the contender and the key of a trial."""
    return record.spec.contender, record.spec.key


def gain(trials: Sequence[TrialRecord], others: Collection[TrialRecord], finals: Mapping[Row, float]) -> Gain | None:
    """Return the gain of trials over those of `others` that are equal but for at most half the steps.

    Of several numbers of steps the largest counts; `finals` are their final scores. Trials are paired by task and
    seed; several tasks are draws of the same data. None below two pairs.
    """
    steps = max((record.spec.train_steps for record in trials), default=0)
    pairs = _pairs(trials, [one for one in others if 0 < one.spec.train_steps <= HALF * steps], finals)
    return _gain(max(pairs), steps, pairs[max(pairs)]) if pairs else None


def gain_with_more(
    trials: Sequence[TrialRecord], others: Collection[TrialRecord], finals: Mapping[Row, float]
) -> Gain | None:
    """Return what those of `others` gain over the trials that are equal but for at least twice the steps.

    Of several numbers of steps the smallest counts; the rest is as in `gain`.
    """
    steps = max((record.spec.train_steps for record in trials), default=0)
    pairs = _pairs(trials, [one for one in others if 0 < steps <= HALF * one.spec.train_steps], finals)
    if not pairs:
        return None
    return _gain(steps, min(pairs), [(task, -change) for task, change in pairs[min(pairs)]])


def _pairs(
    trials: Sequence[TrialRecord], others: Collection[TrialRecord], finals: Mapping[Row, float]
) -> dict[int, list[tuple[str, float]]]:
    """Return by how much trials score above others of equal settings: task and difference, by the others' steps.

    Where the rate of the shorter of the two falls, and there are FEWEST pairs.
    """
    ours = {(_but_for_length(record.spec), record.spec.seed): record for record in trials}
    pairs: dict[int, dict[tuple[str, int], tuple[str, float]]] = {}
    for record in others:
        spec = record.spec
        own = ours.get(pair := (_but_for_length(spec), spec.seed))
        if own is None or not {row_of(own), row_of(record)} <= finals.keys():
            continue
        if rate_falls(min(own.spec, spec, key=lambda one: one.train_steps)):
            pairs.setdefault(spec.train_steps, {})[pair] = spec.task, finals[row_of(own)] - finals[row_of(record)]
    return {steps: list(found.values()) for steps, found in pairs.items() if len(found) >= FEWEST}


def _gain(fewer: int, steps: int, pairs: Sequence[tuple[str, float]]) -> Gain:
    tasks, changes = zip(*pairs, strict=True)
    return Gain(fewer, steps, *statistics.mean_over_draws(tasks, changes))


def _but_for_length(spec: TrialSpec) -> str:
    """Return the hash of all that a trial and one with other steps share, the seed apart."""
    settings = {name: value for name, value in spec.hyperparameters.items() if name != DECAY}
    asked = replace(spec.evaluation, every=0, episodes=0, targets=spec.evaluation.targets[:1], sweep=())
    return replace(spec, train_steps=0, hyperparameters=settings, evaluation=asked).cell
