"""The ledger: one folder a trial, raw returns, atomic writes; `result.json` alone means done."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.errors import LedgerError
from dtbench.spec import TrialSpec

STATES = ("done", "partial", "failed", "missing")


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A finished trial, as its folder tells it."""

    folder: Path
    spec: TrialSpec
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def episodes(self) -> pd.DataFrame:
        """Every evaluation episode: step, target, episode, seed, return, length, score and the task's columns."""
        return pd.read_parquet(self.folder / "episodes.parquet")

    def metrics(self) -> pd.DataFrame:
        """What was logged while learning: step and one column a metric."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return pd.DataFrame([json.loads(line) for line in lines])


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

    def state(self, spec: TrialSpec) -> str:
        """One of STATES: done, partial (a checkpoint waits), failed (it left a traceback), missing."""
        folder = self.folder(spec)
        if (folder / "result.json").exists():
            return "done"
        if (folder / "error.txt").exists():
            return "failed"
        return "partial" if (folder / "checkpoint.pt").exists() else "missing"

    def record(self, spec: TrialSpec) -> TrialRecord | None:
        """The finished trial, or None; labels (suite, contender) are those of `spec`."""
        folder = self.folder(spec)
        if not (folder / "result.json").exists():
            return None
        return TrialRecord(folder, spec, _read(folder / "result.json"), _read(folder / "provenance.json"))

    def records(self) -> Iterator[TrialRecord]:
        """Every finished trial, under the labels that it first ran with."""
        for path in sorted(self.root.glob("*/*/result.json")):
            spec = TrialSpec.from_json(_read(path.parent / "spec.json"))
            yield TrialRecord(path.parent, spec, _read(path), _read(path.parent / "provenance.json"))

    def siblings(self, spec: TrialSpec) -> list[TrialRecord]:
        """Finished trials that differ from `spec` in nothing but the seed, by seed; labels are those of `spec`."""
        found = []
        for path in (self.root / _slug(spec.task)).glob("*/result.json"):
            stored = TrialSpec.from_json(_read(path.parent / "spec.json"))
            if stored.cell == spec.cell:
                relabelled = stored.labelled(suite=spec.suite, contender=spec.contender)
                found.append(TrialRecord(path.parent, relabelled, _read(path), _read(path.parent / "provenance.json")))
        return sorted(found, key=lambda record: record.spec.seed)

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


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"cannot read {path}: {error}. Delete that trial's folder and run the suite again."
        ) from error


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+%=-]+", "-", name).strip("-")[:80]  # file systems end names at 255 bytes
