"""Recording of behaviour policies at play: whole episodes by the recipe of D4RL (Fu et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtbench.data.trajectories import TrajectoryDataset, make_dataset
from dtbench.domains.d4rl.behavior import BehaviorPolicy
from dtbench.domains.d4rl.games import RobotGames
from dtbench.domains.d4rl.robots import Physics, Robot
from dtbench.errors import InvalidValue
from dtbench.randomness import generator

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
        """The episode as a replay buffer keeps it that was full after so many steps, fewer than it has."""
        return Episode(
            self.observations[:steps], self.actions[:steps], self.rewards[:steps], False, self.observations[steps]
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A policy, and its part of the steps in proportion to the others'; None plays uniformly at random."""

    policy: BehaviorPolicy | None
    weight: float = 1.0


def record(
    robot: Robot,
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
    robot: Robot, policy: BehaviorPolicy | None, *, episodes: int, seed: int, noise: bool = True
) -> tuple[float, float]:
    """Mean and standard deviation of the returns of `episodes` episodes, with the policy's own noise or without."""
    played = _episodes(robot, policy, games=episodes, rng=generator(seed, 11), physics="d4rl", noise=noise)
    returns = [float(episode.rewards.sum()) for episode in played]
    return float(np.mean(returns)), float(np.std(returns))


def _share(
    robot: Robot,
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
    robot: Robot,
    policy: BehaviorPolicy | None,
    *,
    games: int,
    rng: np.random.Generator,
    physics: Physics,
    noise: bool = True,
    longest: int | None = None,
) -> list[Episode]:
    """Play `games` episodes to their end, or for `longest` steps."""
    env = RobotGames(robot, games, physics=physics)
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
