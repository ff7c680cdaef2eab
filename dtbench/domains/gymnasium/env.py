"""Many games of any gymnasium environment in lock step."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench.data.minari import single_precision


class Games(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """Play games of an environment; a finished game stands still until the next reset.

    gymnasium's SyncVectorEnv without autoreset refuses to step while any of its games has ended.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        self.num_envs = num_envs
        self._games: list[gym.Env[Any, Any]] = []  # first, as gymnasium closes what could not be built
        self._games += [make() for _ in range(num_envs)]
        self.single_observation_space = single_precision(self._games[0].observation_space)
        self.single_action_space = single_precision(self._games[0].action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._observations: NDArray[Any] = np.zeros(0)
        self._terminated = np.zeros(num_envs, bool)
        self._truncated = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin every game; an int seeds game i with seed + i."""
        first = [game.reset(seed=own)[0] for game, own in zip(self._games, self._seeds(seed), strict=True)]
        self._observations = np.array(first, self.single_observation_space.dtype)
        self._terminated[:], self._truncated[:] = False, False
        return self._observations.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the games that still run; the others give no reward and stay ended."""
        rewards = np.zeros(self.num_envs)
        for i in np.flatnonzero(~(self._terminated | self._truncated)):
            outcome = self._games[i].step(actions[i])
            self._observations[i], rewards[i], self._terminated[i], self._truncated[i], _ = outcome
        return self._observations.copy(), rewards, self._terminated.copy(), self._truncated.copy(), {}

    def close_extras(self, **kwargs: Any) -> None:
        """Close every game."""
        for game in self._games:
            game.close()  # type: ignore[no-untyped-call]  # gymnasium leaves it untyped

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs)]
        return seed
