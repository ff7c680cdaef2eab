"""Kendall's tau between our means and published ones."""

import math

import pytest
from scipy.stats import kendalltau

from dtbench.analysis.published import Published, PublishedTable
from dtbench.analysis.rank_agreement import RankedPair, rank_agreement, ranked_pairs
from dtbench.analysis.statistics import Estimate
from dtbench.analysis.tables.rank_agreement import rank_agreement_table
from tests.support.table_inputs import inputs


def pairs(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> list[RankedPair]:
    return [
        RankedPair(task, f"c{index}", a, b)
        for task in ours
        for index, (a, b) in enumerate(zip(ours[task], theirs[task], strict=True))
    ]


def test_equal_rankings_agree_wholly_and_opposite_ones_not_at_all() -> None:
    theirs = {task: [1.0, 2.0, 3.0] for task in "abc"}
    same = rank_agreement(pairs({"a": [10.0, 20, 30], "b": [1.0, 5, 6], "c": [2.0, 3, 4]}, theirs))
    assert (same.tasks, same.cells, same.within) == (3, 9, 1.0)
    assert same.within_interval is not None
    assert (same.within_interval.low, same.within_interval.high) == (1.0, 1.0)
    turned = rank_agreement(pairs({task: [3.0, 2, 1] for task in "abc"}, theirs))
    assert turned.within == -1.0


def test_easy_tasks_raise_tau_over_all_cells_alone() -> None:
    ours = {"hard": [1.0, 2, 3], "easy": [101.0, 102, 103], "easier": [201.0, 202, 203]}
    theirs = {"hard": [3.0, 2, 1], "easy": [103.0, 102, 101], "easier": [203.0, 202, 201]}
    found = rank_agreement(pairs(ours, theirs))
    assert found.within == -1.0
    assert found.overall == pytest.approx(0.5)  # 27 pairs across tasks agree, 9 within do not: (27 - 9) / 36
    flat = [number for numbers in ours.values() for number in numbers]
    assert found.overall == pytest.approx(kendalltau(flat, [n for ns in theirs.values() for n in ns]).statistic)


def test_the_interval_covers_what_tasks_disagree_about() -> None:
    theirs = {task: [1.0, 2, 3] for task in "abcdef"}
    mixed = {task: [1.0, 2, 3] if task in "abcd" else [3.0, 2, 1] for task in "abcdef"}
    found = rank_agreement(pairs(mixed, theirs))
    assert found.within == pytest.approx(1 / 3)
    assert found.within_interval is not None
    assert found.within_interval.low < 0 < found.within_interval.high <= 1


def test_too_little_tells_nothing() -> None:
    two = rank_agreement(pairs({"a": [1.0, 2]}, {"a": [2.0, 3]}))
    assert (two.overall, two.within, two.overall_interval) == (None, None, None)
    one_task = rank_agreement(pairs({"a": [1.0, 2, 3]}, {"a": [2.0, 3, 4]}))
    assert (one_task.within, one_task.within_interval) == (1.0, None)
    assert rank_agreement([]).overall is None


def test_only_cells_with_both_numbers_count_and_averages_do_not() -> None:
    numbers = {(task, name): Published(1.0, None, None, 0.5, "", "") for task in ("a", "mean") for name in "xyz"}
    table = PublishedTable("T", "", "", ("a",), tuple("xyz"), numbers, {}, averages={"mean": ("a",)})
    estimates = {("a", name): Estimate((float(i),), float(i), None) for i, name in enumerate("xy")}
    estimates |= {("a", "z"): Estimate((math.nan,), math.nan, None), ("mean", "x"): Estimate((1.0,), 1.0, None)}
    found = ranked_pairs(table, inputs(estimates))
    assert [(pair.task, pair.contender) for pair in found] == [("a", "x"), ("a", "y")]
    assert rank_agreement_table([table], inputs(estimates)) is None
