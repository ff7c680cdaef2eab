"""What every table and figure of a suite is made from, gathered once."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.figures import Scene
from dtbench.analysis.published import Circumstances, PublishedTable, published_tables
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.tables import scores as tables
from dtbench.analysis.tables import targets
from dtbench.analysis.tables.diverged import diverged_of, diverged_text
from dtbench.analysis.tables.protocol import contenders, order_of
from dtbench.ledger.store import DIVERGED, TrialRecord

RAW = "raw return"  # how the name of a score without references begins: no two tasks' returns have a scale in common

MIXED_RULE = (
    "The tasks are scored on {} scales, which their names say. Nothing is averaged over tasks of different ones."
)


def scales_of(tasks: Sequence[str], score_names: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """The tasks in groups of one scale each, both in the suite's order: those whose scores have the same name.

    A task that has not run tells no name: it belongs to the others where they have but one scale, else to nobody.
    """
    groups: dict[str, list[str]] = {}
    for task in tasks:
        if name := score_names.get(task):
            groups.setdefault(f"{name} of {task}" if name.startswith(RAW) else name, []).append(task)
    if len(groups) <= 1 and not any(name.startswith(RAW) for name in groups):
        return (tuple(tasks),)
    return (*map(tuple, groups.values()), *((task,) for task in tasks if task not in score_names))


def averages_of(
    scales: Sequence[tuple[str, ...]], score_names: Mapping[str, str], ran: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """By name, the averages over the tasks of each scale: over all and over those that `ran`, if two or more."""
    found = {}
    for scale in (scale for scale in scales if len(scale) > 1):
        told = "" if len(scales) == 1 else f", {score_names[scale[0]]}"
        finished = tuple(task for task in scale if task in ran)
        found[f"average over {len(scale)} tasks{told}"] = scale
        if 1 < len(finished) < len(scale):
            found[f"average over the {len(finished)} tasks that ran{told}"] = finished
    return found


_FACTS = ("successes", "reached", "novel", "novel_reached")


@dataclass(frozen=True, slots=True)
class Material:
    """The results of a suite, and what follows from them for every section and figure."""

    results: SuiteResults
    scene: Scene
    tasks: Sequence[str]
    averages: Mapping[str, tuple[str, ...]]  # means over tasks, by name: the suite's and those that papers print
    estimates: tables.Estimates  # averages included
    published: Sequence[PublishedTable]
    provenance: Mapping[str, Mapping[str, Any]]  # by task: that of one of its trials
    scales: Sequence[tuple[str, ...]]  # the tasks in groups of one scale
    broken: tuple[TrialRecord, ...] = ()  # finished, but with a score that is no number: counted as missing

    @property
    def told_scores(self) -> Mapping[str, str]:
        """The names of scores that must stand beside their tasks: those of all where there are several scales."""
        return self.scene.score_names if len(self.scales) > 1 else {}

    @property
    def missing(self) -> tables.Counts:
        """Trials without a number, by task and contender."""
        specs = [*self.results.not_run, *(record.spec for record in self.broken)]
        return Counter((spec.task, spec.contender) for spec in specs)

    @property
    def diverged(self) -> tables.Counts:
        """Trials without a number because they diverged, by task and contender."""
        return self.scene.diverged

    @property
    def diverged_told(self) -> tuple[str, ...]:
        """A sentence that names the cells where trials diverged; none where none did."""
        finals = self.scene.finals
        finished = Counter(zip(finals["task"], finals["contender"], strict=True))
        return diverged_text(self.diverged, self.missing, finished)

    @property
    def links(self) -> Mapping[tuple[str, str], str]:
        """By task and contender, the cell that a number belongs to; several where hyperparameters were changed."""
        lost = [trial.spec for trial in self.results.unfinished if trial.state == DIVERGED]
        specs = [*lost, *(record.spec for record in self.results.records)]
        return {(spec.task, spec.contender): spec.cell for spec in specs}

    @property
    def ran(self) -> list[str]:
        """The tasks with at least one number."""
        finished = set(self.scene.finals["task"])
        return [task for task in self.tasks if task in finished]

    @property
    def shown_averages(self) -> list[str]:
        """One name for each set of tasks, a paper's before our own, and only where all its tasks are the suite's."""
        names = {over: name for name, over in self.averages.items() if set(over) <= set(self.tasks)}
        return list(names.values())

    def matrices(self, over: Sequence[str]) -> dict[str, statistics.Array]:
        """Each contender's scores as seeds x tasks, nan where a trial is missing."""
        return matrices_of(self.scene.finals, self.scene.contenders, over)


