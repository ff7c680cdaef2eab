"""Recording of behaviour policies at play: whole episodes by the recipe of D4RL (Fu et al. 2020)."""

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
LOG_STD_RANGE = (-20.0, 2.0)  # what SAC clips its log standard deviations to


@dataclass(frozen=True, slots=True)
class BehaviorPolicy:
    """A Gaussian around an MLP's output, squashed by tanh (SAC) or clipped to the bounds (PPO)."""

    mean: Array  # [observation]: what is subtracted from observations,
    scale: Array  # [observation]: and what they are then divided by
    weights: Sequence[Array]  # [inputs, outputs] each
    biases: Sequence[Array]  # [outputs] each
    activation: str  # "tanh" or "relu"
    squash: bool
    log_std: Array | None  # [action]; None: the second half of the MLP's output
    clip: float = 10.0  # of scaled observations, on either side of zero; inf: none

    def act(self, observations: Array, noise: Array) -> Array:
        """Actions [B, action] for observations [B, observation] and standard normal noise [B, action]."""
        centre, log_std = self.gaussian(observations)
        drawn = centre + np.exp(log_std) * noise
        actions: Array = np.tanh(drawn) if self.squash else drawn.clip(-1, 1)
        return actions

    def gaussian(self, observations: Array) -> tuple[Array, Array]:
        """Means [B, action] and log standard deviations, [B, action] or [action], before the squashing."""
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
        """Log-probabilities [B] of squashed actions [B, action] strictly between -1 and 1."""
        mean, log_std = (values.astype(np.float64) for values in self.gaussian(observations))
        raw = np.arctanh(actions.astype(np.float64))
        gaussian = -np.square((raw - mean) / np.exp(log_std)) / 2 - log_std - np.log(2 * np.pi) / 2
        density: NDArray[np.float64] = (gaussian - np.log1p(-np.square(np.tanh(raw)))).sum(axis=1)
        return density

    @property
    def digest(self) -> str:
        """Sha256 over everything that decides how it acts."""
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
            raise InvalidDataset(f"{path} is no behaviour policy: {error}.") from error
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


GAMES = 128  # at a time


