r"""Whole training runs of IQL, TD3+BC and CQL, ours beside JAX-CORL's: equal losses are not enough.

    make peers-jax
    git clone https://github.com/nissymori/JAX-CORL
    DTBENCH_JAX_PYTHON=.venv-jax/bin/python DTBENCH_JAX_CORL=JAX-CORL \
        python -m benchmarks.whole_runs --out whole_runs.json --figure whole_runs.png

Both sides see the same transitions, scaled alike, of a set that D4RL's own policy recorded again (`dtbench data
rerecord`), with equal hyperparameters. Both actors play the same episodes of dtbench's evaluator, and both critics are
read at the same 4096 pairs of the data, as `dtbench.convergence` does. What differs: IQL's actor here squashes its
mean by tanh, JAX-CORL's does not, and it takes the value's step before the advantages; TD3+BC's first weights are
orthogonal there and PyTorch's here. Runs that the file already has are not repeated.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from baselines.networks import observation_scale, reward_scale
from benchmarks.timing import log
from dtbench import TrajectoryDataset, TransitionSampler
from dtbench.analysis.figures.style import figure
from dtbench.convergence import ReturnProfile, ValueProbe, backups_of, return_profile
from dtbench.data import generator
from dtbench.evaluation import Evaluator
from dtbench.ledger.store import write_json
from dtbench.registry import make_algorithm, make_task
from dtbench.suite.planning import resolved_hyperparameters
from dtbench.suite.schema import Contender
from dtbench.task import Task

HERE, CPU = Path(__file__).parent, torch.device("cpu")
LAYERS, DISCOUNT, EPISODES = 2, 0.99, 20
OURS = {"IQL": ("iql", "official"), "TD3+BC": ("td3_bc", "corl"), "CQL": ("cql", "corl")}
SIDES = ("dtbench", "JAX-CORL")
COLOURS = {"dtbench": "#0072b2", "JAX-CORL": "#d55e00"}


@dataclass(frozen=True)
class Comparison:
    """A task, its data and what both sides are measured by."""

    task: Task
    data: TrajectoryDataset
    options: argparse.Namespace

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator, with episodes that no report uses."""
        return Evaluator(make_env=self.task.make_env, seeds=self.task.tuning_seeds(EPISODES))

    def score(self, learner: Any) -> float:
        """Return the mean score of a learner's episodes."""
        return float(np.mean(self.task.score(self.evaluator.evaluate(learner))))


class StoredActor:
    """An actor of the other side, from the arrays of its layers."""

    context, return_conditioned = 1, False

    def __init__(self, stored: Any, scale: Any, *, squash: bool) -> None:
        """Read w0, b0, w1, ... of an archive."""
        count = sum(name.startswith("w") for name in stored.files)
        self.layers = [(torch.tensor(stored[f"w{i}"]), torch.tensor(stored[f"b{i}"])) for i in range(count)]
        self.scale, self.squash = scale, squash

    @torch.no_grad()
    def act(self, history: Any) -> torch.Tensor:
        """Return actions [B, action]."""
        hidden: torch.Tensor = self.scale(history.observations[:, -1])
        for index, (weight, bias) in enumerate(self.layers):
            hidden = hidden @ weight + bias
            hidden = hidden.relu() if index + 1 < len(self.layers) else hidden
        return hidden.tanh() if self.squash else hidden.clamp(-1, 1)


def main() -> None:
    """Train what is missing, and write rows and figure."""
    options = _parse()
    out = Path(options.out)
    document: dict[str, Any] = (
        json.loads(out.read_text()) if out.exists() else {"settings": _settings(options), "rows": []}
    )
    if document["settings"] != _settings(options):
        raise SystemExit(f"{out} was made with other settings: {document['settings']}. Name another file.")
    task = make_task(options.task, {"physics": "d4rl", "steps": options.data})
    comparison = Comparison(task, task.open(options.source), options)
    sides = {"dtbench": train_ours, "JAX-CORL": train_theirs}
    for seed in range(options.seeds):
        for algorithm in options.only:
            for side in SIDES:
                known = {(row["side"], row["algorithm"], row["seed"]) for row in document["rows"]}
                if (side, algorithm, seed) not in known:
                    log(f"{side}: {algorithm}, seed {seed}")
                    named = {"side": side, "algorithm": algorithm, "seed": seed}
                    document["rows"] += [named | row for row in sides[side](comparison, algorithm, seed)]
                    write_json(out, document)
    if options.figure:
        with figure(False, 8.0, 5.4) as sheet:
            draw(sheet, document)
            sheet.savefig(options.figure, dpi=150)


def train_ours(one: Comparison, algorithm: str, seed: int) -> Iterator[dict[str, Any]]:
    """Train our learner; yield a row a checkpoint."""
    options, (kind, preset) = one.options, OURS[algorithm]
    sizes = {"hidden_size": options.size, "num_layers": LAYERS, "batch_size": options.size}
    made = make_algorithm(
        kind,
        resolved_hyperparameters(
            Contender(algorithm=kind, hyperparameter_preset=preset, hyperparameters=sizes, train_steps=options.steps)
        ),
    )
    learner, backups = made.learner(one.data, seed=seed, device=CPU), backups_of(made)
    assert backups is not None
    probe = ValueProbe(one.data, backups, context=1, device=CPU)
    for step in range(1, options.steps + 1):
        learner.update()
        if step % options.every == 0:
            found = probe.measure(learner, step)  # type: ignore[arg-type]
            yield {
                "step": step,
                "score": one.score(learner),
                "value_ratio": found["value_ratio"],
                "value_correlation": found["value_correlation"],
            }


