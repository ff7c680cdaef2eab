"""Rows of many trials in one table: read once, written once, sliced where one trial is asked for."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dtbench.errors import LedgerError

TRIAL = "trial"
ALWAYS = ("step", "target", "episode", "seed", "return", "length", "score")  # of episodes, even where all are nan


class TrialTable:
    """A table whose rows belong to trials, each trial's rows together."""

    def __init__(self, rows: pd.DataFrame) -> None:
        """Take rows that have a column `trial`."""
        self.rows = rows.assign(trial=rows[TRIAL].astype("category"))
        codes = self.rows[TRIAL].cat.codes.to_numpy()
        ends = np.append(np.flatnonzero(codes[1:] != codes[:-1]) + 1, len(codes)) if len(codes) else np.array([], int)
        names = self.rows[TRIAL].cat.categories[codes[ends - 1]] if len(ends) else []
        starts = np.append(0, ends[:-1]) if len(ends) else ends
        self._places = {str(name): slice(a, b) for name, a, b in zip(names, starts, ends, strict=True)}
        self._shared = [place for place, name in enumerate(self.rows) if name in ALWAYS]
        others = [place for place, name in enumerate(self.rows) if name not in (*ALWAYS, TRIAL)]
        filled = self.rows.iloc[:, others].notna().to_numpy()
        counts = np.vstack([np.zeros((1, len(others)), int), filled.cumsum(axis=0)])
        has = counts[ends] > counts[starts]  # [trials, other columns]
        self._own = {str(name): [others[i] for i in np.flatnonzero(row)] for name, row in zip(names, has, strict=True)}

    def __contains__(self, trial: object) -> bool:
        return trial in self._places

    def of(self, trial: str) -> pd.DataFrame:
        """One trial's rows, without the columns that only other trials have; without rows where it has none."""
        if trial not in self._places:
            return pd.DataFrame()
        columns = sorted([*self._shared, *self._own[trial]])
        return self.rows.iloc[self._places[trial], columns].reset_index(drop=True)


def joined(parts: Mapping[str, pd.DataFrame]) -> TrialTable:
    """The tables of several trials, by key, as one."""
    filled = {key: rows for key, rows in parts.items() if len(rows)}
    if not filled:
        return TrialTable(pd.DataFrame({TRIAL: []}))
    rows = pd.concat(list(filled.values()), ignore_index=True)
    return TrialTable(rows.assign(trial=_repeated(filled, [len(part) for part in filled.values()])))


def read_all(paths: Mapping[str, Path]) -> TrialTable:
    """The Parquet files of several trials, by key; raise LedgerError, naming the file, where one cannot be read."""
    if not paths:
        return TrialTable(pd.DataFrame({TRIAL: []}))
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(_read, paths.values()))
    rows = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    return TrialTable(rows.assign(trial=_repeated(paths, [table.num_rows for table in tables])))


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, use_threads=False).replace_schema_metadata(None)
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"cannot read {path}: {error}. Delete that trial's folder and run the suite again."
        ) from error


def _repeated(keys: Iterable[str], sizes: list[int]) -> pd.Categorical:
    names = list(keys)
    return pd.Categorical.from_codes(np.repeat(np.arange(len(names)), sizes), categories=names)
