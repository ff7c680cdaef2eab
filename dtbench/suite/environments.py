"""Try the environments of tasks before any training: reset them and take one step."""

import os
import select
import signal
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from dtbench import registry
from dtbench.errors import FOREIGN, DtbenchError, IncompatibleTask, one_line
from dtbench.ledger.trial_spec import TrialSpec

SECONDS = 120  # for an environment to be made, reset and stepped once
_PASSED = b"passed"


def check_environments(specs: Iterable[TrialSpec]) -> None:
    """Make, reset and step the environment of every task once; raise IncompatibleTask for one that does not work."""
    for spec in {spec.task: spec for spec in specs}.values():
        if problem := (_in_a_fork if ":" in spec.task else _problem)(spec):
            raise IncompatibleTask(f"{spec.task}: its environment does not work: {problem}")


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


def _in_a_fork(spec: TrialSpec) -> str:
    """Return what is wrong with a foreign environment, which may crash or end its process."""
    if not hasattr(os, "fork"):
        return _problem(spec)
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the fork only plays; it uses no threads
        child = os.fork()
    if not child:
        _report(lambda: _problem(spec), sender)
    os.close(sender)
    answered = bool(select.select([receiver], [], [], SECONDS)[0])
    text = os.read(receiver, 65536) if answered else b""
    os.close(receiver)
    if not answered:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not answered:
        return f"it takes more than {SECONDS} s to start and to step once. Correct it there."
    if text.startswith(_PASSED):
        return text.removeprefix(_PASSED).decode()
    code = os.waitstatus_to_exitcode(status)
    how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended the process with code {code}"
    return f"it {how} when it was made, reset and stepped once. Correct it there."


def _report(problem: Callable[[], str], sender: int) -> None:
    """Write the problem and end this process, without its parent's clean-up."""
    torch.set_num_threads(1)  # OpenMP's other threads do not survive a fork: waiting for them would never end
    try:
        os.write(sender, _PASSED + problem().encode(errors="replace")[:60000])
    finally:
        os._exit(0)
