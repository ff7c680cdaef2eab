"""How fast Decision Transformer is evaluated on Pong: all games as one batch against one game after another.

    python benchmarks/atari_rollout.py --max-frames 4000 --out rollout.json

The network has the sizes of the suite `atari` with its preset `cpu`, fresh weights and a fixed seed: what it plays
like makes no difference to the time a step takes. One after another only `--alone` episodes of each target are
played, as that is slow; both are compared in steps a second, and alternate, so that a busy machine slows both. On a
busy machine set OMP_WAIT_POLICY=passive: threads that spin while they wait for each other slow what they measure.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from machine import report, surroundings

from dtbench import Episodes, Evaluator, TrajectoryDataset
from dtbench.algorithm import Learner
from dtbench.domains.atari.emulator import MAX_FRAMES, PROTOCOLS
from dtbench.domains.atari.generation import record
from dtbench.registry import make_algorithm, make_task
from dtbench.suite.planning import contender_on, load_suite
from dtbench.task import Task

TASK, SUITE, PRESET, CONTENDER = "atari:pong", "atari", "cpu", "DT"
SEED = 0
TARGETS = (-20, 20)  # the lowest and the highest
RECORDED_STEPS = 2000  # of random play: spaces, longest episode and scale of the images come from them


@dataclass(slots=True)
class Side:
    """One way of evaluating, and what came of it."""

    evaluator: Evaluator
    played: list[Episodes] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads: what a busy machine changes least

    def play(self, learner: Learner, targets: Sequence[float]) -> None:
        """Evaluate, and take the time."""
        began, spent = time.perf_counter(), time.process_time()
        self.played.append(self.evaluator.evaluate(learner, targets))
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - spent

    def speed(self) -> dict[str, float]:
        """Steps and seconds as plain JSON."""
        steps = sum(int(episodes.lengths.sum()) for episodes in self.played)
        return {
            "episodes": sum(len(episodes.returns) for episodes in self.played),
            "steps": steps,
            "seconds": round(self.seconds, 2),
            "steps_per_second": round(steps / self.seconds, 1),
            "cpu_milliseconds_per_step": round(1000 * self.cpu_seconds / steps, 3),
        }


def main() -> None:
    """Measure, compare the returns, and print both as JSON."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    task = make_task(TASK, {"max_frames": arguments.max_frames})
    targets = np.linspace(*TARGETS, arguments.targets).tolist()
    batch, alone = sides(task, episodes=arguments.episodes, alone=arguments.alone)
    learner = fresh_learner(task)
    for part in range(arguments.rounds):
        batch.play(learner, targets)
        if asked := targets[part :: arguments.rounds]:
            alone.play(learner, asked)
    speeds = {"batch": batch.speed(), "alone": alone.speed()}
    result = {
        "task": TASK,
        "max_frames": arguments.max_frames,
        "targets": targets,
        "games_in_a_batch": len(batch.played[0].returns),
        "learner": f"{CONTENDER} of the suite {SUITE} with its preset {PRESET}, untrained, seed {SEED}",
        **speeds,
        "ratio": round(speeds["batch"]["steps_per_second"] / speeds["alone"]["steps_per_second"], 2),
        **agreement(batch.played, alone.played),
        **surroundings(),
    }
    report(result, arguments.out)


def sides(task: Task, *, episodes: int, alone: int) -> tuple[Side, Side]:
    """`episodes` of each target at once, and the first `alone` of them one game after another."""
    seeds = task.evaluation_seeds(episodes)
    together = Evaluator(task.make_env, seeds, action_mode="sample", target_units=task.target_units)
    return Side(together), Side(replace(together, seeds=seeds[:alone], max_batch=1))


def fresh_learner(task: Task) -> Learner:
    """Decision Transformer with the suite's small sizes and its first weights, on a little random play."""
    settled = contender_on(load_suite(SUITE, preset=PRESET).contenders[CONTENDER], task.name)
    algorithm = make_algorithm(settled.algorithm, settled.hyperparameters)
    with tempfile.TemporaryDirectory() as folder:
        return algorithm.learner(random_play(Path(folder)), seed=SEED, device=torch.device("cpu"))


def random_play(scratch: Path) -> TrajectoryDataset:
    """Whole episodes of a random player."""
    how = PROTOCOLS["official-dt"]
    game = TASK.partition(":")[2]
    return record(game, [None], steps=RECORDED_STEPS, seed=SEED, protocol=how, max_frames=MAX_FRAMES, scratch=scratch)


def agreement(batches: Sequence[Episodes], singles: Sequence[Episodes]) -> dict[str, int]:
    """How many (target, episode) played alone have the return and the length that they have in every batch."""
    together = [outcomes(batch) for batch in batches]
    alone = {key: outcome for single in singles for key, outcome in outcomes(single).items()}
    equal = [all(batch[key] == outcome for batch in together) for key, outcome in alone.items()]
    return {"compared_episodes": len(equal), "equal_episodes": sum(equal)}


def outcomes(episodes: Episodes) -> dict[tuple[float, int], tuple[float, int]]:
    """(target, episode) -> (return, length)."""
    columns = (episodes.targets, episodes.episodes, episodes.returns, episodes.lengths)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {(target, episode): (earned, length) for target, episode, earned, length in rows}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--max-frames", type=int, default=4000, help="of an episode; an action lasts four")
    parser.add_argument("--episodes", type=int, default=10, help="of each target")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--alone", type=int, default=1, help="episodes of each target that are played alone as well")
    parser.add_argument("--rounds", type=int, default=2, help="how often both are measured in turn")
    parser.add_argument("--threads", type=int, default=2, help="of torch and of the emulators")
    parser.add_argument("--out", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
