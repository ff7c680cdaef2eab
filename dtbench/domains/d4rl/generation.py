"""Data recorded with behaviour policies: whole episodes by the recipe of D4RL (Fu et al. 2020)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache as store
from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import REACHER, LocomotionEnv, Physics
from dtbench.domains.mlp_policy import load_mlp, save_mlp
from dtbench.errors import InvalidDataset, InvalidValue, UnknownName

Array = NDArray[np.float32]
LOG_STD_RANGE = (-20.0, 2.0)  # of SAC's log standard deviations


@dataclass(frozen=True, slots=True)
class BehaviorPolicy:
    """A Gaussian around an MLP's output, squashed by tanh (SAC) or clipped to the bounds (PPO)."""

    mean: Array  # [observation]: subtracted from observations
    scale: Array  # [observation]: divisor of observations after that
    weights: Sequence[Array]  # [inputs, outputs] each
    biases: Sequence[Array]  # [outputs] each
    activation: str  # "tanh" or "relu"
    squash: bool
    log_std: Array | None  # [action]; None: the second half of the MLP's output
    clip: float = 10.0  # of scaled observations, on either side of zero; inf: none

    def act(self, observations: Array, noise: Array) -> Array:
        """Return actions [B, action] for observations [B, observation] and standard normal noise [B, action]."""
        centre, log_std = self.gaussian(observations)
        drawn = centre + np.exp(log_std) * noise
        actions: Array = np.tanh(drawn) if self.squash else drawn.clip(-1, 1)
        return actions

    def gaussian(self, observations: Array) -> tuple[Array, Array]:
        """Return means [B, action] and log standard deviations, [B, action] or [action], before squashing."""
        hidden = ((observations - self.mean) / self.scale).clip(-self.clip, self.clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = hidden @ weight + bias
            hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0)
        output = hidden @ self.weights[-1] + self.biases[-1]
        if self.log_std is None:
            centre, log_std = np.split(output, 2, axis=1)
            return centre, log_std.clip(*LOG_STD_RANGE)
        return output, self.log_std

    def log_density(self, observations: Array, actions: Array) -> NDArray[np.float64]:
        """Return log-probabilities [B] of squashed actions [B, action] strictly between -1 and 1."""
        mean, log_std = (values.astype(np.float64) for values in self.gaussian(observations))
        raw = np.arctanh(actions.astype(np.float64))
        gaussian = -np.square((raw - mean) / np.exp(log_std)) / 2 - log_std - np.log(2 * np.pi) / 2
        density: NDArray[np.float64] = (gaussian - np.log1p(-np.square(np.tanh(raw)))).sum(axis=1)
        return density

    @property
    def digest(self) -> str:
        """Sha256 over everything that its actions depend on."""
        sha = hashlib.sha256(f"{self.activation} {self.squash} {self.clip}".encode())
        log_std = () if self.log_std is None else (self.log_std,)
        for array in (self.mean, self.scale, *self.weights, *self.biases, *log_std):
            sha.update(f"{array.shape}".encode())
            sha.update(np.ascontiguousarray(array, np.float32).data)
        return sha.hexdigest()

    def save(self, path: Path, *, bytes_per_weight: int = 2) -> None:
        """Write the policy with its weights in float32, in float16, or in one byte each with a scale a column."""
        others: dict[str, Any] = {"mean": self.mean, "scale": self.scale, "clip": np.float32(self.clip)}
        others["kind"] = np.array([self.activation == "tanh", self.squash])
        if self.log_std is not None:
            others["log_std"] = self.log_std.astype(np.float32)
        save_mlp(path, self.weights, self.biases, bytes_per_weight=bytes_per_weight, **others)

    @staticmethod
    def load(path: Path) -> "BehaviorPolicy":
        """Read what `save` wrote; raise InvalidDataset for anything else."""
        stored = load_mlp(path)
        try:
            tanh, squash = map(bool, stored.others["kind"])
            mean, scale = (stored.others[name].astype(np.float32) for name in ("mean", "scale"))
        except (KeyError, ValueError) as error:
            raise InvalidDataset(f"{path} is not a behaviour policy: {error}.") from error
        return BehaviorPolicy(
            mean=mean,
            scale=scale,
            weights=stored.weights,
            biases=stored.biases,
            activation="tanh" if tanh else "relu",
            squash=squash,
            log_std=stored.others["log_std"].astype(np.float32) if "log_std" in stored.others else None,
            clip=float(stored.others.get("clip", 10.0)),
        )


MAX_ENVS = 128  # stepped together


