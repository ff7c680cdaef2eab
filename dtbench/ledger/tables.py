"""The tables of a trial: episodes and metrics, checked before they are used."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute as pc
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
    """Return the path of a regular Parquet file; raise ValueError where its rows do not fit into memory."""
    metadata = pq.read_metadata(schema.regular(path))
    columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    packed = sum(group.total_byte_size for group in groups)
    expanded = sum(  # repeated values are packed to nothing
        max(8, column.length or 0) * group.column(index).num_values
        for group in groups
        for index, column in enumerate(columns)
    )
    _check_room(metadata, max(packed, expanded))
    if text := [column for column in columns if column.physical_type == "BYTE_ARRAY"]:
        _check_room(metadata, packed + expanded + _text_size(path, text))
    return path


def _check_room(metadata: pq.FileMetaData, needed: int) -> None:
    if needed > free_memory():
        raise ValueError(f"it declares {metadata.num_rows} rows, {needed} bytes, more than fits into memory")


def _text_size(path: Path, columns: Iterable[pq.ColumnSchema]) -> int:
    """Return the bytes of all text, read as indices into a dictionary: a long text may be repeated in every row."""
    for column in columns:
        if column.max_repetition_level or "." in column.path:
            raise ValueError(f"its column {column.path:.100} holds neither numbers nor text")
    names = [column.path for column in columns]
    batches = pq.ParquetFile(path, read_dictionary=names).iter_batches(columns=names)
    return sum(_expanded(values) for batch in batches for values in batch.columns)


def _expanded(values: pyarrow.Array) -> int:
    if not isinstance(values, pyarrow.DictionaryArray):
        return int(values.nbytes)
    lengths = pc.take(pc.binary_length(values.dictionary), values.indices)
    return int(pc.sum(lengths).as_py() or 0)


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
