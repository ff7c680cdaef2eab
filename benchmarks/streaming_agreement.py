"""Whether games played with `rollout: streaming` return what they return with the exact one, suite by suite.

    python benchmarks/streaming_agreement.py --ledger results/runs --out results/performance/streaming.json

Decision Transformer as the suites key-to-door, graph and d4rl have it with their preset cpu, and on Hopper once more
with the official sizes, a learning rate and a budget for one processor. Trials come from the ledger where it has them,
whatever version of the algorithm learned them, and are run into it otherwise. Both modes play the same episodes. The
table holds, for each target return, the exact mode's mean return with its 95 % bootstrap interval over episodes, the
streaming one's mean, and the interval of the difference between them, episode by episode. They agree where the one
interval holds the streaming mean and the other holds 0. Where the context covers the episode both modes are the same
by construction, and so must be the episodes.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import say
from machine import report, surroundings
from numpy.typing import NDArray

from dtbench import Episodes, Evaluator
from dtbench.evaluation import action_mode
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.registry import make_algorithm, make_task
from dtbench.suite.planning import load_suite, narrow, trial_specs
from dtbench.trial import evaluation_seeds, run_trial

RESAMPLES = 10_000
OFFICIAL = ("context=20", "width=128", "layers=3")  # Chen et al. (2021), Table 9


@dataclass(frozen=True, slots=True)
class Case:
    """A contender of a suite on some tasks, with what is said otherwise."""

    name: str
    suite: str
    tasks: tuple[str, ...]
    overrides: tuple[str, ...] = ()


def cases(chosen: argparse.Namespace) -> Iterator[Case]:
    """What is compared, the quickest first."""
    once = ("evaluation.episodes=1", f"DT.evaluate_every={10**9}")
    few = tuple(f"DT.budget={chosen.budget}" for _ in range(chosen.budget is not None))
    yield Case("DT", "key-to-door", ("key-to-door-1k",), (*once, *few))
    yield Case("DT", "graph", ("graph-0", "graph-1"), ("evaluation.episodes=20", *once[1:], *few))
    less = (*once, "evaluation.sweep=0", f"task_options.steps={chosen.steps}")
    robots = ("hopper-medium-v2", "halfcheetah-medium-v2", "walker2d-medium-v2")
    yield Case("DT", "d4rl", robots, (*less, *few))
    longer = tuple(f"DT.{size}" for size in OFFICIAL)
    slower = (f"DT.budget={chosen.budget or chosen.official_budget}", f"DT.decay_steps={chosen.official_budget}")
    yield Case("DT, official sizes", "d4rl", robots[:1], (*less, *longer, *slower))


def main() -> None:
    """Print the table, and all of it as JSON."""
    chosen = _arguments()
    torch.set_num_threads(chosen.threads)
    rows = [
        {"case": case.name, **row}
        for case in cases(chosen)
        if case.suite in chosen.suites
        for spec in specs(case, chosen.seeds)
        for row in compared(spec, chosen)
    ]
    say(table(rows))
    report({"rows": rows, "agree": sum(row["agree"] for row in rows), "of": len(rows), **surroundings()}, chosen.out)


def specs(case: Case, seeds: str) -> list[TrialSpec]:
    """The trials of a case."""
    suite = load_suite(case.suite, preset="cpu", seeds=seeds, overrides=case.overrides)
    return trial_specs(narrow(suite, tasks=case.tasks, contenders=["DT"]))


def compared(spec: TrialSpec, chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each target return."""
    say(f"{spec.suite}, {spec.task}, seed {spec.seed}")
    learner, task = trained(spec, chosen), make_task(spec.task, spec.task_options)
    exact, streaming = (
        Evaluator(
            make_env=task.make_env,
            seeds=evaluation_seeds(task, spec) if task.domain == "graph" else task.evaluation_seeds(chosen.episodes),
            action_mode=action_mode(spec.evaluation.action_mode),
            action_seed=spec.seed,
            target_units=task.target_units,
            streaming=mode,
        ).evaluate(learner, spec.evaluation.targets)
        for mode in (False, True)
    )
    for target in np.unique(exact.targets)[::-1].tolist():
        same = np.isnan(exact.targets) if np.isnan(target) else exact.targets == target
        yield {
            "suite": spec.suite,
            "task": spec.task,
            "seed": spec.seed,
            "target": None if np.isnan(target) else target,
            "context": learner.context,
            "layers": spec.hyperparameters["layers"],
            "longest_episode": int(max(exact.lengths[same].max(), streaming.lengths[same].max())),
            **outcome(exact, streaming, same),
        }


