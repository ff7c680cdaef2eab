"""run_trial: train, evaluate and record one learner; continue interrupted trials from their checkpoints."""

import math
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from dtbench import registry
from dtbench.algorithm import CriticLearner, Learner
from dtbench.convergence import ValueProbe, probe
from dtbench.data.actions import ActionScale, action_scale, unit_actions
from dtbench.data.dataset import TrajectoryDataset, space_to_json
from dtbench.data.memory import free_memory
from dtbench.data.stand_in import describe, stand_in
from dtbench.errors import FOREIGN, IncompatibleTask, InvalidAlgorithm, InvalidDataset, LedgerError, LedgerUnwritable
from dtbench.evaluation import Episodes, Evaluator, act_alike, action_mode
from dtbench.ledger.heartbeat import Heartbeat
from dtbench.ledger.provenance import provenance
from dtbench.ledger.store import Ledger, write_bytes, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.task import Task
from dtbench.tracking.live import OnLogged

LOG_POINTS = 200  # lines of metrics of a trial
POLICY = "policy.pt"  # what a trial records of its data, so that its learner is built without them
CHECKPOINT_SECONDS = 60.0  # a killed process loses at most this much training and one evaluation

OnStep = Callable[[int, float | None], None]  # (gradient steps taken, latest score)
OnSaved = Callable[[Path], None]  # called with the trial's directory after each checkpoint and at the end
ShouldStop = Callable[[], bool]


class Diverged(FloatingPointError):
    """A loss is not finite: the same steps would diverge again."""


def never_stop() -> bool:
    """Return False."""
    return False


def ignore(*_: object) -> None:
    """Do nothing."""


