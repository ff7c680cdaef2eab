"""d3rlpy's side of `td_update`: times its updates and draws on request, in its own process.

d3rlpy needs another gymnasium than dtbench, so an interpreter that has it runs this file, which imports no dtbench:

    d3rlpy_peer.py DATA.npz '{"batch": 256, "threads": 2, "clock": "wall", "width": 256, "layers": {"CQL": 3}, ...}'

It writes one line of versions and names when it is ready, then answers each line `["CQL", 10]` with the seconds of 10
calls.
d3rlpy's own output goes to standard error.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.models import VectorEncoderFactory


def main(path: str, settings: dict[str, Any]) -> None:
    """Build the learners, then answer until standard input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(settings["threads"])
    now = {"wall": time.perf_counter, "cpu": time.process_time}[settings["clock"]]
    turns = callables(replay_buffer(path), settings)
    versions = {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}
    out.write(json.dumps({"versions": versions, "turns": list(turns)}) + "\n")
    for line in sys.stdin:
        name, count = json.loads(line)
        call = turns[name]
        started = now()
        for _ in range(count):
            call()
        out.write(f"{now() - started}\n")


def callables(buffer: Any, settings: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Return, by name, updates on a fixed batch, updates that draw their batch, and draws."""
    size, windows, steps = settings["batch"], settings["windows"], settings["steps"]
    batch = buffer.sample_transition_batch(size)
    calls: dict[str, Callable[[], object]] = {
        "draw transitions": lambda: buffer.sample_transition_batch(size),
        "draw windows": lambda: buffer.sample_trajectory_batch(windows, steps),
    }
    for name, layers in settings["layers"].items():
        algorithm = CONFIGS[name](VectorEncoderFactory([settings["width"]] * layers), size).create(device=False)
        algorithm.build_with_dataset(buffer)
        calls[name] = lambda algorithm=algorithm: algorithm.update(batch)
        calls[f"{name}, drawing too"] = lambda algorithm=algorithm: algorithm.update(
            buffer.sample_transition_batch(size)
        )
    return calls


def replay_buffer(path: str) -> Any:
    """Return the dataset, made of arrays as in d3rlpy's documentation."""
    data = np.load(path)
    return d3rlpy.dataset.MDPDataset(**{name: data[name] for name in data.files})


def cql(encoder: VectorEncoderFactory, size: int) -> Any:
    """Return CQL without the Lagrange multiplier, which ours has not; all else is the default."""
    return d3rlpy.algos.CQLConfig(
        batch_size=size, actor_encoder_factory=encoder, critic_encoder_factory=encoder, alpha_learning_rate=0.0
    )


def iql(encoder: VectorEncoderFactory, size: int) -> Any:
    """Return IQL with its defaults."""
    return d3rlpy.algos.IQLConfig(
        batch_size=size,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        value_encoder_factory=encoder,
    )


def td3_bc(encoder: VectorEncoderFactory, size: int) -> Any:
    """Return TD3+BC with its defaults."""
    return d3rlpy.algos.TD3PlusBCConfig(batch_size=size, actor_encoder_factory=encoder, critic_encoder_factory=encoder)


def bc(encoder: VectorEncoderFactory, size: int) -> Any:
    """Return BC with its defaults."""
    return d3rlpy.algos.BCConfig(batch_size=size, encoder_factory=encoder)


CONFIGS = {"CQL": cql, "IQL": iql, "TD3+BC": td3_bc, "BC": bc}

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
