"""Random walks on a graph, and which paths they contain."""

from collections import Counter

import gymnasium as gym
import numpy as np

from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.domains.graph.env import GOAL, NODES, WALK_STEPS, Graph


def random_walks(graph: Graph, *, walks: int, seed: int) -> TrajectoryDataset:
    """Walk `walks` times from a random node along random edges, up to WALK_STEPS or the goal."""
    rng = generator(seed, 3)
    paths = [_walk(graph, int(rng.integers(1, NODES)), rng) for _ in range(walks)]
    lengths = np.array([len(path) - 1 for path in paths])
    arrived = np.array([path[-1] == GOAL for path in paths])
    terminals = np.zeros(lengths.sum(), bool)
    terminals[np.cumsum(lengths) - 1] = arrived
    walked = Counter(str(n) if a else "inf" for n, a in zip(lengths, arrived, strict=True))
    shortest = Counter(map(str, graph.steps_to_goal[graph.starts]))
    return make_dataset(
        observations=np.array([node for path in paths for node in path[:-1]], np.int64),
        actions=np.array([node for path in paths for node in path[1:]], np.int64),
        rewards=np.full(lengths.sum(), -1.0, np.float32),
        terminals=terminals,
        lengths=lengths,
        observation_space=gym.spaces.Discrete(NODES),
        action_space=gym.spaces.Discrete(NODES),
        final_observations=np.array([path[-1] for path in paths], np.int64),
        info={
            "source": "generated",
            "recipe": "random walks along the edges of a random directed graph",
            "seed": seed,
            "walk_steps_to_goal": dict(walked),
            "shortest_steps": dict(shortest),
        },
    )


def subpaths(dataset: TrajectoryDataset) -> set[str]:
    """Return all parts of two or more nodes of every walk, as "3-7-12"."""
    paths: set[str] = set()
    for begin, end in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        nodes = [*map(int, dataset.observations[begin:end]), int(dataset.actions[end - 1])]
        paths.update("-".join(map(str, nodes[i:j])) for i in range(len(nodes)) for j in range(i + 2, len(nodes) + 1))
    return paths


def _walk(graph: Graph, start: int, rng: np.random.Generator) -> list[int]:
    path = [start]
    while path[-1] != GOAL and len(path) <= WALK_STEPS:
        ways = np.flatnonzero(graph.edges[path[-1]])
        path.append(int(rng.choice(ways)) if len(ways) else path[-1])
    return path
