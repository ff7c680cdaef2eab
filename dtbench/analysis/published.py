"""Numbers that papers printed, each with its source, and what may be claimed of ours beside them."""

import csv
import fnmatch
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtbench.analysis.statistics import LEVEL, MARGIN, MIN_SEEDS, Estimate, deviation, mean_part
from dtbench.errors import InvalidSuite, UnknownName
from dtbench.suite import package_data

AGREES, DIFFERS, UNDECIDED, NOT_RUN, NOT_COMPARABLE = "agrees", "differs", "undecided", "not run", "not comparable"
NOT_PLANNED = "not in this suite"  # what a paper's method or dataset is of which the suite has no contender or task

VERDICT_RULE = (
    f"A cell agrees where two one-sided tests at {MARGIN:g} points find our mean equal to the published one, and "
    "differs where it does not and Welch's test finds a difference, each at 5 %; else it is undecided, as with fewer "
    f"than {MIN_SEEDS} training seeds. The published mean has the standard error of its seeds, or of one seed where "
    "their number is not printed; where no spread is, its seeds are taken to vary as ours do. It is known to half a "
    "unit of its last digit. A cell is not comparable where the suite says why, where "
    "our data, physics or protocol are not the published ones, where our learner has not converged, where one seed "
    "leaves no interval, and in the smoke preset."
)
_SOURCES = {
    "generated": "generated data",
    "minari": "Minari data",
    "d4rl": "D4RL data",
    "d4rl-excerpt": "an excerpt of D4RL's data",
    "re-recorded": "data re-recorded with D4RL's policy",
    "re-recorded-part": "a part of a set re-recorded with D4RL's policy",
    "dqn-replay": "DQN-replay data",
}

# Data that the same policies recorded in the same physics: other episodes of the same distribution.
_AS_GOOD_AS = {"d4rl": "re-recorded"}

_COLUMNS = ("table", "dataset", "env", "algorithm", "metric", "mean", "std", "n_seeds", "source", "note")

VALUES = ("score", "return")  # of ours; the return is undiscounted and in the task's own points

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Published:
    """One printed number."""

    mean: float
    std: float | None  # None where the paper prints no spread
    seeds: int | None  # None where the paper does not say
    rounding: float  # half a unit of the mean's last printed digit
    source: str
    note: str

    @property
    def decimals(self) -> int:
        """Return how many decimals the paper prints."""
        return max(0, round(-math.log10(2 * self.rounding)))

    @property
    def printed(self) -> str:
        """Return mean and spread as the paper has them."""
        spread = "" if self.std is None else f" ± {self.std:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}".replace("-", "\N{MINUS SIGN}") + spread


@dataclass(frozen=True, slots=True)
class PublishedEntry:
    """A printed number and where it stands in the paper's table."""

    line: int  # of the file: rows and columns of the table come in its order
    row: tuple[str, str]  # dataset and environment
    method: str
    metric: str
    task: str  # ours; empty where the suite has none
    contender: str  # likewise
    number: Published


