"""What every table and figure of a suite is made from, gathered once."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import scales, statistics, tables, targets
from dtbench.analysis.diverged import DIVERGED, diverged_of, diverged_text
from dtbench.analysis.figures import Scene
from dtbench.analysis.page import contenders, order_of
from dtbench.analysis.published import Circumstances, PublishedTable, published_tables
from dtbench.analysis.scores import SuiteResults
from dtbench.ledger import TrialRecord

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
    groups = scales.scales_of(tasks, score_names)
    averages = scales.averages_of(groups, score_names, set(finals["task"]))
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
