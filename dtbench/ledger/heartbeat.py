"""The heartbeat of a running trial."""

from pathlib import Path
from typing import Any

from dtbench.ledger import lock
from dtbench.ledger.store import write_json


class Heartbeat:
    """The file running.json: the process that runs a trial, and its progress."""

    def __init__(self, folder: Path) -> None:
        """Describe this process; write nothing yet."""
        self.path, self.step = folder / "running.json", 0
        self.process: dict[str, Any] = lock.this_process()

    def start(self, step: int) -> None:
        """Write that this process starts from `step`."""
        self.process["from_step"] = step
        self.update(step, None)

    def update(self, step: int, score: float | None) -> None:
        """Write the progress of the trial."""
        self.step = step
        write_json(self.path, {**self.process, "step": step, "score": score})

    def stop(self) -> None:
        """Write that this process stopped before the end of the trial."""
        write_json(self.path, {**self.process, "step": self.step, "ended": True})

    def remove(self) -> None:
        """Remove the file: the trial has ended."""
        self.path.unlink(missing_ok=True)
