"""What CI asks of speed: that a step, an update and a draw of ours are not slower than those of others.

    DTBENCH_PEERS_PYTHON=.venv-peers/bin/python python benchmarks/guard.py

Ratios to a peer on the same machine in turn, never times. Processor time on one thread is counted, which a busy
machine changes least, and the bounds lie far below what a quiet machine shows: they catch what was broken, not what
became a little slower. Without d3rlpy's interpreter only the step of Decision Transformer is held against another.
Ends with status 1 where a ratio is below its bound.
"""

import argparse
import sys
from collections.abc import Mapping

import td_update
import torch
import training_step
from contest import Pair, Turn, compared, in_turn, options, ready, say, table
from machine import report, surroundings
from made_data import hopper_shaped

BOUNDS = (  # the goals of `make bench` are 1.5, 2.5, 3, 2 and 30
    Pair("Hopper, fp32", "hopper: dtbench", "hopper: transformers", 1.1),
    Pair("CQL", "dtbench: CQL", "d3rlpy: CQL", 1.1),
    Pair("IQL", "dtbench: IQL", "d3rlpy: IQL", 1.1),
    Pair("draw transitions", "dtbench: draw transitions", "d3rlpy: draw transitions", 10.0),
    Pair("draw windows", "dtbench: draw windows", "d3rlpy: draw windows", 5.0),
)
LEARNERS = ["CQL", "IQL"]


def main() -> None:
    """Measure, print the ratios, and end with status 1 where one is below its bound."""
    chosen = arguments()
    torch.manual_seed(0)
    turns, _ = training_step.hopper(chosen)
    seconds = measured_in_turn({f"hopper: {name}": turn for name, turn in turns.items()}, chosen)
    if chosen.peers:
        data = hopper_shaped(td_update.QUICK_STEPS if chosen.quick else 20_000)
        own = td_update.own(data, width=chosen.width, only=chosen.only, clock=chosen.clock)
        with td_update.d3rlpy_process(chosen, data, {}) as theirs:
            both = own | {f"d3rlpy: {name}": turn for name, turn in theirs.items()}
            seconds |= measured_in_turn(both, chosen)
    else:
        say("no interpreter that has d3rlpy (DTBENCH_PEERS_PYTHON): updates and draws are not compared.")
    rows = compared(BOUNDS, seconds)
    say(table(rows))
    report({"ratios": rows, **surroundings()}, chosen.out)
    missed = [row["what"] for row in rows if row["times_faster"]["median"] < row["goal"]]
    if missed and not chosen.quick:
        sys.exit(f"slower than it must be: {', '.join(missed)}.")


def measured_in_turn(turns: Mapping[str, Turn], chosen: argparse.Namespace) -> dict[str, list[float]]:
    """Those that a bound names."""
    named = {name for pair in BOUNDS for name in (pair.ours, pair.peer)}
    wanted = {name: turn for name, turn in turns.items() if name in named}
    return in_turn(wanted, rounds=chosen.rounds, turn=chosen.turn)


def arguments() -> argparse.Namespace:
    """One thread and processor time unless told otherwise; small where asked to be quick."""
    parser = options(__doc__, rounds=5, turn=0.1)
    parser.set_defaults(threads=1, clock="cpu")
    training_step.add_options(parser)
    td_update.add_options(parser)
    chosen = td_update.settled(training_step.settled(ready(parser)))
    chosen.only = LEARNERS
    return chosen


if __name__ == "__main__":
    main()
