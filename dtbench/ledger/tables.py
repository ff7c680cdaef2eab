"""The tables of a trial: episodes and metrics, checked before they are used."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from dtbench.data.memory import free_memory
from dtbench.ledger import schema

PARQUET_ERRORS = (OSError, ValueError, pyarrow.ArrowException)  # of damaged files

_COLUMNS = ("step", "target", "episode", "return", "length", "score")  # of all episodes
_METRICS = TypeAdapter(dict[str, schema.Number])


def read_table(path: Path) -> pd.DataFrame:
    """Return a Parquet table; raise one of PARQUET_ERRORS where the file is damaged."""
    # Without pandas' metadata, which it uses unchecked.
    return pq.read_table(fitting(path)).replace_schema_metadata(None).to_pandas()


def fitting(path: Path) -> Path:
    """Return the path of a regular Parquet file; raise ValueError where it declares more than fits into memory."""
    metadata = pq.read_metadata(schema.regular(path))
    packed = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    needed = max(packed, 8 * metadata.num_rows * metadata.num_columns)  # repeated numbers are packed to nothing
    if needed > free_memory():
        raise ValueError(f"it declares {metadata.num_rows} rows, {needed} bytes, more than fits into memory")
    return path


def read_episodes(path: Path) -> pd.DataFrame:
    """Return the table of a trial's episodes; raise LedgerError where it cannot be read or lacks a column."""
    with _explained(path):
        rows = read_table(path)
        check_episodes(rows)
    return rows


def check_episodes(rows: pd.DataFrame) -> None:
    """Raise ValueError where a table of episodes lacks a required column of numbers."""
    _check_names(rows.columns)
    for name in _COLUMNS:
        of = rows[name]
        if not ((pd.api.types.is_numeric_dtype(of) and not pd.api.types.is_bool_dtype(of)) or of.isna().all()):
            raise ValueError(f"its column {name} holds no numbers")
    for name in set(rows.columns) - set(_COLUMNS):  # a task's own
        of = rows[name]
        if isinstance(of.dtype, pd.CategoricalDtype):
            of = of.cat.categories
        if not pd.api.types.is_numeric_dtype(of) and not all(map(_is_plain, of)):
            raise ValueError(f"its column {name} holds neither numbers nor text")
    counts = rows[["step", "episode", "length"]].to_numpy(float)
    if not len(counts) or not ((counts == np.floor(counts)) & (counts >= 0) & (counts < 2**53)).all():
        raise ValueError("its steps, episodes or lengths are not whole numbers")


def _is_plain(value: object) -> bool:
    return value is None or value is pd.NA or isinstance(value, str | bool | int | float)


def _check_names(names: Iterable[str]) -> None:
    if missing := sorted({*_COLUMNS} - {*names}):
        raise ValueError(f"it has no column {', '.join(missing)}")


def check_columns(path: Path) -> None:
    """Raise LedgerError where a file of episodes lacks a column; read no rows."""
    with _explained(path):
        _check_names(pq.read_schema(schema.regular(path)).names)


def read_metrics(path: Path) -> pd.DataFrame:
    """Return what was logged while training; raise LedgerError where the file is damaged."""
    with _explained(path):
        lines = schema.regular(path).read_text().splitlines()
        return pd.DataFrame([_METRICS.validate_python(json.loads(line), strict=True) for line in lines])


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (*PARQUET_ERRORS, RecursionError) as error:
        raise schema.unreadable(path, error) from error
