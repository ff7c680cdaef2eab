"""The ledger: one folder a trial, raw returns, atomic writes; `result.json` alone means done."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.data.files import atomic_path
from dtbench.errors import DAMAGED, LedgerError, LedgerUnwritable
from dtbench.ledger.names import with_current_action_mode
from dtbench.ledger.schema import check_file_name, check_labels, check_provenance, check_result, check_suite
from dtbench.ledger.trial_spec import TrialSpec, TrialState

EPISODES = "episodes.parquet"
WORKER_FAILURES = "worker_failures.jsonl"
ROOM = 32 * 2**20  # bytes that must be free before anything runs
MOST_FAILURES = 3  # a trial that failed so often is left alone, unless it is asked for again


def check_disk(results: Path) -> None:
    """Raise LedgerError where a results folder has no room left for what trials write."""
    existing = next(folder for folder in (results.absolute(), *results.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < ROOM:
        raise LedgerError(
            f"{results} has {free / 2**20:.1f} MiB left of which trials need {ROOM / 2**20:.0f}. "
            "Make room, or say --results FOLDER."
        )


def no_frame() -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame()


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A finished trial, as its folder or an archive tells it; tables are read when they are asked for."""

    spec: TrialSpec
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]
    episodes: Callable[[], pd.DataFrame] = (
        no_frame  # step, target, episode, seed, return, length, score, the task's own
    )
    metrics: Callable[[], pd.DataFrame] = no_frame  # what was logged while learning: step and one column a metric
    inspection: Callable[[], Mapping[str, Any]] = field(default=dict)  # what the task's `inspect` found in the learner

    def relabelled(self, spec: TrialSpec) -> "TrialRecord":
        """The same record under the labels (suite, contender) of `spec`."""
        own = self.spec.labelled(suite=spec.suite, contender=spec.contender)
        return TrialRecord(own, self.result, self.provenance, self.episodes, self.metrics, self.inspection)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A trial that was planned and has no result."""

    spec: TrialSpec
    state: TrialState  # not DONE
    error: str = ""  # the traceback of one that failed or diverged
    cause: str = ""  # of its failure, where that is known


class Ledger:
    """All trials below one folder, e.g. results/runs."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which need not exist yet."""
        self.root = Path(root)

    def folder(self, spec: TrialSpec) -> Path:
        """Where the trial lives: found by its key alone, so that renaming a contender loses nothing."""
        parent = self.root / _slug(spec.task)
        found = sorted(parent.glob(f"*-{spec.key}"))
        return found[0] if found else parent / f"{_slug(spec.contender)}-seed{spec.seed}-{spec.key}"

    def folders(self) -> dict[str, Path]:
        """The folders of all trials by key: to look many up without searching for each."""
        return {path.name.rpartition("-")[2]: path for path in sorted(self.root.glob("*/*-*"))}

    def state(self, spec: TrialSpec, folder: Path | None = None) -> TrialState:
        """Return DONE, DIVERGED, FAILED, INTERRUPTED (a checkpoint waits) or MISSING.

        `folder` is the trial's, where it has been looked up already.
        """
        folder = folder or self.folder(spec)
        if (folder / "result.json").exists():
            return TrialState.DONE
        if (folder / "error.txt").exists():
            diverged = self.failure(spec, folder).get("cause") == TrialState.DIVERGED
            return TrialState.DIVERGED if diverged else TrialState.FAILED
        return TrialState.INTERRUPTED if (folder / "checkpoint.pt").exists() else TrialState.MISSING

    def failure(self, spec: TrialSpec, folder: Path | None = None) -> Mapping[str, Any]:
        """How a trial failed last: cause, message, step, and how many times by now; {} where nothing is known."""
        path = (folder or self.folder(spec)) / "failure.json"
        found = _read_mapping(path) if path.exists() else {}
        if not isinstance(found.get("times", 1), int):
            raise LedgerError(_unreadable(path, "it does not say how many times"))
        return found

    def waiting(self, spec: TrialSpec, *, again: bool = False) -> bool:
        """Whether a run should run the trial.

        One that diverged or failed MOST_FAILURES times is left alone, unless it is asked for `again`.
        """
        state = self.state(spec)
        if state is TrialState.DONE or again:
            return state is not TrialState.DONE
        if state is TrialState.FAILED:
            return int(self.failure(spec).get("times", 1)) < MOST_FAILURES
        return state is not TrialState.DIVERGED

    def spec(self, folder: Path) -> TrialSpec:
        """What a trial's folder says that it is; raise LedgerError where that cannot be read."""
        return _read_spec(folder)

    def record(self, spec: TrialSpec) -> TrialRecord | None:
        """The finished trial, or None; labels (suite, contender) are those of `spec`."""
        folder = self.folder(spec)
        return _record(folder).relabelled(spec) if (folder / "result.json").exists() else None

    def records(self) -> Iterator[TrialRecord]:
        """Every finished trial, under the labels that it first ran with."""
        for path in sorted(self.root.glob("*/*/result.json")):
            yield _record(path.parent)

    def records_of(self, task: str) -> list[TrialRecord]:
        """Every finished trial of a task, by seed."""
        found = [_record(path.parent) for path in sorted((self.root / _slug(task)).glob("*/result.json"))]
        return sorted((record for record in found if record.spec.task == task), key=lambda record: record.spec.seed)

    def siblings(self, spec: TrialSpec) -> list[TrialRecord]:
        """Finished trials that differ from `spec` in nothing but the seed, by seed; labels are those of `spec`."""
        return [found.relabelled(spec) for found in self.records_of(spec.task) if found.spec.cell == spec.cell]

    def unfinished(self, spec: TrialSpec, folder: Path | None = None) -> Unfinished:
        """How far a trial without a result has come; `folder` as in `state`."""
        folder = folder or self.folder(spec)
        state = self.state(spec, folder)
        if state not in (TrialState.FAILED, TrialState.DIVERGED):
            return Unfinished(spec, state)
        error = (folder / "error.txt").read_text(errors="replace")
        return Unfinished(spec, state, error, str(self.failure(spec, folder).get("cause", "")))

    def begin(self, spec: TrialSpec) -> Path:
        """Make the trial's folder and write its spec; raise LedgerError where that cannot be done."""
        folder = self.folder(spec)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.tmp"):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
        except OSError as error:
            raise LedgerUnwritable(
                f"cannot write to the ledger {self.root}: {error}. Say --results FOLDER."
            ) from error
        write_json(folder / "spec.json", spec.to_json())
        return folder

    def fail(self, spec: TrialSpec, *, cause: str, text: str, step: int = 0) -> Path:
        """Record why a trial has no result, `text` being a traceback or what else is known; give its folder."""
        folder = self.begin(spec)
        times = int(self.failure(spec, folder).get("times", 0)) + 1
        message = next((line for line in reversed(text.splitlines()) if line.strip()), cause)
        failure = {"cause": cause, "message": message[:500], "step": step, "times": times}
        write_json(folder / "failure.json", failure)
        write_bytes(folder / "error.txt", text.encode(errors="replace"))
        return folder

    def worker_failures(self, spec: TrialSpec) -> list[Mapping[str, Any]]:
        """Return the failures of a trial's workers, the latest last: cause, detail, when, run; without a torn line."""
        path = self.folder(spec) / WORKER_FAILURES
        found = []
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [failure for failure in found if isinstance(failure, dict)]

    def add_worker_failure(self, spec: TrialSpec, failure: Mapping[str, Any]) -> Path:
        """Record the failure of a trial's worker; return the file."""
        failures = self.worker_failures(spec)
        path = self.begin(spec) / WORKER_FAILURES
        write_lines(path, [*failures, failure])
        return path

    def remember_suite(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep the definition of a suite as it last ran, for `dtbench report`; give what is now kept.

        Trials planned earlier under the same preset and overrides stay part of it as far as their seeds do, so that
        running a single contender or task does not narrow the report.
        """
        path = self.root / "suites" / f"{_slug(document['name'])}.json"
        earlier = read_suite(path) if path.exists() else {}
        if earlier and earlier.get("name") != document["name"]:
            raise LedgerError(f"{path} is of suite {earlier.get('name')!r}: rename it or {document['name']!r}.")
        trials = {trial["key"]: trial for trial in document["trials"]}
        if all(earlier.get(key) == document[key] for key in ("preset", "overrides", "contenders", "evaluation")):
            kept = [trial for trial in earlier["trials"] if trial["seed"] in document["seeds"]]
            trials = {trial["key"]: trial for trial in kept} | trials
        whole = {**document, "trials": list(trials.values())}
        write_json(path, whole, sort_keys=False)  # contenders keep the order of their table
        return whole

    def remembered_suites(self) -> dict[str, Mapping[str, Any]]:
        """The definitions kept by `remember_suite`, by name."""
        return {path.stem: read_suite(path) for path in sorted((self.root / "suites").glob("*.json"))}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all; LedgerUnwritable where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LedgerUnwritable(f"cannot write {path}: {reason}. {_MEND}") from error


_MEND = "What was there before is kept: make room, or mend the folder, and say the same command again."


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write JSON atomically."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=sort_keys) + "\n").encode())


def write_frame(path: Path, rows: pd.DataFrame) -> None:
    """Write a table as Parquet atomically."""
    buffer = BytesIO()
    rows.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_bytes(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())


def read_suite(path: Path) -> Mapping[str, Any]:
    """The definition of a suite as `remember_suite` kept it; raise LedgerError, naming the file, for anything else."""
    found = _read_mapping(path)
    try:
        check_suite(found)
        check_file_name(found["name"])
        for trial in found["trials"]:
            TrialSpec.from_json(trial)
    except DAMAGED as error:
        why = f"{type(error).__name__} {error}"
        raise LedgerError(f"cannot read {path}: {why}. Delete it and run the suite again: its trials stay.") from error
    return found


def _record(folder: Path) -> TrialRecord:
    return TrialRecord(
        _read_spec(folder),
        with_current_action_mode(_checked(folder / "result.json", check_result)),
        _checked(folder / "provenance.json", check_provenance),
        partial(read_episodes, folder / EPISODES),
        partial(_read_metrics, folder / "metrics.jsonl"),
        partial(_read_inspection, folder / "inspection.json"),
    )


def read_episodes(path: Path) -> pd.DataFrame:
    """The table of a trial's episodes; raise LedgerError where it cannot be read, or lacks what all of them have."""
    try:
        rows = pd.read_parquet(path)
    except DAMAGED as error:
        raise LedgerError(_unreadable(path, error)) from error
    lacking = sorted({"step", "target", "episode", "return", "length", "score"} - {*rows.columns})
    if lacking:
        raise LedgerError(_unreadable(path, f"it has no column {', '.join(lacking)}"))
    return rows


def _read_metrics(path: Path) -> pd.DataFrame:
    try:
        rows = [{**json.loads(line)} for line in path.read_text().splitlines()]
        for value in (value for row in rows for value in row.values()):
            if not isinstance(value, int | float | None):
                raise TypeError(f"{value!r:.40} is no number")
        return pd.DataFrame(rows)
    except DAMAGED as error:
        raise LedgerError(_unreadable(path, error)) from error


def _read_inspection(path: Path) -> Mapping[str, Any]:
    return _read_mapping(path) if path.exists() else {}


def _read_spec(folder: Path) -> TrialSpec:
    """The spec in a trial's folder; LedgerError where it is not the one that the folder is named after."""
    path = folder / "spec.json"
    try:
        spec = TrialSpec.from_json(_read_mapping(path))
        key = spec.key
        check_labels(spec)
    except DAMAGED as error:
        raise LedgerError(_unreadable(path, error)) from error
    if folder.name.rpartition("-")[2] != key:
        raise LedgerError(_unreadable(path, f"it has the key {key}, and lies in a folder of another"))
    return spec


def _checked(path: Path, check: Callable[[Mapping[str, Any]], None]) -> Mapping[str, Any]:
    found = _read_mapping(path)
    try:
        check(found)
    except TypeError as error:
        raise LedgerError(_unreadable(path, error)) from error
    return found


def _read_mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except DAMAGED as error:
        raise LedgerError(_unreadable(path, error)) from error
    if not isinstance(found, dict):
        raise LedgerError(_unreadable(path, f"it holds {found!r:.40}, not a mapping"))
    return found


def _unreadable(path: Path, error: Exception | str) -> str:
    return f"cannot read {path}: {error}. Delete that trial's folder and run the suite again."


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+%=-]+", "-", name).strip("-")[:80]  # file systems end names at 255 bytes


