"""Behaviour policies: perceptrons that read the console's RAM, in files of a byte a weight, run with numpy."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtbench.domains.atari.console import RAM
from dtbench.errors import InvalidDataset

Array = NDArray[np.float32]
FEATURES = 2 * RAM


def features(ram: NDArray[np.uint8], before: NDArray[np.uint8]) -> Array:
    """What a policy reads, [B, 256] in [-1, 1]: the bytes [B, 128], and by how much each differs from `before`.

    A byte's change is taken modulo 256, as positions wrap, and counts no further than 16 either way.
    """
    change = (ram - before).view(np.int8).clip(-16, 16)
    return np.concatenate([ram / np.float32(127.5) - 1, change / np.float32(16)], axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class RamPolicy:
    """A perceptron with ReLU from the RAM to the logits of the actions."""

    weights: Sequence[Array]  # [inputs, outputs] each
    biases: Sequence[Array]  # [outputs] each

    def act(self, seen: Array, uniform: NDArray[np.float64], *, temperature: float = 1.0) -> NDArray[np.int64]:
        """Draw actions [B] for features [B, 256] with uniform numbers [B] from [0, 1); logits are divided first."""
        hidden = seen
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        logits = (hidden @ self.weights[-1] + self.biases[-1]).astype(np.float64)
        likelihood = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        cumulative = likelihood.cumsum(axis=1)
        drawn: NDArray[np.int64] = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(axis=1)
        return drawn.clip(max=logits.shape[1] - 1)

    def save(self, path: Path) -> None:
        """Write the policy: a signed byte a weight, scaled to the largest of its output."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            scale = np.abs(weight).max(axis=0).clip(1e-8) / 127
            arrays |= {f"weight_{i}": np.rint(weight / scale).astype(np.int8), f"scale_{i}": scale, f"bias_{i}": bias}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> "RamPolicy":
        """Read what `save` wrote; raise InvalidDataset for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                layers = range(sum(name.startswith("weight_") for name in file.files))
                weights = [file[f"weight_{i}"] * file[f"scale_{i}"].astype(np.float32) for i in layers]
                policy = RamPolicy(weights, [file[f"bias_{i}"].astype(np.float32) for i in layers])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidDataset(f"{path} is no behaviour policy: {error}.") from error
        if not policy.weights or policy.weights[0].shape[0] != FEATURES:
            raise InvalidDataset(f"{path} is no behaviour policy that reads {FEATURES} features.")
        return policy
