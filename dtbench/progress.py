"""What the terminal shows: plans, a live table while trials run, listings."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from dtbench import registry
from dtbench.data.download import OnBytes
from dtbench.errors import UnknownName
from dtbench.ledger import Ledger
from dtbench.spec import TrialSpec
from dtbench.suite import Suite, load_suite, suite_names

OnProgress = Callable[[TrialSpec, str, int, float | None], None]

PLAIN_SECONDS = 30.0  # between lines where there is no terminal
ROWS = 20  # trials a live table shows at most


@dataclass
class _Row:
    """A trial as the live table knows it."""

    spec: TrialSpec
    state: str = "waiting"
    step: int = 0
    score: float | None = None
    began: float = 0.0


def say_what_will_run(suite: Suite, specs: Sequence[TrialSpec], missing: Sequence[TrialSpec]) -> None:
    """One line on the plan and one on the data, loud where they are generated."""
    console = Console(highlight=False)
    preset = f", preset {suite.preset}" if suite.preset else ""
    console.print(
        f"{suite.name}{preset}: {len(specs)} trials, {len(specs) - len(missing)} done, {len(missing)} to run"
    )
    for source, tasks in _by_source(specs).items():
        console.print(f"data: [bold]{source}[/bold] ({', '.join(tasks)})")


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
                print(f"{state:<7} {_name(spec)}  [{_summary(rows, started)}]", flush=True)
            elif time.monotonic() - spoken > PLAIN_SECONDS:
                spoken = time.monotonic()
                print(f"running {_name(spec)} {step}/{spec.budget}  [{_summary(rows, started)}]", flush=True)

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


def say_scores(finals: pd.DataFrame, contenders: Sequence[str], tasks: Sequence[str]) -> None:
    """The suite's scores so far: means over training seeds at the last checkpoint, n seeds; holes stay holes."""
    table = Table()
    table.add_column("contender")
    for task in tasks:
        table.add_column(task, justify="right")
    groups = finals.groupby(["contender", "task"]).score.agg(["mean", "count"])
    cells = {key: f"{row['mean']:.1f} ({int(row['count'])})" for key, row in groups.iterrows()}
    for contender in contenders:
        table.add_row(contender, *(cells.get((contender, task), "not run") for task in tasks))
    console = Console(highlight=False)
    console.print("score at the last checkpoint: mean over n training seeds (n)")
    console.print(table)


