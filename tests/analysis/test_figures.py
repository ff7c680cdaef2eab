"""Figures: points that explain themselves, names of any kind, equal bytes."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtbench.analysis import suite_analysis
from dtbench.analysis.figures import targets as target_figures
from dtbench.analysis.figures.bars import draw_bars, draw_grouped_bars, draw_suite_bars, suite_average
from dtbench.analysis.figures.curves import draw_progress, draw_progress_grid
from dtbench.analysis.figures.data_card import draw_data_cards
from dtbench.analysis.figures.profiles import draw_improvement, draw_profiles
from dtbench.analysis.figures.style import Drawing, drawing, figure, shortened, thousands, wrapped
from dtbench.analysis.figures.targets import draw_target_grid, draw_target_tiles, draw_targets
from dtbench.analysis.figures.tooltips import compact, draw_points, explain, sentence
from dtbench.analysis.statistics import Interval
from dtbench.analysis.suite_analysis import SuiteAnalysis, TableInputs
from dtbench.analysis.tables.targets import Achieved, TaskTargets, all_targets
from tests.support.gym_ledger import PAPER, SUITE, TASKS, results_of

SVG = "{http://www.w3.org/2000/svg}"
CARD = {
    "return_histogram": {"counts": [1, 20, 5], "edges": [0.0, 1000.0, 2000.0, 3000.0]},
    "return_mean": 1500.0,
    "return_max": 3000.0,
    "episodes": 26,
}
STRANGE = ["$x_{$", "a_b%", "_hidden", "\N{GRINNING FACE} method", "long " * 40 + "end"]


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> SuiteAnalysis:
    suite = {**SUITE, "tasks": TASKS[:2], "contenders": {name: {} for name in ("DT", "BC", "CQL")}}
    return suite_analysis.analyze(
        results_of(tmp_path_factory.mktemp("ledger"), suite=suite, sources=dict.fromkeys(TASKS, "d4rl"))
    )


def draw_all(found: SuiteAnalysis) -> dict[str, Drawing]:
    analysis, numbers, tasks = found, found.inputs.estimates, list(found.tasks)
    beside: Any = {"estimates": numbers, "published": found.published}
    targets, matrices = all_targets(found), found.matrices(tasks)
    average = suite_average(analysis, found.shown_averages[0], title="Gym", tasks=len(tasks), **beside)
    drawn = [
        draw_targets(analysis, targets[0]),
        draw_target_grid(analysis, targets),
        draw_progress(analysis, tasks[0]),
        draw_progress_grid(analysis, tasks),
        draw_bars(analysis, tasks[0], **beside),
        draw_grouped_bars(analysis, tasks, **beside),
        draw_suite_bars([average]),
        draw_profiles(analysis, matrices),
        draw_improvement(analysis, matrices, analysis.contenders[0]),
        draw_data_cards(analysis, dict.fromkeys(tasks, CARD), targets={tasks[0]: [1800.0]}),
    ]
    return {one.name: one for one in drawn if one is not None}


@pytest.fixture(scope="module")
def drawn(analysis: SuiteAnalysis) -> dict[str, Drawing]:
    return draw_all(analysis)


def drawn_children(svg: bytes, gid: str) -> int:
    """How many markers or bars stand in the group of this id, what is only defined there left out."""
    (group,) = [element for element in ET.fromstring(svg).iter(f"{SVG}g") if element.get("id") == gid]
    return _drawn_below(group)


def _drawn_below(element: ET.Element) -> int:
    inside = [child for child in element if child.tag != f"{SVG}defs"]
    return sum((child.tag in (f"{SVG}use", f"{SVG}path")) + _drawn_below(child) for child in inside)


def labels_of(one: Drawing) -> list[str]:
    return [label for marks in one.marks for label in marks.labels]


def test_every_kind_of_figure_is_drawn(drawn: Mapping[str, Drawing]) -> None:
    kinds = {re.split(r"-(?=hopper|halfcheetah)", name)[0] for name in drawn}
    assert kinds == {"targets", "progress", "final", "suites", "profiles", "improvement", "data"}
    assert len(drawn) == 10


def test_every_explained_point_is_drawn_and_every_drawn_one_explained(drawn: Mapping[str, Drawing]) -> None:
    for one in drawn.values():
        assert one.marks, one.name
        for marks in one.marks:
            assert drawn_children(one.svg, marks.gid) == len(marks.labels), (one.name, marks)


def test_the_ids_of_points_are_unique_and_begin_with_the_drawings_name(drawn: Mapping[str, Drawing]) -> None:
    for one in drawn.values():
        ids = re.findall(rb'\bid="([^"]+)"', one.svg)
        assert len(ids) == len(set(ids))
        assert all(marks.gid.startswith(f"{one.name}-marks-") for marks in one.marks)


def test_a_point_of_a_target_curve_says_who_where_and_how_much(drawn: Mapping[str, Drawing]) -> None:
    labels = [label for label in labels_of(drawn[f"targets-{TASKS[0]}"]) if label.startswith("DT ")]
    assert len(labels) == 16
    pattern = rf"DT on {TASKS[0]}, asked 1800: \d+ \[\d+, \d+\], 95 %, n = 3 seeds x 10 episodes; seeds: \d+, \d+, \d+"
    assert any(re.fullmatch(pattern, label) for label in labels)


def test_a_contender_without_targets_is_explained_by_its_line(drawn: Mapping[str, Drawing]) -> None:
    labels = labels_of(drawn[f"targets-{TASKS[0]}"])
    assert any(label.startswith(f"BC on {TASKS[0]}, asked for no return: ") for label in labels)


def test_points_of_progress_and_bars_say_their_seeds(drawn: Mapping[str, Drawing]) -> None:
    numbers = r"[\d.]+ \[[\d.]+, [\d.]+\], 95 %, n = 3 seeds x 10 episodes; seeds: [\d.]+, [\d.]+, [\d.]+"
    for name, subject in (
        (f"progress-{TASKS[0]}", f"DT on {TASKS[0]} after 1500 steps"),
        (f"final-{TASKS[0]}", f"DT on {TASKS[0]}"),
        ("final", f"CQL on {TASKS[1]}"),
    ):
        assert any(re.fullmatch(f"{subject}: {numbers}", label) for label in labels_of(drawn[name])), name


def test_a_published_number_says_where_it_was_printed(drawn: Mapping[str, Drawing]) -> None:
    labels = labels_of(drawn[f"final-{TASKS[0]}"])
    assert f"Published, {PAPER['title']}: DT on {TASKS[0]}: 67.6" in labels


def test_no_published_number_stands_where_nothing_ran(analysis: SuiteAnalysis) -> None:
    conditions = {TASKS[0]: analysis.inputs.conditions[TASKS[0]]}
    beside: Any = {"estimates": analysis.inputs.estimates, "published": analysis.published}
    only = replace(analysis, inputs=replace(analysis.inputs, conditions=conditions))
    one = draw_grouped_bars(only, TASKS[:2], **beside)
    assert one is not None
    printed = [label for label in labels_of(one) if label.startswith("Published")]
    assert printed
    assert all(f" on {TASKS[0]}: " in label for label in printed)


def test_points_that_are_not_drawn_have_no_label() -> None:
    with figure(False, 3, 2) as sheet:
        axes = sheet.subplots()
        labels = ["seen", "nan", "above", "left of the axes", "seen too"]
        draw_points(axes, [1, 2, 3, -9, 4], [1, np.nan, 99, 1, 2], labels, marker="o")
        axes.set(xlim=(0, 5), ylim=(0, 5))
        one = drawing(sheet, "points", "", "")
    (marks,) = one.marks
    assert marks.labels == ("seen", "seen too")
    assert drawn_children(one.svg, marks.gid) == 2


def test_nothing_is_explained_where_no_point_is_seen() -> None:
    with figure(False, 3, 2) as sheet:
        draw_points(sheet.subplots(), [np.nan], [np.nan], ["nowhere"], marker="o")
        assert drawing(sheet, "empty", "", "").marks == ()


def test_a_bar_is_one_child_of_its_group() -> None:
    with figure(False, 3, 2) as sheet:
        for bar, label in zip(sheet.subplots().bar([0, 1], [2, 0]), ["two", "nothing\nat all"], strict=True):
            explain(bar, [label])
        one = drawing(sheet, "bars", "", "")
    assert [marks.labels for marks in one.marks] == [("two",), ("nothing at all",)]
    assert [drawn_children(one.svg, marks.gid) for marks in one.marks] == [1, 1]


def test_numbers_are_told_without_exponents() -> None:
    found = [compact(value) for value in (1443.4, 71.25, 100.0, 1.234, 0.0123, -5.0, 0.0, -0.0001, 123456.0, np.nan)]
    assert found == ["1443", "71.2", "100", "1.23", "0.012", "−5", "0", "0", "123456", "not a number"]  # noqa: RUF001


def test_one_seed_has_neither_interval_nor_list() -> None:
    assert sentence("DT on task", 3.0, None, seeds=[3.0], episodes=20) == "DT on task: 3, n = 1 seed x 20 episodes"
    two = sentence("DT on task", 3.0, Interval(2, 4), seeds=[2.0, 4.0])
    assert two == "DT on task: 3 [2, 4], 95 %, n = 2 seeds; seeds: 2, 4"


def test_two_draws_give_equal_bytes(analysis: SuiteAnalysis, drawn: Mapping[str, Drawing]) -> None:
    for name, again in draw_all(analysis).items():
        assert (again.svg, again.png) == (drawn[name].svg, drawn[name].png), name
        assert (again.pdf(), again.marks) == (drawn[name].pdf(), drawn[name].marks), name


def test_a_pdf_has_its_fonts_inside_and_no_date(drawn: Mapping[str, Drawing]) -> None:
    for one in drawn.values():
        assert one.pdf().startswith(b"%PDF-")
        assert b"/FontFile2" in one.pdf()  # TrueType, embedded: type 42 in matplotlib's words
        assert b"/Type3" not in one.pdf()
        assert b"/CreationDate" not in one.pdf()


def renamed(
    found: SuiteAnalysis, names: Mapping[str, str], tasks: Mapping[str, str]
) -> tuple[SuiteAnalysis, Any, list[TaskTargets]]:
    """The analysis, the estimates and the targets with other names."""
    new = {"contender": dict(names), "task": dict(tasks)}
    changed = replace(
        found,
        results=replace(found.results, scores=found.scores.replace(new)),
        contenders=[names[name] for name in found.contenders],
        finals=found.finals.replace(new),
        score_names=dict.fromkeys(tasks.values(), "$score$ (%)"),
        inputs=TableInputs(),
    )
    numbers = {(tasks.get(t, t), names[c]): one for (t, c), one in found.inputs.estimates.items()}
    targets = [
        replace(
            one,
            task=tasks[one.task],
            achieved=tuple(replace(curve, contender=names[curve.contender]) for curve in one.achieved),
            levels={names[name]: level for name, level in one.levels.items()},
        )
        for one in all_targets(found)
    ]
    return changed, numbers, targets


@pytest.mark.parametrize("strange", STRANGE, ids=["tex", "percent", "underscore", "emoji", "long"])
@pytest.mark.filterwarnings("error")
def test_a_name_of_any_kind_neither_stops_a_figure_nor_vanishes(analysis: SuiteAnalysis, strange: str) -> None:
    names = {"DT": strange, "BC": "BC", "CQL": "CQL"}
    tasks = {TASKS[0]: f"task {strange}", TASKS[1]: TASKS[1]}
    matrices = {names[name]: scores for name, scores in analysis.matrices(analysis.tasks).items()}
    analysis, numbers, targets = renamed(analysis, names, tasks)
    beside: Any = {"estimates": numbers, "published": ()}
    for one in (
        draw_target_grid(analysis, targets),
        draw_progress(analysis, tasks[TASKS[0]]),
        draw_bars(analysis, tasks[TASKS[0]], **beside),
        draw_grouped_bars(analysis, list(tasks.values()), **beside),
        draw_profiles(analysis, matrices),
        draw_improvement(analysis, matrices, strange),
    ):
        assert one is not None
        shown = " ".join(" ".join(ET.fromstring(one.svg).itertext()).split())
        assert shortened(strange, 20)[:8] in shown, one.name
        assert any(strange.strip() in label for label in labels_of(one)), one.name


def test_tiles_stand_in_the_order_of_suites_and_a_task_that_two_share_once(analysis: SuiteAnalysis) -> None:
    first, second = all_targets(analysis)
    drawing = draw_target_tiles([(analysis, first), (analysis, second), (analysis, first)])
    assert drawing is not None
    words = " ".join(ET.fromstring(drawing.svg).itertext())
    assert words.count(first.task) == words.count(second.task) == 1
    assert words.index(first.task) < words.index(second.task)


def test_a_long_name_keeps_both_its_ends() -> None:
    assert shortened("abcdefghij", 7) == "abcd…ij"
    assert shortened("  a\n b ", 7) == "a b"
    assert wrapped("one two three", 9).split("\n") == ["one two", "three"]
    assert max(map(len, wrapped("x" * 200, 40).split("\n"))) <= 40


def outlying(*curve: float) -> TaskTargets:
    returns = np.array([[curve, curve]], np.float64)
    targets = np.arange(1.0, len(curve) + 1)
    return TaskTargets("task", (Achieved("DT", (0,), targets, returns),), {}, Interval(0, 5), (5.0,))


def test_one_outlier_does_not_flatten_a_target_curve(analysis: SuiteAnalysis) -> None:
    found = outlying(1, 2, 3, 4, -1_000_000)
    room = target_figures.fences(found)
    assert room.low > -20
    one = draw_targets(analysis, found)
    (label,) = [label for label in labels_of(one) if "asked 5:" in label]
    assert "−1000000" in label  # noqa: RUF001 - drawn at the edge, and says what it is
    assert "beyond it" in one.caption


def test_an_ordinary_curve_is_drawn_whole(analysis: SuiteAnalysis) -> None:
    found = outlying(1, 2, 3, 4, 4)
    assert all(map(target_figures.fences(found).holds, found.achieved[0].curve))
    assert "edge" not in draw_targets(analysis, found).caption


@pytest.mark.parametrize("draw", [draw_profiles, lambda s, m: draw_improvement(s, m, "DT")])
def test_contenders_that_miss_a_task_are_left_out_and_named(
    analysis: SuiteAnalysis, draw: Callable[[SuiteAnalysis, Any], Drawing | None]
) -> None:
    matrices = dict(analysis.matrices(analysis.tasks))
    matrices["CQL"] = matrices["CQL"].copy()
    matrices["CQL"][:, 1] = np.nan
    one = draw(analysis, matrices)
    assert one is not None
    assert "Left out, because some task has no run: CQL." in one.caption


def test_nothing_is_drawn_of_nothing(analysis: SuiteAnalysis) -> None:
    nothing = {"DT": np.full((2, 2), np.nan)}
    assert draw_profiles(analysis, nothing) is None
    assert draw_improvement(analysis, nothing, "DT") is None
    assert draw_data_cards(analysis, {"task": {}}) is None
    assert draw_suite_bars([]) is None


def test_a_data_card_says_how_many_episodes_return_what(drawn: Mapping[str, Drawing]) -> None:
    labels = labels_of(drawn["data"])
    assert f"{TASKS[0]}: 1 episode returns 0 to 1000" in labels
    assert f"{TASKS[0]}: 20 episodes return 1000 to 2000" in labels


def test_ticks_in_the_ten_thousands_are_short(tmp_path: Path) -> None:
    with figure(False, 3, 2) as sheet:
        axes = sheet.subplots()
        axes.plot([0, 100_000], [-20, 4000])
        thousands(axes.xaxis, axes.yaxis)
        sheet.draw_without_rendering()
        ticks = [[label.get_text() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)]
    assert "100k" in ticks[0]
    assert "4000" in ticks[1]
