"""An update of several seeds packed together against one seed's.

    python benchmarks/packing.py --out results/performance/packing.json [--device cuda]

Learners draw their batches, at the sizes of Key-to-Door's preset `cpu` (32 whole walks, width 48, 2 layers, dropout
0.3, an average) and of the paper's Hopper (64 windows of 20 steps, width 128, 3 layers, dropout 0.1), on made-up data
of the latter's shape. `times_as_long` is what a packed step of S seeds takes in steps of one seed: S where packing
gains nothing. All take turns; on a GPU a turn ends with a synchronisation.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from contest import Turn, calls, in_turn, measured, options, ready, say, spread
from machine import report, surroundings
from made_data import hopper_shaped

from dtbench.packing import packed_learner
from dtbench.registry import make_algorithm, make_task
from dtbench.suite import contender_on, load_suite

SEEDS = (2, 4, 8)
STEPS, QUICK_STEPS = 100_000, 2000
WALKS = "key-to-door-1k"
ROUNDS, TURN = 5, 0.3


def main() -> None:
    """Measure, and print what packed steps take in steps of one seed, as JSON."""
    chosen = arguments()
    turns: dict[str, Turn] = {}
    for name, made in {"key-to-door": key_to_door, "hopper": hopper}.items():
        turns |= {f"{name}: {count}": turn for count, turn in contestants(made, chosen).items()}
    seconds = in_turn(turns, rounds=chosen.rounds, turn=chosen.turn)
    rows = [row(name, count, seconds) for name in ("key-to-door", "hopper") for count in chosen.seeds]
    for each in rows:
        times = each["times_as_long"]
        say(f"{each['what']}: {times['median']:.2f} times as long ({times['least']:.2f} to {times['most']:.2f})")
    report({"device": chosen.device, "packed": rows, "contestants": measured(seconds), **surroundings()}, chosen.out)


def contestants(made: Callable[[argparse.Namespace], tuple[Any, Any]], chosen: argparse.Namespace) -> dict[int, Turn]:
    """One seed, and so many packed."""
    algorithm, data = made(chosen)
    device = torch.device(chosen.device)
    alone = algorithm.learner(data, seed=0, device=device)
    found = {1: timed(alone.update, chosen)}
    for count in chosen.seeds:
        pack = packed_learner(algorithm, data, seeds=range(count), device=device)
        found[count] = timed(pack.update, chosen)
    return found


def timed(update: Callable[[], object], chosen: argparse.Namespace) -> Turn:
    """Turns of an update, which a GPU has done when they end."""
    turn = calls(update, chosen.clock)
    if chosen.device == "cpu":
        return turn

    def whole(count: int) -> float:
        torch.cuda.synchronize()
        return calls(lambda: (turn(count), torch.cuda.synchronize()), chosen.clock)(1)

    return whole


def row(name: str, count: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """How much longer a step of so many seeds is than that of one, round by round."""
    one, many = seconds[f"{name}: 1"], seconds[f"{name}: {count}"]
    times = spread([packed / alone for alone, packed in zip(one, many, strict=True)])
    gain = round(count * statistics.median(one) / statistics.median(many), 3)
    return {"what": f"{name}, {count} seeds", "seeds": count, "times_as_long": times, "gain": gain}


def key_to_door(chosen: argparse.Namespace) -> tuple[Any, Any]:
    """DT as the suite has it."""
    settled = contender_on(load_suite("key-to-door", preset="cpu").contenders["DT"], WALKS)
    sizes = {"width": 8, "layers": 1} if chosen.quick else {}
    return make_algorithm("dt", {**settled.hyperparameters, **sizes}), make_task(WALKS).open()


def hopper(chosen: argparse.Namespace) -> tuple[Any, Any]:
    """DT's defaults, which are the paper's."""
    sizes = {"width": 8, "layers": 1} if chosen.quick else {}
    return make_algorithm("dt", sizes), hopper_shaped(QUICK_STEPS if chosen.quick else STEPS)


def arguments() -> argparse.Namespace:
    """As given."""
    parser = options(__doc__, rounds=ROUNDS, turn=TURN)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="how many are packed")
    chosen = ready(parser)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU: PyTorch sees no CUDA on this machine.")
    return chosen


if __name__ == "__main__":
    main()
