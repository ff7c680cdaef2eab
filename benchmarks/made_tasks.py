"""Tasks of real games on data made up for benchmarks: `made_tasks.py:hopper` with `task_options.stored=FOLDER`."""

from dataclasses import replace
from pathlib import Path

from dtbench import Task
from dtbench.data import cache
from dtbench.registry import make_task


def hopper(*, stored: str) -> Task:
    """Hopper, learned from a stored dataset of its shape."""
    return _on(make_task("hopper-medium-v2"), stored)


def pong(*, stored: str, max_frames: int = 4000) -> Task:
    """Pong, learned from stored frames; an episode ends after `max_frames` frames."""
    return _on(make_task("atari:pong", {"max_frames": max_frames}), stored)


def _on(task: Task, stored: str) -> Task:
    return replace(task, sources=(), load_dataset=lambda: cache.load(Path(stored)))
