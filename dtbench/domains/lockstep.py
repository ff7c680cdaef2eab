"""The base of vector environments whose episodes run in lock step."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
StepOutcome = tuple[NDArray[Any], NDArray[np.float64], Mask, Mask, dict[str, Any]]


class LockstepVectorEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """Run `num_envs` episodes in lock step; an ended one keeps its observation, without reward, until it is reset.

    gymnasium's SyncVectorEnv without autoreset refuses to step while any of its episodes has ended. Subclasses write
    `_terminated` and `_truncated` where an episode ends.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Take the spaces of one environment."""
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._terminated = np.zeros(num_envs, bool)
        self._truncated = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start every episode, or those of `options["reset_mask"]`; an int seeds row i with seed + i."""
        chosen = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), bool)
        self._terminated[chosen], self._truncated[chosen] = False, False
        self._start(np.flatnonzero(chosen), self._seeds(seed))
        return self._observe(), self._info()

    def step(self, actions: NDArray[Any]) -> StepOutcome:
        """Step the episodes that run."""
        rewards = np.zeros(self.num_envs)
        running = ~(self._terminated | self._truncated)
        self._advance(running, actions, rewards)
        return self._observe(), rewards, self._terminated.copy(), self._truncated.copy(), self._info()

    @abstractmethod
    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        """Start the episodes of these rows; `seeds` has one for every row of the environment."""

    @abstractmethod
    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        """Step the running episodes, and write their rewards and how they ended."""

    @abstractmethod
    def _observe(self) -> NDArray[Any]:
        """Return a new array of the present observations."""

    def _info(self) -> dict[str, Any]:
        return {}

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + row for row in range(self.num_envs)]
        return seed
