"""Public functions: evaluate a learner, run a suite, load a trained policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dtbench.algorithm import Learner
from dtbench.data.actions import ActionScale, action_scale
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import InvalidValue, LedgerError, UnknownName
from dtbench.evaluation import CPU, Episodes, Evaluator, HistoryBuffer, rollout_of
from dtbench.execution.local import run_local
from dtbench.ledger.remote import acquire
from dtbench.ledger.store import Ledger, check_disk
from dtbench.ledger.trial_spec import ActionMode, TrialState
from dtbench.suite.planning import check_fit, load_suite, resolved_document, trial_specs, with_variants
from dtbench.task import Task
from dtbench.trial import ignore, open_trial, read_checkpoint


def evaluate(
    learner: Learner,
    task: Task,
    *,
    target_returns: Sequence[float] | None = None,
    episodes: int = 100,
    action_mode: ActionMode = "greedy",
    device: torch.device = CPU,
    dataset: TrajectoryDataset | None = None,
) -> Episodes:
    """Evaluate a learner on the task's episodes, once for each target return (default: the task's).

    The learner's actions of a Box lie in [-1, 1], as in `unit_actions(dataset)`; `dataset` is needed where the Box
    has no bounds.
    """
    evaluator = Evaluator(
        make_env=task.make_env,
        seeds=task.evaluation_seeds(episodes),
        action_mode=action_mode,
        device=device,
        info_keys=task.info_keys,
        target_units=task.target_units,
        action_scale=None if dataset is None else action_scale(dataset.action_space, dataset.actions),
    )
    return evaluator.evaluate(learner, task.target_returns if target_returns is None else target_returns)


def run_suite(
    name: str,
    *,
    preset: str | None = None,
    results: str | Path = "results",
    overrides: Sequence[str] = (),
) -> Mapping[str, TrialState]:
    """Run the missing trials of a suite in this process, like `dtbench run --local`; return all states by key.

    Finished trials are kept and interrupted ones continue.
    """
    suite, folder = load_suite(name, preset=preset, overrides=overrides), Path(results)
    check_disk(folder)
    with acquire(folder):
        ledger = Ledger(folder / "runs")
        suite = with_variants(suite, ledger.saved_suite(suite.name))
        specs = {spec.key: spec for spec in trial_specs(suite)}
        missing = [spec for spec in specs.values() if ledger.should_run(spec)]
        check_fit(missing)
        ledger.save_suite(resolved_document(suite, specs.values()))
        run_local(missing, ledger.root, ignore)
        return {key: ledger.state(spec) for key, spec in specs.items()}


def load_policy(results: str | Path, key: str) -> "Policy":
    """Return the policy of a finished trial; `key` is in the column `trial` of `load_scores`.

    Opens the trial's dataset, from which its learner is built. Raises UnknownName for an unknown key, InvalidValue
    for a trial that has not finished, LedgerError for a damaged checkpoint.
    """
    ledger = Ledger(Path(results) / "runs")
    folders = ledger.folders()
    if key not in folders:
        raise UnknownName(f"trial in {results}", key, folders)
    spec = ledger.spec(folders[key])
    if ledger.state(spec) is not TrialState.DONE:
        raise InvalidValue(f"trial {key} is {ledger.state(spec)}, not done. Run it first: dtbench run -s {spec.suite}")
    trial = open_trial(spec)
    path = folders[key] / "checkpoint.pt"
    try:
        trial.learner.load_state_dict(read_checkpoint(path)["learner"])
    except Exception as error:  # of a damaged file, torch raises almost anything
        raise LedgerError(f"cannot load {path}: {error}. Delete the trial's directory and run it again.") from error
    scale, shape = trial.evaluator.action_scale, trial.dataset.action_space.shape or ()
    return Policy(trial.learner, trial.task, action_shape=shape, scale=scale, device=trial.device)


class Policy:
    """A learner's greedy policy in one episode at a time."""

    def __init__(
        self,
        learner: Learner,
        task: Task,
        *,
        action_shape: tuple[int, ...],
        scale: ActionScale | None = None,
        device: torch.device = CPU,
    ) -> None:
        """Use the learner's current parameters; `scale` maps its actions to the environment's."""
        self.learner, self.task, self.action_shape, self.device = learner, task, action_shape, device
        self.scale = scale
        self.reset()

    def reset(self, target_return: float | None = None) -> None:
        """Begin an episode; the default target is the task's first."""
        targets = self.task.target_returns
        self.return_to_go = (targets[0] if targets else 0.0) if target_return is None else target_return
        self._rollout, self._step = rollout_of(self.learner), 0
        self._buffer = HistoryBuffer(1, self.learner.context, self.action_shape, self.device)

    def act(self, observation: Any, *, reward: float = 0.0) -> NDArray[Any]:
        """Return the action for an observation; `reward` is that of the previous action."""
        self.return_to_go -= reward
        history = self._buffer.write(np.asarray(observation)[None], np.array([self.return_to_go]), self._step)
        rows = torch.zeros(1, dtype=torch.long, device=self.device)
        actions: NDArray[Any] = self._rollout.act(history, rows).detach().cpu().numpy()
        self._buffer.write_actions(actions)
        self._step += 1
        action: NDArray[Any] = self.scale.to_box(actions[0]) if self.scale else actions[0]
        return action
