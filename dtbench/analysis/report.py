"""From the results of a suite to a folder: index.html, report.md, tables/ and figures/."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import delayed, figures, page, rules, scales, statistics, tables, targets
from dtbench.analysis.figures import Drawing, Scene
from dtbench.analysis.page import Page, Section
from dtbench.analysis.published import Circumstances, PublishedTable, published_tables, read_rows
from dtbench.analysis.scores import SuiteResults
from dtbench.errors import NothingToReport
from dtbench.ledger import TrialRecord, write_bytes

_PATH_MEASURES = {
    "score": "Shortest (%)",
    "reached": "Goal reached (%)",
    "novel": "Novel (% of all paths)",
    "novel_reached": "Novel (% of paths that reach the goal)",
}


def write_report(results: SuiteResults, folder: Path) -> Path:
    """Write the whole report and give the path of its index.html; equal results give equal bytes.

    Raises NothingToReport where no trial has finished.
    """
    if not results.records:
        raise NothingToReport(f"no trial of {results.suite.get('name')} has finished. Run `dtbench run` first.")
    made = _page(results)
    shown = [table for section in made.sections for table in section.tables]
    drawn = [drawing for section in made.sections for drawing in section.drawings]
    files = {"index.html": page.html(made).encode(), "report.md": page.markdown(made).encode()}
    files |= {f"tables/{table.name}.csv": table.csv().encode() for table in shown}
    files |= {f"tables/{table.name}.tex": table.latex().encode() for table in shown}
    files |= {f"figures/{drawing.name}.svg": drawing.svg for drawing in drawn}
    files |= {f"figures/{drawing.name}.png": drawing.png for drawing in drawn}
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    _remove_stale(Path(folder), set(files))
    return Path(folder) / "index.html"


def final_rows(results: SuiteResults) -> pd.DataFrame:
    """A row a trial, in the suite's order: its last checkpoint at its headline target, as in the score table.

    Added columns: `successes` (episodes that scored 100; nan where scores are not all 0 or 100) and, in per cent
    and nan where the task has no paths, `reached`, `novel`, `novel_reached`.
    """
    rows = [_final_row(results.scores, record) for record in results.records]
    order = page.order_of(results)
    return pd.DataFrame(sorted(rows, key=lambda row: order(row["task"], row["contender"], row["seed"])))


def headline_target(record: TrialRecord, found: Sequence[float]) -> float:
    """The first target listed for the trial that was evaluated, else the first that was; nan where it takes none."""
    present = [target for target in found if not np.isnan(target)]
    asked = [target for target in record.spec.evaluation.targets if target in present]
    return (asked or present or [np.nan])[0]


@dataclass(frozen=True, slots=True)
class Material:
    """What every section and figure is made from."""

    results: SuiteResults
    scene: Scene
    tasks: Sequence[str]
    averages: Mapping[str, tuple[str, ...]]  # means over tasks, by name: the suite's and those that papers print
    estimates: tables.Estimates  # averages included
    published: Sequence[PublishedTable]
    provenance: Mapping[str, Mapping[str, Any]]  # by task: that of one of its trials
    scales: Sequence[tuple[str, ...]]  # the tasks in groups of one scale

    @property
    def told_scores(self) -> Mapping[str, str]:
        """The names of scores that must stand beside their tasks: those of all where there are several scales."""
        return self.scene.score_names if len(self.scales) > 1 else {}

    @property
    def missing(self) -> tables.Counts:
        """Trials that have not finished, by task and contender."""
        return Counter((spec.task, spec.contender) for spec in self.results.not_run)

    @property
    def shown_averages(self) -> list[str]:
        """One name for each set of tasks, a paper's before our own, and only where all its tasks are the suite's."""
        names = {over: name for name, over in self.averages.items() if set(over) <= set(self.tasks)}
        return list(names.values())

    def matrices(self, over: Sequence[str]) -> dict[str, statistics.Array]:
        """Each contender's scores as seeds x tasks, nan where a trial is missing."""
        return _matrices(self.scene.finals, self.scene.contenders, over)


