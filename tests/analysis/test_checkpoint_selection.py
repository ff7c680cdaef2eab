"""Scoring rules, read from the same evaluations."""

from typing import Any

import pandas as pd
import pytest

from dtbench.analysis.tables.checkpoint_selection import rule_rows, rule_table

NAN = float("nan")


def evaluations(trial: str, contender: str, scores: list[float], **more: Any) -> list[dict[str, Any]]:
    """A trial's scores at steps 10, 20, ... at the target 2, or at none."""
    target = more.pop("target", NAN)
    row = {"task": "task", "contender": contender, "seed": 0, "trial": trial, "target": target, **more}
    return [{**row, "step": 10 * (i + 1), "score": score} for i, score in enumerate(scores)]


def finals_of(scores: pd.DataFrame, headline: float) -> pd.DataFrame:
    last = scores[scores["step"] == scores.groupby("trial")["step"].transform("max")]
    return last[last["target"].isna() | (last["target"] == headline)].reset_index(drop=True)


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *evaluations("dt", "DT", [10, 90, 30, 60, 30], target=2.0),
            *evaluations("dt", "DT", [99, 99, 0, 0, 50], target=1.0),
            {"task": "task", "contender": "DT", "seed": 0, "trial": "dt", "target": 5.0, "step": 50, "score": 95.0},
            *evaluations("cql", "CQL", [20, 35]),
        ]
    )


def test_every_rule_is_worked_by_hand(scores: pd.DataFrame) -> None:
    rows = rule_rows(scores, finals_of(scores, 2.0), {"dt": (2.0, 1.0), "cql": (2.0, 1.0)}).set_index("contender")
    # The other target's 99 is no evaluation of the headline; the swept target 5 was not set beforehand.
    assert rows.loc["DT", ["last", "best", "mean", "target"]].tolist() == [30, 90, 40, 50]
    assert rows.loc["CQL", ["last", "best", "mean", "target"]].tolist() == [35, 35, 27.5, 35]


def test_the_fixed_target_is_chosen_for_the_task_and_not_for_each_seed() -> None:
    scores = pd.DataFrame(
        [
            *evaluations("a", "DT", [10], target=2.0, seed=0),
            *evaluations("a", "DT", [40], target=1.0, seed=0),
            *evaluations("b", "DT", [30], target=2.0, seed=1),
            *evaluations("b", "DT", [20], target=1.0, seed=1),
        ]
    )
    rows = rule_rows(scores, finals_of(scores, 2.0), {"a": (2.0, 1.0), "b": (2.0, 1.0)})
    assert rows["target"].tolist() == [40, 20]  # means 20 and 30: target 1 for both


def test_a_changed_order_is_put_in_words(scores: pd.DataFrame) -> None:
    rows = rule_rows(scores, finals_of(scores, 2.0), {"dt": (2.0, 1.0)})
    table = rule_table(rows, tasks=["task"], contenders=["DT", "CQL"])
    assert table is not None
    assert table.notes[0] == "The order of the contenders depends on the rule. Last checkpoint: CQL, DT."
    assert table.notes[1] == "Best over training: DT, CQL."
    dt = dict(zip([column.name for column in table.columns], table.rows[0], strict=True))
    assert (dt["Rank (last checkpoint)"].value, dt["Rank (best over training)"].value) == (2, 1)


def test_an_unchanged_order_is_put_in_words_too(scores: pd.DataFrame) -> None:
    rows = rule_rows(scores, finals_of(scores, 2.0), {}).assign(last=[30, 20], best=30.0, mean=30.0, target=30.0)
    for rule in ("best", "mean", "target"):
        rows[rule] = rows["last"]
    table = rule_table(rows, tasks=["task"], contenders=["DT", "CQL"])
    assert table is not None
    assert table.notes[0] == "The order of the contenders is the same under every rule: DT, CQL."


def test_draws_of_the_same_data_vary_between_draws() -> None:
    made = [
        evaluations(f"{task}-{seed}-{who}", who, [score + seed], task=task, seed=seed)
        for who in ("DT", "CQL")
        for task, score in (("draw1", 10.0), ("draw2", 14.0), ("draw3", 18.0))
        for seed in (0, 1)
    ]
    scores = pd.DataFrame([row for rows in made for row in rows])
    rows, tasks = rule_rows(scores, finals_of(scores, NAN), {}), ["draw1", "draw2", "draw3"]
    table = rule_table(rows, tasks=tasks, contenders=["DT", "CQL"], draws=True)
    assert table is not None
    assert table.rows[0][1].text == "14.5 [4.6, 24.4]"  # 4.303 * 4 / sqrt(3) = 9.9
    apart = rule_table(rows, tasks=tasks, contenders=["DT", "CQL"])
    assert apart is not None
    assert apart.rows[0][1].text != table.rows[0][1].text


def test_who_misses_a_task_is_not_ranked(scores: pd.DataFrame) -> None:
    rows = rule_rows(scores, finals_of(scores, 2.0), {})
    other = rows.assign(task="other")
    third = rows.iloc[[0]].assign(contender="BC")
    table = rule_table(pd.concat([rows, other, third]), tasks=["task", "other"], contenders=["DT", "CQL", "BC"])
    assert table is not None
    assert table.rows[2][1].text == "not run on every task"


def test_one_contender_needs_no_ranking(scores: pd.DataFrame) -> None:
    own = scores[scores["contender"] == "CQL"]
    rows = rule_rows(own, finals_of(own, 2.0), {})
    assert rule_table(rows, tasks=["task"], contenders=["CQL"]) is None
