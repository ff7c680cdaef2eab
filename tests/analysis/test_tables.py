"""Tables: verdicts, bold, escapes and holes, from fixed numbers."""

import csv
import dataclasses
import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis import published
from dtbench.analysis.data_scores import DataScores
from dtbench.analysis.published import Published, PublishedTable, RunConditions, published_tables, spread_note, verdict
from dtbench.analysis.statistics import Array, Estimate, Interval, draws_estimate, matrix_estimate
from dtbench.analysis.suite_analysis import estimates_of
from dtbench.analysis.tables.scores import aggregate_table, best_contenders, score_table, side_by_side_table
from dtbench.analysis.tables.table import DASH, Table
from dtbench.domains.graph.report import path_table
from dtbench.errors import InvalidSuite, UnknownName
from tests.support.table_inputs import inputs

TABLE_6: dict[str, Any] = {
    "file": "decision_transformer.csv",
    "table": "6",
    "datasets": {"key-to-door-1k": "1K random trajectories"},
    "contenders": {"DT": "DT", "BC successful": "%BC"},
}


def ours(mean: float, low: float | None = None, high: float | None = None) -> Estimate:
    if low is None or high is None:
        return Estimate((mean,), mean, None)
    return Estimate((low, mean, mean, mean, high), mean, Interval(low, high))


def printed(mean: float, std: float | None = None) -> Published:
    return Published(mean=mean, std=std, seeds=None, rounding=0.05, source="Somebody 2021, Table 1", note="")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_published_mean_agrees_where_ours_is_surely_within_the_margin() -> None:
    # The mean of 70, 70, 70, 69 and 71 has a variance of 0.1, a seed 0.5: t of 4 at 5 % is 2.13, 1.75 + 1.65 < 5.
    assert verdict(ours(70, 69, 71), printed(71.8)) == "agrees"
    assert verdict(ours(70, 69, 71), printed(74.5)) == "differs"  # 4.45 + 1.65 > 5, and 4.45 is no noise
    assert verdict(ours(70, 69, 71), printed(72.5), margin=None) == "differs"


def test_a_number_without_a_spread_agrees_no_sooner_than_one_with_ours() -> None:
    mean = ours(70, 68, 72)
    bare, spread = printed(72.0), printed(72.0, std=math.sqrt(2))
    assert verdict(mean, bare) == verdict(mean, spread) == "undecided"
    assert verdict(mean, dataclasses.replace(bare, seeds=10)) == "agrees"


def test_a_wide_interval_neither_agrees_nor_differs() -> None:
    assert verdict(ours(70, 60, 80), printed(71.8)) == "undecided"
    assert verdict(ours(70, 60, 80), printed(100.0)) == "differs"


def test_the_published_spread_is_that_of_its_seeds() -> None:
    assert verdict(ours(60, 59, 61), printed(71.8, std=7.0)) == "undecided"  # of one run, as far as anybody knows
    with_seeds = dataclasses.replace(printed(71.8, std=7.0), seeds=10)
    assert verdict(ours(60, 59, 61), with_seeds) == "differs"


def test_a_published_mean_is_known_to_half_a_digit() -> None:
    exact = ours(71.75, 71.75, 71.75)
    assert verdict(exact, printed(71.8), margin=None) == "undecided"
    assert verdict(ours(71.74, 71.74, 71.74), printed(71.8), margin=None) == "differs"


def test_few_seeds_decide_nothing() -> None:
    few = Estimate((70.0, 70.1, 69.9, 70.0), 70.0, Interval(69, 71))
    assert verdict(few, printed(70.0)) == "undecided: fewer than 5 seeds"


def test_one_seed_settles_nothing() -> None:
    assert verdict(ours(71.8), printed(71.8)) == "not comparable: one seed has no interval"


def test_a_reason_given_by_the_suite_comes_before_the_numbers() -> None:
    assert verdict(ours(70, 65, 75), printed(71.8), why_not="other data") == "not comparable: other data"


def test_a_cell_without_trials_is_not_run_whatever_was_published() -> None:
    assert verdict(None, printed(71.8)) == "not run"
    assert verdict(None, None, why_not="other data") == "not run"


def test_table_6_is_read_as_the_paper_prints_it() -> None:
    (table,) = published_tables({"published": [TABLE_6]})
    assert table.numbers["key-to-door-1k", "DT"].mean == 71.8
    assert table.numbers["key-to-door-1k", "BC successful"].mean == 69.9
    assert table.numbers["key-to-door-1k", "DT"].std is None
    assert table.numbers["key-to-door-1k", "DT"].rounding == pytest.approx(0.05)
    assert table.title == "Table 6"


