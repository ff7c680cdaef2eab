import json
import math
from pathlib import Path
from typing import Any

import pytest

from dtbench.analysis.archive import write_archive
from dtbench.analysis.compare import Pair, Rule, Side, compare, document, notes, open_side, table_of, text
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from tests.support.tiny_ledger import SCORES, Scores, tiny_ledger

NAN = float("nan")
VALLEY_BC = ("valley", "BC")


def side(folder: Path, scores: Scores = SCORES, **protocol: Any) -> Side:
    tiny_ledger(folder, scores, **protocol)
    return open_side(str(folder))


def changed(tmp_path: Path, after: tuple[float | None, ...], before: tuple[float | None, ...]) -> Pair:
    """The pair of one contender on one task."""
    old, new = side(tmp_path / "a", {VALLEY_BC: before}), side(tmp_path / "b", {VALLEY_BC: after})
    (pair,) = compare(old, new)
    return pair


def test_a_difference_is_that_of_the_means_with_its_interval(tmp_path: Path) -> None:
    pair = changed(tmp_path, (60.0, 61.0, 62.0), before=(50.0, 51.0, 52.0))
    assert pair.before
    assert pair.after
    assert (pair.before.mean, pair.after.mean, pair.change) == (51.0, 61.0, 10.0)
    assert pair.interval
    reach = 2.7764 * math.sqrt(2 / 3)  # Student's t with four degrees of freedom
    assert (pair.interval.low, pair.interval.high) == pytest.approx((10 - reach, 10 + reach), abs=1e-3)
    assert pair.improvement == 1.0
    assert pair.verdict == "better"


def test_many_comparisons_share_one_error_rate(tmp_path: Path) -> None:
    before, after = (50.0, 51.0, 52.0, 53.0, 54.0), (47.0, 48.0, 49.0, 50.0, 51.0)
    alone = changed(tmp_path, after, before)
    assert alone.p_value == pytest.approx(0.0170718, abs=1e-6)
    assert alone.verdict == "worse"
    tasks = [(f"task{index}", "BC") for index in range(6)]
    old, new = side(tmp_path / "c", dict.fromkeys(tasks, before)), side(tmp_path / "d", dict.fromkeys(tasks, after))
    pairs = compare(old, new)
    assert {pair.verdict for pair in pairs} == {"no difference seen"}
    assert pairs[0].p_value == pytest.approx(6 * alone.p_value)
    assert not any(map(Rule().broken_by, pairs))


def test_ties_count_half_in_the_probability_of_improvement(tmp_path: Path) -> None:
    pair = changed(tmp_path, (50.0, 40.0), before=(50.0, 45.0))
    assert pair.improvement == (0.5 + 1 + 0 + 0) / 4
    assert pair.verdict == "no difference seen"


def test_a_drop_that_the_seeds_explain_is_no_regression(tmp_path: Path) -> None:
    pair = changed(tmp_path, (30.0, 49.0, 60.0), before=(40.0, 50.0, 55.0))
    assert pair.verdict == "no difference seen"
    assert not Rule().broken_by(pair)


def test_a_drop_beyond_the_seeds_is_a_regression_unless_it_is_allowed(tmp_path: Path) -> None:
    pair = changed(tmp_path, (40.0, 41.0, 42.0), before=(50.0, 51.0, 52.0))
    assert pair.verdict == "worse"
    assert Rule().broken_by(pair)
    assert Rule(max_drop=5).broken_by(pair)
    assert not Rule(max_drop=12).broken_by(pair)


def test_a_small_probability_of_improvement_is_a_regression_where_that_is_asked(tmp_path: Path) -> None:
    pair = changed(tmp_path, (30.0, 49.0, 60.0), before=(40.0, 50.0, 55.0))
    assert pair.improvement == pytest.approx(4 / 9)
    assert Rule(fail_below=0.5).broken_by(pair)
    assert not Rule(fail_below=0.4).broken_by(pair)


def test_one_seed_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    pair = changed(tmp_path, (10.0,), before=(50.0, 51.0))
    assert (pair.interval, pair.improvement_interval, pair.verdict) == (None, None, "too few seeds")
    assert pair.change == -40.5
    assert not Rule().broken_by(pair)


