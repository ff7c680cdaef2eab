"""Walking to a goal on a fixed directed graph, the shortest-path problem of Chen et al. (2021), Figure 2."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dtbench.data.randomness import generator
from dtbench.domains.lockstep import Frame, LockstepVectorEnv, Mask, SingleEnv

NODES = 20
EDGE_PROBABILITY = 0.1  # Chen et al.: "edge sparsity coefficient 0.1"
WALK_STEPS = 10
GOAL = 0
PIXELS = 480  # of a picture's side
RADIUS = 14  # of a node in a picture


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A directed graph and the distance of every node to the goal."""

    edges: NDArray[np.bool_]  # [nodes, nodes]: from row to column
    steps_to_goal: NDArray[np.int64]  # [nodes]; NODES where the goal cannot be reached

    @property
    def starts(self) -> NDArray[np.int64]:
        """The nodes from which the goal can be reached in a walk's length."""
        return np.flatnonzero((self.steps_to_goal > 0) & (self.steps_to_goal <= WALK_STEPS))


def random_graph(seed: int) -> Graph:
    """Draw every edge with EDGE_PROBABILITY; a node left without a way out gets one at random.

    It is drawn again until at least half of the nodes can reach the goal in a walk's length.
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
    """Return the length of the shortest path from every node to GOAL; NODES where there is none."""
    steps = np.full(len(edges), NODES)
    steps[GOAL] = 0
    for distance in range(1, NODES):
        arrives = edges[:, steps == distance - 1].any(axis=1)
        steps[arrives & (steps == NODES)] = distance
    return steps


class GraphVectorEnv(LockstepVectorEnv):
    """Many walkers on one graph. Observation: the node, [B]; action: the node to move to, [B].

    Without an edge the walker stays. Each step from a node that is not the goal costs 1; an episode ends at the goal
    (`terminated`) or after WALK_STEPS (`truncated`). `reset(seed=s)` starts at the node
    `graph.starts[s % len(graph.starts)]`, so that consecutive seeds try every start; without a seed, at random.
    """

    frames_per_second = 2.0

    def __init__(self, num_envs: int, *, graph: Graph) -> None:
        """Prepare `num_envs` walkers; `reset` starts them."""
        super().__init__(num_envs, gym.spaces.Discrete(NODES), gym.spaces.Discrete(NODES))
        self.graph = graph
        self.node = np.zeros(num_envs, np.int64)
        self.elapsed = np.zeros(num_envs, np.int64)
        self._paths: list[list[int]] = [[] for _ in range(num_envs)]
        self._rng = np.random.default_rng()

    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        starts = self.graph.starts
        for row in rows:
            seed = seeds[row]
            if seed is not None:
                self._rng = np.random.default_rng(seed)  # of later episodes without a seed
            index = self._rng.integers(len(starts)) if seed is None else seed % len(starts)
            self.node[row] = starts[index]
            self._paths[row] = [int(starts[index])]
        self.elapsed[rows] = 0

    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        moving = running & self.graph.edges[self.node, actions]
        self.node = np.where(moving, actions, self.node)
        self.elapsed += running
        for row in np.flatnonzero(running):
            self._paths[row].append(int(self.node[row]))
        rewards[running] = -1.0
        self._terminated |= running & (self.node == GOAL)
        self._truncated |= running & ~self._terminated & (self.elapsed == WALK_STEPS)

    def _observe(self) -> NDArray[np.int64]:
        return self.node.copy()

    def _info(self) -> dict[str, Any]:
        return {"path": np.array(["-".join(map(str, path)) for path in self._paths], object)}

    def _picture(self, row: int) -> Frame:
        """Draw the graph on a circle: the goal in green, the walker in blue, its path in red."""
        angles = 2 * np.pi * np.arange(NODES) / NODES
        places = PIXELS / 2 + (PIXELS / 2 - 2 * RADIUS) * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
        image = Image.new("RGB", (PIXELS, PIXELS), "white")
        draw = ImageDraw.Draw(image)
        for begin, end in np.argwhere(self.graph.edges):
            _draw_arrow(draw, places[begin], places[end], "silver", 1)
        path = self._paths[row]
        for begin, end in pairwise(path):
            if begin != end:
                _draw_arrow(draw, places[begin], places[end], "firebrick", 3)
        for node, place in enumerate(places):
            color = "royalblue" if node == self.node[row] else "seagreen" if node == GOAL else "gainsboro"
            draw.ellipse([*(place - RADIUS), *(place + RADIUS)], fill=color, outline="dimgray")
            draw.text(tuple(place), str(node), fill="black" if color == "gainsboro" else "white", anchor="mm")
        return np.array(image)


class GraphEnv(SingleEnv):
    """A single environment with the rules of `GraphVectorEnv`, on the random graph of this number."""

    def __init__(self, number: int = 0, render_mode: str | None = None) -> None:
        """Draw the graph; `reset` starts an episode."""
        super().__init__(GraphVectorEnv(1, graph=random_graph(number)), render_mode)


def _draw_arrow(draw: Any, begin: NDArray[np.float64], end: NDArray[np.float64], color: str, width: int) -> None:
    """Draw an edge from node to node, with a dot where it arrives."""
    ahead = (end - begin) / np.linalg.norm(end - begin)
    tip = end - ahead * (RADIUS + 4)
    draw.line([*(begin + ahead * RADIUS), *tip], fill=color, width=width)
    draw.ellipse([*(tip - 3), *(tip + 3)], fill=color)
