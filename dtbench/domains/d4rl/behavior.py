"""Behaviour policies: small stochastic MLPs in compact files, run with numpy."""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtbench.errors import InvalidDataset

Array = NDArray[np.float32]
LOG_STD_RANGE = (-20.0, 2.0)  # what SAC clips its log standard deviations to
_FLOATS = {2: np.float16, 4: np.float32}
_LEVELS = 127  # of a weight stored in one byte, on either side of zero


@dataclass(frozen=True, slots=True)
class BehaviorPolicy:
    """A Gaussian around a perceptron's output, squashed by tanh (SAC) or clipped to the bounds (PPO)."""

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
        layers: dict[str, NDArray[Any]] = {}
        for i, weight in enumerate(self.weights):
            if bytes_per_weight == 1:
                layers[f"weight_{i}"], layers[f"scale_{i}"] = _levels(weight)
            else:
                layers[f"weight_{i}"] = weight.astype(_FLOATS[bytes_per_weight])
        bias_type = _FLOATS[max(2, bytes_per_weight)]
        layers |= {f"bias_{i}": bias.astype(bias_type) for i, bias in enumerate(self.biases)}
        if self.log_std is not None:
            layers["log_std"] = self.log_std.astype(np.float32)
        kind = np.array([self.activation == "tanh", self.squash])
        path.parent.mkdir(parents=True, exist_ok=True)
        clip = np.float32(self.clip)
        np.savez_compressed(path, mean=self.mean, scale=self.scale, kind=kind, clip=clip, **layers)  # type: ignore[arg-type]

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
                    weights=[_weight(file, i) for i in range(layers)],
                    biases=[file[f"bias_{i}"].astype(np.float32) for i in range(layers)],
                    activation="tanh" if tanh else "relu",
                    squash=squash,
                    log_std=file["log_std"].astype(np.float32) if "log_std" in file.files else None,
                    clip=float(file["clip"]) if "clip" in file.files else 10.0,
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidDataset(f"{path} is no behaviour policy: {error}.") from error


def _levels(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """A weight [inputs, outputs] as whole levels, and what a level of each column is worth, [outputs]."""
    scale = (np.abs(weight).max(axis=0) / _LEVELS).astype(np.float32)
    scale[scale == 0] = 1
    return np.rint(weight / scale).astype(np.int8), scale


def _weight(file: Any, layer: int) -> Array:
    stored = file[f"weight_{layer}"]
    if stored.dtype == np.int8:
        stored = stored * file[f"scale_{layer}"]
    weight: Array = stored.astype(np.float32)
    return weight
