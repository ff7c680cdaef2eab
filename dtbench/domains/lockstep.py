"""The base of vector environments whose episodes run in lock step."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench.errors import IncompatibleTask

Mask = NDArray[np.bool_]
Frame = NDArray[np.uint8]  # [height, width, 3]
StepOutcome = tuple[NDArray[Any], NDArray[np.float64], Mask, Mask, dict[str, Any]]


class LockstepVectorEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """Run `num_envs` episodes in lock step; an ended one keeps its observation, without reward, until it is reset.

    gymnasium's SyncVectorEnv without autoreset refuses to step while any of its episodes has ended. Subclasses write
    `_terminated` and `_truncated` where an episode ends.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    frames_per_second: float = 30.0  # of episodes played at their own speed

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

    def render(self) -> tuple[Any, ...]:
        """Return a picture of every episode, [height, width, 3]; raise IncompatibleTask where it cannot be drawn."""
        return tuple(self._picture(row) for row in range(self.num_envs))

    def _picture(self, row: int) -> Frame:
        raise IncompatibleTask(f"{type(self).__name__} draws no pictures: it has no method `_picture`.")

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


class SingleEnv(gym.Env[Any, Any]):
    """One episode of a vector environment as an environment of gymnasium's own."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, envs: LockstepVectorEnv, render_mode: str | None = None) -> None:
        """Take a vector environment of one episode."""
        self._envs, self.render_mode = envs, render_mode
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        self.metadata = {**self.metadata, "render_fps": round(envs.frames_per_second)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, the same as a row of the vector environment with this seed."""
        super().reset(seed=seed)
        observations, info = self._envs.reset(seed=seed)
        return observations[0], _first(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the episode."""
        observations, rewards, terminated, truncated, info = self._envs.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def render(self) -> Any:
        """Return a picture, [height, width, 3], in the mode rgb_array."""
        return self._envs.render()[0] if self.render_mode == "rgb_array" else None


def _first(info: dict[str, Any]) -> dict[str, Any]:
    """Return the first episode's part of the information on all."""
    firsts = {name: values[0] for name, values in info.items()}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in firsts.items()}
