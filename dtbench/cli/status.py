"""What runs, is done, has failed and why: told from the ledger alone, which is only read."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dtbench.errors import LedgerError, UnknownName, one_line
from dtbench.ledger import lock
from dtbench.ledger.remote import holder, name_of
from dtbench.ledger.schema import Failure, Running
from dtbench.ledger.store import MOST_FAILURES, Ledger, read_suite
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
OTHERS = "(no suite)"  # trials that no remembered suite names
_TOLD = tuple(state for state in STATES if state not in (TrialState.DONE, TrialState.MISSING))  # trial by trial


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """One trial: what may be said of it. Fields that do not apply are None or empty."""

    key: str
    suites: tuple[str, ...]
    task: str
    contender: str
    seed: int
    state: TrialState  # one of STATES
    step: int | None = None
    budget: int | None = None
    score: float | None = None  # the latest
    host: str = ""
    began: str = ""  # the attempt, in ISO format
    seconds_left: float | None = None
    cause: str = ""
    message: str = ""
    failures: int = 0
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A ledger at one moment."""

    results: str
    trials: tuple[TrialStatus, ...]  # each key once
    suites: tuple[str, ...]
    remarks: tuple[str, ...] = ()  # files that cannot be read
    holder: Mapping[str, Any] = field(default_factory=dict)  # the run that is at work on it, if one is

    def counts(self, suite: str | None = None) -> dict[str, int]:
        """How many trials of a suite, or of all, are in each state."""
        found = Counter(trial.state for trial in self.trials if suite is None or suite in trial.suites)
        return {state: found[state] for state in STATES}

    def to_json(self) -> dict[str, Any]:
        """Plain values: `totals`, `suites` (name -> state -> trials), `trials`, `remarks`, `holder`."""
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
    """Read the ledger below a results folder; `suites`: only their trials.

    What is damaged is named and does not keep the rest from being told. Raises UnknownName for a suite that the ledger
    does not know, LedgerError where the folder cannot be read.
    """
    reader = _Reader(results)
    for name in suites:
        if name not in reader.documents:
            raise UnknownName(f"suite in {name_of(results)}", name, reader.documents)
    named = suites or tuple(reader.documents)
    found = [reader.status(spec, reader.suites_of(spec.key)) for spec in reader.planned(named)]
    if not suites:
        others = [reader.status(spec, (OTHERS,)) for spec in reader.unplanned()]
        others += [damaged for key, damaged in reader.damaged.items() if not reader.suites_of(key)]
        found = [*found, *others]
        named = (*named, *([OTHERS] if others else ()))
    return Status(name_of(results), tuple(found), tuple(named), tuple(reader.remarks), reader.holder or {})


class _Reader:
    """A ledger being read: its suites, its folders, and who is at work on it."""

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
            if key in self.folders:  # and whole in another directory
                self.remarks.append(one_line(why))
            else:
                about = (key, (OTHERS,), folder.parent.name, contender, 0, TrialState.DAMAGED)
                self.damaged[key] = TrialStatus(*about, message=one_line(why), folder=str(folder))
        self.documents = dict(self._documents())
        self._holder: Mapping[str, Any] | None = None
        self._asked = False

    @property
    def holder(self) -> Mapping[str, Any] | None:
        """The run at work on the ledger; another machine's must be watched for a while, so it is asked for once."""
        if not self._asked:
            self._holder = holder(self.results)
            self._asked = True
        return self._holder

    def suites_of(self, key: str) -> tuple[str, ...]:
        """The suites that plan a trial."""
        return tuple(name for name, planned in self.documents.items() if key in planned)

    def planned(self, suites: Sequence[str]) -> list[TrialSpec]:
        """The trials of these suites, each once."""
        found = {key: spec for name in suites for key, spec in self.documents[name].items()}
        return list(found.values())

    def unplanned(self) -> list[TrialSpec]:
        """Trials that are in the ledger and in no suite."""
        return [spec for key, (spec, _) in self.folders.items() if not self.suites_of(key)]

    def status(self, spec: TrialSpec, suites: tuple[str, ...]) -> TrialStatus:
        """How a trial stands."""
        if spec.key in self.damaged:
            return replace(self.damaged[spec.key], suites=suites, contender=spec.contender, seed=spec.seed)
        about = (spec.key, suites, spec.task, spec.contender, spec.seed)
        if spec.key not in self.folders:
            return TrialStatus(*about, TrialState.MISSING, budget=spec.train_steps)
        folder = self.folders[spec.key][1]
        try:
            return TrialStatus(*about, **self._facts(spec, folder), budget=spec.train_steps, folder=str(folder))
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

    def _documents(self) -> Iterator[tuple[str, dict[str, TrialSpec]]]:
        for path in sorted((self.ledger.root / "suites").glob("*.json")):
            try:
                specs = [TrialSpec.from_json(trial) for trial in read_suite(path)["trials"]]
                yield path.stem, {spec.key: spec for spec in specs}
            except LedgerError as error:
                self.remarks.append(one_line(str(error)))


