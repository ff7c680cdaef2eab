"""What half a million stored Atari steps take: disk, and the memory of learners that read them mapped.

    python benchmarks/atari_memory.py --steps 500000 --out memory.json

The frames are random bytes, written in the layout of `dtbench.data.store` into a folder that is removed again. Every
learner of the suite `atari` with its preset `cpu` that is named below updates in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import report, surroundings

from dtbench import TrajectoryDataset
from dtbench.data import store
from dtbench.data.trajectories import space_to_json, statistics_card
from dtbench.domains.atari.console import action_count
from dtbench.domains.atari.games import OBSERVATIONS, STACK
from dtbench.registry import make_algorithm
from dtbench.suite import contender_on, load_suite

TASK, SUITE, PRESET, CONTENDERS = "atari:pong", "atari", "cpu", ("DT", "QR-DQN")
SEED = 0
CHUNK = 10_000  # frames written at a time
EPISODE = 1000  # steps
DISK_TARGET, MEMORY_TARGET = 5e9, 2e9  # bytes


def main() -> None:
    """Write the dataset, let every learner update, and print the sizes as JSON."""
    arguments = _arguments()
    if arguments.learner:
        print(json.dumps(trained(arguments.learner, arguments.folder, updates=arguments.updates)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch) / "dataset"
        write_dataset(folder, steps=arguments.steps)
        disk = sum(path.stat().st_size for path in folder.iterdir())
        learners = {name: in_own_process(name, folder, updates=arguments.updates) for name in CONTENDERS}
    peak = max(found["peak_resident_bytes"] for found in learners.values())
    result = {
        "steps": arguments.steps,
        "updates": arguments.updates,
        "learners_of": f"the suite {SUITE} with its preset {PRESET}, seed {SEED}",
        "disk_bytes": disk,
        "learners": learners,
        "within_targets": {"disk": disk < DISK_TARGET, "memory": peak < MEMORY_TARGET},
        **surroundings(),
    }
    report(result, arguments.out)


def write_dataset(folder: Path, *, steps: int) -> None:
    """Write random frames, actions and rewards where `store.load` finds them; the frames are never whole in memory."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    lengths = [EPISODE] * (steps // EPISODE) + [steps % EPISODE] * (steps % EPISODE > 0)
    offsets = np.cumsum([0, *lengths])
    terminals = np.zeros(steps, bool)
    terminals[offsets[1:] - 1] = True
    shape = (OBSERVATIONS.shape or ())[1:]
    frames = np.lib.format.open_memmap(folder / "observations.npy", "w+", np.uint8, (steps, *shape))
    for first in range(0, steps, CHUNK):
        chunk = frames[first : first + CHUNK]
        chunk[:] = rng.integers(256, size=chunk.shape, dtype=np.uint8)
        frames.flush()
    dataset = TrajectoryDataset(
        observations=frames,
        actions=rng.integers(action_count("pong"), size=steps),
        rewards=rng.integers(-1, 2, size=steps).astype(np.float32),
        terminals=terminals,
        offsets=offsets,
        observation_space=OBSERVATIONS,
        action_space=gym.spaces.Discrete(action_count("pong")),
        digest="not computed",
        info={"source": "random bytes"},
        frame_stack=STACK,
    )