def gather(results: SuiteResults) -> Material:
    """Everything that sections and figures need, from the results of a suite with at least one finished trial."""
    everyone, suite = final_rows(results), results.suite
    finals = everyone[everyone["score"].notna()].reset_index(drop=True)
    bad = set(everyone.loc[everyone["score"].isna(), "trial"])
    tasks = list(suite.get("tasks") or sorted(set(everyone["task"])))
    provenance = {record.spec.task: record.provenance for record in results.records}
    about = {task: (facts.get("task") or {}) for task, facts in provenance.items()}
    published = published_tables(suite)
    score_names = {task: str(facts.get("score_name") or "score") for task, facts in about.items()}
    groups = scales_of(tasks, score_names)
    averages = averages_of(groups, score_names, set(finals["task"]))
    for table in published:
        averages |= table.averages
    scene = Scene(
        contenders=list(contenders(results)),
        scores=results.scores,
        finals=finals,
        score_names=score_names,
        circumstances=circumstances_of(results, averages),
        smoke=suite.get("preset") == "smoke",
        diverged=diverged_of(results.unfinished),
    )
    estimates = dict(tables.estimates_of(finals))
    for name, over in averages.items():
        for contender, scores in matrices_of(finals, scene.contenders, over).items():
            if average := statistics.matrix_estimate(scores):
                estimates[name, contender] = average
    broken = tuple(record for record in results.records if record.spec.key in bad)
    return Material(results, scene, tasks, averages, estimates, published, provenance, groups, broken)


def final_rows(results: SuiteResults) -> pd.DataFrame:
    """A row a trial, in the suite's order: its last checkpoint at its headline target, as in the score table.

    Added columns: `successes` (episodes that scored 100; nan where scores are not all 0 or 100) and, in per cent
    and nan where the task has no paths, `reached`, `novel`, `novel_reached`.
    """
    scores, order = results.scores, order_of(results)
    last = scores[scores["step"] == scores.groupby(["contender", "trial"])["step"].transform("max")]
    asked = last.groupby(["contender", "trial"], sort=False)["target"].agg(list).to_dict()
    headline = {
        place: headline_target(record, asked[place])
        for record in results.records
        if (place := (record.spec.contender, record.spec.key)) in asked
    }
    wanted = [headline[place] for place in zip(last["contender"], last["trial"], strict=True)]
    rows = last[_equal(last["target"], np.asarray(wanted, float))]
    facts = _episode_facts(_behind(results, rows))
    rows = rows.join(facts, on="trial")
    places = sorted(
        zip(rows["task"], rows["contender"], rows["seed"], rows.index, strict=True), key=lambda p: order(*p[:3])
    )
    return rows.loc[[place[3] for place in places]].reset_index(drop=True)


def headline_target(record: TrialRecord, found: Sequence[float]) -> float:
    """The first target listed for the trial that was evaluated, else the first that was; nan where it takes none."""
    present = [target for target in found if not np.isnan(target)]
    asked = [target for target in record.spec.evaluation.targets if target in present]
    return (asked or present or [np.nan])[0]


def final_episodes(record: TrialRecord, step: int, target: float) -> pd.DataFrame:
    """The episodes behind a row of `final_rows`."""
    episodes = record.episodes()
    return episodes[(episodes["step"] == step) & same(episodes["target"], target)]


