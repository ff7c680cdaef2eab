"""What searches cost and what they found: budgets, best settings, and the best to be expected of so many tried."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtbench.analysis.tables.table import DASH, Cell, Column, Table, number_cell
from dtbench.ledger.trial_spec import TrialState
from dtbench.tuning.search import Candidate, SearchConfig, SearchRecord


@dataclass(frozen=True, slots=True)
class ExpectedBest:
    """A curve: the best to be expected of n settings, for n from 1 to all that were tried."""

    task: str
    tried: str  # what counts as a setting
    values: tuple[float, ...]  # the scores that were found

    @property
    def curve(self) -> NDArray[np.float64]:
        """Return the best to be expected of 1, 2, ... settings."""
        return expected_best(self.values, np.arange(1, len(self.values) + 1))


def expected_best(values: Sequence[float], n: ArrayLike) -> NDArray[np.float64]:
    """Return E[max of n] for n values drawn with replacement: sum over v_(i) of v_(i) ((i/B)^n - ((i-1)/B)^n).

    v_(1) <= ... <= v_(B) are the values in order: the exact mean of the largest order statistic under their empirical
    distribution (Dodge et al. 2019, "Show Your Work", eq. 7 and 8).
    """
    ordered = np.sort(np.asarray(values, np.float64))
    share = np.arange(len(ordered) + 1) / len(ordered)
    powers = share[None, :] ** np.atleast_1d(np.asarray(n, np.float64))[:, None]
    return np.asarray(np.diff(powers, axis=1) @ ordered)


def expected_curves(record: SearchRecord) -> Iterator[ExpectedBest]:
    """Yield settings at the task's own target and, where several were tried, pairs of setting and target."""
    for task in record.config.tasks:
        scores = [one.by_target(record.config, task, one.last_step(record.config)) for one in record.candidates]
        targets: Sequence[float | None] = record.config.targets[task] or (None,)
        own = targets[0]
        at = "" if own is None else f" at the task's own target {own:g}"
        if found := _counted([one.get(own) for one in scores]):
            yield ExpectedBest(task, f"settings{at}", found)
        if len(targets) > 1 and (found := _counted([one.get(target) for one in scores for target in targets])):
            yield ExpectedBest(task, f"pairs of a setting and one of {len(targets)} targets", found)


def _counted(scores: Sequence[float | None]) -> tuple[float, ...]:
    """Return every score, the lowest one for those that are missing; () where all are."""
    found = [score for score in scores if score is not None]
    return tuple(min(found) if score is None else score for score in scores) if found else ()


def budget_table(records: Sequence[SearchRecord]) -> Table:
    """Return a row a search: what was tried, what it cost, how much of it early stopping saved."""
    names = ("Search", "Suite", "Contender", "Tasks", "Searcher", "Stopped early by")
    numbers = (
        "Samples",
        "Settings tried",
        "Trained to the end",
        "Failed",
        "Steps",
        "Of the full",
        "Episodes",
        "Minutes",
    )
    hidden = ("Suite", "Failed", "Episodes")  # of a page that has no room for all
    columns = (
        *(Column(name, shown=name not in hidden) for name in names),
        *(Column(name, number=True, shown=name not in hidden) for name in (*numbers, "Best")),
    )
    return Table("searches", "What was spent on tuning", columns, tuple(map(_budget_row, records)))


def best_table(record: SearchRecord, count: int) -> Table:
    """Return the best settings that a search found, those that were trained furthest first."""
    config = record.config
    names = tuple(config.space)
    tasks = config.tasks if len(config.tasks) > 1 else ()  # of one task the score says it
    numbers = ("Score", *tasks, "Target", "Steps")
    columns = [Column("Setting", number=True), *(Column(name, number=True) for name in numbers)]
    columns += [Column("State"), *map(Column, names)]
    rows = []
    for candidate in record.ranked()[:count]:
        score, setting = number_cell(candidate.objective(config)), candidate.hyperparameters
        number = Cell(str(candidate.number + 1), candidate.number + 1)
        steps = Cell(str(candidate.last_step(config)), candidate.last_step(config))
        values = [Cell(str(setting.get(name, DASH if setting else "suite's"))) for name in names]
        single = [number_cell(score_on(candidate, config, task)) for task in tasks]
        state = Cell(str(candidate.state))
        rows.append((number, score, *single, Cell(_targets(candidate, record)), steps, state, *values))
    where = ", ".join(config.tasks)
    caption = f"{record.name}: the best of {record.settings_tried} settings of {config.contender} on {where}"
    note = "Scores are means over tuning episodes, at each setting's best target; the settings were chosen by them."
    return Table(f"search-{record.name}", caption, tuple(columns), tuple(rows), (note,))


def score_on(candidate: Candidate, config: SearchConfig, task: str) -> float | None:
    """Return a candidate's last score on one task, at its best target; None without a score."""
    return max(candidate.by_target(config, task, candidate.last_step(config)).values(), default=None)


def _budget_row(record: SearchRecord) -> tuple[Cell, ...]:
    config, candidates = record.config, record.candidates
    stopped = {"none": DASH, "asha": "ASHA", "halving": "successive halving"}[config.scheduler]
    done = sum(one.state == TrialState.DONE for one in candidates)
    failed = sum(one.state in (TrialState.FAILED, TrialState.DIVERGED) for one in candidates)
    full = record.num_samples * config.full_steps
    counts = (len(candidates), record.settings_tried, done, failed, record.steps)
    episodes, minutes = sum(one.episodes for one in candidates), sum(one.seconds for one in candidates) / 60
    return (
        *map(Cell, (record.name, config.suite, config.contender, ", ".join(config.tasks))),
        *(Cell(config.searcher), Cell(stopped)),
        *(Cell(str(count), count) for count in counts),
        Cell(f"{100 * record.steps / full:.0f} %", record.steps / full),
        *(Cell(str(episodes), episodes), number_cell(minutes)),
        number_cell(record.best.objective(config) if record.best else None),
    )


def _targets(candidate: Candidate, record: SearchRecord) -> str:
    found = candidate.targets(record.config)
    targets = [DASH if target is None else f"{target:g}" for target in found.values()]
    return targets[0] if len(set(targets)) == 1 else ", ".join(targets) or DASH
