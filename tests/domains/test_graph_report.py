import json
from typing import cast

import numpy as np
import pandas as pd
import pytest

from dtbench import registry
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.domains.graph import report
from dtbench.domains.graph.data import random_walks
from dtbench.domains.graph.env import GOAL, NODES, random_graph
from dtbench.domains.graph.figures import draw_graph_paths, kind_of, layout, steps_to_goal
from tests.support.table_inputs import empty_analysis

# 3 -> 2 -> 1 -> 0, a detour 3 -> 4 -> 1, and 5, from which nothing leads on.
EDGES = [(3, 2), (2, 1), (1, 0), (3, 4), (4, 1), (0, 5)]
SUITE = empty_analysis(["DT", "BC"])


def episodes(*paths: str, step: int = 10) -> pd.DataFrame:
    best = {1: 1, 2: 2, 3: 3, 4: 2}
    nodes = [[int(node) for node in path.split("-")] for path in paths]
    return pd.DataFrame(
        {
            "step": step,
            "start": [path[0] for path in nodes],
            "shortest": [best[path[0]] for path in nodes],
            "length": [len(path) - 1 for path in nodes],
            "reached": [path[-1] == GOAL for path in nodes],
            "path": list(paths),
        }
    )


def test_steps_to_the_goal_follow_from_the_edges() -> None:
    assert steps_to_goal(EDGES) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 2, 5: None}


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_those_of_the_graph_itself(seed: int) -> None:
    graph = random_graph(seed)
    ours = steps_to_goal([(int(a), int(b)) for a, b in np.argwhere(graph.edges)])
    for node, count in ours.items():
        assert (NODES if count is None else count) == graph.steps_to_goal[node]


def test_columns_are_steps_to_the_goal_with_the_goal_on_the_right() -> None:
    places = layout(EDGES)
    assert {node: place[0] for node, place in places.items()} == {0: 0, 1: -1, 2: -2, 4: -2, 3: -3, 5: -4}
    assert len(set(places.values())) == 6


def test_a_layout_does_not_depend_on_the_order_of_edges() -> None:
    assert layout(EDGES) == layout(EDGES[::-1])


def test_paths_are_shortest_longer_or_failed() -> None:
    rows = episodes("3-2-1-0", "4-1-4-1-0", "2-2-2")
    assert [kind_of(row) for row in rows.to_dict("records")] == ["shortest", "longer", "failed"]


def test_equal_paths_give_equal_bytes() -> None:
    drawn = [draw_graph_paths(SUITE, "graph-0", EDGES, {"DT": episodes("3-2-1-0", "2-2-2")}) for _ in range(2)]
    assert drawn[0] is not None
    assert drawn[0] == drawn[1]


def test_every_start_says_what_was_walked_from_it() -> None:
    rows = pd.concat([episodes("3-2-1-0", "2-2-2"), episodes("3-4-1-0", "2-1-0"), episodes("1-0", step=5)])
    drawn = draw_graph_paths(SUITE, "graph-0", EDGES, {"DT": rows})
    assert drawn is not None
    [marks] = drawn.marks
    assert marks.labels == (
        "DT from node 2, 2 steps at best, 2 walked: 1 a shortest path, 1 a path that never arrived: 2-1-0; 2-2-2",
        "DT from node 3, 3 steps at best, 2 walked: 2 a shortest path: 3-2-1-0; 3-4-1-0",
    )
    assert drawn.alt == "Paths walked on graph-0, of each contender: DT: 3 shortest, 0 longer, 1 failed."


def test_there_is_no_drawing_without_edges_or_paths() -> None:
    assert draw_graph_paths(SUITE, "graph-0", [], {"DT": episodes("1-0")}) is None
    assert draw_graph_paths(SUITE, "graph-0", EDGES, {"DT": episodes("1-0").iloc[:0]}) is None


def test_the_record_names_the_edges_and_the_data_stay_the_same() -> None:
    data = registry.make_task("graph-0").open()
    graph = random_graph(0)
    edges = json.loads(json.dumps(data.info["edges"]))
    assert [tuple(edge) for edge in edges] == [tuple(edge) for edge in np.argwhere(graph.edges)]
    without = random_walks(graph, walks=1000, seed=0)
    assert data.digest == without.digest
    assert data.digest.startswith("ac8399d98726b5d1")  # with the node after a cut-off


@pytest.mark.parametrize("count", [2, 3])
def test_of_three_graphs_all_steps_together_and_one_example_are_shown(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(report, "_steps_figure", lambda analysis, title, tasks: f"steps of {title}: {len(tasks)}")
    monkeypatch.setattr(report, "_paths_figure", lambda analysis, task: f"paths of {task}")
    shown, behind = report._figures(cast(SuiteAnalysis, None), ["a", "b", "c"][:count])
    single = ["steps of a: 1", "steps of b: 1", "steps of c: 1"][:count]
    if count == 2:
        assert (shown, behind) == ((*single, "paths of a", "paths of b"), ())
    else:
        assert shown == ("steps of 3 graphs: 3", "paths of a")
        assert behind == (*single, "paths of b", "paths of c")