def gather(results: SuiteResults) -> Material:
    """Everything that sections and figures need, from the results of a suite with at least one finished trial."""
    finals, suite = final_rows(results), results.suite
    tasks = list(suite.get("tasks") or sorted(set(finals["task"])))
    provenance = {record.spec.task: record.provenance for record in results.records}
    about = {task: (facts.get("task") or {}) for task, facts in provenance.items()}
    published = published_tables(suite)
    score_names = {task: str(facts.get("score_name") or "score") for task, facts in about.items()}
    groups = scales.scales_of(tasks, score_names)
    averages = scales.averages_of(groups, score_names)
    for table in published:
        averages |= table.averages
    scene = Scene(
        contenders=list(page.contenders(results)),
        scores=results.scores,
        finals=finals,
        score_names=score_names,
        circumstances=_circumstances(results, averages),
        smoke=suite.get("preset") == "smoke",
    )
    estimates = dict(tables.estimates_of(finals))
    for name, over in averages.items():
        for contender, scores in _matrices(finals, scene.contenders, over).items():
            if average := statistics.matrix_estimate(scores):
                estimates[name, contender] = average
    return Material(results, scene, tasks, averages, estimates, published, provenance, groups)


def _circumstances(results: SuiteResults, averages: Mapping[str, Sequence[str]]) -> dict[str, Circumstances]:
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


def _matrices(finals: pd.DataFrame, names: Sequence[str], over: Sequence[str]) -> dict[str, statistics.Array]:
    matrices = {}
    for name in names:
        own = finals[finals["contender"] == name]
        pivot = own.pivot_table(index="seed", columns="task", values="score").reindex(columns=list(over))
        matrices[name] = pivot.to_numpy(np.float64)
    return matrices


def _remove_stale(folder: Path, written: set[str]) -> None:
    """Remove tables and figures of an earlier report that this one no longer has."""
    for place, kinds in (("tables", (".csv", ".tex")), ("figures", (".svg", ".png"))):
        for path in (folder / place).glob("*"):
            if path.suffix in kinds and f"{place}/{path.name}" not in written:
                path.unlink()


def _page(results: SuiteResults) -> Page:
    suite = results.suite
    material = gather(results)
    makers = (_results, _beside_papers, _over_tasks, _rules, _targets, _delayed, _progress, _paths, _protocol)
    sections = [section for make in makers for section in make(material)]
    return Page(
        title=str(suite.get("title") or suite.get("name") or "dtbench"),
        description=str(suite.get("description") or "").strip(),
        facts=tuple(_facts(results)),
        warning=page.SMOKE if material.scene.smoke else "",
        sections=(*sections, *_record(material)),
    )


def _facts(results: SuiteResults) -> Iterator[tuple[str, str]]:
    suite, done = results.suite, len(results.records)
    yield "Suite", str(suite.get("name") or tables.DASH)
    yield "Preset", str(suite.get("preset") or tables.DASH)
    yield "Overrides", ", ".join(map(str, suite.get("overrides") or [])) or "none"
    yield "Training seeds", ", ".join(map(str, suite.get("seeds") or [])) or tables.DASH
    yield "Data", ", ".join(sorted({record.spec.dataset_source for record in results.records}))
    yield "Trials finished", f"{done} of {done + len(results.not_run)}"


def _results(material: Material) -> Iterator[Section]:
    many = len(material.tasks) > tables.MANY_TASKS
    shown = [*material.tasks, *material.shown_averages] if many else material.tasks
    scores = tables.score_table(
        material.estimates,
        tasks=shown,
        contenders=material.scene.contenders,
        headings=page.headings(material.results, material.averages, material.told_scores),
        missing=material.missing,
    )
    told = (scales.MIXED_RULE.format(len(material.scales)),) if len(material.scales) > 1 else ()
    yield Section("Results", told, (page.task_table(material.results), scores), draw_finals(material))


def draw_finals(material: Material) -> tuple[Drawing, ...]:
    """A figure for each task, or one for all where there are many of one scale."""
    scene, numbers, published = material.scene, material.estimates, material.published
    if len(material.tasks) > tables.MANY_TASKS and len(material.scales) == 1:
        shown = [*material.tasks, *material.shown_averages]
        return _present([figures.draw_grouped_bars(scene, shown, estimates=numbers, published=published)])
    return _present([figures.draw_bars(scene, t, estimates=numbers, published=published) for t in material.tasks])


