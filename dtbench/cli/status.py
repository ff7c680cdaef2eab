"""Summarize trial states from the ledger and the archived scores (read-only)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.analysis.results import newest
from dtbench.analysis.results_directory import finished_anywhere
from dtbench.cli.progress import duration, say, show_plain
from dtbench.errors import LedgerError, UnknownName, decimals_of, one_line
from dtbench.ledger import lock, schema
from dtbench.ledger.remote import holder, remote_of
from dtbench.ledger.schema import Failure, Running
from dtbench.ledger.store import EPISODES, MOST_FAILURES, Ledger, read_suite
from dtbench.ledger.tables import read_episodes
from dtbench.ledger.trial_spec import TrialSpec, TrialState

STATES = (
    TrialState.RUNNING,
    TrialState.DONE,
    TrialState.FAILED,
    TrialState.DIVERGED,
    TrialState.GIVEN_UP,
    TrialState.INTERRUPTED,
    TrialState.MISSING,
    TrialState.DAMAGED,
)
OTHERS = "(no suite)"  # label of trials that no saved suite plans
_LISTED = tuple(state for state in STATES if state not in (TrialState.DONE, TrialState.MISSING))  # trial by trial


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """The state of one trial. Fields that do not apply are None or empty."""

    key: str
    suites: tuple[str, ...]
    task: str
    contender: str
    seed: int
    state: TrialState  # one of STATES
    step: int | None = None
    train_steps: int | None = None
    score: float | None = None  # the latest
    host: str = ""
    began: str = ""  # start of the attempt in ISO format
    seconds_left: float | None = None
    cause: str = ""
    message: str = ""
    failures: int = 0
    folder: str = ""
    superseded: bool = False  # by a newer configuration of its task and contender


@dataclass(frozen=True, slots=True)
class Status:
    """The states of a ledger's trials."""

    results: str
    trials: tuple[TrialStatus, ...]  # each key once
    suites: tuple[str, ...]
    remarks: tuple[str, ...] = ()  # files that cannot be read
    holder: Mapping[str, Any] = field(default_factory=dict)  # the live run on it

    def counts(self, suite: str | None = None) -> dict[str, int]:
        """Return the number of trials of a suite, or of all, in each state."""
        counts = Counter(trial.state for trial in self.trials if suite is None or suite in trial.suites)
        return {state: counts[state] for state in STATES}

    def to_json(self) -> dict[str, Any]:
        """Return plain values: `totals`, `suites` (name -> state -> trials), `trials`, `remarks`, `holder`."""
        return {
            "results": self.results,
            "totals": self.counts(),
            "suites": {suite: self.counts(suite) for suite in self.suites},
            "trials": [asdict(trial) for trial in self.trials],
            "remarks": list(self.remarks),
            "holder": {
                name: self.holder[name] for name in ("host", "process", "began", "command") if name in self.holder
            },
        }


def status_of(results: Path, suites: Sequence[str] = ()) -> Status:
    """Return the states of all trials of a results directory, or of those of these suites.

    Damaged trials get the state DAMAGED. Raises UnknownName for a suite that is not in the ledger, LedgerError where
    the directory cannot be read.
    """
    reader = _Reader(results)
    for name in suites:
        if name not in reader.documents:
            raise UnknownName(f"suite in {remote_of(results) or results}", name, reader.documents)
    named = suites or tuple(reader.documents)
    planned = {
        key: spec
        for known in (reader.documents, reader.superseded)
        for name in named
        for key, spec in known[name].items()
    }
    trials = [reader.status(spec, reader.suites_of(key)) for key, spec in planned.items()]
    if not suites:
        others = [reader.status(spec, (OTHERS,)) for key, (spec, _) in reader.folders.items() if key not in planned]
        others += [damaged for key, damaged in reader.damaged.items() if key not in planned]
        trials += others
        named = (*named, *([OTHERS] if others else ()))
    address = str(remote_of(results) or results)
    return Status(address, tuple(trials), tuple(named), tuple(reader.remarks), reader.holder or {})