@dataclass(frozen=True, slots=True)
class RunConditions:
    """Under what a task ran here, as far as it bears on a comparison."""

    source: str = ""  # of the data: d4rl, minari, generated; several where trials differ
    physics: str = ""  # empty where the task has none to choose
    protocol: str = ""  # likewise: how episodes are evaluated
    smoke: bool = False


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A paper's table as a suite refers to it."""

    title: str
    note: str
    source: str
    tasks: tuple[str, ...]
    contenders: tuple[str, ...]
    numbers: Mapping[tuple[str, str], Published]  # by (task, contender); absent where the paper prints nothing
    not_comparable: Mapping[str, str]  # task or contender -> why
    data: str = ""  # the source that our data must have; empty: any, because the recipe is the paper's own
    physics: str = ""  # likewise the physics
    protocols: Mapping[str, str] = field(default_factory=dict)  # likewise the protocol, which may differ by contender
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # rows that are means over these tasks
    file: str = ""
    table: str = ""  # its number, or how the file calls it
    value: str = "score"  # what of ours is held against it: one of VALUES
    entries: tuple[PublishedEntry, ...] = ()  # all numbers of the table, of methods that nobody ran too

    def why_not(self, task: str, contender: str, here: RunConditions, *, broken: int = 0, diverged: int = 0) -> str:
        """Return why a number cannot be compared with ours; "" where it can.

        `broken` counts seeds of ours that ended without a number, `diverged` those of them that diverged: a mean over
        the others is not what a paper prints.
        """
        if here.smoke:
            return "smoke preset"
        printed = self.numbers.get((task, contender))
        theirs = printed.note.partition(":")[0] if printed and "not comparable" in printed.note else ""
        stated = [self.not_comparable.get(name, "") for name in (task, contender)]
        apart = (
            self._other_data(here.source),
            _other("physics", here.physics, self.physics),
            _other("protocol", here.protocol, self.protocols.get(contender, "")),
        )
        nans = f"{_seeds(broken - diverged)} returned NaN" if broken > diverged else ""
        reasons = (*apart, *stated, theirs, nans, f"{_seeds(diverged)} diverged" if diverged else "")
        return "; ".join(reason for reason in dict.fromkeys(reasons) if reason)

    def rerecorded_note(self, conditions: Mapping[str, RunConditions]) -> str:
        """Return which tasks have D4RL's sets recorded again; "" where none that may be compared has."""
        again = _AS_GOOD_AS.get(self.data)
        sources = {task: conditions.get(task, RunConditions()).source.split(", ") for task in self.tasks}
        tasks = [task for task, names in sources.items() if again and again in names]
        return f"Data re-recorded with D4RL's policy: {', '.join(tasks)}." if tasks else ""

    def _other_data(self, source: str) -> str:
        as_good = (self.data, _AS_GOOD_AS.get(self.data))
        others = [name for name in source.split(", ") if name and name not in as_good] if self.data else []
        return " and ".join(_SOURCES.get(name, f"data from {name}") for name in others)


