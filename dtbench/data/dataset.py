"""Offline data: whole episodes, back to back in flat arrays."""

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.errors import InvalidDataset, InvalidValue

Array = NDArray[Any]
ARRAYS = ("observations", "actions", "rewards", "terminals", "offsets")
HASHED_BYTES = 2**26  # at a time
MOMENT_ROWS = 65536  # of which sums are taken at once
FLOAT_ROUNDING = 1e-6  # of a number, relative to it
BOUND_SLACK = 1e-6  # of a Box's width: a number nearer to a bound lies on it
LARGEST_SPREAD = 1e300  # of returns: a larger one has no histogram


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TrajectoryDataset:
    """Episodes stored back to back: N steps in E episodes.

    `terminals[i]` is True where the environment ended with step i; an episode whose last step is not terminal was
    truncated. `final_observations[e]` is the observation after the last step of episode e, where it was recorded: with
    it a TD learner can bootstrap at a truncation. `info` is free-form provenance: source, seed, recipe.

    With a `frame_stack` of F > 1 every frame is kept once: `observations[i]` is the newest of the F frames that make
    the observation of step i, and `observations_at` puts them together. `extras` are further arrays, one row a step,
    which no learner reads.
    """

    observations: Array  # [N, *observation], or [N, *frame]
    actions: Array  # [N, *action], or [N] of ints
    rewards: Array  # [N]
    terminals: Array  # [N] bool
    offsets: Array  # [E + 1]: episode e is the steps offsets[e] to offsets[e + 1]
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    digest: str  # sha256 of the arrays: part of a trial's identity
    info: Mapping[str, Any] = field(default_factory=dict)
    frame_stack: int = 1
    extras: Mapping[str, Array] = field(default_factory=dict)  # name -> [N, ...]
    final_observations: Array | None = None  # [E, *observation]; None where they are unknown

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self._facts())

    def _facts(self) -> dict[str, str]:
        returns, lengths = self.returns, self.lengths
        return {
            "source": str(self.info.get("source", "unknown")),
            "episodes": str(self.num_episodes),
            "steps": f"{self.num_steps}, {lengths.min()} to {lengths.max()} an episode",
            "returns": f"{returns.min():.4g} to {returns.max():.4g}, mean {returns.mean():.4g}",
            "observations": str(self.observation_space),
            "actions": str(self.action_space),
            "digest": self.digest[:12],
        }

    def observations_at(self, steps: NDArray[np.int64]) -> Array:
        """Return the observations of these steps, [..., *observation] for steps [...].

        Stacks have the oldest frame first, with zeros before the episode's first step.
        """
        if self.frame_stack == 1:
            return np.asarray(self.observations[steps])
        begin = self.offsets[np.searchsorted(self.offsets, steps, side="right") - 1][..., None]
        wanted = steps[..., None] - np.arange(self.frame_stack - 1, -1, -1)
        stacks = np.asarray(self.observations[np.maximum(wanted, begin)])
        stacks[wanted < begin] = 0
        return stacks

    @property
    def num_steps(self) -> int:
        """N, the steps of all episodes together."""
        return len(self.rewards)

    @property
    def num_episodes(self) -> int:
        """E, the number of episodes."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, [E]."""
        lengths: NDArray[np.int64] = np.diff(self.offsets)
        return lengths

    @property
    def returns(self) -> NDArray[np.float64]:
        """Undiscounted return of each episode, [E]."""
        return np.add.reduceat(np.asarray(self.rewards, np.float64), self.offsets[:-1])

    @property
    def cut_off(self) -> NDArray[np.bool_]:
        """Which episodes were truncated: their last step is not terminal, [E]."""
        cut: NDArray[np.bool_] = ~np.asarray(self.terminals)[self.offsets[1:] - 1]
        return cut

    @property
    def unknown_transitions(self) -> int:
        """Number of steps without a known successor: the last of each truncated episode without final observation."""
        return int(self.cut_off.sum()) if self.final_observations is None else 0

    @property
    def timesteps(self) -> NDArray[np.int64]:
        """Each step's index in its episode, from 0, [N]."""
        index: NDArray[np.int64] = np.arange(self.num_steps) - np.repeat(self.offsets[:-1], self.lengths)
        return index

    @property
    def returns_to_go(self) -> NDArray[np.float64]:
        """Undiscounted sum of the rewards from each step to the end of its episode, [N]."""
        rewards = np.asarray(self.rewards, np.float64)
        future = np.empty_like(rewards)
        for begin, end in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            future[begin:end] = rewards[begin:end][::-1].cumsum()[::-1]
        return future

    def keep(self, *, best_fraction: float = 1.0, minimum_return: float | None = None) -> "TrajectoryDataset":
        """Keep the episodes of X % BC: `best`, then `at_least`; all by default."""
        chosen = self.best(best_fraction) if best_fraction != 1 else self
        return chosen.at_least(minimum_return) if minimum_return is not None else chosen

    def best(self, fraction: float) -> "TrajectoryDataset":
        """Keep the best whole episodes that fit into `fraction` of all timesteps, at least one.

        The rule of Chen et al. (2021), X % BC: episodes by return, best first, added while the sum of their
        lengths stays within the fraction. Ties keep the order of the data.
        """
        if not 0 < fraction <= 1:
            raise InvalidValue(f"best({fraction!r}): the fraction of timesteps must lie in (0, 1].")
        order = np.argsort(-self.returns, kind="stable")
        within = np.cumsum(self.lengths[order]) <= fraction * self.num_steps + 1e-9
        kept = max(1, int(np.argmin(within)) if not within.all() else len(order))
        return self.select(np.sort(order[:kept]))

    def at_least(self, minimum_return: float) -> "TrajectoryDataset":
        """Keep the episodes whose return is `minimum_return` or more; raise InvalidValue where none is."""
        kept = np.flatnonzero(self.returns >= minimum_return)
        if not len(kept):
            raise InvalidValue(
                f"no episode returns {minimum_return:g} or more: the best of {self.num_episodes} "
                f"returns {self.returns.max():g}. Lower minimum_return, or drop it."
            )
        return self.select(kept)

    def select(self, episodes: Iterable[int]) -> "TrajectoryDataset":
        """Keep these episodes, in this order."""
        chosen = np.asarray(list(episodes), np.int64)
        steps = np.concatenate([np.arange(self.offsets[e], self.offsets[e + 1]) for e in chosen])
        return make_dataset(
            observations=self.observations[steps],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            terminals=self.terminals[steps],
            lengths=self.lengths[chosen],
            observation_space=self.observation_space,
            action_space=self.action_space,
            info=self.info,
            frame_stack=self.frame_stack,
            extras={name: array[steps] for name, array in self.extras.items()},
            final_observations=None if self.final_observations is None else self.final_observations[chosen],
        )

    def with_info(self, further: Mapping[str, Any]) -> "TrajectoryDataset":
        """Return the same data with more provenance."""
        return replace(self, info={**self.info, **further})

    def delayed(self) -> "TrajectoryDataset":
        """Move every reward to the last step of its episode (Chen et al. 2021, Table 7), which ends the task.

        The step that pays is terminal, also where a time limit came: a TD learner that leaves out truncated steps, as
        D4RL's `qlearning_dataset` does, would see no reward of the best episodes.
        """
        last = self.offsets[1:] - 1
        rewards, terminals = np.zeros_like(self.rewards), np.zeros_like(self.terminals)
        rewards[last], terminals[last] = self.returns, True
        info = {**self.info, "delayed": True}
        delayed = replace(self, rewards=rewards, terminals=terminals, info=info, final_observations=None)
        return replace(delayed, digest=digest_of(delayed))