def run_trial(
    spec: TrialSpec,
    ledger: Ledger,
    *,
    should_stop: ShouldStop = never_stop,
    on_progress: OnStep = ignore,
    on_saved: OnSaved = ignore,
    on_logged: OnLogged = ignore,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrialState:
    """Train, evaluate and record one trial, from its checkpoint if there is one; return its state in the ledger.

    Equal specs give equal records on one kind of machine, however often the trial was interrupted: everything random
    is seeded, and a checkpoint holds every random stream. An exception is recorded in error.txt, and the trial FAILED
    or DIVERGED; KeyboardInterrupt is raised. Where `should_stop` returns True between two steps, the
    trial writes its checkpoint and is STOPPED. Where a finished trial of the ledger differs in its evaluation alone,
    its learner is evaluated once, after its last step, and nothing is trained. Raises LedgerUnwritable where the
    ledger cannot be written to.
    """
    if ledger.state(spec) is TrialState.DONE:
        return TrialState.DONE
    folder = ledger.create(spec)
    heartbeat = Heartbeat(folder)
    torch.set_num_threads(max(1, int(spec.resources.get("cpu", 1))))
    with _recorded_failures(spec, ledger, heartbeat, on_saved):
        trial = open_trial(spec)
        progress = _restored(trial, folder) or _trained(trial, ledger) or _Progress()
        heartbeat.start(progress.step)
        clock = saved = time.monotonic()
        for step in range(progress.step + 1, spec.train_steps + 1):
            metrics = trial.learner.update()
            last = step == spec.train_steps
            progress.step = step
            evaluated = last or step % spec.evaluation.every == 0
            if logged := evaluated or step % math.ceil(spec.train_steps / LOG_POINTS) == 0:
                progress.log({**metrics, **(trial.values(step) if evaluated else {})})
            if evaluated:
                progress.episodes.append(trial.evaluate(step))
            if logged:
                on_logged(step, progress.metrics[-1], progress.episodes[-1] if evaluated else {})
            now = time.monotonic()
            progress.seconds, clock = progress.seconds + now - clock, now
            stopping = not last and should_stop()
            if trial.resumable and (evaluated or stopping or now - saved > checkpoint_seconds):
                _save(trial, progress, ledger)
                heartbeat.update(step, progress.latest_score)
                on_saved(folder)
                saved = now
            if stopping:
                heartbeat.stop()
                on_saved(folder)
                return TrialState.STOPPED
            on_progress(step, progress.latest_score)
        _record(trial, progress, ledger)
        heartbeat.remove()
        on_saved(folder)
    return ledger.state(spec)


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """The task, dataset, learner and evaluator of a trial."""

    spec: TrialSpec
    task: Task
    dataset: TrajectoryDataset
    device: torch.device
    learner: Learner
    evaluator: Evaluator
    probe: ValueProbe | None  # of a value learner
    opened: str  # time in ISO format
    family: str  # of the algorithm

    @property
    def resumable(self) -> bool:
        """Return whether the learner can continue exactly from its state."""
        return bool(getattr(self.learner, "resumable", True))

    def values(self, step: int) -> dict[str, float]:
        """Return what is known of the learner's values after this step, nothing of one without values."""
        return {} if self.probe is None else self.probe.measure(cast(CriticLearner, self.learner), step)

    def evaluate(self, step: int) -> dict[str, list[Any]]:
        """Return the table of episodes after this step, as lists; the last step includes the sweep of targets."""
        evaluation = self.spec.evaluation
        last = step == self.spec.train_steps
        episodes = self.evaluator.evaluate(self.learner, evaluation.last_targets if last else evaluation.targets)
        return {"step": [step] * len(episodes.returns), **episode_columns(self.task, episodes, self.dataset)}


def open_trial(spec: TrialSpec, *, check_only: bool = False) -> OpenTrial:
    """Open a trial's task and data and build its learner and evaluator.

    With `check_only` the learner gets only the best episode, on the CPU, which shows quickly whether it can be built.
    Raises InvalidDataset where the data are not those of the spec, InvalidAlgorithm where the learner lacks something,
    and any error of building the learner.
    """
    task = registry.make_task(spec.task, spec.task_options)
    if spec.environment and spec.environment != task.environment:
        raise IncompatibleTask(
            f"{spec.task}: its environment changed since the trial was planned. Run the suite again."
        )
    dataset = task.open(spec.open_from or spec.dataset_source)
    if dataset.digest != spec.dataset_digest:
        raise InvalidDataset(
            f"{spec.task}: the data changed since the trial was planned: "
            f"digest {dataset.digest[:12]}, planned {spec.dataset_digest[:12]}. Run the suite again."
        )
    seen = unit_actions(dataset)
    if check_only:
        seen = seen.select([int(seen.returns.argmax())])
    gpu = spec.resources.get("gpu", 0) > 0 and torch.cuda.is_available() and not check_only
    device = torch.device("cuda" if gpu else "cpu")
    algorithm = registry.make_algorithm(spec.algorithm, spec.hyperparameters)
    learner = algorithm.learner(seen, seed=spec.seed, device=device)
    check_learner(learner, spec.algorithm)
    value_probe = None if check_only else probe(algorithm, learner, seen, device)
    scale = action_scale(dataset.action_space, dataset.actions)
    evaluator = trial_evaluator(spec, task, scale=scale, device=device)
    opened = datetime.now(UTC).isoformat(timespec="seconds")
    family = registry.algorithm_family(algorithm)
    return OpenTrial(spec, task, dataset, device, learner, evaluator, value_probe, opened, family)


def trial_evaluator(spec: TrialSpec, task: Task, *, scale: ActionScale | None, device: torch.device) -> Evaluator:
    """Return the evaluator of a trial's learner, whose actions of a Box are mapped by `scale`."""
    return Evaluator(
        make_env=task.make_env,
        seeds=evaluation_seeds(task, spec),
        action_mode=action_mode(spec.evaluation.action_mode),
        action_seed=spec.seed,
        device=device,
        info_keys=task.info_keys,
        target_units=task.target_units,
        action_scale=scale,
    )


@dataclass
class _Progress:
    """The part of a checkpoint besides the learner: everything recorded so far."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)  # one entry an evaluation: column -> list
    seconds: float = 0.0
    evaluated_from: str = ""  # key of the trial that trained the learner, if another one did

    def log(self, metrics: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        if not_finite := [name for name, value in values.items() if not math.isfinite(value)]:
            raise Diverged(f"diverged: {', '.join(not_finite)} is not finite at step {self.step}.")
        self.metrics.append({"step": self.step, **values})

    @property
    def latest_score(self) -> float | None:
        return float(np.mean(self.episodes[-1]["score"])) if self.episodes else None


@contextmanager
def _recorded_failures(spec: TrialSpec, ledger: Ledger, heartbeat: Heartbeat, on_saved: OnSaved) -> Iterator[None]:
    try:
        yield
    except LedgerUnwritable:
        raise
    except FOREIGN as error:
        cause = "crash"
        if isinstance(error, Diverged):
            cause = "diverged"
        elif isinstance(error, MemoryError | torch.OutOfMemoryError):
            cause = "out of memory"
        folder = ledger.record_failure(spec, cause=cause, text=traceback.format_exc(), step=heartbeat.step)
        heartbeat.remove()
        on_saved(folder)


def _trained(trial: OpenTrial, ledger: Ledger) -> _Progress | None:
    """Load the learner of a finished trial that differs in its evaluation alone, if there is one."""
    spec = trial.spec
    folder = ledger.trained_learners(spec.task, spec.seed).get(spec.training) if spec.train_steps else None
    loaded = _restored(trial, folder) if folder else None
    if folder is None or loaded is None or loaded.step != spec.train_steps:
        return None
    earlier = ledger.spec(folder)
    sweeping_alone = replace(earlier.evaluation, sweep=spec.evaluation.sweep) == spec.evaluation
    before_last = [one for one in loaded.episodes if one["step"][0] < loaded.step] if sweeping_alone else []
    before_last.append(trial.evaluate(loaded.step))
    return _Progress(loaded.step, loaded.metrics, before_last, loaded.seconds, evaluated_from=earlier.key)


def _restored(trial: OpenTrial, folder: Path) -> _Progress | None:
    """Load the checkpoint in a trial's directory, if any, into the learner and return its progress."""
    path = folder / "checkpoint.pt"
    if not trial.resumable or not path.exists():
        return None
    try:
        state = read_checkpoint(path)
        trial.learner.load_state_dict(state.pop("learner"))
        return _Progress(**state)
    except Exception as error:
        raise LedgerError(f"cannot continue from {path}: {error}. Delete it to restart the trial.") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's values, on the CPU; raise ValueError where it unpacks to more than fits into memory."""
    with zipfile.ZipFile(path) as archive:
        needed, free = sum(member.file_size for member in archive.infolist()), free_memory()
    if needed > free:
        raise ValueError(f"it needs {needed} bytes of memory, and {free} are free")
    # Random streams live on the CPU whatever the device; learners move their own tensors.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _save(trial: OpenTrial, progress: _Progress, ledger: Ledger) -> None:
    folder = ledger.create(trial.spec)  # it may have been removed since
    write_lines(folder / "metrics.jsonl", progress.metrics)
    write_checkpoint(folder / "checkpoint.pt", {"learner": trial.learner.state_dict(), **vars(progress)})


def write_checkpoint(path: Path, values: Mapping[str, Any]) -> None:
    """Write tensors and plain values for `read_checkpoint`."""
    buffer = BytesIO()
    torch.save(values, buffer)
    write_bytes(path, buffer.getvalue())


def _record(trial: OpenTrial, progress: _Progress, ledger: Ledger) -> None:
    """Write the record of a trained learner; result.json comes last, because it alone means done."""
    spec, learner, folder = trial.spec, trial.learner, ledger.create(trial.spec)
    if not progress.episodes:  # a learner that this trial did not train is evaluated as it is
        progress.episodes.append(trial.evaluate(progress.step))
    frames = [pd.DataFrame(columns) for columns in progress.episodes]
    write_frame(folder / "episodes.parquet", pd.concat(frames, ignore_index=True))
    write_lines(folder / "metrics.jsonl", progress.metrics)
    if not trial.resumable or not (folder / "checkpoint.pt").exists():
        _save(trial, progress, ledger)
    write_json(folder / "provenance.json", provenance(trial.task.facts(), trial.dataset, trial.device, trial.opened))
    if description := _policy_description(trial):
        write_checkpoint(folder / POLICY, description)
    if inspection := trial.task.inspect(learner, trial.dataset) if trial.task.inspect else None:
        write_json(folder / "inspection.json", inspection)
    result = {
        "status": "done",
        "key": spec.key,
        "steps": progress.step,
        "action_mode": spec.evaluation.action_mode if hasattr(learner, "action_logits") else "",
        "return_conditioned": learner.return_conditioned,
        "family": trial.family,
        "context": learner.context,
        "parameters": parameter_count(learner),
        "seconds": round(progress.seconds, 3),
        "episodes": sum(len(columns["score"]) for columns in progress.episodes),
    }
    if progress.evaluated_from:
        result["evaluated_from"] = progress.evaluated_from
    write_json(folder / "result.json", result)
    for earlier in ("error.txt", "failure.json"):
        (folder / earlier).unlink(missing_ok=True)


def _policy_description(trial: OpenTrial) -> dict[str, Any] | None:
    """Return what the learner is built from without its data; None where a learner that is built so acts otherwise."""
    if not trial.resumable:
        return None
    seen, scale = unit_actions(trial.dataset), trial.evaluator.action_scale
    try:
        data = describe(seen)
        algorithm = registry.make_algorithm(trial.spec.algorithm, trial.spec.hyperparameters)
        rebuilt = algorithm.learner(stand_in(data), seed=trial.spec.seed, device=trial.device)
        rebuilt.load_state_dict(trial.learner.state_dict())
        if not act_alike(trial.learner, rebuilt, seen, trial.device):
            return None
    except FOREIGN:  # of a learner that keeps more of its data: it is loaded with them
        return None
    return {
        "data": data,
        "action_space": space_to_json(trial.dataset.action_space),
        "scale": None if scale is None else [torch.from_numpy(bound) for bound in (scale.low, scale.high)],
    }


def evaluation_seeds(task: Task, spec: TrialSpec) -> list[int]:
    """Return the seeds of the trial's evaluation episodes: those of searches are never reported."""
    if spec.evaluation.purpose == "tuning":
        return task.tuning_seeds(spec.evaluation.episodes)
    return task.evaluation_seeds(spec.evaluation.episodes)


def check_learner(learner: Learner, name: str) -> None:
    """Raise InvalidAlgorithm unless the learner has the attributes of `dtbench.algorithm.Learner`."""
    required = ("context", "return_conditioned", "update", "act", "state_dict", "load_state_dict")
    missing = [attribute for attribute in required if not hasattr(learner, attribute)]
    if missing:
        raise InvalidAlgorithm(f"the learner of {name} lacks {', '.join(missing)}: see dtbench.algorithm.Learner.")
    if not isinstance(learner.context, int) or learner.context < 1:
        raise InvalidAlgorithm(f"the learner of {name} has context {learner.context!r}: it must be at least 1.")


def episode_columns(task: Task, episodes: Episodes, dataset: TrajectoryDataset) -> dict[str, list[Any]]:
    """Return the table of episodes as lists: target, episode, seed, return, length, score, the task's columns.

    Tasks with target units have a column more: achieved, the return in these units.
    """
    columns: dict[str, Any] = {
        "target": episodes.targets,
        "episode": episodes.episodes,
        "seed": episodes.seeds,
        "return": episodes.returns,
        "length": episodes.lengths,
        "score": task.score(episodes),
        **({} if episodes.achieved is None else {"achieved": episodes.achieved}),
        **task.columns(episodes, dataset),
    }
    return {name: values.tolist() for name, values in columns.items()}


def parameter_count(learner: Learner) -> int | None:
    """Return the number of parameters of the learner's `network`, None without one."""
    network = getattr(learner, "network", None)
    return sum(p.numel() for p in network.parameters()) if isinstance(network, torch.nn.Module) else None
