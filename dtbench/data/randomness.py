"""Random streams that belong to one learner and survive a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


class TorchStream:
    """PyTorch's random numbers for one learner: initial weights, dropout, sampled actions.

    PyTorch draws them from one global generator per device. Inside `with stream.active():` that generator is
    this stream's; outside, it is unchanged, so that learners in one process do not disturb each other.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        """Begin the stream of `seed` on `device`."""
        self.device = device
        self.state = torch.Generator(device=device).manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use this stream as PyTorch's global generator within the block."""
        outside = self._get()
        self._set(self.state)
        try:
            yield
        finally:
            self.state = self._get()
            self._set(outside)

    def _get(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.get_rng_state()

    def _set(self, state: Tensor) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state, self.device)
        else:
            torch.set_rng_state(state)


def generator(*keys: int) -> np.random.Generator:
    """Return a numpy generator for these keys: equal keys, equal numbers; any other key, an independent stream."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(keys)))
