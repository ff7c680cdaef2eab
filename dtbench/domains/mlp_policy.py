"""Behaviour policies' MLPs as .npz files: weights in float32, in float16, or in one byte each."""

import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtbench.data.memory import free_memory
from dtbench.errors import InvalidDataset

Array = NDArray[np.float32]
_FLOATS = {2: np.float16, 4: np.float32}
_LAYER_ARRAY = re.compile(r"(weight|scale|bias)_\d+")
_LEVELS = 127  # of a weight stored in one byte, on either side of zero


@dataclass(frozen=True, slots=True)
class StoredMLP:
    """The arrays in a policy's file."""

    weights: Sequence[Array]  # [inputs, outputs] each
    biases: Sequence[Array]  # [outputs] each
    others: Mapping[str, NDArray[Any]]  # all other arrays of the file


def save_mlp(
    path: Path, weights: Sequence[Array], biases: Sequence[Array], *, bytes_per_weight: int, **others: Any
) -> None:
    """Write an MLP and other arrays; weights of one byte have a scale for each output."""
    layers: dict[str, NDArray[Any]] = {}
    for i, weight in enumerate(weights):
        if bytes_per_weight == 1:
            layers[f"weight_{i}"], layers[f"scale_{i}"] = _levels(weight)
        else:
            layers[f"weight_{i}"] = weight.astype(_FLOATS[bytes_per_weight])
    bias_type = _FLOATS[max(2, bytes_per_weight)]
    layers |= {f"bias_{i}": bias.astype(bias_type) for i, bias in enumerate(biases)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # numpy appends .npz to a path
        np.savez_compressed(file, **others, **layers)  # type: ignore[arg-type]


def load_mlp(path: Path) -> StoredMLP:
    """Read what `save_mlp` wrote; raise InvalidDataset for anything else."""
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            layers = range(sum(name.startswith("weight_") for name in file.files))
            weights = [_weight(file, i) for i in layers]
            biases = [file[f"bias_{i}"].astype(np.float32) for i in layers]
            others = {name: file[name] for name in file.files if not _LAYER_ARRAY.fullmatch(name)}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidDataset(f"{path} is not a behaviour policy: {error}.") from error
    return StoredMLP(weights, biases, others)


def _check_sizes(path: Path) -> None:
    """Raise ValueError where arrays declare more than they hold or than fits into memory; read their headers alone."""
    needed = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                if (version := np.lib.format.read_magic(stream)) != (1, 0):
                    raise ValueError(f"{member.filename} is .npy of version {version}, not (1, 0)")
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            if (declared := math.prod(shape) * dtype.itemsize) > member.file_size:
                raise ValueError(f"{member.filename} declares {declared} bytes and holds {member.file_size}")
            needed += member.file_size + 4 * math.prod(shape)  # with its copy in float32
    if needed > (free := free_memory()):
        raise ValueError(f"it needs {needed} bytes of memory, and {free} are free")


def _levels(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Return a weight [inputs, outputs] as whole levels, and the size of each output's level, [outputs]."""
    scale = (np.abs(weight).max(axis=0) / _LEVELS).astype(np.float32)
    scale[scale == 0] = 1
    return np.rint(weight / scale).astype(np.int8), scale


def _weight(file: Any, layer: int) -> Array:
    stored = file[f"weight_{layer}"]
    if stored.dtype == np.int8:
        stored = stored * file[f"scale_{layer}"].astype(np.float32)
    weight: Array = stored.astype(np.float32)
    return weight