# What dtbench writes into a trial's folder, in an order in which it may be copied: result.json alone means done.
FILES = (
    "spec.json",
    "checkpoint.pt",
    WORKER_FAILURES,
    "failure.json",
    "error.txt",
    "running.json",
    "metrics.jsonl",
    "episodes.parquet",
    "provenance.json",
    "inspection.json",
    "result.json",
)


def trial_folders(runs: Path) -> list[Path]:
    """The folders that hold a trial's spec or result, in a fixed order; locks and scratch folders are none."""
    try:
        tasks = sorted(path for path in runs.iterdir() if not path.name.startswith(".") and path.is_dir())
        found = [path for task in tasks for path in sorted(task.iterdir()) if path.is_dir()]
        return [path for path in found if any((path / name).exists() for name in ("spec.json", "result.json"))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {runs}: {error.strerror or error}.") from error


def checked_spec(folder: Path) -> TrialSpec:
    """What the folder's spec.json says; raise LedgerError where it cannot be read or is of another trial.

    A trial's key is the hash of its spec, ends its folder's name, and nothing else may lie there under that name.
    """
    try:
        spec = Ledger(folder.parent.parent).spec(folder)
        wanted = Ledger(Path("/")).folder(spec)
        key, path = spec.key, folder / "spec.json"
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = f"{type(error).__name__} {error}"
        raise LedgerError(f"cannot read {folder / 'spec.json'}: {text}. Delete that trial's folder.") from error
    if folder.name.rpartition("-")[2] != key:
        raise LedgerError(f"{path} is of trial {key}, and its folder's name is of another. Delete that folder.")
    if folder.parent.name != wanted.parent.name:
        raise LedgerError(f"{path} is of task {spec.task!r}, and lies among those of another. Delete that folder.")
    return spec


def name_of_trial(spec: TrialSpec) -> str:
    """How a trial is called in a line of text."""
    return f"{spec.task} {spec.contender} seed {spec.seed} ({spec.key})"


def number(facts: Mapping[str, object], name: str) -> int:
    """A whole number that a file tells, 0 where it tells none."""
    found = facts.get(name)
    return int(found) if isinstance(found, int | float) and found == found and abs(found) < 1e15 else 0


DIVERGED = TrialState.DIVERGED
