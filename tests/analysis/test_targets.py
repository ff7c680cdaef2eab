"""Achieved against target return, from numbers worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from dtbench.analysis.statistics import Interval
from dtbench.analysis.tables.targets import (
    Achieved,
    TaskTargets,
    target_table,
    target_tracking,
    targets_inside,
    task_targets,
)
from tests.support.gym_ledger import SUITE, TASKS, best_return, results_of


def achieved(*seeds: list[float], targets: list[float]) -> Achieved:
    """A contender whose two episodes a seed return the same."""
    returns = np.array([[curve, curve] for curve in seeds], np.float64)
    return Achieved("DT", tuple(range(len(seeds))), np.array(targets, np.float64), returns)


def test_only_targets_inside_the_data_count() -> None:
    inside = targets_inside(np.array([0.0, 10, 20, 30]), Interval(10, 20))
    assert inside.tolist() == [False, True, True, False]


def test_the_best_return_rounded_to_a_tenth_is_inside_the_data() -> None:
    assert targets_inside(np.array([3492.6, 3493.6]), Interval(0, 3492.56)).tolist() == [True, False]


def test_without_the_datas_range_no_target_is_inside() -> None:
    assert not targets_inside(np.array([1.0, 2.0]), None).any()


def test_coefficient_error_and_correlation_are_worked_by_hand() -> None:
    # Inside: 10, 20, 30 -> 8, 16, 24: coefficient 0.8, errors 2, 4, 6. The 90 beyond the data changes nothing.
    facts = target_tracking(achieved([8, 16, 24, 90], targets=[10, 20, 30, 40]), Interval(5, 30))
    assert facts is not None
    assert (facts.coefficient.value, facts.error.value, facts.correlation.value) == pytest.approx((0.8, 4, 1))
    assert facts.coefficient.interval is not None
    assert facts.coefficient.interval.low == pytest.approx(facts.coefficient.interval.high) == pytest.approx(0.8)


def test_seeds_are_correlated_alone_and_together() -> None:
    # One seed obeys, the other does the opposite, on the same three values: together they cancel.
    facts = target_tracking(achieved([1, 2, 3], [3, 2, 1], targets=[1, 2, 3]), Interval(0, 5))
    assert facts is not None
    assert facts.by_seed == pytest.approx((1, -1))
    assert facts.pooled.value == pytest.approx(0)
    assert facts.pooled.interval is not None
    assert facts.pooled.interval.low == pytest.approx(-1)  # both drawn seeds the second
    assert facts.pooled.interval.high == pytest.approx(1)


def test_seeds_of_different_levels_can_follow_all_the_same() -> None:
    # The mean 11, 12, 13 follows its targets; together the ranks are 1, 2, 3, 4, 5, 6 against 1.5, 3.5, 5.5 twice.
    facts = target_tracking(achieved([1, 2, 3], [21, 22, 23], targets=[1, 2, 3]), Interval(0, 5))
    assert facts is not None
    assert facts.correlation.value == pytest.approx(1)
    assert facts.pooled.value == pytest.approx(0.478, abs=1e-3)


def test_two_targets_inside_the_data_say_nothing() -> None:
    assert target_tracking(achieved([1, 2, 3], targets=[1, 2, 3]), Interval(1, 2)) is None


def test_the_curve_is_the_mean_over_seeds_and_the_band_spans_them() -> None:
    found = achieved([0, 10], [2, 14], targets=[0, 10])
    low, high = found.band()
    assert found.curve.tolist() == [1, 12]
    assert (low.tolist(), high.tolist()) == ([0, 10], [2, 14])


def test_the_band_is_the_same_every_time() -> None:
    returns = np.random.default_rng(0).normal(size=(3, 10, 4))
    one, two = (Achieved("DT", (0, 1, 2), np.arange(4.0), returns).band() for _ in range(2))
    assert np.array_equal(one, two)


def test_the_table_says_where_most_was_achieved() -> None:
    one = TaskTargets("task", (achieved([1, 4, 3], targets=[1, 2, 3]),), {}, Interval(0, 3), (3.0,))
    table = target_table([one])
    assert table is not None
    row = dict(zip([column.name for column in table.columns], table.rows[0], strict=True))
    assert (row["Highest achieved"].value, row["At target"].value, row["Best of the data"].value) == (4, 2, 3)
    assert row["Targets inside the data"].text == "3 of 3"


def test_the_bulk_of_the_data_ends_before_its_single_best_episode(tmp_path: Path) -> None:
    results = results_of(tmp_path, suite={**SUITE, "tasks": TASKS[:1], "contenders": {"DT": {}}})
    histogram = {"counts": [90, 9, 0, 1], "edges": [0.0, 10.0, 20.0, 30.0, 40.0]}
    card = {"return_min": 1.0, "return_max": 40.0, "return_histogram": histogram}
    for record in results.records:
        record.provenance["dataset"]["card"] = card  # type: ignore[index]
    found = task_targets(results.records, TASKS[0], ["DT"])
    assert found is not None
    assert found.data == Interval(1, 40)
    assert found.bulk == Interval(1, 20)  # 99 of 100 episodes return 20 or less


def test_the_bulk_has_a_correlation_of_its_own() -> None:
    one = TaskTargets(
        "task", (achieved([1, 2, 3, 2], targets=[1, 2, 3, 9]),), {}, Interval(0, 9), (9.0,), bulk=Interval(0, 3)
    )
    table = target_table([one])
    assert table is not None
    row = dict(zip([column.name for column in table.columns], table.rows[0], strict=True))
    assert row["In the bulk of the data"].value == pytest.approx(1)
    assert row["Rank correlation"].value == pytest.approx(0.6325, abs=1e-4)  # ranks 1 2.5 4 2.5 against 1 2 3 4


def test_no_table_where_no_row_would_have_numbers() -> None:
    one = TaskTargets("task", (achieved([0, 1], targets=[0, 1]),), {}, Interval(0, 1), (1.0, 0.0))
    assert target_table([one]) is None


def test_a_ledger_gives_the_last_checkpoints_targets(tmp_path: Path) -> None:
    suite = {**SUITE, "tasks": TASKS[:1], "contenders": {"DT": {}, "CQL": {}}}
    results = results_of(tmp_path, suite=suite)
    found = task_targets(results.records, TASKS[0], ["DT", "CQL"])
    assert found is not None
    (dt,) = found.achieved
    assert dt.returns.shape == (3, 10, 16)  # seeds, episodes, 14 swept targets and the two fixed ones
    assert found.fixed == (3600, 1800)
    assert found.data == Interval(pytest.approx(0.02 * best_return(TASKS[0])), best_return(TASKS[0]))
    assert set(found.levels) == {"CQL"}


def test_who_was_asked_for_nothing_gives_no_figure(tmp_path: Path) -> None:
    results = results_of(tmp_path, suite={**SUITE, "tasks": TASKS[:1], "contenders": {"CQL": {}}})
    assert task_targets(results.records, TASKS[0], ["CQL"]) is None
