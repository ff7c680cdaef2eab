"""A task: one environment, one dataset, and what its scores mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dtbench.data.trajectories import TrajectoryDataset
from dtbench.evaluation import Episodes

TargetReturns = tuple[float, ...]


def no_columns(episodes: Episodes, dataset: TrajectoryDataset) -> Mapping[str, NDArray[Any]]:
    """Nothing to add to the table of episodes."""
    return {}


def consecutive_seeds(episodes: int) -> list[int]:
    """Evaluation seeds, the same for every contender, far from those that make data."""
    return list(range(10_000_000, 10_000_000 + episodes))


@dataclass(frozen=True, slots=True)
class Task:
    """What a trial needs to know of a task, and what a report needs to say about it."""

    name: str
    domain: str
    load_dataset: Callable[[], TrajectoryDataset]  # opens the store, and fills it first where it can
    make_env: Callable[[int], VectorEnv[Any, Any, Any]]  # number of games -> vector environment
    score: Callable[[Episodes], NDArray[np.float64]]  # on the domain's 0-100 scale, one for each episode
    score_name: str  # e.g. "success rate (%)"
    target_returns: TargetReturns  # what a return-conditioned policy is asked for, unless the suite says otherwise
    description: str = ""
    version: int = 1  # part of a trial's identity: raise it when the environment or the scoring changes
    evaluation_seeds: Callable[[int], list[int]] = consecutive_seeds  # number of episodes -> their seeds
    info_keys: tuple[str, ...] = ()  # what to keep of the environment's info at an episode's end
    columns: Callable[[Episodes, TrajectoryDataset], Mapping[str, NDArray[Any]]] = no_columns


def normalize(returns: NDArray[np.float64], *, low: float, high: float) -> NDArray[np.float64]:
    """100 (return - low) / (high - low): 0 for the reference `low`, 100 for `high` (Fu et al. 2020, section 5)."""
    return 100 * (returns - low) / (high - low)