class _Reader:
    """Reads a ledger: its suites, its trials and its holder."""

    def __init__(self, results: Path) -> None:
        self.results, self.ledger = results, Ledger(results / "runs")
        self.remarks: list[str] = []
        problems = self.ledger.problems()
        self.folders = {
            spec.key: (spec, folder)
            for folder in self.ledger.trial_folders()
            if folder not in problems
            for spec in [self.ledger.spec(folder)]
        }
        self.damaged: dict[str, TrialStatus] = {}  # by the key that ends the directory's name
        for folder, why in problems.items():
            contender, _, key = folder.name.rpartition("-")
            if key in self.folders:  # valid in another directory
                self.remarks.append(one_line(why))
            else:
                about = (key, (OTHERS,), folder.parent.name, contender, 0, TrialState.DAMAGED)
                self.damaged[key] = TrialStatus(*about, message=one_line(why), folder=str(folder))
        self.documents: dict[str, dict[str, TrialSpec]] = {}  # by suite and key: what it planned last
        self.superseded: dict[str, dict[str, TrialSpec]] = {}  # what it planned before
        self._read_documents()
        self.archived = {key for name in self.documents for key in self._archived(name)}

    @cached_property
    def holder(self) -> Mapping[str, Any] | None:
        """Return the live run on the ledger; watching another machine's takes seconds, so it is cached."""
        return holder(self.results)

    def suites_of(self, key: str) -> tuple[str, ...]:
        """Return the suites that plan a trial, or planned it."""
        return tuple(name for name, own in self.documents.items() if key in own or key in self.superseded[name])

    def status(self, spec: TrialSpec, suites: tuple[str, ...]) -> TrialStatus:
        """Return the state of a trial."""
        if spec.key in self.damaged:
            return replace(self.damaged[spec.key], suites=suites, contender=spec.contender, seed=spec.seed)
        found = self._status(spec, suites)
        current = any(spec.key in own for own in self.documents.values())
        return found if current or suites == (OTHERS,) else replace(found, superseded=True)

    def _status(self, spec: TrialSpec, suites: tuple[str, ...]) -> TrialStatus:
        about = (spec.key, suites, spec.task, spec.contender, spec.seed)
        if spec.key not in self.folders:
            state = TrialState.DONE if spec.key in self.archived else TrialState.MISSING
            return TrialStatus(*about, state, train_steps=spec.train_steps)
        folder = self.folders[spec.key][1]
        try:
            return TrialStatus(*about, **self._facts(spec, folder), train_steps=spec.train_steps, folder=str(folder))
        except (LedgerError, OSError) as error:
            return TrialStatus(*about, TrialState.DAMAGED, message=one_line(str(error)), folder=str(folder))

    def _facts(self, spec: TrialSpec, folder: Path) -> dict[str, Any]:
        if (folder / "result.json").exists():
            return {"state": TrialState.DONE, "step": spec.train_steps}
        running, failure = self.ledger.running(folder), self.ledger.failure(spec, folder)
        attempt = _attempt(running) if running else {}
        if running and self._is_alive(running):
            return {"state": TrialState.RUNNING, **attempt, "seconds_left": _left(running, spec.train_steps)}
        if failure.times or (folder / "error.txt").exists():
            return {**attempt, **_failed(failure, folder)}
        if running or (folder / "checkpoint.pt").exists():
            return {"state": TrialState.INTERRUPTED, **attempt}
        return {"state": TrialState.MISSING}

    def _is_alive(self, running: Running) -> bool:
        here = lock.alive(running.model_dump())
        return not running.ended and (bool(self.holder) if here is None else here)

    def _archived(self, suite: str) -> set[str]:
        try:
            waiting = set(self.documents[suite]) - set(self.folders)
            return finished_anywhere(self.results / "scores", suite, waiting)
        except LedgerError as error:
            self.remarks.append(one_line(str(error)))
            return set()

    def _read_documents(self) -> None:
        for path in sorted((self.ledger.root / "suites").glob("*.json")):
            try:
                document = read_suite(path)
            except LedgerError as error:
                self.remarks.append(one_line(str(error)))
                continue
            planned, earlier = newest(map(TrialSpec.from_json, document["trials"]))
            earlier += map(TrialSpec.from_json, document.get("superseded") or ())
            ran = [spec for spec, _ in self.folders.values() if spec.suite == document["name"]]
            cells = {spec.cell for spec in planned}
            self.documents[path.stem] = {spec.key: spec for spec in planned}
            self.documents[path.stem] |= {spec.key: spec for spec in ran if spec.cell in cells}
            self.superseded[path.stem] = {spec.key: spec for spec in (*ran, *earlier) if spec.cell not in cells}


def _attempt(running: Running) -> dict[str, Any]:
    host, began = one_line(running.host, 60), one_line(running.began, 40)
    return {"step": running.step, "score": running.score, "host": host, "began": began}


