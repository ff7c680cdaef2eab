"""The sections of a suite's page, in the order in which they are read."""

from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from dtbench.analysis import delayed, figures, pairwise, suite_analysis
from dtbench.analysis.figures import Drawing, credit, paths
from dtbench.analysis.page.html import SuitePage
from dtbench.analysis.page.methods import methods_text
from dtbench.analysis.page.paper_tables import ran
from dtbench.analysis.page.section import Section
from dtbench.analysis.page.trials import trial_data
from dtbench.analysis.published import read_rows
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import Material, all_targets, final_episodes
from dtbench.analysis.tables import checkpoint_selection, protocol, targets
from dtbench.analysis.tables import scores as tables
from dtbench.analysis.tables.diverged import diverged_over, of_cell, of_contender, of_pair, with_diverged
from dtbench.analysis.tables.table import DASH, Table
from dtbench.ledger.store import DIVERGED

LONG_TABLE = 30  # rows; longer ones are folded, as the overview has the same numbers in the papers' own shape
_PATH_MEASURES = {
    "score": "Shortest (%)",
    "reached": "Goal reached (%)",
    "novel": "Novel (% of all paths)",
    "novel_reached": "Novel (% of paths that reach the goal)",
}


CREDIT = (
    "The pair of figures that the paper's Figure 5 shows: a transformer that also predicts returns is shown random "
    "walks that it never learned from. Its running prediction is the probability of success; attention is what the "
    "last prediction of an episode looks back at."
)


def suite_page(material: Material) -> SuitePage:
    """Everything that the page says of one suite."""
    results, suite = material.results, material.results.suite
    makers = (_results, _beside_papers, _over_tasks, _pairs, _rules, _targets, _delayed, _progress, _paths, _credit)
    sections = [section for make in makers for section in make(material)]
    return SuitePage(
        name=results.name,
        title=str(suite.get("title") or results.name or "dtbench"),
        description=str(suite.get("description") or "").strip(),
        facts=tuple(_facts(results)),
        warning=protocol.SMOKE if material.scene.smoke else "",
        sections=(*sections, *_record(material)),
        trials=trial_data(material),
    )


def _facts(results: SuiteResults) -> Iterator[tuple[str, str]]:
    suite, done = results.suite, len(results.records)
    yield "Suite", str(suite.get("name") or DASH)
    yield "Preset", str(suite.get("preset") or DASH)
    yield "Overrides", ", ".join(map(str, suite.get("overrides") or [])) or "none"
    yield "Training seeds", ", ".join(map(str, suite.get("seeds") or [])) or DASH
    yield "Data", ", ".join(sorted({record.spec.dataset_source for record in results.records}))
    yield "Trials finished", f"{done} of {done + len(results.not_run)}"


def _results(material: Material) -> Iterator[Section]:
    many = len(material.tasks) > tables.MANY_TASKS
    shown = [*material.tasks, *material.shown_averages] if many else material.tasks
    scores = tables.score_table(
        material.estimates,
        tasks=shown,
        contenders=material.scene.contenders,
        headings=protocol.headings(material.results, material.averages, material.told_scores),
        missing=material.missing,
        links=links_of(material),
        broken=broken_of(material),
        diverged=ran(material).diverged,
    )
    told = [suite_analysis.MIXED_RULE.format(len(material.scales))] if len(material.scales) > 1 else []
    told += [f"No number: {len(material.broken)} finished trials scored NaN and count as missing."] * bool(
        material.broken
    )
    told += material.diverged_told
    shown_tables = (protocol.task_table(material.results), scores)
    yield Section("Results", (*_remarks(material), *told), shown_tables, draw_finals(material))


def links_of(material: Material) -> dict[tuple[str, str], str]:
    """What the numbers of a task and contender are linked to."""
    return {place: f"cell-{cell}" for place, cell in material.links.items()}


def broken_of(material: Material) -> tables.Counts:
    """How many finished trials of a task and contender, or of an average and contender, scored NaN."""
    return ran(material).broken


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
            links=links_of(material),
            broken=broken_of(material),
            diverged=ran(material).diverged,
        )
        for place, table in enumerate(material.published, start=1)
    ]
    if len(shown) > 1:
        beside = tables.side_by_side_table(
            material.published,
            material.estimates,
            missing=material.missing,
            circumstances=material.scene.circumstances,
            links=links_of(material),
        )
        shown.insert(0, beside)
    if shown:
        text = (
            "Episodes are those of all seeds together. The rule behind the verdicts is in the protocol below; "
            "the overview has the same numbers in the papers' own shape."
        )
        long = any(len(table.rows) > LONG_TABLE for table in shown)
        yield Section("Beside published numbers", (text,), tables=tuple(shown), folded=long)


