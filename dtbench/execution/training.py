"""Train one learner on one task in this process, with a progress bar."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dtbench import registry
from dtbench.algorithm import Metrics
from dtbench.data.actions import action_scale, unit_actions
from dtbench.errors import InvalidValue, UnknownName
from dtbench.evaluation import CPU, Evaluator
from dtbench.execution.policy import Policy, usable_device
from dtbench.task import AUTO, Task, whole_number
from dtbench.trial import Diverged, check_learner

SHOWN_SECONDS = 0.2  # between two looks at the metrics, which may have to wait for a GPU
PLAIN_LINES = 10  # of a training without a terminal

OnStep = Callable[[int, Metrics], None]  # (gradient steps taken, metrics of the last)


def train(
    task: Task | str,
    algorithm: str = "dt",
    *,
    preset: str = "",
    steps: int = 10_000,
    seed: int = 0,
    source: str = AUTO,
    device: str | torch.device = CPU,
    progress: bool = True,
    **hyperparameters: Any,
) -> Policy:
    """Train an algorithm on a task for a number of gradient steps; return its policy.

    `task` and `algorithm` are names from `dtbench list`, or a Task; `preset` is one of the algorithm's presets of
    hyperparameters, and further arguments are hyperparameters over it. `source` is that of the data. Nothing is
    evaluated and nothing kept: `run_suite` does both. Raises UnknownName for unknown names, IncompatibleTask where
    the algorithm does not fit the task, InvalidValue for steps or a seed that are no whole numbers, Diverged where a
    metric is not finite.

    Example: `dtbench.train("key-to-door-1k", "dt", steps=2000, context=None, learning_rate=1e-3)`.
    """
    steps, seed = whole_number("steps", steps), whole_number("seed", seed)
    made = registry.make_task(task) if isinstance(task, str) else task
    if not isinstance(made, Task):
        raise InvalidValue(
            f"{type(made).__name__} is no task. Give a name from `dtbench list tasks`, or a dtbench.Task."
        )
    settings = {**_preset(algorithm, preset), **hyperparameters}
    dataset = made.open(source)
    where = usable_device(device)
    learner = registry.make_algorithm(algorithm, settings).learner(unit_actions(dataset), seed=seed, device=where)
    check_learner(learner, algorithm)
    with _shown(f"{algorithm} on {made.name}", steps, enabled=progress) as on_step:
        for step in range(1, steps + 1):
            on_step(step, learner.update())
    evaluator = Evaluator(
        make_env=made.make_env,
        seeds=(),
        action_seed=seed,
        device=where,
        info_keys=made.info_keys,
        target_units=made.target_units,
        action_scale=action_scale(dataset.action_space, dataset.actions),
    )
    return Policy(
        learner,
        made,
        evaluator,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        target_returns=made.targets(dataset),
        name=algorithm,
    )


def _preset(algorithm: str, name: str) -> Mapping[str, Any]:
    """Return the hyperparameters of a preset; raise UnknownName for one that the algorithm does not have."""
    presets = registry.algorithm_presets(algorithm)
    if name and name not in presets:
        raise UnknownName(f"preset of {algorithm}", name, presets)
    return presets[name] if name else {}


@contextmanager
def _shown(title: str, steps: int, *, enabled: bool) -> Iterator[OnStep]:
    """Yield the function that takes each step's metrics: a bar on a terminal, lines elsewhere."""
    console = Console(force_jupyter=False, highlight=False)
    looked = time.monotonic()
    if not (enabled and console.is_terminal):
        every = max(1, math.ceil(steps / PLAIN_LINES))

        def on_step(step: int, metrics: Metrics) -> None:
            if step % every == 0 or step == steps:
                line = f"{title}: step {step}/{steps}, {_checked(step, metrics)}"
                if enabled:
                    print(line, file=sys.stderr, flush=True)

        yield on_step
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[metrics]}"), console=console) as bar:
        row = bar.add_task(title, total=steps, metrics="")

        def update(step: int, metrics: Metrics) -> None:
            nonlocal looked
            if step == steps or time.monotonic() - looked > SHOWN_SECONDS:
                looked = time.monotonic()
                bar.update(row, completed=step, metrics=_checked(step, metrics))

        yield update


def _checked(step: int, metrics: Metrics) -> str:
    """Return the metrics as text; raise Diverged where one is not finite."""
    values = {name: float(value) for name, value in metrics.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(f"diverged: {name} is not finite at step {step}.")
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
