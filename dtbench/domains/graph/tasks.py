"""Five random graphs, a thousand random walks on each (Chen et al. 2021, Figure 2 and appendix)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset
from dtbench.domains.graph.data import random_walks, subpaths
from dtbench.domains.graph.env import GOAL, Graph, GraphVectorEnv, random_graph
from dtbench.evaluation import Episodes
from dtbench.task import Task

WALKS = 1000
GRAPHS = 5
TUNE_ON = (
    "Tune on a graph that no suite reports on: "
    "'tasks=[dtbench.domains.graph.tasks:graph_task]' task_options.number=100"
)


def graph_task(number: int) -> Task:
    """Return the shortest-path task on the random graph with this seed."""
    graph = random_graph(number)
    name = f"graph-{number}"
    return Task(
        name=name,
        domain="graph",
        load_dataset=partial(_dataset, name, graph, number),
        make_env=partial(GraphVectorEnv, graph=graph),
        score=partial(shortest_share, graph),
        score_name="shortest paths (%)",
        target_returns=(-1.0,),
        description=f"Walk to a goal on a random graph by a shortest path; {WALKS} random walks as data.",
        evaluation_seeds=partial(_seeds_of_every_start, len(graph.starts)),
        tune_on=TUNE_ON if number < GRAPHS else "",
        info_keys=("path",),
        columns=partial(path_columns, graph),
    )


def shortest_share(graph: Graph, episodes: Episodes) -> NDArray[np.float64]:
    """100 where the goal was reached and no shorter path exists, else 0."""
    columns = _path_facts(graph, episodes)
    return np.where(columns["reached"] & (episodes.lengths == columns["shortest"]), 100.0, 0.0)


def path_columns(graph: Graph, episodes: Episodes, dataset: TrajectoryDataset) -> Mapping[str, NDArray[Any]]:
    """Return a report's columns: start, shortest, reached, path, and whether no walk of the data contains it."""
    known = subpaths(dataset)
    novel = np.array([path not in known for path in episodes.info["path"]])
    return {**_path_facts(graph, episodes), "path": episodes.info["path"], "novel": novel}


def _path_facts(graph: Graph, episodes: Episodes) -> dict[str, NDArray[Any]]:
    nodes = [path.split("-") for path in episodes.info["path"]]
    starts = np.array([int(path[0]) for path in nodes])
    reached = np.array([int(path[-1]) == GOAL for path in nodes])
    return {"start": starts, "shortest": graph.steps_to_goal[starts], "reached": reached}


def _seeds_of_every_start(starts: int, episodes: int) -> list[int]:
    """Every start equally often, about `episodes` in all and once at least."""
    return list(range(starts * max(1, episodes // starts)))


def _dataset(name: str, graph: Graph, seed: int) -> TrajectoryDataset:
    walks = cache.open_or_make(f"{name}-{WALKS}-walks", partial(random_walks, graph, walks=WALKS, seed=seed))
    return walks.with_info({"edges": np.argwhere(graph.edges).tolist()})  # [from, to] each: a report draws them


TASKS: dict[str, Callable[[], Task]] = {f"graph-{n}": partial(graph_task, n) for n in range(GRAPHS)}