def _failed(failure: Failure, folder: Path) -> dict[str, Any]:
    cause = one_line(failure.cause or "crash", 60)
    state = TrialState.GIVEN_UP if failure.times >= MOST_FAILURES else TrialState.FAILED
    if cause == TrialState.DIVERGED:
        state = TrialState.DIVERGED
    message = one_line(failure.message or _last_line(folder / "error.txt"), 200)
    failures = max(1, failure.times)
    return {"state": state, "cause": cause, "message": message, "failures": failures, "step": failure.step}


def _last_line(path: Path) -> str:
    lines = schema.read_text(path).split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def _left(running: Running, train_steps: int) -> float | None:
    """Return the seconds left at the speed of this attempt; None before its first step."""
    try:
        elapsed = (datetime.now(UTC) - datetime.fromisoformat(running.began)).total_seconds()
    except (ValueError, TypeError):
        return None
    steps = running.step - running.from_step
    if steps <= 0 or elapsed <= 0:
        return None
    return elapsed / steps * max(0, train_steps - running.step)


def show_status(status: Status) -> None:
    """Print a table of suites, then the trials that run, failed or were interrupted."""
    if not status.trials and not status.remarks:
        say(f"{status.results} holds no trials. Run a suite: dtbench run --suite NAME")
        return
    states = [state for state in STATES if status.counts()[state]]
    rows = [(suite, status.counts(suite)) for suite in status.suites] + [("all", status.counts())]
    show_plain([["suite", *states], *([suite, *(str(counts[state]) for state in states)] for suite, counts in rows)])
    for state in _LISTED:
        if trials := [_row(trial) for trial in status.trials if trial.state == state]:
            say(f"\n{state}:")
            show_plain(trials, indent=2)
    if superseded := [_row(trial) for trial in status.trials if trial.superseded]:
        say("\nsuperseded by a newer configuration, in no mean:")
        show_plain(superseded, indent=2)
    for remark in ["", *status.remarks] if status.remarks else []:
        say(remark)


def show_trial(key: str, results: Path, *, as_json: bool = False) -> None:
    """Print the files of one trial, and the means over its evaluation episodes.

    Raises UnknownName for a key, or the beginning of one, that does not identify one trial.
    """
    folders = Ledger(results / "runs").folders()
    matching = [folder for known, folder in folders.items() if known.startswith(key)]
    if len(matching) != 1:
        raise UnknownName("trial" if not matching else "trial, ambiguous:", key, folders)
    (folder,) = matching
    if as_json:
        print(json.dumps(_trial_json(folder), indent=2))
        return
    if (folder / EPISODES).exists():
        say(f"== means over evaluation episodes\n{_means(folder).to_string()}")
    for name in ("result.json", "spec.json", "provenance.json", "error.txt"):
        if (folder / name).exists():
            say(f"== {folder / name}\n{schema.read_text(folder / name).rstrip()}")
    if lines := schema.read_text(folder / "metrics.jsonl").splitlines():
        say(f"== {folder / 'metrics.jsonl'}, last of {len(lines)} lines\n{lines[-1]}")


def _means(folder: Path) -> pd.DataFrame:
    """Return the means over evaluation episodes by step and target return."""
    groups = read_episodes(folder / EPISODES).groupby(["step", "target"], dropna=False)
    return groups[["return", "length", "score"]].mean()


def _trial_json(folder: Path) -> dict[str, Any]:
    """Return the records of a trial, its error ("" for none) and the means over its evaluation episodes."""
    paths = {name: folder / f"{name}.json" for name in ("spec", "result", "provenance")}
    records = {name: json.loads(schema.read_text(path)) for name, path in paths.items() if path.exists()}
    means = json.loads(_means(folder).reset_index().to_json(orient="records")) if (folder / EPISODES).exists() else []
    return {"folder": str(folder), "means": means, **records, "error": schema.read_text(folder / "error.txt")}


def _row(trial: TrialStatus) -> list[str]:
    step = "" if trial.step is None else f"step {trial.step}/{trial.train_steps}"
    score = "" if trial.score is None else f"score {trial.score:.{decimals_of(trial.score)}f}"
    left = "" if trial.seconds_left is None else f"about {duration(trial.seconds_left)} left"
    since = f"on {trial.host} since {trial.began}" if trial.state is TrialState.RUNNING else ""
    times = f"{trial.failures} times, " if trial.failures > 1 else ""
    why = f"{times}{trial.cause}: {trial.message}" if trial.cause else trial.message
    words = (trial.task, trial.contender, f"seed {trial.seed}", trial.key, step, score, since, left, why)
    return [one_line(word, 300) for word in words]
