"""Datasets written as Minari's."""

import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.minari import UNKNOWN_FINALS, check_id, import_minari, is_local, set_folder
from dtbench.errors import InvalidDataset, InvalidValue


def write_minari(
    dataset: TrajectoryDataset,
    dataset_id: str,
    *,
    environment: gym.envs.registration.EnvSpec | None = None,
    force: bool = False,
) -> Path:
    """Write a dataset without stacked frames as a local set of Minari's; return its directory.

    `environment` is the spec of that to evaluate in; without it the set names none.

    Minari wants an observation after the last step. Where it is unknown, the last one stands for it, and metadata say
    so: `load_minari` leaves it out again. Raises InvalidDataset for stacked frames, InvalidValue for an id that Minari
    refuses and, unless `force`, for a set that exists, MissingDataset without the package.
    """
    minari = import_minari()
    if dataset.frame_stack > 1:
        raise InvalidDataset("it holds stacked frames, which are not written for Minari.")
    if not re.search(r"-v\d+$", check_id(dataset_id)):
        raise InvalidValue(f"minari:{dataset_id:.100} has no version, as Minari wants: minari:{dataset_id:.100}-v0.")
    folder = set_folder(dataset_id)
    if folder.exists() and not (force and is_local(dataset_id)):
        raise InvalidValue(f"minari:{dataset_id} exists: {folder}. Choose another id, or use --force.")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of authors and links that it has none of
            written = minari.create_dataset_from_buffers(
                dataset_id,
                list(_buffers(dataset)),
                env=environment,
                algorithm_name=str(dataset.info.get("algorithm") or f"dtbench's source {dataset.info.get('source')}"),
                description="Exported by dtbench.",
                observation_space=dataset.observation_space,
                action_space=dataset.action_space,
                data_format="hdf5",
                jpeg_encoding=False,
            )
            if dataset.final_observations is None:
                written.storage.update_metadata({UNKNOWN_FINALS: True})
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # half of it
        if isinstance(error, OSError | ValueError | gym.error.Error):
            raise InvalidValue(f"minari:{dataset_id} cannot be written to {folder}: {error}.") from error
        raise
    return folder


def _buffers(dataset: TrajectoryDataset) -> Iterator[Any]:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for number, (begin, end) in enumerate(zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)):
        observations, final = dataset.observations[begin:end], dataset.final_observations
        after = observations[-1:] if final is None else final[number : number + 1]
        last, terminals = np.arange(end - begin) == end - begin - 1, np.asarray(dataset.terminals[begin:end], bool)
        yield EpisodeBuffer(
            id=number,
            observations=np.concatenate([observations, after]),
            actions=np.asarray(dataset.actions[begin:end]),
            rewards=np.asarray(dataset.rewards[begin:end]),
            terminations=terminals,
            truncations=last & ~terminals,
            infos={},
        )
