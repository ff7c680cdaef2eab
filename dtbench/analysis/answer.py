"""The page's question, answered task by task: Decision Transformer less the best learner of another family."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from dtbench.analysis import pairwise
from dtbench.analysis.lookalikes import lookalikes, originals
from dtbench.analysis.pairwise import Difference, Verdict
from dtbench.analysis.settings_tried import UNEQUAL
from dtbench.analysis.statistics import MIN_SEEDS, Estimate, Interval, t_interval
from dtbench.analysis.suite_analysis import RAW, SuiteAnalysis
from dtbench.analysis.tables.table import Cell, Column, Table, number_cell, with_interval
from dtbench.ledger.families import FAMILIES
from dtbench.ledger.store import TrialRecord

WORDS = {"above": "better", "below": "worse", "match": "match", "undecided": "undecided"}
LATE = "not converged"
CHOICE_RULE = (
    "The rival on a task is the learner of its family with the highest mean there, chosen after the fact, which "
    "favours the rival. A task of several suites counts once: in one with the five seeds that a verdict needs, else "
    "with most seeds, and among those where most rivals ran."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Decision Transformer and the best learner of one family on one task."""

    task: str
    domain: str
    family: str
    analysis: SuiteAnalysis  # where they met
    names: tuple[str, str]  # ours and the rival
    difference: Difference
    verdict: Verdict
    delayed: bool = False  # whether all of an episode's reward comes at its end

    @property
    def word(self) -> str:
        """Return better, worse, match, undecided or not converged."""
        late = any(self.analysis.inputs.status(self.task, name).bar for name in self.names)
        return LATE if late and not self.verdict.decided else WORDS[self.verdict.kind]

    @property
    def raw(self) -> bool:
        """Return whether the score is a return, in points of the task's own."""
        return self.analysis.score_names.get(self.task, "").startswith(RAW)

    @property
    def seeds(self) -> tuple[int, int]:
        """Return the numbers of training seeds."""
        return self.difference.ours_seeds, self.difference.theirs_seeds

    @property
    def estimates(self) -> tuple[Estimate, Estimate]:
        """Return both scores."""
        ours, theirs = (self.analysis.inputs.estimates[self.task, name] for name in self.names)
        return ours, theirs


def comparisons(analyses: Sequence[SuiteAnalysis], family: str) -> list[Comparison]:
    """Return one comparison a task, in the order of suites and domains: of most seeds, then of most rivals."""
    found: dict[str, tuple[tuple[int, int], Comparison]] = {}
    for analysis in analyses:
        for rivals, one in _of_suite(analysis, family):
            rank = min(MIN_SEEDS, *one.seeds), rivals
            if one.task not in found or rank > found[one.task][0]:
                found[one.task] = (rank, one)
    domains = list(dict.fromkeys(one.domain for _, one in found.values()))
    return sorted((one for _, one in found.values()), key=lambda one: domains.index(one.domain))


def _of_suite(analysis: SuiteAnalysis, family: str) -> Iterator[tuple[int, Comparison]]:
    """Yield a suite's comparisons, each with how many rivals of any family it had to beat."""
    own = [name for name in analysis.contenders if analysis.families.get(name) == "dt"]
    if not own:
        return
    names = [own[0], *(name for name in analysis.contenders if name != own[0])]
    outcomes = pairwise.pair_outcomes(
        analysis.results.records,
        analysis.finals,
        tasks=analysis.ran,
        contenders=names,
        inputs=analysis.inputs,
        margin=analysis.margin,
    )
    drawn = analysis.inputs.over_draws
    for task in (*drawn, *analysis.ran):
        there = [name for name in names[1:] if (task, name) in outcomes]
        able = [name for name in there if analysis.families.get(name) == family]
        if able:
            best = max(able, key=lambda name: analysis.inputs.estimates[task, name].mean)
            facts = analysis.provenance.get(drawn.get(task, (task,))[0], {})
            domain = str((facts.get("task") or {}).get("domain") or "")
            delayed = bool(((facts.get("dataset") or {}).get("info") or {}).get("delayed"))
            yield (
                sum(analysis.families.get(name) in ("td", "imitation") for name in there),
                Comparison(task, domain, family, analysis, (names[0], best), *outcomes[task, best], delayed=delayed),
            )


