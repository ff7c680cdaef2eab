"""Rules by which one number is made of a trial's evaluations, read from the same episodes; the first one counts."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.results import headline_rows
from dtbench.analysis.statistics import Estimate
from dtbench.analysis.suite_analysis import matrix_of
from dtbench.analysis.tables.diverged import not_on_every_task
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, with_interval

LAST_EVALUATIONS = 3

RULES = {
    "last": "Last checkpoint",
    "best": "Best over training",
    "mean": f"Mean of the last {LAST_EVALUATIONS}",
    "target": "Highest fixed target",
}

RULES_NOTE = (
    "All rules read the same trials. The last checkpoint counts everywhere else in this report. Best over training: "
    "the highest of a trial's evaluations at its headline target. Mean of the last "
    f"{LAST_EVALUATIONS}: of a trial's last {LAST_EVALUATIONS} evaluations at its headline target, of all where there "
    "are fewer. Highest fixed target: the last checkpoint at that of the targets set beforehand which has the highest "
    "mean over seeds, chosen for each task; contenders that take no target keep their score. Best and highest are "
    "chosen with the environment at hand, which offline learning does not have. Ranks are among the contenders that "
    "ran on every task; brackets are 95 % intervals by Student's t, over seeds, or over draws of the same data."
)


def rule_rows(scores: pd.DataFrame, finals: pd.DataFrame, fixed: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Return a row a trial: task, contender, seed, score under each of RULES; `fixed` are the targets of each trial.

    `scores` are all evaluations, `finals` a row a trial as in the score table.
    """
    headline = headline_rows(scores, finals).sort_values("step", kind="stable")
    groups = headline.groupby(["contender", "trial"])["score"]
    late = groups.apply(lambda own: own.iloc[-LAST_EVALUATIONS:].mean())
    rows = finals[["task", "contender", "seed", "trial"]].copy()
    keys = pd.MultiIndex.from_frame(rows[["contender", "trial"]])
    rows["last"] = finals["score"].to_numpy(np.float64)
    rows["best"] = groups.max().reindex(keys).to_numpy(np.float64)
    rows["mean"] = late.reindex(keys).to_numpy(np.float64)
    rows["target"] = _at_highest_target(scores, rows, fixed)
    return rows


def rule_table(
    rows: pd.DataFrame,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    name: str = "rules",
    note: str = RULES_NOTE,
    diverged: Collection[str] = (),
    draws: bool = False,
) -> Table | None:
    """Return each contender's average over tasks of one scale and rank under each rule; None with fewer than two.

    `diverged` are contenders that may miss a task for that reason; `draws` says that tasks are draws of the same data.
    """
    averages = {rule: _averages(rows, rule, tasks, contenders, draws=draws) for rule in RULES}
    if len(averages["last"]) < 2:
        return None
    ranks = {rule: _ranks(found) for rule, found in averages.items()}
    body = [
        (Cell(who), *(cell for rule in RULES for cell in _cells(averages[rule], ranks[rule], who, diverged)))
        for who in contenders
    ]
    columns = [Column("Contender")]
    for title in RULES.values():
        columns += [Column(title, number=True), Column(f"Rank ({title[0].lower()}{title[1:]})", number=True)]
    notes = (*_sentences(averages), *filter(None, [note]))
    return Table(name, _caption(tasks), tuple(columns), tuple(body), notes)


def _at_highest_target(scores: pd.DataFrame, rows: pd.DataFrame, fixed: Mapping[str, Sequence[float]]) -> Any:
    """Return the last score at the fixed target with the highest mean over the seeds of a task and contender."""
    last = scores[scores["step"] == scores.groupby(["contender", "trial"])["step"].transform("max")]
    asked = last[[target in fixed.get(trial, ()) for trial, target in zip(last["trial"], last["target"], strict=True)]]
    means = asked.groupby(["task", "contender", "target"])["score"].mean().reset_index()
    chosen = means.sort_values(["score", "target"], kind="stable").drop_duplicates(["task", "contender"], keep="last")
    at = asked.merge(chosen[["task", "contender", "target"]]).set_index(["contender", "trial"])["score"]
    keys = pd.MultiIndex.from_frame(rows[["contender", "trial"]])
    return at.reindex(keys).fillna(pd.Series(rows["last"].to_numpy(), index=keys)).to_numpy(np.float64)


def _averages(
    rows: pd.DataFrame, rule: str, tasks: Sequence[str], contenders: Sequence[str], *, draws: bool
) -> dict[str, Estimate]:
    """Return the averages of the contenders that ran on every task."""
    average = statistics.draws_estimate if draws else statistics.matrix_estimate
    found = {name: average(matrix_of(rows[rows["contender"] == name], tasks, rule)) for name in contenders}
    return {name: ours for name, ours in found.items() if ours}


def _ranks(averages: Mapping[str, Estimate]) -> dict[str, int]:
    """Return ranks from 1 for the highest; equal means share the better rank."""
    means = [ours.mean for ours in averages.values()]
    return {name: 1 + sum(other > ours.mean for other in means) for name, ours in averages.items()}


def _cells(
    averages: Mapping[str, Estimate], ranks: Mapping[str, int], who: str, diverged: Collection[str]
) -> tuple[Cell, Cell]:
    if who not in averages:
        return Cell(not_on_every_task(diverged=who in diverged), kind="hole"), hole()
    average, rank = averages[who], ranks[who]
    return Cell(with_interval(average.mean, average.interval), average.mean), Cell(str(rank), rank)


def _sentences(averages: Mapping[str, Mapping[str, Estimate]]) -> Iterator[str]:
    """Yield whether the order of the contenders depends on the rule."""
    ranks = {rule: _ranks(found) for rule, found in averages.items()}
    others = [rule for rule in RULES if rule != "last" and ranks[rule] != ranks["last"]]
    if not others:
        yield f"The order of the contenders is the same under every rule: {_order(ranks['last'])}."
        return
    yield f"The order of the contenders depends on the rule. Last checkpoint: {_order(ranks['last'])}."
    for rule in others:
        yield f"{RULES[rule]}: {_order(ranks[rule])}."


def _order(ranks: Mapping[str, int]) -> str:
    names = sorted(ranks, key=lambda name: ranks[name])
    links = [" = " if ranks[a] == ranks[b] else ", " for a, b in itertools.pairwise(names)]
    return "".join(name + link for name, link in zip(names, [*links, ""], strict=True))


def _caption(tasks: Sequence[str]) -> str:
    over = f"average score over {len(tasks)} tasks" if len(tasks) > 1 else f"score on {tasks[0] if tasks else DASH}"
    return f"Does the ranking depend on the rule? The {over} and the rank under each"
