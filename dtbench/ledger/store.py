"""The ledger: one directory a trial, raw returns, atomic writes; `result.json` alone means done."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel

from dtbench.data.files import atomic_path
from dtbench.errors import LedgerError, LedgerUnwritable
from dtbench.ledger import schema
from dtbench.ledger.names import with_current_action_mode
from dtbench.ledger.plans import with_earlier
from dtbench.ledger.tables import check_columns, read_episodes, read_metrics
from dtbench.ledger.trial_spec import TrialSpec, TrialState

M = TypeVar("M", bound=BaseModel)

EPISODES = "episodes.parquet"
WORKER_FAILURES = "worker_failures.jsonl"
ROOM = 32 * 2**20  # bytes that must be free before anything runs
MOST_FAILURES = 3  # after which a trial runs again only with --retry-failed


def check_disk(results: Path) -> None:
    """Raise LedgerError where the disk of a results directory is full."""
    existing = next(folder for folder in (results.absolute(), *results.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < ROOM:
        raise LedgerError(
            f"{results} has {free / 2**20:.1f} MiB left, and trials need {ROOM / 2**20:.0f}. "
            "Free some space, or use --results DIRECTORY."
        )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A finished trial from a ledger or an archive; its tables are read when called for."""

    spec: TrialSpec
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]
    episodes: Callable[[], pd.DataFrame] = pd.DataFrame  # step, target, episode, seed, return, length, score, ...
    metrics: Callable[[], pd.DataFrame] = pd.DataFrame  # logged while training: step and one column a metric
    inspection: Callable[[], Mapping[str, Any]] = field(default=dict)  # of the learner, by the task's `inspect`

    def relabelled(self, spec: TrialSpec) -> "TrialRecord":
        """Return the record under the labels (suite, contender) of `spec`."""
        return replace(self, spec=self.spec.labelled(suite=spec.suite, contender=spec.contender))


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A planned trial without a result."""

    spec: TrialSpec
    state: TrialState  # not DONE
    error: str = ""  # traceback, if it failed or diverged
    cause: str = ""


class Ledger:
    """All trials below one directory, e.g. results/runs."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which need not exist yet."""
        self.root = Path(root)

    def folder(self, spec: TrialSpec) -> Path:
        """Return the trial's directory, found by its key alone: contenders can be renamed."""
        parent = self.root / slug(spec.task)
        existing = sorted(parent.glob(f"*-{spec.key}"))
        return existing[0] if existing else parent / f"{slug(spec.contender)}-seed{spec.seed}-{spec.key}"

    def folders(self) -> dict[str, Path]:
        """Return the directories of all trials by key."""
        return {_key_of(path): path for path in self.trial_folders()}

    def trial_folders(self) -> list[Path]:
        """Return the directories that hold a trial's spec or result, sorted."""
        try:
            tasks = [path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
            folders = [path for task in tasks for path in task.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LedgerError(f"cannot read the ledger {self.root}: {error.strerror or error}.") from error
        return sorted(f for f in folders if (f / "spec.json").exists() or (f / "result.json").exists())

    def problems(self) -> dict[Path, str]:
        """Return errors by trial directory: a file that cannot be read, or a trial that exists twice."""
        errors: dict[Path, str] = {}
        valid: dict[str, Path] = {}
        for folder in self.trial_folders():
            try:
                self._check(folder)
            except LedgerError as error:
                errors[folder] = str(error)
                continue
            first = valid.setdefault(_key_of(folder), folder)
            if first != folder:
                errors[folder] = f"{folder} holds the same trial as {first}. Compare them, and delete one."
        return errors

    def state(self, spec: TrialSpec, folder: Path | None = None) -> TrialState:
        """Return DONE, DIVERGED, FAILED, DAMAGED, INTERRUPTED (it has a checkpoint) or MISSING.

        `folder` saves a search. DAMAGED is a failure that cannot be read; results are read by `read_records`.
        """
        folder = folder or self.folder(spec)
        if (folder / "result.json").exists():
            return TrialState.DONE
        if (folder / "error.txt").exists():
            try:
                diverged = self.failure(spec, folder).cause == TrialState.DIVERGED
            except LedgerError:
                return TrialState.DAMAGED
            return TrialState.DIVERGED if diverged else TrialState.FAILED
        return TrialState.INTERRUPTED if (folder / "checkpoint.pt").exists() else TrialState.MISSING

    def failure(self, spec: TrialSpec, folder: Path | None = None) -> schema.Failure:
        """Return the last failure of a trial and the number of failures; 0 times without one."""
        return _read_if_there((folder or self.folder(spec)) / "failure.json", schema.Failure) or schema.Failure(
            times=0
        )

    def should_run(self, spec: TrialSpec, *, retry_failed: bool = False) -> bool:
        """Return whether to run the trial; with `retry_failed` also if it diverged or failed MOST_FAILURES times."""
        state = self.state(spec)
        if state in (TrialState.DONE, TrialState.DAMAGED) or retry_failed:
            return state not in (TrialState.DONE, TrialState.DAMAGED)
        if state is TrialState.FAILED:
            return self.failure(spec).times < MOST_FAILURES
        return state is not TrialState.DIVERGED

    def spec(self, folder: Path) -> TrialSpec:
        """Return the spec in a trial's directory; raise LedgerError where it cannot be read or belongs elsewhere."""
        path = folder / "spec.json"
        try:
            spec = schema.parse_spec(json.loads(schema.regular(path).read_text(encoding="utf-8")))
            if _key_of(folder) != spec.key:
                raise ValueError(f"its key {spec.key} is not that of its directory")
            if folder.parent.name != slug(spec.task):
                raise ValueError(f"its task {spec.task!r} is not that of its directory")
        except (OSError, ValueError, RecursionError) as error:
            raise schema.unreadable(path, error) from error
        return spec

    def record(self, spec: TrialSpec) -> TrialRecord | None:
        """Return the finished trial under the labels of `spec`, or None."""
        folder = self.folder(spec)
        return self._record(folder).relabelled(spec) if (folder / "result.json").exists() else None

    def records(self) -> Iterator[TrialRecord]:
        """Yield every finished trial, under the labels of its first run."""
        for path in sorted(self.root.glob("*/*/result.json")):
            yield self._record(path.parent)

    def read_records(self, task: str, *, whole: bool = True) -> tuple[list[TrialRecord], dict[str, str]]:
        """Return the finished trials of a task, sorted by seed, and by key the errors of those that are damaged.

        `whole` also checks metrics and inspections.
        """
        records, damaged = [], {}
        for path in sorted((self.root / slug(task)).glob("*/result.json")):
            try:
                record = self._record(path.parent)
                records.append(_loaded(record) if whole else record)
            except LedgerError as error:
                damaged[_key_of(path.parent)] = str(error)
        of_task = (record for record in records if record.spec.task == task)
        return sorted(of_task, key=lambda record: record.spec.seed), damaged

    def same_config(self, spec: TrialSpec) -> list[TrialRecord]:
        """Return the undamaged finished trials of all seeds of a configuration, sorted by seed."""
        records, _ = self.read_records(spec.task, whole=False)
        return [record.relabelled(spec) for record in records if record.spec.cell == spec.cell]

    def unfinished(self, spec: TrialSpec, folder: Path | None = None) -> Unfinished:
        """Return the state of a trial without a result, and why it failed; `folder` saves a search."""
        folder = folder or self.folder(spec)
        state = self.state(spec, folder)
        if state not in (TrialState.FAILED, TrialState.DIVERGED, TrialState.DAMAGED):
            return Unfinished(spec, state)
        try:
            return Unfinished(spec, state, schema.read_text(folder / "error.txt"), self.failure(spec, folder).cause)
        except LedgerError as error:
            return Unfinished(spec, TrialState.DAMAGED, str(error))

    def trained_learners(self, task: str, seed: int | str = "*") -> dict[str, Path]:
        """Return the directories of a task's finished trials that have a checkpoint, by `TrialSpec.training`."""
        found = {}
        for path in sorted((self.root / slug(task)).glob(f"*-seed{seed}-*/result.json")):
            with contextlib.suppress(LedgerError):
                if (path.parent / "checkpoint.pt").is_file():
                    found[self.spec(path.parent).training] = path.parent
        return found

    def create(self, spec: TrialSpec) -> Path:
        """Make the trial's directory and write its spec; raise LedgerError where that cannot be done."""
        folder = self.folder(spec)
        for directory in (folder, folder.parent):
            if directory.is_symlink():
                raise LedgerUnwritable(f"{directory} is a link, and no trial is written through one. Remove it.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
        except OSError as error:
            raise LedgerUnwritable(
                f"cannot write to the ledger {self.root}: {error}. Use --results DIRECTORY."
            ) from error
        write_json(folder / "spec.json", spec.to_json())
        return folder

    def record_failure(self, spec: TrialSpec, *, cause: str, text: str, step: int = 0) -> Path:
        """Record why a trial has no result (`text`: its traceback or an explanation); return its directory."""
        folder, times = self.create(spec), 1
        with contextlib.suppress(LedgerError):  # what cannot be read is replaced
            times = self.failure(spec, folder).times + 1
        message = next((line for line in reversed(text.splitlines()) if line.strip()), cause)
        failure = {"cause": cause, "message": message[:500], "step": step, "times": times}
        write_json(folder / "failure.json", failure)
        write_bytes(folder / "error.txt", text.encode(errors="replace"))
        return folder

    def worker_failures(self, spec: TrialSpec) -> list[Mapping[str, Any]]:
        """Return the failures of a trial's workers, the latest last: cause, detail, when, run; skip broken lines."""
        path = self.folder(spec) / WORKER_FAILURES
        failures = []
        for line in schema.read_text(path).splitlines():
            with contextlib.suppress(ValueError):
                failures.append(json.loads(line))
        return [failure for failure in failures if isinstance(failure, dict)]

    def add_worker_failure(self, spec: TrialSpec, failure: Mapping[str, Any]) -> Path:
        """Record the failure of a trial's worker; return the file."""
        failures = self.worker_failures(spec)
        path = self.create(spec) / WORKER_FAILURES
        write_lines(path, [*failures, failure])
        return path

    def save_suite(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Save the definition of a suite for `dtbench report` and return it, with what is kept of earlier plans."""
        path = self.root / "suites" / f"{slug(document['name'])}.json"
        earlier = read_suite(path) if path.exists() or path.is_symlink() else {}
        if earlier and earlier.get("name") != document["name"]:
            raise LedgerError(f"{path} is suite {earlier.get('name')!r}: rename it or {document['name']!r}.")
        if earlier:
            ends = ("result.json", "failure.json")
            ended = {key for key, folder in self.folders().items() if any((folder / name).exists() for name in ends)}
            document = with_earlier(document, earlier, ended)
        write_json(path, document, sort_keys=False)  # contenders keep the order of their table
        return document

    def saved_suite(self, name: str) -> Mapping[str, Any] | None:
        """Return the saved definition of a suite, None without one."""
        path = self.root / "suites" / f"{slug(name)}.json"
        return read_suite(path) if path.exists() else None

    def saved_suites(self) -> dict[str, Mapping[str, Any]]:
        """Return the saved definitions of suites by name, without damaged ones."""
        return self.read_suites()[0]

    def read_suites(self) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
        """Return the saved definitions of suites by name, and the errors of those that are damaged."""
        documents, damaged = {}, []
        for path in sorted((self.root / "suites").glob("*.json")):
            try:
                documents[path.stem] = read_suite(path)
            except LedgerError as error:
                damaged.append(str(error))
        return documents, damaged

    def _record(self, folder: Path) -> TrialRecord:
        return TrialRecord(
            self.spec(folder),
            with_current_action_mode(schema.read_mapping(folder / "result.json", schema.Result)),
            schema.read_mapping(folder / "provenance.json", schema.Provenance),
            partial(read_episodes, folder / EPISODES),
            partial(read_metrics, folder / "metrics.jsonl"),
            partial(_read_inspection, folder / "inspection.json"),
        )

    def _check(self, folder: Path) -> None:
        """Raise LedgerError where a file cannot be read; check the columns of episodes only."""
        if (folder / "result.json").exists():
            self._record(folder)
            check_columns(folder / EPISODES)
            return
        spec = self.spec(folder)
        self.failure(spec, folder)
        self.running(folder)

    def running(self, folder: Path) -> schema.Running | None:
        """Return the heartbeat of the process that runs, or ran, the trial of a directory; None without one."""
        return _read_if_there(folder / "running.json", schema.Running)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; raise LedgerUnwritable where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LedgerUnwritable(
            f"cannot write {path}: {reason}. Earlier results are kept: free some space or restore access, then repeat "
            "the command."
        ) from error


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


def _loaded(record: TrialRecord) -> TrialRecord:
    """Read what is small at once, so that damage shows here; raise LedgerError where there is any."""
    metrics, inspection = record.metrics(), record.inspection()
    return replace(record, metrics=lambda: metrics, inspection=lambda: inspection)


def _read_if_there(path: Path, model: type[M]) -> M | None:
    try:
        return schema.read(path, model)
    except LedgerError:
        if path.exists():
            raise
        return None


def read_suite(path: Path) -> Mapping[str, Any]:
    """Return the saved definition of a suite; raise LedgerError where the file is damaged."""
    document = schema.read_mapping(path, schema.SavedSuite, schema.SUITE_ADVICE)
    try:
        for trial in (*document["trials"], *document.get("superseded", ())):
            schema.parse_spec(trial)
    except ValueError as error:
        raise schema.unreadable(path, error, schema.SUITE_ADVICE) from error
    return document


def _read_inspection(path: Path) -> Mapping[str, Any]:
    return schema.read_mapping(path, schema.Inspection) if path.exists() else {}


def _key_of(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def slug(name: str) -> str:
    """Return a name of a directory that no listing hides; file systems limit it to 255 bytes."""
    return re.sub(r"[^A-Za-z0-9._+%=-]+", "-", name).strip("-").lstrip(".-")[:80] or "unnamed"


# The files of a trial's directory, in an order in which they can be copied: result.json alone means done.
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
    "policy.pt",
    "result.json",
)
