"""What changed from one set of results to another: a difference with an interval and a verdict for each cell."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis.archive import archived, read_archive
from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.results import SuiteResults, spec_values
from dtbench.analysis.results_directory import load_results
from dtbench.analysis.statistics import (
    LEVEL,
    Estimate,
    Interval,
    bootstrap_interval,
    deviation,
    estimate,
    holm,
    mean_part,
    probability_of_improvement,
    t_interval,
)
from dtbench.analysis.suite_analysis import diverged_of
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number_cell, with_interval
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from dtbench.ledger.trial_spec import TrialSpec

BETTER, WORSE, SAME, UNCLEAR = "better", "worse", "identical", "no difference seen"
FEW, LOST, ONLY_A, ONLY_B = "too few seeds", "no number in B", "only in A", "only in B"
REGRESSION = "regression"

DIGITS = 6  # significant ones in which equal trials must agree: threads and processors decide the later ones
VERDICT_RULE = (
    "Intervals of differences: Welch's t over training seeds, 95 %. Better and worse: p of Welch's test at most 0.05 "
    "after Holm's correction for all that is compared. Intervals of P redraw the seeds: too narrow with two or three."
)
_MACHINE = ("threads", "device")  # of provenance: no part of a trial's key
_LISTED = 3  # cells that a remark lists before it counts the rest
_NAMES = {"dataset_source": "source of the data", "dataset_digest": "data"}  # fields of a spec in words
_LABELS = ("suite", "contender", "task", "seed", "resources", "open_from", "key")  # fields that decide no outcome


@dataclass(frozen=True, slots=True)
class SideScores:
    """One suite of one side."""

    finals: pd.DataFrame  # a row a trial: its last checkpoint at its headline target
    specs: Mapping[str, TrialSpec]  # by key
    diverged: Mapping[tuple[str, str], int]  # trials by task and contender
    damaged: tuple[str, ...] = ()  # why the files of damaged trials cannot be read
    machines: Mapping[str, str] = field(default_factory=dict)  # threads and device, by key


@dataclass(frozen=True, slots=True)
class Side:
    """All suites of one side of a comparison, and its name."""

    name: str
    suites: Mapping[str, SideScores]


def open_side(name: str) -> Side:
    """Read a results directory or a directory of scores.

    Raises InvalidValue where it is not a directory, NothingToReport where it holds no results, LedgerError for
    damaged ones.
    """
    directory = Path(name)
    if not directory.is_dir():
        raise InvalidValue(f"{name}: no such directory. Name a results directory or a directory of scores.")
    if (directory / "runs").is_dir() or (directory / "scores").is_dir():
        found = load_results(directory)
    else:
        found = [read_archive(directory, suite) for suite in archived(directory)]
    if not found:
        raise NothingToReport(f"{directory} holds no results, neither runs/ nor scores. Name a results directory.")
    return Side(name, {one.name: scores_of(one) for one in found})


def scores_of(results: SuiteResults) -> SideScores:
    """Return what a comparison reads of a suite."""
    specs = {record.spec.key: record.spec for record in results.records}
    machines = {
        record.spec.key: ", ".join(f"{name} {record.provenance.get(name, 'unknown')}" for name in _MACHINE)
        for record in results.records
    }
    return SideScores(final_rows(results), specs, diverged_of(results.unfinished), results.damaged, machines)


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule by which a comparison fails."""

    max_drop: float = 0.0
    fail_below: float | None = None

    def __str__(self) -> str:
        """Return the rule in words."""
        drop = f" and the 95 % interval of B - A lies wholly below {-self.max_drop:g}" if self.max_drop else ""
        text = f"a regression is where B is worse{drop}"
        if self.fail_below is not None:
            text += f", or where the probability that B improves on A is below {self.fail_below:g}"
        return (
            text + ", or where every trial of B scored nan or diverged; what is identical or on one side only is none"
        )

    def broken_by(self, pair: "Pair") -> bool:
        """Return whether the pair is a regression."""
        if pair.verdict == SAME or pair.change is None:
            return pair.verdict == LOST
        dropped = pair.verdict == WORSE and pair.interval is not None and pair.interval.high < -self.max_drop
        unlikely = self.fail_below is not None and pair.improvement is not None and pair.improvement < self.fail_below
        return dropped or unlikely


