"""The target return that a contender's row stands for: the first that is listed, or the one that the suite states."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis.headline import chosen_target, headline_target, stated_targets
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import analyze
from dtbench.errors import InvalidValue
from dtbench.suite.planning import load_suite, narrow, trial_specs
from tests.support.tiny_ledger import SCORES, TARGETS, spec_of, tiny_ledger


def stating(results: SuiteResults, **settings: Any) -> SuiteResults:
    contenders = results.suite["contenders"]
    return replace(results, suite={**results.suite, "contenders": {**contenders, "DT": contenders["DT"] | settings}})


def test_the_row_curve_and_convergence_are_of_the_stated_target(tmp_path: Path) -> None:
    results = tiny_ledger(tmp_path)
    first = analyze(results)
    other = analyze(stating(results, by_task={"val*": {"headline_target": TARGETS[1]}}))
    shown = other.finals.set_index(["task", "contender", "seed"])
    assert shown.loc[("valley", "DT", 0), "target"] == TARGETS[1]
    assert shown.loc[("hill", "DT", 0), "target"] == TARGETS[0]
    assert np.isnan(shown.loc[("valley", "BC", 0), "target"])
    given = SCORES["valley", "DT"]
    assert first.inputs.estimates["valley", "DT"].mean == pytest.approx(np.mean([one for one in given if one]))
    assert other.inputs.estimates["valley", "DT"].mean == pytest.approx(np.mean([one / 2 for one in given if one]))


def test_convergence_is_that_of_the_stated_target(tmp_path: Path) -> None:
    results = tiny_ledger(tmp_path)
    early = results.scores[(results.scores["task"] == "valley") & (results.scores["step"] == 10)]
    between = [  # the first target's scores rise with every step, the second's stand still
        early.assign(step=step, score=early["score"] + (early["target"] == TARGETS[0]) * 2.5 * (step - 10))
        for step in range(11, 20)
    ]
    results = replace(results, scores=pd.concat([results.scores, *between], ignore_index=True))
    rising = analyze(results).convergence["valley", "DT"]
    still = analyze(stating(results, headline_target=TARGETS[1])).convergence["valley", "DT"]
    assert rising.reason.startswith("score moved by +")
    assert still.score is not None
    assert (still.reason, still.score.points) == ("", 0)


def test_later_patterns_and_null_take_a_contenders_own_back() -> None:
    suite = {"contenders": {"DT": {"headline_target": 1.0, "by_task": {"a*": {"headline_target": 2.0}, "ab": {}}}}}
    assert [chosen_target(suite, "DT", task) for task in ("b", "a", "ab")] == [1.0, 2.0, 2.0]
    suite["contenders"]["DT"]["by_task"]["ab"] = {"headline_target": None}  # type: ignore[index]
    assert chosen_target(suite, "DT", "ab") is None
    assert chosen_target(suite, "BC", "b") is None
    assert chosen_target({}, "DT", "b") is None


def test_the_page_says_which_rows_are_at_a_stated_target() -> None:
    suite = {"contenders": {"DT": {"by_task": {"a": {"headline_target": 2.5}}}, "BC": {}}}
    assert list(stated_targets(suite, ["DT", "BC"], ["a", "b"])) == [
        "DT is asked for the target return that the suite states (headline_target): 2.5 on a."
    ]


def test_a_stated_target_that_was_not_evaluated_leaves_the_first() -> None:
    spec = spec_of("valley", "DT", 0)
    assert headline_target(spec, TARGETS, 60.0) == 60.0
    assert headline_target(spec, TARGETS, 61.0) == TARGETS[0]
    assert np.isnan(headline_target(spec, [np.nan], 60.0))


def test_a_suite_that_states_a_target_that_is_not_evaluated_is_refused() -> None:
    suite = load_suite("d4rl", overrides=["DT.headline_target=3601"])
    with pytest.raises(InvalidValue, match=r"DT on .*headline_target 3601 is not evaluated.*3600, 1800"):
        trial_specs(suite, make_data=False)


def test_the_target_of_the_row_leaves_trials_as_they_are() -> None:
    keys = [
        [
            spec.key
            for spec in trial_specs(narrow(load_suite("d4rl", overrides=given), tasks=["hopper*"]), make_data=False)
        ]
        for given in ((), ("DT.headline_target=1800",))
    ]
    assert keys[0] == keys[1]
