"""run_trial: train one learner, evaluate and record it; an interrupted trial continues from its checkpoint."""

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dtbench import registry
from dtbench.algorithm import Learner
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import InvalidAlgorithm, InvalidDataset, LedgerError, LedgerUnwritable
from dtbench.evaluation import Episodes, Evaluator, action_mode
from dtbench.ledger import lock
from dtbench.ledger.provenance import provenance
from dtbench.ledger.store import Ledger, write_bytes, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.task import Task

LOG_POINTS = 200  # lines of metrics a trial keeps
CHECKPOINT_SECONDS = 60.0  # at most this much training is lost with a killed process, and one evaluation

OnStep = Callable[[int, float | None], None]  # (gradient steps taken, latest score)
OnSaved = Callable[[Path], None]  # called with the trial's directory whenever something durable was written to it
ShouldStop = Callable[[], bool]


class Diverged(FloatingPointError):
    """A loss is not finite: the same steps would end there again."""


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
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrialState:
    """Train, evaluate and record one trial, from its checkpoint if there is one; return its state in the ledger.

    Equal specs give equal records on one kind of machine, however often the trial was interrupted: everything random
    is seeded, and a checkpoint holds every random stream. An exception is recorded in error.txt, and the trial FAILED
    or DIVERGED; KeyboardInterrupt and SystemExit are raised. Where `should_stop` returns True between two steps, the
    trial writes its checkpoint and is STOPPED. Raises LedgerUnwritable where the ledger cannot be written to.
    """
    if ledger.state(spec) is TrialState.DONE:
        return TrialState.DONE
    folder = ledger.create(spec)
    heartbeat = Heartbeat(folder)
    torch.set_num_threads(max(1, int(spec.resources.get("cpu", 1))))
    with _recorded_failures(spec, ledger, heartbeat, on_saved):
        trial = open_trial(spec)
        progress = _restored(trial, folder)
        heartbeat.start(progress.step)
        clock = saved = time.monotonic()
        for step in range(progress.step + 1, spec.train_steps + 1):
            metrics = trial.learner.update()
            last = step == spec.train_steps
            progress.step = step
            if last or step % math.ceil(spec.train_steps / LOG_POINTS) == 0:
                progress.log(metrics)
            evaluated = last or step % spec.evaluation.every == 0
            if evaluated:
                progress.episodes.append(trial.evaluate(step))
            now = time.monotonic()
            progress.seconds, clock = progress.seconds + now - clock, now
            stopping = not last and should_stop()
            if trial.resumable and (evaluated or stopping or now - saved > checkpoint_seconds):
                _save(trial, progress, folder)
                heartbeat.update(step, progress.latest_score)
                on_saved(folder)
                saved = now
            if stopping:
                heartbeat.stop()
                on_saved(folder)
                return TrialState.STOPPED
            on_progress(step, progress.latest_score)
        _record(trial, progress, folder)
        heartbeat.remove()
        on_saved(folder)
    return ledger.state(spec)


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """What a spec names, opened: everything that a trial needs and nothing that it has done."""

    spec: TrialSpec
    task: Task
    dataset: TrajectoryDataset
    device: torch.device
    learner: Learner
    evaluator: Evaluator
    opened: str  # when, in ISO format

    @property
    def resumable(self) -> bool:
        """Whether the learner's state holds all that it needs to continue."""
        return bool(getattr(self.learner, "resumable", True))

    def evaluate(self, step: int) -> dict[str, list[Any]]:
        """Return the table of episodes after this step, as lists; the last step also has the targets of the sweep."""
        evaluation = self.spec.evaluation
        last = step == self.spec.train_steps
        episodes = self.evaluator.evaluate(self.learner, evaluation.last_targets if last else evaluation.targets)
        return {"step": [step] * len(episodes.returns), **episode_columns(self.task, episodes, self.dataset)}


def open_trial(spec: TrialSpec, *, check_only: bool = False) -> OpenTrial:
    """Open a trial's task and data and build its learner and evaluator.

    With `check_only` the learner gets the best episode alone, on the CPU: whether it can be built shows at once.
    Raises InvalidDataset where the data are not those of the spec, InvalidAlgorithm where the learner lacks something,
    and whatever building the learner raises.
    """
    task = registry.make_task(spec.task, spec.task_options)
    dataset = task.open(spec.open_from or spec.dataset_source)
    if dataset.digest != spec.dataset_digest:
        raise InvalidDataset(
            f"{spec.task}: the data changed since the trial was planned: "
            f"digest {dataset.digest[:12]}, planned {spec.dataset_digest[:12]}. Run the suite again."
        )
    if check_only:
        dataset = dataset.select([int(dataset.returns.argmax())])
    gpu = spec.resources.get("gpu", 0) > 0 and torch.cuda.is_available() and not check_only
    device = torch.device("cuda" if gpu else "cpu")
    learner = registry.make_algorithm(spec.algorithm, spec.hyperparameters).learner(
        dataset, seed=spec.seed, device=device
    )
    check_learner(learner, spec.algorithm)
    evaluator = Evaluator(
        make_env=task.make_env,
        seeds=evaluation_seeds(task, spec),
        action_mode=action_mode(spec.evaluation.action_mode),
        action_seed=spec.seed,
        device=device,
        info_keys=task.info_keys,
        target_units=task.target_units,
    )
    opened = datetime.now(UTC).isoformat(timespec="seconds")
    return OpenTrial(spec, task, dataset, device, learner, evaluator, opened)


