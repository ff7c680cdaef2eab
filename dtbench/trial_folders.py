"""The trials' folders of a ledger as strangers left them: what each says that it is, checked."""

from collections.abc import Mapping
from pathlib import Path

from dtbench.errors import LedgerError
from dtbench.ledger import Ledger
from dtbench.spec import TrialSpec

# What dtbench writes into a trial's folder, in an order in which it may be copied: result.json alone means done.
FILES = (
    "spec.json",
    "checkpoint.pt",
    "deaths.jsonl",
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
