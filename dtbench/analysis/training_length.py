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
    """The gain in score over a training with fewer steps."""

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
    ours = {(_but_for_length(record.spec), record.spec.seed): record for record in trials}
    steps = max((record.spec.train_steps for record in trials), default=0)
    pairs: dict[int, dict[tuple[str, int], tuple[str, float]]] = {}
    for record in others:
        spec = record.spec
        if not 0 < spec.train_steps <= HALF * steps or not rate_falls(spec):
            continue
        longer = ours.get(pair := (_but_for_length(spec), spec.seed))
        if longer is not None and {row_of(longer), row_of(record)} <= finals.keys():
            pairs.setdefault(spec.train_steps, {})[pair] = spec.task, finals[row_of(longer)] - finals[row_of(record)]
    able = [fewer for fewer, found in pairs.items() if len(found) >= FEWEST]
    if not able:
        return None
    tasks, changes = zip(*pairs[max(able)].values(), strict=True)
    return Gain(max(able), steps, *statistics.mean_over_draws(tasks, changes))


def _but_for_length(spec: TrialSpec) -> str:
    """Return the hash of all that a trial and one with other steps share, the seed apart."""
    settings = {name: value for name, value in spec.hyperparameters.items() if name != DECAY}
    asked = replace(spec.evaluation, every=0, episodes=0, targets=spec.evaluation.targets[:1], sweep=())
    return replace(spec, train_steps=0, hyperparameters=settings, evaluation=asked).cell
