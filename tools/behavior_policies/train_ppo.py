"""Train behaviour policies by PPO of stable-baselines3, with regular snapshots: recipe `ppo`, and Atari's.

    pip install 'stable-baselines3>=2.6'
    python tools/behavior_policies/train_ppo.py hopper --steps 3000000 --snapshots 100 --out FOLDER
    python tools/behavior_policies/train_ppo.py atari:pong --steps 2400000 --snapshots 60 --out FOLDER

FOLDER/seed<seed> gets the policies, curve.json and training.json. Of all runs in FOLDER the policies that play are
then chosen (`choose_ppo`).
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from choose_ppo import choose_for_game, choose_for_robot, snapshot_name
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from dtbench.domains.atari.emulator import PROTOCOLS, RAM, AtariEmulator, action_count, check_game
from dtbench.domains.atari.generation import FEATURES, RamPolicy, features
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import REACHER, LocomotionEnv, locomotion_env
from dtbench.domains.d4rl.generation import BehaviorPolicy, mean_return

SNAPSHOT_EPISODES = 20
ENVIRONMENTS = 16  # stepped together
# stable-baselines3's defaults, but for more environments of fewer steps and a narrower initial policy.
ROBOT_SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 128,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -0.5},
}
REACHER_SETTINGS = {"n_steps": 100, "batch_size": 100}  # whole episodes
# stable-baselines3's settings for Atari, but for a learning rate that suits an MLP.
GAME_SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 4e-4,
    "clip_range": 0.2,
    "ent_coef": 0.01,
    "policy_kwargs": {"net_arch": [256, 256], "activation_fn": torch.nn.ReLU},
}


class TrainingEnvs(VecEnv):  # type: ignore[misc]
    """What stable-baselines3 wants of environments besides `reset` and `step_wait`."""

    def __init__(self, num_envs: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.render_mode = None
        super().__init__(num_envs, observation_space, action_space)
        self._actions: Any = None
        self._seed: int | None = None

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        self._seed = seed
        return [seed] * self.num_envs

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class RobotEnvs(TrainingEnvs):
    """Robots whose ended episodes restart at once."""

    def __init__(self, robot: LocomotionEnv, num_envs: int) -> None:
        self.envs = LocomotionVectorEnv(robot, num_envs)
        super().__init__(num_envs, self.envs.single_observation_space, self.envs.single_action_space)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)

    def reset(self) -> Any:
        return self.envs.reset(seed=self._seed)[0]

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, _ = self.envs.step(self._actions)
        if self.envs.robot.name == REACHER:
            # Its reward is too rare to learn from alone; the data is recorded with the true one.
            rewards = rewards - 0.5 * np.abs(observations[:, -2:]).sum(axis=1)
        self._returns += rewards
        self._lengths += 1
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ended):
            episode = {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": 0.0}
            final = {"terminal_observation": observations[row].copy(), "TimeLimit.truncated": bool(truncated[row])}
            infos[row] = {**final, "episode": episode}
        if ended.any():
            observations, _ = self.envs.reset(options={"reset_mask": ended})
            self._returns[ended], self._lengths[ended] = 0, 0
        return observations, rewards.astype(np.float32), ended, infos


class RamEnvs(TrainingEnvs):
    """Emulators whose RAM is observed; rewards are clipped to [-1, 1], and a lost life ends an episode."""

    def __init__(self, game: str, num_envs: int) -> None:
        self.emulators = [AtariEmulator(game, PROTOCOLS["official-dt"]) for _ in range(num_envs)]
        box = gym.spaces.Box(-1.0, 1.0, (FEATURES,), np.float32)
        super().__init__(num_envs, box, gym.spaces.Discrete(action_count(game)))
        self.returns: list[float] = []  # raw, of the episodes that ended
        self.lengths: list[int] = []
        self._rng = np.random.default_rng(0)
        self._ram = np.zeros((num_envs, RAM), np.uint8)
        self._lives = np.zeros(num_envs, np.int64)
        self._earned = np.zeros(num_envs)
        self._steps = np.zeros(num_envs, np.int64)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        self._rng = np.random.default_rng(seed)
        return super().seed(seed)

    def reset(self) -> Any:
        for row in range(self.num_envs):
            self._restart(row)
        return features(self._ram, self._ram)

    def step_wait(self) -> Any:
        before = self._ram.copy()
        rewards = np.zeros(self.num_envs, np.float32)
        ended = np.zeros(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row, emulator in enumerate(self.emulators):
            reward = emulator.step(int(self._actions[row]), seen=False)
            rewards[row] = np.clip(reward, -1, 1)
            self._ram[row] = emulator.ram()
            self._earned[row] += reward
            self._steps[row] += 1
            over = emulator.terminated or emulator.truncated
            ended[row] = over or emulator.lives < self._lives[row]
            self._lives[row] = emulator.lives
            if ended[row]:
                last = features(self._ram[row : row + 1], before[row : row + 1])[0]
                infos[row] = {"terminal_observation": last, "TimeLimit.truncated": emulator.truncated}
            if over:
                self.returns.append(float(self._earned[row]))
                self.lengths.append(int(self._steps[row]))
                self._restart(row)
                before[row] = self._ram[row]
        return features(self._ram, before), rewards, ended, infos

    def _restart(self, row: int) -> None:
        emulator = self.emulators[row]
        emulator.begin(int(self._rng.integers(2**31)))
        self._ram[row], self._lives[row] = emulator.ram(), emulator.lives
        self._earned[row], self._steps[row] = 0.0, 0


class Snapshots(BaseCallback):  # type: ignore[misc]
    """Write the policy every `every` steps, and what `measure` returns of it to curve.json."""

    def __init__(self, folder: Path, *, every: int, measure: Callable[[Any, Path], Mapping[str, Any]]) -> None:
        super().__init__()
        self.folder, self.every, self.measure, self.due = folder, every, measure, 0
        self.curve: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.due:
            self.due = self.num_timesteps + self.every
            row = {"step": self.num_timesteps}
            row |= self.measure(self.model, self.folder / snapshot_name(self.num_timesteps))
            self.curve.append({**row, "seconds": round(time.monotonic() - self.started, 1)})
            (self.folder / "curve.json").write_text(json.dumps(self.curve, indent=1) + "\n")
        return True


def train_robot(robot: LocomotionEnv, folder: Path, *, steps: int, seed: int, snapshots: int) -> None:
    """Train on a robot's environments, then choose its medium, expert and replay policies."""
    settings = ROBOT_SETTINGS | (REACHER_SETTINGS if robot.name == REACHER else {})

    def measure(model: Any, path: Path) -> dict[str, float]:
        policy = robot_policy(model)
        policy.save(path)
        mean, std = mean_return(robot, policy, episodes=SNAPSHOT_EPISODES, seed=0)
        return {"return_mean": round(mean, 2), "return_std": round(std, 2)}

    run = _start_run(folder, {"robot": robot.name}, steps=steps, seed=seed, snapshots=snapshots, settings=settings)
    model = PPO("MlpPolicy", VecNormalize(RobotEnvs(robot, ENVIRONMENTS)), seed=seed, device="cpu", **settings)
    model.learn(steps, callback=Snapshots(run, every=max(1, steps // snapshots), measure=measure))
    choose_for_robot(robot, folder)


def train_game(game: str, folder: Path, *, steps: int, seed: int, snapshots: int) -> None:
    """Train on a game's RAM, then choose policies that are evenly spread over skill."""
    envs = RamEnvs(game, ENVIRONMENTS)

    def measure(model: Any, path: Path) -> dict[str, float | None]:
        ram_policy(model).save(path)
        row = {
            "episodes": len(envs.returns),
            "return_mean": round(float(np.mean(envs.returns)), 2) if envs.returns else None,
            "length_mean": round(float(np.mean(envs.lengths)), 1) if envs.lengths else None,
        }
        envs.returns.clear()
        envs.lengths.clear()
        return row

    run = _start_run(folder, {"game": game}, steps=steps, seed=seed, snapshots=snapshots, settings=GAME_SETTINGS)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **GAME_SETTINGS)
    model.learn(steps, callback=Snapshots(run, every=max(1, steps // snapshots), measure=measure))
    choose_for_game(game, folder)


def robot_policy(model: Any) -> BehaviorPolicy:
    """Return the policy of a PPO model with an MLP and normalized observations."""
    layers = _linear_layers(model)
    statistics = model.get_vec_normalize_env().obs_rms
    return BehaviorPolicy(
        mean=statistics.mean.astype(np.float32),
        scale=np.sqrt(statistics.var + 1e-8).astype(np.float32),
        weights=[_array(layer.weight).T for layer in layers],
        biases=[_array(layer.bias) for layer in layers],
        activation="tanh",
        squash=False,
        log_std=_array(model.policy.log_std),
    )


def ram_policy(model: Any) -> RamPolicy:
    """Return the policy of a PPO model with an MLP."""
    layers = _linear_layers(model)
    return RamPolicy([_array(layer.weight).T for layer in layers], [_array(layer.bias) for layer in layers])


def _linear_layers(model: Any) -> list[torch.nn.Linear]:
    hidden = model.policy.mlp_extractor.policy_net.modules()
    return [*(layer for layer in hidden if isinstance(layer, torch.nn.Linear)), model.policy.action_net]


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return array


def _start_run(folder: Path, player: Mapping[str, str], *, settings: Mapping[str, Any], **options: int) -> Path:
    """Create the run's folder with training.json."""
    run = folder / f"seed{options['seed']}"
    run.mkdir(parents=True, exist_ok=True)
    (name,) = (f"atari:{value}" if kind == "game" else value for kind, value in player.items())
    record = {
        **player,
        "algorithm": "ppo",
        **options,
        "environments": ENVIRONMENTS,
        "settings": json.loads(json.dumps(settings, default=lambda kind: kind.__name__)),
        "command": " ".join(
            ["python tools/behavior_policies/train_ppo.py", name, *(f"--{k} {v}" for k, v in options.items())]
        )
        + " --out FOLDER",
        "versions": {name: version(name) for name in ("stable-baselines3", "torch", "mujoco", "gymnasium", "ale-py")},
    }
    (run / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return run


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("player", help="hopper, halfcheetah, walker2d, reacher2d, or atari:GAME.")
    parser.add_argument("--steps", type=int, required=True, help="Environment steps.")
    parser.add_argument("--out", type=Path, required=True, help="Directory of all runs.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshots", type=int, default=50, help="Policies to keep along the way.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = {"steps": arguments.steps, "seed": arguments.seed, "snapshots": arguments.snapshots}
    if arguments.player.startswith("atari:"):
        game = arguments.player.removeprefix("atari:")
        check_game(game)
        train_game(game, arguments.out, **options)
    else:
        train_robot(locomotion_env(arguments.player), arguments.out, **options)


if __name__ == "__main__":
    main()
