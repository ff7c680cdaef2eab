"""Event files of TensorBoard."""

import time
from collections.abc import Sequence
from pathlib import Path

from dtbench.ledger.store import slug
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.tracking.runs import Run, Scalars, flat_config


def write_runs(runs: Sequence[Run], folder: Path) -> None:
    """Write each run's event file into a directory of its own, <contender>/<task>/seed<seed>."""
    taken = set()
    for run in runs:
        place = folder / slug(run.spec.contender) / slug(run.spec.task) / f"seed{run.spec.seed}"
        place = place.with_name(f"{place.name}-{run.spec.key}") if place in taken else place
        taken.add(place)
        write_run(run, place)


def write_run(run: Run, folder: Path) -> None:
    """Write one run's event file into a directory."""
    file = EventFile(folder, run.spec)
    for step, scalars in run.points:
        file.add(step, scalars)
    file.close()


class EventFile:
    """A new event file, which begins with a trial's hyperparameters.

    TensorBoard hides scalars of earlier files in the directory from `first_step` on.
    """

    def __init__(self, folder: Path, spec: TrialSpec, *, first_step: int = 0) -> None:
        # The parts of tensorboardX's SummaryWriter without its process and thread, which a killed trial would lose.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import Summary, hparams

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._summary = Event, Summary
        # TensorBoard reads files in the order of their names, whose own time is in seconds.
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._file.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))
        for summary in hparams(flat_config(spec), {"evaluation/score": 0.0}):
            self._file.write_event(Event(summary=summary))

    def add(self, step: int, scalars: Scalars) -> None:
        """Add scalars of one gradient step."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._file.write_event(self._event(step=step, wall_time=time.time(), summary=self._summary(value=values)))

    def flush(self) -> None:
        """Bring what was added to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()
