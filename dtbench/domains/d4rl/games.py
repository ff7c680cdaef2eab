"""Many games of one robot in lock step: gymnasium's own environment, one MuJoCo state for each game."""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench.domains.d4rl.robots import Physics, Robot


class RobotGames(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """Play `num_envs` games of a robot; a finished game stands still until the next reset.

    One gymnasium environment steps all games in turn: before each step it is handed the game's MuJoCo state, which is
    all that distinguishes one game from another. That gives gymnasium's numbers to the bit, compiles one model where
    SyncVectorEnv compiles one for each game, and spends nothing on games that have ended. With `delayed`, the reward
    of a whole game comes with its last step (Chen et al. 2021, Table 7).
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, robot: Robot, num_envs: int, *, physics: Physics = "d4rl", delayed: bool = False) -> None:
        self.num_envs, self.robot, self.delayed = num_envs, robot, delayed
        self.single_observation_space, self.single_action_space = robot.observation_space, robot.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._env: Any = robot.make(physics)
        self._states = [mujoco.MjData(self._env.model) for _ in range(num_envs)]
        self._observations = np.zeros((num_envs, robot.observation_size), np.float32)
        self._steps = np.zeros(num_envs, np.int64)
        self._terminated = np.zeros(num_envs, bool)
        self._earned = np.zeros(num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin every game, or those of `options["reset_mask"]`; an int seeds game i with seed + i."""
        chosen = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), bool)
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)] if not _many(seed) else list(seed)  # type: ignore[arg-type,operator]
        for game in np.flatnonzero(chosen):
            self._env.data = self._states[game]
            self._observations[game], _ = self._env.reset(seed=seeds[game])
        self._steps[chosen], self._terminated[chosen], self._earned[chosen] = 0, False, 0.0
        return self._observations.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the games that still run; the others give no reward and stay ended."""
        rewards = np.zeros(self.num_envs)
        for game in np.flatnonzero(~self._ended):
            self._env.data = self._states[game]
            self._observations[game], rewards[game], self._terminated[game], _, _ = self._env.step(actions[game])
            self._steps[game] += 1
        if self.delayed:
            running = ~self._ended
            self._earned += rewards
            rewards = np.where(running, 0.0, self._earned)
            self._earned[~running] = 0.0
        truncated = (self._steps >= self.robot.horizon) & ~self._terminated
        return self._observations.copy(), rewards, self._terminated.copy(), truncated, {}

    def close_extras(self, **kwargs: Any) -> None:
        """Nothing is held that the garbage collector does not free."""

    @property
    def _ended(self) -> NDArray[np.bool_]:
        ended: NDArray[np.bool_] = self._terminated | (self._steps >= self.robot.horizon)
        return ended


def _many(seed: Any) -> bool:
    return seed is not None and not isinstance(seed, int | np.integer)