def _beside_papers(material: Material) -> Iterator[Section]:
    groups = material.scene.finals.groupby(["task", "contender"])["episodes"].sum()
    episodes = {(str(task), str(contender)): int(count) for (task, contender), count in groups.items()}
    for name, over in material.averages.items():
        for contender in material.scene.contenders:
            episodes[name, contender] = sum(episodes.get((task, contender), 0) for task in over)
    shown = [
        tables.comparison_table(
            table,
            material.estimates,
            name=f"published-{place}",
            episodes=episodes,
            missing=material.missing,
            circumstances=material.scene.circumstances,
        )
        for place, table in enumerate(material.published, start=1)
    ]
    if shown:
        text = "Episodes are those of all seeds together. The rule behind the verdicts is in the protocol below."
        yield Section("Beside published numbers", (text,), tables=tuple(shown))


def _over_tasks(material: Material) -> Iterator[Section]:
    made = []
    for place, name in enumerate(material.shown_averages, start=1):
        over = material.averages[name]
        whole = set(over) == set(material.tasks)
        told = "" if whole else f"{len(over)} tasks ({name})"
        if not whole and over in material.scales:
            told = f"{len(over)} tasks, {material.scene.score_names[over[0]]}"
        kind = "aggregate" if whole else f"aggregate-{place}"
        matrices = material.matrices(over)
        made.append(tables.aggregate_table(matrices, first=material.scene.contenders[0], name=kind, over=told))
    if made:
        yield Section("Over all tasks", tables=tuple(made))


def _rules(material: Material) -> Iterator[Section]:
    fixed = {record.spec.key: record.spec.evaluation.targets for record in material.results.records}
    rows = rules.rule_rows(material.results.scores, material.scene.finals, fixed)
    several = len(material.scales) > 1
    found = [
        rules.rule_table(
            rows[rows["task"].isin(scale)],
            tasks=scale,
            contenders=material.scene.contenders,
            name=f"rules-{place}" if several else "rules",
            note="" if several else rules.RULES_NOTE,
        )
        for place, scale in enumerate(material.scales, start=1)
    ]
    if any(found):
        shown = tuple(table for table in found if table)
        yield Section("Scoring rules", (rules.RULES_NOTE,) if several else (), tables=shown)


def _targets(material: Material) -> Iterator[Section]:
    found = all_targets(material)
    drawings = [figures.draw_targets(material.scene, one) for one in found]
    grid = figures.draw_target_grid(material.scene, found) if len(found) > 2 else None
    table = targets.target_table(found)
    without = [task for task in material.tasks if task not in {one.task for one in found}]
    text = f"No contender was asked for more than one target return on {', '.join(without)}: nothing to draw."
    told = (text,) if without else ()
    shown = (table,) if table else ()
    yield Section("Achieved against target return", told, shown, _present([grid, *drawings]))


def all_targets(material: Material) -> list[targets.TaskTargets]:
    """What was asked and achieved on each task where somebody was asked for two targets."""
    names, records = material.scene.contenders, material.results.records
    found = (targets.task_targets(records, task, names) for task in material.tasks)
    return [one for one in found if one]


def _delayed(material: Material) -> Iterator[Section]:
    table = delayed.delayed_table(
        material.scene.finals,
        material.estimates,
        tasks=material.tasks,
        contenders=material.scene.contenders,
        published=material.published,
        circumstances=material.scene.circumstances,
    )
    if table:
        yield Section("Delayed rewards", tables=(table,))


def _progress(material: Material) -> Iterator[Section]:
    if len(material.tasks) > tables.MANY_TASKS:
        drawings = [figures.draw_progress_grid(material.scene, material.tasks)]
    else:
        drawings = [figures.draw_progress(material.scene, task) for task in material.tasks]
    yield Section("Score over training", drawings=_present(drawings))


