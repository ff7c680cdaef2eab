"""Pairs on common evaluation seeds: numbers worked by hand, coverage and power by simulation, and the table."""

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis import pairwise
from dtbench.analysis.pairwise import Difference, Spread, mean_difference, pair_of, pair_table, spread_of
from dtbench.analysis.statistics import Array, Interval
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


def difference_of(ours: Array, theirs: Array, **options: Any) -> Difference:
    return mean_difference([pair_of(ours, theirs, **options)])


def test_the_luck_that_both_sides_share_cancels() -> None:
    luck = np.array([0.0, 50, 100, -70])
    ours, theirs = luck + np.array([[10.0], [12]]), luck + np.array([[1.0], [1]])
    found = difference_of(ours, theirs)
    assert found.mean == pytest.approx(10)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((9, 11))  # the seeds' 10 or 12, less 1
    assert (found.sign, found.ours_seeds, found.theirs_seeds, found.episodes) == (1, 2, 2, 4)


def test_the_other_way_round_the_sign_is_the_other() -> None:
    ours, theirs = np.array([[1.0, 2], [2, 3]]), np.array([[5.0, 6], [5, 6]])
    assert difference_of(ours, theirs).sign == -1
    assert difference_of(theirs, ours).sign == 1
    assert difference_of(ours, ours).sign == 0


def test_one_training_seed_says_nothing_of_the_next_training() -> None:
    alone, several = np.array([[90.0, 91, 92]]), np.array([[1.0, 2, 3], [2, 3, 4]])
    for ours, theirs in ((alone, several), (several, alone)):
        found = difference_of(ours, theirs)
        assert (found.interval, found.sign) == (None, 0)
    assert difference_of(alone, several).mean == pytest.approx(91 - 2.5)


def test_training_seeds_are_not_paired() -> None:
    # Seed by seed ours is always 1 above; but seeds differ by 100, and their numbers mean nothing.
    seeds = np.array([[0.0], [100], [200]]) + np.zeros(4)
    found = difference_of(seeds + 1, seeds)
    assert found.sign == 0
    assert found.interval is not None
    assert found.interval.low < -90


def test_the_parts_of_a_spread_are_worked_by_hand() -> None:
    # Ours: seeds' means 2 and 4, variance 2; episodes' means 2, 4, 3; residuals -1, 1, 0 and 1, -1, 0: 4 / (1 * 2).
    ours, theirs = np.array([[0.0, 4, 2], [4, 4, 4]]), np.array([[0.0, 6, 0], [0, 6, 0]])
    # The episodes' differences are 2, -2, 3: variance 7; the residuals leave 2 / 2 of it.
    assert spread_of(ours, theirs) == Spread(1.0, 2.0, 0.0, 2, 2, pytest.approx((7 - 2 / 2) / 3))


def test_luck_is_no_less_than_none_and_cannot_be_seen_in_one_episode() -> None:
    ours, theirs = np.array([[0.0, 4], [4, 0]]), np.array([[1.0, 2], [2, 1]])
    assert spread_of(ours, theirs).shared == 0
    assert spread_of(ours[:, :1], theirs[:, :1]) == Spread(0.5, 8.0, 0.5, 2, 2, 0.0)


CASES: dict[str, dict[str, float]] = {
    "seeds differ": {"training": 5},
    "episodes differ": {"luck": 20},
    "each evaluation is noisy": {"residual": 30},
    "all at once": {"training": 3, "luck": 10, "residual": 20},
}


@pytest.mark.parametrize("noise", CASES.values(), ids=CASES)
def test_the_interval_holds_the_true_difference_as_often_as_it_says(noise: Mapping[str, float]) -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        interval = difference_of(*scores_of(rng, 20, 40, difference=3, **noise), resamples=400).interval
        assert interval is not None
        held.append(interval.holds(3))
    assert 0.90 <= np.mean(held) <= 0.98  # 95 % but for the few seeds, +- 3 standard errors


def test_noise_that_nobody_shares_is_counted_once() -> None:
    rng, widths = np.random.default_rng(0), []
    for _ in range(100):
        interval = difference_of(*scores_of(rng, 20, 40, residual=30), resamples=400).interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 30 * math.sqrt(2 / (20 * 40)), rel=0.06)


def test_how_many_seeds_would_decide_is_worked_by_hand() -> None:
    # (1.95996 + 0.84162)² (s² + s²) <= n 2²: n >= 7.8489 * 50 / 4 = 98.1, of which there are 3.
    spread = Spread(2.0, 25.0, 25.0, 3, 3, 0.0)
    assert pairwise._seeds_to_decide([spread]) == 99 - 3
    # Over two tasks that differ by 2, the variance of the mean is half of one's: n >= 49.06.
    assert pairwise._seeds_to_decide([spread, spread]) == 50 - 3


def test_an_undecided_pair_needs_one_seed_at_least() -> None:
    assert pairwise._seeds_to_decide([Spread(9.0, 1.0, 1.0, 5, 5, 0.0)]) == 1


def test_seeds_that_a_side_has_count() -> None:
    # 25 / (2 + k) + 25 / (60 + k) must not exceed 4 / 7.8489 = 0.50963: it is 0.50986 for k = 75, 0.50434 for 76.
    assert pairwise._seeds_to_decide([Spread(2.0, 25.0, 25.0, 2, 60, 0.0)]) == 76


