r"""Updates of CQL, IQL, TD3+BC and BC, and the drawing of batches, against d3rlpy's and JAX-CORL's.

    make peers peers-jax
    git clone https://github.com/nissymori/JAX-CORL
    DTBENCH_PEERS_PYTHON=.venv-peers/bin/python DTBENCH_JAX_PYTHON=.venv-jax/bin/python DTBENCH_JAX_CORL=JAX-CORL \
        python -m benchmarks.td_update --threads 1 --clock cpu --out td_update.json

Each peer runs in its own process (`d3rlpy_peer.py`, `jax_corl_peer.py`) on the same synthetic data of Hopper's sizes:
100,000 steps, 11 numbers observed, 3 acted. Two sizes: layers of 256 and batches of 256, those of the papers, and 128
and 128, those of our preset `cpu`; CQL has 3 hidden layers (our default; the peers' is 2), the others 2. CQL has
d3rlpy's target, the value of the policy's mean, and no side learns a Lagrange multiplier. An update is timed on a
fixed batch, and with the drawing of its batch; JAX-CORL's draws and takes 8 updates a call, as its scripts do. Windows
are drawn 64 at a time, of 20 steps.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.synthetic_data import hopper_shaped
from benchmarks.timing import Pair, Turn, alternate, calls, log, make_parser, milliseconds, parse, ratios, report
from dtbench import TrajectoryDataset, TransitionSampler, WindowSampler
from dtbench.data import generator
from dtbench.registry import make_algorithm
from dtbench.suite.planning import resolved_hyperparameters
from dtbench.suite.schema import Contender

HERE = Path(__file__).parent
STEPS, QUICK_STEPS = 100_000, 2000
TRAIN_STEPS = 1_000_000  # over which a learning rate decays
SIZES, QUICK_SIZES = (128, 256), (16,)  # of a layer, and of a batch
WINDOWS, CONTEXT = 64, 20
LAYERS = {"CQL": 3, "IQL": 2, "TD3+BC": 2, "BC": 2}
OURS = {  # the algorithm and its preset
    "CQL": ("cql", "d3rlpy"),
    "IQL": ("iql", "corl"),
    "TD3+BC": ("td3_bc", "corl"),
    "BC": ("bc", "corl"),
}
DRAWS = {"draw transitions": 30.0, "draw windows": 30.0}
GOALS = {  # how many times faster: of d3rlpy at both sizes, and of JAX-CORL
    "CQL": ({128: 3.0, 256: 3.0}, 1.0),
    "IQL": ({128: 4.0, 256: 2.5}, 1.0),
    "TD3+BC": ({128: 4.0, 256: 2.5}, 1.0),
    "BC": ({128: 2.0, 256: 2.0}, None),
}
DRAWING = ", drawing too"


def main() -> None:
    """Measure, and print times and ratios as JSON, the ratios as a table too."""
    options = _parse()
    data = hopper_shaped(QUICK_STEPS if options.quick else STEPS)
    versions: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    implementations: dict[str, Any] = {}
    for size in options.sizes:
        seconds = measure(options, data, size, versions)
        rows += ratios(pairs(size), seconds)
        implementations |= milliseconds(seconds)
    result = {
        "sizes": {"steps": data.num_steps, "windows": [WINDOWS, CONTEXT], "width and batch": options.sizes},
        "hidden_layers": LAYERS,
        "clock": options.clock,
        "ratios": rows,
        "implementations": implementations,
        "peer_versions": versions,
    }
    report(result, options.out)


def measure(
    options: argparse.Namespace, data: TrajectoryDataset, size: int, versions: dict[str, str]
) -> dict[str, list[float]]:
    """Return the seconds of a call of every implementation at one size, round by round."""
    turns = dtbench_turns(data, size=size, only=options.only, clock=options.clock)
    commands = {
        "d3rlpy": [options.peers, HERE / "d3rlpy_peer.py"] if options.peers else None,
        "JAX-CORL": [options.jax, HERE / "jax_corl_peer.py", options.jax_corl] if options.jax_corl else None,
    }
    with ExitStack() as stack:
        for peer, command in commands.items():
            if command is None:
                log(f"{peer} is not timed: see the first lines of {__file__}.")
                continue
            theirs = stack.enter_context(peer_process(command, options, data, size, versions))
            turns |= {f"{peer}: {name}": turn for name, turn in theirs.items() if f"dtbench: {name}" in turns}
        return alternate(turns, rounds=options.rounds, turn_seconds=options.turn)


def pairs(size: int) -> list[Pair]:
    """Return our updates and draws paired with the peers' of the same name."""
    found = []
    for peer in ("d3rlpy", "JAX-CORL"):
        for name, (theirs, jax) in GOALS.items():
            for full in (labelled(name, size), labelled(name, size) + DRAWING):
                goal = jax if peer == "JAX-CORL" else theirs.get(size) if full.endswith(DRAWING) else None
                found.append(Pair(full, f"dtbench: {full}", f"{peer}: {full}", goal))
    draws = {labelled(name, size): goal for name, goal in DRAWS.items()}
    return [*found, *(Pair(name, f"dtbench: {name}", f"d3rlpy: {name}", goal) for name, goal in draws.items())]


