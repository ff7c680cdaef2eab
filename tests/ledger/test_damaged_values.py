"""Values of a wrong type inside a ledger's files are named where they are read, not where they are used."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dtbench.analysis.results import read_all
from dtbench.errors import LedgerError
from dtbench.ledger import schema
from dtbench.ledger.tables import read_episodes, read_metrics

EPISODE = {"step": 1, "target": None, "episode": 0, "return": 1.0, "length": 3, "score": 2.0}
CARD = {"episodes": 2, "steps": 8, "return_mean": 1, "return_histogram": {"counts": [1, 1], "edges": [0.0, 1, 2]}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", [8]),
        ("episodes", "2"),
        ("episodes", 10**30),
        ("return_mean", float("nan")),
        ("return_max", {"a": 1}),
        ("return_histogram", {"counts": [1, 1], "edges": [0.0, "[1.0]", 2.0]}),
        ("return_histogram", {"counts": [1, 1], "edges": [0.0, 1.0]}),
        ("return_histogram", {"counts": [1, 1], "edges": [0.0, 2.0, 1.0]}),
        ("return_histogram", {"counts": None, "edges": []}),
    ],
)
def test_a_damaged_card_is_named(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps({"dataset": {"card": CARD}}))
    schema.read(path, schema.Provenance)
    path.write_text(json.dumps({"dataset": {"card": {**CARD, name: value}}}))
    with pytest.raises(LedgerError, match=rf"dataset\.card\.{name}"):
        schema.read(path, schema.Provenance)


@pytest.mark.parametrize("value", [[[1, 2]], [{"a": 1}], [b"\xff"]], ids=["lists", "structs", "bytes"])
def test_a_tasks_own_column_of_no_plain_values_is_named(tmp_path: Path, value: list[Any]) -> None:
    path = tmp_path / "episodes.parquet"
    for own in ("has_key", "path"):  # Key-to-Door's and the graph's
        pd.DataFrame([EPISODE]).assign(**{own: value}).to_parquet(path)
        with pytest.raises(LedgerError, match=f"column {own} holds neither numbers nor text"):
            read_episodes(path)


def test_a_tasks_own_column_may_hold_numbers_text_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "episodes.parquet"
    rows = pd.DataFrame([EPISODE] * 2).assign(a=["x", None], b=[1.5, None], c=[True, False], d=None)
    rows = rows.assign(e=pd.Categorical(["x", None]), f=pd.Categorical([True, True]))
    rows.to_parquet(path)
    assert list(read_episodes(path).columns) == list(rows.columns)


@pytest.mark.parametrize("value", ["1" + "0" * 400, '"text"', "[1]", "true", "{}"])
def test_a_metric_that_is_no_number_is_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": {value}}}\n')
    with pytest.raises(LedgerError, match="loss"):
        read_metrics(path)


def test_a_whole_number_beyond_64_bits_is_a_float(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 100000000000000000000000000}\n{"step": 2, "loss": 1}\n')
    read_metrics(path).to_parquet(tmp_path / "metrics.parquet")
    assert read_metrics(path)["loss"].tolist() == [1e26, 1.0]


@pytest.mark.parametrize("values", [(True, 3, "left"), (1, 2.5, None), (2**63, -1, 0.5)])
def test_tasks_may_give_a_column_of_one_name_other_types(tmp_path: Path, values: tuple[Any, ...]) -> None:
    paths = {str(index): tmp_path / f"{index}.parquet" for index in range(len(values))}
    for path, value in zip(paths.values(), values, strict=True):
        pd.DataFrame([{**EPISODE, "side": value}]).to_parquet(path)
    table, damaged = read_all(paths)
    assert not damaged
    assert len(table.rows) == len(values)
    assert "side" in table.rows
