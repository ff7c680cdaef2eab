"""What is said of all suites together: who is ahead where, the paper's tables and Figure 3, and what nobody ran."""

from collections.abc import Iterator, Sequence

from dtbench.analysis import figures, pairwise, statistics
from dtbench.analysis.figures import SuiteAverage
from dtbench.analysis.page.paper_tables import all_paper_tables
from dtbench.analysis.page.section import Section
from dtbench.analysis.suite_analysis import Material
from dtbench.analysis.tables.protocol import SMOKE
from dtbench.analysis.tables.table import DASH, Cell, Column, Table
from dtbench.suite.loading import suite_names

QUESTION = (
    "Each suite's first contender is held against every other one, task by task, on the evaluation episodes that both "
    "played. A pair is decided where the 95 % interval of the difference leaves out zero. Seeds are few and budgets "
    "small in most suites: undecided says that more seeds are needed, not that the two are equal."
)
AVERAGES = (
    "The paper's Figure 3, for every suite whose tasks share a scale: the average over the tasks that somebody "
    "finished, of the contenders that finished all of these."
)
PAPER = (
    "Every table of Chen et al. (2021) that holds results, in its own shape, and CORL's table of the same tasks on "
    "D4RL's v2 data. A cell reads: ours / published / difference / verdict. What nobody ran stays visible."
)


def overview(materials: Sequence[Material]) -> Iterator[Section]:
    """The sections of the overview, from the suites that have results."""
    yield Section("Suites", tuple(_warning(materials)), (suite_table(materials),))
    yield Section("Who is ahead", (QUESTION,), (verdict_table(materials),))
    averages = [average for material in materials for average in _averages(material)]
    drawn = figures.draw_suite_bars(averages, smoke=all(material.scene.smoke for material in materials))
    if drawn:
        yield Section("Averages by suite", (AVERAGES,), drawings=(drawn,))
    ran = {material.results.name: material for material in materials}
    yield Section("The paper's tables", (PAPER,), tuple(all_paper_tables(ran)))
    yield Section("What was not run", tuple(_not_run(materials)))


def suite_table(materials: Sequence[Material]) -> Table:
    """A row a suite: how much of it ran, with which preset, on which data."""
    names = ("Suite", "Title", "Preset", "Tasks", "Contenders", "Seeds", "Trials", "Data")
    columns = tuple(Column(name, number=name in ("Tasks", "Contenders", "Seeds", "Trials")) for name in names)
    return Table("suites", "Suites with results", columns, tuple(map(_suite_row, materials)))


def verdict_table(materials: Sequence[Material]) -> Table:
    """On how many tasks each suite's first contender is above, below or undecided against each other one."""
    rows = [row for material in materials for row in _verdict_rows(material)]
    names = ("Suite", "First", "Against", "Tasks", "Above", "Undecided", "Below", "Not both ran")
    columns = tuple(Column(name, number=name in names[3:]) for name in names)
    return Table("verdicts", "Tasks on which the first contender is above or below", columns, tuple(rows))


def _suite_row(material: Material) -> tuple[Cell, ...]:
    results = material.results
    ran = {record.spec.task for record in results.records}
    seeds = {record.spec.seed for record in results.records}
    took_part = {record.spec.contender for record in results.records}
    done, planned = len(results.records), len(results.records) + len(results.unfinished)
    sources = sorted({record.spec.dataset_source for record in results.records})
    return (
        Cell(results.name, link=f"suite-{results.name}"),
        Cell(str(results.suite.get("title") or DASH)),
        Cell(str(results.suite.get("preset") or DASH)),
        _share(len(ran), len(material.tasks)),
        _share(len(took_part), len(material.scene.contenders)),
        Cell(str(len(seeds)), len(seeds)),
        _share(done, planned),
        Cell(", ".join(sources)),
    )


def _verdict_rows(material: Material) -> Iterator[tuple[Cell, ...]]:
    first, *rivals = material.scene.contenders
    found = pairwise.differences(
        material.results.records, material.scene.finals, tasks=material.tasks, contenders=material.scene.contenders
    )
    for rival in rivals:
        signs = [found[task, rival].sign for task in material.tasks if (task, rival) in found]
        told = [signs.count(1), signs.count(0), signs.count(-1), len(material.tasks) - len(signs)]
        numbers = (len(signs), *told)
        yield (
            Cell(material.results.name, link=f"suite-{material.results.name}"),
            *(Cell(first), Cell(rival)),
            *(Cell(str(number), number) for number in numbers),
        )


def _averages(material: Material) -> Iterator[SuiteAverage]:
    """The panel of a suite whose tasks share a scale: its mean over those that somebody finished."""
    over = material.ran
    if len(material.scales) != 1 or not over:
        return
    whole = len(over) == len(material.tasks)
    name = next((name for name, tasks in material.averages.items() if whole and set(tasks) == set(over)), over[0])
    estimates, some = material.estimates, "" if whole else f"{len(over)} of {len(material.tasks)}"
    if not whole:
        found = {who: statistics.matrix_estimate(scores) for who, scores in material.matrices(over).items()}
        estimates = {(name, who): average for who, average in found.items() if average}
    yield figures.suite_average(
        material.scene,
        name,
        title=", ".join(filter(None, (material.results.name, some, "SMOKE" if material.scene.smoke else ""))),
        tasks=len(over),
        estimates=estimates,
        published=material.published if whole else (),
    )


def _warning(materials: Sequence[Material]) -> Iterator[str]:
    smoke = [material.results.name for material in materials if material.scene.smoke]
    if smoke:
        yield f"Of {', '.join(smoke)}: {SMOKE}"


def _share(done: int, planned: int) -> Cell:
    return Cell(str(done) if done == planned else f"{done} of {planned}", done)


def _not_run(materials: Sequence[Material]) -> Iterator[str]:
    ran = {material.results.name for material in materials}
    absent = [name for name in suite_names() if name not in ran]
    if absent:
        yield f"Suites that nobody ran here: {', '.join(absent)}."
    for material in materials:
        tasks = [task for task in material.tasks if task not in material.ran]
        took_part = set(material.scene.finals["contender"])
        names = [name for name in material.scene.contenders if name not in took_part]
        said = [f"tasks {', '.join(tasks)}" if tasks else "", f"contenders {', '.join(names)}" if names else ""]
        if any(said):
            yield f"Of {material.results.name}: {'; '.join(filter(None, said))}."
        yield from (f"{material.results.name}: {text}" for text in material.diverged_told)
