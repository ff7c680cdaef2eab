"""Two contenders compared on common evaluation seeds: the difference, its verdict, and how many seeds would decide.

Episodes of one evaluation seed begin alike for everyone, so that their luck cancels from a difference. Training seeds
are not paired: seed 3 of one algorithm has nothing but its name in common with seed 3 of another.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtbench.analysis import statistics
from dtbench.analysis.published import NOT_RUN
from dtbench.analysis.results import same
from dtbench.analysis.seeds_to_decide import MOST, hidden_by_episodes, seeds_to_decide, spread_of
from dtbench.analysis.settings_tried import UNEQUAL, unequal
from dtbench.analysis.statistics import LEVEL, MARGIN, MIN_SEEDS, Array, Deviation, Interval
from dtbench.analysis.suite_analysis import TableInputs
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number_cell, with_interval
from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import TrialState

Key = TypeVar("Key")

FEW = f"fewer than {MIN_SEEDS} seeds"  # why a pair is undecided
ALPHA = 1 - LEVEL  # error rate of all verdicts of a table together

PAIR_RULE = (
    "Difference: mean score of the first less that of its rival over the evaluation episodes that all of their trials "
    "have in common. Interval: 95 %, Welch's t over training seeds, plus the variance of the episodes' luck, which is "
    "the same for all seeds; none with one training seed on a side. Of a mean over draws of the same data: Student's "
    f"t over the draws' differences. A pair is decided only with at least {MIN_SEEDS} training seeds on either side "
    "and both converged, and not in favour of a side of which recorded searches tried more settings; a match needs "
    "equal numbers. Above and below: p of Welch's test at most 0.05 after Holm's correction for all pairs of the "
    "table. Match: two one-sided tests at {margin:g} points either way, "
    "corrected likewise. P: chance that a training seed of the first has the higher mean. More seeds: for each side, "
    "so that four of five repetitions would decide if means and spreads stay as they are (normal approximation, the "
    f"error rate divided by the pairs that can be decided), and {MIN_SEEDS} in all at least. Where the episodes' luck "
    "alone hides the difference, more episodes are needed first; where a side is not known to have converged, or the "
    "one ahead was searched more, no number of seeds decides."
)

PAIR_RULE_WITHOUT_MARGIN = PAIR_RULE.replace(
    "Match: two one-sided tests at {margin:g} points either way, corrected likewise. ",
    "Nothing matches: the scores have no margin that the suite declares. ",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one contender scores above another on the same evaluation episodes."""

    mean: float
    interval: Interval | None  # None with one training seed on a side: it says nothing of the next training
    ours_seeds: int
    theirs_seeds: int
    episodes: int
    deviation: Deviation  # the same with its standard error


@dataclass(frozen=True, slots=True)
class Verdict:
    """Above, below, match or undecided, and why not more."""

    kind: str
    why: str = ""  # of undecided: few seeds, who has not converged, or unequal tuning
    lopsided: bool = False  # whether unequal tuning would forbid a decision for the side that is ahead

    @property
    def decided(self) -> bool:
        """Return whether the pair is decided."""
        return self.kind != "undecided"


def verdicts(
    found: Mapping[Key, Difference],
    *,
    margin: float | None,
    barred: Mapping[Key, str],
    tried: Mapping[Key, tuple[int, int]] | None = None,
) -> dict[Key, Verdict]:
    """Return the verdict of every pair of a table, all of which share the error rate ALPHA.

    `barred` are pairs that must stay undecided, with the reason; `tried` says how many settings searches tried for
    either side. Without a `margin` nothing matches.
    """
    able = [
        key
        for key, one in found.items()
        if key not in barred and one.interval is not None and min(one.ours_seeds, one.theirs_seeds) >= MIN_SEEDS
    ]
    different = dict(zip(able, statistics.holm([found[key].deviation.p_of_none() for key in able]), strict=True))
    beyond = [1.0 if margin is None else found[key].deviation.p_of_more_than(margin) for key in able]
    equal = dict(zip(able, statistics.holm(beyond), strict=True))
    made = {}
    for key, one in found.items():
        if key in barred:
            made[key] = Verdict("undecided", barred[key])
        elif key not in different:
            made[key] = Verdict("undecided", FEW)
        elif equal[key] <= ALPHA:
            made[key] = Verdict("match")
        elif different[key] <= ALPHA:
            made[key] = Verdict("above" if one.mean > 0 else "below")
        else:
            made[key] = Verdict("undecided")
        settings = (tried or {}).get(key, (0, 0))
        if why := unequal(made[key].kind, *settings):
            made[key] = Verdict("undecided", why)
        elif not made[key].decided:
            made[key] = replace(made[key], lopsided=bool(unequal("above" if one.mean > 0 else "below", *settings)))
    return made


