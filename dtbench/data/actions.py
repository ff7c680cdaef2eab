"""The action scale of learners: to them every Box of actions is [-1, 1]."""

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import Array, TrajectoryDataset
from dtbench.errors import IncompatibleTask

NO_BOUND = 2.0**31 - 1  # the largest int32: a bound as far out is none, nor is float32's largest number


@dataclass(frozen=True, slots=True)
class ActionScale:
    """The affine map between a Box of actions and [-1, 1], and its inverse, which clips to the Box."""

    space: gym.spaces.Box
    low: NDArray[np.float64]  # [*action]: the Box's, or the data's lowest where it has none
    high: NDArray[np.float64]  # [*action]

    def to_unit(self, actions: Array) -> Array:
        """Map actions [..., *action] of the Box to [-1, 1], in float32; a number with one value only becomes 0."""
        if is_unit(self.space):
            return actions
        width = self._width
        unit = 2 * (np.asarray(actions, np.float64) - self.low) / np.where(width > 0, width, 1) - 1
        return np.where(width > 0, unit.clip(-1, 1), 0).astype(np.float32)

    def to_box(self, actions: Array) -> Array:
        """Map a learner's actions to the Box: clipped, whole numbers where it has integers, in its dtype."""
        kind: np.dtype[Any] = np.dtype(self.space.dtype)
        values = actions if is_unit(self.space) else self.low + (actions.astype(np.float64) + 1) / 2 * self._width
        clipped = np.clip(values, self.low, self.high)
        return (clipped if kind.kind == "f" else np.rint(clipped)).astype(kind)

    @property
    def has_bounds(self) -> bool:
        """Return whether all bounds are the Box's."""
        return bool((self.space.low > -NO_BOUND).all() and (self.space.high < NO_BOUND).all())

    @property
    def _width(self) -> NDArray[np.float64]:
        return self.high - self.low


def action_scale(space: gym.Space[Any], actions: Array | None = None) -> ActionScale | None:
    """Return the scale of a Box, None of discrete actions.

    `actions` are those of the data, whose range stands in for missing bounds; raises IncompatibleTask where a bound is
    missing and they are too.
    """
    if not isinstance(space, gym.spaces.Box):
        return None
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    open_low, open_high = low <= -NO_BOUND, high >= NO_BOUND
    if (open_low | open_high).any():
        if actions is None:
            raise IncompatibleTask(f"{space} has no bounds to scale actions by. Evaluate with the data: dataset=...")
        low = np.where(open_low, np.min(actions, axis=0), low)
        high = np.where(open_high, np.max(actions, axis=0), high)
    return ActionScale(space, low, np.maximum(low, high))


def is_unit(space: gym.Space[Any]) -> bool:
    """Return whether learners see this space as it is: discrete actions, or a Box of [-1, 1] without integers."""
    if not isinstance(space, gym.spaces.Box):
        return True
    return bool(np.dtype(space.dtype).kind == "f" and (space.low == -1).all() and (space.high == 1).all())


def unit_actions(dataset: TrajectoryDataset) -> TrajectoryDataset:
    """Return the data as learners see them: actions of a Box in [-1, 1]. Digest and provenance stay."""
    scale = action_scale(dataset.action_space, dataset.actions)
    if scale is None or is_unit(dataset.action_space):
        return dataset
    space = gym.spaces.Box(-1, 1, dataset.action_space.shape, np.float32)
    return replace(dataset, actions=scale.to_unit(dataset.actions), action_space=space)


def require_unit(algorithm: str, space: gym.Space[Any]) -> None:
    """Raise IncompatibleTask for a Box that is not [-1, 1], in which learners predict actions."""
    if not is_unit(space):
        raise IncompatibleTask(f"{algorithm} needs actions in [-1, 1], not {space}: use data.unit_actions(dataset).")
