"""Which tasks share a scale."""

from dtbench.analysis.suite_analysis import averages_of, averages_over_draws, draws_among, scales_of


def test_tasks_whose_scores_have_one_name_share_a_scale() -> None:
    names = {"a": "success rate (%)", "b": "normalised score", "c": "success rate (%)"}
    assert scales_of(["a", "b", "c"], names) == (("a", "c"), ("b",))
    assert averages_of((("a", "c"), ("b",)), names, ran="abc") == {
        "average over 2 tasks, success rate (%)": ("a", "c")
    }


def test_one_scale_is_the_whole_suite_with_the_tasks_that_have_not_run() -> None:
    assert scales_of(["a", "b"], {"a": "success rate (%)"}) == (("a", "b"),)
    assert averages_of((("a", "b"),), {"a": "success rate (%)"}, ran="a") == {"average over 2 tasks": ("a", "b")}


def test_two_tasks_and_more_that_ran_are_averaged_too_where_others_did_not() -> None:
    averages = averages_of((("a", "b", "c"),), {"a": "success rate (%)"}, ran="ca")
    assert averages == {"average over 3 tasks": ("a", "b", "c"), "average over the 2 tasks that ran": ("a", "c")}


def test_a_task_that_has_not_run_belongs_to_nobody_among_several_scales() -> None:
    names = {"a": "success rate (%)", "b": "normalised score"}
    assert scales_of(["a", "b", "c"], names) == (("a",), ("b",), ("c",))
    assert averages_of((("a",), ("b",), ("c",)), names, ran="ab") == {}


def test_raw_returns_share_no_scale() -> None:
    names = dict.fromkeys(["atari:asterix", "atari:tennis"], "raw return (protocol official-dt)")
    assert scales_of(list(names), names) == (("atari:asterix",), ("atari:tennis",))
    assert averages_of(scales_of(list(names), names), names, ran=names) == {}


def test_a_single_task_is_averaged_with_nothing() -> None:
    assert scales_of(["a"], {"a": "raw return"}) == (("a",),)
    assert averages_of((("a",),), {"a": "raw return"}, ran="a") == {}


def test_averages_over_draws_are_named_once() -> None:
    averages = {
        "average over the 2 tasks that ran": ("ktd-a", "ktd-b"),
        "mean of 2 draws": ("ktd-a", "ktd-b"),
        "average over 3 tasks": ("ktd-a", "ktd-b", "hopper"),
        "alone": ("ktd-a",),
    }
    assert draws_among(averages, ["ktd-*"]) == {"mean of 2 draws": ("ktd-a", "ktd-b")}
    assert draws_among(averages, []) == {}


def test_averages_over_draws_say_which_data() -> None:
    tasks = ["graph-0", "graph-1", "hopper"]
    assert averages_over_draws(tasks, ["graph-*", "hop*"]) == {"graph, mean of 2 draws": ("graph-0", "graph-1")}
