"""Unequal tuning: who was searched more cannot win by it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtbench.analysis import answer, pairwise
from dtbench.analysis.settings_tried import UNEQUAL, settings_tried
from dtbench.analysis.suite_analysis import analyze
from dtbench.tuning.search import Candidate, SearchRecord
from tests.analysis.test_answer import SCORES, around, of
from tests.support.search_records import config
from tests.support.tiny_ledger import tiny_ledger


def search(contender: str, settings: Sequence[Mapping[str, Any]], **changes: Any) -> SearchRecord:
    given = config(contender=contender, **changes)
    found = tuple(Candidate(number=place, hyperparameters=dict(one)) for place, one in enumerate(settings))
    return SearchRecord(name=f"{contender}-search", config=given, num_samples=len(found), candidates=found)


SUITE = {"name": "s", "preset": "cpu", "tasks": ["walks", "walks-draw1", "other"], "draws": ["walks*"]}
HERE: Mapping[str, Any] = {"suite": "s", "preset": "cpu", "tasks": ("walks",), "algorithm": "dt"}


def test_equal_settings_of_two_searches_count_once_also_under_their_earlier_names() -> None:
    first = search("DT", [{"hidden_size": 24}, {"hidden_size": 48}], **HERE)
    again = search("DT", [{"width": 48}, {"width": 96}], **HERE)
    assert settings_tried([first, again], SUITE, {})["walks", "DT"] == 3


def test_a_search_counts_for_draws_of_its_data_and_averages_over_them_and_for_nothing_else() -> None:
    found = settings_tried([search("DT", [{}, {"dropout": 0.1}], **HERE)], SUITE, {"all": ("walks", "other")})
    assert found == dict.fromkeys([("walks", "DT"), ("walks-draw1", "DT"), ("all", "DT")], 2)


def test_where_the_target_was_chosen_too_pairs_of_setting_and_target_count() -> None:
    record = search("DT", [{}, {"dropout": 0.1}], **HERE, targets={"walks": (1.0, 0.5, 0.0)})
    chosen = {**SUITE, "contenders": {"DT": {"by_task": {"walks": {"headline_target": 0.5}}}}}
    assert settings_tried([record], SUITE, {})["walks", "DT"] == 2
    found = settings_tried([record], chosen, {"all": ("walks", "other")})
    assert found == {("walks", "DT"): 6, ("walks-draw1", "DT"): 2, ("all", "DT"): 6}


@pytest.mark.parametrize("elsewhere", [{"suite": "t"}, {"preset": "paper"}])
def test_searches_of_other_suites_and_presets_do_not_count(elsewhere: Mapping[str, Any]) -> None:
    assert settings_tried([search("DT", [{}], **{**HERE, **elsewhere})], SUITE, {}) == {}


@pytest.mark.parametrize(
    ("ours", "theirs", "kinds"),
    [
        (0, 0, ["above", "below", "match"]),
        (8, 8, ["above", "below", "match"]),
        (9, 8, ["undecided", "below", "undecided"]),
        (8, 9, ["above", "undecided", "undecided"]),
    ],
)
def test_no_verdict_favours_the_side_that_was_searched_more(ours: int, theirs: int, kinds: Sequence[str]) -> None:
    better, worse = (np.array([around(level)]).T for level in (60.0, 30.0))
    sides = {"won": (better, worse), "lost": (worse, better), "equal": (better, better)}
    found = {name: pairwise.mean_difference([pairwise.Pair(*pair)]) for name, pair in sides.items()}
    made = pairwise.verdicts(found, margin=5.0, barred={}, tried=dict.fromkeys(found, (ours, theirs)))
    assert [one.kind for one in made.values()] == kinds
    assert all(one.why.startswith(UNEQUAL) == (one.kind == "undecided") for one in made.values())


def test_the_headline_says_that_the_one_ahead_was_tuned_more(tmp_path: Path) -> None:
    results = tiny_ledger(tmp_path, SCORES)
    plain = of(tmp_path / "plain")
    place = {"suite": results.name, "preset": results.suite.get("preset") or "cpu", "tasks": ("won",)}
    tuned = analyze(results, [search("DT", [{}, {"dropout": 0.1}], **place)])
    assert tuned.inputs.tried["won", "DT"] == 2
    before = {one.task: one.word for one in answer.comparisons([plain], "td")}
    searched = replace(plain, inputs=replace(plain.inputs, tried=tuned.inputs.tried))
    [after] = [one for one in answer.comparisons([searched], "td") if one.task == "won"]
    assert before["won"] == "better"
    assert after.word == "undecided"
    assert "the one ahead was tuned more" in answer.sentence([after], "td")
