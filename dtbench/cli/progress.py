"""What is under way, on the terminal: data that are opened or fetched, and a live table while trials run."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from dtbench.data.download import OnBytes
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState

PLAIN_WIDTH = 1000  # where there is no terminal: rows of a status stay on their line
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


def show_plain(rows: Sequence[Sequence[str]], *, indent: int = 0) -> None:
    """Print rows in columns without lines; columns that are empty are left out."""
    table = Table.grid(padding=(0, 2))
    for column in zip(*rows, strict=True):
        if any(column):
            table.add_column()
    for row in zip(*(column for column in zip(*rows, strict=True) if any(column)), strict=True):
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(width=PLAIN_WIDTH, highlight=False)).print(
        Padding(table, (0, 0, 0, indent), expand=False)
    )


def trial_name(spec: TrialSpec) -> str:
    """Task, contender and seed: what a trial is called before a reader."""
    return f"{spec.task} {spec.contender} seed {spec.seed}"


def duration(seconds: float) -> str:
    """As in 1 h 02 min, 2 min 05 s or 9 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


OnProgress = Callable[[TrialSpec, TrialState, int, float | None], None]
ENDED = (TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED)  # such a trial has no more steps to go
PLAIN_SECONDS = 30.0  # between lines where there is no terminal
ROWS = 20  # trials a live table shows at most
MOMENT = 0.5  # seconds that opening a dataset may take before a line says what is going on


@dataclass
class _Row:
    """A trial as the live table knows it."""

    spec: TrialSpec
    state: TrialState | None = None  # None: its turn has not come
    step: int = 0
    score: float | None = None
    first: tuple[int, float] | None = None  # the first step of this attempt that was reported, and when
    seconds_per_step: float | None = None


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
def display(specs: Sequence[TrialSpec], ledger: Ledger) -> Iterator[OnProgress]:
    """Yield the function that trials report to; show a live table on a terminal, plain lines elsewhere.

    Finished trials of the ledger tell how long steps of the same configuration take.
    """
    rows = {spec.key: _Row(spec) for spec in specs}
    console = Console(highlight=False)
    started = time.monotonic()
    spoken = started
    known = finished_seconds(specs, ledger)

    if not console.is_terminal or not specs:

        def speak(spec: TrialSpec, state: TrialState, step: int, score: float | None) -> None:
            nonlocal spoken
            changed = _note(rows[spec.key], state, step, score)
            if state is not TrialState.RUNNING and changed:
                print(f"{state:<7} {trial_name(spec)}  [{_summary(rows, known, started)}]", flush=True)
            elif time.monotonic() - spoken > PLAIN_SECONDS:
                spoken = time.monotonic()
                print(
                    f"running {trial_name(spec)} {step}/{spec.train_steps}  [{_summary(rows, known, started)}]",
                    flush=True,
                )

        yield speak
        return
    with Live(_table(rows, known, started), console=console, refresh_per_second=2) as live:

        def draw(spec: TrialSpec, state: TrialState, step: int, score: float | None) -> None:
            nonlocal spoken
            changed = _note(rows[spec.key], state, step, score)
            if changed or time.monotonic() - spoken > 0.5:
                spoken = time.monotonic()
                live.update(_table(rows, known, started))

        yield draw
        live.update(_table(rows, known, started))


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


def finished_seconds(specs: Iterable[TrialSpec], ledger: Ledger) -> dict[str, float]:
    """Return mean seconds per gradient step of the finished trials of each configuration, where there are any.

    Keys are `TrialSpec.cell`. A trial of a contender that is not trained counts as one step.
    """
    known = {}
    for spec in {spec.cell: spec for spec in specs}.values():
        if seconds := [record.result["seconds"] for record in ledger.same_config(spec)]:
            known[spec.cell] = sum(seconds) / len(seconds) / max(spec.train_steps, 1)
    return known


def _note(row: _Row, state: TrialState, step: int, score: float | None) -> bool:
    changed = row.state is not state
    row.state, row.step = state, max(row.step, step)
    row.score = row.score if score is None else score
    if state is not TrialState.RUNNING or not step:
        row.first = None
    elif row.first is None:
        row.first = (step, time.monotonic())
    elif step > row.first[0]:
        row.seconds_per_step = (time.monotonic() - row.first[1]) / (step - row.first[0])
    return changed


def _table(rows: Mapping[str, _Row], known: Mapping[str, float], started: float) -> Table:
    table = Table(title=_summary(rows, known, started), title_justify="left")
    for column in ("task", "contender", "seed", "state", "step", "score", "left"):
        table.add_column(column)
    order = [TrialState.RUNNING, TrialState.FAILED, TrialState.DIVERGED, TrialState.LOST, None, TrialState.STOPPED]
    order.append(TrialState.DONE)
    shown = sorted(rows.values(), key=lambda row: order.index(row.state))[:ROWS]
    speeds = _seconds_per_step(rows, known)
    for row in shown:
        score = "" if row.score is None else f"{row.score:.1f}"
        seconds = _seconds_left(row, speeds) if row.state is TrialState.RUNNING else None
        step, left = f"{row.step}/{row.spec.train_steps}", "" if seconds is None else duration(seconds)
        state = row.state or "waiting"
        table.add_row(row.spec.task, row.spec.contender, str(row.spec.seed), state, step, score, left)
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more"
    return table


def _seconds_per_step(rows: Mapping[str, _Row], known: Mapping[str, float]) -> dict[str, float]:
    """Return seconds per gradient step by `TrialSpec.cell`: of running trials, else of finished ones."""
    running = {row.spec.cell: row.seconds_per_step for row in rows.values() if row.seconds_per_step is not None}
    return {**known, **running}


def _seconds_left(row: _Row, speeds: Mapping[str, float]) -> float | None:
    """Return the seconds that a trial has to go; None where no trial of its configuration has shown its speed."""
    if row.state in ENDED:
        return 0.0
    speed = speeds.get(row.spec.cell)
    return None if speed is None else speed * (max(row.spec.train_steps, 1) - row.step)


def _summary(rows: Mapping[str, _Row], known: Mapping[str, float], started: float) -> str:
    """Return a line of counts, and the time left where the speed of all that is left is known."""
    states = [row.state for row in rows.values()]
    speeds = _seconds_per_step(rows, known)
    seconds = [_seconds_left(row, speeds) for row in rows.values()]
    total = sum(one for one in seconds if one is not None) / max(1, states.count(TrialState.RUNNING))
    left = f", about {duration(total)} left" if total and None not in seconds else ""
    failed = "".join(
        f", {states.count(state)} {state}" for state in (TrialState.FAILED, TrialState.DIVERGED) if state in states
    )
    return f"{states.count(TrialState.DONE)}/{len(rows)} done{failed}, {duration(time.monotonic() - started)}{left}"