def labelled(name: str, size: int) -> str:
    """Return the name with the size, such as "IQL 128"."""
    return f"{name} {size}"


def dtbench_turns(data: TrajectoryDataset, *, size: int, only: list[str], clock: str) -> dict[str, Turn]:
    """Return turns of our learners, on a fixed batch and drawing it, and of our samplers."""
    device = torch.device("cpu")
    turns: dict[str, Turn] = {}
    for name in only:
        kind, preset = OURS[name]
        sizes = {"hidden_size": size, "num_layers": LAYERS[name], "batch_size": size}
        settings = resolved_hyperparameters(
            Contender(algorithm=kind, hyperparameter_preset=preset, hyperparameters=sizes, train_steps=TRAIN_STEPS)
        )
        drawing, learner = (make_algorithm(kind, settings).learner(data, seed=0, device=device) for _ in range(2))
        turns[f"dtbench: {labelled(name, size)}{DRAWING}"] = calls(drawing.update, clock)
        turns[f"dtbench: {labelled(name, size)}"] = calls(update_on_fixed_batch(learner), clock)
    transitions = TransitionSampler(data, batch_size=size, rng=generator(0), device=device)
    windows = WindowSampler(data, context=CONTEXT, batch_size=WINDOWS, rng=generator(0), device=device)
    return turns | {
        f"dtbench: {labelled('draw transitions', size)}": calls(transitions.sample, clock),
        f"dtbench: {labelled('draw windows', size)}": calls(windows.sample, clock),
    }


def update_on_fixed_batch(learner: Any) -> Callable[[], object]:
    """Return the learner's update, which gets the same batch each time."""
    batch = learner.batches.next()
    learner.batches.next = lambda: batch
    return learner.update  # type: ignore[no-any-return]


@contextmanager
def peer_process(
    command: Sequence[Any], options: argparse.Namespace, data: TrajectoryDataset, size: int, versions: dict[str, str]
) -> Iterator[dict[str, Turn]]:
    """Start a peer's process; yield turns of all that it can time, and fill `versions`."""
    settings = {
        "batch": size,
        "windows": WINDOWS,
        "steps": CONTEXT,
        "threads": options.threads,
        "clock": options.clock,
        "width": size,
        "layers": {name: LAYERS[name] for name in options.only},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, allow_pickle=False, **arrays_for_d3rlpy(data))
        with _answering([*map(str, command), str(path), json.dumps(settings)]) as (first, ask):
            versions |= first["versions"]
            yield {_with_size(name, size): partial(_turn, ask, name) for name in first["turns"]}


def _with_size(name: str, size: int) -> str:
    return labelled(name.removesuffix(DRAWING), size) + (DRAWING if name.endswith(DRAWING) else "")


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


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--peers", default=os.environ.get("DTBENCH_PEERS_PYTHON"), help="interpreter that has d3rlpy")
    parser.add_argument(
        "--jax", default=os.environ.get("DTBENCH_JAX_PYTHON"), help="interpreter that has jax and flax"
    )
    parser.add_argument(
        "--jax-corl", default=os.environ.get("DTBENCH_JAX_CORL"), help="directory of a checkout of JAX-CORL"
    )
    parser.add_argument("--only", nargs="+", choices=list(LAYERS), default=list(LAYERS), help="learners to time")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="of a layer, and of a batch")
    options = parse(parser)
    options.sizes = list(QUICK_SIZES) if options.quick else options.sizes
    if options.jax_corl and not options.jax:
        parser.error("--jax-corl needs --jax, an interpreter that has jax, flax, optax and distrax: make peers-jax.")
    return options


if __name__ == "__main__":
    main()
