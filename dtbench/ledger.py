"""The ledger: one folder a trial, raw returns, atomic writes; `result.json` alone means done."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.errors import LedgerError
from dtbench.spec import TrialSpec

EPISODES = "episodes.parquet"
STATES = ("done", "partial", "failed", "missing")


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
    state: str  # one of STATES, not done
    error: str = ""  # the traceback of one that failed


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

    def state(self, spec: TrialSpec, folder: Path | None = None) -> str:
        """One of STATES: done, partial (a checkpoint waits), failed (it left a traceback), missing.

        `folder` is the trial's, where it has been looked up already.
        """
        folder = folder or self.folder(spec)
        if (folder / "result.json").exists():
            return "done"
        if (folder / "error.txt").exists():
            return "failed"
        return "partial" if (folder / "checkpoint.pt").exists() else "missing"

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
        return Unfinished(spec, state, (folder / "error.txt").read_text(errors="replace") if state == "failed" else "")

    def begin(self, spec: TrialSpec) -> Path:
        """Make the trial's folder and write its spec; raise LedgerError where that cannot be done."""
        folder = self.folder(spec)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "spec.json", spec.to_json())
        except OSError as error:
            raise LedgerError(f"cannot write to the ledger {self.root}: {error}. Say --results FOLDER.") from error
        return folder

    def remember_suite(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep the definition of a suite as it last ran, for `dtbench report`; give what is now kept.

        Trials planned earlier under the same preset and overrides stay part of it as far as their seeds do, so that
        running a single contender or task does not narrow the report.
        """
        path = self.root / "suites" / f"{_slug(document['name'])}.json"
        earlier = _read(path) if path.exists() else {}
        trials = {trial["key"]: trial for trial in document["trials"]}
        if all(earlier.get(key) == document[key] for key in ("preset", "overrides", "contenders", "evaluation")):
            kept = [trial for trial in earlier["trials"] if trial["seed"] in document["seeds"]]
            trials = {trial["key"]: trial for trial in kept} | trials
        whole = {**document, "trials": list(trials.values())}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, whole, sort_keys=False)  # contenders keep the order of their table
        return whole

    def remembered_suites(self) -> dict[str, Mapping[str, Any]]:
        """The definitions kept by `remember_suite`, by name."""
        return {path.stem: _read(path) for path in sorted((self.root / "suites").glob("*.json"))}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write JSON atomically."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=sort_keys) + "\n").encode())


def write_frame(path: Path, rows: pd.DataFrame) -> None:
    """Write a table as Parquet atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    rows.to_parquet(temporary, index=False)
    temporary.replace(path)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_bytes(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())


def _record(folder: Path) -> TrialRecord:
    return TrialRecord(
        TrialSpec.from_json(_read(folder / "spec.json")),
        _read(folder / "result.json"),
        _read(folder / "provenance.json"),
        partial(_read_episodes, folder / EPISODES),
        partial(_read_metrics, folder / "metrics.jsonl"),
        partial(_read_inspection, folder / "inspection.json"),
    )


def _read_episodes(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise LedgerError(_unreadable(path, error)) from error


def _read_metrics(path: Path) -> pd.DataFrame:
    try:
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    except (OSError, ValueError) as error:
        raise LedgerError(_unreadable(path, error)) from error


def _read_inspection(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _read(path) if path.exists() else {}
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LedgerError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    return f"cannot read {path}: {error}. Delete that trial's folder and run the suite again."


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+%=-]+", "-", name).strip("-")[:80]  # file systems end names at 255 bytes