def test_training_seeds_do_not_take_away_the_luck_of_the_episodes() -> None:
    hidden = Spread(1.0, 25.0, 25.0, 3, 3, 0.2)  # 2.8 standard deviations of sqrt(0.2) are 1.25
    assert pairwise._seeds_to_decide([hidden]) is None
    assert pairwise._hidden_by_episodes([hidden])
    far = Spread(0.1, 25.0, 25.0, 3, 3, 0.0)  # 39,245 seeds
    assert pairwise._seeds_to_decide([far]) is None
    assert not pairwise._hidden_by_episodes([far])


@pytest.mark.parametrize("noise", [{"training": 5.0}, {"training": 4.0, "luck": 8.0, "residual": 10.0}])
def test_planned_seeds_decide_four_times_of_five(noise: Mapping[str, float]) -> None:
    episodes, difference = 50, 5.0
    between = noise["training"] ** 2 + noise.get("residual", 0) ** 2 / episodes
    planned = pairwise._seeds_to_decide(
        [Spread(difference, between, between, 1, 1, noise.get("luck", 0) ** 2 / episodes)]
    )
    assert planned is not None
    rng = np.random.default_rng(0)
    decided = [
        difference_of(*scores_of(rng, planned + 1, episodes, difference=difference, **noise), resamples=400).sign
        for _ in range(400)
    ]
    assert 0.74 <= np.mean(decided) <= 0.90  # few seeds make percentile intervals a little short


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
    records = [record_of(HOPPER, "DT", seed, [30 + seed, 50 + seed, 70 + seed]) for seed in range(3)]
    records += [record_of(HOPPER, "BC", seed, [20, 40, 60]) for seed in range(2)]
    links = inputs({}, links={(HOPPER, "DT"): "cell-a", (HOPPER, "BC"): "cell-b"})
    (row,) = rows_of(table_of(records, inputs=links))
    assert (row["Task"].text, row["Rival"].text) == (HOPPER, "BC")
    assert row["Difference"].text == "11.0 [10.0, 12.0]"
    assert (row["95% low"].value, row["95% high"].value) == pytest.approx((10, 12))
    assert row["P(DT is above)"].text == "1.00 [1.00, 1.00]"
    assert (row["Seeds of DT"].text, row["Seeds of the rival"].text, row["Common episodes"].text) == ("3", "2", "3")
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
    assert together["Verdict"].text == "undecided: one seed on a side"
    assert together["Difference"].text == "0.0"


def test_who_did_not_run_is_named() -> None:
    records = [record_of(HOPPER, name, seed, [1, 2]) for name in ("DT", "BC") for seed in range(2)]
    rows = rows_of(table_of(records, tasks=[HOPPER, DOOR], contenders=["DT", "BC", "CQL"]))
    verdicts = [row["Verdict"].text for row in rows]
    assert verdicts == ["undecided", "CQL not run", "DT and BC not run", "DT and CQL not run"]


def test_where_nobody_can_be_compared_there_is_no_table() -> None:
    assert table_of([record_of(HOPPER, "DT", 0, [1, 2])]) is None
    assert table_of([record_of(HOPPER, "DT", 0, [1, 2])], contenders=["DT"]) is None


def test_trials_without_a_final_row_are_left_out() -> None:
    records = [record_of(HOPPER, name, seed, [10 * seed, 1]) for name in ("DT", "BC") for seed in range(3)]
    finals = finals_of(record for record in records if record.spec.seed < 2)
    (row,) = rows_of(pair_table(records, finals, tasks=[HOPPER], contenders=["DT", "BC"]))
    assert (row["Seeds of DT"].text, row["Seeds of the rival"].text) == ("2", "2")


def test_the_mean_over_tasks_is_resampled_task_by_task() -> None:
    records = []
    for task, seed in ((task, seed) for task in (HOPPER, DOOR) for seed in range(4)):
        records.append(record_of(task, "DT", seed, [10.0 * seed + 4, 10.0 * seed + 4]))
        records.append(record_of(task, "BC", seed, [15.0, 15.0]))
    rows = rows_of(table_of(records, tasks=[HOPPER, DOOR], averages={"both": [HOPPER, DOOR], "more": [HOPPER, "no"]}))
    assert [row["Task"].text for row in rows] == [HOPPER, DOOR, "both"]
    assert [row["Difference"].value for row in rows] == pytest.approx([4, 4, 4])
    widths = [float(row["95% high"].value or 0) - float(row["95% low"].value or 0) for row in rows]
    assert widths[2] == pytest.approx(widths[0] / math.sqrt(2), rel=0.1)


def test_an_undecided_pair_says_what_would_decide_it() -> None:
    def plan(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
        records = [record_of(HOPPER, "DT", seed, scores) for seed, scores in enumerate(ours)]
        records += [record_of(HOPPER, "BC", seed, scores) for seed, scores in enumerate(theirs)]
        (row,) = rows_of(table_of(records))
        assert row["Verdict"].text == "undecided"
        return row["More seeds to decide"].text

    # Seeds' variance 72 of ours and 0 of theirs: 7.8489 * 72 / 4² = 35.3 seeds, of which there are 2.
    assert plan([[0, 0], [12, 12]], [[2, 2], [2, 2]]) == str(36 - 2)
    assert plan([[-3.5, -3.5], [8.5, 8.5]], [[2, 2], [2, 2]]) == "over 1000"  # for a difference of 0.5, 2261
    assert plan([[9, -5, 3], [9, -5, 3]], [[2, 2, 2], [2, 2, 2]]) == "more episodes first"
    assert plan([[0, 1], [2, 5]], [[0, 1], [2, 5]]) == DASH


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