@dataclass(frozen=True, slots=True)
class Pair:
    """A contender on a task, in A and in B; None where a side or its interval is missing."""

    suite: str
    task: str
    contender: str
    before: Estimate | None
    after: Estimate | None
    verdict: str
    change: float | None = None  # mean in B - mean in A
    interval: Interval | None = None
    p_value: float | None = None  # of Welch's test; `compare` returns it adjusted for all pairs
    improvement: float | None = None  # probability that a run of B beats one of A, ties counting half
    improvement_interval: Interval | None = None
    remarks: tuple[str, ...] = ()  # what else differs, so that the difference says less


def compare(before: Side, after: Side, suites: Sequence[str] = ()) -> list[Pair]:
    """Return a pair for each suite, task and contender of either side, in the order of A.

    Raises UnknownName for a suite that neither has and NothingToReport where the sides have no cell in common.
    """
    known = list(dict.fromkeys([*before.suites, *after.suites]))
    for name in suites:
        if name not in known:
            raise UnknownName(f"suite in {before.name} and {after.name}", name, known)
    chosen = [name for name in known if not suites or name in suites]
    pairs = [pair for name in chosen for pair in _pairs(name, before.suites.get(name), after.suites.get(name))]
    if all(pair.verdict in (ONLY_A, ONLY_B) for pair in pairs):
        raise NothingToReport(_nothing_in_common(before, after, chosen))
    return _judged(pairs)


def table_of(pairs: Sequence[Pair], before: Side, after: Side, rule: Rule) -> Table:
    """Return the comparison as a table; remarks are its notes."""
    numbers = [
        Column("n in A", number=True),
        Column("A", number=True),
        Column("n in B", number=True),
        Column("B", number=True),
        Column("difference", number=True),
        Column("P(B improves on A)", number=True),
    ]
    ends = ["difference_low", "difference_high", "improvement_low", "improvement_high"]
    return Table(
        name="comparison",
        caption=f"A: {before.name}; B: {after.name}. Mean final score over n training seeds, 95 % intervals",
        columns=(
            Column("suite"), Column("task"), Column("contender"), *numbers, Column("verdict"),
            *(Column(end, number=True, shown=False) for end in (*ends, "p")), Column("remarks", shown=False),
        ),
        rows=tuple(_row(pair, rule) for pair in pairs),
        notes=tuple(notes(pairs, before, after, rule)),
    )  # fmt: skip


def notes(pairs: Sequence[Pair], before: Side, after: Side, rule: Rule) -> Iterator[str]:
    """Yield the notes below the numbers: remarks, the rule, the outcome."""
    for remark, cells in _by_remark(pairs).items():
        more = f" and {len(cells) - _LISTED} more" if len(cells) > _LISTED else ""
        yield f"{remark} ({'; '.join(cells[:_LISTED])}{more})."
    yield VERDICT_RULE
    yield f"Rule: {rule}."
    counts = pd.Series([pair.verdict for pair in pairs]).value_counts(sort=False)
    yield "Of " + f"{len(pairs)}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + "."
    broken = [_cell_name(pair) for pair in pairs if rule.broken_by(pair)]
    yield f"REGRESSIONS: {'; '.join(broken)}." if broken else "No regression."


