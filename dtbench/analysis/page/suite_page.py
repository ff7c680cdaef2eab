"""The sections of a suite's page, in the order in which they are read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dtbench.analysis import pairwise, suite_analysis
from dtbench.analysis.figures.bars import draw_bars, draw_grouped_bars
from dtbench.analysis.figures.curves import draw_progress, draw_progress_grid
from dtbench.analysis.figures.data_card import draw_data_cards
from dtbench.analysis.figures.profiles import draw_improvement, draw_profiles
from dtbench.analysis.figures.rank_agreement import draw_rank_agreement
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.figures.targets import draw_target_grid, draw_targets
from dtbench.analysis.headline import stated_targets
from dtbench.analysis.lookalikes import lookalike_warning, lookalikes, originals
from dtbench.analysis.page.html import SuitePage
from dtbench.analysis.page.methods import methods_text
from dtbench.analysis.page.paper_tables import paper_tables
from dtbench.analysis.page.section import SEVERAL, Section
from dtbench.analysis.page.trials import trial_data
from dtbench.analysis.published import NOT_RUN
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.statistics import MIN_SEEDS
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.superseded import RULE
from dtbench.analysis.tables import checkpoint_selection, protocol, targets
from dtbench.analysis.tables import scores as tables
from dtbench.analysis.tables.convergence import convergence_table
from dtbench.analysis.tables.diverged import of_cell, of_contender, of_pair, with_diverged
from dtbench.analysis.tables.rank_agreement import rank_agreement_table
from dtbench.analysis.tables.superseded import superseded_table
from dtbench.analysis.tables.table import DASH
from dtbench.ledger.trial_spec import TrialState
from dtbench.registry import report_sections

LONG_TABLE = 30  # rows; longer ones are folded


def suite_page(analysis: SuiteAnalysis) -> SuitePage:
    """Return the page of one suite."""
    results, suite = analysis.results, analysis.results.suite
    makers = (_results, _convergence, _beside_papers, _over_tasks, _pairs, _rules, _targets, _progress, _of_domains)
    sections = [section for make in makers for section in make(analysis)]
    sources = {task: analysis.source(task) for task in analysis.ran}
    warnings = (protocol.SMOKE if analysis.smoke else "", lookalike_warning(sources))
    fake = originals(lookalikes(sources).values())
    title = str(suite.get("title") or results.name or "dtbench")
    return SuitePage(
        name=results.name,
        title=f"{title} (generated look-alike of {fake})" if fake else title,
        description=str(suite.get("description") or "").strip(),
        facts=tuple(_facts(results)),
        warning=" ".join(filter(None, warnings)),
        sections=tuple(map(_lean, (*sections, *_record(analysis)))),
        trials=trial_data(analysis),
    )


def _facts(results: SuiteResults) -> Iterator[tuple[str, str]]:
    suite, done = results.suite, len(results.records)
    yield "Suite", str(suite.get("name") or DASH)
    yield "Preset", str(suite.get("preset") or DASH)
    yield "Overrides", ", ".join(map(str, suite.get("overrides") or [])) or "none"
    yield "Training seeds", ", ".join(map(str, suite.get("seeds") or [])) or DASH
    yield "Data", ", ".join(sorted({record.spec.dataset_source for record in results.records}))
    yield "Trials finished", f"{done} of {done + len(results.not_run)}"
    hours = sum(float(record.result.get("seconds") or 0) for record in results.records) / 3600
    yield "Ran", f"{hours:.2g} hours of one worker, last on {_last_day(results) or 'an unknown day'}"
    yield "Commit", _commits(results) or "not recorded"


def _last_day(results: SuiteResults) -> str:
    return max((str(record.provenance.get("finished") or "")[:10] for record in results.records), default="")


def _commits(results: SuiteResults) -> str:
    """Return the commits of the trials, oldest first; of many only the last: the table of software has all."""
    known = [one.provenance for one in results.records if one.provenance.get("commit")]
    ordered = sorted(known, key=lambda facts: str(facts.get("finished") or ""), reverse=True)
    commits = list(dict.fromkeys(str(facts["commit"]) for facts in ordered))[::-1]
    return ", ".join(commits) if len(commits) <= SEVERAL else f"{commits[-1]} and {len(commits) - 1} before it"


def _results(analysis: SuiteAnalysis) -> Iterator[Section]:
    many = len(analysis.tasks) > tables.MANY_TASKS
    shown = [*analysis.tasks, *analysis.shown_averages] if many else analysis.tasks
    scores = tables.score_table(
        analysis.inputs,
        tasks=shown,
        contenders=analysis.contenders,
        headings=protocol.headings(analysis.results, analysis.averages, analysis.mixed_score_names),
        data=analysis.data_scores,
    )
    text = [suite_analysis.MIXED_RULE.format(len(analysis.scales))] if len(analysis.scales) > 1 else []
    if analysis.broken:
        text.append(f"No number: {len(analysis.broken)} finished trials scored NaN and count as missing.")
    text += analysis.diverged_text
    text += stated_targets(analysis.results.suite, analysis.contenders, analysis.ran)
    first, more = draw_finals(analysis)
    yield Section("Results", tuple(text), (scores,), first, more=more)
    if remarks := _remarks(analysis):
        yield Section("Remarks", remarks)
    about = protocol.task_table(analysis.results, analysis.tasks)
    yield Section("Tasks", (), (about,), folded=True)


def _convergence(analysis: SuiteAnalysis) -> Iterator[Section]:
    table = convergence_table(analysis.convergence, analysis.contenders, analysis.inputs.tried)
    if table:
        found = list(analysis.convergence.values())
        late, unknown = (
            sum(map(bool, why)) for why in ([one.reason for one in found], [one.unknown for one in found])
        )
        text = [f"{late} of {len(found)} cells had not converged: they are marked †."] if late else []
        text += [f"Of {unknown} of {len(found)} cells nobody can tell whether they had."] if unknown else []
        yield Section("Convergence", tuple(text), (table,), folded=True)


def draw_finals(analysis: SuiteAnalysis) -> tuple[tuple[Drawing, ...], tuple[Drawing, ...]]:
    """Return one figure of all tasks where they are several of one scale, and behind it, or alone, one a task."""
    numbers, published = analysis.inputs.estimates, analysis.published
    single = _present([draw_bars(analysis, t, estimates=numbers, published=published) for t in analysis.tasks])
    if len(analysis.tasks) < SEVERAL or len(analysis.scales) != 1:
        return single, ()
    shown = [*analysis.tasks, *analysis.shown_averages]
    return _present([draw_grouped_bars(analysis, shown, estimates=numbers, published=published)]), single


def _beside_papers(analysis: SuiteAnalysis) -> Iterator[Section]:
    shown = paper_tables(analysis)
    if len(analysis.published) > 1:
        shown.insert(0, tables.side_by_side_table(analysis.published, analysis.inputs))
    agreement = rank_agreement_table(analysis.published, analysis.inputs)
    if agreement:
        yield Section("Do the ranks agree?", (), (agreement,), _present([draw_rank_agreement(analysis)]))
    if shown:
        text = "The rule behind the verdicts is in the protocol below."
        long = any(len(table.rows) > LONG_TABLE for table in shown)
        yield Section("Beside published numbers", (text,), tables=tuple(shown), folded=long)


def _over_tasks(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield aggregates over every set of tasks that some contender finished; the others are named."""
    made, absent = [], []
    for place, name in enumerate(analysis.shown_averages, start=1):
        over = analysis.averages[name]
        matrices = analysis.matrices(over)
        if not set(over) <= set(analysis.ran):
            absent.append(name)
            continue
        whole = set(over) == set(analysis.tasks)
        scope = "" if whole else f"{len(over)} tasks ({name})"
        if not whole and over in analysis.scales:
            scope = f"{len(over)} tasks, {analysis.score_names[over[0]]}"
        kind = "aggregate" if whole else f"aggregate-{place}"
        lost = analysis.inputs.diverged(over)
        estimates = analysis.inputs.estimates
        means = {who: estimates[name, who] for who in analysis.contenders if (name, who) in estimates}
        first = analysis.contenders[0]
        table = tables.aggregate_table(matrices, means, first=first, name=kind, over=scope, diverged=lost)
        made.append(with_diverged(table, of_contender(analysis.inputs, over)))
    if made:
        text = f"Not run on every task, so without numbers: {', '.join(absent)}."
        shown, more = _spread(analysis)
        yield Section("Over all tasks", (text,) if absent else (), tuple(made), shown, more=more)


