"""Whether a learner had finished, from its metrics and its scores over training."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis.convergence import Convergence, change_at_the_end, convergences, late_evaluations, planned_share
from dtbench.analysis.tables.convergence import convergence_table
from dtbench.ledger.store import TrialRecord
from tests.support.mixed_ledger import spec_of

HOPPER = "hopper-medium-replay-v2"


def record(seed: int, *, share: float | None = 0.99, end: float = 100.0, contender: str = "CQL") -> TrialRecord:
    """A trial whose mean Q rises to 100 in two thirds of its training and to `end` from there."""
    rows: dict[str, Any] = {"step": [100, 200, 250, 300], "loss": 1.0}
    if share is not None:
        rows |= {"value_share": [0.1, 0.2, 0.3, share], "value_mean": [50, 100, (100 + end) / 2, end]}
        rows |= {"value_ratio": 0.8, "value_correlation": 0.7}
    return TrialRecord(spec_of(HOPPER, contender, seed), {}, {}, metrics=lambda: pd.DataFrame(rows))


def scores(records: list[TrialRecord], curves: list[list[float]]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {"trial": one.spec.key, "contender": one.spec.contender, "step": [100, 200, 250, 300], "score": own}
        )
        for one, own in zip(records, curves, strict=True)
    ]
    return pd.concat(parts).assign(target=float("nan"))


def convergence(records: list[TrialRecord], curves: list[list[float]]) -> Convergence:
    (one,) = convergences(records, scores(records, curves)).values()
    return one


STILL = [[10.0, 50, 52, 50], [10.0, 48, 50, 49], [10.0, 49, 47, 49]]


def test_one_that_stands_still_has_converged() -> None:
    found = convergence([record(seed) for seed in range(3)], STILL)
    assert (found.reason, found.word) == ("", "yes")
    assert (found.share, found.ratio, found.correlation) == pytest.approx((0.99, 0.8, 0.7))
    assert found.value_change == 0


def test_backups_that_reach_too_little_come_first() -> None:
    found = convergence([record(seed, share=0.45, end=200) for seed in range(3)], STILL)
    assert found.reason == "45% of value"
    assert found.word == "no: 45% of value"


def test_a_value_that_still_moves_is_named_with_its_direction() -> None:
    found = convergence([record(seed, end=110) for seed in range(3)], STILL)
    assert found.value_change == pytest.approx(10 / 110)
    assert found.reason == "Q moved by +9 %"
    assert not convergence([record(seed, end=104) for seed in range(3)], STILL).reason


def test_a_score_that_moves_beyond_its_noise_has_not_converged() -> None:
    rising = [[10.0, 40, 45, 50], [10.0, 41, 45, 52], [10.0, 42, 47, 51]]
    found = convergence([record(seed, share=None, contender="DT") for seed in range(3)], rising)
    assert found.share is None
    assert found.score is not None
    assert found.score.points == pytest.approx(10, abs=1)
    assert found.reason.startswith("score moved by +")
    noisy = [[10.0, 40, 45, 50], [10.0, 60, 55, 48], [10.0, 52, 47, 51]]
    assert not convergence([record(seed, share=None, contender="DT") for seed in range(3)], noisy).reason


def test_how_often_a_rise_is_seen_and_a_level_curve_suspected() -> None:
    """Five seeds, scores with 4 points of noise: a rise of 10 over the last third is seen, one of 4 mostly is not."""
    rng, records, times = (
        np.random.default_rng(0),
        [record(seed, contender="DT", share=None) for seed in range(5)],
        200,
    )
    suspected = {}
    for rise in (0, 4, 10):
        expected = np.array([10.0, 50, 50 + rise / 2, 50 + rise])
        drawn = [[list(expected + rng.normal(0, 4, 4)) for _ in records] for _ in range(times)]
        found = [convergence(records, curves) for curves in drawn]
        suspected[rise] = sum(bool(one.reason) for one in found) / times
        inside = [abs(one.score.points - rise) <= one.score.noise for one in found if one.score and one.score.noise]
        assert len(inside) == times
        assert np.mean(inside) >= 0.91, "the interval beside the change holds the true one"
    assert suspected[0] <= 0.08
    assert suspected[4] <= 0.5, "what the column ± warns of"
    assert suspected[10] >= 0.75


def test_a_rise_since_half_of_training_is_seen_where_the_last_third_is_noise() -> None:
    records = [record(seed, contender="DT", share=None) for seed in range(4)]
    noisy = [[20.0, 60, 70, 74], [22.0, 70, 60, 76], [18.0, 75, 80, 70], [19.0, 80, 75, 75]]
    table = scores(records, noisy)
    found = {}
    for half in (160, 140):  # of 300 steps: inside the last half, or before it
        moved = table.assign(step=table["step"].replace({100: half}))
        (found[half],) = convergences(records, moved).values()
    assert found[160].score is not None
    assert found[160].score.still
    assert found[160].reason.startswith("score moved by +")
    assert found[160].reason.endswith(" since half")
    assert found[140].word == "yes"


def test_a_small_change_is_nothing_however_sure() -> None:
    steady = [[10.0, 50.0, 50.2, 50.4]] * 3
    assert convergence([record(seed) for seed in range(3)], steady).word == "yes"


def test_one_evaluation_says_nothing() -> None:
    records = [record(0, share=None, contender="DT")]
    late = scores(records, [[1.0, 2, 3, 4]])
    (found,) = convergences(records, late[late["step"] == 300]).values()
    assert (found.score, found.reason, found.word) == (None, "", "unknown: too few evaluations")
    assert found.unknown


def test_a_learner_whose_mean_q_was_not_measured_is_unknown() -> None:
    spec = replace(spec_of(HOPPER, "CQL", 0), train_steps=300, hyperparameters={"tau": 0.5, "discount": 0.9})
    found = convergence([replace(record(0, share=None), spec=spec)], [[1.0, 2.0, 2.0, 2.0]])
    assert found.share == pytest.approx(1.0)
    assert (found.reason, found.word) == ("", "unknown: mean Q not measured")


def test_what_does_not_learn_has_nothing_to_finish() -> None:
    spec = replace(spec_of(HOPPER, "Random", 0), train_steps=0)
    idle = replace(record(0, share=None, contender="Random"), spec=spec)
    late = scores([idle], [[1.0, 2, 3, 4]])
    (found,) = convergences([idle], late[late["step"] == 300]).values()
    assert (found.reason, found.unknown, found.word) == ("", "", "yes: it does not learn")


def test_trials_of_before_are_judged_by_their_hyperparameters() -> None:
    spec = replace(spec_of(HOPPER, "CQL", 0), train_steps=12_000)
    cases = [
        ({"tau": 0.005, "discount": 0.99}, 0.4512),
        ({"tau": 0.005, "discount": 0.99, "policy_every": 2}, 0.2592),
        ({"target_every": 2000, "discount": 0.99}, 0.0582),
        ({"learning_rate": 0.1}, None),
    ]
    for hyperparameters, expected in cases:
        found = planned_share(replace(spec, hyperparameters=hyperparameters))
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-3))
    old = replace(record(0, share=None), spec=replace(spec, hyperparameters=cases[0][0]))
    assert convergence([old], [STILL[0]]).reason == "45% of value"


def test_the_change_is_that_of_the_line_over_the_last_third() -> None:
    steps = np.array([100.0, 200, 250, 300])
    assert change_at_the_end(steps, np.array([0.0, 10, 10, 10])) == pytest.approx(0)
    assert change_at_the_end(steps, np.array([0.0, 10, 12, 14])) == pytest.approx(4)
    assert change_at_the_end(steps[-1:], np.array([3.0])) is None
    assert change_at_the_end(np.zeros(0), np.zeros(0)) is None


def test_the_table_names_every_cell() -> None:
    found = convergences(records := [record(seed, share=0.2) for seed in range(2)], scores(records, STILL[:2]))
    table = convergence_table(found, ["DT", "CQL"])
    assert table is not None
    assert [cell.text for cell in table.rows[0][:4]] == [HOPPER, "CQL", "no: 20% of value", "0.20"]
    names = ["Change of score", "±", "Since half", "± of that", "Settings tried"]
    assert [column.name for column in table.columns[-5:]] == names
    assert float(table.rows[0][-2].text) > abs(float(table.rows[0][-3].text)), "two seeds are too few to see a change"
    assert table.rows[0][-1].text == "0"
    searched = convergence_table(found, ["DT", "CQL"], {(HOPPER, "CQL"): 16})
    assert searched is not None
    assert [row[-1].text for row in searched.rows] == ["16"] * len(searched.rows)
    assert convergence_table({}, ["DT"]) is None


@pytest.mark.parametrize(
    ("steps", "every", "late"),
    [(2000, 1000, 1), (2000, 667, 2), (2000, 700, 2), (500, 125, 2), (300, 100, 2), (9, 1, 4)],
)
def test_late_evaluations_are_those_of_the_last_third(steps: int, every: int, late: int) -> None:
    spec = spec_of(HOPPER, "DT", 0)
    spec = replace(spec, train_steps=steps, evaluation=replace(spec.evaluation, every=every))
    assert late_evaluations(spec) == late


def test_draws_of_the_same_data_are_judged_together_too() -> None:
    draws = ["key-to-door-1k", "key-to-door-1k-draw1"]
    plain = [spec_of(draws[0], "DT", seed) for seed in range(3)]
    records = [replace(record(0, share=None), spec=replace(spec, task=task)) for task in draws for spec in plain]
    rising = [[0.0, 10, 11, 14], [0.0, 10, 12, 13], [0.0, 10, 11, 13]]  # sure on one draw, noise over both
    falling = [[0.0, 14, 12, 10], [0.0, 13, 11, 10], [0.0, 13, 12, 10]]
    found = convergences(records, scores(records, rising + falling), {"mean of 2 draws": draws, "other": ["x"]})
    assert found["key-to-door-1k", "DT"].reason
    assert found["mean of 2 draws", "DT"].word == "yes"
    assert ("other", "DT") not in found
