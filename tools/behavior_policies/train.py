"""Train one SAC run of a robot from uniform warm-up on, keep with regular snapshots, resume after a kill.

    python tools/behavior_policies/train.py hopper --out FOLDER [--steps 1000000] [--seed 0] [--set learning_rate=3e-4]

FOLDER holds training.json, curve.json, the policies as snapshots/step-XXXXXXXX.npz (two bytes a weight), and
checkpoint.pt, from which the same command continues to the very numbers of a run that was not stopped.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from baselines.networks import ObservationScale
from baselines.sac import SAC, SACLearner
from dtbench.data import Transitions, generator
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS, REACHER, LocomotionEnv, locomotion_env
from dtbench.domains.d4rl.generation import BehaviorPolicy, mean_return

Array = NDArray[Any]


@dataclass(frozen=True)
class Training:
    """The settings of one run. Steps are environment steps over all environments together."""

    robot: str
    seed: int = 0
    steps: int = 1_000_000
    environments: int = 8  # stepped together
    warmup: int = 10_000  # uniform actions, as in SpinningUp and stable-baselines3
    updates_per_step: float = 0.5
    width: int = 192  # of the critics
    actor_width: int = 128
    batch_size: int = 128
    learning_rate: float = 1e-3  # at first; it falls linearly
    last_learning_rate: float = 1e-4
    snapshot_every: int = 2_000  # until `dense_until`
    dense_until: int = 400_000
    sparse_every: int = 10_000
    evaluate_every: int = 20_000
    evaluation_episodes: int = 10
    checkpoint_every: int = 20_000


class ReplayBuffer:
    """Every transition of the run, drawn uniformly."""

    def __init__(self, robot: LocomotionEnv, capacity: int, rng: np.random.Generator, *, batch_size: int) -> None:
        self.rng, self.size, self.batch_size = rng, 0, batch_size
        shapes = {"observations": robot.observation_size, "actions": robot.action_size, "rewards": 0}
        shapes |= {"next_observations": robot.observation_size, "terminals": 0}
        self.arrays = {name: torch.zeros((capacity, n) if n else (capacity,)) for name, n in shapes.items()}
        self.arrays["terminals"] = self.arrays["terminals"].bool()

    def add(self, **rows: Array) -> None:
        """Append rows of each array."""
        end = self.size + len(rows["rewards"])
        for name, values in rows.items():
            self.arrays[name][self.size : end] = torch.from_numpy(values)
        self.size = end

    def sample(self, batches: int = 1) -> Transitions:
        """Draw the transitions of some batches with replacement."""
        drawn = torch.from_numpy(self.rng.integers(self.size, size=batches * self.batch_size))
        return Transitions(**{name: values.index_select(0, drawn) for name, values in self.arrays.items()})


class Run:
    """One run with all that its checkpoint holds."""

    def __init__(self, training: Training, folder: Path) -> None:
        self.training, self.folder, self.robot = training, folder, locomotion_env(training.robot)
        t, robot = training, self.robot
        algorithm = SAC(
            hidden_size=t.width,
            actor_hidden_size=t.actor_width,
            batch_size=t.batch_size,
            learning_rate=t.learning_rate,
        )
        self.rng = generator(t.seed, 41)
        self.replay = ReplayBuffer(robot, t.steps, generator(t.seed, 42), batch_size=t.batch_size)
        self.learner = SACLearner(
            algorithm,
            (robot.observation_size, robot.action_size),
            sampler=self.replay,
            scale=ObservationScale(),
            seed=t.seed,
            device=torch.device("cpu"),
            ahead=1,  # the buffer grows between two batches
        )
        self.games = LocomotionVectorEnv(robot, t.environments, threads=1)
        self.present = self.games.reset(seed=self._seeds(t.environments))[0]
        self.step, self.seconds = 0, 0.0
        self.returns = np.zeros(t.environments)
        self.ended: list[float] = []
        self.curve: list[dict[str, Any]] = []

    def train(self) -> None:
        """Train until the last step, from the checkpoint where there is one."""
        self._open()
        started = time.monotonic() - self.seconds
        while self.step < self.training.steps:
            if self.step == 0:
                self._snapshot()
            before = self.step
            self._play()
            self._learn()
            self.seconds = time.monotonic() - started
            if self._due(before, self._snapshot_interval):
                self._snapshot()
            if self._due(before, self.training.checkpoint_every) or self.step >= self.training.steps:
                self._save()

    @property
    def _snapshot_interval(self) -> int:
        t = self.training
        return t.snapshot_every if self.step <= t.dense_until else t.sparse_every

    def _due(self, before: int, every: int) -> bool:
        return self.step // every > before // every

    def _seeds(self, count: int) -> list[int]:
        return [int(seed) for seed in self.rng.integers(2**31, size=count)]

    def _play(self) -> None:
        """Step every environment once and begin ended episodes again."""
        count, size = self.training.environments, self.robot.action_size
        if self.step < self.training.warmup:
            actions = self.rng.uniform(-1, 1, (count, size)).astype(np.float32)
        else:
            noise = torch.from_numpy(self.rng.standard_normal((count, size), np.float32))
            with torch.no_grad():
                policy = self.learner.network.policy(torch.from_numpy(self.present))
                actions = (policy.mean + policy.log_std.exp() * noise).tanh().numpy()
        following, rewards, terminated, truncated, _ = self.games.step(actions)
        self.replay.add(
            observations=self.present,
            actions=actions,
            rewards=rewards.astype(np.float32),
            next_observations=following,
            terminals=terminated,
        )
        self.returns += rewards
        self.step += count
        ended = terminated | truncated
        if ended.any():
            self.ended += self.returns[ended].tolist()
            self.returns[ended] = 0
            following, _ = self.games.reset(seed=self._seeds(count), options={"reset_mask": ended})
        self.present = following

    def _learn(self) -> None:
        t = self.training
        if self.step < t.warmup:
            return
        rate = t.learning_rate + (t.last_learning_rate - t.learning_rate) * min(1, self.step / t.steps)
        for group in self.learner.optimizer.param_groups:
            group["lr"] = rate
        while self.learner.steps < (self.step - t.warmup) * t.updates_per_step:
            self.learner.update()

    def policy(self) -> BehaviorPolicy:
        """Return the policy as it is now."""
        size = self.robot.observation_size
        layers = [layer for layer in self.learner.network.actor if isinstance(layer, nn.Linear)]
        return BehaviorPolicy(
            mean=np.zeros(size, np.float32),
            scale=np.ones(size, np.float32),
            weights=[layer.weight.detach().T.numpy().copy() for layer in layers],
            biases=[layer.bias.detach().numpy().copy() for layer in layers],
            activation="relu",
            squash=True,
            log_std=None,
            clip=np.inf,
        )

    def _snapshot(self) -> None:
        t = self.training
        policy = self.policy()
        policy.save(self.folder / "snapshots" / f"step-{self.step:08d}.npz")
        row: dict[str, Any] = {"step": self.step, "updates": self.learner.steps, "seconds": round(self.seconds, 1)}
        row["training_episodes"] = len(self.ended)
        row["training_return"] = round(float(np.mean(self.ended)), 2) if self.ended else None
        if self.step % t.evaluate_every == 0:
            mean, std = mean_return(self.robot, policy, episodes=t.evaluation_episodes, seed=0)
            row |= {"return_mean": round(mean, 2), "return_std": round(std, 2)}
            print(json.dumps(row), flush=True)
        self.ended = []
        self.curve.append(row)

    def _save(self) -> None:
        """Write checkpoint and curve, each whole or not at all."""
        replay = {name: values[: self.replay.size] for name, values in self.replay.arrays.items()}
        state = {
            "learner": self.learner.state_dict(),
            "replay": replay,
            "games": {name: torch.from_numpy(values) for name, values in self.games.state().items()},
            "present": torch.from_numpy(self.present),
            "returns": torch.from_numpy(self.returns),
            "rng": self.rng.bit_generator.state,
            "counters": (self.step, self.seconds),
            "ended": self.ended,
            "curve": self.curve,
        }
        temporary = self.folder / ".checkpoint.pt"
        torch.save(state, temporary)
        temporary.replace(self.folder / "checkpoint.pt")
        write_json(self.folder / "curve.json", self.curve)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        described = describe(self.training)
        record = self.folder / "training.json"
        if record.exists() and json.loads(record.read_text())["settings"] != described["settings"]:
            raise SystemExit(f"{record} is of other settings. Choose another --out.")
        write_json(record, described)
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.learner.load_state_dict(state["learner"])
        self.replay.add(**{name: values.numpy() for name, values in state["replay"].items()})
        self.games.restore({name: values.numpy() for name, values in state["games"].items()})
        self.present, self.returns = state["present"].numpy(), state["returns"].numpy()
        self.rng.bit_generator.state = state["rng"]
        self.step, self.seconds = state["counters"]
        self.ended, self.curve = state["ended"], state["curve"]
        print(f"continues at step {self.step}", flush=True)


def describe(training: Training) -> dict[str, Any]:
    """Return what training.json says of a run."""
    return {
        "robot": training.robot,
        "algorithm": "sac",
        "settings": asdict(training),
        "physics": "d4rl",
        "command": " ".join(["python tools/behavior_policies/train.py", training.robot, *_arguments(training)]),
        "versions": {name: version(name) for name in ("torch", "mujoco", "gymnasium", "numpy")},
    }


def _arguments(training: Training) -> list[str]:
    """Return what the command line says beyond the defaults."""
    default = Training(training.robot)
    changed = {name: value for name, value in asdict(training).items() if value != getattr(default, name)}
    plain = [f"--{name} {changed.pop(name)}" for name in ("steps", "seed") if name in changed]
    return [*plain, *(f"--set {name}={value}" for name, value in changed.items()), "--out FOLDER"]


def _setting(text: str) -> tuple[str, int | float]:
    """NAME=VALUE with a number of the kind that the setting has."""
    name, _, value = text.partition("=")
    default = getattr(Training("hopper"), name, None)
    if not isinstance(default, int | float):
        known = ", ".join(field for field, value in asdict(Training("hopper")).items() if value != "hopper")
        raise argparse.ArgumentTypeError(f"{text!r}: no setting {name!r}. Known: {known}.")
    return name, type(default)(value)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot", choices=[name for name in LOCOMOTION_ENVS if name != REACHER])
    parser.add_argument("--out", type=Path, required=True, help="Directory of the run.")
    parser.add_argument("--steps", type=int, default=Training.steps, help="Environment steps.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", dest="settings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changed: dict[str, Any] = {"steps": arguments.steps, "seed": arguments.seed, **dict(arguments.settings)}
    training = replace(Training(arguments.robot), **changed)
    Run(training, arguments.out).train()


if __name__ == "__main__":
    main()
