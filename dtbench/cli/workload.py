"""How much work a run has before it, and whether the user wants to start it."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import typer

from dtbench.analysis.archive import archived_seconds
from dtbench.analysis.results_directory import finished_anywhere
from dtbench.cli.progress import duration, finished_seconds
from dtbench.execution.resources import parallel_trials
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import trial_specs
from dtbench.suite.schema import Suite

LONG = 3600.0  # seconds that a run may take without a question
MANY = 100  # trials of unknown length likewise


@dataclass(frozen=True, slots=True)
class Workload:
    """The trials to run and the seconds that they take one after another, as far as somebody knows."""

    trials: int
    seconds: float
    unknown: int  # trials of contenders that have not finished anywhere
    at_once: int

    @property
    def is_long(self) -> bool:
        """Return whether it takes more than LONG, or has MANY trials of which nobody knows."""
        return self.seconds / self.at_once > LONG or self.unknown >= MANY

    def __str__(self) -> str:
        known = f", about {duration(self.seconds)} of trial time" if self.seconds else ""
        unknown = f", {self.unknown} of them of unknown length" if self.unknown else ""
        return f"{self.trials} trials{known}{unknown}, {self.at_once} at once"


def workload(missing: Sequence[TrialSpec], ledger: Ledger, suite: str) -> Workload:
    """Return what is to run; times are those of finished trials, else of archived ones of the same contender."""
    own = finished_seconds(missing, ledger)
    archived = archived_seconds(ledger.root.parent / "scores", suite)
    seconds = [_seconds(spec, own, archived) for spec in missing]
    known = [one for one in seconds if one is not None]
    at_once = parallel_trials(missing[0].resources) if missing else 0
    return Workload(len(missing), sum(known), len(missing) - len(known), max(at_once, 1))


def agree(suite: Suite, ledger: Ledger) -> None:
    """Say how long a suite takes where that is long, and ask whether to start it, before its data are made.

    Where nobody can answer, as in a script or on a cluster, it starts.
    """
    planned = {spec.key: spec for spec in trial_specs(suite, make_data=False)}
    archived = finished_anywhere(ledger.root.parent / "scores", suite.name, planned)
    missing = [spec for spec in planned.values() if spec.key not in archived and ledger.should_run(spec)]
    work = workload(missing, ledger, suite.name)
    if not work.is_long:
        return
    advice = "Less is named by --preset, --task, --contender or --seeds."
    typer.echo(f"{suite.name} with its default preset {suite.preset} is {work}. {advice}", err=True)
    if sys.stdin.isatty() and not typer.confirm("Start?", default=True):
        raise typer.Exit(0)


def _seconds(spec: TrialSpec, own: Mapping[str, float], archived: Mapping[tuple[str, str], float]) -> float | None:
    """Return the seconds of a trial, from its configuration, its task and contender, or its contender elsewhere."""
    elsewhere = _mean(value for (_, contender), value in archived.items() if contender == spec.contender)
    rate = own.get(spec.cell, archived.get((spec.task, spec.contender), elsewhere))
    return None if rate is None else rate * max(spec.train_steps, 1)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None