@dataclass(frozen=True, slots=True)
class Chip:
    """What came out on one domain."""

    domain: str
    word: str  # better, worse, match, mixed, undecided or not converged
    detail: str


def chips(found: Sequence[Comparison]) -> list[Chip]:
    """Return one chip a domain: what all of its decided tasks say, or why none is decided."""
    made = []
    for domain in dict.fromkeys(one.domain for one in found):
        words = Counter(one.word for one in found if one.domain == domain)
        decided = sum(words[word] for word in ("better", "worse", "match"))
        detail = f"{decided} of {sum(words.values())} decided"
        made.append(Chip(domain.replace("_", "-") or "tasks", _word(words), detail))
    return made


def _word(words: Counter[str]) -> str:
    decided = [word for word in ("better", "worse", "match") if words[word]]
    if len(decided) > 1:
        return "mixed"
    return decided[0] if decided else ("undecided" if words["undecided"] >= words[LATE] else LATE)


def learner_of(family: str) -> str:
    """Return what a contender of the family is called in a sentence."""
    return "TD learner" if family == "td" else f"{FAMILIES[family]} learner"


def sentence(found: Sequence[Comparison], family: str) -> str:
    """Return one sentence made from the verdicts; only decided pairs count in it."""
    rival = f"the best {learner_of(family)}"
    words, total = Counter(one.word for one in found), len(found)
    if not found:
        return f"No suite here has both Decision Transformer and a contender of the family {FAMILIES[family]}."
    decided = sum(words[word] for word in ("better", "match", "worse"))
    if not decided:
        return f"Nothing is decided yet between Decision Transformer and {rival}: {_open_reasons(found)}."
    left = f"; undecided: {_open_reasons(found)}" if decided < total else ""
    return (
        f"Of {_count(total, 'task')}, Decision Transformer is better than {rival} on {words['better']}, matches it on "
        f"{words['match']} and is worse on {words['worse']}{left}."
    )


def average_sentence(found: Sequence[Comparison], family: str) -> str:
    """Return the mean difference over the tasks where both converged, with Welch's interval; "" below two tasks.

    The tasks are taken as they are, not as a sample of others. Tasks whose reward comes at the end of an episode are
    averaged apart: a mean of two opposite answers would be none. Where one task alone decides the sign, the mean
    without it is given too.
    """
    able = [one for one in found if one.word != LATE and not one.raw and min(one.seeds) >= MIN_SEEDS]
    if len(able) < 2:
        return ""
    groups = {
        "with the environment's own reward": [one for one in able if not one.delayed],
        "with all of an episode's reward moved to its end": [one for one in able if one.delayed],
    }
    there = {name: own for name, own in groups.items() if own}
    parts = [
        f"over the {_count(len(own), 'task')}{f' {name}' if len(there) > 1 else ''} it is {_average_text(own)}"
        for name, own in there.items()
    ]
    return (
        f"Decision Transformer less the best {learner_of(family)}, where both have {MIN_SEEDS} seeds and are known to "
        f"have converged, in points on average: {'; '.join(parts)}. Of other tasks this says nothing."
    )


def _average_text(found: Sequence[Comparison]) -> str:
    mean, ends = _average(found)
    text = with_interval(mean, ends)
    if len(found) < 2:
        return text
    largest = max(found, key=lambda one: abs(one.difference.mean - mean))
    rest, rest_ends = _average([one for one in found if one is not largest])
    alone = rest * mean < 0 or rest_ends.holds(0.0) != ends.holds(0.0)
    return f"{text} (without {largest.task} {with_interval(rest, rest_ends)})" if alone else text


def _average(found: Sequence[Comparison]) -> tuple[float, Interval]:
    mean = fmean(one.difference.mean for one in found)
    deviations = [one.difference.deviation for one in found]
    return mean, t_interval(mean, [((one.error / len(found)) ** 2, one.freedom) for one in deviations])