@dataclass(frozen=True, slots=True)
class Episode:
    """What was recorded of one episode of n steps."""

    observations: NDArray[np.float32]  # [n, observation]
    actions: NDArray[np.float32]  # [n, action]
    rewards: NDArray[np.float32]  # [n]
    terminated: bool
    final_observation: NDArray[np.float32]  # [observation]: after the last step

    def first(self, steps: int) -> "Episode":
        """Return the episode as a replay buffer keeps it that was full after so many steps, fewer than it has."""
        return Episode(
            self.observations[:steps], self.actions[:steps], self.rewards[:steps], False, self.observations[steps]
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A policy, and its part of the steps in proportion to the others'; None plays uniformly at random."""

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
    """Record about `steps` steps, by each policy in turn its share.

    Whole episodes: a policy plays until it has filled its share, and what it plays beyond that is dropped, as D4RL
    drops an unfinished tail. With `cut_last` the tail is kept instead as an episode that was cut off, as a replay
    buffer keeps it. Equal arguments give equal data. Raises InvalidValue for fewer steps than an episode has.
    """
    if steps < robot.horizon * (1 if cut_last else len(shares)):
        raise InvalidValue(
            f"steps {steps}: one episode of {robot.horizon} steps must fit for each of {len(shares)} policies."
        )
    ends = np.cumsum([0.0, *(share.weight for share in shares)])
    parts = np.diff((ends / ends[-1] * steps + 1e-6).astype(int))
    episodes: list[Episode] = []
    for place, (share, part) in enumerate(zip(shares, parts, strict=True)):
        episodes += _share(
            robot, share.policy, steps=int(part), seed=seed, place=place, physics=physics, cut_last=cut_last
        )
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
    """Mean and standard deviation of the returns of `episodes` episodes, with the policy's own noise or without."""
    played = _episodes(robot, policy, games=episodes, rng=generator(seed, 11), physics="d4rl", noise=noise)
    returns = [float(episode.rewards.sum()) for episode in played]
    return float(np.mean(returns)), float(np.std(returns))


def _share(
    robot: LocomotionEnv,
    policy: BehaviorPolicy | None,
    *,
    steps: int,
    seed: int,
    place: int,
    physics: Physics,
    cut_last: bool,
) -> list[Episode]:
    """Episodes of one policy, together at most `steps` long."""
    rng = generator(seed, 13, place)
    kept: list[Episode] = []
    left = steps
    games = int(np.clip(steps // robot.horizon, 1, GAMES))
    while left > 0:
        longest = min(left, robot.horizon) if cut_last and games == 1 else robot.horizon
        for episode in _episodes(robot, policy, games=games, rng=rng, physics=physics, longest=longest):
            length = len(episode.rewards)
            if length <= left:
                kept.append(episode)
            elif cut_last:
                kept.append(episode.first(left))
            left -= length
            if left <= 0:
                break
    return kept


def _episodes(
    robot: LocomotionEnv,
    policy: BehaviorPolicy | None,
    *,
    games: int,
    rng: np.random.Generator,
    physics: Physics,
    noise: bool = True,
    longest: int | None = None,
) -> list[Episode]:
    """Play `games` episodes to their end, or for `longest` steps."""
    env = LocomotionVectorEnv(robot, games, physics=physics)
    present, _ = env.reset(seed=[int(s) for s in rng.integers(2**31, size=games)])
    shape = (longest or robot.horizon, games)
    observations = np.zeros((*shape, robot.observation_size), np.float32)
    actions = np.zeros((*shape, robot.action_size), np.float32)
    rewards = np.zeros(shape, np.float32)
    lengths = np.full(games, shape[0])
    terminals = np.zeros(games, bool)
    running = np.ones(games, bool)
    for step in range(shape[0]):
        observations[step] = present
        if policy is None:
            actions[step] = rng.uniform(-1, 1, size=(games, robot.action_size))
        else:
            drawn = rng.standard_normal((games, robot.action_size), np.float32) * noise
            actions[step, running] = policy.act(present[running], drawn[running])
        present, rewards[step], terminated, truncated, _ = env.step(actions[step])
        ended = running & (terminated | truncated)
        lengths[ended], terminals[ended] = step + 1, terminated[ended]
        running &= ~ended
        if not running.any():
            break
    return [
        Episode(
            observations[:n, game].copy(),
            actions[:n, game].copy(),
            rewards[:n, game].copy(),
            bool(terminals[game]),
            present[game],  # an ended game stands still
        )
        for game, n in enumerate(lengths)
    ]


POLICIES = Path(__file__).parent / "policies"
SEED = 0
# Raise one when equal arguments begin to give other data.
RECIPES: Mapping[str, int] = {"sac": 1, "ppo": 2}  # ppo 2: what follows a cut-off is recorded
_MILLION = 1_000_000
# Steps of D4RL's v2 sets (Fu et al. 2020); replay is what SAC's buffer held when it was mediocre.
_REPLAY_STEPS = {"hopper": 402_000, "walker2d": 302_000, "halfcheetah": 202_000}


def default_steps(robot: LocomotionEnv, kind: str) -> int:
    """As many steps as D4RL's set of this kind has; a million for Reacher."""
    if robot.name == REACHER:
        return _MILLION
    return {"medium-replay": _REPLAY_STEPS[robot.name], "medium-expert": 2 * _MILLION}.get(kind, _MILLION)


def checked_recipe(robot: LocomotionEnv, recipe: str) -> str:
    """Return the recipe, or the robot's default for ""; raise UnknownName where the robot has no such policies."""
    there = recipes_of(robot)
    if recipe and recipe not in there:
        raise UnknownName(f"recipe of {robot.name}", str(recipe), there)
    return recipe or there[0]


def recipes_of(robot: LocomotionEnv) -> list[str]:
    """Return the recipes whose policies are shipped, the default first."""
    return [recipe for recipe in RECIPES if (POLICIES / recipe / robot.name / "manifest.json").exists()]


@dataclass(frozen=True, slots=True)
class Recording:
    """What determines a dataset that is recorded here: equal recordings give equal data."""

    robot: LocomotionEnv
    kind: str  # one of KINDS
    steps: int
    seed: int = SEED
    physics: Physics = "d4rl"

    @property
    def slug(self) -> str:
        """Its part of a dataset's name in the store."""
        return f"{self.robot.name}-{self.kind}-{self.steps}-seed{self.seed}-{self.physics}"

    def play(self, shares: Sequence[Share], *, cut_last: bool = False) -> TrajectoryDataset:
        """Record what these policies play."""
        return record(self.robot, shares, steps=self.steps, seed=self.seed, physics=self.physics, cut_last=cut_last)


def load_generated(recording: Recording, *, recipe: str = "") -> TrajectoryDataset:
    """Open the dataset, or make it and keep it first."""
    return store.open_or_make(stored_name(recording, recipe=recipe), lambda: make_generated(recording, recipe=recipe))


def make_generated(recording: Recording, *, recipe: str = "") -> TrajectoryDataset:
    """Record what the policies of this kind play.

    random: uniform actions. medium, expert: one policy. medium-replay: the policies along training up to the medium
    one, as a replay buffer holds them: each for as many steps, in proportion, as training took from it to the next.
    medium-expert: half and half.
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
    """Files of the policies that play, in order, with their shares; None plays uniformly at random."""
    if kind == "random":
        return [(None, 1.0)]
    manifest = manifest_of(robot, recipe)
    if kind == "medium-replay":
        return [(name, float(weight)) for name, weight in _replay(manifest)]
    names = {"medium": ["medium"], "expert": ["expert"], "medium-expert": ["medium", "expert"]}[kind]
    return [(manifest[name], 1.0) for name in names]


def manifest_of(robot: LocomotionEnv, recipe: str) -> dict[str, Any]:
    """Which policy plays what, and the returns that were measured when they were chosen."""
    found: dict[str, Any] = json.loads((POLICIES / recipe / robot.name / "manifest.json").read_text())
    return found


def stored_name(recording: Recording, *, recipe: str = "") -> str:
    """Return the dataset's name in the store."""
    recipe = checked_recipe(recording.robot, recipe)
    return f"generated-{recording.slug}-{recipe}{RECIPES[recipe]}"


def is_stored(recording: Recording, *, recipe: str = "") -> bool:
    """Return whether it has been made already."""
    return (store.root() / stored_name(recording, recipe=recipe) / "meta.json").exists()


def _replay(manifest: Mapping[str, Any]) -> list[tuple[str | None, float]]:
    """PPO's manifest lists files, of equal shares; SAC's lists a file, or null for the warm-up, and its steps."""
    return [(entry, 1.0) if isinstance(entry, str) else (entry[0], entry[1]) for entry in manifest["replay"]]


@cache
def _policy(recipe: str, robot: str, name: str | None) -> BehaviorPolicy | None:
    return BehaviorPolicy.load(POLICIES / recipe / robot / name) if name else None
