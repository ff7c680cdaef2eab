"""Data made up for benchmarks: of a task's sizes, not of its content."""

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench import TrajectoryDataset, make_dataset
from dtbench.domains.atari.env import OBSERVATIONS, STACK

OBSERVED, ACTED = 11, 3  # numbers of an observation and of an action of Hopper's
EPISODES = (300, 1000)  # shortest and longest; Hopper's medium data: 457 on average, 1000 at most
LONGEST = 1000
GAME_ACTIONS, GAME_EPISODE = 6, 1000  # Pong's actions


def hopper_shaped(steps: int, *, seed: int = 0) -> TrajectoryDataset:
    """Noise of Hopper's shape: so many steps in episodes of 300 to 1000, most of which end with a fall.

    The last episode has what is left; the first is as long as any may be, so that networks get their full size.
    """
    rng = np.random.default_rng(seed)
    lengths = [min(LONGEST, steps)]
    while (left := steps - sum(lengths)) > 0:
        lengths.append(min(left, int(rng.integers(*EPISODES))))
    terminals = np.zeros(steps, bool)
    terminals[np.cumsum(lengths) - 1] = rng.random(len(lengths)) < 0.9
    return make_dataset(
        observations=rng.standard_normal((steps, OBSERVED), np.float32),
        actions=rng.uniform(-1, 1, (steps, ACTED)).astype(np.float32),
        rewards=rng.random(steps, np.float32) * 4,
        terminals=terminals,
        lengths=np.asarray(lengths),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (OBSERVED,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (ACTED,), np.float32),
        info={"source": "made up"},
    )


def pong_shaped(steps: int, *, seed: int = 0, frames: NDArray[np.uint8] | None = None) -> TrajectoryDataset:
    """Frames [steps, 84, 84], of which four are an observation; random ones in memory, 7 kB a step, where none are."""
    rng = np.random.default_rng(seed)
    if frames is None:
        frames = rng.integers(256, size=(steps, *OBSERVATIONS.shape[1:]), dtype=np.uint8)
    lengths = np.diff([*range(0, steps, GAME_EPISODE), steps])
    terminals = np.zeros(steps, bool)
    terminals[np.cumsum(lengths) - 1] = True
    return make_dataset(
        observations=frames,
        actions=rng.integers(GAME_ACTIONS, size=steps),
        rewards=rng.integers(-1, 2, size=steps).astype(np.float32),
        terminals=terminals,
        lengths=lengths,
        observation_space=OBSERVATIONS,
        action_space=gym.spaces.Discrete(GAME_ACTIONS),
        info={"source": "random bytes"},
        frame_stack=STACK,
    )
