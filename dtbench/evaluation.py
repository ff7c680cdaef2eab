"""Evaluator: plays episodes x target returns in lock step and records every episode."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from dtbench.algorithm import CachingLearner, DiscreteLearner, History, Learner, Rollout
from dtbench.data.actions import ActionScale, action_scale
from dtbench.data.dataset import TrajectoryDataset, html_table
from dtbench.data.randomness import generator
from dtbench.errors import IncompatibleTask, UnknownName
from dtbench.ledger.trial_spec import EPSILON, ActionMode

CPU = torch.device("cpu")
COMPARED = 16  # steps at a time of two learners that are compared
MakeEnv = Callable[[int], VectorEnv[Any, Any, Any]]


def action_mode(name: str) -> ActionMode:
    """Return the action mode of this name; raise UnknownName for others."""
    for mode in get_args(ActionMode):
        if mode == name:
            return mode  # type: ignore[no-any-return]
    raise UnknownName("action_mode", name, get_args(ActionMode))


@dataclass(frozen=True, slots=True)
class TargetUnits:
    """The units of target returns, where they are not the environment's rewards.

    Atari's environments pay points and its data hold rewards clipped to [-1, 1], so that the data's returns and all
    targets are sums of clipped rewards.
    """

    name: str  # e.g. "clipped rewards"
    convert: Callable[[NDArray[np.float64]], NDArray[np.float64]]  # the environment's rewards of one step -> units
    lower_return_to_go: bool = True  # by these; False: by the environment's rewards


@dataclass(frozen=True, slots=True, repr=False)
class Episodes:
    """The outcomes of n episodes, in the order targets x episodes."""

    targets: NDArray[np.float64]  # [n]; nan for a learner without target returns
    episodes: NDArray[np.int64]  # [n]: 0, 1, 2, ... for each target
    seeds: NDArray[np.int64]  # [n], of the environment
    returns: NDArray[np.float64]  # [n]
    lengths: NDArray[np.int64]  # [n]
    info: dict[str, NDArray[Any]] = field(default_factory=dict)  # [n] each: the environment's info at the last step
    achieved: NDArray[np.float64] | None = None  # [n]: returns in TargetUnits; None where `returns` are in them

    def __repr__(self) -> str:
        return f"Episodes({'; '.join(f'{name}: {value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        return html_table("Episodes", self._facts())

    def _facts(self) -> dict[str, str]:
        """Return number and mean return of the episodes of each target."""
        facts = {}
        for target in np.unique(self.targets):  # nan is one value
            own = self.returns[np.isclose(self.targets, target, equal_nan=True)]
            name = "no target" if np.isnan(target) else f"target {target:g}"
            spread = f" ({own.min():.4g} to {own.max():.4g})" if len(own) > 1 else ""
            facts[name] = f"{len(own)} episodes, mean return {own.mean():.4g}{spread}"
        return facts


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates any learner on the same episodes: the same seeds for every contender and every target.

    `action_mode` selects a discrete learner's action from its logits: the likeliest, a sample, or the likeliest but
    with probability EPSILON a random one. The random numbers depend on `action_seed`, episode and step alone, so
    neither batching nor other targets change them.
    """

    make_env: MakeEnv  # number of environments -> vector environment
    seeds: Sequence[int]  # one for each episode
    action_mode: ActionMode = "greedy"
    action_seed: int = 0  # of random actions: the trial's seed, so that training seeds differ
    device: torch.device = CPU
    info_keys: tuple[str, ...] = ()  # entries of the environment's info to record from each episode's last step
    max_batch: int = 2048  # environments at a time
    target_units: TargetUnits | None = None  # None: the environment's rewards
    action_scale: ActionScale | None = None  # None: that of the environment's actions

    def evaluate(self, learner: Learner, targets: Sequence[float] = ()) -> Episodes:
        """Play every episode once for each target return, or once where the learner takes none."""
        table = self._table(learner, targets)
        for first in range(0, len(table.episodes), self.max_batch):
            rows = np.arange(first, min(first + self.max_batch, len(table.episodes)))
            with closing(self.make_env(len(rows))) as env:
                self._play(env, learner, table, rows)
        return table

    def _table(self, learner: Learner, targets: Sequence[float]) -> Episodes:
        """Return the table of the episodes to play, without outcomes."""
        if self.action_mode != "greedy" and not isinstance(learner, DiscreteLearner):
            raise IncompatibleTask(
                f"{type(learner).__name__} has no action_logits for action_mode {self.action_mode}: use greedy."
            )
        target_returns = np.array(targets, np.float64) if learner.return_conditioned else np.array([np.nan])
        if not len(target_returns):
            raise IncompatibleTask(
                f"{type(learner).__name__} needs target returns, and the task has none: set evaluation.targets."
            )
        episodes = np.tile(np.arange(len(self.seeds)), len(target_returns))
        return Episodes(
            targets=np.repeat(target_returns, len(self.seeds)),
            episodes=episodes,
            seeds=np.asarray(self.seeds, np.int64)[episodes],
            returns=np.zeros(len(episodes)),
            lengths=np.zeros(len(episodes), np.int64),
            info={key: np.zeros(len(episodes), object) for key in self.info_keys},
            achieved=np.zeros(len(episodes)) if self.target_units else None,
        )

    def _play(self, env: VectorEnv[Any, Any, Any], learner: Learner, table: Episodes, rows: NDArray[np.int64]) -> None:
        """Step until every episode has ended and write the outcomes into the table's rows."""
        observations, _ = env.reset(seed=[int(s) for s in table.seeds[rows]])  # type: ignore[arg-type]  # one each
        rollout = rollout_of(learner)
        space = env.single_action_space
        scale = self.action_scale or action_scale(space)
        buffer = HistoryBuffer(len(rows), learner.context, space.shape or (), self.device)
        remaining = np.nan_to_num(table.targets[rows])
        active = np.ones(len(rows), bool)
        step = 0
        while active.any():
            history = buffer.write(observations, remaining, step)
            actions = np.zeros(env.action_space.shape or (len(rows),), np.float32 if scale else space.dtype)
            actions[active] = self.act(rollout, history, active, table.episodes[rows], step, space)
            buffer.write_actions(actions)
            taken = scale.to_box(actions).astype(space.dtype, copy=False) if scale else actions
            observations, rewards, terminated, truncated, info = env.step(taken)
            table.returns[rows[active]] += rewards[active]
            remaining = remaining - self._spent(table, rows[active], rewards, active)
            ended = active & (np.asarray(terminated) | np.asarray(truncated))
            step += 1
            table.lengths[rows[ended]] = step
            for key in self.info_keys:
                table.info[key][rows[ended]] = info[key][ended]
            active = active & ~ended

    def _spent(
        self, table: Episodes, rows: NDArray[np.int64], rewards: NDArray[np.float64], active: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return what a step subtracts from the returns-to-go; add what it achieves to the table's rows."""
        if self.target_units is None or table.achieved is None:
            return rewards
        converted = self.target_units.convert(rewards)
        table.achieved[rows] += converted[active]
        return converted if self.target_units.lower_return_to_go else rewards

    def act(
        self,
        rollout: Rollout,
        history: History,
        active: NDArray[np.bool_],
        episodes: NDArray[np.int64],
        step: int,
        space: gym.Space[Any],
    ) -> NDArray[Any]:
        """Return the actions of the active episodes, [active, *action]."""
        rows = torch.from_numpy(np.flatnonzero(active)).to(self.device)
        if self.action_mode == "greedy":
            return _to_numpy(rollout.act(history, rows))
        if not isinstance(space, gym.spaces.Discrete):
            raise IncompatibleTask(f"action_mode {self.action_mode} needs discrete actions, not {space}: use greedy.")
        uniform = generator(self.action_seed, 7, step).random(len(self.seeds))[episodes[active]]
        choose = _sample if self.action_mode == "sample" else _epsilon_greedy
        indices = choose(rollout.action_logits(history, rows), torch.from_numpy(uniform).to(self.device))
        return _to_numpy(indices + int(space.start))


def act_alike(first: Learner, second: Learner, dataset: TrajectoryDataset, device: torch.device) -> bool:
    """Return whether two learners choose the same actions, up to rounding, at some steps of the data."""
    if (first.context, first.return_conditioned) != (second.context, second.return_conditioned):
        return False
    returns_to_go, rng = dataset.returns_to_go, generator(0, 8)
    buffer = HistoryBuffer(COMPARED, first.context, dataset.action_space.shape or (), device)
    for time in range(3):
        steps = rng.integers(dataset.num_steps, size=COMPARED)
        history = buffer.write(dataset.observations_at(steps), returns_to_go[steps], time)
        actions, others = (_to_numpy(learner.act(history)) for learner in (first, second))
        if not np.allclose(actions, others, rtol=1e-4, atol=1e-4):
            return False
        buffer.write_actions(actions)
    return True


def _sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample indices [B] by their probabilities, from one number in [0, 1) each."""
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    return (cumulative < uniform[:, None]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)


def _epsilon_greedy(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return the likeliest indices [B], with probability EPSILON random ones; both from one number in [0, 1) each."""
    random = (uniform / EPSILON * logits.shape[-1]).long()
    return torch.where(uniform < EPSILON, random, logits.argmax(dim=-1))


def rollout_of(learner: Learner) -> Rollout:
    """Return a learner's policy for one batch of episodes: its own rollout, or its `act`."""
    rollout = learner.rollout() if isinstance(learner, CachingLearner) else None
    return rollout or _StatelessRollout(learner)


class _StatelessRollout:
    """A rollout without a cache: it calls the learner at every step."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def act(self, history: History, rows: Tensor) -> Tensor:
        return self.learner.act(_select(history, rows))

    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        assert isinstance(self.learner, DiscreteLearner)
        return self.learner.action_logits(_select(history, rows))


def _select(history: History, rows: Tensor) -> History:
    return history if len(rows) == len(history.mask) else history.of(rows)


class HistoryBuffer:
    """The last steps of every episode, in buffers twice as long as the context, so that few steps copy them."""

    def __init__(self, rows: int, context: int, action_shape: tuple[int, ...], device: torch.device) -> None:
        self.context, self.device, self.end = context, device, context - 1
        slots = 2 * context
        self.observations = torch.zeros(0)  # allocated with the first, which have the shape and dtype
        self.actions = torch.zeros(rows, slots, *action_shape, device=device)
        self.returns_to_go = torch.zeros(rows, slots, device=device)
        self.timesteps = torch.zeros(rows, slots, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, slots, dtype=torch.bool, device=device)

    def write(self, observations: NDArray[Any], remaining: NDArray[np.float64], step: int) -> History:
        """Add the present and return the window that ends with it."""
        self.end += 1
        if self.end == 2 * self.context:
            self._rewind()
        now = self.end
        self._write_observations(torch.from_numpy(np.asarray(observations)).to(self.device))
        self.actions[:, now] = 0
        self.returns_to_go[:, now] = torch.from_numpy(remaining).to(self.device, torch.float32)
        self.timesteps[:, now] = step
        self.mask[:, now] = True
        window = slice(now - self.context + 1, now + 1)
        return History(
            observations=self.observations[:, window],
            actions=self.actions[:, window],
            returns_to_go=self.returns_to_go[:, window],
            timesteps=self.timesteps[:, window],
            mask=self.mask[:, window],
        )

    def _write_observations(self, present: Tensor) -> None:
        if not len(self.observations):
            shape = (len(self.mask), 2 * self.context, *present.shape[1:])
            self.observations = torch.zeros(shape, dtype=present.dtype, device=self.device)
        self.observations[:, self.end] = present

    def write_actions(self, actions: NDArray[Any]) -> None:
        """Complete the present with the actions taken."""
        self.actions[:, self.end] = torch.from_numpy(np.asarray(actions)).to(self.device, self.actions.dtype)

    def _rewind(self) -> None:
        count = self.context - 1
        for buffer in (self.observations, self.actions, self.returns_to_go, self.timesteps, self.mask):
            buffer[:, :count] = buffer[:, self.end - count : self.end].clone()
        self.end = count


def _to_numpy(actions: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = actions.detach().cpu().numpy()
    return array
