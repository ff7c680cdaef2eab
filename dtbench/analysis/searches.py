"""What searches cost and what they found: budgets, best settings, and the best to be expected of so many tried."""

from collections.abc import Iterator, Sequence

from dtbench.analysis.expected_best import expected_curves
from dtbench.analysis.figures.searches import draw_expected_best
from dtbench.analysis.page import Section
from dtbench.analysis.table import DASH, Cell, Column, Table, number_cell
from dtbench.search import Sample, SearchRecord

HEADING = "Hyperparameter searches"
RULE = (
    "Searches train with seeds from 1000 on and play other evaluation episodes than those that are reported on; the "
    "best setting was then run as a contender of its own, or not at all. Choosing a target return is tuning too: each "
    "pair of a setting and a target counts as a setting tried. Steps are gradient steps of all its trials."
)
EXPECTED = (
    "The score to expect of the best of n settings, were n of those tried drawn at random (Dodge et al. 2019, with "
    "replacement, exactly). A setting that was stopped early counts with its last score, one without a score as the "
    "lowest."
)


def searches_section(records: Sequence[SearchRecord]) -> Iterator[Section]:
    """The section of the report; nothing where there is no search."""
    if records:
        drawings = tuple(draw_expected_best(record, tuple(expected_curves(record))) for record in records)
        tables = (budget_table(records), *(best_table(record, 5) for record in records))
        yield Section(HEADING, (RULE, EXPECTED), tables, tuple(one for one in drawings if one))


def budget_table(records: Sequence[SearchRecord]) -> Table:
    """A row a search: what was tried, what it cost, how much of it early stopping saved."""
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
    columns = (*map(Column, names), *(Column(name, number=True) for name in (*numbers, "Best")))
    return Table("searches", "What was spent on tuning", columns, tuple(map(_budget_row, records)))


def best_table(record: SearchRecord, count: int) -> Table:
    """The best settings that a search found, those that were trained furthest first."""
    question = record.question
    names = tuple(question.space)
    columns = [Column("Setting", number=True), *(Column(name, number=True) for name in ("Score", "Target", "Steps"))]
    columns += [Column("State"), *map(Column, names)]
    rows = []
    for sample in record.ranked()[:count]:
        score, setting = number_cell(sample.objective(question)), sample.hyperparameters
        number = Cell(str(sample.number + 1), sample.number + 1)
        steps = Cell(str(sample.last_step(question)), sample.last_step(question))
        said = [Cell(str(setting.get(name, DASH))) for name in names]
        rows.append((number, score, Cell(_targets(sample, record)), steps, Cell(sample.state), *said))
    tasks = ", ".join(question.tasks)
    caption = f"{record.name}: the best of {record.settings_tried} settings of {question.contender} on {tasks}"
    note = "Scores are means over tuning episodes, at each setting's best target; the settings were chosen by them."
    return Table(f"search-{record.name}", caption, tuple(columns), tuple(rows), (note,))


def _budget_row(record: SearchRecord) -> tuple[Cell, ...]:
    question, samples = record.question, record.samples
    stopped = {"none": DASH, "asha": "ASHA", "halving": "successive halving"}[question.scheduler]
    done = sum(sample.state == "done" for sample in samples)
    failed = sum(sample.state in ("failed", "diverged") for sample in samples)
    full = record.asked * question.full_steps
    counts = (len(samples), record.settings_tried, done, failed, record.steps)
    episodes, minutes = sum(s.episodes for s in samples), sum(s.seconds for s in samples) / 60
    return (
        *map(Cell, (record.name, question.suite, question.contender, ", ".join(question.tasks))),
        *(Cell(question.searcher), Cell(stopped)),
        *(Cell(str(count), count) for count in counts),
        Cell(f"{100 * record.steps / full:.0f} %", record.steps / full),
        *(Cell(str(episodes), episodes), number_cell(minutes)),
        number_cell(record.best.objective(question) if record.best else None),
    )


def _targets(sample: Sample, record: SearchRecord) -> str:
    found = sample.targets(record.question)
    told = [DASH if target is None else f"{target:g}" for target in found.values()]
    return told[0] if len(set(told)) == 1 else ", ".join(told) or DASH
