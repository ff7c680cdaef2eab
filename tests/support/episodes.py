"""Small hand-made datasets for tests."""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from dtbench import TrajectoryDataset, make_dataset


def episodes(lengths: Sequence[int], rewards: Sequence[float], ended: Sequence[bool]) -> TrajectoryDataset:
    """Episodes of these lengths; observation and action of flat step i are both i."""
    steps = sum(lengths)
    terminals = np.zeros(steps, bool)
    terminals[np.cumsum(lengths) - 1] = ended
    return make_dataset(
        observations=np.arange(steps, dtype=np.float32)[:, None],
        actions=np.arange(steps) % 4,
        rewards=np.asarray(rewards, np.float32),
        terminals=terminals,
        lengths=np.asarray(lengths),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (1,)),
        action_space=gym.spaces.Discrete(4),
    )


def with_actions(dataset: TrajectoryDataset, actions: np.ndarray) -> TrajectoryDataset:
    """The same episodes with other actions."""
    return make_dataset(
        observations=dataset.observations,
        actions=actions,
        rewards=dataset.rewards,
        terminals=dataset.terminals,
        lengths=dataset.lengths,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
    )
