"""Many episodes of any gymnasium environment in lock step."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import single_precision
from dtbench.domains.lockstep import LockstepVectorEnv, Mask


class GymnasiumVectorEnv(LockstepVectorEnv):
    """Step environments one after another."""

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        """Make `num_envs` environments."""
        self._envs: list[gym.Env[Any, Any]] = []  # first, as gymnasium closes what could not be built
        self._envs += [make() for _ in range(num_envs)]
        spaces = (self._envs[0].observation_space, self._envs[0].action_space)
        super().__init__(num_envs, *map(single_precision, spaces))
        self._actions = spaces[1]
        space = self.single_observation_space
        self._observations = np.zeros((num_envs, *(space.shape or ())), space.dtype)

    def close_extras(self, **kwargs: Any) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]  # gymnasium leaves it untyped

    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        for row in rows:
            self._observations[row], _ = self._envs[row].reset(seed=seeds[row])

    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        for row in np.flatnonzero(running):
            outcome = self._envs[row].step(_own_precision(actions[row], self._actions))
            self._observations[row], rewards[row], self._terminated[row], self._truncated[row], _ = outcome

    def _observe(self) -> NDArray[Any]:
        return self._observations.copy()


def _own_precision(action: Any, space: gym.Space[Any]) -> Any:
    """Return the action in the environment's own precision; a bound that float32 rounds up is met exactly."""
    if not isinstance(space, gym.spaces.Box) or space.dtype == action.dtype:
        return action
    return np.clip(action.astype(space.dtype), space.low, space.high)