def _attempt(running: Running) -> dict[str, Any]:
    host, began = one_line(running.host, 60), one_line(running.began, 40)
    return {"step": running.step, "score": running.score, "host": host, "began": began}


def _failed(failure: Failure, folder: Path) -> dict[str, Any]:
    cause = one_line(failure.cause or "crash", 60)
    state = TrialState.GIVEN_UP if failure.times >= MOST_FAILURES else TrialState.FAILED
    if cause == TrialState.DIVERGED:
        state = TrialState.DIVERGED
    message = one_line(failure.message or _last_line(folder / "error.txt"), 200)
    return {
        "state": state,
        "cause": cause,
        "message": message,
        "failures": max(1, failure.times),
        "step": failure.step,
    }


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "")


def _left(running: Running, budget: int) -> float | None:
    """Seconds that the rest takes at the pace of this attempt; None where it has not come far enough to say."""
    try:
        elapsed = (datetime.now(UTC) - datetime.fromisoformat(running.began)).total_seconds()
    except (ValueError, TypeError):
        return None
    steps = running.step - running.from_step
    if steps <= 0 or elapsed <= 0:
        return None
    return elapsed / steps * max(0, budget - running.step)


def text_of(status: Status) -> str:
    """A status for people: a table of suites, then the trials that there is something to say about."""
    if not status.trials and not status.remarks:
        return f"{status.results} holds no trials. Run a suite: dtbench run --suite NAME\n"
    shown = [state for state in STATES if status.counts()[state]]
    rows = [[suite, *(str(status.counts(suite)[state]) for state in shown)] for suite in status.suites]
    rows.append(["all", *(str(status.counts()[state]) for state in shown)])
    lines = _aligned([["suite", *shown], *rows])
    for state in _TOLD:
        of_state = [trial for trial in status.trials if trial.state == state]
        if of_state:
            lines += ["", f"{state}:", *_aligned([["", *_said(trial)] for trial in of_state])]
    lines += ["", *status.remarks] if status.remarks else []
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _said(trial: TrialStatus) -> list[str]:
    step = "" if trial.step is None else f"step {trial.step}/{trial.budget}"
    score = "" if trial.score is None else f"score {trial.score:.1f}"
    left = "" if trial.seconds_left is None else f"about {_duration(trial.seconds_left)} left"
    since = f"on {trial.host} since {trial.began}" if trial.state is TrialState.RUNNING else ""
    times = f"{trial.failures} times, " if trial.failures > 1 else ""
    why = f"{times}{trial.cause}: {trial.message}" if trial.cause else trial.message
    words = (trial.task, trial.contender, f"seed {trial.seed}", trial.key, step, score, since, left, why)
    return [one_line(word, 300) for word in words]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width; those that are empty are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    indent = "  " if rows and not rows[0][0] else ""
    texts = zip(*columns, strict=True)
    return [indent + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)) for row in texts]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min" if minutes else "a minute"
