"""Random datasets of a task's shape."""

import gymnasium as gym
import numpy as np

from dtbench import TrajectoryDataset, make_dataset
from dtbench.domains.atari.env import OBSERVATIONS, STACK

OBSERVATION_SIZE, ACTION_SIZE = 11, 3  # Hopper's
LONGEST = 1000
PONG_ACTIONS, PONG_EPISODE = 6, 1000


def hopper_shaped(steps: int, *, seed: int = 0) -> TrajectoryDataset:
    """Return noise of Hopper's shape in episodes of 300 to 1000 steps, as in its medium data; nine in ten terminate.

    The first episode is as long as any may be, so that networks get their full size; the last takes what is left.
    """
    rng = np.random.default_rng(seed)
    lengths = [min(LONGEST, steps)]
    while (left := steps - sum(lengths)) > 0:
        lengths.append(min(left, int(rng.integers(300, 1000))))
    terminals = np.zeros(steps, bool)
    terminals[np.cumsum(lengths) - 1] = rng.random(len(lengths)) < 0.9
    return make_dataset(
        observations=rng.standard_normal((steps, OBSERVATION_SIZE), np.float32),
        actions=rng.uniform(-1, 1, (steps, ACTION_SIZE)).astype(np.float32),
        rewards=rng.random(steps, np.float32) * 4,
        terminals=terminals,
        lengths=np.asarray(lengths),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32),
        info={"source": "synthetic"},
    )


def pong_shaped(steps: int, *, seed: int = 0) -> TrajectoryDataset:
    """Return random frames [steps, 84, 84], four of which are an observation: 7 kB a step."""
    rng = np.random.default_rng(seed)
    lengths = np.diff([*range(0, steps, PONG_EPISODE), steps])
    terminals = np.zeros(steps, bool)
    terminals[np.cumsum(lengths) - 1] = True
    return make_dataset(
        observations=rng.integers(256, size=(steps, *OBSERVATIONS.shape[1:]), dtype=np.uint8),
        actions=rng.integers(PONG_ACTIONS, size=steps),
        rewards=rng.integers(-1, 2, size=steps).astype(np.float32),
        terminals=terminals,
        lengths=lengths,
        observation_space=OBSERVATIONS,
        action_space=gym.spaces.Discrete(PONG_ACTIONS),
        info={"source": "synthetic"},
        frame_stack=STACK,
    )
