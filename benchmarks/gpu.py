"""What done on a GPU takes: training steps against others, and the share of what the GPU can do.

    python benchmarks/gpu.py --out results/performance/gpu.json

Says one line and ends where PyTorch sees no CUDA. Steps are those of `training_step.py`, with both sides on the GPU
and Atari's batch of 128; times are between CUDA events, after a synchronisation. The ceiling is the rate of a large
product of bf16 matrices, measured here. The paper's protocol on hopper-medium is put together from a thousand updates
and from steps of games in lock step; `--protocol-steps 100000` makes all of its updates instead.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import training_step
from contest import Turn, compared, in_turn, measured, options, ready, say, table
from machine import report, surroundings
from made_data import hopper_shaped

from dtbench import Evaluator
from dtbench.registry import make_algorithm, make_task
from dtbench.suite.planning import contender_on, load_suite

SPEED_GOAL, SHARE_GOAL = 10.0, 0.4
MATRIX = 8192
TOLERANCE = 2e-2  # convolutions of the GPU round to TF32
TASK, PROTOCOL_STEPS, EVALUATIONS, EPISODES, LAST_TARGETS = "hopper-medium-v2", 100_000, 10, 100, 15


def main() -> None:
    """Measure, and print all as JSON; the ratios as a table too."""
    chosen = arguments()
    if not torch.cuda.is_available():
        say("no GPU: PyTorch sees no CUDA on this machine, so nothing was measured.")
        return
    chosen.device, chosen.timed, chosen.tolerance = torch.device("cuda"), cuda_calls, TOLERANCE  # not a processor's
    contestants, differences = {}, {}
    for task, made in {"hopper": training_step.hopper, "atari": training_step.atari}.items():
        turns, outputs = made(chosen)
        contestants |= {f"{task}: {name}": turn for name, turn in turns.items()}
        differences |= {f"{task}: {name}": apart for name, apart in outputs.items()}
    seconds = in_turn(contestants, rounds=chosen.rounds, turn=chosen.turn)
    rows = compared(training_step.PAIRS, seconds)
    for row in rows:
        row["goal"] = SPEED_GOAL if row["goal"] else None
    ceiling = matrix_rate()
    result = {
        "gpu": torch.cuda.get_device_name(),
        "greatest_difference_of_outputs": differences,
        "ratios": rows,
        "contestants": measured(seconds),
        "ceiling_teraflops": round(ceiling / 1e12, 1),
        "atari_share_of_ceiling": {"goal": SHARE_GOAL, **shares(seconds, chosen.atari_batch, ceiling)},
        "protocol_minutes": protocol(chosen),
        **surroundings(),
    }
    say(table(rows))
    report(result, chosen.out)


def cuda_calls(function: Callable[[], object]) -> Turn:
    """Turns of a function whose work is on the GPU."""

    def turn(count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(count):
            function()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000

    return turn


def matrix_rate() -> float:
    """Floating-point operations a second of a large bf16 product, the best of five turns."""
    left, right = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    turn = cuda_calls(lambda: left @ right)
    turn(5)
    return 2 * MATRIX**3 * 20 / min(turn(20) for _ in range(5))


def shares(seconds: dict[str, list[float]], batch: int, ceiling: float) -> dict[str, float]:
    """Of the ceiling, what our steps at Atari's sizes reach."""
    operations = atari_operations(batch)
    return {
        name: round(operations / min(rounds) / ceiling, 4)
        for name, rounds in seconds.items()
        if name.startswith("atari: dtbench")
    }


def atari_operations(batch: int, context: int = 30, width: int = 128, layers: int = 6) -> int:
    """Floating-point operations of a training step: those of the products, forward and twice as many backward.

    All that the official layout computes counts, also what a faster step leaves out: it is the work, not the effort.
    """
    frames, tokens = batch * context, 3 * batch * context
    convolutions = 4 * 64 * 32 * 20**2 + 32 * 16 * 64 * 9**2 + 64 * 9 * 64 * 7**2 + 3136 * width
    block = 12 * width**2 + 2 * (3 * context) * width  # maps, then scores and mixing over all tokens of the window
    return 3 * 2 * (frames * convolutions + tokens * layers * block)


def protocol(chosen: argparse.Namespace) -> dict[str, Any]:
    """Minutes of 100,000 updates and of all evaluations of DT on hopper-medium, every episode taken to be whole."""
    settled = contender_on(load_suite("d4rl", preset="paper").contenders["DT"], TASK)
    task = make_task(TASK)
    settings = settled.hyperparameters | ({"precision": "bf16"} if training_step.HAS_PRECISION else {})
    learner = make_algorithm(settled.algorithm, settings).learner(
        hopper_shaped(1_000_000), seed=0, device=chosen.device
    )
    turn = cuda_calls(learner.update)
    turn(20)
    updates = turn(chosen.protocol_steps) * PROTOCOL_STEPS / chosen.protocol_steps
    targets = list(range(200, 3800, 240))
    evaluator = Evaluator(task.make_env, task.evaluation_seeds(EPISODES), device=chosen.device)
    step = evaluator.probe(learner, targets, games=len(targets) * EPISODES, steps=20, seconds=60.0)
    games = EPISODES * ((EVALUATIONS - 1) * len(task.target_returns) + LAST_TARGETS)
    played = step * games * 1000
    return {
        "updates_made": chosen.protocol_steps,
        "updates": round(updates / 60, 2),
        "evaluations": round(played / 60, 2),
        "all": round((updates + played) / 60, 2),
    }


def arguments() -> argparse.Namespace:
    """As given; small where asked to be quick."""
    parser = options(__doc__, rounds=5, turn=0.3)
    training_step.add_options(parser)
    parser.set_defaults(atari_batch=128)
    parser.add_argument("--protocol-steps", type=int, default=1000, help="updates of the protocol that are made")
    return training_step.settled(ready(parser))


if __name__ == "__main__":
    main()