@dataclass(frozen=True, slots=True)
class Pair:
    """Complete scores of [training seeds, episodes] of both sides, whose columns are the same evaluation seeds."""

    ours: Array
    theirs: Array


def mean_difference(pairs: Sequence[Pair], *, over_draws: bool = False) -> Difference:
    """Return the difference averaged over tasks; of seeds and episodes, the fewest that a task has.

    Its variance is that of each side's training seeds and of the luck of the episodes that both played, of each task.
    Of a mean over draws of the same data it is that of the draws' differences, in which all of these are.
    """
    differences = [float(pair.ours.mean() - pair.theirs.mean()) for pair in pairs]
    mean = float(np.mean(differences))
    repeated = over_draws or all(min(len(pair.ours), len(pair.theirs)) > 1 for pair in pairs)
    if over_draws:
        parts = [statistics.mean_part(differences)]
    else:
        parts = [p for one in pairs for p in spread_of(one.ours, one.theirs).parts(len(pairs))] if repeated else []
    return Difference(
        mean=mean,
        interval=statistics.t_interval(mean, parts) if repeated else None,
        ours_seeds=min(len(pair.ours) for pair in pairs),
        theirs_seeds=min(len(pair.theirs) for pair in pairs),
        episodes=min(pair.ours.shape[1] for pair in pairs),
        deviation=statistics.deviation(mean, parts),
    )


def pair_table(
    records: Iterable[TrialRecord],
    finals: pd.DataFrame,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    averages: Mapping[str, Sequence[str]] | None = None,
    inputs: TableInputs | None = None,
    margin: float | None = MARGIN,
) -> Table | None:
    """Return the first contender against each other one on each task; None where nobody can be compared.

    A row of `finals` says which step and target of a trial count. `averages` are names of sets of tasks on one scale:
    rows of the mean difference over them, whose verdicts are a family of their own.
    """
    known = inputs or TableInputs()
    first, *rivals = contenders
    played = _played(records, finals)
    pairs = _pairs(played, tasks, contenders)
    if not pairs:
        return None
    single = {key: [pair] for key, pair in pairs.items()}
    decided = _verdicts_of(first, single, known, margin)
    tests = _tests(decided)
    rows = [
        _row(first, (task, rival), single[task, rival], known, decided[task, rival], tests)
        if (task, rival) in pairs
        else _empty_row(task, rival, _why_not(task, (first, rival), played, known))
        for task, rival in itertools.product(tasks, rivals)
    ]
    means = {
        (name, rival): [pairs[task, rival] for task in over]
        for name, over in (averages or {}).items()
        for rival in rivals
        if over and all((task, rival) in pairs for task in over)
    }
    decided = _verdicts_of(first, means, known, margin)
    tests = _tests(decided)
    rows += [_row(first, key, parts, known, decided[key], tests) for key, parts in means.items()]
    caption = f"{first} against each rival on common evaluation seeds"
    rule = PAIR_RULE.format(margin=margin) if margin is not None else PAIR_RULE_WITHOUT_MARGIN
    return Table("pairs", caption, _columns(first), tuple(rows), (rule,))


def pair_outcomes(
    records: Iterable[TrialRecord],
    finals: pd.DataFrame,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    inputs: TableInputs,
    margin: float | None = MARGIN,
) -> dict[tuple[str, str], tuple[Difference, Verdict]]:
    """Return the differences of `pair_table` with their verdicts, by (task, rival), of those that both ran.

    Tasks that are draws of the same data count once, under the name of their average.
    """
    single = _pairs(_played(records, finals), tasks, contenders)
    found = {key: [pair] for key, pair in single.items()}
    for (name, over), rival in itertools.product(inputs.over_draws.items(), contenders[1:]):
        if all((task, rival) in found for task in over):
            found[name, rival] = [single[task, rival] for task in over]
            found = {key: parts for key, parts in found.items() if key[0] not in over or key[1] != rival}
    decided = _verdicts_of(contenders[0], found, inputs, margin)
    return {
        key: (mean_difference(parts, over_draws=key[0] in inputs.over_draws), decided[key])
        for key, parts in found.items()
    }


