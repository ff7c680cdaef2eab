"""The scores of the data's own episodes, from what was evaluated."""

from typing import Any

import pandas as pd
import pytest

from dtbench.analysis.data_scores import data_scores


def facts(mean: float, best: float) -> dict[str, Any]:
    return {"dataset": {"card": {"return_mean": mean, "return_max": best}}}


def evaluated(task: str, rows: list[tuple[float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["return_mean", "score"]).assign(task=task)


def test_a_data_score_lies_on_the_line_of_what_was_evaluated() -> None:
    scores = evaluated("hopper", [(100.0, 10.0), (300.0, 30.0), (200.0, 20.0)])
    found = data_scores({"hopper": facts(250, 900)}, scores, {"average": ("hopper",), "other": ("hopper", "walker")})
    assert (found["hopper"].mean, found["hopper"].best) == pytest.approx((25, 90))
    assert found["average"] == found["hopper"]
    assert "other" not in found


def test_the_best_recording_policy_has_scores_with_its_noise_and_without() -> None:
    scores = evaluated("hopper", [(100.0, 10.0), (300.0, 30.0)])
    of_policies = [
        {"policy": "medium", "with_noise": 150.0, "without_noise": 170.0, "episodes": 50},
        {"policy": "expert", "with_noise": 290.0, "without_noise": 280.0, "episodes": 50},
        {"policy": "unmeasured"},
    ]
    known = facts(250, 900)
    known["dataset"]["info"] = {"policy_returns": of_policies}
    found = data_scores({"hopper": known, "walker": facts(1, 2)}, scores, {"average": ("hopper",)})
    assert (found["average"].with_noise, found["average"].without_noise) == pytest.approx((29, 28))


@pytest.mark.parametrize(
    ("why", "rows", "card"),
    [
        ("no line", [(0.0, 0.0), (1.0, 1.0), (2.0, 5.0)], facts(1, 2)),
        ("one return", [(1.0, 1.0), (1.0, 1.0)], facts(1, 2)),
        ("no card", [(0.0, 0.0), (1.0, 1.0)], {}),
        ("no number", [(0.0, float("nan")), (1.0, 1.0)], facts(1, 2)),
    ],
)
def test_what_cannot_be_told_has_no_row(why: str, rows: list[tuple[float, float]], card: dict[str, Any]) -> None:
    assert data_scores({"t": card}, evaluated("t", rows), {}) == {}, why
