"""Terminal output: lines and tables, and the progress of datasets, downloads and trials."""

import logging
import re
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
from dtbench.errors import decimals_of
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState

PLAIN_WIDTH = 1000  # without a terminal, so that rows of a status are not wrapped
PIPED_WIDTH = 150  # without a terminal, where rich would cut tables to 80 columns


# Names and texts in files can hold what moves a terminal's cursor, sets its title or turns the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return the text with a replacement character for what a terminal would act on."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str, style: str | None = None) -> None:
    """Print a line without wrapping."""
    Console(highlight=False, markup=False, emoji=False).print(visible(text), style=style, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Print a line, unless the command line has -q."""
    if not quiet():
        say(text, style)


def quiet() -> bool:
    """Return whether the command line has -q: tables, paths and errors alone are printed."""
    return logging.getLogger("dtbench").level == logging.WARNING


def complain(text: str) -> None:
    """Print a line to stderr without wrapping."""
    Console(stderr=True, highlight=False, markup=False, emoji=False).print(visible(text), soft_wrap=True)


def show(table: Table) -> None:
    """Print a table; where it is wider than the terminal, by the values of its first column."""
    console = _console(PIPED_WIDTH)
    if console.measure(table, options=console.options.update(max_width=PLAIN_WIDTH)).maximum <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    first, *others = ([str(cell) for cell in column.cells] for column in table.columns)
    names = [str(column.header) for column in table.columns[1:]]
    rows = list(zip(first, zip(*others, strict=True), strict=True))
    widths = [max(len(name), *map(len, cells)) for name, cells in zip(names, others, strict=True)]
    for name in dict.fromkeys(first):
        console.print(name, style="bold")
        own = [cells for one, cells in rows if one == name]
        if sum(widths) + 2 * len(widths) <= console.width:
            show_plain([names, *own], indent=2)
        else:  # one line a value
            for cells in own:
                show_plain([pair for pair in zip(names, cells, strict=True) if pair[1]], indent=2)


def show_plain(rows: Sequence[Sequence[str]], *, indent: int = 0) -> None:
    """Print rows in columns without borders; leave out empty columns."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    table = Table.grid(*("" for _ in columns), padding=(0, 2))
    for row in zip(*columns, strict=True):
        table.add_row(*(Text(visible(cell)) for cell in row))
    _console(PLAIN_WIDTH).print(Padding(table, (0, 0, 0, indent), expand=False))


def _console(width: int) -> Console:
    """Return the console, of this width where it is not a terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(width=width, highlight=False, markup=False, emoji=False)


def trial_name(spec: TrialSpec) -> str:
    """Return a trial's name for readers."""
    return f"{spec.task} {spec.contender} seed {spec.seed}"


def duration(seconds: float) -> str:
    """Format seconds as in 1 h 02 min, 2 min 05 s or 9 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


OnProgress = Callable[[TrialSpec, TrialState, int, float | None], None]
ENDED = (TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED)
PLAIN_SECONDS = 30.0  # between lines without a terminal
ROWS = 20  # maximum number of trials in the live table
MOMENT = 0.5  # seconds that opening a dataset may take before its name is printed
BEAT = 20.0  # seconds after which it is printed again
ORDER = (  # of the rows
    TrialState.RUNNING,
    TrialState.FAILED,
    TrialState.DIVERGED,
    TrialState.LOST,
    None,
    TrialState.STOPPED,
    TrialState.DONE,
)


@dataclass
class _Row:
    """A row of the live table: the last report of a trial."""

    spec: TrialSpec
    state: TrialState | None = None  # None: not started
    step: int = 0
    score: float | None = None
    first: tuple[int, float] | None = None  # the first reported step of this attempt, and its time
    seconds_per_step: float | None = None

    def update(self, state: TrialState, step: int, score: float | None) -> bool:
        """Store a report; return whether the state changed."""
        changed = self.state is not state
        self.state, self.step = state, max(self.step, step)
        self.score = self.score if score is None else score
        if state is not TrialState.RUNNING or not step:
            self.first = None
        elif self.first is None:
            self.first = (step, time.monotonic())
        elif step > self.first[0]:
            self.seconds_per_step = (time.monotonic() - self.first[1]) / (step - self.first[0])
        return changed


@contextmanager
def preparing(moment: float = MOMENT) -> Iterator[Callable[[str], None]]:
    """Yield the function to call before a task's data are opened; print the tasks that take longer than a moment.

    A task that takes long is printed again from time to time, with the time that it has taken.
    """
    waiting = _Waiting(moment)
    try:
        yield waiting.begin
    finally:
        waiting.end()


class _Waiting:
    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.timer: threading.Timer | None = None

    def begin(self, task: str) -> None:
        self.end()
        if not quiet():
            self._start(self.moment, task, time.monotonic())

    def end(self) -> None:
        if self.timer:
            self.timer.cancel()

    def _start(self, seconds: float, task: str, since: float) -> None:
        self.timer = threading.Timer(seconds, self._print, (task, since))
        self.timer.daemon = True
        self.timer.start()

    def _print(self, task: str, since: float) -> None:
        passed = time.monotonic() - since
        print(f"preparing data: {task} ..." + (f" {duration(passed)}" if passed >= BEAT else ""), flush=True)
        self._start(BEAT, task, since)


@contextmanager
def display(specs: Sequence[TrialSpec], ledger: Ledger) -> Iterator[OnProgress]:
    """Yield the function that trials report to; show a live table on a terminal, plain lines elsewhere.

    The time left is estimated from running and finished trials of the same configuration.
    """
    rows = {spec.key: _Row(spec) for spec in specs}
    console = Console(highlight=False, markup=False, emoji=False)
    started = printed = time.monotonic()
    known = finished_seconds(specs, ledger)

    def print_line(spec: TrialSpec, state: TrialState, step: int, score: float | None) -> None:
        nonlocal printed
        changed = rows[spec.key].update(state, step, score)
        if state is not TrialState.RUNNING and changed:
            print(f"{state:<7} {trial_name(spec)}  [{_summary(rows, known, started)}]", flush=True)
        elif time.monotonic() - printed > PLAIN_SECONDS:
            printed = time.monotonic()
            progress = f"{trial_name(spec)} {step}/{spec.train_steps}"
            print(f"running {progress}  [{_summary(rows, known, started)}]", flush=True)

    if quiet():
        yield lambda *_: None
        return
    if not console.is_terminal or not specs:
        yield print_line
        return
    with Live(_table(rows, known, started), console=console, refresh_per_second=2) as live:

        def update_table(spec: TrialSpec, state: TrialState, step: int, score: float | None) -> None:
            nonlocal printed
            changed = rows[spec.key].update(state, step, score)
            if changed or time.monotonic() - printed > 0.5:
                printed = time.monotonic()
                live.update(_table(rows, known, started))

        yield update_table
        live.update(_table(rows, known, started))


@contextmanager
def download_bar(name: str) -> Iterator[OnBytes]:
    """Yield the function that downloads report to; show a bar on a terminal, a line from time to time elsewhere."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        printed = time.monotonic()

        def print_line(done: int, total: int | None) -> None:
            nonlocal printed
            if time.monotonic() - printed > PLAIN_SECONDS:
                printed = time.monotonic()
                of = f" of {total / 2**20:.0f}" if total else ""
                print(f"downloading {name}: {done / 2**20:.0f}{of} MiB", file=sys.stderr, flush=True)

        yield print_line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        row = bar.add_task(name, total=None, visible=False)
        yield lambda done, total: bar.update(row, completed=done, total=total, visible=True)


def finished_seconds(specs: Iterable[TrialSpec], ledger: Ledger) -> dict[str, float]:
    """Return mean seconds per gradient step of the finished trials, by `TrialSpec.cell`.

    A trial without training counts as one step.
    """
    known = {}
    for spec in {spec.cell: spec for spec in specs}.values():
        if seconds := [record.result["seconds"] for record in ledger.same_config(spec)]:
            known[spec.cell] = sum(seconds) / len(seconds) / max(spec.train_steps, 1)
    return known


def _table(rows: Mapping[str, _Row], known: Mapping[str, float], started: float) -> Table:
    table = Table(title=_summary(rows, known, started), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("trial", overflow="fold")
    for column in ("state", "step", "score", "left"):
        table.add_column(column, no_wrap=True)
    speeds = _seconds_per_step(rows, known)
    for row in sorted(rows.values(), key=lambda row: ORDER.index(row.state))[:ROWS]:
        score = "" if row.score is None else f"{row.score:.{decimals_of(row.score)}f}"
        seconds = _seconds_left(row, speeds) if row.state is TrialState.RUNNING else None
        step, left = f"{row.step}/{row.spec.train_steps}", "" if seconds is None else duration(seconds)
        state = row.state or "waiting"
        table.add_row(Text(visible(trial_name(row.spec))), state, step, score, left)
    if len(rows) > ROWS:
        table.caption = f"{len(rows) - ROWS} more"
    return table


def _seconds_per_step(rows: Mapping[str, _Row], known: Mapping[str, float]) -> dict[str, float]:
    """Return seconds per gradient step by `TrialSpec.cell`, of running trials or else of finished ones."""
    running = {row.spec.cell: row.seconds_per_step for row in rows.values() if row.seconds_per_step is not None}
    return {**known, **running}


def _seconds_left(row: _Row, speeds: Mapping[str, float]) -> float | None:
    """Return the seconds left of a trial; None where the speed of its configuration is unknown."""
    if row.state in ENDED:
        return 0.0
    speed = speeds.get(row.spec.cell)
    return None if speed is None else speed * (max(row.spec.train_steps, 1) - row.step)


def _summary(rows: Mapping[str, _Row], known: Mapping[str, float], started: float) -> str:
    """Return the numbers of trials, and the time left where the speeds of all configurations are known."""
    states = [row.state for row in rows.values()]
    speeds = _seconds_per_step(rows, known)
    seconds = [_seconds_left(row, speeds) for row in rows.values()]
    total = sum(filter(None, seconds)) / max(1, states.count(TrialState.RUNNING))
    left = f", about {duration(total)} left" if total and None not in seconds else ""
    failed = "".join(
        f", {states.count(state)} {state}" for state in (TrialState.FAILED, TrialState.DIVERGED) if state in states
    )
    return f"{states.count(TrialState.DONE)}/{len(rows)} done{failed}, {duration(time.monotonic() - started)}{left}"
