"""Training of behaviour policies on the console's RAM: PPO of stable-baselines3, a snapshot every so many steps."""

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from dtbench.domains.atari.emulator import PROTOCOLS, RAM, Console, action_count
from dtbench.domains.atari.generation import FEATURES, RamPolicy, choose_policies, features

GAMES = 16  # at a time
# PPO as stable-baselines3 has it for Atari, but for a learning rate made for a perceptron.
SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 4e-4,
    "clip_range": 0.2,
    "ent_coef": 0.01,
    "policy_kwargs": {"net_arch": [256, 256], "activation_fn": torch.nn.ReLU},
}


def train_behavior(game: str, folder: Path, *, steps: int, seed: int = 0, snapshots: int = 60) -> None:
    """Train for `steps` agent steps on clipped rewards without sticky actions, and write a run to `folder`/seed<seed>.

    That is `snapshots` policies, curve.json (raw returns of the episodes that ended since the snapshot before) and
    training.json. Of all runs in `folder` the policies that make data are then chosen: `recording.choose_policies`.
    """
    torch.set_num_threads(1)
    run = folder / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS | {"policy_kwargs": {"net_arch": [256, 256], "activation_fn": "ReLU"}}
    record = {
        "game": game,
        "algorithm": "ppo",
        "steps": steps,
        "seed": seed,
        "snapshots": snapshots,
        "games": GAMES,
        "settings": settings,
        "protocol": "official-dt",
        "command": f"dtbench data train-behavior atari:{game} --steps {steps} --seed {seed} --snapshots {snapshots} "
        "--out FOLDER",
        "versions": {name: version(name) for name in ("stable-baselines3", "torch", "ale-py")},
    }
    (run / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    venv = _RamGames(game, GAMES)
    model = PPO("MlpPolicy", venv, seed=seed, device="cpu", **SETTINGS)
    model.learn(steps, callback=_Snapshots(run, every=max(1, steps // snapshots)))
    choose_policies(game, folder)


class _RamGames(VecEnv):  # type: ignore[misc]
    """Games as stable-baselines3 wants them: RAM in, rewards clipped to [-1, 1], a lost life ends an episode."""

    def __init__(self, game: str, num_envs: int) -> None:
        self.consoles = [Console(game, PROTOCOLS["official-dt"]) for _ in range(num_envs)]
        self.render_mode = None
        box = gym.spaces.Box(-1.0, 1.0, (FEATURES,), np.float32)
        super().__init__(num_envs, box, gym.spaces.Discrete(action_count(game)))
        self.returns: list[float] = []  # raw, of the games that ended
        self.lengths: list[int] = []
        self._rng = np.random.default_rng(0)
        self._actions: Any = None
        self._ram = np.zeros((num_envs, RAM), np.uint8)
        self._lives = np.zeros(num_envs, np.int64)
        self._earned = np.zeros(num_envs)
        self._steps = np.zeros(num_envs, np.int64)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        self._rng = np.random.default_rng(seed)
        return [seed] * self.num_envs

    def reset(self) -> Any:
        for game in range(self.num_envs):
            self._begin(game)
        return features(self._ram, self._ram)

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        before = self._ram.copy()
        rewards = np.zeros(self.num_envs, np.float32)
        ended = np.zeros(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for game, console in enumerate(self.consoles):
            reward = console.step(int(self._actions[game]), seen=False)
            rewards[game] = np.clip(reward, -1, 1)
            self._ram[game] = console.ram()
            self._earned[game] += reward
            self._steps[game] += 1
            over = console.terminated or console.truncated
            ended[game] = over or console.lives < self._lives[game]
            self._lives[game] = console.lives
            if ended[game]:
                last = features(self._ram[game : game + 1], before[game : game + 1])[0]
                infos[game] = {"terminal_observation": last, "TimeLimit.truncated": console.truncated}
            if over:
                self.returns.append(float(self._earned[game]))
                self.lengths.append(int(self._steps[game]))
                self._begin(game)
                before[game] = self._ram[game]
        return features(self._ram, before), rewards, ended, infos

    def close(self) -> None:
        self.consoles.clear()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def _begin(self, game: int) -> None:
        console = self.consoles[game]
        console.begin(int(self._rng.integers(2**31)))
        self._ram[game], self._lives[game] = console.ram(), console.lives
        self._earned[game], self._steps[game] = 0.0, 0


class _Snapshots(BaseCallback):  # type: ignore[misc]
    """Write the policy every `every` steps, with the returns of the games that ended meanwhile."""

    def __init__(self, folder: Path, *, every: int) -> None:
        super().__init__()
        self.folder, self.every, self.due = folder, every, 0
        self.curve: list[dict[str, float | None]] = []
        self.started = time.monotonic()

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.due:
            self.due = self.num_timesteps + self.every
            policy_of(self.model).save(self.folder / f"step-{self.num_timesteps:08d}.npz")
            games: Any = self.training_env
            self.curve.append(
                {
                    "step": self.num_timesteps,
                    "episodes": len(games.returns),
                    "return_mean": round(float(np.mean(games.returns)), 2) if games.returns else None,
                    "length_mean": round(float(np.mean(games.lengths)), 1) if games.lengths else None,
                    "seconds": round(time.monotonic() - self.started, 1),
                }
            )
            games.returns.clear()
            games.lengths.clear()
            (self.folder / "curve.json").write_text(json.dumps(self.curve, indent=1) + "\n")
        return True


def policy_of(model: Any) -> RamPolicy:
    """The policy of a PPO model with a perceptron."""
    stack = [m for m in model.policy.mlp_extractor.policy_net.modules() if isinstance(m, torch.nn.Linear)]
    layers = [*stack, model.policy.action_net]
    return RamPolicy([_array(layer.weight).T for layer in layers], [_array(layer.bias) for layer in layers])


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return array
