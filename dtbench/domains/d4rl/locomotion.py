"""What a step of Hopper, HalfCheetah and Walker2d pays and shows: gymnasium's rules for many games at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtbench.domains.d4rl.robots import Physics

WALKERS = ("hopper", "halfcheetah", "walker2d")
FASTEST_SEEN = 10.0  # velocities of those that can fall are clipped for the observation


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step of n games."""

    observations: NDArray[np.float64]  # [n, size]
    rewards: NDArray[np.float64]  # [n]
    fallen: NDArray[np.bool_]  # [n]


class Locomotion:
    """The rules of one robot, with the numbers of the environment that it is given: gymnasium's to the bit.

    A step pays for speed and, where the robot can fall, for not having fallen; it costs the square of the torques.
    """

    def __init__(self, env: Any, physics: Physics) -> None:
        """`env` is gymnasium's; its settings are read at each step."""
        self.env, self.physics = env, physics
        self.can_fall = hasattr(env, "_healthy_reward")

    def outcome(
        self,
        before: NDArray[np.float64],
        positions: NDArray[np.float64],
        velocities: NDArray[np.float64],
        actions: NDArray[Any],
    ) -> Outcome:
        """Of steps from x = `before` [n] to these coordinates [n, coordinates] and velocities, by these torques."""
        env = self.env
        rewards = env._forward_reward_weight * ((positions[:, 0] - before) / env.dt)
        cost = env._ctrl_cost_weight * np.square(actions).sum(axis=1)
        fallen = np.zeros(len(before), bool)
        seen = velocities
        if self.can_fall:
            healthy = self._healthy(positions, velocities)
            rewarded = healthy if self.physics == "v5" else healthy | env._terminate_when_unhealthy
            rewards = rewards + rewarded * env._healthy_reward
            fallen = ~healthy & env._terminate_when_unhealthy
            seen = np.clip(velocities, -FASTEST_SEEN, FASTEST_SEEN)
        return Outcome(np.concatenate([positions[:, 1:], seen], axis=1), rewards - cost, fallen)

    def _healthy(self, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> NDArray[np.bool_]:
        env, (_, height, angle) = self.env, positions[:, :3].T
        healthy = _between(height, env._healthy_z_range) & _between(angle, env._healthy_angle_range)
        if hasattr(env, "_healthy_state_range"):  # Hopper's
            state = np.concatenate([positions[:, 2:], velocities], axis=1)
            healthy &= _between(state, env._healthy_state_range).all(axis=1)
        return healthy


def _between(values: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.bool_]:
    low, high = bounds
    return (low < values) & (values < high)
