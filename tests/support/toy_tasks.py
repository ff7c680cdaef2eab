"""Tasks of random numbers that take no time: a robot, one of three choices, and frames like Atari's.

Named as "tests.support.toy_tasks:robot". Rewards depend on actions alone, so that other weights earn other returns.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench import Task, TrajectoryDataset, make_dataset
from dtbench.testing import toy_dataset

LENGTH = 5  # of every game


class NoisyGames(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """Games whose observations are noise of their own seed."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}
    interrupted_after: ClassVar[int | None] = None  # so many steps from now on, Ctrl-C comes

    def __init__(self, num_envs: int, dataset: TrajectoryDataset) -> None:
        self.num_envs, self.step_number = num_envs, 0
        self.single_observation_space, self.single_action_space = dataset.observation_space, dataset.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._noise: list[np.random.Generator] = []

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        assert isinstance(seed, Sequence)
        self._noise, self.step_number = [np.random.default_rng(own) for own in seed], 0
        return self._observations(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        self._count_down()
        self.step_number += 1
        rewards = np.asarray(actions, np.float64).reshape(self.num_envs, -1).sum(axis=1)
        ended = np.full(self.num_envs, self.step_number == LENGTH)
        return self._observations(), rewards, ended, np.zeros(self.num_envs, bool), {}

    def _observations(self) -> NDArray[Any]:
        space = self.single_observation_space
        if space.dtype == np.uint8:
            return np.stack([noise.integers(0, 256, space.shape, np.uint8) for noise in self._noise])
        return np.stack([noise.normal(size=space.shape or ()) for noise in self._noise]).astype(space.dtype)

    def _count_down(self) -> None:
        left = NoisyGames.interrupted_after
        if left is not None:
            NoisyGames.interrupted_after = left - 1 if left else None
            if not left:
                raise KeyboardInterrupt


def frames_dataset() -> TrajectoryDataset:
    """Three short episodes of noise on Atari's screen, each frame kept once."""
    rng = np.random.default_rng(0)
    lengths = np.array([5, 8, 4])
    steps = int(lengths.sum())
    return make_dataset(
        observations=rng.integers(0, 256, (steps, 84, 84), np.uint8),
        actions=rng.integers(3, size=steps),
        rewards=rng.integers(-1, 2, size=steps).astype(np.float32),
        terminals=np.isin(np.arange(steps), np.cumsum(lengths) - 1),
        lengths=lengths,
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(3),
        info={"source": "toy"},
        frame_stack=4,
    )


def _task(name: str, dataset: TrajectoryDataset) -> Task:
    return Task(
        name=f"tests.support.toy_tasks:{name}",
        domain="toy",
        load_dataset=lambda: dataset,
        make_env=lambda games: NoisyGames(games, dataset),
        score=lambda episodes: episodes.returns,
        score_name="return",
        target_returns=(1.0,),
    )


robot = _task("robot", toy_dataset(discrete_actions=False))
choices = _task("choices", toy_dataset(discrete_actions=True))
frames = _task("frames", frames_dataset())
