import numpy as np
import pytest

from dtbench import registry
from dtbench.domains.graph.data import random_walks, subpaths
from dtbench.domains.graph.env import GOAL, NODES, WALK_STEPS, Graph, GraphVectorEnv, random_graph, steps_to_goal
from dtbench.evaluation import Episodes


def chain() -> Graph:
    """3 -> 2 -> 1 -> 0, and a detour 3 -> 4 -> 5 -> 1."""
    edges = np.zeros((NODES, NODES), bool)
    for a, b in ((3, 2), (2, 1), (1, 0), (3, 4), (4, 5), (5, 1)):
        edges[a, b] = True
    return Graph(edges, steps_to_goal(edges))


def test_distances_are_those_of_a_hand_made_graph() -> None:
    graph = chain()
    assert graph.steps_to_goal[:7].tolist() == [0, 1, 2, 3, 3, 2, NODES]
    assert graph.starts.tolist() == [1, 2, 3, 4, 5]


def test_distances_agree_with_powers_of_the_adjacency_matrix() -> None:
    for seed in range(5):
        graph = random_graph(seed)
        power = np.eye(NODES, dtype=int)
        first = np.where(np.arange(NODES) == GOAL, 0, NODES)
        for steps in range(1, NODES):
            power = np.minimum(power @ graph.edges.astype(int), 1)
            first = np.where((power[:, GOAL] > 0) & (first == NODES), steps, first)
        assert (graph.steps_to_goal == first).all()


def test_a_walker_without_an_edge_stays_and_pays() -> None:
    env = GraphVectorEnv(2, graph=chain())
    env.reset(seed=[1, 2])  # starts 2 and 3
    nodes, rewards, terminated, _, info = env.step(np.array([1, 1]))
    assert nodes.tolist() == [1, 3]
    assert rewards.tolist() == [-1, -1]
    assert not terminated.any()
    assert info["path"].tolist() == ["2-1", "3-3"]


def test_an_episode_ends_at_the_goal_and_is_cut_off_after_ten_steps() -> None:
    env = GraphVectorEnv(2, graph=chain())
    env.reset(seed=[0, 2])  # starts 1 and 3
    for step in range(WALK_STEPS):
        _, _, terminated, truncated, _ = env.step(np.array([0, 0]))
        if step == 0:
            assert terminated.tolist() == [True, False]
    assert truncated[1]
    assert not terminated[1]


def test_seeds_in_a_row_try_every_start() -> None:
    graph = random_graph(0)
    count = len(graph.starts)
    env = GraphVectorEnv(count, graph=graph)
    nodes, _ = env.reset(seed=list(range(count)))
    assert sorted(nodes) == sorted(graph.starts)


def test_walks_follow_edges_and_their_returns_count_steps() -> None:
    graph = random_graph(3)
    data = random_walks(graph, walks=200, seed=3)
    assert graph.edges[data.observations, data.actions].all()
    assert (data.returns == -data.lengths).all()
    ended = data.terminals[data.offsets[1:] - 1]
    assert (data.actions[data.offsets[1:] - 1][ended] == GOAL).all()
    assert (data.lengths[~ended] == WALK_STEPS).all()


def test_subpaths_are_stretches_of_single_walks() -> None:
    data = random_walks(chain(), walks=60, seed=0)
    known = subpaths(data)
    assert "3-4-5-1-0" in known
    assert "4-5" in known
    assert "2-1-3" not in known


def test_only_a_shortest_path_scores() -> None:
    task = registry.make_task("graph-0")
    graph = random_graph(0)
    start = int(graph.starts[0])
    shortest = int(graph.steps_to_goal[start])
    paths = ["-".join(map(str, [start] + [start] * extra + [GOAL])) for extra in (shortest - 1, shortest)]
    outcome = Episodes(
        targets=np.full(3, np.nan),
        episodes=np.arange(3),
        seeds=np.arange(3),
        returns=np.array([-shortest, -shortest - 1, -10.0]),
        lengths=np.array([shortest, shortest + 1, 10]),
        info={"path": np.array([*paths, str(start)], object)},
    )
    assert task.score(outcome).tolist() == [100, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_nodes_can_reach_the_goal(seed: int) -> None:
    assert len(random_graph(seed).starts) >= NODES // 2