def _spread(analysis: SuiteAnalysis) -> tuple[tuple[Drawing, ...], tuple[Drawing, ...]]:
    """Return profiles and chances of improvement over the first scale that has several tasks.

    Profiles of few seeds are staircases of overlapping bands: they stand behind.
    """
    sets = [[task for task in scale if task in analysis.ran] for scale in analysis.scales]
    over = next((tasks for tasks in sets if len(tasks) > 1), [])
    if not over:
        return (), ()
    matrices, first = analysis.matrices(over), analysis.contenders[0]
    profiles = _present([draw_profiles(analysis, matrices, tasks=over)])
    improvement = _present([draw_improvement(analysis, matrices, first, tasks=over)])
    enough = max((len(scores) for scores in matrices.values()), default=0) >= MIN_SEEDS
    return ((*profiles, *improvement), ()) if enough else (improvement, profiles)


def _pairs(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield the first contender against each other one, on the episodes that both played."""
    table = pairwise.pair_table(
        analysis.results.records,
        analysis.finals,
        tasks=analysis.ran,
        contenders=analysis.contenders,
        averages={name: analysis.averages[name] for name in analysis.shown_averages},
        inputs=analysis.inputs,
        margin=analysis.margin,
    )
    if table:
        count_of = of_pair(analysis.inputs, analysis.contenders[0])
        met = tuple(
            tuple(replace(cell, short=cell.text.partition(":")[0]) if cell.kind else cell for cell in row)
            for row in table.rows
            if not any(NOT_RUN in cell.text for cell in row)
        )
        shown = with_diverged(replace(table, rows=met), count_of)
        yield Section("Pair by pair", tables=(shown,), folded=len(met) > LONG_TABLE)


def _rules(analysis: SuiteAnalysis) -> Iterator[Section]:
    fixed = {record.spec.key: record.spec.evaluation.targets for record in analysis.results.records}
    rows = checkpoint_selection.rule_rows(analysis.results.scores, analysis.finals, fixed)
    several = len(analysis.scales) > 1
    shown = []
    for place, scale in enumerate(analysis.scales, start=1):
        table = checkpoint_selection.rule_table(
            rows[rows["task"].isin(scale)],
            tasks=scale,
            contenders=analysis.contenders,
            name=f"rules-{place}" if several else "rules",
            note="" if several else checkpoint_selection.RULES_NOTE,
            diverged=analysis.inputs.diverged(scale),
            draws=scale in analysis.inputs.over_draws.values(),
        )
        if table:
            shown.append(with_diverged(table, of_contender(analysis.inputs, scale)))
    if shown:
        yield Section("Scoring rules", (checkpoint_selection.RULES_NOTE,) if several else (), tables=tuple(shown))


def _targets(analysis: SuiteAnalysis) -> Iterator[Section]:
    found = targets.all_targets(analysis)
    if not found:
        return
    drawings = [draw_targets(analysis, one) for one in found]
    grid = draw_target_grid(analysis, found) if len(found) > 2 else None
    table = targets.target_table(found)
    without = [task for task in analysis.tasks if task not in {one.task for one in found}]
    text = f"No contender was asked for more than one target return on {', '.join(without)}: nothing to draw."
    paragraphs = (text,) if without else ()
    shown = (with_diverged(table, of_cell(analysis.inputs)),) if table else ()
    first, more = ((grid,), tuple(drawings)) if grid else (tuple(drawings), ())
    yield Section("Achieved against target return", paragraphs, shown, first, folded=True, more=more)


def _progress(analysis: SuiteAnalysis) -> Iterator[Section]:
    single = _present([draw_progress(analysis, task) for task in analysis.tasks])
    grid = _present([draw_progress_grid(analysis, analysis.tasks)]) if len(analysis.tasks) >= SEVERAL else ()
    checkpoints = analysis.scores.groupby(["contender", "trial"])["step"].nunique().max()
    flat = checkpoints < SEVERAL  # a line through two points shows no course
    first, more = ((), (*grid, *single)) if flat else (grid, single) if grid else (single, ())
    if first or more:
        yield Section("Score over training", analysis.diverged_text, drawings=first, more=more)


def _of_domains(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield what the domains of the suite's tasks add."""
    facts = (analysis.provenance.get(task, {}).get("task") or {} for task in analysis.tasks)
    for domain in dict.fromkeys(str(fact.get("domain", "")) for fact in facts):
        if add := report_sections(domain):
            yield from add(analysis)


def _record(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield what ran, on what, how, and what did not."""
    results, finals = analysis.results, analysis.finals
    cards = {task: (facts.get("dataset") or {}).get("card") or {} for task, facts in analysis.provenance.items()}
    asked = {record.spec.task: record.spec.evaluation.targets for record in results.records}
    drawn = draw_data_cards(analysis, {task: c for task, c in cards.items() if c}, targets=asked)
    if results.superseded:
        yield Section("Superseded trials", (RULE,), (superseded_table(results),))
    yield Section("Protocol", protocol.protocol(results, finals))
    yield Section("Methods", methods_text(results), closed="The paragraphs on methods for a paper")
    yield Section("Data", tables=(protocol.data_table(results),), drawings=_present([drawn]))
    yield Section("Contenders", tables=(protocol.contender_table(results),))
    yield Section("Hyperparameters", tables=(protocol.hyperparameter_table(results),), folded=True)
    seeds = protocol.seed_table(finals, analysis.mixed_score_names)
    yield Section("Every trial", tables=(seeds,), folded=True, in_page=False)
    lacking = bool(results.unfinished or analysis.broken)
    shown = (protocol.not_run_table(results, analysis.broken),) if lacking else ()
    first, *others = _not_run_text(analysis)
    yield (
        Section("Planned, but without a number", tuple(others), shown, closed=first)
        if lacking
        else Section("Planned, but without a number", (first,))
    )
    yield Section("Software", tables=(protocol.software_table(results.records),), folded=True)


def _not_run_text(analysis: SuiteAnalysis) -> Iterator[str]:
    states: Counter[str] = Counter(trial.state for trial in analysis.results.unfinished)
    states["nan"] = len(analysis.broken)
    words = {
        "missing": "never began",
        "interrupted": "began and did not end",
        TrialState.DIVERGED: "diverged (a loss became NaN)",
        "failed": "failed",
        TrialState.DAMAGED: "cannot be read",
        "nan": "ended with a score that is no number",
    }
    parts = [f"{states[state]} {text}" for state, text in words.items() if states[state]]
    yield f"Of the planned trials {', '.join(parts)}." if parts else "Every planned trial has finished."
    tasks, names = analysis.absent
    if tasks:
        yield f"The suite's other tasks have no finished trial: {', '.join(tasks)}."
    if names:
        yield f"Contenders without a finished trial: {', '.join(names)}."


def _remarks(analysis: SuiteAnalysis) -> tuple[str, ...]:
    """Return what people wrote beside the scores, e.g. why a number disappoints."""
    text = str(analysis.results.suite.get("remarks") or "")
    return tuple(" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip())


def _lean(section: Section) -> Section:
    """Return the section without the matplotlib figures behind its drawings, which are large."""
    first, more = (tuple(replace(one, sheet=None) for one in some) for some in (section.drawings, section.more))
    return replace(section, drawings=first, more=more)


def _present(drawings: Iterable[Drawing | None]) -> tuple[Drawing, ...]:
    return tuple(drawing for drawing in drawings if drawing is not None)
