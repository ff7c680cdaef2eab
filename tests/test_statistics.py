"""Statistics, against numbers worked by hand."""

import numpy as np
import pytest

from dtbench.analysis import statistics
from dtbench.analysis.statistics import Interval, bootstrap_interval, estimate, success_interval

nan = float("nan")


def column(*scores: float) -> statistics.Array:
    """The scores of one task, a row a seed."""
    return np.array(scores, np.float64)[:, None]


def test_the_iqm_is_the_mean_of_the_middle_half() -> None:
    assert statistics.iqm(column(0, 10, 20, 1000)) == pytest.approx(15)


def test_the_iqm_cuts_a_quarter_rounded_down_as_scipy_does() -> None:
    assert statistics.iqm(column(1, 2, 3)) == pytest.approx(2)
    assert statistics.iqm(column(0, 1, 2, 3, 100)) == pytest.approx(2)


def test_the_iqm_pools_seeds_and_tasks_and_skips_missing_trials() -> None:
    scores = np.array([[0.0, 10.0], [20.0, 1000.0], [nan, nan]])
    assert statistics.iqm(scores) == pytest.approx(15)


def test_every_task_counts_equally_in_the_mean_however_many_seeds_it_has() -> None:
    scores = np.array([[10.0, 40.0], [20.0, nan], [30.0, nan]])
    assert statistics.mean(scores) == pytest.approx((20 + 40) / 2)


def test_the_median_is_that_of_the_tasks_means() -> None:
    scores = np.array([[0.0, 5.0, 90.0], [2.0, 7.0, 110.0]])  # means 1, 6, 100
    assert statistics.median(scores) == pytest.approx(6)


def test_ties_count_half_in_the_probability_of_improvement() -> None:
    # 3 beats 1 and 2; 2 beats 1 and ties with 2: (1 + 1 + 1 + 0.5) / 4.
    assert statistics.probability_of_improvement(column(3, 2), column(1, 2)) == pytest.approx(0.875)


def test_the_probability_of_improvement_is_averaged_over_tasks() -> None:
    ours, theirs = np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]])
    assert statistics.probability_of_improvement(ours, theirs) == pytest.approx(0.5)


def test_the_bootstrap_gives_the_same_interval_every_time() -> None:
    scores = np.random.default_rng(1).normal(size=(5, 3))
    assert bootstrap_interval(statistics.iqm, scores) == bootstrap_interval(statistics.iqm, scores)
    assert bootstrap_interval(statistics.iqm, scores) != bootstrap_interval(statistics.iqm, scores, seed=1)


def test_two_seeds_give_an_interval_from_one_to_the_other() -> None:
    # Of the resamples a quarter is all low and a quarter all high, more than the 2.5 % of either tail.
    assert bootstrap_interval(statistics.mean, column(10, 20)) == Interval(10, 20)


def test_seeds_are_resampled_within_their_task_only() -> None:
    constant_tasks = np.array([[1.0, 100.0], [1.0, 100.0], [1.0, nan]])
    assert bootstrap_interval(statistics.mean, constant_tasks) == Interval(50.5, 50.5)


def test_the_bootstrap_interval_has_the_width_that_theory_gives() -> None:
    scores = np.random.default_rng(0).normal(size=(400, 1))
    interval = bootstrap_interval(statistics.mean, scores)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.1)


def test_an_estimate_of_one_seed_has_no_interval() -> None:
    assert estimate([7.0]).interval is None
    assert estimate([7.0]).mean == 7


def test_an_estimate_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        estimate([])


def test_the_success_interval_is_wilsons() -> None:
    interval = success_interval(50, 100)  # centre 50, reach 100 * 1.96 * sqrt(0.0025 + 1.96² / 40000) / 1.0384
    assert (interval.low, interval.high) == pytest.approx((40.383, 59.617), abs=1e-3)


def test_the_success_interval_stays_within_0_and_100() -> None:
    assert success_interval(0, 20).low == 0
    assert success_interval(20, 20).high == 100
    assert success_interval(0, 20).high == pytest.approx(100 * 3.8415 / 23.8415, abs=1e-2)  # z² / (n + z²)


def test_more_successes_than_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes in 4 episodes"):
        success_interval(5, 4)
