"""The tidy table that every table and figure is made from: one row a trial, checkpoint and target return."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dtbench.errors import LedgerError
from dtbench.ledger.schema import unreadable
from dtbench.ledger.store import EPISODES, Ledger, TrialRecord, Unfinished, write_bytes
from dtbench.ledger.tables import PARQUET_ERRORS, check_episodes, fitting
from dtbench.ledger.trial_spec import TrialSpec, TrialState

COLUMNS = (
    "suite",
    "task",
    "contender",
    "algorithm",
    "seed",
    "step",
    "target",
    "action_mode",
    "episodes",
    "return_mean",
    "return_std",
    "achieved_mean",
    "length_mean",
    "score",
    "dataset_source",
    "dataset_digest",
    "trial",
)
ACHIEVED = "achieved_mean"  # in the task's target units; left out of files where no task of the suite has its own


class TrialTable:
    """A table whose rows belong to trials."""

    def __init__(self, rows: pd.DataFrame) -> None:
        """Take rows that have a column `trial`."""
        self.rows = rows.assign(trial=rows[TRIAL].astype("category"))
        groups = self.rows.groupby(TRIAL, observed=True, sort=False)
        self._rows = groups.indices
        filled = groups.count().reindex(columns=self.rows.columns)  # NaN in the column of trials itself
        shown = (filled > 0).to_numpy() | self.rows.columns.isin(ALWAYS)
        self._columns = {name: np.flatnonzero(row) for name, row in zip(filled.index, shown, strict=True)}

    def __contains__(self, trial: object) -> bool:
        return trial in self._rows

    def of(self, trial: str) -> pd.DataFrame:
        """Return one trial's rows, without the columns that only other trials have; empty where it has none."""
        if trial not in self._rows:
            return pd.DataFrame()
        return self.rows.iloc[self._rows[trial], self._columns[trial]].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class SuiteResults:
    """All that a report may know: what was to run, what ran, and nothing else."""

    suite: Mapping[str, Any]  # the resolved suite: name, title, description, preset, tasks, contenders, seeds, ...
    records: tuple[TrialRecord, ...]
    unfinished: tuple[Unfinished, ...]
    scores: pd.DataFrame  # COLUMNS
    episodes: TrialTable  # of all records
    damaged: tuple[str, ...] = ()  # why files of the ledger cannot be read
    superseded: tuple[TrialRecord, ...] = ()  # of earlier configurations: in no table of scores but listed apart

    @property
    def not_run(self) -> tuple[TrialSpec, ...]:
        """Return the planned trials without a result."""
        return tuple(trial.spec for trial in self.unfinished)

    @property
    def name(self) -> str:
        """Return the suite's name."""
        return str(self.suite.get("name") or "")


def contenders(results: SuiteResults) -> dict[str, Mapping[str, Any]]:
    """Return what the suite says of each, in table order; those that it does not list come last."""
    listed = {name: asked or {} for name, asked in (results.suite.get("contenders") or {}).items()}
    specs = [*(record.spec for record in results.records), *results.not_run]
    unlisted = sorted({spec.contender for spec in specs} - set(listed))
    return {**listed, **{name: {} for name in unlisted}}


def order_of(results: SuiteResults) -> Callable[..., tuple[Any, ...]]:
    """Return a sorting key for (task, contender, seed), or for their beginning, in the suite's own order."""
    known = {record.spec.task for record in results.records} | {spec.task for spec in results.not_run}
    tasks = list(results.suite.get("tasks") or ())
    tasks += sorted(known - set(tasks))
    names = list(contenders(results))

    def key(task: str, contender: str | None = None, seed: int = 0) -> tuple[Any, ...]:
        return tasks.index(task), names.index(contender) if contender is not None else 0, seed

    return key


def newest(planned: Iterable[TrialSpec]) -> tuple[list[TrialSpec], list[TrialSpec]]:
    """Return the trials that have the row of their task and contender, which was planned last, and all others."""
    specs = list(planned)
    cells = {(spec.task, spec.contender): spec.cell for spec in specs}
    rows = [cells[spec.task, spec.contender] == spec.cell for spec in specs]
    return list(itertools.compress(specs, rows)), [spec for spec, has in zip(specs, rows, strict=True) if not has]


