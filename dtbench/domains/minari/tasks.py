"""Tasks of the form minari:mujoco/hopper/medium-v0: Minari's data in Minari's environment, on Minari's scale."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from dtbench.data.minari_sets import (
    describe,
    fetch_minari,
    is_local,
    load_minari,
    local_sets,
    make_environment,
)
from dtbench.data.trajectories import TrajectoryDataset
from dtbench.domains.d4rl.robots import Robot
from dtbench.domains.gymnasium_games import Games
from dtbench.errors import InvalidDataset
from dtbench.evaluation import Episodes
from dtbench.task import DataSource, Task, normalize

SCHEME = "minari:"
GAMES = "atari/"  # how the ids of sets of Atari games begin: they are sources of the games' tasks, not tasks


def task_from_id(name: str) -> Task:
    """The task of a Minari dataset, named minari:ID; it is downloaded where it is not on this machine.

    Its scores are normalised by the set's own reference scores, else they are raw returns: neither is comparable with
    D4RL's. Asked for is the best return of the data. Raises MissingDataset where the set can neither be found nor
    fetched, InvalidDataset for a game of Atari.
    """
    dataset_id = name.removeprefix(SCHEME)
    if dataset_id.startswith(GAMES):
        game = dataset_id.removeprefix(GAMES).partition("/")[0]
        raise InvalidDataset(
            f"{name} holds the screens of a game, which only the game's own task makes frames of: "
            f"dtbench data get atari:{game} --source minari"
        )
    fetch_minari(dataset_id)
    said = describe(dataset_id)
    load = partial(load_minari, dataset_id)
    own = "normalised return (Minari's own normalisation)"
    return Task(
        name=f"{SCHEME}{dataset_id}",
        domain="minari",
        load_dataset=load,
        make_env=partial(Games, partial(make_environment, dataset_id)),
        score=partial(score, reference=said.reference),
        score_name="raw return" if said.reference is None else own,
        target_returns=(float(load().returns.max()),),
        description=f"Minari's {dataset_id}, made by {said.algorithm}, in {said.environment or 'no environment'}.",
        sources=(source(dataset_id),),
    )


def local_names() -> list[str]:
    """The names of the tasks whose data are on this machine."""
    return [f"{SCHEME}{dataset_id}" for dataset_id in local_sets() if not dataset_id.startswith(GAMES)]


def source(dataset_id: str, robot: Robot | None = None) -> DataSource:
    """A Minari dataset as a source of data: of its own task, or of a robot's."""
    return DataSource(
        name="minari",
        load=partial(load_minari, dataset_id) if robot is None else partial(load_minari_for, robot, dataset_id),
        available=partial(is_local, dataset_id),
        fetch=partial(fetch_minari, dataset_id),
    )


def load_minari_for(robot: Robot, dataset_id: str) -> TrajectoryDataset:
    """A Minari dataset as data of a robot, e.g. mujoco/hopper/medium-v0 for Hopper.

    It was recorded with gymnasium's v5 physics and other policies than D4RL's: `info` says so. Raises InvalidDataset
    where its spaces are not the robot's.
    """
    said = describe(dataset_id)
    ours = (robot.observation_space, robot.action_space)
    if (said.observation_space.shape, said.action_space.shape) != (ours[0].shape, ours[1].shape):
        raise InvalidDataset(
            f"minari:{dataset_id} has observations {said.observation_space} and actions {said.action_space}: "
            f"{robot.name} has {ours[0]} and {ours[1]}."
        )
    return load_minari(dataset_id, spaces=ours)


def score(episodes: Episodes, *, reference: tuple[float, float] | None) -> NDArray[np.float64]:
    """100 (return - low) / (high - low), or the return itself where the set names no references."""
    if reference is None:
        return episodes.returns
    return normalize(episodes.returns, low=reference[0], high=reference[1])
