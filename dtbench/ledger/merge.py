"""Join ledgers of several machines into one: everything is checked before anything is copied."""

import json
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.errors import LedgerError
from dtbench.ledger import lock
from dtbench.ledger.storage import complete, held_back, hold_remote, name_of, publish_trial, published, remote_of
from dtbench.ledger.store import (
    EPISODES,
    FILES,
    Ledger,
    checked_spec,
    name_of_trial,
    number,
    trial_folders,
    write_bytes,
    write_json,
)
from dtbench.ledger.trial_spec import TrialSpec

_DEFINITION = ("preset", "overrides", "contenders", "evaluation")  # where these are equal, it is the same suite
_CLOCK = ("seconds", "started", "finished")  # what differs between equal trials
_SHOWN = 4  # conflicts that are named


@dataclass(frozen=True)
class Found:
    """A trial as one of the ledgers has it."""

    spec: TrialSpec
    folder: Path
    results: Path  # the ledger that it is from
    files: frozenset[str]

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return "result.json" in self.files

    @cached_property
    def rank(self) -> tuple[int, int]:
        """How far it came: what ranks higher replaces what ranks lower."""
        failure = self._facts("failure.json")
        step = max(number(self._facts("running.json"), "step"), number(failure, "step"))
        if self.done:
            return 3, 0
        if failure.get("cause") == "diverged":
            return 2, 0
        return ("checkpoint.pt" in self.files) + (len(self.files) > 1) - 1, step

    @cached_property
    def result(self) -> Mapping[str, Any]:
        """What result.json says."""
        return _json_of(self.folder / "result.json")

    def episodes(self) -> pd.DataFrame:
        """Every evaluation episode."""
        try:
            return pd.read_parquet(self.folder / EPISODES)
        except (OSError, ValueError) as error:
            raise LedgerError(f"cannot read {self.folder / EPISODES}: {error}. Delete that trial's folder.") from error

    def same_outcome(self, other: "Found") -> bool:
        """Whether two finished trials say the same; what only one of two versions writes is not compared."""
        shared = (self.result.keys() & other.result.keys()) - set(_CLOCK)
        if any(self.result[name] != other.result[name] for name in shared):
            return False
        try:
            pd.testing.assert_frame_equal(
                self.episodes(), other.episodes(), check_dtype=False, check_exact=True, check_like=True
            )
        except AssertionError:
            return False
        return True

    def _facts(self, name: str) -> Mapping[str, Any]:
        return _json_of(self.folder / name) if name in self.files else {}


@dataclass
class Merged:
    """What a merge did, or would do."""

    counts: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)  # about suites

    def __str__(self) -> str:
        """One line."""
        kinds = ("copied", "equal", "carried further", "kept as ours")
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds)


def merge(others: Sequence[Path], results: Path, *, dry_run: bool = False) -> Merged:
    """Copy into the ledger of `results` what those of the other results folders have beyond it.

    A finished trial replaces one that is not, and a checkpoint one of fewer steps. Raises LedgerError before anything
    is copied where a ledger cannot be read, or where finished trials of one key differ: their data, code or seeds must
    have. What is cut off in the middle is finished by the same merge again.
    """
    _check_places(others, results)
    if dry_run:
        return _merge(others, results, dry_run=True)
    with _held(results):
        return _merge(others, results, dry_run=False)


def _merge(others: Sequence[Path], results: Path, *, dry_run: bool) -> Merged:
    ours = _trials(results)
    theirs = [_trials(other) for other in others]
    suites = [_suites(other) for other in (results, *others)]
    _check_conflicts(ours, theirs)
    merged = Merged()
    copies = list(_choices(ours, theirs, merged.counts))
    documents = dict(_joined(suites[0], zip(others, suites[1:], strict=True), merged.remarks))
    if not dry_run:
        for found in copies:
            _copy(found, results)
        with published(results, fresh=False):
            for name, document in documents.items():
                write_json(results / "runs" / "suites" / f"{name}.json", document, sort_keys=False)
    return merged


def _check_places(others: Sequence[Path], results: Path) -> None:
    for other in others:
        if not (other / "runs").is_dir():
            raise LedgerError(f"{name_of(other)} holds no ledger: it has no folder runs. Name a results folder.")
        if results.exists() and other.samefile(results):
            raise LedgerError(f"{name_of(other)} is the ledger that is merged into. Name another with --results.")


@contextmanager
def _held(results: Path) -> Iterator[None]:
    remote = remote_of(results)
    with hold_remote(remote) if remote else lock.hold(results / "runs"):
        yield


def _trials(results: Path) -> dict[str, Found]:
    """Every trial of a ledger by key, each checked."""
    left = held_back(results)
    found = {}
    for folder in trial_folders(results / "runs"):
        spec = checked_spec(folder)
        files = {name for name in FILES if _is_file(folder / name)}
        files |= left.get(folder.relative_to(results).as_posix(), set()) & set(FILES)
        trial = found[spec.key] = Found(spec, folder, results, frozenset(files))
        if trial.done:
            _ = trial.result, trial.episodes()  # that they can be read
    return found


