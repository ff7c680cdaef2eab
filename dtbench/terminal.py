"""How a line, a table, a trial and a time look on the terminal."""

from rich.console import Console
from rich.table import Table

from dtbench.spec import TrialSpec

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
