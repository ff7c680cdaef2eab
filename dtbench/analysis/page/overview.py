"""All suites together: who is ahead where, the paper's tables and Figure 3, and what nobody ran."""

from collections import Counter
from collections.abc import Iterator, Sequence

from dtbench.analysis import answer, pairwise, statistics
from dtbench.analysis.figures.bars import SuiteAverage, draw_suite_bars, suite_average
from dtbench.analysis.figures.compute import draw_compute
from dtbench.analysis.figures.forest import draw_forest
from dtbench.analysis.figures.searches import draw_expected_best, draw_searches_together
from dtbench.analysis.figures.targets import draw_target_tiles
from dtbench.analysis.groups import ANSWERING, GROUPS, group_of
from dtbench.analysis.page.paper_tables import all_paper_tables
from dtbench.analysis.page.section import Headline, Section
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.tables.protocol import SMOKE
from dtbench.analysis.tables.searches import best_table, budget_table, expected_curves
from dtbench.analysis.tables.table import DASH, Cell, Column, Table
from dtbench.analysis.tables.targets import all_targets
from dtbench.analysis.tables.winners import winners_table
from dtbench.suite.loading import suite_names
from dtbench.tuning.search import SearchRecord

QUESTION = (
    "Each suite's first contender is held against every other one, task by task, on the evaluation episodes that both "
    "played. Only pairs with five training seeds and more on either side, both converged, are decided: above or below "
    "by Welch's test with Holm's correction over the suite, or a match within the suite's margin. Undecided says that "
    "more seeds are needed, not that the two are equal."
)
AVERAGES = (
    "The paper's Figure 3, for every suite whose tasks share a scale: the average over the tasks that somebody "
    "finished, of the contenders that finished all of these."
)
PAPER = (
    "The tables of Chen et al. (2021), CORL and others of which something ran, in their own shapes. A cell reads: "
    "ours / published. Green and =: they agree. Red and \N{NOT EQUAL TO}: they differ. No sign: the two may not be "
    "compared."
)
_OUTSIDE = ("Few seeds or not converged", "Not both ran")
SEARCHES_HEADING = "Hyperparameter searches"
SEARCHES = (
    "Searches train with seeds from 1000 on and play other evaluation episodes than those that are reported on; the "
    "best setting was then run as a contender of its own, or not at all. Choosing a target return is tuning too: each "
    "pair of a setting and a target counts as a setting tried. Steps are gradient steps of all its trials."
)
EXPECTED = (
    "The score to expect of the best of n settings, were n of those tried drawn at random (Dodge et al. 2019, with "
    "replacement, exactly). A setting that was stopped early counts with its last score, one without a score as the "
    "lowest."
)


def overview(analyses: Sequence[SuiteAnalysis]) -> Iterator[Section]:
    """Yield the sections of the overview, from the suites that have results."""
    yield from _answer(analyses)
    yield Section("Suites", tuple(_warning(analyses)), (suite_table(analyses),))
    asked = [one for one in analyses if group_of(one.results.suite) in ANSWERING] or list(analyses)
    yield Section("Who wins where", (), (winners_table(asked),))
    tiles = draw_target_tiles([(one, found) for one in asked for found in all_targets(one)])
    if tiles:
        yield Section("Does it get what it asks for?", (), drawings=(tiles,))
    compute = draw_compute(asked)
    if compute:
        yield Section("Quality against compute", (), drawings=(compute,))
    yield Section("Who is ahead", (QUESTION,), (verdict_table(analyses),), folded=True)
    averages = [average for analysis in asked for average in _averages(analysis)]
    drawn = draw_suite_bars(averages, smoke=all(analysis.smoke for analysis in asked))
    if drawn:
        yield Section("Averages by suite", (AVERAGES,), more=(drawn,))
    papers = tuple(all_paper_tables({analysis.results.name: analysis for analysis in analyses}))
    if papers:
        yield Section("The paper's tables", (PAPER,), papers)
    absent = tuple(_not_run(analyses))
    if absent:
        yield Section(
            "Planned, but without a number", absent, closed=f"What these suites lack, in {len(absent)} lines"
        )


def _answer(analyses: Sequence[SuiteAnalysis]) -> Iterator[Section]:
    """Yield the answer to the page's question; nothing where no suite has Decision Transformer and a rival."""
    asked = [one for one in analyses if group_of(one.results.suite) in ANSWERING]
    real = [one for one in asked if not one.smoke] or asked
    td, imitation = (answer.comparisons(real, family) for family in ("td", "imitation"))
    if not (td or imitation):
        return
    sides = ((td, "td"), (imitation, "imitation"))
    lines = [answer.sentence(found, family) for found, family in sides]
    averages = [answer.average_sentence(found, family) for found, family in sides]
    if all(analysis.smoke for analysis in real):
        lines[0] = f"{SMOKE} {lines[0]}"
    yield Section(
        "The answer",
        (*(line for line in (averages[0], lines[1], averages[1]) if line), answer.CHOICE_RULE),
        (answer.answer_table([*td, *imitation]),),
        tuple(one for one in (draw_forest(td, "td"), draw_forest(imitation, "imitation")) if one),
        folded=True,
        headline=Headline(lines[0], answer.caveat([*td, *imitation]), tuple(answer.chips(td))),
    )


