"""run_trial: data -> learner -> evaluate -> record, with checkpoints that an interrupted trial continues from."""

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
from dtbench.algorithm import Learner, Metrics
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import InvalidAlgorithm, InvalidDataset, LedgerError, LedgerUnwritable
from dtbench.evaluation import Episodes, Evaluator, action_mode
from dtbench.ledger import lock
from dtbench.ledger.provenance import provenance
from dtbench.ledger.store import Ledger, write_bytes, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.task import Task

LOG_POINTS = 200  # lines of metrics a trial keeps
CHECKPOINT_SECONDS = 60.0  # at most this much learning is lost with a killed process, and one evaluation

Report = Callable[[int, float | None], None]  # (steps done, latest score)
Keep = Callable[[Path], None]  # hears a trial's folder whenever something in it was written to last
Stop = Callable[[], bool]  # whether the trial should write its checkpoint and end


class Diverged(FloatingPointError):
    """A loss that is no number: the same steps would end there again."""


@dataclass
class _Progress:
    """What a checkpoint holds besides the learner: all of the record so far."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)  # one entry an evaluation: column -> list
    seconds: float = 0.0


def run_trial(
    spec: TrialSpec,
    root: Path,
    report: Report | None = None,
    *,
    keep: Keep | None = None,
    stop: Stop | None = None,
    checkpoint_seconds: float | None = None,
) -> str:
    """Run or continue a trial until it is recorded in the ledger at `root`; give done, failed, diverged or stopped.

    Equal specs give equal records on one kind of machine, however often the trial was interrupted: everything
    random is seeded, and a checkpoint holds every random stream. A failure is recorded with its traceback in
    error.txt and not raised; KeyboardInterrupt and SystemExit are raised, and the last checkpoint stays. Where `stop`
    says so between two steps, the checkpoint is written and the trial is "stopped". Raises LedgerUnwritable where the
    ledger cannot be written to, which is no fault of the trial's.
    """
    undertaking = _Undertaking(spec, root, report, keep=keep, checkpoint_seconds=checkpoint_seconds)
    if not undertaking.state:
        finished = False
        with undertaking.guarded():
            finished = undertaking.open().run(stop or go_on)
        undertaking.settle(finished=finished)
    return undertaking.state


class _Undertaking:
    """A trial from the first word of it in its ledger to the last; `state` is empty until its outcome is known."""

    def __init__(
        self,
        spec: TrialSpec,
        root: Path,
        report: Report | None = None,
        *,
        keep: Keep | None = None,
        checkpoint_seconds: float | None = None,
    ) -> None:
        """See `run_trial`."""
        self.spec, self.ledger, self.report, self.keep = spec, Ledger(root), report or _silent, keep or keep_here
        self.checkpoint_seconds = CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds
        self.state = "done" if self.ledger.state(spec) == "done" else ""
        if not self.state:
            self.folder = self.ledger.begin(spec)
            self.attempt = _Attempt(self.folder)
            torch.set_num_threads(max(1, int(spec.resources.get("cpu", 1))))

    def open(self) -> "_Trial":
        """The trial itself, at the step of its checkpoint."""
        return _Trial(
            self.spec,
            self.folder,
            self.report,
            attempt=self.attempt,
            keep=self.keep,
            checkpoint_seconds=self.checkpoint_seconds,
        )

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Record what is raised within as the trial's failure; raise LedgerUnwritable and what is no Exception."""
        try:
            yield
        except LedgerUnwritable:
            raise
        except Exception as error:
            cause = _cause(error)
            self.ledger.fail(self.spec, cause=cause, text=traceback.format_exc(), step=self.attempt.step)
            self.attempt.end()
            self.keep(self.folder)
            self.state = "diverged" if cause == "diverged" else "failed"

    def settle(self, *, finished: bool) -> None:
        """Say that the trial is recorded, or that it was stopped, unless it has failed."""
        if self.state:
            return
        if finished:
            for left in ("error.txt", "failure.json"):
                (self.folder / left).unlink(missing_ok=True)
            self.attempt.end()
        else:
            self.attempt.stop()
        self.keep(self.folder)
        self.state = "done" if finished else "stopped"


def _cause(error: Exception) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    return "out of memory" if isinstance(error, MemoryError | torch.OutOfMemoryError) else "crash"


class _Attempt:
    """The file that tells others who is at work on a trial, and how far it has come."""

    def __init__(self, folder: Path) -> None:
        self.path, self.step = folder / "running.json", 0
        self.facts: dict[str, Any] = lock.this_process()

    def begin(self, step: int) -> None:
        self.facts["from_step"] = step
        self.at(step, None)

    def at(self, step: int, score: float | None) -> None:
        self.step = step
        write_json(self.path, {**self.facts, "step": step, "score": score})

    def stop(self) -> None:
        write_json(self.path, {**self.facts, "step": self.step, "ended": True})

    def end(self) -> None:
        self.path.unlink(missing_ok=True)


