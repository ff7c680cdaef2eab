"""What more steps brought: which trials are compared, and what that says about learners whose rate falls."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from dtbench.analysis.convergence import MIDDLE, Convergence, convergences
from dtbench.analysis.tables.convergence import convergence_table
from dtbench.analysis.training_length import gain, gain_with_more, rate_falls, row_of
from dtbench.ledger.store import TrialRecord
from tests.support.mixed_ledger import spec_of

HOPPER = "hopper-medium-replay-v2"
CURVE = (0.25, 0.5, 0.75, 1.0)  # shares of the steps at which a trial is evaluated


def record(seed: int, steps: int, *, contender: str = "DT", **settings: Any) -> TrialRecord:
    """Make a trial whose learning rate falls over all of its steps, unless `settings` say otherwise."""
    spec = spec_of(HOPPER, contender, seed)
    given = {"hidden_size": 8, "decay_steps": steps, **settings}
    evaluation = replace(spec.evaluation, every=steps // 4)
    return TrialRecord(replace(spec, train_steps=steps, hyperparameters=given, evaluation=evaluation), {}, {})


def scores(curves: dict[int, list[TrialRecord]], *, rising: float = 0.0) -> pd.DataFrame:
    """Let every trial end with the score that is its key in `curves`, plus its seed, after a rise over its half."""
    rows = [
        {
            "trial": one.spec.key,
            "contender": one.spec.contender,
            "step": int(share * one.spec.train_steps),
            "score": end + one.spec.seed - rising * 2 * (1 - max(share, 0.5)),
            "target": float("nan"),
        }
        for end, trials in curves.items()
        for one in trials
        for share in CURVE
    ]
    return pd.DataFrame(rows)


def judged(ours: list[TrialRecord], table: pd.DataFrame, earlier: list[TrialRecord]) -> Convergence:
    (found,) = convergences(ours, table, superseded=earlier).values()
    return found


def test_a_rate_falls_where_its_decay_ends_within_the_steps() -> None:
    spec = record(0, 400).spec
    assert rate_falls(spec)
    assert not rate_falls(replace(spec, train_steps=300))
    assert not rate_falls(record(0, 400, decay_steps=None).spec)
    assert not rate_falls(spec_of(HOPPER, "DT", 0))


def test_the_longest_of_the_trainings_with_at_most_half_the_steps_counts() -> None:
    ours = [record(seed, 400) for seed in (0, 1, 2)]
    others = {steps: [record(seed, steps) for seed in (0, 1)] for steps in (300, 200, 100)}
    finals = {row_of(one): 50.0 + one.spec.seed for one in ours}
    finals |= {row_of(one): steps / 10 for steps, trials in others.items() for one in trials}
    found = gain(ours, [one for trials in others.values() for one in trials], finals)
    assert found is not None
    assert (found.fewer, found.steps) == (200, 400)
    assert found.change == pytest.approx(50.5 - 20)  # of the seeds that both have
    assert found.over_last(0.75) == pytest.approx(found.change * math.log(4 / 3) / math.log(2))
    assert found.over_last(MIDDLE) == pytest.approx(found.change)


@pytest.mark.parametrize(
    "changed",
    [{"hidden_size": 16}, {"decay_steps": None}, {"contender": "CQL"}],
    ids=["another setting", "a rate that stays", "another algorithm"],
)
def test_trials_that_differ_in_more_than_their_length_are_not_compared(changed: dict[str, Any]) -> None:
    ours, others = [record(seed, 400) for seed in range(3)], [record(seed, 100, **changed) for seed in range(3)]
    finals = {row_of(one): 1.0 for one in (*ours, *others)}
    assert gain(ours, others, finals) is None
    alike = [record(seed, 100) for seed in range(3)]
    finals |= {row_of(one): 0.0 for one in alike}
    assert gain(ours, [*others, *alike], finals) is not None
    assert gain(ours, alike[:1], finals) is None, "one pair says nothing"


def test_a_score_that_stands_still_while_the_rate_falls_is_held_to_trials_with_fewer_steps() -> None:
    ours, earlier = [record(seed, 400) for seed in range(5)], [record(seed, 100) for seed in range(5)]
    as_good = judged(ours, scores({60: [*ours, *earlier]}), earlier)
    assert as_good.word == "yes"
    worse = judged(ours, scores({60: ours, 40: earlier}), earlier)
    assert worse.word == "no: +20.0 over 100 steps"
    slightly = judged(ours, scores({60: ours, 59: earlier}), earlier)
    assert slightly.word == "yes", "one point over a quarter of the steps is half a point over the last half"


def test_trials_with_fewer_steps_do_not_excuse_a_score_that_moved() -> None:
    ours, earlier = [record(seed, 400) for seed in range(5)], [record(seed, 100) for seed in range(5)]
    assert judged(ours, scores({60: ours}, rising=10), []).reason == "score moved by +5.0"
    assert judged(ours, scores({60: [*ours, *earlier]}, rising=10), earlier).reason == "score moved by +5.0"


def test_the_gain_of_several_draws_of_the_data_varies_between_draws() -> None:
    def on(draw: int, steps: int, seed: int) -> TrialRecord:
        one = record(seed, steps)
        return replace(one, spec=replace(one.spec, task=f"draw{draw}"))

    gains = {0: 10.0, 1: 14.0, 2: 18.0}  # points; every seed of a draw gains alike
    ours = [on(draw, 400, seed) for draw in gains for seed in range(4)]
    earlier = [on(draw, 100, seed) for draw in gains for seed in range(4)]
    finals = {row_of(one): 50.0 + gains[int(one.spec.task[-1])] for one in ours}
    finals |= {row_of(one): 50.0 for one in earlier}
    found = gain(ours, earlier, finals)
    assert found is not None
    assert found.change == pytest.approx(14)
    assert found.noise == pytest.approx(4.303 * 4 / math.sqrt(3), rel=1e-3)  # Student's t with two degrees of freedom


def test_trials_with_more_steps_that_score_higher_show_that_these_were_too_few() -> None:
    ours, later = [record(seed, 100) for seed in range(3)], [record(seed, 400) for seed in range(3)]
    assert judged(ours, scores({60: [*ours, *later]}), later).word == "yes"
    found = judged(ours, scores({60: ours, 70: later}), later)
    assert found.word == "no: +10.0 with 400 steps"
    table = convergence_table({(HOPPER, "DT"): found}, ["DT"])
    assert table is not None
    values = dict(zip((column.name for column in table.columns), (cell.text for cell in table.rows[0]), strict=True))
    assert (values["More steps"], values["Gain with them"]) == ("400", "10.0")
    assert judged(ours, scores({60: ours, 70: later[:1]}), later[:1]).word == "yes", "one pair says nothing"
    constant = [record(seed, 100, decay_steps=None) for seed in range(3)]
    longer = [record(seed, 400, decay_steps=None) for seed in range(3)]
    assert judged(constant, scores({60: constant, 70: longer}), longer).word == "yes", "its curve is the judge"


def test_of_longer_trainings_that_with_the_fewest_steps_counts() -> None:
    ours = [record(seed, 100) for seed in range(2)]
    others = {steps: [record(seed, steps) for seed in (0, 1)] for steps in (150, 200, 800)}
    finals = {row_of(one): 50.0 + one.spec.seed for one in ours}
    finals |= {row_of(one): 50.0 + steps / 10 for steps, trials in others.items() for one in trials}
    found = gain_with_more(ours, [one for trials in others.values() for one in trials], finals)
    assert found is not None
    assert (found.fewer, found.steps, found.change) == (100, 200, pytest.approx(19.5))


def test_the_table_shows_fewer_steps_only_where_they_were_tried() -> None:
    ours, earlier = [record(seed, 400) for seed in range(3)], [record(seed, 100) for seed in range(3)]
    table = scores({60: ours, 40: earlier})
    shown = convergence_table(convergences(ours, table, superseded=earlier), ["DT"])
    assert shown is not None
    values = dict(zip((column.name for column in shown.columns), (cell.text for cell in shown.rows[0]), strict=True))
    assert (values["Fewer steps"], values["Gain over them"]) == ("100", "20.0")
    without = convergence_table(convergences(ours, table), ["DT"])
    assert without is not None
    assert "Fewer steps" not in [column.name for column in without.columns]


def test_a_share_near_100_has_no_further_to_rise() -> None:
    ours, earlier = [record(seed, 400) for seed in range(2)], [record(seed, 100) for seed in range(2)]
    near, below = scores({99: ours, 60: earlier}), scores({97: ours, 60: earlier})
    (full,) = convergences(ours, near, superseded=earlier, shares=[HOPPER]).values()
    assert full.word == "yes"
    (far,) = convergences(ours, below, superseded=earlier, shares=[HOPPER]).values()
    assert far.reason.startswith("+37.0 over 100 steps")
    assert judged(ours, near, earlier).reason, "another score may go beyond 100"


def test_two_contenders_that_share_trials_are_judged_by_their_own_rows() -> None:
    ours = [record(seed, 400, decay_steps=None) for seed in range(3)]
    other = [one.relabelled(one.spec.labelled(suite="demo", contender="DT at another target")) for one in ours]
    assert {one.spec.key for one in ours} == {one.spec.key for one in other}
    table = pd.concat([scores({60: ours}, rising=20), scores({60: other})])
    found = convergences([*ours, *other], table)
    assert found[HOPPER, "DT"].reason == "score moved by +10.0"
    assert found[HOPPER, "DT at another target"].word == "yes"
