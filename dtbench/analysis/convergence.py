"""Whether a learner had finished: what its values could know, whether they stand still, and whether its score does.

A number of a learner that had not finished says how long it trained, not how good its method is.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.statistics import Array
from dtbench.analysis.training_length import Gain, Row, gain, gain_with_more, row_of
from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import TrialSpec

ENOUGH = 0.9  # of the data's discounted return, that backups must have reached
STILL = 0.05  # of its size, by which the mean value may move over the last third of training
SMALL = 1.0  # points, by which a score may move whatever its noise
LAST = 2 / 3  # of training, after which all should stand still
MIDDLE = 1 / 2  # after which scores should: more evaluations, so that a rise is seen that the last third hides
LATE_EVALUATIONS = 2  # from there on, without which nobody can tell

RULE = (
    "Converged: over the last third and over the last half of training the mean score changes by no more than its "
    f"noise (the 95 % interval, over training seeds, of the change of a least-squares line, or {SMALL:g} point; of "
    "several draws of the data, over the draws' means); a change smaller than the ± beside it goes unseen, so that "
    "yes says little where that is wide. A learning rate that falls to nothing (decay_steps) makes a score stand "
    "still by itself: there trials that are equal but for at most half the steps or at least twice as many, "
    "superseded ones included, must not be worse or better either, where there are any. What more steps brought, "
    "spread evenly over the logarithm of their number, is held to the same bounds: the last half, or as many again. A "
    f"share within {SMALL:g} point of 100 % has no further to rise. Of a value learner also: its Bellman backups "
    f"reach at least {ENOUGH:.0%} of the data's discounted return (share of value), and its mean Q over 4096 fixed "
    f"pairs of the data moves by less than {STILL:.0%} over the last third. Q over the data's discounted returns "
    "and their correlation are shown beside it; CQL's Q is low by design. Effective share: the effective sample "
    "size of the weights of a weighted imitation, over the batch. A contender that has not converged takes no "
    "part in bold, verdicts and counts, nor does one of which nothing is known: it was evaluated less than twice "
    "in that third, or bootstraps and its mean Q was not measured."
)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of the mean score over the end of training."""

    points: float
    interval: statistics.Interval | None  # 95 %, over training seeds or over draws of the data

    @property
    def noise(self) -> float | None:
        """Return half of the interval's width: a smaller change would go unseen."""
        return None if self.interval is None else self.interval.half_width

    @property
    def still(self) -> bool | None:
        """Return whether it is noise; None where nothing says so."""
        return _is_still(self.points, self.interval)


@dataclass(frozen=True, slots=True)
class Convergence:
    """How far the trials of one contender on one task had come; None where nothing was measured."""

    share: float | None = None  # of the data's discounted return that backups reach
    ratio: float | None = None  # mean Q over the data's mean discounted return
    correlation: float | None = None
    effective: float | None = None  # share of a batch that weighted imitation learns from
    value_change: float | None = None  # of the mean Q over the last third, relative to its size
    score: Change | None = None  # over the last third
    since_half: Change | None = None
    gain: Gain | None = None  # of a falling learning rate: over fewer steps
    more: Gain | None = None  # likewise, of more steps over these
    full: bool = False  # whether its score is a share that has no further to rise
    trained: bool = True  # False of a contender without gradient steps, which has nothing to finish

    @property
    def reason(self) -> str:
        """Return why it has not converged; "" where it has, or where nothing says otherwise."""
        if self.share is not None and self.share < ENOUGH:
            return f"{self.share:.0%} of value"
        if self.value_change is not None and abs(self.value_change) >= STILL:
            return f"Q moved by {100 * self.value_change:+.0f} %"
        if self.full:
            return ""
        if self.gain is not None and _is_still(self.gain.over_last(MIDDLE), self.gain.interval) is False:
            return f"{self.gain.change:+.1f} over {self.gain.fewer} steps"
        if self.more is not None and _is_still(self.more.over_last(MIDDLE), self.more.interval) is False:
            return f"{self.more.change:+.1f} with {self.more.steps} steps"
        if self.score is not None and self.score.still is False:
            return f"score moved by {self.score.points:+.1f}"
        if self.since_half is not None and self.since_half.still is False:
            return f"score moved by {self.since_half.points:+.1f} since half"
        return ""

    @property
    def unknown(self) -> str:
        """Return why nobody can say whether it has converged; "" where one can."""
        if self.reason or not self.trained:
            return ""
        if self.gain is None and (self.score is None or self.score.still is None):
            return "too few evaluations"
        return "mean Q not measured" if self.share is not None and self.value_change is None else ""

    @property
    def word(self) -> str:
        """Return yes, no with the reason, or unknown with the reason."""
        if not self.trained:
            return "yes: it does not learn"
        return f"no: {self.reason}" if self.reason else f"unknown: {self.unknown}" if self.unknown else "yes"


