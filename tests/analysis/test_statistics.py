"""Statistics, against numbers worked by hand."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
    with pytest.raises(ValueError, match="must not be greater"):
        success_interval(5, 4)


def test_the_rank_correlation_of_a_shuffle_is_worked_by_hand() -> None:
    # Rank differences 1, -1, 0, 1, -1: 1 - 6 * 4 / (5 * 24) = 0.8.
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([20.0, 10, 30, 50, 40])
    assert statistics.spearman(x, y) == pytest.approx(0.8)
    assert statistics.spearman(x, -y) == pytest.approx(-0.8)


def test_the_rank_correlation_sees_order_alone() -> None:
    x = np.array([0.0, 1, 2, 3])
    assert statistics.spearman(x, np.exp(x)) == pytest.approx(1)


def test_the_rank_correlation_with_ties_is_that_of_the_average_ranks() -> None:
    # Ranks 1, 2, 3, 4 and 1, 2.5, 2.5, 4: covariance 4.5, variances 5 and 4.5.
    found = statistics.spearman(np.array([1.0, 2, 3, 4]), np.array([0.0, 7, 7, 9]))
    assert found == pytest.approx(4.5 / np.sqrt(5 * 4.5))


def test_what_does_not_vary_has_no_rank_correlation_and_no_coefficient() -> None:
    x, constant = np.array([1.0, 2, 3]), np.ones(3)
    assert np.isnan(statistics.spearman(x, constant))
    assert np.isnan(statistics.coefficient(constant, x))


def test_the_coefficient_is_that_of_least_squares() -> None:
    # Around the means 1 and 2: (1 * 2 + 1 * 1) / 2 = 1.5.
    assert statistics.coefficient(np.array([0.0, 1, 2]), np.array([0.0, 3, 3])) == pytest.approx(1.5)


def test_many_curves_are_measured_at_once() -> None:
    x = np.array([0.0, 1, 2])
    curves = np.array([[0.0, 1, 2], [0.0, 2, 4], [5.0, 5, 5]])
    assert statistics.coefficient(x, curves).tolist() == [1, 2, 0]
    assert statistics.spearman(x, curves)[:2].tolist() == [1, 1]


def test_seeds_and_their_episodes_are_redrawn_together_for_all_targets() -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(3, 20, 1)) + np.array([0.0, 10, 20])  # every target the same but for a constant
    drawn = statistics.resampled_means(returns, resamples=50)
    assert drawn.shape == (50, 3, 3)
    assert np.diff(drawn, axis=-1) == pytest.approx(10)
    assert len(np.unique(drawn[:, 0, 0])) == 50


def test_one_seed_leaves_the_noise_of_its_episodes() -> None:
    drawn = statistics.resampled_means(np.array([[[0.0], [1.0]]]), resamples=200)
    assert set(drawn.ravel()) == {0, 0.5, 1}


def test_a_resample_without_a_value_leaves_no_interval() -> None:
    assert statistics.percentile_interval(np.array([0.0, nan, 1.0])) is None
    assert statistics.percentile_interval(np.full(10, 3.0)) == Interval(3, 3)


def test_the_mean_over_tasks_needs_every_task() -> None:
    whole = statistics.matrix_estimate(np.array([[10.0, 30.0], [20.0, nan]]))
    assert whole is not None
    assert whole.mean == pytest.approx((15 + 30) / 2)
    assert whole.values == (20,)  # of the one seed that ran on both
    assert whole.interval is None  # the second task has one seed
    assert statistics.matrix_estimate(np.array([[10.0, nan]])) is None


def test_the_optimality_gap_is_in_points_and_more_than_enough_makes_up_for_nothing() -> None:
    scores = np.array([[100.0, 40.0], [500.0, 80.0]])  # short by 0, 60, 0, 20
    assert statistics.optimality_gap(scores) == pytest.approx(20)
    assert statistics.optimality_gap(scores / 100, gamma=1) == pytest.approx(0.2)


def test_every_task_counts_equally_in_the_optimality_gap() -> None:
    scores = np.array([[0.0, 90.0], [20.0, nan], [40.0, nan]])  # short by 80 and by 10
    assert statistics.optimality_gap(scores) == pytest.approx(45)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", statistics.AGGREGATES)
def test_a_task_that_nobody_ran_leaves_no_aggregate(name: str) -> None:
    for scores in (np.array([[1.0, nan], [2.0, nan]]), np.empty((0, 2))):
        assert np.isnan(statistics.AGGREGATES[name](scores))
        assert statistics.aggregate_intervals(scores) == dict.fromkeys(statistics.AGGREGATES)
        assert np.isnan(statistics.probability_of_improvement(scores, np.ones((3, 2))))


def test_one_run_of_a_task_leaves_no_interval() -> None:
    scores = np.array([[1.0, 2.0], [2.0, nan]])
    assert not statistics.repeated(scores)
    assert statistics.aggregate_intervals(scores, which=["iqm"]) == {"iqm": None}


@pytest.mark.parametrize("shape", [(2, 1), (3, 4), (5, 7), (7, 3), (13, 2), (80, 2)])
def test_the_intervals_of_aggregates_are_those_of_the_statistics_themselves(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    scores = rng.normal(60, 40, shape)
    if shape[0] > 2:
        scores[-1, 0] = nan
    fast = statistics.aggregate_intervals(scores, seed=3)
    for name, statistic in statistics.AGGREGATES.items():
        slow, interval = bootstrap_interval(statistic, scores, seed=3), fast[name]
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((slow.low, slow.high), abs=1e-9)


@pytest.mark.parametrize("runs", [2, 5, 9, 70, 5000])
def test_every_run_is_drawn_equally_often(runs: int) -> None:
    scores = np.arange(float(runs))[:, None]
    drawn = statistics._resampled(scores, 2000, np.random.default_rng(0))[..., 0]
    assert drawn.shape == (2000, runs)
    counts = np.bincount(drawn.ravel().astype(int), minlength=runs)
    assert len(counts) == runs
    assert abs(counts - 2000).max() < 6 * np.sqrt(2000)
    assert abs(drawn.mean(axis=0) - scores.mean()).max() < 6 * scores.std() / np.sqrt(2000)  # at every place


def test_both_samples_of_a_comparison_are_resampled_on_their_own() -> None:
    same = column(1, 2)  # drawn together, they would tie always
    interval = bootstrap_interval(statistics.probability_of_improvement, same, same)
    assert interval == Interval(0, 1)


def test_a_profile_is_the_share_of_runs_that_score_more_averaged_over_tasks() -> None:
    scores = np.array([[1.0, 5.0], [2.0, nan], [3.0, nan], [3.0, nan]])
    profile = statistics.performance_profile(scores, np.array([0.0, 1, 2, 3, 5]))
    assert profile.share == pytest.approx([1, (0.75 + 1) / 2, (0.5 + 1) / 2, (0 + 1) / 2, 0])
    assert profile.band is None  # the second task has one run


def test_the_band_of_a_profile_is_that_of_the_share_at_each_threshold() -> None:
    scores, thresholds = np.random.default_rng(0).normal(50, 20, (7, 20)), np.array([20.0, 50, 70])
    scores[2, 1] = nan
    profile = statistics.performance_profile(scores, thresholds)
    assert profile.band is not None
    for place, threshold in enumerate(thresholds):

        def share(drawn: statistics.Array, threshold: float = threshold) -> statistics.Array:
            return statistics.mean(np.where(np.isnan(drawn), nan, drawn > threshold))

        slow = bootstrap_interval(share, scores)
        assert (profile.band[0][place], profile.band[1][place]) == pytest.approx((slow.low, slow.high))
        assert slow.holds(profile.share[place])


def test_a_profile_of_a_task_that_nobody_ran_is_nan() -> None:
    profile = statistics.performance_profile(np.array([[1.0, nan], [2.0, nan]]), np.array([0.0, 1.0]))
    assert np.isnan(profile.share).all()
    assert profile.band is None


def test_a_missing_seed_is_left_out_of_an_estimate() -> None:
    assert estimate([1.0, nan, 3.0]) == estimate([1.0, 3.0])
    with pytest.raises(ValueError, match="at least one seed"):
        estimate([nan])


matrices = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-1e3, 1e3, width=32))


@settings(deadline=None)
@given(matrices, st.floats(-100, 100, width=32), st.floats(0.125, 10, width=32))
def test_aggregates_of_shifted_and_stretched_scores_are_shifted_and_stretched(
    scores: statistics.Array, shift: float, stretch: float
) -> None:
    for name in ("mean", "median", "iqm"):
        statistic = statistics.AGGREGATES[name]
        assert statistic(stretch * scores + shift) == pytest.approx(stretch * statistic(scores) + shift, abs=1e-6)


@settings(deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_the_order_of_runs_and_of_tasks_does_not_matter(scores: statistics.Array, random: Random) -> None:
    shuffled = scores[random.sample(range(len(scores)), len(scores))]
    shuffled = shuffled[:, random.sample(range(scores.shape[1]), scores.shape[1])]
    for statistic in statistics.AGGREGATES.values():
        assert statistic(shuffled) == pytest.approx(statistic(scores), abs=1e-9)


@settings(deadline=None)
@given(matrices)
def test_of_two_contenders_one_or_the_other_is_better(scores: statistics.Array) -> None:
    chance = statistics.probability_of_improvement
    assert chance(scores, -scores) + chance(-scores, scores) == pytest.approx(1)
    assert chance(scores, scores) == pytest.approx(0.5)
