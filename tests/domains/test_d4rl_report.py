"""Dense beside delayed rewards."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis.published import RunConditions, published_tables
from dtbench.analysis.suite_analysis import TableInputs, estimates_of
from dtbench.analysis.tables.table import Table
from dtbench.domains.d4rl.report import delayed_pairs, delayed_table, loss

DENSE, LATE = "hopper-medium-v2", "hopper-medium-delayed-v2"


def test_a_delayed_task_belongs_to_its_dense_one() -> None:
    assert delayed_pairs([DENSE, LATE, "walker2d-medium-delayed-v2"]) == {LATE: DENSE}
    assert delayed_pairs(["key-to-door-1k"]) == {}


def test_the_loss_is_in_per_cent_of_the_dense_score() -> None:
    assert loss(np.array([[80.0, 60.0], [80.0, 20.0]])) == pytest.approx(50)
    assert np.isnan(loss(np.array([[0.0, 60.0]])))


def table(source: str = "d4rl", *, dense_source: str = "") -> Table:
    finals = pd.DataFrame(
        [
            {"task": task, "contender": name, "seed": seed, "score": score}
            for task, name, seed, score in [
                *((DENSE, "DT", 0, 70.0), (DENSE, "DT", 1, 50.0), (LATE, "DT", 0, 62.0), (LATE, "DT", 1, 58.0)),
                *((DENSE, "CQL", 0, 58.0), (LATE, "CQL", 0, 5.8)),
            ]
        ]
    )
    entry: dict[str, Any] = {"file": "decision_transformer.csv", "table": "7", "data": "d4rl"}
    entry |= {"contenders": {"DT": "DT", "CQL": "CQL"}}
    late = {**entry, "metric": "d4rl_normalized (delayed)", "datasets": {LATE: "medium"}}
    dense = {**entry, "metric": "d4rl_normalized (dense)", "datasets": {DENSE: "medium"}}
    found = delayed_table(
        finals,
        TableInputs(estimates_of(finals), {DENSE: RunConditions(dense_source or source), LATE: RunConditions(source)}),
        tasks=[DENSE, LATE],
        contenders=["DT", "CQL", "BC"],
        published=published_tables({"published": [late, dense]}),
    )
    assert found is not None
    return found


def test_ours_and_the_papers_loss_stand_side_by_side() -> None:
    made = table()
    names = [column.name for column in made.columns]
    dt, cql = (dict(zip(names, row, strict=True)) for row in made.rows)
    assert dt["Loss (%)"].text == "0.0 [\N{MINUS SIGN}24.0, 17.1]"  # from 50 -> 62 to 70 -> 58
    assert dt["Published loss (%)"].value == pytest.approx(100 * (67.6 - 60.7) / 67.6)
    assert dt["Verdict"].text == "undecided: fewer than 5 seeds"
    assert cql["Loss (%)"].value == pytest.approx(90)
    assert cql["Verdict"].text == "not comparable: one seed has no interval"


def test_generated_data_are_not_held_against_the_paper() -> None:
    assert table("generated").rows[0][-1].text == "not comparable: generated data"


def test_one_generated_task_of_two_is_enough_to_forbid_it() -> None:
    row = table("d4rl", dense_source="generated").rows[0]
    assert (row[2].text, row[-1].text) == ("d4rl, generated", "not comparable: generated data")