def outcome(exact: Episodes, streaming: Episodes, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Mean returns of these episodes in both modes, and what tells whether they agree."""
    ours, theirs = exact.returns[rows], streaming.returns[rows]
    interval, of_difference = interval_of_mean(ours), interval_of_mean(theirs - ours)
    return {
        "episodes": len(ours),
        "exact": round(float(ours.mean()), 3),
        "interval": interval,
        "streaming": round(float(theirs.mean()), 3),
        "difference_interval": of_difference,
        "equal_episodes": int((ours == theirs).sum()),
        "agree": holds(interval, round(float(theirs.mean()), 3)) and holds(of_difference, 0.0),
    }


def interval_of_mean(values: NDArray[np.float64]) -> list[float]:
    """The 95 % percentile bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    return [round(float(bound), 3) for bound in np.quantile(means, [0.025, 0.975])]


def holds(interval: Sequence[float], value: float) -> bool:
    """Whether the value lies inside, or on an end."""
    return interval[0] <= value <= interval[1]


def trained(spec: TrialSpec, chosen: argparse.Namespace) -> Any:
    """The trial's learner with the weights it ended with."""
    folder = next(finished(spec, [chosen.ledger, *chosen.also]), None)
    if folder is None:
        assert run_trial(spec, chosen.ledger) == "done", f"{spec.suite}, {spec.task} failed: see {chosen.ledger}"
        folder = next(finished(spec, [chosen.ledger]))
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)["learner"]
    dataset = make_task(spec.task, spec.task_options).open(spec.open_from or spec.dataset_source)
    algorithm = make_algorithm(spec.algorithm, spec.hyperparameters)
    learner: Any = algorithm.learner(dataset, seed=spec.seed, device=torch.device("cpu"))
    learner.network.load_state_dict(state["network"])
    learner.average = state["average"]
    return learner


def finished(spec: TrialSpec, ledgers: Sequence[Path]) -> Iterator[Path]:
    """Folders of trials that are done and learned the same, if perhaps with another version of the code."""
    for ledger in ledgers:
        for path in sorted(ledger.glob("*/*/result.json")):
            found = json.loads((path.parent / "spec.json").read_text())
            if json.loads(path.read_text()).get("status") == "done" and learned_alike(found, spec):
                yield path.parent


def learned_alike(found: Mapping[str, Any], spec: TrialSpec) -> bool:
    """Whether a recorded trial learned from the same data with the same settings; newer ones may be missing."""
    same = ("algorithm", "task", "dataset_digest", "seed", "budget")
    own = dict(spec.hyperparameters)
    settings = found["hyperparameters"].items()
    return all(found[name] == getattr(spec, name) for name in same) and all(
        name in own and own[name] == value for name, value in settings
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in words."""
    lines = [
        ("case", "task", "target", "context", "exact return", "streaming", "difference", "equal episodes", "agree")
    ]
    for row in rows:
        low, high = row["interval"]
        lines.append(
            (
                row["case"],
                row["task"],
                "" if row["target"] is None else f"{row['target']:g}",
                f"{row['context']} of {row['longest_episode']}",
                f"{row['exact']:g} [{low:g}, {high:g}]",
                f"{row['streaming']:g}",
                "[{:g}, {:g}]".format(*row["difference_interval"]),
                f"{row['equal_episodes']} of {row['episodes']}",
                "yes" if row["agree"] else "no",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ledger", type=Path, required=True, help="where trials are looked for and recorded")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="further ledgers to look for trials in")
    parser.add_argument("--suites", nargs="*", default=["key-to-door", "graph", "d4rl"])
    parser.add_argument("--seeds", default="0", help="training seeds")
    parser.add_argument("--episodes", type=int, default=100, help="of each target; graphs have one for each start")
    parser.add_argument("--steps", type=int, default=200_000, help="of the robots' data")
    parser.add_argument("--budget", type=int, help="gradient steps; the suites' own if not given")
    parser.add_argument("--official-budget", type=int, default=2000, help="of the case with the official sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
