"""From the results of a suite to a folder: index.html, report.md, tables/ and figures/."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import figures, page, tables
from dtbench.analysis.figures import Drawing, Scene
from dtbench.analysis.page import Page, Section
from dtbench.analysis.published import PublishedTable, published_tables, read_rows
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


def _remove_stale(folder: Path, written: set[str]) -> None:
    """Remove tables and figures of an earlier report that this one no longer has."""
    for place, kinds in (("tables", (".csv", ".tex")), ("figures", (".svg", ".png"))):
        for path in (folder / place).glob("*"):
            if path.suffix in kinds and f"{place}/{path.name}" not in written:
                path.unlink()


@dataclass(frozen=True, slots=True)
class _Material:
    """What every section is made from."""

    results: SuiteResults
    scene: Scene
    tasks: Sequence[str]
    estimates: tables.Estimates
    published: Sequence[PublishedTable]
    provenance: Mapping[str, Mapping[str, Any]]  # by task: that of one of its trials
    sources: Mapping[str, str]  # by task


def _page(results: SuiteResults) -> Page:
    suite = results.suite
    material = _material(results)
    makers = (_results, _beside_papers, _over_tasks, _targets, _progress, _paths, _protocol)
    sections = [section for make in makers for section in make(material)]
    return Page(
        title=str(suite.get("title") or suite.get("name") or "dtbench"),
        description=str(suite.get("description") or "").strip(),
        facts=tuple(_facts(results)),
        warning=page.SMOKE if material.scene.smoke else "",
        sections=(*sections, *_record(material)),
    )


def _material(results: SuiteResults) -> _Material:
    finals = final_rows(results)
    tasks = list(results.suite.get("tasks") or sorted(set(finals["task"])))
    provenance = {record.spec.task: record.provenance for record in results.records}
    about = {task: (facts.get("task") or {}) for task, facts in provenance.items()}
    scene = Scene(
        contenders=list(page.contenders(results)),
        scores=results.scores,
        finals=finals,
        score_names={task: str(facts.get("score_name") or "score") for task, facts in about.items()},
        smoke=results.suite.get("preset") == "smoke",
    )
    sources = {task: ", ".join(sorted(set(rows["dataset_source"]))) for task, rows in finals.groupby("task")}
    estimates = tables.estimates_of(finals)
    return _Material(results, scene, tasks, estimates, published_tables(results.suite), provenance, sources)


def _facts(results: SuiteResults) -> Iterator[tuple[str, str]]:
    suite, done = results.suite, len(results.records)
    yield "Suite", str(suite.get("name") or tables.DASH)
    yield "Preset", str(suite.get("preset") or tables.DASH)
    yield "Overrides", ", ".join(map(str, suite.get("overrides") or [])) or "none"
    yield "Training seeds", ", ".join(map(str, suite.get("seeds") or [])) or tables.DASH
    yield "Trials finished", f"{done} of {done + len(results.not_run)}"


def _results(material: _Material) -> Iterator[Section]:
    headings = {task: f"{task} (data: {source})" for task, source in material.sources.items()}
    scores = tables.score_table(
        material.estimates,
        tasks=material.tasks,
        contenders=material.scene.contenders,
        headings=headings,
        missing=_missing(material.results),
    )
    drawings = [
        figures.draw_bars(material.scene, task, estimates=material.estimates, published=material.published)
        for task in material.tasks
    ]
    yield Section("Results", tables=(page.task_table(material.results), scores), drawings=_present(drawings))


def _beside_papers(material: _Material) -> Iterator[Section]:
    episodes = {
        (str(task), str(contender)): int(rows["episodes"].sum())
        for (task, contender), rows in material.scene.finals.groupby(["task", "contender"])
    }
    shown = [
        tables.comparison_table(
            table,
            material.estimates,
            name=f"published-{place}",
            episodes=episodes,
            missing=_missing(material.results),
            sources=material.sources,
            smoke=material.scene.smoke,
        )
        for place, table in enumerate(material.published, start=1)
    ]
    if shown:
        text = "Episodes are those of all seeds together. The rule behind the verdicts is in the protocol below."
        yield Section("Beside published numbers", (text,), tables=tuple(shown))


def _over_tasks(material: _Material) -> Iterator[Section]:
    if len(material.tasks) < 2:
        return
    matrices = {}
    for name in material.scene.contenders:
        own = material.scene.finals[material.scene.finals["contender"] == name]
        pivot = own.pivot_table(index="seed", columns="task", values="score").reindex(columns=material.tasks)
        matrices[name] = pivot.to_numpy(np.float64)
    table = tables.aggregate_table(matrices, first=material.scene.contenders[0])
    yield Section("Over all tasks", tables=(table,))


def _targets(material: _Material) -> Iterator[Section]:
    drawings = []
    for task in material.tasks:
        card = (material.provenance.get(task, {}).get("dataset") or {}).get("card") or {}
        drawings.append(figures.draw_targets(material.scene, task, best_of_data=card.get("return_max")))
    without = [task for task, drawing in zip(material.tasks, drawings, strict=True) if drawing is None]
    text = f"No contender was asked for more than one target return on {', '.join(without)}: nothing to draw."
    yield Section("Achieved against target return", (text,) if without else (), drawings=_present(drawings))


def _progress(material: _Material) -> Iterator[Section]:
    drawings = [figures.draw_progress(material.scene, task) for task in material.tasks]
    yield Section("Score over training", drawings=_present(drawings))


def _paths(material: _Material) -> Iterator[Section]:
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


def _protocol(material: _Material) -> Iterator[Section]:
    yield Section("Protocol", page.protocol(material.results, material.scene.finals))


def _record(material: _Material) -> Iterator[Section]:
    """What ran, on what, and what did not."""
    results = material.results
    yield Section("Data", tables=(page.data_table(results),))
    yield Section("Contenders", tables=(page.contender_table(results),))
    yield Section("Hyperparameters", tables=(page.hyperparameter_table(results),), folded=True)
    yield Section("Every trial", tables=(page.seed_table(material.scene.finals),), folded=True)
    if results.not_run:
        text = "The command dtbench status tells missing trials from failed ones; dtbench run runs both."
        yield Section("What was not run", (text,), tables=(page.not_run_table(results),))
    else:
        yield Section("What was not run", ("Every trial of the suite has finished.",))
    yield Section("Software", tables=(page.software_table(results.records),), folded=True)


def _missing(results: SuiteResults) -> tables.Counts:
    return Counter((spec.task, spec.contender) for spec in results.not_run)


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


def _steps_figure(material: _Material, task: str) -> Drawing | None:
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
