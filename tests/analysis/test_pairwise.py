"""Pairs on common evaluation seeds: numbers worked by hand, coverage and power by simulation, and the table."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from dtbench.analysis import pairwise
from dtbench.analysis.pairwise import Difference, Pair, mean_difference, pair_table, verdicts
from dtbench.analysis.seeds_to_decide import Spread, hidden_by_episodes, seeds_to_decide, spread_of
from dtbench.analysis.statistics import Array, Deviation, Interval
from dtbench.analysis.suite_analysis import CellStatus, TableInputs
from dtbench.analysis.tables.table import DASH, Cell, Table
from dtbench.ledger.store import TrialRecord
from tests.support.mixed_ledger import spec_of
from tests.support.table_inputs import inputs

nan = float("nan")
HOPPER, DOOR = "hopper-medium-replay-v2", "key-to-door-1k"


def scores_of(
    rng: np.random.Generator,
    seeds: int,
    episodes: int,
    *,
    difference: float = 0.0,
    training: float = 0.0,
    luck: float = 0.0,
    residual: float = 0.0,
) -> tuple[Array, Array]:
    """Ours and theirs: `luck` is of episodes and ours alone, so that it does not cancel from the difference."""
    common = rng.normal(0, 50, episodes)
    ours, theirs = (
        common + rng.normal(0, training, (seeds, 1)) + rng.normal(0, residual, (seeds, episodes)) for _ in range(2)
    )
    return ours + difference + rng.normal(0, luck, episodes), theirs


def difference_of(ours: Array, theirs: Array) -> Difference:
    return mean_difference([Pair(ours, theirs)])


def verdict_of(ours: Array, theirs: Array, *, margin: float | None = None) -> str:
    return verdicts({0: difference_of(ours, theirs)}, margin=margin, barred={})[0].kind


def test_the_luck_that_both_sides_share_cancels() -> None:
    luck = np.array([0.0, 50, 100, -70])
    ours, theirs = luck + np.array([[10.0], [12]]), luck + np.array([[1.0], [1]])
    found = difference_of(ours, theirs)
    assert found.mean == pytest.approx(10)
    assert found.interval is not None
    reach = 12.706205 * 1  # t of one degree of freedom; the seeds' 10 and 12 have a standard error of 1
    assert (found.interval.low, found.interval.high) == pytest.approx((10 - reach, 10 + reach))
    assert (found.ours_seeds, found.theirs_seeds, found.episodes) == (2, 2, 4)


def test_the_other_way_round_the_verdict_is_the_other() -> None:
    ours, theirs = (np.array([[1.0, 2], [2, 3]] * 3) + shift for shift in (0, 10))
    assert verdict_of(ours, theirs) == "below"
    assert verdict_of(theirs, ours) == "above"
    assert verdict_of(ours, ours) == "undecided"
    assert verdict_of(ours, ours, margin=5.0) == "match"


def test_p_values_are_those_of_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(50, 3, (6, 1)), rng.normal(47, 9, (8, 1))
    found, expected = difference_of(ours, theirs), scipy.stats.ttest_ind(ours[:, 0], theirs[:, 0], equal_var=False)
    assert found.deviation.p_of_none() == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))
    shifted = scipy.stats.ttest_ind(ours[:, 0] - 5, theirs[:, 0], equal_var=False, alternative="less")
    assert found.deviation.p_of_more_than(5.0) == pytest.approx(shifted.pvalue)


def test_without_any_spread_equal_is_equal_and_different_is_different() -> None:
    same, other = np.full((5, 3), 40.0), np.full((5, 3), 44.0)
    assert verdict_of(same, same) == "undecided"
    assert verdict_of(other, same) == "above"
    assert verdict_of(same, same, margin=5.0) == "match"
    assert verdict_of(other, same, margin=5.0) == "match"
    assert verdict_of(other, same, margin=3.0) == "above"


def test_four_seeds_decide_nothing_and_what_is_barred_says_why() -> None:
    far = difference_of(np.full((4, 3), 90.0), np.full((9, 3), 10.0))
    near = difference_of(np.full((9, 3), 90.0), np.full((9, 3), 10.0))
    found = verdicts({"few": far, "late": near, "fine": near}, margin=5.0, barred={"late": "IQL has not converged"})
    assert (found["few"].kind, found["few"].why) == ("undecided", "fewer than 5 seeds")
    assert (found["late"].kind, found["late"].why) == ("undecided", "IQL has not converged")
    assert found["fine"].kind == "above"


def test_the_more_pairs_a_table_has_the_more_each_must_show() -> None:
    alone = Difference(3.0, Interval(0.1, 5.9), 6, 6, 20, Deviation(3.0, 1.2, 10.0))  # p = 0.03
    assert verdicts({0: alone}, margin=None, barred={})[0].kind == "above"
    assert {one.kind for one in verdicts(dict.fromkeys(range(3), alone), margin=None, barred={}).values()} == {
        "undecided"
    }


def test_one_training_seed_says_nothing_of_the_next_training() -> None:
    alone, several = np.array([[90.0, 91, 92]]), np.array([[1.0, 2, 3], [2, 3, 4]])
    for ours, theirs in ((alone, several), (several, alone)):
        found = difference_of(ours, theirs)
        assert found.interval is None
    assert difference_of(alone, several).mean == pytest.approx(91 - 2.5)


def test_training_seeds_are_not_paired() -> None:
    # Seed by seed ours is always 1 above; but seeds differ by 100, and their numbers mean nothing.
    seeds = np.array([[0.0], [100], [200]]) + np.zeros(4)
    found = difference_of(seeds + 1, seeds)
    assert found.interval is not None
    assert found.interval.low < -90
    assert verdict_of(np.tile(seeds, (2, 1)) + 1, np.tile(seeds, (2, 1)), margin=5.0) == "undecided"


def test_the_parts_of_a_spread_are_worked_by_hand() -> None:
    # Ours: seeds' means 2 and 4, variance 2; episodes' means 2, 4, 3; residuals -1, 1, 0 and 1, -1, 0: 4 / (1 * 2).
    ours, theirs = np.array([[0.0, 4, 2], [4, 4, 4]]), np.array([[0.0, 6, 0], [0, 6, 0]])
    # The episodes' differences are 2, -2, 3: variance 7; the residuals leave 2 / 2 of it.
    assert spread_of(ours, theirs) == Spread(1.0, 2.0, 0.0, 2, 2, pytest.approx((7 - 2 / 2) / 3), 3)


def test_luck_is_no_less_than_none_and_cannot_be_seen_in_one_episode() -> None:
    ours, theirs = np.array([[0.0, 4], [4, 0]]), np.array([[1.0, 2], [2, 1]])
    assert spread_of(ours, theirs).shared == 0
    assert spread_of(ours[:, :1], theirs[:, :1]) == Spread(0.5, 8.0, 0.5, 2, 2, 0.0, 1)


CASES: dict[str, dict[str, float]] = {
    "seeds differ": {"training": 5},
    "episodes differ": {"luck": 20},
    "each evaluation is noisy": {"residual": 30},
    "all at once": {"training": 3, "luck": 10, "residual": 20},
}


@pytest.mark.parametrize("seeds", [5, 20])
@pytest.mark.parametrize("noise", CASES.values(), ids=CASES)
def test_the_interval_holds_the_true_difference_as_often_as_it_says(noise: Mapping[str, float], seeds: int) -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        interval = difference_of(*scores_of(rng, seeds, 40, difference=3, **noise)).interval
        assert interval is not None
        held.append(interval.holds(3))
    assert 0.93 <= np.mean(held) <= 0.99


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, size: rng.normal(0, 5, size),
    "uniform": lambda rng, size: rng.uniform(-9, 9, size),
    "heavy tails": lambda rng, size: rng.standard_t(3, size),
    "two heaps": lambda rng, size: rng.choice([-10.0, 10.0], size) + rng.normal(0, 2, size),
    "skewed": lambda rng, size: rng.gamma(2.0, 3.0, size) - 6.0,
}


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_few_verdicts_are_wrong_where_nothing_differs(draw: Callable[..., Array], seeds: int) -> None:
    """One rival: at most 5 % of 4000 verdicts, and three standard errors; the interval holds 0 in at least 93 %."""
    rng, wrong, held = np.random.default_rng(0), 0, 0
    for _ in range(4000):
        found = difference_of(draw(rng, seeds)[:, None], draw(rng, seeds)[:, None])
        wrong += verdicts({0: found}, margin=None, barred={})[0].decided
        assert found.interval is not None
        held += found.interval.holds(0.0)
    assert wrong / 4000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert held / 4000 >= 0.93


def test_few_tables_of_nine_pairs_hold_a_wrong_verdict() -> None:
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(1000):
        first = rng.normal(0, 5, (5, 1))
        found = {rival: difference_of(first, rng.normal(0, 5, (5, 1))) for rival in range(9)}
        wrong += any(one.decided for one in verdicts(found, margin=None, barred={}).values())
    assert wrong / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("beyond", [5.0, 8.0])
def test_few_that_differ_by_the_margin_are_said_to_match(beyond: float) -> None:
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(2000):
        found = difference_of(rng.normal(beyond, 2, (5, 1)), rng.normal(0, 2, (5, 1)))
        wrong += verdicts({0: found}, margin=5.0, barred={})[0].kind == "match"
    assert wrong / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_noise_that_nobody_shares_is_counted_once() -> None:
    rng, widths = np.random.default_rng(0), []
    for _ in range(100):
        interval = difference_of(*scores_of(rng, 20, 40, residual=30)).interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert np.mean(widths) == pytest.approx(2 * 2.02 * 30 * math.sqrt(2 / (20 * 40)), rel=0.08)


def test_how_many_seeds_would_decide_is_worked_by_hand() -> None:
    # (1.95996 + 0.84162)² (s² + s²) <= n 2²: n >= 7.8489 * 50 / 4 = 98.1, of which there are 3.
    spread = Spread(2.0, 25.0, 25.0, 3, 3, 0.0, 50)
    assert seeds_to_decide([spread]) == 99 - 3
    # Over two tasks that differ by 2, the variance of the mean is half of one's: n >= 49.06.
    assert seeds_to_decide([spread, spread]) == 50 - 3


def test_an_undecided_pair_needs_one_seed_at_least() -> None:
    assert seeds_to_decide([Spread(9.0, 1.0, 1.0, 5, 5, 0.0, 50)]) == 1


def test_seeds_that_a_side_has_count() -> None:
    # 25 / (2 + k) + 25 / (60 + k) must not exceed 4 / 7.8489 = 0.50963: it is 0.50986 for k = 75, 0.50434 for 76.
    assert seeds_to_decide([Spread(2.0, 25.0, 25.0, 2, 60, 0.0, 50)]) == 76


def test_training_seeds_do_not_take_away_the_luck_of_the_episodes() -> None:
    hidden = Spread(1.0, 25.0, 25.0, 3, 3, 0.2, 50)  # 2.8 standard deviations of sqrt(0.2) are 1.25
    assert seeds_to_decide([hidden]) is None
    assert hidden_by_episodes([hidden])
    far = Spread(0.1, 25.0, 25.0, 3, 3, 0.0, 50)  # 39,245 seeds
    assert seeds_to_decide([far]) is None
    assert not hidden_by_episodes([far])


@pytest.mark.parametrize("noise", [{"training": 5.0}, {"training": 4.0, "luck": 8.0, "residual": 10.0}])
def test_planned_seeds_decide_four_times_of_five(noise: Mapping[str, float]) -> None:
    episodes, difference = 50, 5.0
    between = noise["training"] ** 2 + noise.get("residual", 0) ** 2 / episodes
    planned = seeds_to_decide(
        [Spread(difference, between, between, 1, 1, noise.get("luck", 0) ** 2 / episodes, episodes)]
    )
    assert planned is not None
    rng = np.random.default_rng(0)
    decided = [
        verdict_of(*scores_of(rng, planned + 1, episodes, difference=difference, **noise)) == "above"
        for _ in range(400)
    ]
    assert 0.70 <= np.mean(decided) <= 0.90  # t reaches a little further than the normal approximation


def record_of(
    task: str, contender: str, seed: int, scores: Sequence[float], *, first: int = 0, step: int = 20
) -> TrialRecord:
    """A trial that scored this on evaluation seeds from `first` on, and 0 at an earlier step and at another target."""
    spec = spec_of(task, contender, seed)
    target = spec.evaluation.targets[0] if contender == "DT" else nan
    seeds = np.arange(first, first + len(scores))
    parts = [(step, target, np.asarray(scores)), (step // 2, target, 0.0 * seeds), (step, 1.5, 0.0 * seeds)]
    frames = [
        pd.DataFrame({"step": s, "target": t, "episode": seeds - first, "seed": seeds, "return": v, "score": v})
        for s, t, v in parts
    ]
    rows = pd.concat(frames).iloc[::-1]  # in no order
    return TrialRecord(spec, {}, {}, lambda: rows)


def finals_of(records: Iterable[TrialRecord]) -> pd.DataFrame:
    def row(record: TrialRecord) -> dict[str, Any]:
        spec = record.spec
        target = spec.evaluation.targets[0] if spec.contender == "DT" else nan
        names = {"task": spec.task, "contender": spec.contender, "seed": spec.seed, "trial": spec.key}
        return {**names, "step": 20, "target": target}

    return pd.DataFrame([row(record) for record in records])


def table_of(records: Sequence[TrialRecord], **options: Any) -> Table | None:
    tasks = options.pop("tasks", [HOPPER])
    contenders = options.pop("contenders", ["DT", "BC"])
    return pair_table(records, finals_of(records), tasks=tasks, contenders=contenders, **options)


def rows_of(table: Table | None) -> list[dict[str, Cell]]:
    assert table is not None
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def test_a_row_says_who_is_above_and_by_how_much() -> None:
    records = [record_of(HOPPER, "DT", seed, [30 + seed, 50 + seed, 70 + seed]) for seed in range(6)]
    records += [record_of(HOPPER, "BC", seed, [20, 40, 60]) for seed in range(5)]
    links = inputs({}, links={(HOPPER, "DT"): "cell-a", (HOPPER, "BC"): "cell-b"})
    (row,) = rows_of(table_of(records, inputs=links))
    assert (row["Task"].text, row["Rival"].text) == (HOPPER, "BC")
    assert row["Difference"].text == "12.5 [10.5, 14.5]"  # 2.5706 times sqrt(3.5 / 6) = 1.963
    assert (row["95% low"].value, row["95% high"].value) == pytest.approx((12.5 - 1.9633, 12.5 + 1.9633), abs=1e-3)
    assert row["P(DT is above)"].text == "1.00 [1.00, 1.00]"
    assert (row["Seeds of DT"].text, row["Seeds of the rival"].text, row["Common episodes"].text) == ("6", "5", "3")
    assert (row["Seeds of DT"].link, row["Seeds of the rival"].link) == ("cell-a", "cell-b")
    assert (row["Verdict"].text, row["More seeds to decide"].text) == ("DT is above", "0")


def test_only_common_evaluation_seeds_count() -> None:
    records = [record_of(HOPPER, "DT", seed, [1, 2, 3, nan], first=10) for seed in range(2)]
    records += [record_of(HOPPER, "BC", seed, [99, 4, 4], first=10 + seed - 1) for seed in range(2)]
    (row,) = rows_of(table_of(records))
    # DT has 10 to 12; BC's seed 0 has 9 to 11 and its seed 1 has 10 to 12: 10 and 11 are common.
    assert row["Common episodes"].text == "2"
    assert row["Difference"].value == pytest.approx(1.5 - np.mean([4, 4, 99, 4]))


def test_an_evaluation_seed_that_was_played_twice_counts_once_by_its_mean() -> None:
    once = record_of(HOPPER, "DT", 0, [4, 10])
    rows = once.episodes()
    twice = dataclasses.replace(once, episodes=lambda: pd.concat([rows, rows[rows["seed"] == 0].assign(score=6.0)]))
    (row,) = rows_of(table_of([twice, record_of(HOPPER, "BC", 0, [0, 0])]))
    assert row["Difference"].value == pytest.approx((5 + 10) / 2)


def test_without_common_episodes_the_row_says_so() -> None:
    records = [record_of(HOPPER, "DT", 0, [1, 2]), record_of(HOPPER, "BC", 0, [1, 2], first=50)]
    records += [record_of(DOOR, name, 0, [1, 2]) for name in ("DT", "BC")]
    apart, together = rows_of(table_of(records, tasks=[HOPPER, DOOR]))
    assert (apart["Verdict"].text, apart["Difference"].kind) == ("no common episodes", "hole")
    assert together["Verdict"].text == "undecided: fewer than 5 seeds"
    assert together["Difference"].text == "0.0"


def test_who_did_not_run_is_named() -> None:
    records = [record_of(HOPPER, name, seed, [1, 2]) for name in ("DT", "BC") for seed in range(2)]
    rows = rows_of(table_of(records, tasks=[HOPPER, DOOR], contenders=["DT", "BC", "CQL"]))
    said = [row["Verdict"].text for row in rows]
    assert said == ["undecided: fewer than 5 seeds", "CQL not run", "DT and BC not run", "DT and CQL not run"]


def test_where_nobody_can_be_compared_there_is_no_table() -> None:
    assert table_of([record_of(HOPPER, "DT", 0, [1, 2])]) is None
    assert table_of([record_of(HOPPER, "DT", 0, [1, 2])], contenders=["DT"]) is None


def test_trials_without_a_final_row_are_left_out() -> None:
    records = [record_of(HOPPER, name, seed, [10 * seed, 1]) for name in ("DT", "BC") for seed in range(3)]
    finals = finals_of(record for record in records if record.spec.seed < 2)
    (row,) = rows_of(pair_table(records, finals, tasks=[HOPPER], contenders=["DT", "BC"]))
    assert (row["Seeds of DT"].text, row["Seeds of the rival"].text) == ("2", "2")


def test_the_variances_of_tasks_add_up_in_their_mean() -> None:
    records = []
    for task, seed in ((task, seed) for task in (HOPPER, DOOR) for seed in range(4)):
        records.append(record_of(task, "DT", seed, [10.0 * seed + 4, 10.0 * seed + 4]))
        records.append(record_of(task, "BC", seed, [15.0, 15.0]))
    rows = rows_of(table_of(records, tasks=[HOPPER, DOOR], averages={"both": [HOPPER, DOOR], "more": [HOPPER, "no"]}))
    assert [row["Task"].text for row in rows] == [HOPPER, DOOR, "both"]
    assert [row["Difference"].value for row in rows] == pytest.approx([4, 4, 4])
    widths = [float(row["95% high"].value or 0) - float(row["95% low"].value or 0) for row in rows]
    # Half of the variance and twice the degrees of freedom, 6 instead of 3.
    assert widths[2] == pytest.approx(widths[0] / math.sqrt(2) * 2.446912 / 3.182446, rel=1e-4)


def test_an_undecided_pair_says_what_would_decide_it() -> None:
    def plan(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
        records = [record_of(HOPPER, "DT", seed, scores) for seed, scores in enumerate(ours)]
        records += [record_of(HOPPER, "BC", seed, scores) for seed, scores in enumerate(theirs)]
        (row,) = rows_of(table_of(records))
        assert row["Verdict"].text == "undecided: fewer than 5 seeds"
        return row["More seeds to decide"].text

    # Seeds' variance 72 of ours and 0 of theirs: 7.8489 * 72 / 4² = 35.3 seeds, of which there are 2.
    assert plan([[0, 0], [12, 12]], [[2, 2], [2, 2]]) == str(36 - 2)
    assert plan([[-3.5, -3.5], [8.5, 8.5]], [[2, 2], [2, 2]]) == "over 1000"  # for a difference of 0.5, 2261
    assert plan([[9, -5, 3], [9, -5, 3]], [[2, 2, 2], [2, 2, 2]]) == "more episodes first"
    assert plan([[0, 1], [2, 5]], [[0, 1], [2, 5]]) == DASH
    assert plan([[12, 12], [12.1, 12.1]], [[2, 2], [2, 2]]) == "3"  # one more would do, but five are needed


def test_more_pairs_need_more_seeds_each() -> None:
    def plan(tasks: Sequence[str]) -> float:
        records = [record_of(task, "DT", seed, [30.0 + 12 * seed] * 2) for task in tasks for seed in (0, 1)]
        records += [record_of(task, "BC", seed, [30.0, 30.0]) for task in tasks for seed in (0, 1)]
        rows = rows_of(table_of(records, tasks=tasks))
        return float(rows[0]["More seeds to decide"].value or 0)

    # Variance 72 and a difference of 6: (z + 0.8416)² * 2 seeds, of which 2 are there; z is 1.96 and 2.2414.
    assert (plan([HOPPER]), plan([HOPPER, DOOR])) == (16 - 2, 20 - 2)


def test_no_number_of_seeds_decides_for_a_side_that_was_searched_more() -> None:
    records = [record_of(HOPPER, "DT", seed, [30.0 + 20 * seed, 50.0 + 20 * seed]) for seed in range(5)]
    records += [record_of(HOPPER, "BC", seed, [60.0, 80.0]) for seed in range(5)]
    plans = {}
    for settings in ({}, {(HOPPER, "DT"): 8}, {(HOPPER, "BC"): 8}):
        (row,) = rows_of(table_of(records, inputs=TableInputs(tried=settings)))
        assert row["Verdict"].text == "undecided"
        plans[next((who for _, who in settings), "")] = row["More seeds to decide"].text
    assert plans["DT"] == "equal tuning first"  # ahead by ten
    assert plans[""] == plans["BC"] != "equal tuning first"


def test_no_number_of_seeds_decides_a_pair_that_has_not_converged() -> None:
    records = [record_of(HOPPER, "DT", seed, [30.0 + seed, 50.0 + seed]) for seed in range(5)]
    records += [record_of(HOPPER, "BC", seed, [20.0, 40.0]) for seed in range(5)]
    late = TableInputs(statuses={(HOPPER, "BC"): CellStatus(unconverged="score moved by +9.0")})
    (row,) = rows_of(table_of(records, inputs=late))
    assert row["Verdict"].text == "undecided: BC: not converged (score moved by +9.0)"
    assert row["More seeds to decide"].text == "convergence first"


def test_many_trials_are_compared_in_seconds() -> None:
    rng = np.random.default_rng(0)
    names = ["DT", *(f"rival {i}" for i in range(9))]
    rows = {name: record_of(HOPPER, name, 0, rng.normal(50, 10, 20).tolist()) for name in names}
    records, tasks = [], [f"task {i}" for i in range(10)]
    for task in tasks:
        for record in rows.values():
            for seed in range(10):
                spec = dataclasses.replace(record.spec, task=task, seed=seed)
                records.append(dataclasses.replace(record, spec=spec))
    began = time.process_time()
    table = pair_table(records, finals_of(records), tasks=tasks, contenders=names)
    assert time.process_time() - began < 8  # a thousand of them; measured at less than 1
    assert table is not None
    assert len(table.rows) == 90


def test_equal_records_give_equal_tables() -> None:
    rng = np.random.default_rng(0)
    records = [
        record_of(HOPPER, name, seed, rng.normal(size=9).tolist()) for name in ("DT", "BC") for seed in range(3)
    ]
    assert table_of(records) == table_of(records[::-1])
    assert difference_of(np.eye(3), np.eye(3)) == difference_of(np.eye(3), np.eye(3))
    assert isinstance(difference_of(np.eye(3), np.eye(3)).interval, Interval)


DRAWS = ["key-to-door-1k", "key-to-door-1k-draw1", "key-to-door-1k-draw2", "key-to-door-1k-draw3"]


def drawn(record: TrialRecord, task: str) -> TrialRecord:
    return dataclasses.replace(record, spec=dataclasses.replace(record.spec, task=task))


def test_a_mean_over_draws_of_the_same_data_has_the_spread_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    differences = [2.0, 4.0, 6.0, 12.0]
    pairs = []
    for apart in differences:
        theirs = rng.normal(0, 1, (5, 3)) + rng.normal(0, 50)  # what a draw does to both sides cancels
        pairs.append(Pair(theirs + apart, theirs))
    found = mean_difference(pairs, over_draws=True)
    expected = scipy.stats.t.interval(0.95, 3, loc=6, scale=np.std(differences, ddof=1) / 2)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)
    within = mean_difference(pairs).interval
    assert within is not None
    assert within.high - within.low < found.interval.high - found.interval.low


def test_draws_count_once_in_outcomes_and_with_their_own_interval_in_the_table() -> None:
    records = [
        drawn(record_of(DOOR, name, seed, [level + more + seed, level + more]), task)
        for task, level, apart in zip(DRAWS, [10, 30, 20, 60], [2.0, 4.0, 6.0, 12.0], strict=True)
        for name, more in (("DT", apart), ("BC", 0.0))
        for seed in range(5)
    ]
    draws = {"mean of 4 draws": tuple(DRAWS)}
    known = dataclasses.replace(inputs({}), over_draws=draws)
    finals = finals_of(records)
    outcomes = pairwise.pair_outcomes(records, finals, tasks=DRAWS, contenders=["DT", "BC"], inputs=known)
    assert list(outcomes) == [("mean of 4 draws", "BC")]
    difference, verdict = outcomes["mean of 4 draws", "BC"]
    assert (difference.mean, difference.ours_seeds) == (6.0, 5)
    assert verdict.kind == "undecided"  # 6 +- 6.9
    *_, row = rows_of(table_of(records, tasks=DRAWS, averages=draws, inputs=known))
    assert row["Difference"].text == "6.0 [\N{MINUS SIGN}0.9, 12.9]"
    assert row["More seeds to decide"].text == DASH
    part = [record for record in records if (record.spec.task, record.spec.contender) != (DRAWS[0], "BC")]
    alone = pairwise.pair_outcomes(part, finals_of(part), tasks=DRAWS, contenders=["DT", "BC"], inputs=known)
    assert sorted(task for task, _ in alone) == sorted(DRAWS[1:])