def test_an_environment_picks_one_of_several_rows() -> None:
    corl = {
        "file": "corl.csv",
        "table": "CORL README last scores",
        "datasets": {"halfcheetah-medium-v2": {"dataset": "medium-v2", "env": "halfcheetah"}},
        "contenders": {"BC": "BC"},
    }
    (table,) = published_tables({"published": [corl]})
    assert table.numbers["halfcheetah-medium-v2", "BC"].mean == 42.4
    assert table.numbers["halfcheetah-medium-v2", "BC"].std == 0.19
    assert table.numbers["halfcheetah-medium-v2", "BC"].seeds == 4


def test_a_suite_that_fits_several_rows_must_be_more_specific() -> None:
    corl = {
        "file": "corl.csv",
        "table": "CORL README last scores",
        "datasets": {"halfcheetah-medium-v2": "medium-v2"},
        "contenders": {"BC": "BC"},
    }
    with pytest.raises(InvalidSuite, match="differ in env"):
        published_tables({"published": [corl]})


def test_a_protocol_holds_for_all_contenders_or_for_those_it_names() -> None:
    one, each = published_tables(
        {"published": [{**TABLE_6, "protocol": "dopamine"}, {**TABLE_6, "protocol": {"DT": "official-dt"}}]}
    )
    assert one.protocols == {"DT": "dopamine", "BC successful": "dopamine"}
    assert each.protocols == {"DT": "official-dt"}
    here = RunConditions(protocol="dopamine")
    assert each.why_not("key-to-door-1k", "DT", here) == "protocol dopamine"
    assert each.why_not("key-to-door-1k", "BC successful", here) == one.why_not("key-to-door-1k", "DT", here) == ""


def test_a_protocol_of_nobody_gets_the_nearest_contender() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'DT'"):
        published_tables({"published": [{**TABLE_6, "protocol": {"DTT": "dopamine"}}]})


def test_a_misspelt_published_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean '%BC'"):
        published_tables({"published": [{**TABLE_6, "contenders": {"BC successful": "% BC"}}]})


def test_a_suite_without_published_tables_is_compared_with_nothing() -> None:
    assert published_tables({}) == ()


def test_all_that_are_not_below_the_best_are_bold() -> None:
    estimates = {"DT": ours(70, 60, 80), "BC": ours(66, 60, 72), "CQL": ours(13, 10, 16), "once": ours(69)}
    assert best_contenders(estimates) == {"DT", "BC"}
    assert best_contenders(estimates, barred=["DT", "once"]) == {"BC"}


def test_nothing_is_bold_where_the_best_has_few_seeds() -> None:
    assert best_contenders({"DT": ours(70), "BC": ours(55, 50, 61)}) == set()
    few = Estimate((69.0, 70.0, 71.0, 70.0), 70.0, Interval(68, 72))
    assert best_contenders({"DT": few, "BC": ours(55, 50, 61)}) == set()
    assert best_contenders({"DT": ours(71, 65, 77), "BC": few}) == {"DT"}
    assert best_contenders({}) == set()


def test_a_contender_without_trials_leaves_a_visible_hole() -> None:
    table = score_table(
        inputs({("task", "DT"): ours(70, 65, 75)}), tasks=["task"], contenders=["DT", "CQL"], headings={}
    )
    assert '<td class="number hole">not run</td>' in table.html()
    assert "| CQL | not run |" in table.markdown()
    assert "CQL & not run" in table.latex()
    assert "CQL,not run" in table.csv()


def test_missing_seeds_are_counted_beside_the_mean() -> None:
    table = score_table(
        inputs({("task", "DT"): ours(70, 65, 75)}, missing={("task", "DT"): 2}),
        tasks=["task"],
        contenders=["DT"],
        headings={"task": "task (data: generated)"},
    )
    assert "**70.0 [65.0, 75.0] (n = 5 of 7)**" in table.markdown()
    assert "task (data: generated)" in table.markdown()