class _Trial:
    """One trial at work in its folder."""

    def __init__(
        self,
        spec: TrialSpec,
        folder: Path,
        report: Report,
        *,
        attempt: _Attempt,
        keep: Keep,
        checkpoint_seconds: float,
    ) -> None:
        self.spec, self.folder, self.report = spec, folder, report
        self.attempt, self.keep, self.checkpoint_seconds = attempt, keep, checkpoint_seconds
        self.task = registry.make_task(spec.task, spec.task_options)
        self.dataset = self.task.open(spec.open_from or spec.dataset_source)
        if self.dataset.digest != spec.dataset_digest:
            raise InvalidDataset(
                f"{spec.task}: the data changed since the trial was planned: "
                f"digest {self.dataset.digest[:12]}, planned {spec.dataset_digest[:12]}. Run the suite again."
            )
        self.device = torch.device("cuda" if spec.resources.get("gpu", 0) > 0 and torch.cuda.is_available() else "cpu")
        algorithm = registry.make_algorithm(spec.algorithm, spec.hyperparameters)
        self.learner = algorithm.learner(self.dataset, seed=spec.seed, device=self.device)
        check_learner(self.learner, spec.algorithm)
        self.resumable = bool(getattr(self.learner, "resumable", True))
        self.evaluator = Evaluator(
            make_env=self.task.make_env,
            seeds=evaluation_seeds(self.task, spec),
            action_mode=action_mode(spec.evaluation.action_mode),
            action_seed=spec.seed,
            device=self.device,
            info_keys=self.task.info_keys,
            target_units=self.task.target_units,
            streaming=spec.evaluation.rollout == "streaming",
        )
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.progress = self._restored()

    def run(self, stop: Stop) -> bool:
        """Learn, evaluate and log until the budget is spent, then record; False where `stop` said so before."""
        self._begin()
        while self.progress.step < self.spec.budget:
            if not self._after_step(self.learner.update(), stop):
                return False
        self._record()
        return True

    def _begin(self) -> None:
        """Say that it is at work, and look at the clock."""
        self.attempt.begin(self.progress.step)
        self.clock = self.saved = time.monotonic()
        if self.spec.budget == 0 and not self.progress.episodes:
            self._evaluate()

    def _after_step(self, metrics: Metrics, stop: Stop) -> bool:
        """Do all that is due after a step that gave these metrics; False where `stop` says to end before the last."""
        spec, progress = self.spec, self.progress
        progress.step += 1
        last = progress.step == spec.budget
        if last or progress.step % max(1, math.ceil(spec.budget / LOG_POINTS)) == 0:
            self._log(metrics)
        evaluated = last or progress.step % spec.evaluation.every == 0
        if evaluated:
            self._evaluate()
        now = time.monotonic()
        progress.seconds, self.clock = progress.seconds + now - self.clock, now
        stopping = not last and stop()
        if self.resumable and (evaluated or stopping or now - self.saved > self.checkpoint_seconds):
            self._save()
            self.saved = now
        if not stopping:
            self.report(progress.step, self._latest_score())
        return not stopping

    def _log(self, metrics: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise Diverged(f"diverged: {', '.join(broken)} is not finite at step {self.progress.step}.")
        self.progress.metrics.append({"step": self.progress.step, **values})

    def _evaluate(self) -> None:
        evaluation = self.spec.evaluation
        last = self.progress.step == self.spec.budget
        episodes = self.evaluator.evaluate(self.learner, evaluation.last_targets if last else evaluation.targets)
        columns = episode_columns(self.task, episodes, self.dataset)
        self.progress.episodes.append({"step": [self.progress.step] * len(episodes.returns), **columns})

    def _latest_score(self) -> float | None:
        return float(np.mean(self.progress.episodes[-1]["score"])) if self.progress.episodes else None

    def _save(self) -> None:
        state = {
            "learner": self.learner.state_dict(),
            "step": self.progress.step,
            "metrics": self.progress.metrics,
            "episodes": self.progress.episodes,
            "seconds": self.progress.seconds,
        }
        buffer = BytesIO()
        torch.save(state, buffer)
        write_bytes(self.folder / "checkpoint.pt", buffer.getvalue())
        self.attempt.at(self.progress.step, self._latest_score())
        self.keep(self.folder)

    def _restored(self) -> _Progress:
        path = self.folder / "checkpoint.pt"
        if not self.resumable or not path.exists():
            return _Progress()
        try:
            # Random streams live on the processor whatever the device; learners move their own tensors.
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.learner.load_state_dict(state.pop("learner"))
            return _Progress(**state)
        except Exception as error:
            raise LedgerError(f"{path} cannot be continued: {error}. Delete it to begin the trial anew.") from error

    def _record(self) -> None:
        """Write all that is known; result.json comes last, as it alone means done."""
        progress, spec = self.progress, self.spec
        parts = [pd.DataFrame(columns) for columns in progress.episodes]
        write_frame(self.folder / "episodes.parquet", pd.concat(parts, ignore_index=True))
        write_lines(self.folder / "metrics.jsonl", progress.metrics)
        if not self.resumable or not (self.folder / "checkpoint.pt").exists():
            self._save()
        write_json(
            self.folder / "provenance.json", provenance(self.task.facts(), self.dataset, self.device, self.started)
        )
        if inspection := self.task.inspect(self.learner, self.dataset) if self.task.inspect else None:
            write_json(self.folder / "inspection.json", inspection)
        result = {
            "status": "done",
            "key": spec.key,
            "steps": progress.step,
            "action_mode": spec.evaluation.action_mode if hasattr(self.learner, "action_logits") else "",
            "return_conditioned": self.learner.return_conditioned,
            "context": self.learner.context,
            "parameters": parameter_count(self.learner),
            "seconds": round(progress.seconds, 3),
            "episodes": sum(len(columns["score"]) for columns in progress.episodes),
        }
        write_json(self.folder / "result.json", result)


def evaluation_seeds(task: Task, spec: TrialSpec) -> list[int]:
    """What the trial's episodes are seeded with: those of a search are others than those that are reported on."""
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
    """The table of episodes as plain lists: target, episode, seed, return, length, score, the task's columns.

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


def _silent(step: int, score: float | None) -> None:
    """Report to nobody."""


def keep_here(folder: Path) -> None:
    """The ledger's folder is all there is."""


def go_on() -> bool:
    """Never ask trials to stop."""
    return False
