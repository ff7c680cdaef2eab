"""Many games of one robot in lock step: gymnasium's own environment, one MuJoCo state for each game."""

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench.domains.d4rl.env_specs import Physics, Robot

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


_WHOLE = mujoco.mjtState.mjSTATE_INTEGRATION  # all that the next step depends on, MuJoCo's warm start included
_COUNTED = ("observations", "steps", "terminated", "earned")


class RobotGames(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """Play `num_envs` games of a robot; a finished game stands still until the next reset.

    A game is a MuJoCo state; all share one model, where SyncVectorEnv compiles one for each. Robots that walk are
    stepped by MuJoCo, which lets other threads work meanwhile, and judged all at once (`Locomotion`); others are
    stepped by gymnasium's environment, which is handed one state after another. Both give gymnasium's numbers to the
    bit, by any number of threads, and spend nothing on games that have ended. With `delayed`, the reward of a whole
    game comes with its last step (Chen et al. 2021, Table 7).
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(
        self,
        robot: Robot,
        num_envs: int,
        *,
        physics: Physics = "d4rl",
        delayed: bool = False,
        threads: int | None = None,
    ) -> None:
        """`threads` is how many step games at a time; None: as many as torch computes with."""
        self.num_envs, self.robot, self.delayed = num_envs, robot, delayed
        self.single_observation_space, self.single_action_space = robot.observation_space, robot.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._env: Any = robot.make(physics)
        self._rules = Locomotion(self._env, physics) if robot.name in WALKERS else None
        self._states = [mujoco.MjData(self._env.model) for _ in range(num_envs)]
        self._positions = np.zeros((num_envs, self._env.model.nq))
        self._velocities = np.zeros((num_envs, self._env.model.nv))
        self._threads = max(1, min(threads or torch.get_num_threads(), num_envs))
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
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
            self._positions[game], self._velocities[game] = self._env.data.qpos, self._env.data.qvel
        self._steps[chosen], self._terminated[chosen], self._earned[chosen] = 0, False, 0.0
        return self._observations.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the games that still run; the others give no reward and stay ended."""
        rewards = np.zeros(self.num_envs)
        games = np.flatnonzero(~self._ended)
        if self._rules is None:
            self._in_threads(self._play, games, actions, rewards)
        else:
            before = self._positions[games, 0]
            self._in_threads(self._simulate, games, actions)
            found = self._rules.outcome(before, self._positions[games], self._velocities[games], actions[games])
            self._observations[games], rewards[games] = found.observations, found.rewards
            self._terminated[games] = found.fallen
        self._steps[games] += 1
        if self.delayed:
            running = ~self._ended
            self._earned += rewards
            rewards = np.where(running, 0.0, self._earned)
            self._earned[~running] = 0.0
        truncated = (self._steps >= self.robot.horizon) & ~self._terminated
        return self._observations.copy(), rewards, self._terminated.copy(), truncated, {}

    def state(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs to let all games go on exactly as they are: plain arrays."""
        size = mujoco.mj_stateSize(self._env.model, _WHOLE)
        physics = np.zeros((self.num_envs, size))
        for game, state in enumerate(self._states):
            mujoco.mj_getState(self._env.model, state, physics[game], _WHOLE)
        return {"physics": physics, **{name: getattr(self, f"_{name}").copy() for name in _COUNTED}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Continue from what `state` gave for as many games of the same robot; give the present observations."""
        for game, physics in enumerate(state["physics"]):
            mujoco.mj_setState(self._env.model, self._states[game], physics, _WHOLE)
            self._positions[game], self._velocities[game] = self._states[game].qpos, self._states[game].qvel
        for name in _COUNTED:
            getattr(self, f"_{name}")[:] = state[name]
        return self._observations.copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()

    def _in_threads(self, work: Callable[..., None], games: NDArray[np.int64], *arguments: Any) -> None:
        """Do the work of a part of the games in each thread, this one included."""
        mine, *others = np.array_split(games, self._threads) if len(games) >= self._threads else [games]
        waiting = [self._pool.submit(work, part, *arguments) for part in others] if self._pool is not None else []
        work(mine, *arguments)
        for done in waiting:
            done.result()

    def _simulate(self, games: NDArray[np.int64], actions: NDArray[Any]) -> None:
        """Let MuJoCo step these games; what else gymnasium has it compute no observation and no reward reads."""
        model, frames = self._env.model, self._env.frame_skip
        for game in games.tolist():
            state = self._states[game]
            state.ctrl[:] = actions[game]
            mujoco.mj_step(model, state, nstep=frames)
            self._positions[game], self._velocities[game] = state.qpos, state.qvel

    def _play(self, games: NDArray[np.int64], actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        """Let gymnasium's environment step these games."""
        env = copy.copy(self._env)  # the same model, but another state in each thread
        for game in games.tolist():
            env.data = self._states[game]
            self._observations[game], rewards[game], self._terminated[game], _, _ = env.step(actions[game])

    @property
    def _ended(self) -> NDArray[np.bool_]:
        ended: NDArray[np.bool_] = self._terminated | (self._steps >= self.robot.horizon)
        return ended


def _many(seed: Any) -> bool:
    return seed is not None and not isinstance(seed, int | np.integer)
