"""The page's first sentence is made from the verdicts of five seeds and more, and from nothing else."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtbench import registry
from dtbench.analysis import answer
from dtbench.analysis.page.overview import overview
from dtbench.analysis.suite_analysis import CellStatus, SuiteAnalysis, analyze
from dtbench.errors import InvalidAlgorithm
from dtbench.ledger.families import FAMILIES, family_of
from tests.support.tiny_ledger import Scores, spec_of, tiny_ledger

NAMES = "Decision Transformer less the best TD learner"
FIVE = (0.0, 0.25, 0.5, 0.75, 1.0)


def around(level: float, seeds: int = 5) -> tuple[float, ...]:
    return tuple(level + shift for shift in FIVE[:seeds])


# On each task IQL is the better of two TD learners.
LEVELS = {"won": (60.0, 50.0), "lost": (30.0, 50.0), "equal": (50.0, 50.0)}
SCORES: Scores = {
    **{(task, "DT"): around(ours) for task, (ours, _) in LEVELS.items()},
    **{(task, "BC"): around(10.0) for task in LEVELS},
    **{(task, "IQL"): around(theirs) for task, (_, theirs) in LEVELS.items()},
    **{(task, "CQL"): around(0.0) for task in LEVELS},
    ("few", "DT"): around(90.0, 3),
    ("few", "IQL"): around(10.0, 3),
}


def of(folder: Path, scores: Scores = SCORES, **options: str) -> SuiteAnalysis:
    """An analysis whose contenders all count as converged."""
    analysis = analyze(tiny_ledger(folder, scores, **options))
    return replace(analysis, inputs=replace(analysis.inputs, statuses={}))


def words(found: list[answer.Comparison]) -> Mapping[str, str]:
    return {one.task: one.word for one in found}


def test_only_decided_pairs_count_in_the_sentence(tmp_path: Path) -> None:
    found = answer.comparisons([of(tmp_path)], "td")
    assert words(found) == {"won": "better", "lost": "worse", "equal": "match", "few": "undecided"}
    assert all(one.names == ("DT", "IQL") for one in found)
    assert answer.sentence(found, "td") == (
        "Of 4 tasks, Decision Transformer is better than the best TD learner on 1, matches it on 1 and is worse on 1; "
        "undecided: on 1 task one has fewer than 5 seeds."
    )
    assert [(chip.word, chip.detail) for chip in answer.chips(found)] == [("mixed", "3 of 4 decided")]
    assert "Only decided pairs count, 3 of 4" in answer.caveat(found)
    assert "Seeds: 3 to 5" in answer.caveat(found)


def test_the_caveat_counts_the_budgets_of_draws_of_the_same_data(tmp_path: Path) -> None:
    results = tiny_ledger(tmp_path, SCORES)
    drawn = analyze(replace(results, suite={**results.suite, "draws": ["[wl]*"]}))
    found = [one for one in answer.comparisons([drawn], "td") if one.task in drawn.inputs.over_draws]
    assert len(found) == 1
    assert "Budgets: 20 gradient steps" in answer.caveat(found)


def test_a_rival_that_has_not_converged_leaves_a_task_undecided(tmp_path: Path) -> None:
    analysis = of(tmp_path)
    late = {("won", "IQL"): CellStatus(unconverged="12% of value"), ("lost", "CQL"): CellStatus(unconverged="Q moved")}
    found = answer.comparisons([replace(analysis, inputs=replace(analysis.inputs, statuses=late))], "td")
    assert words(found) == {"won": "not converged", "lost": "worse", "equal": "match", "few": "undecided"}
    assert "on 1 task one of the two is not known to have converged" in answer.sentence(found, "td")


def test_the_average_is_of_converged_pairs_of_five_seeds_alone(tmp_path: Path) -> None:
    analysis = of(tmp_path)
    found = answer.comparisons([analysis], "td")
    # Welch: the variance of the mean over three tasks is that of six means of five seeds, over nine, with
    # 24 degrees of freedom, of which t is 2.0639. The luck of two equal episodes adds nothing.
    reach = 2.0639 * math.sqrt(6 * np.var(FIVE, ddof=1) / 5 / 9)
    sentence = answer.average_sentence(found, "td")
    assert sentence.startswith(f"{NAMES}, where both have 5 seeds and are known to have converged, in points on")
    mean = (10 - 20 + 0) / 3
    ends = f"[{mean - reach:.1f}, {mean + reach:.1f}]".replace("-", "\N{MINUS SIGN}")
    assert f"over the 3 tasks it is {mean:.1f} {ends}".replace("-", "\N{MINUS SIGN}", 1) in sentence
    assert "(without lost 5.0 [" in sentence  # one task alone makes it negative
    late = {("won", "IQL"): CellStatus(unconverged="12% of value"), ("lost", "DT"): CellStatus(unconverged="rises")}
    fewer = answer.comparisons([replace(analysis, inputs=replace(analysis.inputs, statuses=late))], "td")
    assert answer.average_sentence(fewer, "td") == ""
    (section, *_) = overview([of(tmp_path / "page")])
    assert sentence in section.paragraphs


def test_tasks_with_delayed_reward_are_averaged_apart(tmp_path: Path) -> None:
    found = answer.comparisons([of(tmp_path)], "td")
    apart = [replace(one, delayed=one.task == "won") for one in found]
    sentence = answer.average_sentence(apart, "td").replace("\N{MINUS SIGN}", "-")
    assert "over the 2 tasks with the environment's own reward it is -10.0 [" in sentence
    assert "over the 1 task with all of an episode's reward moved to its end it is 10.0 [" in sentence
    assert "average: over the 3 tasks" not in sentence


def test_what_the_data_say_of_delayed_reward_is_read_from_the_provenance(tmp_path: Path) -> None:
    analysis = of(tmp_path)
    facts = {**analysis.provenance["won"], "dataset": {"info": {"delayed": True}}}
    found = answer.comparisons([replace(analysis, provenance={**analysis.provenance, "won": facts})], "td")
    assert {one.task: one.delayed for one in found} == {task: task == "won" for task in (*LEVELS, "few")}


def test_where_nothing_is_decided_it_says_so_and_shows_the_estimates(tmp_path: Path) -> None:
    scores = {key: values[:3] for key, values in SCORES.items()}
    found = answer.comparisons([of(tmp_path, scores)], "td")
    assert answer.sentence(found, "td") == (
        "Nothing is decided yet between Decision Transformer and the best TD learner: on all 4 tasks one has fewer "
        "than 5 seeds."
    )
    (section, *_) = overview([of(tmp_path / "again", scores)])
    assert section.headline is not None
    assert section.headline.sentence.startswith("Nothing is decided yet")
    assert [drawing.name for drawing in section.drawings] == ["answer-td", "answer-imitation"]
    assert len(section.tables[0].rows) == len(found) + 3


def test_a_task_of_two_suites_counts_once_where_most_rivals_ran(tmp_path: Path) -> None:
    fewer = {key: values for key, values in SCORES.items() if key[1] in ("DT", "CQL")}
    analyses = [of(tmp_path / "fewer", fewer, suite="fewer"), of(tmp_path / "all", suite="whole")]
    found = answer.comparisons(analyses, "td")
    assert {one.task: one.analysis.results.name for one in found if one.task != "few"} == dict.fromkeys(
        LEVELS, "whole"
    )


def test_without_decision_transformer_there_is_no_answer(tmp_path: Path) -> None:
    scores = {key: values for key, values in SCORES.items() if key[1] != "DT"}
    assert next(section.headline for section in overview([of(tmp_path, scores)])) is None


def test_contenders_are_in_the_order_of_their_families(tmp_path: Path) -> None:
    scores: Scores = {("hill", name): (1.0,) for name in ("DT", "Random", "CQL", "BC")}
    assert list(of(tmp_path, scores).contenders) == ["DT", "BC", "CQL", "Random"]


@pytest.mark.parametrize("name", registry.algorithm_names())
def test_trials_that_recorded_no_family_have_that_of_their_algorithm(name: str) -> None:
    declared = registry.algorithm_family(registry.make_algorithm(name))
    assert declared in FAMILIES
    assert family_of(spec_of("hill", name, 0), {}) == declared


def test_a_transformer_without_return_tokens_imitates() -> None:
    assert registry.algorithm_family(registry.make_algorithm("dt", {"returns": "none"})) == "imitation"
    assert registry.algorithm_family(registry.make_algorithm("dt", {"returns": "generated"})) == "dt"


def test_the_family_of_a_plug_in_is_recorded_and_one_that_does_not_exist_is_named() -> None:
    spec = spec_of("hill", "Mine", 0)
    assert family_of(spec, {}) == "other"
    assert family_of(spec, {"family": "td"}) == "td"
    assert registry.algorithm_family(object()) == "other"  # type: ignore[arg-type]
    wrong = type("Wrong", (), {"family": "magic"})()
    with pytest.raises(InvalidAlgorithm, match=r"'magic'\. It is one of dt, imitation, td, other"):
        registry.algorithm_family(wrong)