def html_table(title: str, facts: Mapping[str, str]) -> str:
    """Return a table of facts for a notebook."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"


def make_dataset(
    *,
    observations: Array,
    actions: Array,
    rewards: Array,
    terminals: Array,
    lengths: Array,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    info: Mapping[str, Any] | None = None,
    frame_stack: int = 1,
    extras: Mapping[str, Array] | None = None,
    final_observations: Array | None = None,
) -> TrajectoryDataset:
    """Check flat arrays of whole episodes and give them their digest.

    Raises InvalidDataset where the arrays do not fit together.
    """
    dataset = TrajectoryDataset(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        offsets=np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]),
        observation_space=observation_space,
        action_space=action_space,
        digest="",
        info=dict(info or {}),
        frame_stack=frame_stack,
        extras=dict(extras or {}),
        final_observations=final_observations,
    )
    validate(dataset)
    return replace(dataset, digest=digest_of(dataset))


def validate(dataset: TrajectoryDataset) -> None:
    """Raise InvalidDataset unless the arrays are whole, finite episodes of the declared spaces."""
    check_shapes(dataset)
    steps, offsets = dataset.num_steps, dataset.offsets
    inner = np.ones(steps, bool)
    inner[offsets[1:] - 1] = False
    if (np.asarray(dataset.terminals) & inner).any():
        raise InvalidDataset("a terminal step lies inside an episode: an episode must end with it.")
    for name in ("observations", "actions", "rewards", "final_observations"):
        values = getattr(dataset, name)
        if values is not None and np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise InvalidDataset(f"{name} holds values that are not finite.")
    if dataset.frame_stack == 1:
        _check_indices("observations", dataset.observations, dataset.observation_space)
        if dataset.final_observations is not None:
            _check_indices("final_observations", dataset.final_observations, dataset.observation_space)
    _check_indices("actions", dataset.actions, dataset.action_space)


def check_shapes(dataset: TrajectoryDataset) -> None:
    """Raise InvalidDataset unless the arrays have one row a step and fit the spaces; reads only offsets."""
    if dataset.rewards.ndim != 1 or dataset.terminals.ndim != 1 or dataset.offsets.ndim != 1:
        raise InvalidDataset("rewards, terminals and offsets must have one dimension each.")
    steps, offsets = dataset.num_steps, dataset.offsets
    ordered = len(offsets) > 1 and offsets.dtype.kind in "iu" and bool((offsets[1:] > offsets[:-1]).all())
    if steps == 0 or not ordered or offsets[0] != 0 or offsets[-1] != steps:
        raise InvalidDataset(f"offsets do not divide {steps} steps into non-empty episodes.")
    arrays = {name: getattr(dataset, name) for name in ("observations", "actions", "terminals")}
    for name, values in {**arrays, **dataset.extras}.items():
        if values.shape[:1] != (steps,):
            raise InvalidDataset(f"{name} has {len(values) if values.ndim else 0} rows where rewards has {steps}.")
    for name, values in {"rewards": dataset.rewards, **arrays}.items():
        if values.dtype.kind not in "biuf":
            raise InvalidDataset(f"{name} holds {values.dtype}, not numbers.")
    if dataset.frame_stack > 1:
        _check_frames(dataset)
    else:
        _check_space("observations", dataset.observations, dataset.observation_space)
    _check_space("actions", dataset.actions, dataset.action_space)
    _check_final(dataset)


def digest_of(dataset: TrajectoryDataset) -> str:
    """Return the sha256 over dtype, shape and bytes of every array and over both spaces."""
    sha = hashlib.sha256()
    arrays = [(name, getattr(dataset, name)) for name in ARRAYS] + sorted(dataset.extras.items())
    if dataset.final_observations is not None:
        arrays.append(("final_observations", dataset.final_observations))
    for name, array in arrays:
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        rows = max(1, HASHED_BYTES * len(array) // max(array.nbytes, 1))
        for first in range(0, len(array), rows):
            sha.update(np.ascontiguousarray(array[first : first + rows]).data)
            release_pages(array)
    spaces = [space_to_json(dataset.observation_space), space_to_json(dataset.action_space)]
    sha.update(json.dumps(spaces, sort_keys=True).encode())
    return sha.hexdigest()


def release_pages(array: Array) -> None:
    """Release the pages of a mapped array from this process; they stay in the file cache, which trials share."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def mean_and_std(array: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation over the first axis of [N, ...], in double precision, without a copy."""
    shape = array.shape[1:]
    parts = [array[first : first + MOMENT_ROWS] for first in range(0, len(array), MOMENT_ROWS)]
    mean = sum((part.sum(axis=0, dtype=np.float64) for part in parts), np.zeros(shape)) / len(array)
    squares = (np.square(part - mean, dtype=np.float64).sum(axis=0) for part in parts)
    return mean, np.sqrt(sum(squares, np.zeros(shape)) / len(array))