@dataclass(frozen=True, slots=True)
class Episode:
    """One recorded episode of n steps."""

    observations: NDArray[np.float32]  # [n, observation]
    actions: NDArray[np.float32]  # [n, action]
    rewards: NDArray[np.float32]  # [n]
    terminated: bool
    final_observation: NDArray[np.float32]  # [observation]: after the last step

    def first(self, steps: int) -> "Episode":
        """Return the first `steps` steps, fewer than it has, as a truncated episode."""
        return Episode(
            self.observations[:steps], self.actions[:steps], self.rewards[:steps], False, self.observations[steps]
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A policy and the weight of its share of the steps; None plays uniformly at random."""

    policy: BehaviorPolicy | None
    weight: float = 1.0


def record(
    robot: LocomotionEnv,
    shares: Sequence[Share],
    *,
    steps: int,
    seed: int,
    physics: Physics = "d4rl",
    cut_last: bool = False,
) -> TrajectoryDataset:
    """Record about `steps` steps, each policy its share in turn.

    A policy plays whole episodes until its share is full; the last, incomplete one is dropped, as D4RL does, or with
    `cut_last` kept as a truncated episode, as in a replay buffer. Equal arguments give equal data. Raises InvalidValue
    for fewer steps than an episode has.
    """
    if steps < robot.horizon * (1 if cut_last else len(shares)):
        raise InvalidValue(
            f"steps {steps}: one episode of {robot.horizon} steps must fit for each of {len(shares)} policies."
        )
    ends = np.cumsum([0.0, *(share.weight for share in shares)])
    parts = np.diff((ends / ends[-1] * steps + 1e-6).astype(int))
    episodes: list[Episode] = []
    for index, (share, part) in enumerate(zip(shares, parts, strict=True)):
        rng = generator(seed, 13, index)
        episodes += _share(robot, share.policy, steps=int(part), rng=rng, physics=physics, cut_last=cut_last)
    lengths = np.array([len(episode.rewards) for episode in episodes])
    terminals = np.zeros(lengths.sum(), bool)
    terminals[np.cumsum(lengths) - 1] = [episode.terminated for episode in episodes]
    return make_dataset(
        observations=np.concatenate([episode.observations for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        final_observations=np.stack([episode.final_observation for episode in episodes]),
        terminals=terminals,
        lengths=lengths,
        observation_space=robot.observation_space,
        action_space=robot.action_space,
        info={"source": "generated", "robot": robot.name, "physics": physics, "seed": seed, "asked_steps": steps},
    )


def mean_return(
    robot: LocomotionEnv, policy: BehaviorPolicy | None, *, episodes: int, seed: int, noise: bool = True
) -> tuple[float, float]:
    """Return mean and standard deviation of the returns of `episodes` episodes, with the policy's noise or without."""
    played = _episodes(robot, policy, count=episodes, rng=generator(seed, 11), physics="d4rl", noise=noise)
    returns = [float(episode.rewards.sum()) for episode in played]
    return float(np.mean(returns)), float(np.std(returns))


def _share(
    robot: LocomotionEnv,
    policy: BehaviorPolicy | None,
    *,
    steps: int,
    rng: np.random.Generator,
    physics: Physics,
    cut_last: bool,
) -> list[Episode]:
    """Record episodes of one policy, together at most `steps` long."""
    episodes: list[Episode] = []
    left = steps
    count = int(np.clip(steps // robot.horizon, 1, MAX_ENVS))
    while left > 0:
        longest = min(left, robot.horizon) if cut_last and count == 1 else robot.horizon
        for episode in _episodes(robot, policy, count=count, rng=rng, physics=physics, longest=longest):
            length = len(episode.rewards)
            if length <= left:
                episodes.append(episode)
            elif cut_last:
                episodes.append(episode.first(left))
            left -= length
            if left <= 0:
                break
    return episodes


def _episodes(
    robot: LocomotionEnv,
    policy: BehaviorPolicy | None,
    *,
    count: int,
    rng: np.random.Generator,
    physics: Physics,
    noise: bool = True,
    longest: int | None = None,
) -> list[Episode]:
    """Record `count` episodes to their end, or for `longest` steps."""
    env = LocomotionVectorEnv(robot, count, physics=physics)
    present, _ = env.reset(seed=[int(s) for s in rng.integers(2**31, size=count)])
    shape = (longest or robot.horizon, count)
    observations = np.zeros((*shape, robot.observation_size), np.float32)
    actions = np.zeros((*shape, robot.action_size), np.float32)
    rewards = np.zeros(shape, np.float32)
    lengths = np.full(count, shape[0])
    terminals = np.zeros(count, bool)
    running = np.ones(count, bool)
    for step in range(shape[0]):
        observations[step] = present
        if policy is None:
            actions[step] = rng.uniform(-1, 1, size=(count, robot.action_size))
        else:
            drawn = rng.standard_normal((count, robot.action_size), np.float32) * noise
            actions[step, running] = policy.act(present[running], drawn[running])
        present, rewards[step], terminated, truncated, _ = env.step(actions[step])
        ended = running & (terminated | truncated)
        lengths[ended], terminals[ended] = step + 1, terminated[ended]
        running &= ~ended
        if not running.any():
            break
    return [
        Episode(
            observations[:n, row].copy(),
            actions[:n, row].copy(),
            rewards[:n, row].copy(),
            bool(terminals[row]),
            present[row],  # an ended episode keeps its observation
        )
        for row, n in enumerate(lengths)
    ]


POLICIES = Path(__file__).parent / "policies"
SEED = 0
# Raise one when equal arguments begin to give other data.
RECIPES: Mapping[str, int] = {"sac": 1, "ppo": 2}  # ppo 2: final observations are recorded
_MILLION = 1_000_000
# Steps of D4RL's v2 replay sets (Fu et al. 2020): SAC's buffer when its policy was mediocre.
_REPLAY_STEPS = {"hopper": 402_000, "walker2d": 302_000, "halfcheetah": 202_000}


def default_steps(robot: LocomotionEnv, kind: str) -> int:
    """Return the number of steps of D4RL's set of this kind; a million for Reacher."""
    if robot.name == REACHER:
        return _MILLION
    return {"medium-replay": _REPLAY_STEPS[robot.name], "medium-expert": 2 * _MILLION}.get(kind, _MILLION)


def checked_recipe(robot: LocomotionEnv, recipe: str) -> str:
    """Return the recipe, by default the robot's first; raise UnknownName where it has no such policies."""
    recipes = recipes_of(robot)
    if recipe and recipe not in recipes:
        raise UnknownName(f"recipe of {robot.name}", str(recipe), recipes)
    return recipe or recipes[0]


def recipes_of(robot: LocomotionEnv) -> list[str]:
    """Return the recipes whose policies are shipped, the default first."""
    return [recipe for recipe in RECIPES if (POLICIES / recipe / robot.name / "manifest.json").exists()]


@dataclass(frozen=True, slots=True)
class Recording:
    """The settings that determine recorded data: equal recordings give equal data."""

    robot: LocomotionEnv
    kind: str  # one of KINDS
    steps: int
    seed: int = SEED
    physics: Physics = "d4rl"

    @property
    def slug(self) -> str:
        """Part of the data's name in the store."""
        return f"{self.robot.name}-{self.kind}-{self.steps}-seed{self.seed}-{self.physics}"

    def play(self, shares: Sequence[Share], *, cut_last: bool = False) -> TrajectoryDataset:
        """Record these policies."""
        return record(self.robot, shares, steps=self.steps, seed=self.seed, physics=self.physics, cut_last=cut_last)


def load_generated(recording: Recording, *, recipe: str = "") -> TrajectoryDataset:
    """Open the dataset; record and store it first where it is missing."""
    return store.open_or_make(stored_name(recording, recipe=recipe), lambda: make_generated(recording, recipe=recipe))


def make_generated(recording: Recording, *, recipe: str = "") -> TrajectoryDataset:
    """Record the policies of this kind.

    random: uniform actions. medium, expert: one policy. medium-replay: the policies of training up to the medium one,
    each in proportion to the steps of training until the next. medium-expert: half and half.
    """
    robot, kind = recording.robot, recording.kind
    recipe = checked_recipe(robot, recipe)
    played = policy_shares(robot, kind, recipe)
    shares = [Share(_policy(recipe, robot.name, name), weight) for name, weight in played]
    names = [name or "uniform" for name, _ in played]
    measured = manifest_of(robot, recipe).get("measured", {}) if kind != "random" else {}
    return recording.play(shares, cut_last=kind == "medium-replay").with_info(
        {
            "kind": kind,
            "policies": names,
            "policy_returns": [{"policy": name, **measured[name]} for name in names if name in measured],
            "recipe": recipe,
            "recipe_version": RECIPES[recipe],
        }
    )


def policy_shares(robot: LocomotionEnv, kind: str, recipe: str) -> list[tuple[str | None, float]]:
    """Return the files of the policies, in order, with their shares; None plays uniformly at random."""
    if kind == "random":
        return [(None, 1.0)]
    manifest = manifest_of(robot, recipe)
    if kind == "medium-replay":
        return [(name, float(weight)) for name, weight in _replay(manifest)]
    names = {"medium": ["medium"], "expert": ["expert"], "medium-expert": ["medium", "expert"]}[kind]
    return [(manifest[name], 1.0) for name in names]


def manifest_of(robot: LocomotionEnv, recipe: str) -> dict[str, Any]:
    """Return the policies of each kind and their measured returns."""
    manifest: dict[str, Any] = json.loads((POLICIES / recipe / robot.name / "manifest.json").read_text())
    return manifest


def stored_name(recording: Recording, *, recipe: str = "") -> str:
    """Return the dataset's name in the store."""
    recipe = checked_recipe(recording.robot, recipe)
    return f"generated-{recording.slug}-{recipe}{RECIPES[recipe]}"


def is_stored(recording: Recording, *, recipe: str = "") -> bool:
    """Return whether it has been made already."""
    return (store.root() / stored_name(recording, recipe=recipe) / "meta.json").exists()


def _replay(manifest: Mapping[str, Any]) -> list[tuple[str | None, float]]:
    """Return the shares of a manifest: PPO's lists files, SAC's pairs of a file (null: warm-up) and its steps."""
    return [(entry, 1.0) if isinstance(entry, str) else (entry[0], entry[1]) for entry in manifest["replay"]]


@cache
def _policy(recipe: str, robot: str, name: str | None) -> BehaviorPolicy | None:
    return BehaviorPolicy.load(POLICIES / recipe / robot / name) if name else None
