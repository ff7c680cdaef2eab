"""Updates of CQL, IQL, TD3+BC and BC, and the drawing of batches, against d3rlpy's.

    make peers
    DTBENCH_PEERS_PYTHON=.venv-peers/bin/python python benchmarks/td_update.py --out td_update.json

d3rlpy runs in a process of its own that takes turns with this one by a pipe (`d3rlpy_peer.py`), on the same made-up
data of Hopper's sizes: 100,000 steps, 11 numbers observed, 3 acted. Batches of 256 transitions, networks of width 256:
CQL with 3 hidden layers (ours by default; d3rlpy's default has 2), the others with 2 (both by default). CQL has
d3rlpy's target, the value of the policy's mean, and neither side learns a Lagrange multiplier. An update is timed on a
batch that lies ready, and with the drawing of its batch; windows are drawn 64 at a time, of 20 steps.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import Ask, answering
from contest import Pair, Turn, calls, compared, in_turn, measured, options, ready, say, table
from machine import report, surroundings
from made_data import hopper_shaped

from dtbench import TrajectoryDataset, TransitionSampler, WindowSampler, generator
from dtbench.registry import make_algorithm

PEER = Path(__file__).with_name("d3rlpy_peer.py")
STEPS, QUICK_STEPS = 100_000, 2000
BATCH, WINDOWS, CONTEXT = 256, 64, 20
WIDTH, LAYERS = 256, {"CQL": 3, "IQL": 2, "TD3+BC": 2, "BC": 2}
OURS: dict[str, tuple[str, str | None]] = {  # the algorithm and its preset
    "CQL": ("cql", "d3rlpy"),
    "IQL": ("iql", "corl"),
    "TD3+BC": ("td3_bc", "corl"),
    "BC": ("bc", "corl"),
}
GOALS = {"CQL": 3.0, "IQL": 2.0, "TD3+BC": 2.0, "BC": 2.0, "draw transitions": 30.0, "draw windows": 30.0}


def main() -> None:
    """Measure, and print times and ratios as JSON, the ratios as a table too."""
    chosen = arguments()
    data = hopper_shaped(QUICK_STEPS if chosen.quick else STEPS)
    contestants = own(data, width=chosen.width, only=chosen.only, clock=chosen.clock)
    versions: dict[str, str] = {}
    if chosen.peers:
        with d3rlpy_process(chosen, data, versions) as turns:
            contestants |= {
                f"d3rlpy: {name}": turn for name, turn in turns.items() if f"dtbench: {name}" in contestants
            }
            seconds = in_turn(contestants, rounds=chosen.rounds, turn=chosen.turn)
    else:
        say("no interpreter that has d3rlpy (--peers, or `make peers` and DTBENCH_PEERS_PYTHON): only ours is timed.")
        seconds = in_turn(contestants, rounds=chosen.rounds, turn=chosen.turn)
    result = {
        "sizes": {"steps": data.num_steps, "batch": BATCH, "windows": [WINDOWS, CONTEXT], "width": chosen.width},
        "hidden_layers": LAYERS,
        "ratios": compared(pairs(), seconds),
        "contestants": measured(seconds),
        "peer_versions": versions,
        **surroundings(),
    }
    say(table(result["ratios"]))
    report(result, chosen.out)


def pairs() -> list[Pair]:
    """Every contestant of ours against d3rlpy's of the same name."""
    names = [*LAYERS, *(f"{name}, drawing too" for name in LAYERS), "draw transitions", "draw windows"]
    return [Pair(name, f"dtbench: {name}", f"d3rlpy: {name}", GOALS.get(name)) for name in names]


def own(data: TrajectoryDataset, *, width: int, only: list[str], clock: str) -> dict[str, Turn]:
    """Our learners, on a batch that lies ready and drawing it, and our samplers."""
    device = torch.device("cpu")
    found: dict[str, Turn] = {}
    for name in only:
        algorithm, preset = OURS[name]
        sizes = {"width": width, "layers": LAYERS[name], "batch_size": BATCH}
        settled = make_algorithm(algorithm, {**preset_of(algorithm, preset), **sizes})
        drawing, learner = (settled.learner(data, seed=0, device=device) for _ in range(2))
        found[f"dtbench: {name}, drawing too"] = calls(drawing.update, clock)
        found[f"dtbench: {name}"] = calls(with_batch_ready(learner), clock)
    transitions = TransitionSampler(data, batch_size=BATCH, rng=generator(0), device=device)
    windows = WindowSampler(data, context=CONTEXT, batch_size=WINDOWS, rng=generator(0), device=device)
    return found | {
        "dtbench: draw transitions": calls(transitions.sample, clock),
        "dtbench: draw windows": calls(windows.sample, clock),
    }


def preset_of(algorithm: str, preset: str | None) -> dict[str, Any]:
    """What a preset sets."""
    from dtbench.registry import algorithm_presets

    return dict(algorithm_presets(algorithm)[preset]) if preset else {}


def with_batch_ready(learner: Any) -> Any:
    """The learner's update, to which the same batch is handed each time."""
    batch = learner.sampler.sample()
    learner.sampler.sample = lambda: batch
    return learner.update


@contextmanager
def d3rlpy_process(
    chosen: argparse.Namespace, data: TrajectoryDataset, versions: dict[str, str]
) -> Iterator[dict[str, Turn]]:
    """Turns of d3rlpy's learners and of its replay buffer; `versions` is filled."""
    settings = {
        "batch": BATCH,
        "windows": WINDOWS,
        "steps": CONTEXT,
        "threads": chosen.threads,
        "clock": chosen.clock,
        "width": chosen.width,
        "layers": {name: LAYERS[name] for name in chosen.only},
    }
    names = [*chosen.only, *(f"{name}, drawing too" for name in chosen.only), "draw transitions", "draw windows"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, allow_pickle=False, **arrays_for_d3rlpy(data))
        with answering([chosen.peers, str(PEER), str(path), json.dumps(settings)]) as (said, ask):
            versions |= said
            yield {name: partial(_turn, ask, name) for name in names}


def _turn(ask: Ask, name: str, count: int) -> float:
    return float(ask([name, count]))


def arrays_for_d3rlpy(data: TrajectoryDataset) -> dict[str, np.ndarray[Any, Any]]:
    """The same data as d3rlpy's MDPDataset wants it."""
    timeouts = np.zeros(data.num_steps, bool)
    timeouts[data.offsets[1:] - 1] = True
    terminals = np.asarray(data.terminals)
    return {
        "observations": np.asarray(data.observations),
        "actions": np.asarray(data.actions),
        "rewards": np.asarray(data.rewards),
        "terminals": terminals.astype(np.float32),
        "timeouts": (timeouts & ~terminals).astype(np.float32),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that only this script has."""
    parser.add_argument("--peers", default=os.environ.get("DTBENCH_PEERS_PYTHON"), help="interpreter that has d3rlpy")
    parser.add_argument("--only", nargs="+", choices=list(LAYERS), default=list(LAYERS), help="these learners")


def settled(chosen: argparse.Namespace) -> argparse.Namespace:
    """The options and what follows from them; small where asked to be quick."""
    chosen.width = 16 if chosen.quick else WIDTH
    return chosen


def arguments() -> argparse.Namespace:
    """As given."""
    parser = options(__doc__)
    add_options(parser)
    return settled(ready(parser))


if __name__ == "__main__":
    main()
