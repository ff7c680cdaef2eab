"""The two sides of a comparison: results read from a folder or a score file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dtbench.analysis.archive import archived, load_results, read_archive
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import final_rows, same
from dtbench.analysis.table_inputs import diverged_of
from dtbench.errors import InvalidValue, LedgerError, NothingToReport
from dtbench.ledger.trial_spec import TrialSpec

_TEXT = ("suite", "task", "contender", "algorithm", "action_mode", "trial", "dataset_source", "dataset_digest")
_NUMBERS = ("seed", "step", "target", "episodes", "score")
_HINT = "Name a results folder, a folder of scores or a <suite>.csv."


@dataclass(frozen=True, slots=True)
class SideScores:
    """One suite as one side has it."""

    table: pd.DataFrame  # the tidy table
    finals: pd.DataFrame  # a row a trial: its last checkpoint at its headline target
    specs: Mapping[str, TrialSpec]  # by key; empty where there is a score file and nothing else
    diverged: Mapping[tuple[str, str], int] = field(default_factory=dict)  # likewise


@dataclass(frozen=True, slots=True)
class Side:
    """All suites of one side, and how it calls itself."""

    name: str
    suites: Mapping[str, SideScores]


def open_side(name: str) -> Side:
    """Read a results folder, a folder of scores or a `<suite>.csv`.

    Raises InvalidValue, NothingToReport or LedgerError.
    """
    path = Path(name)
    if path.is_file():
        return Side(name, _suites_in_file(path))
    if path.is_dir():
        return Side(name, _suites_in_folder(path))
    raise InvalidValue(f"{name}: no such file or directory. {_HINT}")


def read_scores(path: Path) -> pd.DataFrame:
    """Return the tidy table of a score file; raise LedgerError where the file is none."""
    try:
        empty = {name: [""] for name in _NUMBERS}
        rows = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=empty)
        if lacking := [name for name in (*_TEXT, *_NUMBERS) if name not in rows]:
            raise LedgerError(f"{path} is no score file: it has no column {', '.join(lacking)}.")
        return rows.astype({"seed": int, "step": int, "target": float, "score": float})
    except (OSError, ValueError) as error:
        raise LedgerError(f"cannot read {path}: {error}. A score file is what `dtbench report` writes.") from error


def scores_of(results: SuiteResults) -> SideScores:
    """Return a suite whose specs are known."""
    specs = {record.spec.key: record.spec for record in results.records}
    return SideScores(results.scores, final_rows(results), specs, diverged_of(results.unfinished))


def bare_scores(table: pd.DataFrame, asked: Mapping[tuple[str, str], float] | None = None) -> SideScores:
    """Return a suite of which only the table is known, at the targets `asked` of each (task, contender) if there.

    Else at the highest target of a trial's first checkpoint: those of a sweep are asked of the last one alone.
    """
    groups = table.groupby(["task", "contender", "trial"], sort=False)
    rows = [_final_row(own, (asked or {}).get((str(task), str(contender)))) for (task, contender, _), own in groups]
    return SideScores(table, pd.DataFrame(rows, columns=table.columns).reset_index(drop=True), {})


def asked_alike(own: SideScores, other: SideScores) -> SideScores:
    """Return the side; of a bare table, at the headline targets that the specs of the other side name."""
    if own.specs or not other.specs:
        return own
    asked = {(str(row["task"]), str(row["contender"])): float(row["target"]) for _, row in other.finals.iterrows()}
    return bare_scores(own.table, asked)


def _final_row(own: pd.DataFrame, asked: float | None) -> pd.Series:
    last = own[own["step"] == own["step"].max()]
    if asked is None or not same(last["target"], asked).any():
        asked = own.loc[own["step"] == own["step"].min(), "target"].max()
    return last[same(last["target"], asked)].iloc[0]


def _suites_in_file(path: Path) -> dict[str, SideScores]:
    if path.suffix != ".csv":
        raise InvalidValue(f"{path} is no score file. {_HINT}")
    return {str(suite): bare_scores(own) for suite, own in read_scores(path).groupby("suite", sort=True)}


def _suites_in_folder(folder: Path) -> dict[str, SideScores]:
    """Those of the ledger first, then those archived, then bare score files."""
    if (folder / "runs").is_dir() or (folder / "scores").is_dir():
        scores, whole = folder / "scores", _of_results(folder)
    else:
        scores, whole = folder, [read_archive(folder, name) for name in archived(folder)]
    found = {one.name: scores_of(one) for one in whole}
    bare = [path for path in sorted(scores.glob("*.csv")) if path.stem not in {*found, *archived(scores)}]
    found |= {path.stem: bare_scores(read_scores(path)) for path in bare}
    if not found:
        raise NothingToReport(f"{folder} holds no results, neither runs/ nor scores. {_HINT}")
    return found


def _of_results(folder: Path) -> list[SuiteResults]:
    try:
        return load_results(folder)
    except NothingToReport:
        return []