class Heartbeat:
    """The file running.json, which says who is at work on a trial and how far it has come."""

    def __init__(self, folder: Path) -> None:
        """Write nothing yet."""
        self.path, self.step = folder / "running.json", 0
        self.process: dict[str, Any] = lock.this_process()

    def start(self, step: int) -> None:
        """Write that this process goes on from `step`."""
        self.process["from_step"] = step
        self.update(step, None)

    def update(self, step: int, score: float | None) -> None:
        """Write how far the trial has come."""
        self.step = step
        write_json(self.path, {**self.process, "step": step, "score": score})

    def stop(self) -> None:
        """Write that this process has ended before the trial did."""
        write_json(self.path, {**self.process, "step": self.step, "ended": True})

    def remove(self) -> None:
        """Remove the file: the trial has ended."""
        self.path.unlink(missing_ok=True)


@dataclass
class _Progress:
    """What a checkpoint holds besides the learner: everything recorded so far."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)  # one entry an evaluation: column -> list
    seconds: float = 0.0

    def log(self, metrics: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        if broken := [name for name, value in values.items() if not math.isfinite(value)]:
            raise Diverged(f"diverged: {', '.join(broken)} is not finite at step {self.step}.")
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
    except Exception as error:
        cause = "crash"
        if isinstance(error, Diverged):
            cause = "diverged"
        elif isinstance(error, MemoryError | torch.OutOfMemoryError):
            cause = "out of memory"
        folder = ledger.record_failure(spec, cause=cause, text=traceback.format_exc(), step=heartbeat.step)
        heartbeat.remove()
        on_saved(folder)


def _restored(trial: OpenTrial, folder: Path) -> _Progress:
    """Load the trial's checkpoint into its learner, if there is one, and return what it had recorded."""
    path = folder / "checkpoint.pt"
    if not trial.resumable or not path.exists():
        return _Progress()
    try:
        # Random streams live on the CPU whatever the device; learners move their own tensors.
        state = torch.load(path, map_location="cpu", weights_only=True)
        trial.learner.load_state_dict(state.pop("learner"))
        return _Progress(**state)
    except Exception as error:
        raise LedgerError(f"{path} cannot be continued: {error}. Delete it to begin the trial again.") from error


def _save(trial: OpenTrial, progress: _Progress, folder: Path) -> None:
    buffer = BytesIO()
    torch.save({"learner": trial.learner.state_dict(), **vars(progress)}, buffer)
    write_bytes(folder / "checkpoint.pt", buffer.getvalue())


def _record(trial: OpenTrial, progress: _Progress, folder: Path) -> None:
    """Write the record of a trained learner; result.json comes last, as it alone means done."""
    spec, learner = trial.spec, trial.learner
    if not progress.episodes:  # a learner without training steps is evaluated as it is
        progress.episodes.append(trial.evaluate(0))
    frames = [pd.DataFrame(columns) for columns in progress.episodes]
    write_frame(folder / "episodes.parquet", pd.concat(frames, ignore_index=True))
    write_lines(folder / "metrics.jsonl", progress.metrics)
    if not trial.resumable or not (folder / "checkpoint.pt").exists():
        _save(trial, progress, folder)
    write_json(folder / "provenance.json", provenance(trial.task.facts(), trial.dataset, trial.device, trial.opened))
    if inspection := trial.task.inspect(learner, trial.dataset) if trial.task.inspect else None:
        write_json(folder / "inspection.json", inspection)
    result = {
        "status": "done",
        "key": spec.key,
        "steps": progress.step,
        "action_mode": spec.evaluation.action_mode if hasattr(learner, "action_logits") else "",
        "return_conditioned": learner.return_conditioned,
        "context": learner.context,
        "parameters": parameter_count(learner),
        "seconds": round(progress.seconds, 3),
        "episodes": sum(len(columns["score"]) for columns in progress.episodes),
    }
    write_json(folder / "result.json", result)
    for earlier in ("error.txt", "failure.json"):
        (folder / earlier).unlink(missing_ok=True)


def evaluation_seeds(task: Task, spec: TrialSpec) -> list[int]:
    """Return the seeds of the trial's episodes: a search has others than those that are reported on."""
    if spec.evaluation.purpose == "tuning":
        return task.tuning_seeds(spec.evaluation.episodes)
    return task.evaluation_seeds(spec.evaluation.episodes)


def check_learner(learner: Learner, name: str) -> None:
    """Raise InvalidAlgorithm unless the learner has what `dtbench.algorithm.Learner` asks for."""
    wanted = ("context", "return_conditioned", "update", "act", "state_dict", "load_state_dict")
    missing = [attribute for attribute in wanted if not hasattr(learner, attribute)]
    if missing:
        raise InvalidAlgorithm(f"the learner of {name} lacks {', '.join(missing)}: see dtbench.algorithm.Learner.")
    if not isinstance(learner.context, int) or learner.context < 1:
        raise InvalidAlgorithm(f"the learner of {name} has context {learner.context!r}: it must be 1 or more.")


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
    """Trainable numbers of the learner's `network`, or None where it has none of that name."""
    network = getattr(learner, "network", None)
    return sum(p.numel() for p in network.parameters()) if isinstance(network, torch.nn.Module) else None
