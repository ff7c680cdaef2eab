"""Random walks through Key-to-Door: the paper's own recipe for its data."""

import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.domains.key_to_door.env import ACTION_SPACE, HORIZON, OBSERVATION_SPACE, KeyToDoorVectorEnv


def random_walks(episodes: int, *, seed: int) -> TrajectoryDataset:
    """Record `episodes` games of a uniformly random player; equal seeds give equal data."""
    env = KeyToDoorVectorEnv(episodes)
    actions, games = draw_games(episodes, seed=seed)
    rewards = np.zeros((episodes, HORIZON), np.float32)
    observations = np.zeros((episodes, HORIZON, *OBSERVATION_SPACE.shape), np.uint8)
    ended = np.zeros((episodes, HORIZON), bool)
    present, _ = env.reset(seed=games)
    for step in range(HORIZON):
        observations[:, step] = present
        present, rewards[:, step], ended[:, step], _, _ = env.step(actions[:, step])
    lengths = ended.argmax(axis=1) + 1  # a finished game restarts; what follows is another episode
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


def draw_games(episodes: int, *, seed: int) -> tuple[NDArray[np.int64], list[int]]:
    """Return what `random_walks` plays: the actions of every step, [episodes, HORIZON], and the seed of every game."""
    rng = generator(seed, 0)
    actions = rng.integers(int(ACTION_SPACE.n), size=(episodes, HORIZON))
    return actions, [int(s) for s in rng.integers(2**31, size=episodes)]
