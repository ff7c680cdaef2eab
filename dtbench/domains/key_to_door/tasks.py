"""Key-to-Door with a thousand and with ten thousand random walks (Chen et al. 2021, Table 6)."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset
from dtbench.domains.key_to_door.credit import inspect_credit
from dtbench.domains.key_to_door.data import random_walks
from dtbench.domains.key_to_door.env import KeyToDoorVectorEnv
from dtbench.evaluation import Episodes
from dtbench.task import Task

DATASET_SEED = 0


def key_to_door(name: str, episodes: int) -> Task:
    """Return the task with `episodes` random walks as its data."""
    return Task(
        name=name,
        domain="key_to_door",
        load_dataset=partial(_dataset, name, episodes),
        make_env=KeyToDoorVectorEnv,
        score=success_rate,
        score_name="success rate (%)",
        target_returns=(1.0,),
        inspect=inspect_credit,
        description=f"Take the key, cross an empty room, open the door; {episodes} random walks as data.",
    )


def success_rate(episodes: Episodes) -> NDArray[np.float64]:
    """100 where the door was opened, else 0."""
    return np.where(episodes.returns > 0, 100.0, 0.0)


def _dataset(name: str, episodes: int) -> TrajectoryDataset:
    return cache.open_or_make(f"{name}-seed{DATASET_SEED}", partial(random_walks, episodes, seed=DATASET_SEED))


TASKS: dict[str, Callable[[], Task]] = {
    "key-to-door-1k": partial(key_to_door, "key-to-door-1k", 1_000),
    "key-to-door-10k": partial(key_to_door, "key-to-door-10k", 10_000),
}
