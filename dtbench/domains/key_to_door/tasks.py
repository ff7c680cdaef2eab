"""Key-to-Door with a thousand and with ten thousand random walks (Chen et al. 2021, Table 6), drawn several times."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache
from dtbench.domains.key_to_door.credit import inspect_credit
from dtbench.domains.key_to_door.data import random_walks
from dtbench.domains.key_to_door.env import KeyToDoorVectorEnv
from dtbench.evaluation import Episodes
from dtbench.task import Task, check_seed

SIZES = {"key-to-door-1k": 1_000, "key-to-door-10k": 10_000}
DRAWS = 5  # of the walks, each a task


def key_to_door(name: str, *, size: str, seed: int) -> Task:
    """Return the task with random walks drawn from `seed` as its data; raise InvalidValue for an impossible seed."""
    check_seed(seed)
    episodes = SIZES[size]
    return Task(
        name=name,
        domain="key_to_door",
        load_dataset=lambda: cache.open_or_make(f"{size}-seed{seed}", partial(random_walks, episodes, seed=seed)),
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


def _tasks() -> Iterator[tuple[str, Callable[..., Task]]]:
    for draw in range(DRAWS):
        for size in SIZES:
            name = f"{size}-draw{draw}" if draw else size
            yield name, partial(key_to_door, name, size=size, seed=draw)


TASKS: dict[str, Callable[..., Task]] = dict(_tasks())