def test_all_published_numbers_stand_beside_ours_each_with_its_protocol() -> None:
    cell = ("hopper-medium-v2", "DT")
    first = PublishedTable("CORL", "Ten episodes.", "CORL README", (cell[0],), ("DT",), {cell: printed(59.8)}, {})
    second = PublishedTable(
        "d3rlpy",
        "Ten seeds.",
        "d3rlpy",
        (cell[0],),
        ("DT", "CQL"),
        {cell: printed(60.4), (cell[0], "CQL"): printed(9)},
        {},
    )
    table = side_by_side_table(
        [first, second], inputs({cell: ours(60, 55, 65)}, {cell[0]: RunConditions("re-recorded")})
    )
    (dt,) = read(table.csv())  # nothing of CQL ran
    assert (dt["Data"], dt["CORL"], dt["d3rlpy"]) == ("re-recorded", "59.8", "60.4")
    assert dt["Ours"].startswith("60")
    assert table.notes == ("CORL: Ten episodes. Source: CORL README.", "d3rlpy: Ten seeds. Source: d3rlpy.")


def test_the_table_says_that_a_paper_prints_no_spread() -> None:
    note = spread_note([printed(71.8), printed(50, std=1.5)])
    assert "prints no spread for some numbers and does not say how many seeds" in note


def test_estimates_come_from_the_rows_of_each_cell() -> None:
    finals = pd.DataFrame(
        {"task": ["a"] * 3, "contender": ["DT", "DT", "BC"], "seed": [0, 1, 0], "score": [60.0, 80, 5]}
    )
    estimates = estimates_of(finals)
    assert estimates["a", "DT"].values == (60.0, 80.0)
    assert estimates["a", "DT"].interval == Interval(pytest.approx(70 - 127.06205), pytest.approx(70 + 127.06205))
    assert estimates["a", "BC"].interval is None


def means_of(scores: dict[str, Array]) -> dict[str, Estimate]:
    found = {name: matrix_estimate(matrix) for name, matrix in scores.items()}
    return {name: mean for name, mean in found.items() if mean}


def test_the_mean_of_the_aggregates_is_that_of_the_score_table() -> None:
    scores = {"DT": np.array([[70.0, 90.0], [74.0, 96.0]]), "BC": np.array([[60.0, 95.0], [60.0, 95.0]])}
    draws = {name: draws_estimate(matrix) for name, matrix in scores.items()}
    dt, _ = aggregate_table(scores, {name: mean for name, mean in draws.items() if mean}, first="BC").rows
    reach = 12.7062 * (93 - 72) / 2  # Student's t of one degree of freedom, over two draws
    assert dt[1].value == 82.5
    assert dt[1].text == f"82.5 [{82.5 - reach:.1f}, {82.5 + reach:.1f}]".replace("-", "\N{MINUS SIGN}")


def test_a_contender_that_misses_a_task_has_no_aggregate() -> None:
    nan = float("nan")
    scores = {"DT": np.array([[70.0, 90.0], [70.0, 90.0]]), "CQL": np.array([[10.0, nan], [10.0, nan]])}
    dt, cql = read(aggregate_table(scores, means_of(scores), first="DT").csv())
    assert (dt["Mean"], dt["IQM"], dt["P(DT improves on it)"]) == ("80", "80", "")
    assert (cql["Mean"], cql["Median"]) == ("not run on every task", "")


def test_the_first_contender_is_compared_with_each_other_one() -> None:
    scores = {"DT": np.array([[70.0, 90.0], [70.0, 90.0]]), "BC": np.array([[60.0, 95.0], [60.0, 95.0]])}
    _, bc = aggregate_table(scores, means_of(scores), first="DT").rows
    assert bc[-1].text == "0.50 [0.50, 0.50]"


def test_paths_are_summed_up_over_tasks_only_where_none_is_missing() -> None:
    finals = pd.DataFrame(
        {
            "task": ["g0", "g1", "g0"],
            "contender": ["DT", "DT", "BC"],
            "seed": [0, 0, 0],
            "reached": [80.0, 60.0, 50.0],
            **dict.fromkeys(("score", "novel", "novel_reached"), 50.0),
        }
    )
    table = path_table(finals, inputs({}), tasks=["g0", "g1"], contenders=["DT", "BC"])
    reached = {(row["Task"], row["Contender"]): row["Goal reached (%)"] for row in read(table.csv())}
    assert reached == {
        ("g0", "DT"): "80",
        ("g0", "BC"): "50",
        ("g1", "DT"): "60",
        ("g1", "BC"): "",
        ("all", "DT"): "70",
        ("all", "BC"): "",
    }
    assert {row["Contender"] for row in read(table.csv()) if row["Shortest (%)"] == "not run"} == {"BC"}


def test_the_rule_behind_the_verdicts_is_written_down() -> None:
    assert "two one-sided tests at 5 points" in published.VERDICT_RULE


