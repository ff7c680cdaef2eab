"""The report section of tasks on graphs: steps to the goal, and how many paths are new."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.final_scores import episodes_behind, final_episodes
from dtbench.analysis.page.section import SEVERAL, Section
from dtbench.analysis.published import NOT_RUN, read_rows
from dtbench.analysis.suite_analysis import SuiteAnalysis, TableInputs, estimates_of, matrix_of
from dtbench.analysis.tables.diverged import of_cell, with_diverged
from dtbench.analysis.tables.scores import aggregate_cell, no_number
from dtbench.analysis.tables.table import Cell, Column, Table, hole, with_interval
from dtbench.domains.graph.figures import draw_graph_paths, draw_steps_to_goal
from dtbench.domains.graph.records import Recipe, recipe, walks

MEASURES = {
    "score": "Shortest (%)",
    "reached": "Goal reached (%)",
    "novel": "Novel (% of all paths)",
    "novel_reached": "Novel (% of paths that reach the goal)",
}


def sections(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield the section, where the suite has a task on a graph."""
    facts = path_facts(episodes_behind(analysis.results, analysis.finals))
    finals = analysis.finals.join(facts, on="trial").dropna(subset=["reached"])
    graphs = [task for task in analysis.tasks if task in set(finals["task"])]
    if not graphs:
        return
    text = (
        "A path is novel when no walk of the training data contains it as a stretch. The paper says of its model's "
        f"generated paths that {_published_novelty()} % are not sub-paths of its data; it publishes neither its graph "
        "nor its walks, so the number is no verdict on ours."
    )
    table = path_table(finals, analysis.inputs, tasks=graphs, contenders=analysis.contenders)
    table = with_diverged(table, of_cell(analysis.inputs, over=graphs))
    first, more = _figures(analysis, graphs)
    yield Section("Paths to the goal", (text,), (table,), first, more=more)


def path_facts(episodes: pd.DataFrame) -> pd.DataFrame:
    """Return a row a trial on a graph: MEASURES but the score, in per cent."""
    paths = walks(episodes)
    if not len(paths):
        return pd.DataFrame(columns=["reached", "novel", "novel_reached"], dtype=float)
    groups = paths.groupby(paths["trial"].astype(str))
    arrived = paths[paths["reached"] == 1]
    return pd.DataFrame(
        {
            "reached": 100 * groups["reached"].mean(),
            "novel": 100 * groups["novel"].mean(),
            "novel_reached": 100 * arrived.groupby(arrived["trial"].astype(str))["novel"].mean(),
        }
    )


def path_table(finals: pd.DataFrame, inputs: TableInputs, *, tasks: Sequence[str], contenders: Sequence[str]) -> Table:
    """Return MEASURES, columns of `finals` in per cent, for each task and contender, then over all tasks."""
    ran = set(zip(finals["task"], finals["contender"], strict=True))
    found = {name: estimates_of(finals, name) for name in MEASURES}
    rows: list[tuple[Cell, ...]] = []
    for task in tasks:
        for contender in contenders:
            cells = [_cell(found[name].get((task, contender))) for name in MEASURES]
            if (task, contender) not in ran:
                cells[0] = _absent(inputs, task, contender)
            rows.append((Cell(task), Cell(contender), *cells))
    if len(tasks) > 1:
        for contender in contenders:
            own = finals[finals["contender"] == contender]
            rows.append((Cell("all"), Cell(contender), *(_over_all(own, name, tasks) for name in MEASURES)))
    columns = (Column("Task"), Column("Contender"), *(Column(name, number=True) for name in MEASURES.values()))
    caption = "Paths at the last checkpoint: mean over seeds, with 95 % intervals"
    return Table("paths", caption, columns, tuple(rows))


def _cell(ours: statistics.Estimate | None) -> Cell:
    return hole() if ours is None else Cell(with_interval(ours.mean, ours.interval), ours.mean)


def _absent(inputs: TableInputs, task: str, contender: str) -> Cell:
    status = inputs.status(task, contender)
    if not status.diverged:
        return Cell(NOT_RUN, kind="hole")
    return Cell(no_number(replace(status, missing=status.diverged, broken=status.diverged)), kind="hole")


def _over_all(own: pd.DataFrame, measure: str, tasks: Sequence[str]) -> Cell:
    """Return the mean over tasks; a hole where a task is missing."""
    matrix = matrix_of(own, tasks, measure)
    return aggregate_cell(statistics.mean, matrix, decimals=1) if statistics.complete(matrix) else hole()


def _figures(analysis: SuiteAnalysis, graphs: Sequence[str]) -> tuple[tuple[Drawing, ...], tuple[Drawing, ...]]:
    """Return the figures to show and those behind them: of several graphs all steps together and the first's paths."""
    steps = [_steps_figure(analysis, task, [task]) for task in graphs]
    paths = [_paths_figure(analysis, task) for task in graphs]
    first, more = [*steps, *paths], list[Drawing | None]()
    if len(graphs) >= SEVERAL:
        first = [_steps_figure(analysis, f"{len(graphs)} graphs", graphs), paths[0]]
        more = [*steps, *paths[1:]]
    shown, behind = (tuple(one for one in some if one) for some in (first, more))
    return shown, behind


def _steps_figure(analysis: SuiteAnalysis, title: str, tasks: Sequence[str]) -> Drawing | None:
    finals = analysis.finals.set_index(["task", "contender", "trial"])
    generated: dict[str, Counter[str]] = {}
    for name in analysis.contenders:
        for record in analysis.results.records:
            task = record.spec.task
            if task in tasks and record.spec.contender == name:
                row = finals.loc[(task, name, record.spec.key)]
                episodes = walks(final_episodes(record, row["step"], row["target"]))
                steps = episodes["length"].astype(int).astype(str).where(episodes["reached"].astype(bool), "inf")
                generated.setdefault(name, Counter()).update(steps)
    walked, shortest = Counter[str](), Counter[str]()
    for made in (_recipe(analysis, task) for task in tasks):
        walked.update(made.walk_steps_to_goal)
        shortest.update(made.shortest_steps)
    return draw_steps_to_goal(analysis, title, generated=generated, walks=walked, shortest=shortest)


def _paths_figure(analysis: SuiteAnalysis, task: str) -> Drawing | None:
    walked: dict[str, list[pd.DataFrame]] = {}
    for name in analysis.contenders:
        for record in analysis.results.records:
            if (record.spec.task, record.spec.contender) == (task, name):
                walked.setdefault(name, []).append(walks(record.episodes()))
    episodes = {name: pd.concat(parts) for name, parts in walked.items()}
    return draw_graph_paths(analysis, task, _recipe(analysis, task).edges, episodes)


def _recipe(analysis: SuiteAnalysis, task: str) -> Recipe:
    """Return what was recorded of how the task's data were made."""
    return recipe((analysis.provenance[task].get("dataset") or {}).get("info"))


def _published_novelty() -> str:
    rows = [row for row in read_rows("decision_transformer.csv") if row["table"] == "Appendix graph"]
    return next(row["mean"] for row in rows if row["metric"].startswith("pct_generated_paths_not_in_data"))
