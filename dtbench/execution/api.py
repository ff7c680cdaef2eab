"""Public functions: evaluate a learner, run a suite, load a trained policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dtbench.algorithm import Learner
from dtbench.data.actions import action_scale
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import InvalidValue
from dtbench.evaluation import CPU, Episodes, Evaluator
from dtbench.execution.local import run_local
from dtbench.ledger.remote import acquire
from dtbench.ledger.store import Ledger, check_disk
from dtbench.ledger.trial_spec import ActionMode, TrialState
from dtbench.suite.planning import check_fit, load_suite, resolved_document, trial_specs, with_variants
from dtbench.task import Task, whole_number
from dtbench.trial import ignore


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
    if not hasattr(learner, "return_conditioned"):
        raise InvalidValue(
            f"{type(learner).__name__} is no learner. A policy evaluates itself: policy.evaluate([1.0])."
        )
    evaluator = Evaluator(
        make_env=task.make_env,
        seeds=task.evaluation_seeds(whole_number("episodes", episodes, least=1)),
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