def text(table: Table) -> str:
    """Return the table for a terminal: columns aligned, notes below."""
    shown = [index for index, column in enumerate(table.columns) if column.shown]
    rows = [[table.columns[index].name for index in shown]]
    rows += [[row[index].text for index in shown] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [table.columns[index].number for index in shown]
    lines = []
    for row in rows:
        cells = zip(row, widths, numeric, strict=True)
        lines.append("  ".join(c.rjust(w) if number else c.ljust(w) for c, w, number in cells).rstrip())
    return "\n".join([table.caption, "", *lines, "", *table.notes]) + "\n"


def document(pairs: Sequence[Pair], before: Side, after: Side, rule: Rule) -> str:
    """Return the comparison as JSON, nan as null."""
    rows = [{**asdict(pair), REGRESSION: rule.broken_by(pair)} for pair in pairs]
    about = {"A": before.name, "B": after.name, "rule": str(rule), "notes": list(notes(pairs, before, after, rule))}
    return json.dumps({**about, "pairs": rows}, indent=2, allow_nan=False) + "\n"


def _nothing_in_common(before: Side, after: Side, chosen: Sequence[str]) -> str:
    common = [name for name in chosen if name in before.suites and name in after.suites]
    if common:
        return f"A and B both have {', '.join(common)}, but no task and contender in common: nothing to compare."
    held = [f"{side} has {', '.join(own.suites)}" for side, own in (("A", before), ("B", after))]
    return f"no suite in common: {'; '.join(held)}. Run the same suite for both."


def _pairs(suite: str, before: SideScores | None, after: SideScores | None) -> Iterator[Pair]:
    groups = [_groups(side) for side in (before, after)]
    for task, contender in dict.fromkeys([*groups[0], *groups[1]]):
        ours, theirs = (group.get((task, contender)) for group in groups)
        if ours is None or theirs is None:
            left, right = (None if own is None else _estimate(own) for own in (ours, theirs))
            remarks = tuple(_diverged(task, contender, before, after))
            gone = theirs is None and after is not None and (task, contender) in after.diverged
            verdict = LOST if gone else ONLY_B if ours is None else ONLY_A
            yield Pair(suite, task, contender, left, right, verdict, remarks=remarks)
        else:
            assert before is not None
            assert after is not None
            remarks = (
                *_differences(ours, theirs, before.specs, after.specs),
                *_other_digits(ours, theirs, before.machines, after.machines),
                *_without_number(ours, theirs),
            )
            yield _pair((suite, task, contender), ours, theirs, (*remarks, *_diverged(task, contender, before, after)))


def _groups(side: SideScores | None) -> dict[tuple[str, str], pd.DataFrame]:
    if side is None:
        return {}
    return {(str(t), str(c)): own for (t, c), own in side.finals.groupby(["task", "contender"], sort=False)}


def _pair(names: tuple[str, str, str], a: pd.DataFrame, b: pd.DataFrame, remarks: Iterable[str]) -> Pair:
    before, after = _estimate(a), _estimate(b)
    if before is None or after is None:
        return Pair(*names, before, after, LOST if before else FEW, remarks=tuple(remarks))
    old, new = (np.asarray(one.values, np.float64)[:, None] for one in (before, after))
    alike = _outcomes(a) == _outcomes(b)
    repeated = min(len(old), len(new)) > 1 and not alike
    change = after.mean - before.mean
    parts = [mean_part(one.values) for one in (before, after)] if repeated else []
    return Pair(
        *names,
        before,
        after,
        verdict=SAME if alike else UNCLEAR if repeated else FEW,
        change=change,
        interval=t_interval(change, parts) if repeated else None,
        p_value=deviation(change, parts).p_of_none() if repeated else None,
        improvement=float(probability_of_improvement(new, old)),
        improvement_interval=bootstrap_interval(probability_of_improvement, new, old) if repeated else None,
        remarks=tuple(remarks),
    )


def _judged(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with their verdicts and p-values adjusted for all (Holm)."""
    raw = {index: pair.p_value for index, pair in enumerate(pairs) if pair.p_value is not None}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    made = []
    for index, pair in enumerate(pairs):
        p_value = adjusted.get(index)
        verdict = pair.verdict
        if p_value is not None and p_value <= 1 - LEVEL and pair.change:
            verdict = BETTER if pair.change > 0 else WORSE
        made.append(replace(pair, p_value=p_value, verdict=verdict))
    return made


def _estimate(finals: pd.DataFrame) -> Estimate | None:
    scores = finals["score"].dropna().tolist()
    return estimate(scores) if scores else None


def _outcomes(finals: pd.DataFrame) -> set[tuple[str, str]]:
    """Return keys and scores, to DIGITS."""
    return {(key, f"{score:.{DIGITS}g}") for key, score in zip(finals["trial"], finals["score"], strict=True)}


def _other_digits(
    a: pd.DataFrame, b: pd.DataFrame, before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[str]:
    """Yield on what machines equal trials ran that have other scores."""
    scores = dict(zip(a["trial"], a["score"], strict=True))
    other = [key for key, score in zip(b["trial"], b["score"], strict=True) if scores.get(key, score) != score]
    machines = sorted(
        {(before[key], after[key]) for key in other if before.get(key) != after.get(key)} if other else ()
    )
    for old, new in machines:
        yield f"equal trials have other digits: A ran on {old}; B on {new}"


def _without_number(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[str]:
    for side, own in (("A", a), ("B", b)):
        if lost := int(own["score"].isna().sum()):
            yield f"in {side} the score of {lost} of {len(own)} seeds is not a number: left out"


def _diverged(task: str, contender: str, before: SideScores | None, after: SideScores | None) -> Iterator[str]:
    for side, own in (("A", before), ("B", after)):
        if own and (lost := own.diverged.get((task, contender), 0)):
            yield f"in {side} {lost} {'seed' if lost == 1 else 'seeds'} diverged: left out"


def _differences(
    a: pd.DataFrame, b: pd.DataFrame, before: Mapping[str, TrialSpec], after: Mapping[str, TrialSpec]
) -> Iterator[str]:
    """Yield what the specs differ in besides the seeds."""
    ours, theirs = [before[key] for key in a["trial"]], [after[key] for key in b["trial"]]
    if {spec.cell for spec in ours} != {spec.cell for spec in theirs}:
        found = list(_changes(_spec_values(ours), _spec_values(theirs)))
        yield from found or ["the specs differ in the order or the rounding of their values"]


def _spec_values(specs: Iterable[TrialSpec]) -> dict[str, list[str]]:
    values: dict[str, set[str]] = {}
    for spec in specs:
        for label, value in spec_values(spec).items():
            if label not in _LABELS:
                name = _NAMES.get(label, label)
                values.setdefault(name, set()).add(_text(name, value))
    return {name: sorted(found) for name, found in values.items()}


def _text(name: str, value: Any) -> str:
    if name == "data":
        return f"digest {str(value)[:12]}"
    if isinstance(value, float):
        return "none" if np.isnan(value) else f"{value:.10g}"
    return str(value)


def _changes(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, ["none"]), after.get(name, ["none"])
        if old != new:
            kind = "B ran on other data" if name == "data" else f"B ran with another {name}"
            yield f"{kind}: {_short(new)}, A's was {_short(old)}"


def _short(values: Sequence[str]) -> str:
    return textwrap.shorten(" or ".join(values), 80, placeholder=" ...")


def _by_remark(pairs: Iterable[Pair]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in pairs:
        for remark in pair.remarks:
            found.setdefault(remark, []).append(_cell_name(pair))
    return found


def _cell_name(pair: Pair) -> str:
    return f"{pair.suite}: {pair.contender} on {pair.task}"


def _row(pair: Pair, rule: Rule) -> tuple[Cell, ...]:
    verdict = f"{pair.verdict}: {REGRESSION.upper()}" if rule.broken_by(pair) else pair.verdict
    intervals = (pair.interval, pair.improvement_interval)
    ends = [end for one in intervals for end in ((one.low, one.high) if one else (None, None))]
    return (
        *map(Cell, (pair.suite, pair.task, pair.contender)),
        *(cell for side in (pair.before, pair.after) for cell in _mean_cells(side)),
        _change_cell(pair.change, pair.interval, 1),
        _change_cell(pair.improvement, pair.improvement_interval, 2),
        Cell(verdict),
        *(number_cell(end, 2) for end in ends),
        number_cell(pair.p_value, 4),
        Cell("; ".join(pair.remarks)),
    )


def _mean_cells(side: Estimate | None) -> tuple[Cell, Cell]:
    if side is None:
        return Cell("0", 0), hole()
    return Cell(str(len(side.values)), len(side.values)), number_cell(side.mean)


def _change_cell(value: float | None, interval: Interval | None, decimals: int) -> Cell:
    return hole() if value is None else Cell(with_interval(value, interval, decimals), value)