def _paths(material: Material) -> Iterator[Section]:
    """Steps to the goal and novel paths, for tasks on graphs."""
    finals = material.scene.finals.dropna(subset=["reached"])
    graphs = [task for task in material.tasks if task in set(finals["task"])]
    if not graphs:
        return
    drawings = [_steps_figure(material, task) for task in graphs]
    text = (
        "A path is novel when no walk of the training data contains it as a stretch. The paper says of its model's "
        f"generated paths that {_published_novelty()} % are not sub-paths of its data; it publishes neither its graph "
        "nor its walks, so the number is no verdict on ours."
    )
    table = tables.path_table(finals, tasks=graphs, contenders=material.scene.contenders, measures=_PATH_MEASURES)
    yield Section("Paths to the goal", (text,), tables=(table,), drawings=_present(drawings))


def _protocol(material: Material) -> Iterator[Section]:
    yield Section("Protocol", page.protocol(material.results, material.scene.finals))


def _record(material: Material) -> Iterator[Section]:
    """What ran, on what, and what did not."""
    results = material.results
    yield Section("Data", tables=(page.data_table(results),))
    yield Section("Contenders", tables=(page.contender_table(results),))
    yield Section("Hyperparameters", tables=(page.hyperparameter_table(results),), folded=True)
    yield Section("Every trial", tables=(page.seed_table(material.scene.finals, material.told_scores),), folded=True)
    if results.not_run:
        text = "The command dtbench status tells missing trials from failed ones; dtbench run runs both."
        yield Section("What was not run", (text,), tables=(page.not_run_table(results),))
    else:
        yield Section("What was not run", ("Every trial of the suite has finished.",))
    yield Section("Software", tables=(page.software_table(results.records),), folded=True)


def _final_row(scores: pd.DataFrame, record: TrialRecord) -> dict[str, Any]:
    spec = record.spec
    own = scores[(scores["trial"] == spec.key) & (scores["contender"] == spec.contender)]
    own = own[own["step"] == own["step"].max()]
    target = headline_target(record, own["target"].tolist())
    row = own[_same(own["target"], target)].iloc[0].to_dict()
    return {**row, **_episode_facts(_final_episodes(record, row["step"], target))}


def _final_episodes(record: TrialRecord, step: int, target: float) -> pd.DataFrame:
    episodes = record.episodes()
    return episodes[(episodes["step"] == step) & _same(episodes["target"], target)]


def _episode_facts(episodes: pd.DataFrame) -> dict[str, Any]:
    binary = bool(episodes["score"].isin([0.0, 100.0]).all())
    facts = {"successes": float((episodes["score"] == 100).sum()) if binary else np.nan}
    if not {"reached", "novel"} <= set(episodes.columns):
        return {**facts, "reached": np.nan, "novel": np.nan, "novel_reached": np.nan}
    reached, novel = episodes["reached"].astype(bool), episodes["novel"].astype(bool)
    shares = {"reached": reached.mean(), "novel": novel.mean(), "novel_reached": novel[reached].mean()}
    return {**facts, **{name: 100 * float(share) for name, share in shares.items()}}


def _same(targets: pd.Series, target: float) -> Any:
    return targets.isna() if np.isnan(target) else targets == target


def _steps_figure(material: Material, task: str) -> Drawing | None:
    finals = material.scene.finals.set_index(["task", "contender", "trial"])
    generated: dict[str, Counter[str]] = {}
    for name in material.scene.contenders:
        for record in material.results.records:
            if (record.spec.task, record.spec.contender) == (task, name):
                row = finals.loc[(task, name, record.spec.key)]
                episodes = _final_episodes(record, row["step"], row["target"])
                steps = episodes["length"].astype(int).astype(str).where(episodes["reached"].astype(bool), "inf")
                generated.setdefault(name, Counter()).update(steps)
    info = (material.provenance[task].get("dataset") or {}).get("info") or {}
    walks, shortest = info.get("walk_steps_to_goal") or {}, info.get("shortest_steps") or {}
    return figures.draw_steps_to_goal(material.scene, task, generated=generated, walks=walks, shortest=shortest)


def _published_novelty() -> str:
    rows = [row for row in read_rows("decision_transformer.csv") if row["table"] == "Appendix graph"]
    return next(row["mean"] for row in rows if row["metric"].startswith("pct_generated_paths_not_in_data"))


def _present(drawings: Sequence[Drawing | None]) -> tuple[Drawing, ...]:
    return tuple(drawing for drawing in drawings if drawing is not None)
