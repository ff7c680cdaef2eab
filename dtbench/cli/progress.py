"""What is under way, on the terminal: data that are opened or fetched, and a live table while trials run."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from dtbench.data.download import OnBytes
from dtbench.ledger.trial_spec import TrialSpec

PIPED_WIDTH = 150  # where there is no terminal: a table would be cut to 80 columns


def say(text: str, style: str | None = None) -> None:
    """Print a line as it is, however long."""
    Console(highlight=False).print(text, style=style, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print a line as it is where errors go."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def show(table: Table) -> None:
    """Print a table as wide as the terminal, or as it likes where there is none."""
    console = Console(highlight=False)
    (console if console.is_terminal else Console(width=PIPED_WIDTH, highlight=False)).print(table)


def trial_name(spec: TrialSpec) -> str:
    """Task, contender and seed: what a trial is called before a reader."""
    return f"{spec.task} {spec.contender} seed {spec.seed}"


def duration(seconds: float) -> str:
    """As in 1 h 02 min, 2 min 05 s or 9 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


OnProgress = Callable[[TrialSpec, str, int, float | None], None]
ENDED = ("done", "failed", "diverged")  # states after which a trial has no more steps to go
PLAIN_SECONDS = 30.0  # between lines where there is no terminal
ROWS = 20  # trials a live table shows at most
MOMENT = 0.5  # seconds that opening a dataset may take before a line says what is going on


@dataclass
class _Row:
    """A trial as the live table knows it."""

    spec: TrialSpec
    state: str = "waiting"
    step: int = 0
    score: float | None = None
    began: float = 0.0


@contextmanager
def preparing(moment: float = MOMENT) -> Iterator[Callable[[str], None]]:
    """Give the function that hears whose data are opened; print a line for those that take longer than a moment."""
    timer: threading.Timer | None = None

    def on_dataset(task: str) -> None:
        nonlocal timer
        if timer:
            timer.cancel()
        timer = threading.Timer(moment, lambda: print(f"preparing data: {task} ...", flush=True))
        timer.daemon = True
        timer.start()

    try:
        yield on_dataset
    finally:
        if timer:
            timer.cancel()


@contextmanager
def display(specs: Sequence[TrialSpec]) -> Iterator[OnProgress]:
    """Give the function that trials report to; show a live table on a terminal, plain lines elsewhere."""
    rows = {spec.key: _Row(spec) for spec in specs}
    console = Console(highlight=False)
    started = time.monotonic()
    spoken = started

    if not console.is_terminal or not specs:

        def speak(spec: TrialSpec, state: str, step: int, score: float | None) -> None:
            nonlocal spoken
            changed = _note(rows[spec.key], state, step, score)
            if state != "running" and changed:
                print(f"{state:<7} {trial_name(spec)}  [{_summary(rows, started)}]", flush=True)
            elif time.monotonic() - spoken > PLAIN_SECONDS:
                spoken = time.monotonic()
                print(f"running {trial_name(spec)} {step}/{spec.budget}  [{_summary(rows, started)}]", flush=True)

        yield speak
        return
    with Live(_table(rows, started), console=console, refresh_per_second=2) as live:

        def draw(spec: TrialSpec, state: str, step: int, score: float | None) -> None:
            nonlocal spoken
            changed = _note(rows[spec.key], state, step, score)
            if changed or time.monotonic() - spoken > 0.5:
                spoken = time.monotonic()
                live.update(_table(rows, started))

        yield draw
        live.update(_table(rows, started))


@contextmanager
def download_bar(name: str) -> Iterator[OnBytes]:
    """Give the function that downloads report to; show a bar on a terminal, now and then a line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        spoken = time.monotonic()

        def speak(done: int, total: int | None) -> None:
            nonlocal spoken
            if time.monotonic() - spoken > PLAIN_SECONDS:
                spoken = time.monotonic()
                of = f" of {total / 2**20:.0f}" if total else ""
                print(f"downloading {name}: {done / 2**20:.0f}{of} MiB", file=sys.stderr, flush=True)

        yield speak
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        row = bar.add_task(name, total=None, visible=False)
        yield lambda done, total: bar.update(row, completed=done, total=total, visible=True)


def _note(row: _Row, state: str, step: int, score: float | None) -> bool:
    changed = row.state != state
    if changed and state == "running":
        row.began = time.monotonic()
    row.state, row.step = state, max(row.step, step)
    row.score = row.score if score is None else score
    return changed


def _table(rows: Mapping[str, _Row], started: float) -> Table:
    table = Table(title=_summary(rows, started), title_justify="left")
    for column in ("task", "contender", "seed", "state", "step", "score", "left"):
        table.add_column(column)
    order = {"running": 0, "failed": 1, "diverged": 1, "lost": 2, "waiting": 3, "stopped": 4, "done": 5}
    shown = sorted(rows.values(), key=lambda row: order.get(row.state, 6))[:ROWS]
    for row in shown:
        score = "" if row.score is None else f"{row.score:.1f}"
        left = _left(row)
        step = f"{row.step}/{row.spec.budget}"
        table.add_row(row.spec.task, row.spec.contender, str(row.spec.seed), row.state, step, score, left)
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more"
    return table


def _left(row: _Row) -> str:
    if row.state != "running" or not row.step:
        return ""
    return duration((time.monotonic() - row.began) / row.step * (row.spec.budget - row.step))


def _summary(rows: Mapping[str, _Row], started: float) -> str:
    total = sum(max(row.spec.budget, 1) for row in rows.values())
    spent = sum(max(row.spec.budget, 1) if row.state in ENDED else row.step for row in rows.values())
    elapsed = time.monotonic() - started
    states = [row.state for row in rows.values()]
    left = f", about {duration(elapsed / spent * (total - spent))} left" if spent and spent < total else ""
    failed = "".join(f", {states.count(state)} {state}" for state in ("failed", "diverged") if state in states)
    return f"{states.count('done')}/{len(rows)} done{failed}, {duration(elapsed)}{left}"