def train_theirs(one: Comparison, algorithm: str, seed: int) -> Iterator[dict[str, Any]]:
    """Train JAX-CORL's learner in its own process; yield a row a checkpoint."""
    options, (kind, preset) = one.options, OURS[algorithm]
    hyperparameters = resolved_hyperparameters(Contender(algorithm=kind, hyperparameter_preset=preset, train_steps=1))
    scale = observation_scale(one.data, normalize=hyperparameters["normalize_observations"], device=CPU)
    factor = reward_scale(one.data, normalize=hyperparameters["normalize_rewards"])
    profile = return_profile(one.data, DISCOUNT)
    settings = {
        "algorithm": algorithm,
        "seed": seed,
        "steps": options.steps,
        "every": options.every,
        "width": options.size,
        "batch": options.size,
        "layers": LAYERS,
    }
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", allow_pickle=False, **transitions(one.data, profile, scale, factor))
        command = [options.jax, HERE / "jax_corl_training.py", options.jax_corl, f"{folder}/data.npz", folder]
        subprocess.run([*map(str, command), json.dumps(settings)], check=True)
        for step in range(options.every, options.steps + 1, options.every):
            with np.load(Path(folder) / f"{step}.npz") as stored:
                values = stored["values"].astype(np.float64) / factor
                actor = StoredActor(stored, scale, squash=algorithm != "IQL")
            yield {
                "step": step,
                "score": one.score(actor),
                "value_ratio": float(values.mean() / profile.returns.mean()),
                "value_correlation": float(np.corrcoef(values, profile.returns)[0, 1]),
            }


def transitions(data: TrajectoryDataset, profile: ReturnProfile, scale: Any, factor: float) -> dict[str, Any]:
    """Return all transitions that our sampler draws, and the pairs, scaled as our learner scales them."""
    sampler = TransitionSampler(data, batch_size=1, rng=generator(0), device=CPU)
    everything = sampler.at(sampler.steps)
    pairs = sampler.at(profile.steps)
    return {
        "observations": scale(everything.observations).numpy(),
        "actions": everything.actions.float().numpy(),
        "rewards": (everything.rewards * factor).numpy(),
        "next_observations": scale(everything.next_observations).numpy(),
        "dones": everything.terminals.float().numpy(),
        "pair_observations": scale(pairs.observations).numpy(),
        "pair_actions": pairs.actions.float().numpy(),
    }


def draw(sheet: Figure, document: dict[str, Any]) -> None:
    """Draw scores and values of both sides over training, a thin line a seed and a thick one for their mean."""
    rows, names = document["rows"], {"score": "normalised score", "value_ratio": "mean Q / data's discounted return"}
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    grid = sheet.subplots(2, len(algorithms), squeeze=False)
    for column, algorithm in enumerate(algorithms):
        for axes, (key, label) in zip(grid[:, column], names.items(), strict=True):
            for side in SIDES:
                own = [row for row in rows if (row["algorithm"], row["side"]) == (algorithm, side)]
                steps = sorted({row["step"] for row in own})
                seeds = sorted({row["seed"] for row in own})
                curves = np.array([[r[key] for r in own if r["seed"] == seed] for seed in seeds])
                for curve in curves:
                    axes.plot(steps, curve, color=COLOURS[side], linewidth=0.7, alpha=0.5)
                axes.plot(steps, curves.mean(axis=0), color=COLOURS[side], linewidth=2.2, label=side)
            axes.set(ylabel=label if column == 0 else "", xlabel="gradient steps", title=algorithm)
    grid[0, 0].legend()


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("task", "source", "data", "steps", "every", "size")}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="hopper-medium-v2", help="a locomotion task")
    parser.add_argument("--source", default="re-recorded", help="of the data, as in `dtbench run --source`")
    parser.add_argument("--data", type=int, default=1_000_000, help="its steps")
    parser.add_argument("--steps", type=int, default=100_000, help="gradient steps")
    parser.add_argument("--every", type=int, default=10_000, help="gradient steps from checkpoint to checkpoint")
    parser.add_argument("--size", type=int, default=128, help="of a layer, and of a batch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--jax", default=os.environ.get("DTBENCH_JAX_PYTHON"), help="interpreter that has jax")
    parser.add_argument("--jax-corl", default=os.environ.get("DTBENCH_JAX_CORL"), help="a checkout of JAX-CORL")
    parser.add_argument("--out", required=True, help="file for the result")
    parser.add_argument("--figure", help="file for the figure")
    options = parser.parse_args()
    if not options.jax or not options.jax_corl:
        parser.error("name an interpreter that has jax (--jax) and a checkout of JAX-CORL (--jax-corl).")
    return options


if __name__ == "__main__":
    main()
