"""A stand-in for a dataset: what a trained learner's networks are built from, where the data are not at hand."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from dtbench.data.dataset import (
    Array,
    TrajectoryDataset,
    make_dataset,
    observation_moments,
    space_from_json,
    space_to_json,
)

MOST_EPISODES = 64  # of a stand-in
MOST_RETURNS = 512  # distinct returns-to-go that are kept: tokens of DT's returns


def describe(dataset: TrajectoryDataset) -> dict[str, Any]:
    """Return what a stand-in is made of: spaces, moments of observations, rewards of a few episodes.

    The episodes are the longest, those of the best, the worst and the largest return-to-go, and those that together
    hold all distinct returns-to-go, where these are few. Observations and actions are not in it.
    """
    kept = _few_episodes(dataset)
    steps = np.concatenate([np.arange(dataset.offsets[e], dataset.offsets[e + 1]) for e in kept])
    moments = observation_moments(dataset) if _has_moments(dataset) else ()
    return {
        "observation_space": space_to_json(dataset.observation_space),
        "action_space": space_to_json(dataset.action_space),
        "frame_stack": dataset.frame_stack,
        "lengths": dataset.lengths[kept].tolist(),
        "rewards": torch.from_numpy(np.array(dataset.rewards[steps])),
        "terminals": torch.from_numpy(np.array(dataset.terminals[steps], bool)),
        "moments": [torch.from_numpy(values) for values in moments],
    }


def stand_in(description: Mapping[str, Any]) -> TrajectoryDataset:
    """Return a dataset of the described spaces, episodes and moments; its actions are zeros.

    Mean and standard deviation of its observations are those of the data up to rounding. It is for building learners
    whose state is then loaded, not for training.
    """
    observation_space = space_from_json(description["observation_space"])
    action_space = space_from_json(description["action_space"])
    steps, stack = len(description["rewards"]), int(description["frame_stack"])
    return make_dataset(
        observations=_observations(observation_space, steps, stack, [m.numpy() for m in description["moments"]]),
        actions=_lowest(action_space, action_space.shape or (), steps),
        rewards=description["rewards"].numpy(),
        terminals=description["terminals"].numpy(),
        lengths=np.array(description["lengths"]),
        observation_space=observation_space,
        action_space=action_space,
        info={"source": "stand-in"},
        frame_stack=stack,
    )


def _has_moments(dataset: TrajectoryDataset) -> bool:
    return isinstance(dataset.observation_space, gym.spaces.Box) and len(dataset.observation_space.shape) < 3


def _few_episodes(dataset: TrajectoryDataset) -> NDArray[np.int64]:
    """Return the episodes of a stand-in, in the order of the data."""
    futures = np.split(dataset.returns_to_go, dataset.offsets[1:-1])
    returns, largest = dataset.returns, np.array([abs(future).max() for future in futures])
    chosen = {int(dataset.lengths.argmax()), int(returns.argmax()), int(returns.argmin()), int(largest.argmax())}
    if dataset.frame_stack == 1 and len(np.unique(dataset.returns_to_go)) <= MOST_RETURNS:
        chosen |= _covering(futures, dataset.cut_off)
    return np.array(sorted(chosen))


def _covering(futures: list[NDArray[np.float64]], cut_off: NDArray[np.bool_]) -> set[int]:
    """Return episodes that hold every distinct return-to-go of ended and of truncated episodes, the richest first."""
    held = [{(bool(cut), value) for value in set(future)} for future, cut in zip(futures, cut_off, strict=True)]
    chosen: set[int] = set()
    missing = set().union(*held)
    for episode in sorted(range(len(held)), key=lambda e: -len(held[e])):
        if held[episode] & missing and len(chosen) < MOST_EPISODES:
            chosen.add(episode)
            missing -= held[episode]
    return chosen


def _observations(space: gym.Space[Any], steps: int, stack: int, moments: list[NDArray[np.float64]]) -> Array:
    """Return observations [steps, *observation] of these moments, frames [steps, *frame], or the lowest ones."""
    shape = (space.shape or ())[1:] if stack > 1 else space.shape or ()
    if not moments or steps < 2:
        return _lowest(space, shape, steps)
    mean, std = moments
    signs = np.where(np.arange(steps) % 2, -1.0, 1.0)
    if steps % 2:  # the odd one lies on the mean
        signs[-1] = 0.0
        signs *= np.sqrt(steps / (steps - 1))
    return mean + signs.reshape(-1, *[1] * mean.ndim) * std


def _lowest(space: gym.Space[Any], shape: tuple[int, ...], steps: int) -> Array:
    if isinstance(space, gym.spaces.Discrete):
        return np.full(steps, space.start, np.int64)
    return np.broadcast_to(np.zeros((), space.dtype), (steps, *shape))  # frames are many: one zero stands for all