def _verdicts_of(
    first: str, pairs: Mapping[tuple[str, str], Sequence[Pair]], inputs: TableInputs, margin: float | None
) -> dict[tuple[str, str], Verdict]:
    barred = {}
    for task, rival in pairs:
        bars = {name: inputs.status(task, name).bar for name in (first, rival)}
        if late := [f"{name}: {bar}" for name, bar in bars.items() if bar]:
            barred[task, rival] = ", ".join(late)
    found = {key: mean_difference(parts, over_draws=key[0] in inputs.over_draws) for key, parts in pairs.items()}
    tried = {
        (task, rival): (inputs.tried.get((task, first), 0), inputs.tried.get((task, rival), 0))
        for task, rival in pairs
    }
    return verdicts(found, margin=margin, barred=barred, tried=tried)


@dataclass(frozen=True, slots=True)
class _Played:
    """A trial's last episodes at its headline target: evaluation seeds, rising, and their scores."""

    seeds: NDArray[np.int64]
    scores: Array


def _tests(decided: Mapping[tuple[str, str], Verdict]) -> int:
    """Return how many pairs share the error rate, were there seeds enough: those that convergence does not bar."""
    return sum(one.decided or one.why in ("", FEW) or one.why.startswith(UNEQUAL) for one in decided.values())


def _played(records: Iterable[TrialRecord], finals: pd.DataFrame) -> dict[tuple[str, str], list[_Played]]:
    """Return the last episodes of every trial that has a row in `finals`, by task and contender."""
    columns = (finals[name].tolist() for name in ("contender", "trial", "step", "target"))
    wanted = {(contender, trial): (step, target) for contender, trial, step, target in zip(*columns, strict=True)}
    keyed = [(record.spec.seed, record.spec.key, record) for record in records]
    played: dict[tuple[str, str], list[_Played]] = {}
    for _, key, record in sorted(keyed, key=lambda row: row[:2]):
        task, contender = record.spec.task, record.spec.contender
        if (contender, key) in wanted:
            own = _last_episodes(record.episodes(), *wanted[contender, key])
            played.setdefault((task, contender), []).append(own)
    return played


def _last_episodes(episodes: pd.DataFrame, step: int, target: float) -> _Played:
    """Return scores at a step and target; an evaluation seed that was played twice counts by its mean."""
    scores = episodes["score"].to_numpy(np.float64)
    chosen = (episodes["step"].to_numpy() == step) & same(episodes["target"], target) & ~np.isnan(scores)
    seeds, index, times = np.unique(episodes["seed"].to_numpy()[chosen], return_inverse=True, return_counts=True)
    return _Played(seeds, np.bincount(index, weights=scores[chosen], minlength=len(seeds)) / times)


def _common(ours: Sequence[_Played], theirs: Sequence[_Played]) -> tuple[Array, Array] | None:
    """Return scores of [training seeds, common episodes]; None where there is no such episode."""
    both = [*ours, *theirs]
    if not ours or not theirs:
        return None
    if all(np.array_equal(trial.seeds, both[0].seeds) for trial in both):
        scores = np.stack([trial.scores for trial in both])
    else:
        common = reduce(np.intersect1d, (trial.seeds for trial in both))
        scores = np.stack([trial.scores[np.isin(trial.seeds, common)] for trial in both])
    return (scores[: len(ours)], scores[len(ours) :]) if scores.size else None


def _pairs(
    played: Mapping[tuple[str, str], Sequence[_Played]], tasks: Sequence[str], contenders: Sequence[str]
) -> dict[tuple[str, str], Pair]:
    first, *rivals = contenders
    pairs = {}
    for task, rival in itertools.product(tasks, rivals):
        sides = _common(played.get((task, first), []), played.get((task, rival), []))
        if sides is not None:
            pairs[task, rival] = Pair(*sides)
    return pairs