def collect(suite: Mapping[str, Any], ledger: Ledger) -> SuiteResults:
    """Return all of a suite's planned trials in the ledger, further seeds and superseded ones included."""
    planned, earlier = newest(TrialSpec.from_json(trial) for trial in suite["trials"])
    earlier += [TrialSpec.from_json(trial) for trial in suite.get("superseded") or ()]
    ran: list[TrialRecord] = []
    damaged: dict[str, str] = {}  # key -> error
    for task in dict.fromkeys(spec.task for spec in (*planned, *earlier)):
        records_of_task, errors = ledger.read_records(task)
        damaged |= errors
        ran += records_of_task
    cells = defaultdict(list)
    for record in ran:
        cells[record.spec.task, record.spec.cell].append(record)
    records: dict[tuple[str, str], TrialRecord] = {}
    for spec in {(spec.contender, spec.cell): spec for spec in planned}.values():
        for record in cells[spec.task, spec.cell]:
            records[spec.contender, record.spec.key] = record.relabelled(spec)
    superseded = _superseded(suite, ran, earlier, records)
    folders = ledger.folders()
    episodes, errors = read_all({key: folders[key] / EPISODES for _, key in (*records, *superseded)})
    damaged |= errors
    records = {names: record for names, record in records.items() if names[1] not in errors}
    missing = [spec for spec in planned if (spec.contender, spec.key) not in records]
    found, others = (
        tuple(replace(r, episodes=partial(episodes.of, r.spec.key)) for r in part.values() if r.spec.key not in errors)
        for part in (records, superseded)
    )
    nowhere = ledger.root / "nowhere"
    unfinished = [
        Unfinished(spec, TrialState.DAMAGED, damaged[spec.key])
        if spec.key in damaged
        else ledger.unfinished(spec, folders.get(spec.key, nowhere))
        for spec in missing
    ]
    unfinished += _diverged_beyond(planned, ledger, folders)
    scores = score_table(found, episodes)
    return SuiteResults(suite, found, tuple(unfinished), scores, episodes, tuple(damaged.values()), others)


def _superseded(
    suite: Mapping[str, Any],
    ran: Iterable[TrialRecord],
    earlier: Iterable[TrialSpec],
    current: Collection[tuple[str, str]],
) -> dict[tuple[str, str], TrialRecord]:
    """Return the finished trials that the suite planned, or that ran under its name, and that have no row."""
    records = {record.spec.key: record for record in ran}
    found = {
        (spec.contender, spec.key): records[spec.key].relabelled(spec)
        for spec in earlier
        if spec.key in records and (spec.contender, spec.key) not in current
    }
    known = {key for _, key in (*current, *found)}
    for key, record in records.items():
        spec = record.spec
        if spec.suite == suite["name"] and spec.evaluation.purpose == "report" and key not in known:
            found[spec.contender, key] = record
    return found


def _diverged_beyond(
    planned: Sequence[TrialSpec], ledger: Ledger, folders: Mapping[str, Path]
) -> Iterator[Unfinished]:
    """Yield diverged trials of further seeds: finished ones count, so a mean without these would look better."""
    known, cells = {spec.key for spec in planned}, {(spec.contender, spec.cell): spec for spec in planned}
    for key, directory in folders.items():
        if key in known or not (directory / "failure.json").exists():
            continue
        try:
            spec = ledger.spec(directory)
        except LedgerError:
            continue
        if ledger.state(spec, directory) is TrialState.DIVERGED:
            own = [found for found in cells.values() if found.cell == spec.cell]
            labelled = [spec.labelled(suite=found.suite, contender=found.contender) for found in own]
            yield from (ledger.unfinished(one, directory) for one in labelled)


def score_table(records: Sequence[TrialRecord], episodes: TrialTable | None = None) -> pd.DataFrame:
    """Return COLUMNS, sorted; `return_std` is over the evaluation episodes of one trial (population).

    `episodes` are those of all records, where they are already at hand.
    """
    check_cells(record.spec for record in records)
    if not records:
        return pd.DataFrame(columns=list(COLUMNS))
    known = episodes or joined({record.spec.key: record.episodes() for record in records})
    rows = known.rows.reindex(columns=[*_MEANS, "step", "target", TRIAL])
    groups = rows.groupby([TRIAL, "step", "target"], dropna=False, sort=True, observed=True)
    table = groups[list(_MEANS)].mean().rename(columns=_MEANS)
    table["return_std"] = groups["return"].std(ddof=0)
    table["episodes"] = groups.size()
    labels = pd.DataFrame([_labels(record) for record in records])
    whole = labels.merge(table.reset_index().astype({TRIAL: str}), on=TRIAL)[list(COLUMNS)].astype({"step": int})
    keys = ["task", "contender", "seed", "step", "target", TRIAL]
    return whole.sort_values(keys, na_position="first", kind="stable").reset_index(drop=True)


def check_cells(specs: Iterable[TrialSpec]) -> None:
    """Raise LedgerError unless each task and contender of a suite has one configuration and each seed once."""
    cells: dict[tuple[str, str, str], str] = {}
    seeds = set()
    for spec in specs:
        names = (spec.suite, spec.task, spec.contender)
        if cells.setdefault(names, spec.cell) != spec.cell:
            raise LedgerError(f"{spec.contender} on {spec.task} has trials of two configurations: they are no seeds.")
        if (*names, spec.seed) in seeds:
            raise LedgerError(f"{spec.contender} on {spec.task} has seed {spec.seed} twice.")
        seeds.add((*names, spec.seed))


def headline_rows(scores: pd.DataFrame, finals: pd.DataFrame) -> pd.DataFrame:
    """Return all checkpoints of the trials in `finals`, at the target of each trial's row there."""
    keys = ["contender", "trial"]
    wanted = finals[[*keys, "target"]].rename(columns={"target": "headline"})
    rows = scores.merge(wanted, on=keys, how="inner")
    return rows[same(rows["target"], rows["headline"])].drop(columns="headline")


