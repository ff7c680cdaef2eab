"""Random batches of an offline dataset: windows for sequence models, transitions for TD learners."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtbench.data.dataset import TrajectoryDataset, release_pages
from dtbench.errors import InvalidValue

Anchor = Literal["start", "end", "inside"]
Side = Literal["left", "right"]
DEVICE_BYTES = 2**31  # smaller data are copied to the device
MAPPED_BYTES = 2**29  # read from a mapped file before its pages are released


@dataclass(frozen=True, slots=True)
class Windows:
    """B windows of T steps, each within one episode, padded with zeros."""

    observations: Tensor  # [B, T, *observation]
    actions: Tensor  # [B, T, *action]
    rewards: Tensor  # [B, T]
    terminals: Tensor  # [B, T] bool
    returns_to_go: Tensor  # [B, T]
    timesteps: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool, False where padded


@dataclass(frozen=True, slots=True)
class Transitions:
    """B steps and their successors, which are zeros after terminal steps."""

    observations: Tensor  # [B, *observation]
    actions: Tensor  # [B, *action]
    rewards: Tensor  # [B]
    next_observations: Tensor  # [B, *observation]
    terminals: Tensor  # [B] bool
    next_actions: Tensor | None = None  # [B, *action]; zeros where the data's episode ends, where asked for
    followed: Tensor | None = None  # [B] bool: whether another step of the data follows


class WindowSampler:
    """Draw windows by timestep, so that an episode's chance grows with its length.

    `anchor="start"`: the drawn step begins the window, as in the Gym code of Chen et al. (2021);
    `anchor="end"`: it ends the window, so that a window reaches back as far as the episode does;
    `anchor="inside"`: it begins the window unless the episode ends too soon, then the window moves back, as in
    their Atari code: windows are full wherever episodes are long enough, and whole episodes where they are not.
    No window crosses an episode. Short ones are padded on the left, so that index -1 is the newest step, or on the
    right, where a causal model needs no mask.
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
        pad: Side = "left",
        returns_to_go: NDArray[np.floating[Any]] | None = None,
        weights: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Prepare windows of `context` steps; raise InvalidValue for sizes below 1.

        `returns_to_go` [N] replace those of the data; steps are drawn in proportion to `weights` [N], by default
        uniformly.
        """
        if context < 1 or batch_size < 1:
            raise InvalidValue(f"context {context} and batch_size {batch_size} must be 1 or more.")
        self.dataset, self.context, self.batch_size = dataset, context, batch_size
        self.rng, self.device, self.anchor, self.pad = rng, device, anchor, pad
        future = dataset.returns_to_go if returns_to_go is None else returns_to_go
        self._cumulative = None if weights is None else np.cumsum(weights, dtype=np.float64)
        self._observations = Observations(dataset)
        arrays = [dataset.actions, dataset.rewards, dataset.terminals, future.astype(np.float32)]
        if self._observations.are_few:
            arrays.append(dataset.observations)
        self._arrays = _place_on_device(arrays, device)

    def sample(self, batches: int = 1) -> Windows:
        """Draw one batch of random windows, or the rows of several, which are those drawn one after the other."""
        return self.at(_drawn(self.rng, self._cumulative, self.dataset.num_steps, batches * self.batch_size))

    def at(self, steps: NDArray[np.int64]) -> Windows:
        """Return the windows of these steps [B]."""
        return self._gather(*self._bounds(steps))

    def _bounds(self, drawn: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the first step of each window, the one after its last, and the first of its episode."""
        episode = np.searchsorted(self.dataset.offsets, drawn, side="right") - 1
        begin, end = self.dataset.offsets[episode], self.dataset.offsets[episode + 1]
        if self.anchor == "start":
            return drawn, np.minimum(drawn + self.context, end), begin
        if self.anchor == "inside":
            first = np.maximum(np.minimum(drawn, end - self.context), begin)
            return first, np.minimum(first + self.context, end), begin
        return np.maximum(drawn + 1 - self.context, begin), drawn + 1, begin

    def _gather(self, first: NDArray[np.int64], last: NDArray[np.int64], begin: NDArray[np.int64]) -> Windows:
        begun = first if self.pad == "right" else last - self.context
        steps = begun[:, None] + np.arange(self.context)
        mask = (steps >= first[:, None]) & (steps < last[:, None])
        timesteps, flat = (steps - begin[:, None]).reshape(-1), steps.reshape(-1)
        gaps = np.flatnonzero(~mask)
        flat[gaps] = first[gaps // self.context]
        rows = torch.from_numpy(flat).to(self._arrays[0].device)
        columns = [array.index_select(0, rows) for array in self._arrays]
        if not self._observations.are_few:
            columns.append(torch.from_numpy(self._observations.at(flat)))
        columns = [values.to(self.device) for values in (*columns, torch.from_numpy(timesteps))]
        if len(gaps):
            padded = torch.from_numpy(gaps).to(self.device)
            columns = [values.index_fill_(0, padded, 0) for values in columns]
        shaped = [values.view(*mask.shape, *values.shape[1:]) for values in columns]
        actions, rewards, terminals, returns_to_go, observations, timed = shaped
        unpadded = torch.from_numpy(mask).to(self.device)
        return Windows(observations, actions, rewards.float(), terminals, returns_to_go, timed, unpadded)


class TransitionSampler:
    """Draw single transitions, uniformly or by weights.

    The last step of a truncated episode leads to the dataset's final observation, and is left out where that is
    unknown. The arrays stay in memory or in a mapped file that trials share; they are copied to another device than
    the CPU where they are smaller than `DEVICE_BYTES`.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        batch_size: int,
        rng: np.random.Generator,
        device: torch.device,
        weights: NDArray[np.floating[Any]] | None = None,
        next_actions: bool = False,
    ) -> None:
        """Prepare batches of `batch_size`; raise InvalidValue where the data holds no transition.

        Steps are drawn in proportion to `weights` [N], by default uniformly; `next_actions` come with them.
        """
        if batch_size < 1:
            raise InvalidValue(f"batch_size {batch_size} must be 1 or more.")
        self.dataset, self.batch_size, self.rng, self.device = dataset, batch_size, rng, device
        known = np.ones(dataset.num_steps, bool)
        last = dataset.offsets[1:] - 1
        self._final = None if dataset.final_observations is None else _FinalObservations(dataset)
        if self._final is None:
            known[last] = ~dataset.cut_off
        self._followed = np.ones(dataset.num_steps, bool) if next_actions else None
        if self._followed is not None:
            self._followed[last] = False
        self.steps = np.flatnonzero(known)  # whose transitions are known
        if not len(self.steps):
            raise InvalidValue("the dataset holds no transition: every episode is a single truncated step.")
        self._cumulative = None if weights is None else np.cumsum(weights[self.steps], dtype=np.float64)
        self._observations = Observations(dataset)
        arrays = [dataset.actions, dataset.rewards, dataset.terminals]
        if self._observations.are_few:
            arrays.insert(0, dataset.observations)
        self._arrays = _place_on_device(arrays, device)
        self._home = self._arrays[0].device

    def sample(self, batches: int = 1) -> Transitions:
        """Draw one batch of random transitions, or the rows of several, which are those drawn one after the other."""
        return self.at(self.steps[_drawn(self.rng, self._cumulative, len(self.steps), batches * self.batch_size)])

    def at(self, drawn: NDArray[np.int64]) -> Transitions:
        """Return the transitions of these steps of the data, [B], each one of `steps`."""
        steps = torch.from_numpy(drawn).to(self._home)
        *whole, actions, rewards, terminals = (array.index_select(0, steps) for array in self._arrays)
        if whole:
            after = (steps + ~terminals).clamp_(max=self.dataset.num_steps - 1)
            observations, following = whole[0], self._arrays[0].index_select(0, after)
        else:
            next_steps = np.minimum(drawn + ~terminals.cpu().numpy(), self.dataset.num_steps - 1)
            observations, following = (
                torch.from_numpy(self._observations.at(at)).to(self._home) for at in (drawn, next_steps)
            )
        if self._final is not None:
            self._final.write(drawn, following)
        following.masked_fill_(terminals.view(-1, *[1] * (following.dim() - 1)), 0)
        return Transitions(
            observations=observations.to(self.device),
            actions=actions.to(self.device),
            rewards=rewards.float().to(self.device),
            next_observations=following.to(self.device),
            terminals=terminals.to(self.device),
            **self._next_actions(drawn),
        )

    def _next_actions(self, drawn: NDArray[np.int64]) -> dict[str, Tensor]:
        if self._followed is None:
            return {}
        followed = torch.from_numpy(self._followed[drawn]).to(self._home)
        after = torch.from_numpy(np.minimum(drawn + 1, self.dataset.num_steps - 1)).to(self._home)
        actions = self._arrays[-3].index_select(0, after)
        actions.masked_fill_(~followed.view(-1, *[1] * (actions.dim() - 1)), 0)
        return {"next_actions": actions.to(self.device), "followed": followed.to(self.device)}


class _FinalObservations:
    """The final observations of truncated episodes."""

    def __init__(self, dataset: TrajectoryDataset) -> None:
        cut = np.flatnonzero(dataset.cut_off)
        self._last = dataset.offsets[1:][cut] - 1  # rising
        self._observations = np.asarray(dataset.final_observations)[cut]

    def write(self, steps: NDArray[np.int64], following: Tensor) -> None:
        """Replace the rows of `following` [B, *observation] whose step is the last of a truncated episode."""
        indices = np.searchsorted(self._last, steps)
        rows = np.flatnonzero(self._last.take(indices, mode="clip") == steps) if len(self._last) else ()
        if len(rows):
            final = torch.from_numpy(self._observations[indices[rows]])
            following[torch.from_numpy(rows).to(following.device)] = final.to(following)


class Observations:
    """Reads observations of a dataset and releases the pages of a mapped file from time to time."""

    def __init__(self, dataset: TrajectoryDataset) -> None:
        self.dataset = dataset
        self.are_few = (
            dataset.frame_stack == 1 and dataset.observations.nbytes < MAPPED_BYTES
        )  # which are gathered directly
        self._read = 0

    def at(self, steps: NDArray[np.int64]) -> NDArray[Any]:
        """Return the observations of these steps, [..., *observation]."""
        observations = self.dataset.observations_at(steps)
        self._read += observations.nbytes
        if self._read > MAPPED_BYTES:
            release_pages(self.dataset.observations)
            self._read = 0
        return observations


def _drawn(
    rng: np.random.Generator, cumulative: NDArray[np.float64] | None, steps: int, count: int
) -> NDArray[np.int64]:
    """Draw `count` of so many steps, uniformly or by their cumulative weights [steps]."""
    if cumulative is None:
        return rng.integers(steps, size=count)
    drawn: NDArray[np.int64] = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    return drawn.clip(max=steps - 1)


def balanced_weights(dataset: TrajectoryDataset, *, bins: int = 20) -> NDArray[np.float64]:
    """Return weights [N] under which rare returns are drawn as often as common ones.

    Episodes are sorted by return into `bins` classes of equal width between the lowest and the highest; every class
    that is not empty is equally likely, and within a class every step. Weighting by the return does not change
    p(action | history, return), the prediction of a model conditioned on the return.
    """
    returns = dataset.returns
    width = (returns.max() - returns.min()) / bins
    classes = np.zeros(len(returns), np.int64) if width == 0 else ((returns - returns.min()) / width).astype(np.int64)
    class_of_step = np.repeat(classes.clip(max=bins - 1), dataset.lengths)
    counts = np.bincount(class_of_step, minlength=bins)
    weights: NDArray[np.float64] = 1.0 / counts[class_of_step]
    return weights


def _place_on_device(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Return the arrays as tensors, on the device where they are smaller than `DEVICE_BYTES` together."""
    small = sum(array.nbytes for array in arrays) < DEVICE_BYTES
    return [_shared_tensor(array).to(device if small else "cpu") for array in arrays]


def _shared_tensor(array: NDArray[Any]) -> Tensor:
    """Return the array as a tensor without a copy; it must not be written to, of which PyTorch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))