def searches_section(records: Sequence[SearchRecord]) -> Iterator[Section]:
    """Yield the section of the report; nothing where there is no search."""
    if records:
        alone = (draw_expected_best(record, tuple(expected_curves(record))) for record in records)
        drawings = (*draw_searches_together(records), *alone)
        tables = (budget_table(records), *(best_table(record, 5) for record in records))
        yield Section(SEARCHES_HEADING, (SEARCHES, EXPECTED), tables, tuple(one for one in drawings if one))


def suite_table(analyses: Sequence[SuiteAnalysis]) -> Table:
    """Return a row a suite: how much of it ran, with which preset, on which data."""
    names = ("Suite", "Group", "Title", "Preset", "Tasks", "Contenders", "Seeds", "Trials", "Data")
    columns = tuple(Column(name, number=name in ("Tasks", "Contenders", "Seeds", "Trials")) for name in names)
    return Table("suites", "Suites with results", columns, tuple(map(_suite_row, analyses)))


def verdict_table(analyses: Sequence[SuiteAnalysis]) -> Table:
    """Return on how many tasks each suite's first contender is above, below or undecided against each other one."""
    rows = [row for analysis in analyses for row in _verdict_rows(analysis)]
    names = ("Suite", "First", "Against", "Tasks", "Above", "Match", "Below", "Undecided", *_OUTSIDE)
    columns = tuple(Column(name, number=name in names[3:]) for name in names)
    return Table("verdicts", "Tasks on which the first contender is above or below", columns, tuple(rows))


def _suite_row(analysis: SuiteAnalysis) -> tuple[Cell, ...]:
    results = analysis.results
    ran = {record.spec.task for record in results.records}
    seeds = {record.spec.seed for record in results.records}
    took_part = {record.spec.contender for record in results.records}
    done, planned = len(results.records), len(results.records) + len(results.unfinished)
    sources = sorted({record.spec.dataset_source for record in results.records})
    return (
        Cell(results.name, link=f"suite-{results.name}"),
        Cell(GROUPS[group_of(results.suite)]),
        Cell(str(results.suite.get("title") or DASH)),
        Cell(str(results.suite.get("preset") or DASH)),
        _share(len(ran), len(ran) + len(analysis.absent[0])),
        _share(len(took_part), len(took_part) + len(analysis.absent[1])),
        Cell(str(len(seeds)), len(seeds)),
        _share(done, planned),
        Cell(", ".join(sources)),
    )


def _verdict_rows(analysis: SuiteAnalysis) -> Iterator[tuple[Cell, ...]]:
    first, *rivals = analysis.contenders
    found = pairwise.pair_outcomes(
        analysis.results.records,
        analysis.finals,
        tasks=analysis.tasks,
        contenders=analysis.contenders,
        inputs=analysis.inputs,
        margin=analysis.margin,
    )
    drawn = analysis.inputs.over_draws
    for rival in rivals:
        met = [task for task, other in found if other == rival]
        verdicts = [found[task, rival][1] for task in met]
        apart = set(analysis.tasks).difference(*(drawn.get(task, (task,)) for task in met))
        kinds = Counter("outside" if one.why else one.kind for one in verdicts)
        counts = [kinds[kind] for kind in ("above", "match", "below", "undecided", "outside")]
        numbers = (len(verdicts), *counts, len(apart))
        yield (
            Cell(analysis.results.name, link=f"suite-{analysis.results.name}"),
            *(Cell(first), Cell(rival)),
            *(Cell(str(number), number) for number in numbers),
        )


def _averages(analysis: SuiteAnalysis) -> Iterator[SuiteAverage]:
    """Yield the panel of a suite whose tasks share a scale: its mean over those that somebody finished."""
    over = analysis.ran
    if len(analysis.scales) != 1 or not over:
        return
    whole = len(over) == len(analysis.tasks)
    name = next((name for name, tasks in analysis.averages.items() if whole and set(tasks) == set(over)), over[0])
    estimates, some = analysis.inputs.estimates, "" if whole else f"{len(over)} of {len(analysis.tasks)}"
    if not whole:
        found = {who: statistics.matrix_estimate(scores) for who, scores in analysis.matrices(over).items()}
        estimates = {(name, who): average for who, average in found.items() if average}
    yield suite_average(
        analysis,
        name,
        title=", ".join(filter(None, (analysis.results.name, some, "SMOKE" if analysis.smoke else ""))),
        tasks=len(over),
        estimates=estimates,
        published=analysis.published if whole else (),
    )


def _warning(analyses: Sequence[SuiteAnalysis]) -> Iterator[str]:
    smoke = [analysis.results.name for analysis in analyses if analysis.smoke]
    if smoke:
        yield f"Of {', '.join(smoke)}: {SMOKE}"


def _share(done: int, planned: int) -> Cell:
    return Cell(str(done) if done == planned else f"{done} of {planned}", done)


def _not_run(analyses: Sequence[SuiteAnalysis]) -> Iterator[str]:
    ran = {analysis.results.name for analysis in analyses}
    absent = [name for name in suite_names() if name not in ran]
    if absent:
        yield f"Suites that nobody ran here: {', '.join(absent)}."
    for analysis in analyses:
        tasks, names = analysis.absent
        parts = [f"tasks {', '.join(tasks)}" if tasks else "", f"contenders {', '.join(names)}" if names else ""]
        if any(parts):
            yield f"Of {analysis.results.name}: {'; '.join(filter(None, parts))}."
        yield from (f"{analysis.results.name}: {text}" for text in analysis.diverged_text)
