"""Training of behaviour policies with stable-baselines3: PPO or SAC, a snapshot every so many steps."""

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from dtbench.domains.d4rl.env import RobotGames
from dtbench.domains.d4rl.env_specs import REACHER, Robot
from dtbench.domains.d4rl.generation import BehaviorPolicy, mean_return
from dtbench.domains.d4rl.selection import MEDIUM, choose_policies
from dtbench.errors import UnknownName

SNAPSHOT_EPISODES = 20
GAMES = 16  # at a time
# PPO as stable-baselines3 has it, but for more games of fewer steps and a narrower first policy; SAC as it has it.
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {
        "n_steps": 128,
        "batch_size": 128,
        "n_epochs": 10,
        "learning_rate": 3e-4,
        "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -0.5},
    },
    "sac": {"train_freq": 1, "gradient_steps": 4},
}
REACHER_SETTINGS = {"n_steps": 100, "batch_size": 100}  # whole episodes


def train_behavior(
    robot: Robot, folder: Path, *, algorithm: str = "ppo", steps: int, seed: int = 0, snapshots: int = 100
) -> None:
    """Train for `steps` environment steps; write `snapshots` policies, curve.json and training.json to a run's folder.

    That is `folder`/seed<seed>. Among all runs in `folder` the medium, expert and replay policies are then chosen: see
    `selection.choose_policies`.
    Raises UnknownName for an algorithm that is neither "ppo" nor "sac".
    """
    if algorithm not in SETTINGS:
        raise UnknownName("algorithm to train behaviour with", algorithm, SETTINGS)
    torch.set_num_threads(1)
    settings = SETTINGS[algorithm] | (REACHER_SETTINGS if algorithm == "ppo" and robot.name == REACHER else {})
    run = folder / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    record = {
        "robot": robot.name,
        "algorithm": algorithm,
        "steps": steps,
        "seed": seed,
        "snapshots": snapshots,
        "games": GAMES,
        "settings": settings,
        "physics": "d4rl",
        "command": f"dtbench data train-behavior {robot.name} --algorithm {algorithm} --steps {steps} --seed {seed} "
        f"--snapshots {snapshots} --out FOLDER",
        "versions": {name: version(name) for name in ("stable-baselines3", "torch", "mujoco", "gymnasium")},
    }
    (run / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    venv: VecEnv = _TrainingGames(RobotGames(robot, GAMES))
    if algorithm == "ppo":
        venv = VecNormalize(venv)
        model: Any = PPO("MlpPolicy", venv, seed=seed, device="cpu", **settings)
    else:
        model = SAC("MlpPolicy", venv, seed=seed, device="cpu", **settings)
    model.learn(steps, callback=_Snapshots(robot, run, every=max(1, steps // snapshots)))
    choose_policies(robot, folder, medium=MEDIUM[robot.name])


class _Snapshots(BaseCallback):  # type: ignore[misc]
    """Write the policy and its mean return every `every` steps."""

    def __init__(self, robot: Robot, folder: Path, *, every: int) -> None:
        super().__init__()
        self.robot, self.folder, self.every, self.due = robot, folder, every, 0
        self.curve: list[dict[str, float]] = []
        self.started = time.monotonic()

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.due:
            self.due = self.num_timesteps + self.every
            policy = policy_of(self.model)
            policy.save(self.folder / f"step-{self.num_timesteps:08d}.npz")
            mean, std = mean_return(self.robot, policy, episodes=SNAPSHOT_EPISODES, seed=0)
            row = {"step": self.num_timesteps, "return_mean": round(mean, 2), "return_std": round(std, 2)}
            self.curve.append({**row, "seconds": round(time.monotonic() - self.started, 1)})
            (self.folder / "curve.json").write_text(json.dumps(self.curve, indent=1) + "\n")
        return True


def policy_of(model: Any) -> BehaviorPolicy:
    """The policy of a PPO or SAC model with a perceptron."""
    if isinstance(model, SAC):
        actor: Any = model.actor
        layers = [*_linears(actor.latent_pi), _joined(actor.mu, actor.log_std)]
        size = layers[0].in_features
        mean, scale = np.zeros(size, np.float32), np.ones(size, np.float32)
        activation, squash, log_std = "relu", True, None
    else:
        policy: Any = model.policy
        layers = [*_linears(policy.mlp_extractor.policy_net), policy.action_net]
        statistics = model.get_vec_normalize_env().obs_rms
        mean = statistics.mean.astype(np.float32)
        scale = np.sqrt(statistics.var + 1e-8).astype(np.float32)
        activation, squash, log_std = "tanh", False, _array(policy.log_std)
    return BehaviorPolicy(
        mean=mean,
        scale=scale,
        weights=[_array(layer.weight).T for layer in layers],
        biases=[_array(layer.bias) for layer in layers],
        activation=activation,
        squash=squash,
        log_std=log_std,
    )


def _linears(stack: nn.Module) -> list[nn.Linear]:
    return [module for module in stack.modules() if isinstance(module, nn.Linear)]


def _joined(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    joined = nn.Linear(first.in_features, first.out_features + second.out_features)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([first.weight, second.weight]))
        joined.bias.copy_(torch.cat([first.bias, second.bias]))
    return joined


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return array


class _TrainingGames(VecEnv):  # type: ignore[misc]
    """RobotGames as stable-baselines3 wants them: an ended game begins anew at once."""

    def __init__(self, games: RobotGames) -> None:
        self.games = games
        self.render_mode = None
        super().__init__(games.num_envs, games.single_observation_space, games.single_action_space)
        self._actions: Any = None
        self._seed: int | None = None
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        self._seed = seed
        return [seed] * self.num_envs

    def reset(self) -> Any:
        return self.games.reset(seed=self._seed)[0]

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, _ = self.games.step(self._actions)
        if self.games.robot.name == REACHER:
            # Its reward is too rare to learn from alone; the data is recorded with the true one.
            rewards = rewards - 0.5 * np.abs(observations[:, -2:]).sum(axis=1)
        self._returns += rewards
        self._lengths += 1
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for game in np.flatnonzero(ended):
            episode = {"r": float(self._returns[game]), "l": int(self._lengths[game]), "t": 0.0}
            final = {"terminal_observation": observations[game].copy(), "TimeLimit.truncated": bool(truncated[game])}
            infos[game] = {**final, "episode": episode}
        if ended.any():
            observations, _ = self.games.reset(options={"reset_mask": ended})
            self._returns[ended], self._lengths[ended] = 0, 0
        return observations, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        self.games.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