def _over_tasks(material: Material) -> Iterator[Section]:
    """Aggregates over every set of tasks that some contender finished; the others are named."""
    made, absent = [], []
    for place, name in enumerate(material.shown_averages, start=1):
        over = material.averages[name]
        matrices = material.matrices(over)
        if not set(over) <= set(material.ran):
            absent.append(name)
            continue
        whole = set(over) == set(material.tasks)
        told = "" if whole else f"{len(over)} tasks ({name})"
        if not whole and over in material.scales:
            told = f"{len(over)} tasks, {material.scene.score_names[over[0]]}"
        kind = "aggregate" if whole else f"aggregate-{place}"
        first, lost = material.scene.contenders[0], diverged_over(material.diverged, over)
        table = tables.aggregate_table(matrices, first=first, name=kind, over=told, diverged=lost)
        made.append(with_diverged(table, of_contender(material.diverged, over)))
    if made:
        text = f"Not run on every task, so without numbers: {', '.join(absent)}."
        yield Section("Over all tasks", (text,) if absent else (), tuple(made), _present(_spread(material)))


def _spread(material: Material) -> Iterator[Drawing | None]:
    """Profiles and chances of improvement over the tasks of the first scale that has several."""
    sets = [[task for task in scale if task in material.ran] for scale in material.scales]
    over = next((tasks for tasks in sets if len(tasks) > 1), [])
    if over:
        matrices, first = material.matrices(over), material.scene.contenders[0]
        yield figures.draw_profiles(material.scene, matrices, tasks=over)
        yield figures.draw_improvement(material.scene, matrices, first, tasks=over)


def _pairs(material: Material) -> Iterator[Section]:
    """The first contender against each other one, on the episodes that both played."""
    table = pairwise.pair_table(
        material.results.records,
        material.scene.finals,
        tasks=material.ran,
        contenders=material.scene.contenders,
        averages={name: material.averages[name] for name in material.shown_averages},
        links=links_of(material),
        diverged=material.diverged,
    )
    if table:
        told = of_pair(ran(material).diverged, material.scene.contenders[0])
        yield Section("Pair by pair", tables=(with_diverged(table, told),))


def _rules(material: Material) -> Iterator[Section]:
    fixed = {record.spec.key: record.spec.evaluation.targets for record in material.results.records}
    rows = checkpoint_selection.rule_rows(material.results.scores, material.scene.finals, fixed)
    several = len(material.scales) > 1
    shown = []
    for place, scale in enumerate(material.scales, start=1):
        table = checkpoint_selection.rule_table(
            rows[rows["task"].isin(scale)],
            tasks=scale,
            contenders=material.scene.contenders,
            name=f"rules-{place}" if several else "rules",
            note="" if several else checkpoint_selection.RULES_NOTE,
            diverged=diverged_over(material.diverged, scale),
        )
        if table:
            shown.append(with_diverged(table, of_contender(material.diverged, scale)))
    if shown:
        yield Section("Scoring rules", (checkpoint_selection.RULES_NOTE,) if several else (), tables=tuple(shown))


def _targets(material: Material) -> Iterator[Section]:
    found = all_targets(material)
    drawings = [figures.draw_targets(material.scene, one) for one in found]
    grid = figures.draw_target_grid(material.scene, found) if len(found) > 2 else None
    table = targets.target_table(found)
    without = [task for task in material.tasks if task not in {one.task for one in found}]
    text = f"No contender was asked for more than one target return on {', '.join(without)}: nothing to draw."
    told = (text,) if without else ()
    shown = (with_diverged(table, of_cell(material.diverged)),) if table else ()
    yield Section("Achieved against target return", told, shown, _present([grid, *drawings]))


def _delayed(material: Material) -> Iterator[Section]:
    table = delayed.delayed_table(
        material.scene.finals,
        material.estimates,
        tasks=material.tasks,
        contenders=material.scene.contenders,
        published=material.published,
        circumstances=material.scene.circumstances,
        broken=broken_of(material),
        diverged=material.diverged,
        links=links_of(material),
    )
    if table:
        late_of = {dense: late for late, dense in delayed.delayed_pairs(material.tasks).items()}
        yield Section("Delayed rewards", tables=(with_diverged(table, of_cell(material.diverged, beside=late_of)),))


def _progress(material: Material) -> Iterator[Section]:
    if len(material.tasks) > tables.MANY_TASKS:
        drawings = [figures.draw_progress_grid(material.scene, material.tasks)]
    else:
        drawings = [figures.draw_progress(material.scene, task) for task in material.tasks]
    yield Section("Score over training", material.diverged_told, drawings=_present(drawings))


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
    names, lost = material.scene.contenders, material.diverged
    table = tables.path_table(finals, tasks=graphs, contenders=names, measures=_PATH_MEASURES, diverged=lost)
    table = with_diverged(table, of_cell(lost, over=graphs))
    drawings += [_paths_figure(material, task) for task in graphs]
    yield Section("Paths to the goal", (text,), tables=(table,), drawings=_present(drawings))


