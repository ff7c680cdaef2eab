"""Trackers that follow trials while they train."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.errors import UnknownName
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.tracking.runs import evaluation_scalars, run_of, training_scalars
from dtbench.tracking.tensorboard import EventFile, write_run

TRACKERS = ("tensorboard",)
# Called with gradient steps, metrics and, where the step was evaluated, episodes as lists.
OnLogged = Callable[[int, Mapping[str, Any], Mapping[str, list[Any]]], None]


def check_tracker(name: str) -> None:
    """Raise UnknownName unless the name, if any, is that of a tracker."""
    if name and name not in TRACKERS:
        raise UnknownName("tracker", name, TRACKERS, hint="`dtbench export` has others for finished trials.")


@contextmanager
def tracked(tracker: str, spec: TrialSpec, ledger: Ledger, on_saved: Callable[[Path], None]) -> Iterator[OnLogged]:
    """Yield the function that writes what a trial logs into an event file beside its other files, at once.

    A trial that finishes without training is written at its end. `on_saved` is then called with its directory. Without
    a tracker ("") nothing is written.
    """
    file: EventFile | None = None

    def on_logged(step: int, metrics: Mapping[str, Any], episodes: Mapping[str, list[Any]]) -> None:
        nonlocal file
        if not tracker:
            return
        # Scalars after the checkpoint from which a trial goes on are logged once more: TensorBoard hides the first.
        file = file or EventFile(ledger.folder(spec), spec, first_step=step)
        evaluation = evaluation_scalars(pd.DataFrame(episodes), spec.evaluation.targets) if episodes else {}
        file.add(step, {**training_scalars(metrics), **evaluation})
        file.flush()

    try:
        yield on_logged
    finally:
        if file is not None:
            file.close()
    record = ledger.record(spec) if tracker and file is None else None
    if record is not None:
        write_run(run_of(record), ledger.folder(spec))
    if file is not None or record is not None:
        on_saved(ledger.folder(spec))