def _row(
    first: str, key: tuple[str, str], pairs: Sequence[Pair], inputs: TableInputs, verdict: Verdict, tests: int
) -> tuple[Cell, ...]:
    """Return the row of a task, or of the mean of several, and a rival."""
    name, rival = key
    found = mean_difference(pairs, over_draws=name in inputs.over_draws)
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return (
        Cell(name),
        Cell(rival),
        Cell(with_interval(found.mean, found.interval), found.mean),
        number_cell(low),
        number_cell(high),
        _probability_cell(pairs),
        replace(number_cell(found.ours_seeds, 0), link=inputs.status(name, first).link),
        replace(number_cell(found.theirs_seeds, 0), link=inputs.status(name, rival).link),
        number_cell(found.episodes, 0),
        _verdict_cell(first, verdict),
        _plan_cell(found, pairs, verdict, tests, over_draws=name in inputs.over_draws),
    )


def _probability_cell(pairs: Sequence[Pair]) -> Cell:
    sides = [_seed_means([pair.ours for pair in pairs]), _seed_means([pair.theirs for pair in pairs])]
    chance = statistics.probability_of_improvement
    value = float(chance(*sides))
    return Cell(with_interval(value, statistics.bootstrap_interval(chance, *sides), 2), value)


def _seed_means(scores: Sequence[Array]) -> Array:
    """Return training seeds x tasks from each task's training seeds x episodes, nan where a task has fewer."""
    means = np.full((max(map(len, scores)), len(scores)), np.nan)
    for task, own in enumerate(scores):
        means[: len(own), task] = own.mean(axis=1)
    return means


def _verdict_cell(first: str, verdict: Verdict) -> Cell:
    words = {"above": f"{first} is above", "below": f"{first} is below", "match": "they match"}
    text = words.get(verdict.kind, verdict.kind)
    return Cell(f"{text}: {verdict.why}" if verdict.why else text, kind=verdict.kind)


def _plan_cell(
    found: Difference, pairs: Sequence[Pair], verdict: Verdict, tests: int, *, over_draws: bool = False
) -> Cell:
    if found.interval is None or found.mean == 0 or over_draws:
        return hole()
    if verdict.decided:
        return Cell("0", 0)
    tuning = verdict.why.startswith(UNEQUAL)
    if verdict.why not in ("", FEW) and not tuning:
        return Cell("convergence first")
    if tuning or verdict.lopsided:
        return Cell("equal tuning first")
    spreads = [spread_of(pair.ours, pair.theirs) for pair in pairs]
    more = seeds_to_decide(spreads, tests)
    if more is not None:
        more = max(more, MIN_SEEDS - min(found.ours_seeds, found.theirs_seeds))
        return Cell(str(more), more)
    return Cell("more episodes first" if hidden_by_episodes(spreads, tests) else f"over {MOST}")


def _why_not(
    task: str, sides: Sequence[str], played: Mapping[tuple[str, str], Sequence[_Played]], inputs: TableInputs
) -> str:
    absent = [name for name in sides if (task, name) not in played]
    lost = [name for name in absent if inputs.status(task, name).diverged]
    reasons = {TrialState.DIVERGED: lost, NOT_RUN: [name for name in absent if name not in lost]}
    return ", ".join(f"{' and '.join(names)} {why}" for why, names in reasons.items() if names) or "no common episodes"


def _empty_row(task: str, rival: str, why_not: str) -> tuple[Cell, ...]:
    return (Cell(task), Cell(rival), *[hole()] * 7, Cell(why_not, kind="hole"), hole())


def _columns(first: str) -> tuple[Column, ...]:
    def numbers(*names: str, shown: bool = True) -> Iterator[Column]:
        return (Column(name, number=True, shown=shown) for name in names)

    return (
        Column("Task"),
        Column("Rival"),
        *numbers("Difference"),
        *numbers("95% low", "95% high", shown=False),
        *numbers(f"P({first} is above)", f"Seeds of {first}", "Seeds of the rival", "Common episodes"),
        Column("Verdict"),
        *numbers("More seeds to decide"),
    )
