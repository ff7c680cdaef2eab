"""What a trial on a graph recorded may be damaged: what is not a graph's is left out of tables and figures."""

from typing import Any

import pandas as pd
import pytest

from dtbench.domains.graph.records import recipe, walks
from dtbench.domains.graph.report import path_facts

WALK = {"reached": True, "novel": False, "start": 3, "shortest": 2, "length": 2, "path": "3-7-0", "trial": "a"}


@pytest.mark.parametrize(
    "info",
    [
        None,
        {"edges": [[1.0]]},
        {"edges": [[1, 2], 3]},
        {"edges": [["a", 2]]},
        {"edges": [[-1, 10**9]]},
        {"edges": {"1": 2}},
        {"edges": [], "walk_steps_to_goal": {"999999999": 1}},
        {"shortest_steps": {"[1.0]": 2}},
        [1, 2],
        "text",
    ],
)
def test_a_recipe_that_does_not_fit_is_none(info: Any) -> None:
    found = recipe(info)
    assert (found.edges, found.walk_steps_to_goal, found.shortest_steps) == ([], {}, {})


def test_a_recipe_is_read_beside_what_else_was_recorded() -> None:
    found = recipe({"edges": [[1, 0]], "walk_steps_to_goal": {"inf": 2, "3": 1}, "source": "generated"})
    assert found.edges == [[1, 0]]
    assert found.walk_steps_to_goal == {"inf": 2, "3": 1}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("reached", "text"),
        ("reached", 7),
        ("novel", None),
        ("start", float("inf")),
        ("start", -1),
        ("start", 2.5),
        ("length", 10**15),
        ("path", "3-x-0"),
        ("path", ""),
        ("path", ["3", "0"]),
        ("path", float("nan")),
    ],
)
def test_an_episode_that_is_no_walk_is_left_out(column: str, value: Any) -> None:
    episodes = pd.DataFrame([WALK, {**WALK, column: value}])
    assert walks(episodes)["path"].tolist() == ["3-7-0"]
    assert path_facts(episodes)["reached"].tolist() == [100.0]


def test_episodes_of_other_tasks_have_no_walks() -> None:
    assert not len(walks(pd.DataFrame([{"length": 3, "return": 1.0}])))
    assert not len(path_facts(pd.DataFrame([{"length": 3, "return": 1.0}])))
