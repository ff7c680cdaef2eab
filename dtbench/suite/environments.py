"""Try the environments of tasks before any training: reset them and take one step."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from dtbench import registry
from dtbench.errors import FOREIGN, DtbenchError, IncompatibleTask, one_line
from dtbench.foreign import tried
from dtbench.ledger.trial_spec import TrialSpec


def check_environments(specs: Iterable[TrialSpec]) -> None:
    """Make, reset and step the environment of every task once; raise IncompatibleTask for one that does not work."""
    for spec in {spec.task: spec for spec in specs}.values():
        if problem := _tried(spec) if ":" in spec.task else _problem(spec):
            raise IncompatibleTask(f"{spec.task}: its environment does not work: {problem}")


def _tried(spec: TrialSpec) -> str:
    """Return what is wrong with a foreign environment, which may crash or end its process."""
    return tried(partial(_problem, spec), "made, reset and stepped once")


def _problem(spec: TrialSpec) -> str:
    """Return what is wrong with a task's environment, "" where nothing is."""
    try:
        task = registry.make_task(spec.task, spec.task_options)
        env: Any = task.make_env(1)
        try:
            env.action_space.seed(0)
            observations, _ = env.reset(seed=task.evaluation_seeds(1)[:1])
            _check_batch("observations", observations, env.observation_space.shape)
            observations, rewards, *flags, _ = env.step(env.action_space.sample())
            _check_batch("observations", observations, env.observation_space.shape)
            for name, values in zip(("rewards", "terminated", "truncated"), (rewards, *flags), strict=True):
                _check_batch(name, values, (1,))
        finally:
            env.close()
    except DtbenchError as error:
        return str(error)
    except FOREIGN as error:
        return f"{one_line(f'{type(error).__name__}: {error}', 250)}. Correct it there."
    return ""


def _check_batch(name: str, values: Any, shape: tuple[int, ...] | None) -> None:
    if shape is not None and np.shape(values) != shape:
        raise IncompatibleTask(f"{name} of one environment have shape {np.shape(values)}, not {shape}.")
