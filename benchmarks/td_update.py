"""Updates of CQL, IQL, TD3+BC and BC, and the drawing of batches, against d3rlpy's.

    make peers
    DTBENCH_PEERS_PYTHON=.venv-peers/bin/python python -m benchmarks.td_update --out td_update.json

d3rlpy runs in its own process (`d3rlpy_peer.py`) on the same synthetic data of Hopper's sizes: 100,000 steps, 11
numbers observed, 3 acted. Batches of 256 transitions, networks of width 256: CQL with 3 hidden layers (our default;
d3rlpy's is 2), the others with 2 (both defaults). CQL has d3rlpy's target, the value of the policy's mean, and neither
side learns a Lagrange multiplier. An update is timed on a fixed batch, and with the drawing of its batch; windows are
drawn 64 at a time, of 20 steps.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.synthetic_data import hopper_shaped
from benchmarks.timing import Pair, Turn, alternate, calls, log, make_parser, milliseconds, parse, ratios, report
from dtbench import TrajectoryDataset, TransitionSampler, WindowSampler
from dtbench.data import generator
from dtbench.registry import algorithm_presets, make_algorithm

PEER = Path(__file__).with_name("d3rlpy_peer.py")
STEPS, QUICK_STEPS = 100_000, 2000
BATCH, WINDOWS, CONTEXT = 256, 64, 20
WIDTH, LAYERS = 256, {"CQL": 3, "IQL": 2, "TD3+BC": 2, "BC": 2}
OURS = {  # the algorithm and its preset
    "CQL": ("cql", "d3rlpy"),
    "IQL": ("iql", "corl"),
    "TD3+BC": ("td3_bc", "corl"),
    "BC": ("bc", "corl"),
}
GOALS = {"CQL": 3.0, "IQL": 2.0, "TD3+BC": 2.0, "BC": 2.0, "draw transitions": 30.0, "draw windows": 30.0}


def main() -> None:
    """Measure, and print times and ratios as JSON, the ratios as a table too."""
    options = _parse()
    data = hopper_shaped(QUICK_STEPS if options.quick else STEPS)
    turns = dtbench_turns(data, width=options.width, only=options.only, clock=options.clock)
    versions: dict[str, str] = {}
    if options.peers:
        with d3rlpy_process(options, data, versions) as theirs:
            turns |= {f"d3rlpy: {name}": turn for name, turn in theirs.items() if f"dtbench: {name}" in turns}
            seconds = alternate(turns, rounds=options.rounds, turn_seconds=options.turn)
    else:
        log("no interpreter that has d3rlpy (--peers, or `make peers` and DTBENCH_PEERS_PYTHON): only ours is timed.")
        seconds = alternate(turns, rounds=options.rounds, turn_seconds=options.turn)
    result = {
        "sizes": {"steps": data.num_steps, "batch": BATCH, "windows": [WINDOWS, CONTEXT], "width": options.width},
        "hidden_layers": LAYERS,
        "ratios": ratios(pairs(), seconds),
        "implementations": milliseconds(seconds),
        "peer_versions": versions,
    }
    report(result, options.out)


def pairs() -> list[Pair]:
    """Return our updates and draws paired with d3rlpy's of the same name."""
    names = [*LAYERS, *(f"{name}, drawing too" for name in LAYERS), "draw transitions", "draw windows"]
    return [Pair(name, f"dtbench: {name}", f"d3rlpy: {name}", GOALS.get(name)) for name in names]


def dtbench_turns(data: TrajectoryDataset, *, width: int, only: list[str], clock: str) -> dict[str, Turn]:
    """Return turns of our learners, on a fixed batch and drawing it, and of our samplers."""
    device = torch.device("cpu")
    turns: dict[str, Turn] = {}
    for name in only:
        kind, preset = OURS[name]
        settings = {
            **algorithm_presets(kind)[preset],
            "hidden_size": width,
            "num_layers": LAYERS[name],
            "batch_size": BATCH,
        }
        drawing, learner = (make_algorithm(kind, settings).learner(data, seed=0, device=device) for _ in range(2))
        turns[f"dtbench: {name}, drawing too"] = calls(drawing.update, clock)
        turns[f"dtbench: {name}"] = calls(update_on_fixed_batch(learner), clock)
    transitions = TransitionSampler(data, batch_size=BATCH, rng=generator(0), device=device)
    windows = WindowSampler(data, context=CONTEXT, batch_size=WINDOWS, rng=generator(0), device=device)
    return turns | {
        "dtbench: draw transitions": calls(transitions.sample, clock),
        "dtbench: draw windows": calls(windows.sample, clock),
    }


def update_on_fixed_batch(learner: Any) -> Callable[[], object]:
    """Return the learner's update, which gets the same batch each time."""
    batch = learner.sampler.sample()
    learner.sampler.sample = lambda: batch
    return learner.update  # type: ignore[no-any-return]


@contextmanager
def d3rlpy_process(
    options: argparse.Namespace, data: TrajectoryDataset, versions: dict[str, str]
) -> Iterator[dict[str, Turn]]:
    """Start d3rlpy's process; yield turns of its learners and of its replay buffer, and fill `versions`."""
    settings = {
        "batch": BATCH,
        "windows": WINDOWS,
        "steps": CONTEXT,
        "threads": options.threads,
        "clock": options.clock,
        "width": options.width,
        "layers": {name: LAYERS[name] for name in options.only},
    }
    names = [*options.only, *(f"{name}, drawing too" for name in options.only), "draw transitions", "draw windows"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, allow_pickle=False, **arrays_for_d3rlpy(data))
        with _answering([options.peers, str(PEER), str(path), json.dumps(settings)]) as (first, ask):
            versions |= first
            yield {name: partial(_turn, ask, name) for name in names}


@contextmanager
def _answering(command: Sequence[str]) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """Start a process that answers a line of JSON with one; yield its first line and a function that asks it."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def answer() -> Any:
            if line := answers.readline():
                return json.loads(line)
            process.wait()
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended: {errors.read()[-2000:]}")

        def ask(question: Any) -> Any:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            return answer()

        try:
            yield answer(), ask
        finally:
            questions.close()
            process.wait()
            answers.close()


def _turn(ask: Callable[[Any], Any], name: str, count: int) -> float:
    return float(ask([name, count]))


def arrays_for_d3rlpy(data: TrajectoryDataset) -> dict[str, np.ndarray[Any, Any]]:
    """Return the data as d3rlpy's MDPDataset takes it."""
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
    """Add the options that only this benchmark has."""
    parser.add_argument("--peers", default=os.environ.get("DTBENCH_PEERS_PYTHON"), help="interpreter that has d3rlpy")
    parser.add_argument("--only", nargs="+", choices=list(LAYERS), default=list(LAYERS), help="learners to time")


def with_sizes(options: argparse.Namespace) -> argparse.Namespace:
    """Set what follows from the options; small with `--quick`."""
    options.width = 16 if options.quick else WIDTH
    return options


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser)
    return with_sizes(parse(parser))


if __name__ == "__main__":
    main()