def test_identical_results_are_called_identical(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a"), side(tmp_path / "b")
    pairs = compare(before, after)
    assert {pair.verdict for pair in pairs} == {"identical"}
    assert not any(pair.remarks for pair in pairs)
    assert not any(Rule(fail_below=0.9).broken_by(pair) for pair in pairs)


def test_what_one_side_lacks_is_shown_and_is_no_regression(tmp_path: Path) -> None:
    before = side(tmp_path / "a", {VALLEY_BC: (1.0, 2.0), ("valley", "DT"): (3.0,)})
    after = side(tmp_path / "b", {VALLEY_BC: (1.0, 2.0), ("hill", "DT"): (4.0,)})
    pairs = {(pair.task, pair.contender): pair for pair in compare(before, after)}
    assert pairs["valley", "DT"].verdict == "only in A"
    assert pairs["hill", "DT"].verdict == "only in B"
    assert not any(map(Rule().broken_by, pairs.values()))


def test_a_score_that_is_no_number_is_left_out_with_a_remark(tmp_path: Path) -> None:
    pair = changed(tmp_path, (NAN, 51.0, 52.0), before=(50.0, 51.0, 52.0))
    assert pair.after
    assert pair.after.values == (51.0, 52.0)
    assert pair.remarks == ("in B the score of 1 of 3 seeds is not a number: left out",)


def test_a_side_without_any_number_is_a_regression(tmp_path: Path) -> None:
    pair = changed(tmp_path, (NAN, NAN), before=(50.0, 51.0))
    assert pair.verdict == "no number in B"
    assert Rule().broken_by(pair)


def test_other_data_are_pointed_out_once(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a"), side(tmp_path / "b", digest="b" * 64)
    pairs = compare(before, after)
    (remark,) = {remark for pair in pairs for remark in pair.remarks}
    assert remark == "B ran on other data: digest bbbbbbbbbbbb, A's was digest aaaaaaaaaaaa"
    shown = [note for note in notes(pairs, before, after, Rule()) if remark in note]
    assert len(shown) == 1
    assert "tiny: DT on valley" in shown[0]
    assert "and 1 more" in shown[0]


def test_another_protocol_is_pointed_out(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a"), side(tmp_path / "b", hidden_size=16, every=5)
    assert compare(before, after)[0].remarks == (
        "B ran with another hyperparameters.hidden_size: 16, A's was 8",
        "B ran with another evaluation.every: 5, A's was 10",
    )


def test_further_seeds_of_the_same_protocol_need_no_remark(tmp_path: Path) -> None:
    pair = changed(tmp_path, (50.0, 51.0, 52.0, 53.0), before=(50.0, 51.0))
    assert pair.remarks == ()


def test_suites_without_each_other_cannot_be_compared(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a"), side(tmp_path / "b", suite="other")
    with pytest.raises(NothingToReport, match="no suite in common: A has tiny; B has other"):
        compare(before, after)


def test_a_suite_with_no_cell_in_common_cannot_be_compared(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a", {VALLEY_BC: (1.0,)}), side(tmp_path / "b", {("hill", "BC"): (1.0,)})
    with pytest.raises(NothingToReport, match="no task and contender in common"):
        compare(before, after)


def test_an_unknown_suite_is_answered_with_the_nearest(tmp_path: Path) -> None:
    one = side(tmp_path / "a")
    with pytest.raises(UnknownName, match="Did you mean 'tiny'"):
        compare(one, one, ["tinny"])


def test_only_the_suites_asked_for_are_compared(tmp_path: Path) -> None:
    tiny_ledger(tmp_path / "a", suite="other")
    one = side(tmp_path / "a")
    assert set(one.suites) == {"tiny", "other"}
    assert {pair.suite for pair in compare(one, one, ["other"])} == {"other"}


def test_text_says_the_rule_the_counts_and_the_regressions(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a"), side(tmp_path / "b", {**SCORES, VALLEY_BC: (10.0, 11.0, 12.0)})
    pairs = compare(before, after)
    shown = text(table_of(pairs, before, after, Rule(max_drop=2.5)))
    assert "wholly below -2.5" in shown
    assert "Of 4: 3 identical, 1 worse." in shown
    assert "REGRESSIONS: tiny: BC on valley." in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("tiny   valley  BC")]
    assert row.endswith("worse: REGRESSION")


def test_every_format_has_the_same_rows(tmp_path: Path) -> None:
    before, after = side(tmp_path / "a"), side(tmp_path / "b", digest="b" * 64)
    pairs = compare(before, after)
    table = table_of(pairs, before, after, Rule())
    assert len(table.csv().splitlines()) == 5
    assert table.markdown().count("| tiny |") == 4
    shown = json.loads(document(pairs, before, after, Rule()))
    assert len(shown["pairs"]) == 4
    assert shown["pairs"][0]["remarks"][0].startswith("B ran on other data")
    assert shown["pairs"][0]["regression"] is False


def test_a_directory_of_scores_and_a_results_directory_give_the_same(tmp_path: Path) -> None:
    write_archive(tiny_ledger(tmp_path / "a"), tmp_path / "scores")
    pairs = compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "scores")))
    assert {pair.verdict for pair in pairs} == {"identical"}


@pytest.mark.parametrize("name", ["HEAD", "tiny.csv"])
def test_what_is_not_a_directory_is_refused(name: str) -> None:
    Path("tiny.csv").write_text("")
    with pytest.raises(InvalidValue, match="no such directory"):
        open_side(name)


def test_a_directory_without_results_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToReport, match="holds no results"):
        open_side("empty")


@pytest.mark.parametrize(("score", "verdict"), [(50.00001, "identical"), (50.01, "no difference seen")])
def test_equal_trials_on_other_threads_agree_to_six_digits_and_name_the_threads(
    score: float, verdict: str, tmp_path: Path
) -> None:
    before, after = ({VALLEY_BC: (first, 51.0)} for first in (50.0, score))
    for folder, scores, threads in (("a", before, 1), ("b", after, 2)):
        tiny_ledger(tmp_path / folder, scores)
        for path in (tmp_path / folder).rglob("provenance.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": threads}))
    (pair,) = compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "b")))
    assert pair.verdict == verdict
    remark = "equal trials have other digits: A ran on threads 1, device cpu; B on threads 2, device cpu"
    assert pair.remarks == (remark,)
