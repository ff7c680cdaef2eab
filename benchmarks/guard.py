"""Bounds on speed that CI holds: a step, an update and a draw must not be slower than those of other implementations.

    DTBENCH_PEERS_PYTHON=.venv-peers/bin/python python -m benchmarks.guard

Compares ratios to a peer on the same machine, never times, by the CPU time of one thread, which a busy machine changes
least. The bounds lie far below what a quiet machine shows: they catch what breaks, not what becomes a little slower.
Without an interpreter that has d3rlpy only Decision Transformer's step is compared. Exits with status 1 where a ratio
is below its bound.
"""

import argparse
import os
import sys
from collections.abc import Mapping

import torch

from benchmarks import td_update, training_step
from benchmarks.synthetic_data import hopper_shaped
from benchmarks.timing import Pair, Turn, alternate, log, make_parser, parse, ratios, report

SIZE = 256  # of a layer, and of a batch
BOUNDS = (  # the goals of `make bench` are higher
    Pair("Hopper, fp32", "hopper: dtbench", "hopper: transformers", 1.1),
    *(
        Pair(name, f"dtbench: {name} {SIZE}", f"d3rlpy: {name} {SIZE}", least)
        for name, least in {
            "CQL": 1.1,
            "IQL": 1.3,
            "TD3+BC": 1.2,
            "draw transitions": 10.0,
            "draw windows": 5.0,
        }.items()
    ),
)
LEARNERS = ["CQL", "IQL", "TD3+BC"]


def main() -> None:
    """Measure, print the ratios, and exit with status 1 where one is below its bound."""
    options = _parse()
    torch.manual_seed(0)
    turns, _ = training_step.hopper(options)
    seconds = _alternate_bounded({f"hopper: {name}": turn for name, turn in turns.items()}, options)
    if options.peers:
        data = hopper_shaped(td_update.QUICK_STEPS if options.quick else 20_000)
        size = 16 if options.quick else SIZE
        ours = td_update.dtbench_turns(data, size=size, only=options.only, clock=options.clock)
        command = [options.peers, td_update.HERE / "d3rlpy_peer.py"]
        with td_update.peer_process(command, options, data, size, {}) as theirs:
            both = ours | {f"d3rlpy: {name}": turn for name, turn in theirs.items()}
            seconds |= _alternate_bounded(both, options)
    else:
        log("DTBENCH_PEERS_PYTHON names no interpreter that has d3rlpy: updates and draws are not compared.")
    rows = ratios(BOUNDS, seconds)
    report({"ratios": rows}, options.out)
    missed = [row["what"] for row in rows if row["times_faster"]["median"] < row["goal"]]
    if missed and not options.quick:
        sys.exit(f"below the bound: {', '.join(missed)}.")


def _alternate_bounded(turns: Mapping[str, Turn], options: argparse.Namespace) -> dict[str, list[float]]:
    """Time the implementations that a bound names."""
    bounded = {name for pair in BOUNDS for name in (pair.ours, pair.peer)}
    chosen = {name: turn for name, turn in turns.items() if name in bounded}
    return alternate(chosen, rounds=options.rounds, turn_seconds=options.turn)


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=25, turn=0.1)
    parser.set_defaults(threads=1, clock="cpu")
    training_step.add_options(parser)
    parser.add_argument("--peers", default=os.environ.get("DTBENCH_PEERS_PYTHON"), help="interpreter that has d3rlpy")
    options = training_step.with_sizes(parse(parser))
    options.only = LEARNERS
    return options


if __name__ == "__main__":
    main()