def constant_columns(array: Array) -> NDArray[np.bool_]:
    """Return which numbers of a row are the same in all rows of [N, ...], up to float32's rounding."""
    parts = [array[first : first + MOMENT_ROWS] for first in range(0, len(array), MOMENT_ROWS)]
    low = np.min([part.min(axis=0) for part in parts], axis=0).astype(np.float64)
    high = np.max([part.max(axis=0) for part in parts], axis=0).astype(np.float64)
    constant: NDArray[np.bool_] = high - low <= FLOAT_ROUNDING * np.maximum(abs(low), abs(high))
    return constant


def observation_moments(dataset: TrajectoryDataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each number of an observation; 1 for one that is constant.

    A constant divided by an epsilon is zero in training, but a little noise in the environment would be huge.
    """
    mean, std = mean_and_std(dataset.observations)
    return mean, np.where(constant_columns(dataset.observations), 1.0, std)


def statistics_card(dataset: TrajectoryDataset) -> dict[str, Any]:
    """Return the statistics of a data card as plain JSON values; raise InvalidDataset for infinite returns."""
    returns, lengths = dataset.returns, dataset.lengths
    if not np.isfinite(returns).all() or np.ptp(returns) > LARGEST_SPREAD:
        raise InvalidDataset("its returns are not finite. Delete it from the store: it is made or read again.")
    counts, edges = histogram(returns, bins=20)
    return {
        "episodes": dataset.num_episodes,
        "steps": dataset.num_steps,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "best_episode": int(returns.argmax()),
        "length_min": int(lengths.min()),
        "length_mean": float(lengths.mean()),
        "length_std": float(lengths.std()),
        "length_max": int(lengths.max()),
        "cut_off_episodes": int(dataset.cut_off.sum()),
        "unknown_transitions": dataset.unknown_transitions,
        "actions_on_bound": share_on_bounds(dataset),
        "constant_observations": _constant_observations(dataset),
        "return_histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }


def histogram(returns: Array, bins: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return counts and edges as numpy.histogram does, of a single bin where the returns are equal up to rounding."""
    low, high = float(returns.min()), float(returns.max())
    least = FLOAT_ROUNDING * max(abs(low), abs(high))
    if high - low <= least:
        around = max(0.5, least)
        return np.array([len(returns)]), np.array([low - around, high + around])
    counts, edges = np.histogram(returns, bins=bins)
    return counts, edges


def _constant_observations(dataset: TrajectoryDataset) -> list[int]:
    """Return the indices of an observation's numbers that are constant over the data."""
    space = dataset.observation_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1 or dataset.frame_stack > 1:
        return []
    return [int(index) for index in np.flatnonzero(constant_columns(dataset.observations))]


def share_on_bounds(dataset: TrajectoryDataset) -> float | None:
    """Return the share of action numbers on a bound of their Box; None where actions are unbounded."""
    space = dataset.action_space
    if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
        return None
    slack = BOUND_SLACK * (space.high - space.low)
    low, high = space.low + slack, space.high - slack
    parts = (dataset.actions[first : first + MOMENT_ROWS] for first in range(0, dataset.num_steps, MOMENT_ROWS))
    return float(sum(((part <= low) | (part >= high)).sum() for part in parts) / dataset.actions.size)


def is_flat(space: gym.Space[Any]) -> bool:
    """Return whether a space is Discrete or a Box of vectors."""
    return isinstance(space, gym.spaces.Discrete) or (isinstance(space, gym.spaces.Box) and len(space.shape) == 1)


def single_precision(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space with floats in float32, the precision of learners and of D4RL."""
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return gym.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), space.shape, np.float32)
    return space


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """Write a Box or Discrete space as plain JSON; raise InvalidDataset for any other."""
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.Box):
        low, high = (_bound_to_json(bound) for bound in (space.low, space.high))
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
    raise InvalidDataset(f"spaces must be Box or Discrete, not {space}.")


def space_from_json(text: Mapping[str, Any]) -> gym.Space[Any]:
    """Read what `space_to_json` wrote; raise ValueError, TypeError or KeyError for anything else."""
    try:
        if text["type"] == "Discrete":
            return gym.spaces.Discrete(text["n"], start=text["start"])
        dtype, shape = np.dtype(text["dtype"]), tuple(text["shape"])
        low, high = (np.broadcast_to(np.array(text[bound], dtype), shape) for bound in ("low", "high"))
        return gym.spaces.Box(low, high, shape, dtype.type)
    except AssertionError as error:  # of gymnasium
        raise ValueError(f"not a space: {error}") from error


def _bound_to_json(bound: Array) -> Any:
    # JSON has no infinity, but the words "inf" and "-inf" survive a round trip through numpy.
    plain = [str(v) if np.isinf(v) else v for v in bound.ravel().tolist()]
    return plain[0] if len(set(plain)) == 1 else np.array(plain, object).reshape(bound.shape).tolist()


def _check_frames(dataset: TrajectoryDataset) -> None:
    """Check that the space is that of stacks, with frames on the first axis."""
    shape, space = dataset.observations.shape[1:], dataset.observation_space
    if space.shape != (dataset.frame_stack, *shape) or space.dtype != dataset.observations.dtype:
        raise InvalidDataset(
            f"frames are {shape} of {dataset.observations.dtype}: stacks of {dataset.frame_stack} do not fit {space}."
        )


def _check_final(dataset: TrajectoryDataset) -> None:
    final = dataset.final_observations
    if final is None:
        return
    if dataset.frame_stack > 1:
        raise InvalidDataset("final_observations of stacked frames are not kept: leave them out.")
    if final.shape[:1] != (dataset.num_episodes,):
        rows = len(final) if final.ndim else 0
        raise InvalidDataset(f"final_observations has {rows} rows for {dataset.num_episodes} episodes.")
    if final.dtype != dataset.observations.dtype:
        raise InvalidDataset(f"final_observations holds {final.dtype}, observations {dataset.observations.dtype}.")
    _check_space("final_observations", final, dataset.observation_space)


def _check_space(name: str, values: Array, space: gym.Space[Any]) -> None:
    if isinstance(space, gym.spaces.Discrete):
        if not np.issubdtype(values.dtype, np.integer) or values.ndim != 1:
            raise InvalidDataset(f"{name} are not integers of {space}.")
    elif values.shape[1:] != space.shape:
        raise InvalidDataset(f"{name} have shape {values.shape[1:]}, their space says {space.shape}.")


def _check_indices(name: str, values: Array, space: gym.Space[Any]) -> None:
    if isinstance(space, gym.spaces.Discrete):
        first, last = int(space.start), int(space.start) + int(space.n) - 1
        if values.min() < first or values.max() > last:
            raise InvalidDataset(f"{name} are not integers of {space}.")