def all_targets(material: Material) -> list[targets.TaskTargets]:
    """What was asked and achieved on each task where somebody was asked for two targets."""
    names, records = material.scene.contenders, material.results.records
    found = (targets.task_targets(records, task, names) for task in material.tasks)
    return [one for one in found if one]


def matrices_of(finals: pd.DataFrame, names: Sequence[str], over: Sequence[str]) -> dict[str, statistics.Array]:
    """Scores as seeds x tasks, by contender."""
    matrices = {}
    for name in names:
        own = finals[finals["contender"] == name]
        pivot = own.pivot_table(index="seed", columns="task", values="score").reindex(columns=list(over))
        matrices[name] = pivot.to_numpy(np.float64)
    return matrices


def circumstances_of(results: SuiteResults, averages: Mapping[str, Sequence[str]]) -> dict[str, Circumstances]:
    """Of each task that ran, and of each average over such tasks."""
    smoke = results.suite.get("preset") == "smoke"
    groups = {record.spec.task: [record.spec.task] for record in results.records}
    found = {}
    for name, over in {**groups, **averages}.items():
        records = [record for record in results.records if record.spec.task in over]
        found[name] = Circumstances(
            source=", ".join(sorted({record.spec.dataset_source for record in records})),
            physics=_stamps(records, "physics"),
            protocol=_stamps(records, "protocol"),
            smoke=smoke,
        )
    return found


def same(targets: pd.Series, target: float) -> Any:
    """Which rows are of this target; nan means no target."""
    return targets.isna() if np.isnan(target) else targets == target


def _stamps(records: Sequence[TrialRecord], kind: str) -> str:
    """What was chosen for the tasks of these trials, or what the names of their scores say that they do by default."""
    found = set()
    for record in records:
        named = re.search(rf"\({kind} ([^()]+)\)", str((record.provenance.get("task") or {}).get("score_name") or ""))
        if kind in record.spec.task_options:
            found.add(str(record.spec.task_options[kind]))
        elif named:
            found.add(named[1])
    return ", ".join(sorted(found))


def _behind(results: SuiteResults, rows: pd.DataFrame) -> pd.DataFrame:
    """The episodes of every trial at its row's step and target."""
    first = rows.drop_duplicates("trial").set_index("trial")
    episodes = results.episodes.rows
    trials = episodes["trial"].astype(str)
    known = trials.isin(first.index)
    episodes, trials = episodes[known], trials[known]
    steps, targets = first["step"].reindex(trials).to_numpy(), first["target"].reindex(trials).to_numpy(float)
    return episodes[(episodes["step"].to_numpy() == steps) & _equal(episodes["target"], targets)]


def _episode_facts(episodes: pd.DataFrame) -> pd.DataFrame:
    """_FACTS of every trial."""
    by_trial = episodes["trial"].astype(str)
    won = (episodes["score"] == 100).astype(float)
    binary = episodes["score"].isin([0.0, 100.0]).groupby(by_trial).all()
    facts = pd.DataFrame({"successes": won.groupby(by_trial).sum().where(binary)})
    for name in _FACTS[1:]:
        facts[name] = np.nan
    if {"reached", "novel"} <= set(episodes.columns):
        on_paths = episodes["reached"].notna() & episodes["novel"].notna()
        paths = episodes[on_paths].astype({"reached": float, "novel": float})
        groups = paths.groupby(by_trial[on_paths])
        facts["reached"], facts["novel"] = 100 * groups["reached"].mean(), 100 * groups["novel"].mean()
        arrived = paths[paths["reached"] == 1]
        facts["novel_reached"] = 100 * arrived.groupby(by_trial[arrived.index])["novel"].mean()
    return facts


def _equal(targets: pd.Series, wanted: Any) -> Any:
    """Row by row; nan means no target."""
    found = targets.to_numpy(float)
    return (found == wanted) | (np.isnan(found) & np.isnan(wanted))