def say_what_failed(failed: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Name every failed trial and the last line of its traceback."""
    for spec in failed:
        path = ledger.folder(spec) / "error.txt"
        reason = path.read_text().strip().splitlines()[-1] if path.exists() else "its worker died"
        Console(stderr=True, highlight=False).print(
            f"failed: {_name(spec)}: {reason}\n        see {path}", markup=False
        )


def say_plan(suite: Suite, specs: Sequence[TrialSpec], ledger: Ledger) -> None:
    """A table of contenders and tasks, what is done of them, and what the rest takes."""
    rates = _seconds_by_cell(specs, ledger)
    table = Table(title=f"{suite.title} (preset {suite.preset or 'none'})", title_justify="left")
    for column in ("task", "contender", "steps", "seeds", "done", "failed", "time to go"):
        table.add_column(column)
    total, unknown = 0.0, 0
    for cell in dict.fromkeys(spec.cell for spec in specs):
        trials = [spec for spec in specs if spec.cell == cell]
        states = [ledger.state(spec) for spec in trials]
        waiting = len(trials) - states.count("done")
        seconds = rates.get(cell)
        total += waiting * (seconds or 0)
        unknown += waiting if seconds is None else 0
        to_go = "-" if not waiting else "unknown" if seconds is None else _duration(waiting * seconds)
        numbers = (str(trials[0].budget), str(len(trials)), str(states.count("done")), str(states.count("failed")))
        table.add_row(trials[0].task, trials[0].contender, *numbers, to_go)
    console = Console(highlight=False)
    console.print(table)
    known = f"To go: {_duration(total)} of trial time, judged by the trials already done"
    console.print(f"{known}, and {unknown} trials of unknown length." if unknown else f"{known}.")
    console.print(_disk(specs, ledger))


def list_suites() -> None:
    """Suites with their presets' default and size."""
    for name in suite_names():
        suite = load_suite(name)
        size = f"{len(suite.tasks)} tasks x {len(suite.contenders)} contenders x {len(suite.seeds)} seeds"
        print(f"{name:<24} {suite.title} ({size}, preset {suite.preset or 'none'})")


def list_tasks() -> None:
    """Tasks, domain by domain."""
    for domain, names in registry.tasks_by_domain().items():
        for name in names:
            print(f"{name:<24} {domain}")


def list_algorithms() -> None:
    """Registered algorithms."""
    for name in registry.algorithm_names():
        found = registry.algorithm_class(name)
        print(f"{name:<24} {(found.__doc__ or '').strip().splitlines()[0]}")


def list_runs(results: Path) -> None:
    """Finished trials of a ledger."""
    records = list(Ledger(results / "runs").records())
    for record in records:
        print(f"{record.spec.key}  {_name(record.spec):<48} {record.result['seconds']:>8.1f} s")
    print(f"{len(records)} finished trials in {results / 'runs'}")


def show_trial(key: str, results: Path) -> None:
    """One trial in full."""
    root = results / "runs"
    found = [
        path for path in sorted(root.glob("*/*/spec.json")) if json.loads(path.read_text())["key"].startswith(key)
    ]
    if len(found) != 1:
        keys = [json.loads(path.read_text())["key"] for path in sorted(root.glob("*/*/spec.json"))]
        raise UnknownName("trial" if not found else "trial, ambiguous:", key, keys)
    folder = found[0].parent
    for name in ("spec.json", "result.json", "provenance.json", "error.txt"):
        if (folder / name).exists():
            print(f"== {folder / name}\n{(folder / name).read_text().rstrip()}")
    if (folder / "episodes.parquet").exists():
        episodes = pd.read_parquet(folder / "episodes.parquet")
        grouped = episodes.groupby(["step", "target"], dropna=False)[["return", "length", "score"]].mean()
        print(f"== means over evaluation episodes\n{grouped.to_string()}")


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
    order = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
    shown = sorted(rows.values(), key=lambda row: order.get(row.state, 4))[:ROWS]
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
    return _duration((time.monotonic() - row.began) / row.step * (row.spec.budget - row.step))


def _summary(rows: Mapping[str, _Row], started: float) -> str:
    total = sum(max(row.spec.budget, 1) for row in rows.values())
    spent = sum(max(row.spec.budget, 1) if row.state in ("done", "failed") else row.step for row in rows.values())
    elapsed = time.monotonic() - started
    states = [row.state for row in rows.values()]
    left = f", about {_duration(elapsed / spent * (total - spent))} left" if spent and spent < total else ""
    failed = f", {states.count('failed')} failed" if "failed" in states else ""
    return f"{states.count('done')}/{len(rows)} done{failed}, {_duration(elapsed)}{left}"


def _seconds_by_cell(specs: Sequence[TrialSpec], ledger: Ledger) -> dict[str, float]:
    """Mean seconds of the finished trials of each cell; else of the same algorithm on any data, per step."""
    found: dict[str, float] = {}
    rates: dict[str, list[float]] = {}
    for record in ledger.records():
        rates.setdefault(record.spec.algorithm, []).append(record.result["seconds"] / max(record.spec.budget, 1))
    for spec in specs:
        if spec.cell in found:
            continue
        same = [record.result["seconds"] for record in ledger.siblings(spec)]
        if same:
            found[spec.cell] = sum(same) / len(same)
        elif spec.algorithm in rates:
            found[spec.cell] = max(rates[spec.algorithm]) * max(spec.budget, 1)
    return found


def _disk(specs: Sequence[TrialSpec], ledger: Ledger) -> str:
    records = [record for record in map(ledger.record, specs) if record]
    if not records:
        return "Disk: unknown until a trial is done."
    sizes = [sum(p.stat().st_size for p in record.folder.iterdir()) for record in records]
    waiting = len(specs) - len(records)
    mean = sum(sizes) / len(sizes)
    return f"Disk: {sum(sizes) / 2**20:.1f} MiB used, about {waiting * mean / 2**20:.1f} MiB more."


def _by_source(specs: Sequence[TrialSpec]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for spec in specs:
        tasks = found.setdefault(spec.dataset_source, [])
        if spec.task not in tasks:
            tasks.append(spec.task)
    return found


def _name(spec: TrialSpec) -> str:
    return f"{spec.task} {spec.contender} seed {spec.seed}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
