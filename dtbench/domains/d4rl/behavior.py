"""Behaviour policies: small stochastic perceptrons in float16 files, run with numpy."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtbench.errors import InvalidDataset

Array = NDArray[np.float32]
LOG_STD_RANGE = (-20.0, 2.0)  # what SAC clips its log standard deviations to


@dataclass(frozen=True, slots=True)
class BehaviorPolicy:
    """A Gaussian around a perceptron's output, squashed by tanh (SAC) or clipped to the bounds (PPO)."""

    mean: Array  # [observation]: what is subtracted from observations,
    scale: Array  # [observation]: and what they are then divided by
    weights: Sequence[Array]  # [inputs, outputs] each
    biases: Sequence[Array]  # [outputs] each
    activation: str  # "tanh" or "relu"
    squash: bool
    log_std: Array | None  # [action]; None: the second half of the perceptron's output

    def act(self, observations: Array, noise: Array) -> Array:
        """Actions [B, action] for observations [B, observation] and standard normal noise [B, action]."""
        hidden = ((observations - self.mean) / self.scale).clip(-10, 10)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = hidden @ weight + bias
            hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0)
        output = hidden @ self.weights[-1] + self.biases[-1]
        if self.log_std is None:
            centre, log_std = np.split(output, 2, axis=1)
            log_std = log_std.clip(*LOG_STD_RANGE)
        else:
            centre, log_std = output, self.log_std
        drawn = centre + np.exp(log_std) * noise
        actions: Array = np.tanh(drawn) if self.squash else drawn.clip(-1, 1)
        return actions

    def save(self, path: Path) -> None:
        """Write the policy with its weights in float16."""
        layers = {f"weight_{i}": weight.astype(np.float16) for i, weight in enumerate(self.weights)}
        layers |= {f"bias_{i}": bias.astype(np.float16) for i, bias in enumerate(self.biases)}
        if self.log_std is not None:
            layers["log_std"] = self.log_std.astype(np.float32)
        kind = np.array([self.activation == "tanh", self.squash])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, mean=self.mean, scale=self.scale, kind=kind, **layers)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> "BehaviorPolicy":
        """Read what `save` wrote; raise InvalidDataset for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                layers = sum(name.startswith("weight_") for name in file.files)
                tanh, squash = map(bool, file["kind"])
                return BehaviorPolicy(
                    mean=file["mean"].astype(np.float32),
                    scale=file["scale"].astype(np.float32),
                    weights=[file[f"weight_{i}"].astype(np.float32) for i in range(layers)],
                    biases=[file[f"bias_{i}"].astype(np.float32) for i in range(layers)],
                    activation="tanh" if tanh else "relu",
                    squash=squash,
                    log_std=file["log_std"].astype(np.float32) if "log_std" in file.files else None,
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidDataset(f"{path} is no behaviour policy: {error}.") from error