def same(targets: pd.Series, wanted: Any) -> NDArray[np.bool_]:
    """Return which targets are the wanted one, or that of their row; nan means no target."""
    found, asked = targets.to_numpy(float), np.asarray(wanted, float)
    return np.asarray((found == asked) | (np.isnan(found) & np.isnan(asked)))


def spec_values(spec: TrialSpec) -> dict[str, Any]:
    """Return the fields of a spec, those of its parts as `evaluation.episodes`, `hyperparameters.hidden_size`, ..."""
    flat: dict[str, Any] = {}
    for name, value in spec.to_json().items():
        flat |= {f"{name}.{part}": own for part, own in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def scores_text(table: pd.DataFrame) -> str:
    """Return the tidy table as CSV, `achieved_mean` only where it says anything: equal ledgers give equal text."""
    if table[ACHIEVED].isna().all():
        table = table.drop(columns=ACHIEVED)
    return str(table.to_csv(index=False, float_format="%.10g", lineterminator="\n"))


def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write `scores_text` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, scores_text(table).encode())


_MEANS = {"return": "return_mean", "achieved": ACHIEVED, "length": "length_mean", "score": "score"}


def _labels(record: TrialRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "suite": spec.suite,
        "task": spec.task,
        "contender": spec.contender,
        "algorithm": spec.algorithm,
        "seed": spec.seed,
        "action_mode": record.result["action_mode"],
        "dataset_source": spec.dataset_source,
        "dataset_digest": spec.dataset_digest,
        "trial": spec.key,
    }


TRIAL = "trial"
ALWAYS = ("step", "target", "episode", "seed", "return", "length", "score")  # of episodes, even where all are nan


def joined(parts: Mapping[str, pd.DataFrame]) -> TrialTable:
    """Return the tables of several trials, by key, as one."""
    filled = {key: rows for key, rows in parts.items() if len(rows)}
    if not filled:
        return TrialTable(pd.DataFrame({TRIAL: []}))
    rows = pd.concat(list(filled.values()), ignore_index=True)
    return TrialTable(rows.assign(trial=_repeated(filled, [len(part) for part in filled.values()])))


def read_all(paths: Mapping[str, Path]) -> tuple[TrialTable, dict[str, str]]:
    """Read the Parquet files of several trials, by key; return their table, and the errors of damaged ones by key."""
    tables: dict[str, pa.Table] = {}
    damaged: dict[str, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for key, table in zip(paths, pool.map(_read, paths.values()), strict=True):
            if isinstance(table, LedgerError):
                damaged[key] = str(table)
            else:
                tables[key] = table
    if not tables:
        return TrialTable(pd.DataFrame({TRIAL: []})), damaged
    rows = pa.concat_tables(_of_like_types([*tables.values()]), promote_options="permissive").to_pandas()
    sizes = [table.num_rows for table in tables.values()]
    return TrialTable(rows.assign(trial=_repeated(tables, sizes))), damaged


def _read(path: Path) -> pa.Table | LedgerError:
    """Return a trial's episodes, or the error of a damaged file."""
    try:
        table = pq.read_table(fitting(path), use_threads=False).replace_schema_metadata(None)
        table = table.cast(pa.schema([(one.name, _signed(one.type)) for one in table.schema]), safe=False)
        check_episodes(table.to_pandas())
        return table
    except (*PARQUET_ERRORS, RecursionError) as error:
        return unreadable(path, error)


def _signed(of: pa.DataType) -> pa.DataType:
    """Return the type as which a column joins those of other trials: arrow refuses unsigned numbers beside floats."""
    return pa.float64() if of == pa.uint64() else of


def _of_like_types(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return the tables, with columns of one name and several kinds as text: tasks name their own columns freely."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for table in tables:
        for column in table.schema:
            kinds[column.name].add(_kind(column.type))
    mixed = {name for name, found in kinds.items() if len(found - {""}) > 1 or "other" in found}
    return [_with_text(table, mixed & {*table.column_names}) for table in tables]


def _with_text(table: pa.Table, names: Iterable[str]) -> pa.Table:
    for name in names:
        text = pa.array([None if value is None else str(value) for value in table[name].to_pylist()], pa.string())
        table = table.set_column(table.column_names.index(name), name, text)
    return table


def _kind(of: pa.DataType) -> str:
    """Return the kind of a column's type; those of one kind can be joined, "" with any."""
    if pa.types.is_null(of):
        return ""
    if pa.types.is_boolean(of):
        return "boolean"
    if pa.types.is_integer(of) or pa.types.is_floating(of):
        return "number"
    return "text" if pa.types.is_string(of) or pa.types.is_large_string(of) else "other"


def _repeated(keys: Iterable[str], sizes: list[int]) -> pd.Categorical:
    names = list(keys)
    return pd.Categorical.from_codes(np.repeat(np.arange(len(names)), sizes), categories=names)