def _is_file(path: Path) -> bool:
    """Whether there is a file; raise LedgerError for a link, which may lead anywhere, and for what is no file."""
    for place in (path, path.parent, path.parent.parent):
        if place.is_symlink():
            raise LedgerError(f"{place} is a link: a ledger has none. Put the files there themselves.")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise LedgerError(f"{path} is no file. Delete that trial's folder.")
    return True


def _check_conflicts(ours: Mapping[str, Found], theirs: Sequence[Mapping[str, Found]]) -> None:
    """Raise LedgerError where two ledgers have finished a trial with different outcomes."""
    first = {key: found for key, found in ours.items() if found.done}
    conflicts = []
    for ledger in theirs:
        for key, found in ledger.items():
            if found.done and not first.setdefault(key, found).same_outcome(found):
                places = f"{name_of(first[key].results)} against {name_of(found.results)}"
                conflicts.append(f"{name_of_trial(found.spec)}: {places}")
    if conflicts:
        more = f" and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        raise LedgerError(
            f"{len(conflicts)} finished trials have another outcome there: {'; '.join(conflicts[:_SHOWN])}{more}. "
            "Nothing was copied. Delete their folders from the ledger that you trust less (`dtbench show KEY`)."
        )


def _choices(
    ours: Mapping[str, Found], theirs: Sequence[Mapping[str, Found]], counts: Counter[str]
) -> Iterator[Found]:
    """The trials to copy, each the furthest that any ledger has; on a tie the earlier one's."""
    for key in dict.fromkeys(key for ledger in theirs for key in ledger):
        there = [ledger[key] for ledger in theirs if key in ledger]
        best = max(there, key=lambda found: found.rank)
        own = ours.get(key)
        if own and own.rank >= best.rank:
            counts["equal" if own.done and best.done else "kept as ours"] += 1
        elif best.rank[0] >= 0:
            counts["copied" if best.done or not own else "carried further"] += 1
            yield best


def _copy(found: Found, results: Path) -> None:
    """Make our folder of a trial theirs, file by file; result.json comes last, when all else is as it should be."""
    complete(found.folder, found.results)
    folder = Ledger(results / "runs").folder(found.spec)
    for name in FILES:
        if name == "result.json":
            break
        if name in found.files and not (name == "spec.json" and (folder / name).exists()):
            write_bytes(folder / name, _content(found.folder / name))
    for name in FILES:
        if name not in found.files:
            (folder / name).unlink(missing_ok=True)
    if found.done:
        write_bytes(folder / "result.json", _content(found.folder / "result.json"))
    publish_trial(folder, results)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise LedgerError(f"cannot read {path}: {reason}. The same merge again goes on where this ended.") from error


def _suites(results: Path) -> dict[str, Mapping[str, Any]]:
    """The suites that a ledger remembers, each checked."""
    found = {}
    for path in sorted((results / "runs" / "suites").glob("*.json")):
        document = _json_of(path) if _is_file(path) else {}
        try:
            whole = {"name", "trials", "tasks", "seeds", *_DEFINITION} <= document.keys()
            keys = [TrialSpec.from_json(trial).key == trial["key"] for trial in document.get("trials", ())]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            whole, keys = False, []
        if not (whole and all(keys)):
            raise LedgerError(f"{path} is no suite as dtbench remembers one. Remove it; trials are not lost with it.")
        found[path.stem] = document
    return found


def _joined(
    ours: Mapping[str, Mapping[str, Any]],
    theirs: Iterator[tuple[Path, Mapping[str, Mapping[str, Any]]]],
    remarks: list[str],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The suites to write; a remark for each that is defined otherwise elsewhere."""
    now = dict(ours)
    for place, suites in theirs:
        for name, document in suites.items():
            own = now.setdefault(name, document)
            if differs := [part for part in _DEFINITION if own[part] != document[part]]:
                remarks.append(f"suite {name}: {name_of(place)} has other {', '.join(differs)}; ours stays.")
            else:
                now[name] = _union(own, document)
    yield from ((name, document) for name, document in now.items() if document != ours.get(name))


def _union(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    trials = {trial["key"]: trial for trial in (*theirs["trials"], *ours["trials"])}
    lists = {part: list(dict.fromkeys([*ours[part], *theirs[part]])) for part in ("tasks", "seeds")}
    order = dict.fromkeys(trial["key"] for trial in (*ours["trials"], *theirs["trials"]))
    return {**ours, **lists, "trials": [trials[key] for key in order]}


def _json_of(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise LedgerError(f"cannot read {path}: {error}. Delete that trial's folder.") from error
    if not isinstance(found, dict):
        raise LedgerError(f"{path} holds no JSON object. Delete that trial's folder.")
    return found
