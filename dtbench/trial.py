"""run_trial: data -> learner -> evaluate -> record, with checkpoints that an interrupted trial continues from."""

import importlib.metadata
import math
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping
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
from dtbench.data.trajectories import TrajectoryDataset, statistics_card
from dtbench.errors import InvalidAlgorithm, InvalidDataset, LedgerError
from dtbench.evaluation import Episodes, Evaluator, action_mode
from dtbench.ledger import Ledger, write_bytes, write_frame, write_json, write_lines
from dtbench.spec import TrialSpec
from dtbench.task import Task

LOG_POINTS = 200  # lines of metrics a trial keeps
CHECKPOINT_SECONDS = 60.0  # at most this much work is lost with a killed process
PACKAGES = ("dtbench", "torch", "numpy", "gymnasium", "ray", "pandas", "pyarrow")

Report = Callable[[int, float | None], None]  # (steps done, latest score)


@dataclass
class _Progress:
    """What a checkpoint holds besides the learner: all of the record so far."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)  # one entry an evaluation: column -> list
    seconds: float = 0.0


def run_trial(spec: TrialSpec, root: Path, report: Report | None = None) -> str:
    """Run or continue a trial until it is recorded in the ledger at `root`; give its state, done or failed.

    Equal specs give equal records on one kind of machine, however often the trial was interrupted: everything
    random is seeded, and a checkpoint holds every random stream. A failure is recorded with its traceback in
    error.txt and not raised; KeyboardInterrupt and SystemExit are raised, and the last checkpoint stays.
    """
    ledger = Ledger(root)
    if ledger.state(spec) == "done":
        return "done"
    folder = ledger.begin(spec)
    torch.set_num_threads(max(1, int(spec.resources.get("cpu", 1))))
    try:
        _Trial(spec, folder, report or _silent).run()
    except Exception:
        write_bytes(folder / "error.txt", traceback.format_exc().encode())
        return "failed"
    (folder / "error.txt").unlink(missing_ok=True)
    return "done"


class _Trial:
    """One trial at work in its folder."""

    def __init__(self, spec: TrialSpec, folder: Path, report: Report) -> None:
        self.spec, self.folder, self.report = spec, folder, report
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
        self.evaluator = Evaluator(
            make_env=self.task.make_env,
            seeds=self.task.evaluation_seeds(spec.evaluation.episodes),
            action_mode=action_mode(spec.evaluation.action_mode),
            action_seed=spec.seed,
            device=self.device,
            info_keys=self.task.info_keys,
            target_units=self.task.target_units,
        )
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.progress = self._restored()

    def run(self) -> None:
        """Learn, evaluate and log until the budget is spent, then record."""
        spec, progress = self.spec, self.progress
        log_every = max(1, math.ceil(spec.budget / LOG_POINTS))
        clock = saved = time.monotonic()
        if spec.budget == 0 and not progress.episodes:
            self._evaluate()
        while progress.step < spec.budget:
            metrics = self.learner.update()
            progress.step += 1
            last = progress.step == spec.budget
            if last or progress.step % log_every == 0:
                self._log(metrics)
            evaluated = last or progress.step % spec.evaluation.every == 0
            if evaluated:
                self._evaluate()
            now = time.monotonic()
            progress.seconds, clock = progress.seconds + now - clock, now
            if evaluated or now - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = now
            self.report(progress.step, self._latest_score())
        self._record()

    def _log(self, metrics: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"diverged: {', '.join(broken)} is not finite at step {self.progress.step}.")
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

    def _restored(self) -> _Progress:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
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
        if not (self.folder / "checkpoint.pt").exists():
            self._save()
        write_json(self.folder / "provenance.json", provenance(self.task, self.dataset, self.device, self.started))
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


def provenance(task: Task, dataset: TrajectoryDataset, device: torch.device, started: str) -> dict[str, Any]:
    """Where a result comes from: code, versions, machine, data."""
    return {
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "task": {
            "name": task.name,
            "domain": task.domain,
            "version": task.version,
            "description": task.description,
            "score_name": task.score_name,
            **({"target_units": task.target_units.name} if task.target_units else {}),
        },
        "dataset": {
            "source": dataset.info.get("source", "unknown"),
            "digest": dataset.digest,
            "info": dict(dataset.info),
            "card": statistics_card(dataset),
        },
    }


def parameter_count(learner: Learner) -> int | None:
    """Trainable numbers of the learner's `network`, or None where it has none of that name."""
    network = getattr(learner, "network", None)
    return sum(p.numel() for p in network.parameters()) if isinstance(network, torch.nn.Module) else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the checkout that dtbench runs from, with `+` where it was changed; None outside of one."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        inside = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and inside.returncode == 0 else None


def _silent(step: int, score: float | None) -> None:
    """Report to nobody."""