def test_one_seed_is_shown_to_leave_no_interval() -> None:
    table = score_table(inputs({("task", "DT"): ours(70)}), tasks=["task"], contenders=["DT"], headings={})
    assert "| DT | 70.0 (1 seed: no interval) |" in table.markdown()


def test_one_seed_of_several_is_counted_too() -> None:
    found = inputs({("task", "DT"): ours(70)}, missing={("task", "DT"): 2})
    table = score_table(found, tasks=["task"], contenders=["DT"], headings={})
    assert "70.0 (n = 1 of 3: no interval)" in table.markdown()


def broken_table() -> Table:
    """DT lost one of three seeds to NaN and CQL all three."""
    return score_table(
        inputs(
            {("task", "DT"): ours(70, 65, 75), ("task", "BC"): ours(50, 45, 55)},
            missing={("task", "DT"): 1, ("task", "CQL"): 3},
            broken={("task", "DT"): 1, ("task", "CQL"): 3},
            links={("task", "CQL"): "cell-1"},
        ),
        tasks=["task"],
        contenders=["DT", "BC", "CQL"],
        headings={},
    )


def test_nan_is_put_in_words_and_never_printed_as_a_number() -> None:
    text = broken_table().markdown()
    assert "70.0 [65.0, 75.0] (n = 5 of 6: 1 without a number)" in text
    assert "| CQL | no number: 3 of 3 seeds returned NaN |" in text
    assert "nan" not in text
    assert '<a href="#cell-1">no number: 3 of 3 seeds returned NaN</a>' in broken_table().html()


def test_a_contender_with_nan_is_never_bold() -> None:
    assert "**50.0 [45.0, 55.0] (n = 5)**" in broken_table().markdown()
    assert "**70.0" not in broken_table().markdown()
    nan = float("nan")
    assert best_contenders({"DT": Estimate((nan, nan), nan, Interval(nan, nan)), "BC": ours(5, 4, 6)}) == {"BC"}


def test_estimates_leave_out_what_is_no_number() -> None:
    finals = pd.DataFrame({"task": "a", "contender": ["DT", "DT", "BC"], "seed": 0, "score": [60.0, np.nan, np.nan]})
    assert estimates_of(finals) == {("a", "DT"): Estimate((60.0,), 60.0, None)}


def test_numbers_lead_to_their_trials() -> None:
    table = score_table(
        inputs({("task", "DT"): ours(70, 65, 75)}, links={("task", "DT"): "cell-0123456789abcdef"}),
        tasks=["task"],
        contenders=["DT", "BC"],
        headings={},
    )
    assert (
        '<td class="number" data-value="70"><a href="#cell-0123456789abcdef"><strong>70.0</strong></a><small>['
        in table.html()
    )
    assert "cell-" not in table.markdown() + table.latex() + table.csv()


def test_an_aggregate_says_how_many_runs_it_lacks() -> None:
    scores = {"DT": np.array([[70.0, 90.0], [np.nan, 90.0]]), "BC": np.array([[60.0, 95.0], [60.0, 95.0]])}
    notes = aggregate_table(scores, means_of(scores), first="BC").notes
    assert "Runs without a score, which no number here counts: DT 1 of 4." in notes


def test_the_data_have_rows_of_their_own_below_the_contenders() -> None:
    scored = {"a": DataScores(40.0, 95.5)}
    table = score_table(inputs({("a", "DT"): ours(70)}), tasks=["a", "b"], contenders=["DT"], headings={}, data=scored)
    assert [[cell.text for cell in row] for row in table.rows[1:]] == [
        ["Data: mean episode", "40.0", DASH],
        ["Data: best episode", "95.5", DASH],
    ]
    assert len(score_table(inputs({}), tasks=["a"], contenders=["DT"], headings={}, data={}).rows) == 1


def test_the_behaviour_policy_has_rows_where_it_was_measured() -> None:
    scored = {"a": DataScores(40.0, 95.5, with_noise=41.0, without_noise=43.5), "b": DataScores(1.0, 2.0)}
    table = score_table(inputs({}), tasks=["a", "b"], contenders=["DT"], headings={}, data=scored)
    assert [[cell.text for cell in row] for row in table.rows[3:]] == [
        ["Behaviour policy, with noise", "41.0", DASH],
        ["Behaviour policy, without noise", "43.5", DASH],
    ]
    assert any("as it explored" in note for note in table.notes)