def _paths_figure(material: Material, task: str) -> Drawing | None:
    info = (material.provenance[task].get("dataset") or {}).get("info") or {}
    walked: dict[str, list[pd.DataFrame]] = {}
    for name in material.scene.contenders:
        for record in material.results.records:
            if (record.spec.task, record.spec.contender) == (task, name):
                walked.setdefault(name, []).append(record.episodes())
    episodes = {name: pd.concat(parts) for name, parts in walked.items()}
    return paths.draw_graph_paths(material.scene, task, info.get("edges") or [], episodes)


def _credit(material: Material) -> Iterator[Section]:
    """Where a transformer that predicts returns sees them coming: the paper's Figure 5."""
    drawings: list[Drawing | None] = []
    for task in material.tasks:
        own = [record.inspection() for record in material.results.records if record.spec.task == task]
        found = [inspection for inspection in own if inspection]
        drawings += [credit.draw_return_predictions(material.scene, task, found)]
        drawings += [credit.draw_attention(material.scene, task, found)]
    if shown := _present(drawings):
        yield Section("Who sees the reward coming", (CREDIT,), drawings=shown)


def _record(material: Material) -> Iterator[Section]:
    """What ran, on what, how, and what did not."""
    results, finals = material.results, material.scene.finals
    cards = {task: (facts.get("dataset") or {}).get("card") or {} for task, facts in material.provenance.items()}
    asked = {record.spec.task: record.spec.evaluation.targets for record in results.records}
    drawn = figures.draw_data_cards(material.scene, {task: c for task, c in cards.items() if c}, targets=asked)
    yield Section("Protocol", protocol.protocol(results, finals))
    yield Section("Methods", methods_text(results))
    yield Section("Data", tables=(protocol.data_table(results),), drawings=_present([drawn]))
    yield Section("Contenders", tables=(protocol.contender_table(results),))
    yield Section("Hyperparameters", tables=(protocol.hyperparameter_table(results),), folded=True)
    seeds = protocol.seed_table(finals, material.told_scores)
    yield Section("Every trial", tables=(seeds,), folded=True, in_page=False)
    yield Section("What was not run", tuple(_not_run_text(material)), tuple(_not_run_tables(material)))
    yield Section("Software", tables=(protocol.software_table(results.records),), folded=True)


def _not_run_text(material: Material) -> Iterator[str]:
    states: Counter[str] = Counter(trial.state for trial in material.results.unfinished)
    states["nan"] = len(material.broken)
    told = {
        "missing": "never began",
        "interrupted": "began and did not end",
        DIVERGED: "diverged (a loss became NaN)",
        "failed": "failed",
        "nan": "ended with a score that is no number",
    }
    said = [f"{states[state]} {words}" for state, words in told.items() if states[state]]
    yield f"Of the planned trials {', '.join(said)}." if said else "Every planned trial has finished."
    absent = [task for task in material.tasks if task not in material.ran]
    if absent:
        yield f"The suite's other tasks have no finished trial: {', '.join(absent)}."


def _not_run_tables(material: Material) -> Iterator[Table]:
    if material.results.unfinished or material.broken:
        yield protocol.not_run_table(material.results, material.broken)


def _remarks(material: Material) -> tuple[str, ...]:
    """What people wrote beside the scores, e.g. why a number disappoints."""
    text = str(material.results.suite.get("remarks") or "")
    return tuple(" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip())


def _steps_figure(material: Material, task: str) -> Drawing | None:
    finals = material.scene.finals.set_index(["task", "contender", "trial"])
    generated: dict[str, Counter[str]] = {}
    for name in material.scene.contenders:
        for record in material.results.records:
            if (record.spec.task, record.spec.contender) == (task, name):
                row = finals.loc[(task, name, record.spec.key)]
                episodes = final_episodes(record, row["step"], row["target"])
                steps = episodes["length"].astype(int).astype(str).where(episodes["reached"].astype(bool), "inf")
                generated.setdefault(name, Counter()).update(steps)
    info = (material.provenance[task].get("dataset") or {}).get("info") or {}
    walks, shortest = info.get("walk_steps_to_goal") or {}, info.get("shortest_steps") or {}
    return figures.draw_steps_to_goal(material.scene, task, generated=generated, walks=walks, shortest=shortest)


def _published_novelty() -> str:
    rows = [row for row in read_rows("decision_transformer.csv") if row["table"] == "Appendix graph"]
    return next(row["mean"] for row in rows if row["metric"].startswith("pct_generated_paths_not_in_data"))


def _present(drawings: Iterable[Drawing | None]) -> tuple[Drawing, ...]:
    return tuple(drawing for drawing in drawings if drawing is not None)
