"""Tasks of the form minari:mujoco/hopper/medium-v0: Minari's data in Minari's environment, on Minari's scale."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium as gym

from dtbench.data.minari import describe, fetch_minari, is_local, load_minari, local_sets, make_environment
from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.domains.gymnasium.source import environment_digest
from dtbench.domains.gymnasium.tasks import can_be_made, checked_kwargs
from dtbench.errors import InvalidDataset
from dtbench.foreign import tried_once
from dtbench.task import DataSource, Task, normalized_score

SCHEME = "minari:"
GAMES = "atari/"  # begin of the ids of Atari sets, which are sources of the games' tasks, not tasks


def task_from_id(name: str, *, kwargs: Mapping[str, Any] | None = None) -> Task:
    """Return the task of a Minari dataset, named minari:ID; it is downloaded where it is not on this machine.

    `kwargs` are the arguments of its environment, in place of the set's.

    Its scores are normalised by the set's reference scores, else they are raw returns: neither is comparable with
    D4RL's. The target is the best return of the data. Raises MissingDataset where the set cannot be fetched,
    InvalidDataset for an Atari game.
    """
    dataset_id = name.removeprefix(SCHEME)
    if dataset_id.startswith(GAMES):
        game = dataset_id.removeprefix(GAMES).partition("/")[0]
        raise InvalidDataset(
            f"{name} holds the screens of an Atari game, which only the game's task converts to frames: "
            f"dtbench data get atari:{game} --source minari"
        )
    fetch_minari(dataset_id)
    metadata = describe(dataset_id)
    load = partial(load_minari, dataset_id)
    make = partial(make_environment, dataset_id, checked_kwargs(name, kwargs))
    own = "normalised return (Minari's own normalisation)"
    return Task(
        name=f"{SCHEME}{dataset_id}",
        domain="minari",
        load_dataset=load,
        make_env=partial(GymnasiumVectorEnv, make),
        environment=_digest(name, make),
        score=partial(normalized_score, reference=metadata.reference),
        score_name="raw return" if metadata.reference is None else own,
        target_returns=(float(load().returns.max()),),
        description=(
            f"Minari's {dataset_id}, made by {metadata.algorithm}, in {metadata.environment or 'no environment'}."
        ),
        sources=(
            DataSource(
                name="minari",
                load=load,
                available=partial(is_local, dataset_id),
                fetch=partial(fetch_minari, dataset_id),
            ),
        ),
    )


def _digest(name: str, make: "partial[gym.Env[Any, Any]]") -> str:
    """Return the environment's digest; "" where it cannot be made, which a run says before any training."""
    if tried_once(f"{name} {make.args}", partial(can_be_made, make), "made"):
        return ""
    try:
        env = make()
    except InvalidDataset:
        return ""
    env.close()  # type: ignore[no-untyped-call]  # gymnasium leaves it untyped
    return environment_digest(env)


def local_names() -> list[str]:
    """Return the names of the tasks whose data are on this machine."""
    return [f"{SCHEME}{dataset_id}" for dataset_id in local_sets() if not dataset_id.startswith(GAMES)]
