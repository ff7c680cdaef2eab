"""Walking to a goal on a fixed directed graph, the shortest-path problem of Chen et al. (2021), Figure 2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench.data.randomness import generator

NODES = 20
EDGE_PROBABILITY = 0.1  # Chen et al.: "edge sparsity coefficient 0.1"
WALK_STEPS = 10
GOAL = 0


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A directed graph and how far every node is from the goal."""

    edges: NDArray[np.bool_]  # [nodes, nodes]: from row to column
    steps_to_goal: NDArray[np.int64]  # [nodes]; NODES where the goal cannot be reached

    @property
    def starts(self) -> NDArray[np.int64]:
        """The nodes from which the goal can be reached in a walk's length."""
        return np.flatnonzero((self.steps_to_goal > 0) & (self.steps_to_goal <= WALK_STEPS))


def random_graph(seed: int) -> Graph:
    """Draw every edge with EDGE_PROBABILITY; a node left without a way out gets one at random.

    Drawn again until at least half of the nodes can reach the goal in a walk's length: a goal that hardly any
    walk can find asks nothing of an algorithm.
    """
    rng = generator(seed, 2)
    while True:
        edges = (rng.random((NODES, NODES)) < EDGE_PROBABILITY) & ~np.eye(NODES, dtype=bool)
        for node in np.flatnonzero(~edges.any(axis=1)):
            edges[node, (node + rng.integers(1, NODES)) % NODES] = True
        graph = Graph(edges, steps_to_goal(edges))
        if len(graph.starts) >= NODES // 2:
            return graph


def steps_to_goal(edges: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Length of the shortest path from every node to GOAL, by breadth; NODES where there is none."""
    steps = np.full(len(edges), NODES)
    steps[GOAL] = 0
    for distance in range(1, NODES):
        arrives = edges[:, steps == distance - 1].any(axis=1)
        steps[arrives & (steps == NODES)] = distance
    return steps


class GraphVectorEnv(VectorEnv[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]):
    """Many walkers on one graph. Observation: the node, [B]; action: the node to move to, [B].

    Without an edge the walker stays. Each step from a node that is not the goal costs 1; an episode ends at the
    goal (`terminated`) or is cut off after WALK_STEPS (`truncated`). `reset(seed=s)` starts at the node
    `graph.starts[s % len(graph.starts)]`, so that consecutive seeds try every start; without a seed, at random.
    Finished walkers start anew with the next step (`AutoresetMode.NEXT_STEP`).
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, *, graph: Graph) -> None:
        """Prepare `num_envs` walkers; `reset` starts them."""
        self.num_envs, self.graph = num_envs, graph
        self.single_observation_space = gym.spaces.Discrete(NODES)
        self.single_action_space = gym.spaces.Discrete(NODES)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.node = np.zeros(num_envs, np.int64)
        self.elapsed = np.zeros(num_envs, np.int64)
        self._paths: list[list[int]] = [[] for _ in range(num_envs)]
        self._finished = np.zeros(num_envs, bool)
        self._rng = np.random.default_rng()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Put every walker on its start."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        starts = self.graph.starts
        drawn = self._rng.integers(len(starts), size=self.num_envs)
        asked = seeds if seeds is not None else [None] * self.num_envs
        places = [d if s is None else s % len(starts) for d, s in zip(drawn, asked, strict=True)]
        self._start(np.arange(self.num_envs), starts[np.array(places, np.int64)])
        return self.node.copy(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Move every walker along the edge to its chosen node, where there is one."""
        walking = ~self._finished
        rows = np.flatnonzero(self._finished)
        self._start(rows, self.graph.starts[self._rng.integers(len(self.graph.starts), size=len(rows))])
        moving = walking & self.graph.edges[self.node, actions]
        self.node = np.where(moving, actions, self.node)
        self.elapsed += walking
        for row in np.flatnonzero(walking):
            self._paths[row].append(int(self.node[row]))
        terminated = walking & (self.node == GOAL)
        truncated = walking & ~terminated & (self.elapsed == WALK_STEPS)
        self._finished = terminated | truncated
        return self.node.copy(), np.where(walking, -1.0, 0.0), terminated, truncated, self._info()

    def _start(self, rows: NDArray[np.int64], nodes: NDArray[np.int64]) -> None:
        self.node[rows] = nodes
        self.elapsed[rows] = 0
        self._finished[rows] = False
        for row, node in zip(rows, nodes, strict=True):
            self._paths[row] = [int(node)]

    def _info(self) -> dict[str, Any]:
        return {"path": np.array(["-".join(map(str, path)) for path in self._paths], object)}
