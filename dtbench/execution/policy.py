"""A trained policy: it acts, is evaluated and is filmed; loaded from a finished trial without its data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dtbench import registry
from dtbench.algorithm import Learner
from dtbench.data.actions import ActionScale
from dtbench.data.dataset import space_from_json
from dtbench.data.stand_in import stand_in
from dtbench.errors import InvalidValue, LedgerError, UnknownName
from dtbench.evaluation import CPU, Episodes, Evaluator, HistoryBuffer, rollout_of
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.task import Task, whole_number
from dtbench.trial import POLICY, open_trial, read_checkpoint, trial_evaluator

if TYPE_CHECKING:  # imageio is for films
    from dtbench.execution.video import Film


class Policy:
    """A trained learner that plays one task: action by action, in whole evaluations, or in a film."""

    def __init__(
        self,
        learner: Learner,
        task: Task,
        evaluator: Evaluator,
        *,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        target_returns: Sequence[float],
        name: str = "",
    ) -> None:
        """Use the learner's current parameters; actions are those of `action_space`, the environment's."""
        self.learner, self.task = learner, task
        self.observation_space, self.action_space = observation_space, action_space
        self.target_returns, self.name = tuple(target_returns), name
        self._evaluator = evaluator
        self.reset()

    def __repr__(self) -> str:
        wanted = f", target returns {', '.join(f'{t:g}' for t in self.target_returns)}" if self._takes_targets else ""
        return f"Policy({self.name or type(self.learner).__name__} on {self.task.name}{wanted})"

    def reset(self, target_return: float | None = None) -> None:
        """Begin an episode; the default target is the first of `target_returns`."""
        self.return_to_go = self._targets(target_return)[0] if self._takes_targets else 0.0
        self._rollout, self._step = rollout_of(self.learner), 0
        shape = self.action_space.shape or ()
        self._buffer = HistoryBuffer(1, self.learner.context, shape, self._evaluator.device)

    def act(self, observation: Any, *, reward: float = 0.0) -> NDArray[Any]:
        """Return the action for an observation; `reward` is the environment's for the previous action.

        Raises InvalidValue for an observation of another shape than the data's.
        """
        shape, known = np.shape(observation), self.observation_space.shape
        if known is not None and shape != known:
            raise InvalidValue(f"an observation of shape {shape} is none of {self.task.name}'s, which have {known}.")
        self.return_to_go -= self._spent(reward)
        history = self._buffer.write(np.asarray(observation)[None], np.array([self.return_to_go]), self._step)
        one, first = np.ones(1, bool), np.zeros(1, np.int64)
        actions = self._evaluator.act(self._rollout, history, one, first, self._step, self.action_space)
        self._buffer.write_actions(actions)
        self._step += 1
        scale = self._evaluator.action_scale
        action: NDArray[Any] = scale.to_box(actions)[0] if scale else actions[0]
        return action

    def evaluate(self, targets: float | Sequence[float] | None = None, *, episodes: int = 100) -> pd.DataFrame:
        """Play the task's evaluation episodes once for each target return, of one or several; return a row an episode.

        Columns: target (nan without target returns), episode, seed (the environment's), return, length (steps), score,
        and achieved, the return in the targets' units, where these are not the environment's. Default targets:
        `target_returns`. Raises InvalidValue for targets that are not finite numbers or less than one episode.
        """
        wanted = self.target_returns if targets is None else _finite(targets)
        seeds = self.task.evaluation_seeds(whole_number("episodes", episodes, least=1))
        outcome = replace(self._evaluator, seeds=seeds).evaluate(self.learner, wanted)
        return self._frame(outcome)

    def record(self, path: str | Path, *, target_return: float | None = None, seed: int | None = None) -> "Film":
        """Film one episode as .mp4 or .gif, at the environment's own speed; `seed` is the environment's.

        Default: the task's first evaluation episode with the first of `target_returns`. Raises InvalidValue for
        another suffix, IncompatibleTask where the environment draws no pictures.
        """
        from dtbench.execution.video import Film, Filmed, check_film, film_writer, frames_per_second

        file = check_film(Path(path))
        env = self.task.make_env(1)
        seeds = self.task.evaluation_seeds(1)[:1] if seed is None else [seed]
        with film_writer(file, frames_per_second(env)) as on_frame:
            evaluator = replace(self._evaluator, seeds=seeds, make_env=lambda _: Filmed(env, on_frame))
            outcome = evaluator.evaluate(self.learner, self._targets(target_return) if self._takes_targets else ())
        target = float(outcome.targets[0]) if self._takes_targets else None
        return Film(file, target, float(outcome.returns[0]), int(outcome.lengths[0]))

    @property
    def _takes_targets(self) -> bool:
        return self.learner.return_conditioned

    def _targets(self, target_return: float | None) -> tuple[float]:
        if target_return is None and not self.target_returns:
            raise InvalidValue(f"{self.task.name} has no target return of its own: name one.")
        return (self.target_returns[0],) if target_return is None else (_finite(target_return)[0],)

    def _spent(self, reward: float) -> float:
        """Return what a reward subtracts from the return-to-go."""
        units = self._evaluator.target_units
        lowered = units is not None and units.lower_return_to_go
        return float(units.convert(np.array([float(reward)]))[0]) if units and lowered else float(reward)

    def _frame(self, outcome: Episodes) -> pd.DataFrame:
        columns = {
            "target": outcome.targets,
            "episode": outcome.episodes,
            "seed": outcome.seeds,
            "return": outcome.returns,
            "length": outcome.lengths,
            "score": self.task.score(outcome),
            **({} if outcome.achieved is None else {"achieved": outcome.achieved}),
        }
        return pd.DataFrame(columns)


def _finite(targets: float | Sequence[float]) -> tuple[float, ...]:
    """Return target returns as a tuple; raise InvalidValue for one that is not a finite number."""
    try:
        wanted = np.atleast_1d(np.asarray(targets, np.float64))
    except (TypeError, ValueError):
        wanted = np.array([np.nan])
    if wanted.ndim != 1 or not wanted.size or not np.isfinite(wanted).all():
        raise InvalidValue(f"targets {targets!r:.60} must be a finite number or several: evaluate([1000, 3600]).")
    return tuple(map(float, wanted))


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device that this machine has; raise InvalidValue, which names those, for another."""
    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InvalidValue(
            f"device {str(device)!r:.40} is not here. This machine has {', '.join(present)}."
        ) from error
    return found


def load_policy(results: str | Path, key: str, *, device: str | torch.device = CPU) -> Policy:
    """Return the policy of a finished trial: `key` is in the column `trial` of `load_scores`, or its beginning.

    Its dataset is opened only where the trial has no policy.pt: in those of earlier versions, those of RLlib, and of
    learners that act by more of the data than spaces, moments and returns. Raises UnknownName for an unknown key,
    InvalidValue for a trial that has not finished, LedgerError for a damaged checkpoint.
    """
    ledger = Ledger(Path(results) / "runs")
    folder = find_trial(ledger, key)
    spec = ledger.spec(folder)
    if ledger.state(spec) is not TrialState.DONE:
        raise InvalidValue(f"trial {key} is {ledger.state(spec)}, not done. Run it first: dtbench run -s {spec.suite}")
    path = folder / "checkpoint.pt"
    if not path.exists():
        raise LedgerError(f"trial {key} has no {path}: checkpoints stay where they were written. Run it again here.")
    policy = _without_data(spec, folder / POLICY, usable_device(device)) or _with_data(spec)
    try:
        policy.learner.load_state_dict(read_checkpoint(path)["learner"])
    except Exception as error:  # of a damaged file, torch raises almost anything
        raise LedgerError(f"cannot load {path}: {error}. Delete the trial's directory and run it again.") from error
    policy.reset()
    return policy


def find_trial(ledger: Ledger, key: str) -> Path:
    """Return the directory of the trial of this key or beginning of a key; raise UnknownName unless there is one."""
    folders = ledger.folders()
    matching = [folder for known, folder in folders.items() if known.startswith(key)]
    if len(matching) != 1:
        raise UnknownName("trial" if not matching else "trial, ambiguous:", key, folders)
    return matching[0]


def _without_data(spec: TrialSpec, path: Path, device: torch.device) -> Policy | None:
    """Return the untrained policy of a trial, built from what it recorded of its data; None where it did not."""
    if not path.exists():
        return None
    try:
        description = read_checkpoint(path)
        dataset, space = stand_in(description["data"]), space_from_json(description["action_space"])
        bounds = [bound.numpy() for bound in description["scale"] or ()]
        scale = ActionScale(space, *bounds) if isinstance(space, gym.spaces.Box) else None
    except Exception as error:
        raise LedgerError(f"cannot load {path}: {error}. Delete it: then the trial's data are opened.") from error
    task = registry.make_task(spec.task, spec.task_options)
    algorithm = registry.make_algorithm(spec.algorithm, spec.hyperparameters)
    learner = algorithm.learner(dataset, seed=spec.seed, device=device)
    evaluator = trial_evaluator(spec, task, scale=scale, device=device)
    return _policy(spec, learner, task, evaluator, (dataset.observation_space, space))


def _with_data(spec: TrialSpec) -> Policy:
    trial = open_trial(spec)
    spaces = trial.dataset.observation_space, trial.dataset.action_space
    return _policy(spec, trial.learner, trial.task, trial.evaluator, spaces)


def _policy(
    spec: TrialSpec, learner: Learner, task: Task, evaluator: Evaluator, spaces: tuple[gym.Space[Any], gym.Space[Any]]
) -> Policy:
    return Policy(
        learner,
        task,
        evaluator,
        observation_space=spaces[0],
        action_space=spaces[1],
        target_returns=spec.evaluation.targets,
        name=f"{spec.contender}, seed {spec.seed}, trial {spec.key}",
    )
