"""Many episodes of any gymnasium environment in lock step."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import single_precision
from dtbench.domains.lockstep import Frame, LockstepVectorEnv, Mask
from dtbench.domains.offscreen import drawn
from dtbench.errors import IncompatibleTask, one_line

_REMEDY = "Correct it there, or wrap it: gymnasium.utils.env_checker.check_env(env) shows more."


class GymnasiumVectorEnv(LockstepVectorEnv):
    """Step environments one after another."""

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        """Make `num_envs` environments."""
        self._envs: list[gym.Env[Any, Any]] = []  # first, as gymnasium closes what could not be built
        self._envs += [make() for _ in range(num_envs)]
        spaces = (self._envs[0].observation_space, self._envs[0].action_space)
        super().__init__(num_envs, *map(single_precision, spaces))
        self._actions, self.spec = spaces[1], self._envs[0].spec
        self.frames_per_second = float(self._envs[0].metadata.get("render_fps") or self.frames_per_second)
        space = self.single_observation_space
        self._observations = np.zeros((num_envs, *(space.shape or ())), space.dtype)

    def close_extras(self, **kwargs: Any) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]  # gymnasium leaves it untyped

    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        for row in rows:
            outcome: Any = self._envs[row].reset(seed=seeds[row])
            if not isinstance(outcome, tuple) or len(outcome) != 2:
                raise IncompatibleTask(f"reset() returns {type(outcome).__name__}, not (observation, info). {_REMEDY}")
            self._observations[row] = self._observation(outcome[0])

    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        for row in np.flatnonzero(running):
            outcome: Any = self._envs[row].step(_own_precision(actions[row], self._actions))
            if not isinstance(outcome, tuple) or len(outcome) != 5:
                count = len(outcome) if isinstance(outcome, tuple) else 1
                raise IncompatibleTask(
                    f"step() returns {count} values, not the 5 of gymnasium (observation, reward, terminated, "
                    f"truncated, info). {_REMEDY}"
                )
            observation, reward, terminated, truncated, _ = outcome
            self._observations[row] = self._observation(observation)
            rewards[row] = _scalar("reward", reward)
            self._terminated[row] = _flag("terminated", terminated)
            self._truncated[row] = _flag("truncated", truncated)

    def _observation(self, value: Any) -> Any:
        """Return an observation of the environment's shape; numpy would repeat a smaller one."""
        space = self.single_observation_space
        array = np.asarray(value)
        if array.shape != space.shape or array.dtype.kind not in "biuf":
            raise IncompatibleTask(
                f"an observation has shape {array.shape} and type {array.dtype}, its space is {space}. {_REMEDY}"
            )
        return array

    def _observe(self) -> NDArray[Any]:
        return self._observations.copy()

    def _picture(self, row: int) -> Frame:
        env = self._envs[row].unwrapped
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise IncompatibleTask(f"{type(env).__name__} draws no pictures: rgb_array is not in its render_modes.")
        env.render_mode = "rgb_array"  # it was made without, as training draws nothing
        return drawn(type(env).__name__, env.render)


def _scalar(name: str, value: Any) -> float:
    if np.shape(value) != () or not isinstance(value, int | float | np.number | np.bool_ | np.ndarray):
        raise IncompatibleTask(f"the {name} is {one_line(repr(value), 60)}, not a number. {_REMEDY}")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if _scalar(name, value) not in (0.0, 1.0):
        raise IncompatibleTask(f"{name} is {one_line(repr(value), 60)}, not true or false. {_REMEDY}")
    return bool(value)


def _own_precision(action: Any, space: gym.Space[Any]) -> Any:
    """Return the action in the environment's own precision; a bound that float32 rounds up is met exactly."""
    if not isinstance(space, gym.spaces.Box) or space.dtype == action.dtype:
        return action
    return np.clip(action.astype(space.dtype), space.low, space.high)
