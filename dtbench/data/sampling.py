"""Random batches of an offline dataset: windows for sequence models, transitions for TD learners."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtbench.data.trajectories import TrajectoryDataset, give_back
from dtbench.errors import InvalidValue

Anchor = Literal["start", "end", "inside"]
DEVICE_BYTES = 2**31  # data that fits is kept whole on the device
MAPPED_BYTES = 2**29  # read from a mapped file before its pages are given back


@dataclass(frozen=True, slots=True)
class Windows:
    """B stretches of T steps, each within one episode, padded on the left with zeros."""

    observations: Tensor  # [B, T, *observation]
    actions: Tensor  # [B, T, *action]
    rewards: Tensor  # [B, T]
    terminals: Tensor  # [B, T] bool
    returns_to_go: Tensor  # [B, T]
    timesteps: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool, False where padded


@dataclass(frozen=True, slots=True)
class Transitions:
    """B steps with what followed; where `terminals` is set, nothing followed and the next is zeros."""

    observations: Tensor  # [B, *observation]
    actions: Tensor  # [B, *action]
    rewards: Tensor  # [B]
    next_observations: Tensor  # [B, *observation]
    terminals: Tensor  # [B] bool


class WindowSampler:
    """Draw windows by timestep, so that an episode's chance grows with its length.

    `anchor="start"`: the drawn step begins the window, as in the Gym code of Chen et al. (2021);
    `anchor="end"`: it ends the window, so that a window reaches back as far as the episode does;
    `anchor="inside"`: it begins the window unless the episode ends too soon, then the window moves back, as in
    their Atari code: windows are full wherever episodes are long enough, and whole episodes where they are not.
    No window crosses an episode.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        context: int,
        batch_size: int,
        rng: np.random.Generator,
        device: torch.device,
        anchor: Anchor = "start",
        returns_to_go: NDArray[np.floating[Any]] | None = None,
        weights: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Prepare windows of `context` steps; raise InvalidValue for sizes below 1.

        `returns_to_go` [N] replaces the data's own where an algorithm labels them its own way; `weights` [N]
        says how likely each step is to be drawn, in place of all being equally likely.
        """
        if context < 1 or batch_size < 1:
            raise InvalidValue(f"context {context} and batch_size {batch_size} must be 1 or more.")
        self.dataset, self.context, self.batch_size = dataset, context, batch_size
        self.rng, self.device, self.anchor = rng, device, anchor
        future = dataset.returns_to_go if returns_to_go is None else returns_to_go
        self._returns_to_go = future.astype(np.float32)
        self._timesteps = dataset.timesteps
        self._cumulative = None if weights is None else np.cumsum(weights, dtype=np.float64)
        self._observations = Observations(dataset)

    def sample(self) -> Windows:
        """One batch of random windows."""
        first, last = self._bounds(self._draw())
        return self._gather(first, last)

    def _draw(self) -> NDArray[np.int64]:
        if self._cumulative is None:
            return self.rng.integers(self.dataset.num_steps, size=self.batch_size)
        places = self.rng.random(self.batch_size) * self._cumulative[-1]
        drawn: NDArray[np.int64] = np.searchsorted(self._cumulative, places, side="right")
        return drawn.clip(max=self.dataset.num_steps - 1)

    def _bounds(self, drawn: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        episode = np.searchsorted(self.dataset.offsets, drawn, side="right") - 1
        begin, end = self.dataset.offsets[episode], self.dataset.offsets[episode + 1]
        if self.anchor == "start":
            return drawn, np.minimum(drawn + self.context, end)
        if self.anchor == "inside":
            first = np.maximum(np.minimum(drawn, end - self.context), begin)
            return first, np.minimum(first + self.context, end)
        return np.maximum(drawn + 1 - self.context, begin), drawn + 1

    def _gather(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> Windows:
        # Chen et al. pad on the left, so that position -1 is always the newest step of the window.
        steps = last[:, None] - self.context + np.arange(self.context)
        mask = steps >= first[:, None]
        steps = np.where(mask, steps, first[:, None])
        data = self.dataset
        return Windows(
            observations=self._masked(self._observations.at(steps), mask),
            actions=self._take(data.actions, steps, mask),
            rewards=self._take(data.rewards, steps, mask).float(),
            terminals=self._take(data.terminals, steps, mask),
            returns_to_go=self._take(self._returns_to_go, steps, mask),
            timesteps=self._take(self._timesteps, steps, mask),
            mask=torch.from_numpy(mask).to(self.device),
        )

    def _take(self, array: NDArray[Any], steps: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        return self._masked(np.asarray(array[steps]), mask)

    def _masked(self, values: NDArray[Any], mask: NDArray[np.bool_]) -> Tensor:
        values[~mask] = 0
        return torch.from_numpy(values).to(self.device)


class TransitionSampler:
    """Draw single transitions uniformly; the last step of a cut-off episode is none, as its successor is unknown.

    The arrays stay where they are, in memory or in a mapped file that trials share; on another device than the
    processor they are copied there as a whole where they are smaller than `DEVICE_BYTES`.
    """

    def __init__(
        self, dataset: TrajectoryDataset, *, batch_size: int, rng: np.random.Generator, device: torch.device
    ) -> None:
        """Prepare batches of `batch_size`; raise InvalidValue where the data holds no transition."""
        if batch_size < 1:
            raise InvalidValue(f"batch_size {batch_size} must be 1 or more.")
        self.dataset, self.batch_size, self.rng, self.device = dataset, batch_size, rng, device
        known = np.ones(dataset.num_steps, bool)
        last = dataset.offsets[1:] - 1
        known[last] = np.asarray(dataset.terminals)[last]
        self._steps = np.flatnonzero(known)
        if not len(self._steps):
            raise InvalidValue("the dataset holds no transition: every episode is a single cut-off step.")
        self._observations = Observations(dataset)
        arrays = [dataset.actions, dataset.rewards, dataset.terminals]
        if dataset.frame_stack == 1:
            arrays.insert(0, dataset.observations)
        small = sum(array.nbytes for array in arrays) < DEVICE_BYTES
        self._home = device if small else torch.device("cpu")
        self._arrays = [_shared_tensor(array).to(self._home) for array in arrays]

    def sample(self) -> Transitions:
        """One batch of random transitions."""
        drawn = self._steps[self.rng.integers(len(self._steps), size=self.batch_size)]
        steps = torch.from_numpy(drawn).to(self._home)
        *whole, actions, rewards, terminals = (array.index_select(0, steps) for array in self._arrays)
        if whole:
            observations, following = whole[0], self._arrays[0].index_select(0, steps + ~terminals)
        else:
            after = drawn + ~terminals.cpu().numpy()
            observations, following = (
                torch.from_numpy(self._observations.at(at)).to(self._home) for at in (drawn, after)
            )
        following.masked_fill_(terminals.view(-1, *[1] * (following.dim() - 1)), 0)
        return Transitions(
            observations=observations.to(self.device),
            actions=actions.to(self.device),
            rewards=rewards.float().to(self.device),
            next_observations=following.to(self.device),
            terminals=terminals.to(self.device),
        )


class Observations:
    """Reads observations of a dataset, and gives a mapped file's pages back once many have been read."""

    def __init__(self, dataset: TrajectoryDataset) -> None:
        self.dataset = dataset
        self._read = 0

    def at(self, steps: NDArray[np.int64]) -> NDArray[Any]:
        """See `TrajectoryDataset.observations_at`."""
        found = self.dataset.observations_at(steps)
        self._read += found.nbytes
        if self._read > MAPPED_BYTES:
            give_back(self.dataset.observations)
            self._read = 0
        return found


def balanced_weights(dataset: TrajectoryDataset, *, bins: int = 20) -> NDArray[np.float64]:
    """Weights [N] under which rare returns are drawn as often as common ones.

    Episodes are sorted by return into `bins` classes of equal width between the lowest and the highest; every class
    that is not empty is equally likely, and within a class every step. Weighing by the return does not change what a
    model conditioned on that return should predict, p(action | history, return); it only spends effort evenly.
    """
    returns = dataset.returns
    width = (returns.max() - returns.min()) / bins
    classes = np.zeros(len(returns), np.int64) if width == 0 else ((returns - returns.min()) / width).astype(np.int64)
    class_of_step = np.repeat(classes.clip(max=bins - 1), dataset.lengths)
    counts = np.bincount(class_of_step, minlength=bins)
    weights: NDArray[np.float64] = 1.0 / counts[class_of_step]
    return weights


def _shared_tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor, without a copy: for reading only, as PyTorch warns where the array is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))