def _open_reasons(found: Sequence[Comparison]) -> str:
    """Return why pairs are not decided, counted."""
    left = [one for one in found if not one.verdict.decided]
    late = sum(one.word == LATE for one in left)
    lopsided = sum(one.verdict.why.startswith(UNEQUAL) for one in left)
    few = sum(one.word != LATE and min(one.seeds) < MIN_SEEDS for one in left)
    reasons = {
        "one of the two is not known to have converged": late,
        f"one has fewer than {MIN_SEEDS} seeds": few,
        "the one ahead was tuned more": lopsided,
        "the interval leaves it open": len(left) - few - late - lopsided,
    }
    whole = "all " if len(left) == len(found) > 1 and max(reasons.values()) == len(left) else ""
    return ", ".join(f"on {whole}{_count(count, 'task')} {reason}" for reason, count in reasons.items() if count)


def caveat(found: Sequence[Comparison]) -> str:
    """Return what a reader must know of the numbers in one line: data, budgets, seeds, and how many pairs count."""
    by_task = {one.task: one.analysis.source(one.task) or "unknown" for one in found}
    sources = Counter(by_task.values())
    data = ", ".join(f"{name} ({_count(count, 'task')})" for name, count in sources.most_common())
    fake = lookalikes(by_task)
    fake_text = f", of which {len(fake)} are look-alikes of {originals(fake.values())}" if fake else ""
    steps = [record.spec.train_steps for one in found for record in _trials_of(one)]
    seeds = [count for one in found for count in one.seeds]
    decided = sum(one.verdict.decided for one in found)
    return (
        f"Data: {data}{fake_text}. Budgets: {_range(steps)} gradient steps. Seeds: {_range(seeds)} a contender. Only "
        f"decided pairs count, {decided} of {len(found)}: {MIN_SEEDS} seeds a side, both converged, and "
        "the side ahead not searched more than the other."
    )


def _trials_of(one: Comparison) -> Iterator[TrialRecord]:
    tasks = one.analysis.inputs.over_draws.get(one.task, (one.task,))
    for record in one.analysis.results.records:
        if record.spec.task in tasks and record.spec.contender in one.names:
            yield record


def answer_table(found: Sequence[Comparison]) -> Table:
    """Return a row for each comparison: both scores, the difference and its verdict."""
    rows = tuple(map(_row, found))
    texts = ("Task", "Suite", "Family", "Ours", "Rival")
    numbers = ("Our score", "Its score", "Difference", "95% low", "95% high", "Seeds")
    columns = (*map(Column, texts), *(Column(name, number=True, shown="95%" not in name) for name in numbers))
    caption = "Decision Transformer less the best of each family, with 95 % intervals"
    return Table("answer", caption, (*columns, Column("Data", shown=False), Column("Verdict")), rows)


def _row(one: Comparison) -> tuple[Cell, ...]:
    ours, theirs = one.estimates
    links = [one.analysis.inputs.status(one.task, name).link for name in one.names]
    ends = one.difference.interval
    return (
        Cell(one.task),
        Cell(one.analysis.results.name, link=f"suite-{one.analysis.results.name}"),
        *(Cell(FAMILIES[one.family]), *map(Cell, one.names)),
        *(
            Cell(with_interval(own.mean, None), own.mean, link=link)
            for own, link in zip((ours, theirs), links, strict=True)
        ),
        Cell(with_interval(one.difference.mean, ends), one.difference.mean),
        *(number_cell(end) for end in ((ends.low, ends.high) if ends else (None, None))),
        Cell(" / ".join(map(str, one.seeds)), min(one.seeds)),
        Cell(one.analysis.source(one.task)),
        Cell(one.word, kind=one.word.replace(" ", "-")),
    )


def _range(values: Sequence[int]) -> str:
    ends = sorted({min(values, default=0), max(values, default=0)})
    return " to ".join(f"{end:,}" for end in ends)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
