"""Many episodes of a robot in lock step, with one MuJoCo state each and gymnasium's rules."""

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from dtbench.domains.d4rl.env_specs import LocomotionEnv, Physics
from dtbench.domains.lockstep import Frame, LockstepVectorEnv, Mask
from dtbench.domains.offscreen import drawn

WALKERS = ("hopper", "halfcheetah", "walker2d")
VELOCITY_CLIP = 10.0  # of observations of robots that can fall


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one step of n episodes."""

    observations: NDArray[np.float64]  # [n, size]
    rewards: NDArray[np.float64]  # [n]
    fallen: NDArray[np.bool_]  # [n]


class LocomotionRules:
    """Rewards, observations and ends of one robot, equal to gymnasium's to the bit.

    The reward is speed, a bonus where the robot can fall and has not, and minus the square of the torques.
    """

    def __init__(self, env: Any, physics: Physics) -> None:
        """Read the settings of gymnasium's `env` at each step."""
        self.env, self.physics = env, physics
        self.can_fall = hasattr(env, "_healthy_reward")

    def outcome(
        self,
        before: NDArray[np.float64],
        positions: NDArray[np.float64],
        velocities: NDArray[np.float64],
        actions: NDArray[Any],
    ) -> Outcome:
        """Return the outcome of steps from x = `before` [n] to positions and velocities [n, coordinates]."""
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
            seen = np.clip(velocities, -VELOCITY_CLIP, VELOCITY_CLIP)
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


_WHOLE = mujoco.mjtState.mjSTATE_INTEGRATION  # with MuJoCo's warm start
_COUNTED = ("observations", "steps", "terminated", "earned")


class LocomotionVectorEnv(LockstepVectorEnv):
    """Run `num_envs` episodes of a robot.

    An episode is a MuJoCo state; all share one model, where SyncVectorEnv compiles one for each. Robots that walk are
    stepped by MuJoCo in threads and judged together (`LocomotionRules`); others are stepped by gymnasium's
    environment. Both give gymnasium's numbers to the bit with any number of threads, and skip ended episodes. With
    `delayed`, an episode's reward comes with its last step (Chen et al. 2021, Table 7).
    """

    def __init__(
        self,
        robot: LocomotionEnv,
        num_envs: int,
        *,
        physics: Physics = "d4rl",
        delayed: bool = False,
        threads: int | None = None,
    ) -> None:
        """Make the states; `threads` is by default torch's number of threads."""
        super().__init__(num_envs, robot.observation_space, robot.action_space)
        self.robot, self.delayed = robot, delayed
        self._env: Any = robot.make(physics)
        self.frames_per_second = 1 / self._env.dt
        self._rules = LocomotionRules(self._env, physics) if robot.name in WALKERS else None
        self._states = [mujoco.MjData(self._env.model) for _ in range(num_envs)]
        self._positions = np.zeros((num_envs, self._env.model.nq))
        self._velocities = np.zeros((num_envs, self._env.model.nv))
        self._threads = max(1, min(threads or torch.get_num_threads(), num_envs))
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._observations = np.zeros((num_envs, robot.observation_size), np.float32)
        self._steps = np.zeros(num_envs, np.int64)
        self._earned = np.zeros(num_envs)

    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        for row in rows:
            self._env.data = self._states[row]
            self._observations[row], _ = self._env.reset(seed=seeds[row])
            self._positions[row], self._velocities[row] = self._env.data.qpos, self._env.data.qvel
        self._steps[rows], self._earned[rows] = 0, 0.0

    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        rows = np.flatnonzero(running)
        if self._rules is None:
            self._in_threads(self._play, rows, actions, rewards)
        else:
            before = self._positions[rows, 0]
            self._in_threads(self._simulate, rows, actions)
            outcome = self._rules.outcome(before, self._positions[rows], self._velocities[rows], actions[rows])
            self._observations[rows], rewards[rows] = outcome.observations, outcome.rewards
            self._terminated[rows] = outcome.fallen
        self._steps[rows] += 1
        self._truncate()
        if self.delayed:
            ended = self._terminated | self._truncated
            self._earned += rewards
            rewards[:] = np.where(ended, self._earned, 0.0)
            self._earned[ended] = 0.0

    def _observe(self) -> NDArray[np.float32]:
        return self._observations.copy()

    def _picture(self, row: int) -> Frame:
        return drawn(self.robot.name, lambda: self._draw(self._states[row]))

    def _draw(self, state: mujoco.MjData) -> Any:
        renderer = self._env.mujoco_renderer
        renderer.data = state  # of the viewer that is made with the first picture
        renderer._get_viewer("rgb_array").data = state
        return renderer.render("rgb_array")

    def _truncate(self) -> None:
        self._truncated[:] = (self._steps >= self.robot.horizon) & ~self._terminated

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state of all episodes as arrays, for `restore`."""
        size = mujoco.mj_stateSize(self._env.model, _WHOLE)
        physics = np.zeros((self.num_envs, size))
        for row, state in enumerate(self._states):
            mujoco.mj_getState(self._env.model, state, physics[row], _WHOLE)
        return {"physics": physics, **{name: getattr(self, f"_{name}").copy() for name in _COUNTED}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Continue exactly from a `state` of equally many episodes; return the present observations."""
        for row, physics in enumerate(state["physics"]):
            mujoco.mj_setState(self._env.model, self._states[row], physics, _WHOLE)
            self._positions[row], self._velocities[row] = self._states[row].qpos, self._states[row].qvel
        for name in _COUNTED:
            getattr(self, f"_{name}")[:] = state[name]
        self._truncate()
        return self._observe()

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads and free what pictures took."""
        self._env.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _in_threads(self, work: Callable[..., None], rows: NDArray[np.int64], *arguments: Any) -> None:
        """Split the rows over the threads, this one included."""
        mine, *others = np.array_split(rows, self._threads) if len(rows) >= self._threads else [rows]
        waiting = [self._pool.submit(work, part, *arguments) for part in others] if self._pool is not None else []
        work(mine, *arguments)
        for done in waiting:
            done.result()

    def _simulate(self, rows: NDArray[np.int64], actions: NDArray[Any]) -> None:
        """Step with MuJoCo alone, without the quantities that gymnasium computes and nothing reads."""
        model, frames = self._env.model, self._env.frame_skip
        for row in rows.tolist():
            state = self._states[row]
            state.ctrl[:] = actions[row]
            mujoco.mj_step(model, state, nstep=frames)
            self._positions[row], self._velocities[row] = state.qpos, state.qvel

    def _play(self, rows: NDArray[np.int64], actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        """Step with gymnasium's environment."""
        env = copy.copy(self._env)  # the same model, but another state in each thread
        for row in rows.tolist():
            env.data = self._states[row]
            self._observations[row], rewards[row], self._terminated[row], _, _ = env.step(actions[row])