def read_rows(file: str) -> list[Row]:
    """Return the rows of results/published/`file`, every value as printed.

    Raises UnknownName where there is no such file, InvalidSuite for one that is no such table.
    """
    path = package_data.find("published", file)
    try:
        with path.open(newline="", encoding="utf-8") as text:
            rows: list[Any] = list(csv.DictReader(text, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidSuite(f"{path} cannot be read as CSV: {error}. Mend it.") from error
    for line, row in enumerate(rows, start=2):
        if any(not isinstance(row.get(column), str) for column in _COLUMNS) or None in row:
            raise InvalidSuite(f"{path}, line {line}: it needs a value for each of {', '.join(_COLUMNS)}. Mend it.")
    return rows


def published_tables(suite: Mapping[str, Any], *, value: str = "score") -> tuple[PublishedTable, ...]:
    """Return the tables that a suite compares this value with.

    Raises UnknownName for a name that a file lacks, InvalidSuite for a reference of another form.
    """
    tables = []
    for reference in suite.get("published") or ():
        try:
            tables.append(_table(reference))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{type(error).__name__} {error}"
            raise InvalidSuite(
                f"published: {reference!r:.200} cannot be read ({why}). See the shipped suites."
            ) from error
    return tuple(table for table in tables if table.value == value)


def spread_note(numbers: Collection[Published]) -> str:
    """Return where numbers are from, and whether their source prints a spread."""
    bare = [number for number in numbers if number.std is None]
    sources = "; ".join(sorted({number.source for number in numbers if number.source}))
    source = f"Source: {sources}." if sources else ""
    if not bare:
        return source
    how_many = "no spread" if len(bare) == len(numbers) else "no spread for some numbers"
    seeds = " and does not say how many seeds" if all(number.seeds is None for number in bare) else ""
    return f"{source} It prints {how_many}{seeds}.".strip()


def verdict(
    ours: Estimate | None,
    published: Published | None,
    *,
    why_not: str = "",
    broken: int = 0,
    margin: float | None = MARGIN,
) -> str:
    """Return what VERDICT_RULE says of one cell; empty where nothing was published.

    `broken` counts trials of ours that ended without a number; where all did, nothing can be compared. Without a
    `margin` nothing agrees.
    """
    if ours is None and not broken:
        return NOT_RUN
    if published is None:
        return ""
    if ours is None:
        return f"{NOT_COMPARABLE}: {why_not or 'no number of ours'}"
    if why_not:
        return f"{NOT_COMPARABLE}: {why_not}"
    if ours.interval is None:
        return f"{NOT_COMPARABLE}: one seed has no interval"
    if len(ours.values) < MIN_SEEDS:
        return f"{UNDECIDED}: fewer than {MIN_SEEDS} seeds"
    own, degrees = mean_part(ours.values)
    seeds = published.seeds or 1  # where the number of seeds is not printed: the least
    if published.std is None:  # a number without a spread is no surer than ours
        parts = [(own * (1 + len(ours.values) / seeds), degrees)]
    else:
        parts = [(own, degrees), (published.std**2 / seeds, max(seeds - 1, 1))]
    distance = max(abs(ours.mean - published.mean) - published.rounding, 0.0)
    found = deviation(distance, parts)
    if margin is not None and found.p_of_more_than(margin) <= 1 - LEVEL:
        return AGREES
    return DIFFERS if found.p_of_none() <= 1 - LEVEL else UNDECIDED


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _other(kind: str, ours: str, theirs: str) -> str:
    return f"{kind} {ours}" if ours and theirs and ours != theirs else ""


def _table(reference: Mapping[str, Any]) -> PublishedTable:
    rows = _rows_of_table(reference)
    averages = {average["name"]: average for average in reference.get("averages") or ()}
    datasets = dict(reference.get("datasets") or {})
    for name, average in averages.items():
        datasets[name] = {column: average[column] for column in ("dataset", "env") if column in average}
    contenders = reference.get("contenders") or {}
    for algorithm in contenders.values():
        _check_known("algorithm", algorithm, rows, reference)
    numbers = {}
    tasks: dict[str, tuple[str, tuple[str, str]]] = {}
    for task, dataset in datasets.items():
        there = _rows_of_dataset(rows, dataset, reference)
        tasks |= {row["line"]: (task, _row_label(dataset, row)) for row in there}
        for contender, algorithm in contenders.items():
            found = [row for row in there if row["algorithm"] == algorithm]
            if len(found) > 1:
                raise InvalidSuite(_ambiguous(reference, dataset, algorithm, found))
            if found:
                numbers[task, contender] = _published(found[0])
    return PublishedTable(
        title=str(reference.get("title") or f"Table {reference['table']}"),
        note=str(reference.get("note") or ""),
        source="; ".join(sorted({number.source for number in numbers.values()})),
        tasks=tuple(datasets),
        contenders=tuple(contenders),
        numbers=numbers,
        not_comparable=dict(reference.get("not_comparable") or {}),
        data=str(reference.get("data") or ""),
        physics=str(reference.get("physics") or ""),
        protocols=_protocols(reference.get("protocol") or "", list(contenders)),
        averages={name: _averaged(average, reference) for name, average in averages.items()},
        file=str(reference["file"]),
        table=str(reference["table"]),
        value=_value(reference),
        entries=tuple(_entries(rows, tasks, {algorithm: name for name, algorithm in contenders.items()})),
    )


def _entries(
    rows: Sequence[Row], tasks: Mapping[str, tuple[str, tuple[str, str]]], contenders: Mapping[str, str]
) -> Iterator[PublishedEntry]:
    """Yield every entry; `tasks` are ours by line, with the paper's row, `contenders` ours by the paper's methods."""
    for row in rows:
        task, label = tasks.get(row["line"], ("", (row["dataset"], row["env"])))
        method = row["algorithm"]
        contender = contenders.get(method, "") if task else ""
        yield PublishedEntry(int(row["line"]), label, method, row["metric"], task, contender, _published(row))


def _row_label(dataset: str | Mapping[str, Any], row: Row) -> tuple[str, str]:
    """Return how a table names the row: without version where it has numbers of several."""
    several = isinstance(dataset, Mapping) and not isinstance(dataset.get("dataset", ""), str)
    return (re.sub(r"-v\d+$", "", row["dataset"]) if several else row["dataset"], row["env"])


def _value(reference: Mapping[str, Any]) -> str:
    value = str(reference.get("value", "score"))
    if value not in VALUES:
        raise UnknownName(f"value of {reference['file']}, table {reference['table']}", value, VALUES)
    if value != "score" and reference.get("averages"):
        raise InvalidSuite(
            f"{reference['file']}, table {reference['table']}: returns of several tasks have no average."
        )
    return value


def _protocols(given: str | Mapping[str, str], contenders: Sequence[str]) -> dict[str, str]:
    """Return a protocol by contender: one for all, or those of a mapping; raise UnknownName for an unknown contender.

    The paper's Table 1 quotes its CQL, QR-DQN and REM from papers that play with Dopamine's sticky actions.
    """
    if isinstance(given, str):
        return dict.fromkeys(contenders, given) if given else {}
    for name in given:
        if name not in contenders:
            raise UnknownName("contender of protocol", name, contenders)
    return {name: str(protocol) for name, protocol in given.items()}


def _averaged(average: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tasks that a mean is over: those of these names or patterns."""
    tasks = list(reference.get("datasets") or {})
    chosen = {task for pattern in average["tasks"] for task in fnmatch.filter(tasks, pattern)}
    if not chosen:
        raise UnknownName(f"task of the average {average['name']!r}", ", ".join(average["tasks"]), tasks)
    return tuple(task for task in tasks if task in chosen)


def _rows_of_table(reference: Mapping[str, Any]) -> Sequence[Row]:
    """Return the table's rows, each with its line in the file."""
    rows = [{**row, "line": str(line)} for line, row in enumerate(read_rows(reference["file"]))]
    _check_known("table", str(reference["table"]), rows, reference)
    rows = [row for row in rows if row["table"] == str(reference["table"])]
    if metric := reference.get("metric"):
        _check_known("metric", metric, rows, reference)
        rows = [row for row in rows if row["metric"] == metric]
    return rows


def _rows_of_dataset(rows: Sequence[Row], dataset: str | Mapping[str, Any], reference: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a dataset, or of a dataset and env where the paper's table holds several environments.

    Either may be a list: the paper's Table 2 has Decision Transformer on v2 data and the methods it quotes on v0.
    """
    given = {"dataset": dataset} if isinstance(dataset, str) else dict(dataset)
    wanted = {column: [names] if isinstance(names, str) else list(names) for column, names in given.items()}
    for column, names in wanted.items():
        for name in names:
            _check_known(column, name, rows, reference)
    return [row for row in rows if all(row[column] in names for column, names in wanted.items())]


def _check_known(column: str, name: str, rows: Sequence[Row], reference: Mapping[str, Any]) -> None:
    known = {row[column] for row in rows}
    if name not in known:
        raise UnknownName(f"{column} in results/published/{reference['file']}", name, known)


def _ambiguous(reference: Mapping[str, Any], dataset: Any, algorithm: str, found: Sequence[Row]) -> str:
    differing = [name for name in ("env", "metric", "note") if len({row[name] for row in found}) > 1]
    return (
        f"{reference['file']}, table {reference['table']}: {len(found)} rows for {algorithm!r} on {dataset!r}. "
        f"They differ in {', '.join(differing) or 'nothing but their values'}: "
        "give `metric:`, or datasets as {dataset: ..., env: ...}."
    )


def _published(row: Row) -> Published:
    decimals = len(row["mean"].partition(".")[2])
    return Published(
        mean=float(row["mean"]),
        std=float(row["std"]) if row["std"] else None,
        seeds=int(row["n_seeds"]) if row["n_seeds"] else None,
        rounding=0.5 * 10.0**-decimals,
        source=row["source"],
        note=row["note"],
    )
