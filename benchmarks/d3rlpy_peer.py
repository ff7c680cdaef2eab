"""d3rlpy's side of `td_update.py`: times its updates and draws when asked, in a process of its own.

d3rlpy needs another gymnasium than dtbench, so this runs with an interpreter that has it and imports nothing of ours:

    d3rlpy_peer.py DATA.npz '{"batch": 256, "threads": 2, "clock": "wall", "width": 256, "layers": {"CQL": 3}, ...}'

It says one line when it is ready. Then each line in, `["CQL", 10]`, is answered by one line, the seconds of so many
calls. What d3rlpy itself prints goes to standard error.
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
    """Make the learners, then answer until there is nothing more to read."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(settings["threads"])
    now = {"wall": time.perf_counter, "cpu": time.process_time}[settings["clock"]]
    actions = contestants(replay_buffer(path), settings)
    out.write(json.dumps({"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}) + "\n")
    for line in sys.stdin:
        name, count = json.loads(line)
        action = actions[name]
        began = now()
        for _ in range(count):
            action()
        out.write(f"{now() - began}\n")


def contestants(buffer: Any, settings: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """What can be asked for: an update on a batch that lies ready, one that draws its batch, and draws."""
    size, windows, steps = settings["batch"], settings["windows"], settings["steps"]
    batch = buffer.sample_transition_batch(size)
    found: dict[str, Callable[[], object]] = {
        "draw transitions": lambda: buffer.sample_transition_batch(size),
        "draw windows": lambda: buffer.sample_trajectory_batch(windows, steps),
    }
    for name, layers in settings["layers"].items():
        algorithm = CONFIGS[name](VectorEncoderFactory([settings["width"]] * layers), size).create(device=False)
        algorithm.build_with_dataset(buffer)
        found[name] = lambda algorithm=algorithm: algorithm.update(batch)
        found[f"{name}, drawing too"] = lambda algorithm=algorithm: algorithm.update(
            buffer.sample_transition_batch(size)
        )
    return found


def replay_buffer(path: str) -> Any:
    """The dataset as d3rlpy's documentation says to make one of arrays."""
    data = np.load(path)
    return d3rlpy.dataset.MDPDataset(**{name: data[name] for name in data.files})


def cql(encoder: VectorEncoderFactory, size: int) -> Any:
    """Without the Lagrange multiplier, which ours has not; all else as it comes."""
    return d3rlpy.algos.CQLConfig(
        batch_size=size, actor_encoder_factory=encoder, critic_encoder_factory=encoder, alpha_learning_rate=0.0
    )


def iql(encoder: VectorEncoderFactory, size: int) -> Any:
    """As it comes."""
    return d3rlpy.algos.IQLConfig(
        batch_size=size,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        value_encoder_factory=encoder,
    )


def td3_bc(encoder: VectorEncoderFactory, size: int) -> Any:
    """As it comes."""
    return d3rlpy.algos.TD3PlusBCConfig(batch_size=size, actor_encoder_factory=encoder, critic_encoder_factory=encoder)


def bc(encoder: VectorEncoderFactory, size: int) -> Any:
    """As it comes."""
    return d3rlpy.algos.BCConfig(batch_size=size, encoder_factory=encoder)


CONFIGS = {"CQL": cql, "IQL": iql, "TD3+BC": td3_bc, "BC": bc}

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