def convergences(
    records: Iterable[TrialRecord],
    scores: pd.DataFrame,
    draws: Mapping[str, Collection[str]] | None = None,
    superseded: Iterable[TrialRecord] = (),
    shares: Collection[str] = (),
) -> dict[tuple[str, str], Convergence]:
    """Return the convergence of every task and contender; `scores` has the columns of results.py, of all trials.

    `draws` name groups of tasks that are draws of the same data: their trials are also judged together. Trials of
    `superseded` are judged nowhere, but show what fewer or more steps gave. `shares` are tasks whose score is one in
    per cent.
    """
    cells = sorted(records, key=_cell)
    everyone = [*cells, *superseded]
    curves = _curves(everyone, scores)
    finals = {row: float(score[-1]) for row, (_, score) in curves.items() if len(score) and math.isfinite(score[-1])}

    def judged(trials: Sequence[TrialRecord]) -> Convergence:
        own = [(record.spec.task, *curves[row_of(record)]) for record in trials]
        ends = [finals[row_of(record)] for record in trials if row_of(record) in finals]
        full = {record.spec.task for record in trials} <= set(shares) and (_mean(ends) or 0) >= 100 - SMALL
        over_fewer, with_more = (find(trials, everyone, finals) for find in (gain, gain_with_more))
        return replace(_convergence(trials, own), gain=over_fewer, more=with_more, full=full)

    found = {}
    for name, over in (draws or {}).items():
        for contender in dict.fromkeys(record.spec.contender for record in cells):
            trials = [record for record in cells if record.spec.task in over and record.spec.contender == contender]
            if {record.spec.task for record in trials} == set(over):
                found[name, contender] = judged(trials)
    for cell, group in groupby(cells, key=_cell):
        found[cell] = judged(list(group))
    return found


def planned_share(spec: TrialSpec) -> float | None:
    """Return 1 - (1 - τ (1 - γ) / d)^n from hyperparameters alone; None where they are not a value learner's.

    For trials of before the share was measured.
    """
    given = spec.hyperparameters
    discount = given.get("discount")
    rate = given.get("tau") or (1 / given["target_every"] if given.get("target_every") else None)
    if not isinstance(discount, int | float) or not isinstance(rate, int | float) or not spec.train_steps:
        return None
    return float(1 - (1 - rate * (1 - discount)) ** (spec.train_steps / (given.get("policy_every") or 1)))


def late_evaluations(spec: TrialSpec) -> int:
    """Return how often a trial is evaluated over the last third of its training; enough where it does not train."""
    steps, every = spec.train_steps, spec.evaluation.every
    if not steps:
        return LATE_EVALUATIONS
    return steps // every - math.ceil(LAST * steps / every) + 1 + bool(steps % every)


def _cell(record: TrialRecord) -> tuple[str, str]:
    return record.spec.task, record.spec.contender


def _convergence(trials: Sequence[TrialRecord], curves: Sequence[tuple[str, Array, Array]]) -> Convergence:
    logged = [record.metrics() for record in trials]
    last = {
        name: _mean(
            [float(rows[name].dropna().iloc[-1]) for rows in logged if name in rows and rows[name].notna().any()]
        )
        for name in ("value_share", "value_ratio", "value_correlation", "effective_share")
    }
    share = last["value_share"]
    if share is None:
        share = _mean([planned for record in trials if (planned := planned_share(record.spec)) is not None])
    moved = [change for rows in logged if (change := _value_change(rows)) is not None]
    return Convergence(
        share=share,
        ratio=last["value_ratio"],
        correlation=last["value_correlation"],
        effective=last["effective_share"],
        value_change=_mean(moved),
        score=_change(curves, LAST),
        since_half=_change(curves, MIDDLE),
        trained=any(record.spec.train_steps for record in trials),
    )


def change_at_the_end(steps: Array, values: Array, since: float = LAST) -> float | None:
    """Return by how much the least-squares line of values rises after that share of the steps; None below two."""
    late = steps >= since * steps.max() if len(steps) else np.zeros(0, bool)
    if late.sum() < LATE_EVALUATIONS:
        return None
    steps, values = steps[late], values[late]
    return float(statistics.coefficient(steps, values) * (steps.max() - steps.min()))


def _change(curves: Sequence[tuple[str, Array, Array]], since: float) -> Change | None:
    found = [(task, change_at_the_end(steps, scores, since)) for task, steps, scores in curves]
    known = [(task, change) for task, change in found if change is not None and math.isfinite(change)]  # nan: a score
    if not known:
        return None
    tasks, changes = zip(*known, strict=True)
    return Change(*statistics.mean_over_draws(tasks, changes))


def _is_still(change: float, interval: statistics.Interval | None) -> bool | None:
    if abs(change) <= SMALL:
        return True
    return None if interval is None else interval.holds(0.0)


def _value_change(rows: pd.DataFrame) -> float | None:
    if "value_mean" not in rows:
        return None
    known = rows.dropna(subset=["value_mean"])
    values = known["value_mean"].to_numpy(np.float64)
    change = change_at_the_end(known["step"].to_numpy(np.float64), values)
    size = float(np.abs(values).max()) if len(values) else 0.0
    return None if change is None or not size else change / size


def _curves(trials: Iterable[TrialRecord], scores: pd.DataFrame) -> dict[Row, tuple[Array, Array]]:
    """Return steps and scores of each trial at the first of its targets; contenders may share trials."""
    of_trial = dict(list(scores.groupby("trial", sort=False)))
    curves = {}
    for record in trials:
        rows = of_trial.get(record.spec.key, scores.iloc[:0])
        rows = rows[rows["contender"] == record.spec.contender]
        targets = rows["target"].to_numpy(np.float64)
        asked = [target for target in record.spec.evaluation.targets if target in targets]
        rows = rows[targets == asked[0]] if asked else rows
        rows = rows.drop_duplicates("step").sort_values("step")
        curves[row_of(record)] = (rows["step"].to_numpy(np.float64), rows["score"].to_numpy(np.float64))
    return curves


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
