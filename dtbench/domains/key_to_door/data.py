"""Random walks through Key-to-Door, the data of Chen et al. (2021)."""

import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.domains.key_to_door.env import ACTION_SPACE, HORIZON, OBSERVATION_SPACE, KeyToDoorVectorEnv


def random_walks(episodes: int, *, seed: int) -> TrajectoryDataset:
    """Record `episodes` episodes of uniformly random actions; equal seeds give equal data."""
    env = KeyToDoorVectorEnv(episodes)
    actions, seeds = draw_walks(episodes, seed=seed)
    rewards = np.zeros((episodes, HORIZON), np.float32)
    observations = np.zeros((episodes, HORIZON, *OBSERVATION_SPACE.shape), np.uint8)
    ended = np.zeros((episodes, HORIZON), bool)
    present, _ = env.reset(seed=seeds)
    for step in range(HORIZON):
        observations[:, step] = present
        present, rewards[:, step], ended[:, step], _, _ = env.step(actions[:, step])
    lengths = ended.argmax(axis=1) + 1  # the first end of each row
    played = np.arange(HORIZON) < lengths[:, None]
    return make_dataset(
        observations=observations[played],
        actions=actions[played].astype(np.int8),
        rewards=rewards[played],
        terminals=ended[played],
        lengths=lengths,
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        info={"source": "generated", "recipe": "uniform random walks", "seed": seed},
    )


def draw_walks(episodes: int, *, seed: int) -> tuple[NDArray[np.int64], list[int]]:
    """Return the actions of `random_walks`, [episodes, HORIZON], and the seed of every episode."""
    rng = generator(seed, 0)
    actions = rng.integers(int(ACTION_SPACE.n), size=(episodes, HORIZON))
    return actions, [int(s) for s in rng.integers(2**31, size=episodes)]
