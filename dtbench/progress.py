"""What the terminal shows: plans, a live table while trials run, listings."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from dtbench import registry
from dtbench.calibration import (
    Calibration,
    Estimate,
    calibrate,
    evaluations,
    measured,
    parallel_trials,
    scaled,
    wall_seconds,
)
from dtbench.data.download import OnBytes
from dtbench.errors import UnknownName
from dtbench.ledger import EPISODES, MOST_FAILURES, Ledger, read_episodes
from dtbench.spec import TrialSpec
from dtbench.storage import name_of
from dtbench.suite import Suite, load_suite
from dtbench.suite_document import suite_names

OnProgress = Callable[[TrialSpec, str, int, float | None], None]

ENDED = ("done", "failed", "diverged")  # states after which a trial has no more steps to go

PLAIN_SECONDS = 30.0  # between lines where there is no terminal
ROWS = 20  # trials a live table shows at most
MOMENT = 0.5  # seconds that opening a dataset may take before a line says what is going on
PIPED_WIDTH = 150  # where there is no terminal: a table would be cut to 80 columns
FULL_PRESET = "paper"  # what suites call the full protocol
# Sources whose data others have published numbers on.
REAL = {"d4rl": "D4RL", "dqn-replay": "DQN-replay", "minari": "Minari"}

_SAID_BEFORE = {"measured": "", "timed": "up to ", "scaled": "about ", "unknown": ""}


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


def preset_reason(suite: Suite, named: str, asked: str | None) -> str:
    """Why the suite, found by `named`, runs with its preset where none was asked for; else nothing."""
    if asked or not suite.preset:
        return ""
    try:
        wants_gpu = load_suite(named, preset=FULL_PRESET).resources.gpu > 0
    except UnknownName:
        return "the suite's default"
    gpu = torch.cuda.is_available()
    if suite.preset == FULL_PRESET:
        return "a GPU is here" if wants_gpu and gpu else "the suite's default"
    why = "no GPU here" if wants_gpu and not gpu else "the suite's default"
    return f"{why}; --preset {FULL_PRESET} for the full protocol"


def say_what_will_run(
    suite: Suite, specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], *, why: str = ""
) -> None:
    """How many trials, the preset and `why` it is that one, the tasks' options, and the data, loud where made here."""
    _say(f"{suite.name}: {len(specs)} trials, {len(specs) - len(missing)} done, {len(missing)} to run")
    if suite.preset:
        _say(f"preset {suite.preset}" + (f" ({why})" if why else ""))
    for line in _task_options(suite):
        _say(line)
    for (source, real), tasks in _by_source(specs).items():
        names = ", ".join(tasks)
        if real:
            caution = "behaviour policies of dtbench; never compare with published numbers"
            _say(f"data: GENERATED HERE, not {real}: {names} ({caution})", style="bold yellow")
        else:
            _say(f"data: {source} ({names})")


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


def say_scores(
    finals: pd.DataFrame, contenders: Sequence[str], tasks: Sequence[str], diverged: Mapping[tuple[str, str], int]
) -> None:
    """The suite's scores so far: means over training seeds at the last checkpoint, n seeds; holes stay holes.

    A line for each contender, or for each task where those are more: a table that is too wide cannot be read.
    `diverged` counts the seeds of a (contender, task) that did.
    """
    groups = finals.groupby(["contender", "task"]).score.agg(["mean", "count"])
    cells = {key: f"{count} diverged" for key, count in diverged.items()}
    for key, row in groups.iterrows():
        besides = f", {cells[key]}" if key in cells else ""
        cells[key] = f"{row['mean']:.1f} ({int(row['count'])}{besides})"
    tall = len(tasks) > len(contenders)
    lines, columns = (tasks, contenders) if tall else (contenders, tasks)
    table = Table("task" if tall else "contender")
    for column in columns:
        table.add_column(column, justify="right")
    for line in lines:
        keys = [(column, line) if tall else (line, column) for column in columns]
        table.add_row(line, *(cells.get(key, "not run") for key in keys))
    _say("score at the last checkpoint: mean over n training seeds (n)")
    _show(table)


def say_what_failed(specs: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Name every trial of these that failed or diverged, and the last line of its traceback."""
    for spec in specs:
        state, path = ledger.state(spec), ledger.folder(spec) / "error.txt"
        if state in ("failed", "diverged"):
            reason = ledger.failure(spec).get("message") or "no reason is recorded"
            _complain(f"{state}: {_name(spec)}: {reason}\n        see {path}")


def say_what_is_left_alone(specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Count the trials without a result that are not run again by themselves, and say what would run them."""
    run = {spec.key for spec in missing}
    states = Counter(ledger.state(spec) for spec in specs if spec.key not in run)
    said = {"diverged": "diverged before", "failed": f"failed {MOST_FAILURES} times"}
    left = [f"{states[state]} {what}" for state, what in said.items() if states[state]]
    if left:
        _complain(f"not run: {', '.join(left)}. `dtbench status` has the reasons, --again tries them once more.")


def say_plan(suite: Suite, specs: Sequence[TrialSpec], ledger: Ledger, *, try_learners: bool) -> None:
    """A table of contenders and tasks, what is done of them, and what the rest takes.

    Cells without a finished trial are judged by timing their learners, or else by finished trials of the same
    algorithm, where there are any.
    """
    known = measured(specs, ledger)
    missing = list({spec.key: spec for spec in specs if ledger.waiting(spec)}.values())
    new = [spec for spec in missing if spec.cell not in known]
    calibration = _calibration(new) if try_learners else Calibration(scaled(new, ledger))
    estimates = {**calibration.estimates, **known}
    _show(_plan_table(suite, specs, ledger, estimates))
    for line in _totals(missing, estimates):
        _say(line)
    for line in _legend(new, calibration):
        _say(line)
    _say(_disk(specs, ledger))


def list_suites() -> None:
    """Suites with their presets' default and size."""
    for name in suite_names():
        suite = load_suite(name)
        size = f"{len(suite.tasks)} tasks x {len(suite.contenders)} contenders x {len(suite.seeds)} seeds"
        print(f"{name:<24} {suite.title} ({size}, preset {suite.preset or 'none'})")


def list_tasks() -> None:
    """Tasks, domain by domain, and the sources that their data may come from, the best first."""
    console = Console(highlight=False)
    for domain, names in registry.tasks_by_domain().items():
        by_source: dict[str, list[str]] = {}
        for name in names:
            sources = [source.name for source in registry.make_task(name).sources] or ["generated"]
            by_source.setdefault(", else ".join(sources), []).append(name)
        _say(f"{domain}: {len(names)} tasks", style="bold")
        for sources_named, tasks in by_source.items():
            _say(f"  data: {sources_named}")
            console.print(Padding(Columns(tasks, padding=(0, 2), column_first=True, equal=True), (0, 0, 0, 4)))


def list_algorithms() -> None:
    """Registered algorithms, and the sets of hyperparameters that they have names for."""
    for name in registry.algorithm_names():
        found = registry.algorithm_class(name)
        _say(f"{name:<24} {(found.__doc__ or '').strip().splitlines()[0]}")
        for preset, values in registry.algorithm_presets(name).items():
            differences = ", ".join(f"{key}={value}" for key, value in values.items())
            _say(f"    preset {preset:<12} {differences or 'the defaults'}")


def list_runs(results: Path) -> None:
    """Finished trials of a ledger."""
    records = list(Ledger(results / "runs").records())
    for record in records:
        print(f"{record.spec.key}  {_name(record.spec):<48} {record.result.get('seconds', 0.0):>8.1f} s")
    print(f"{len(records)} finished trials in {name_of(results)}")


def show_trial(key: str, results: Path) -> None:
    """One trial in full."""
    folders = Ledger(results / "runs").folders()
    found = [own for own in folders if own.startswith(key)]
    if len(found) != 1:
        raise UnknownName("trial" if not found else "trial, ambiguous:", key, folders)
    folder = folders[found[0]]
    for name in ("spec.json", "result.json", "provenance.json", "error.txt"):
        if (folder / name).exists():
            print(f"== {folder / name}\n{(folder / name).read_text(errors='replace').rstrip()}")
    if (folder / EPISODES).exists():
        episodes = read_episodes(folder / EPISODES)
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
    return _duration((time.monotonic() - row.began) / row.step * (row.spec.budget - row.step))


def _summary(rows: Mapping[str, _Row], started: float) -> str:
    total = sum(max(row.spec.budget, 1) for row in rows.values())
    spent = sum(max(row.spec.budget, 1) if row.state in ENDED else row.step for row in rows.values())
    elapsed = time.monotonic() - started
    states = [row.state for row in rows.values()]
    left = f", about {_duration(elapsed / spent * (total - spent))} left" if spent and spent < total else ""
    failed = "".join(f", {states.count(state)} {state}" for state in ("failed", "diverged") if state in states)
    return f"{states.count('done')}/{len(rows)} done{failed}, {_duration(elapsed)}{left}"


def _calibration(specs: Sequence[TrialSpec]) -> Calibration:
    """Time the learners, saying so: a line before, and on a terminal which one it is."""
    if not specs:
        return Calibration()
    _say("timing the learners of what is not done, for about a minute at most (--no-calibrate: not) ...")
    console = Console(highlight=False)
    with console.status("") as status:

        def on_learner(done: int, learners: int, spec: TrialSpec) -> None:
            status.update(f"timing {done + 1}/{learners}: {spec.contender} on {spec.task}")

        return calibrate(specs, on_learner)


def _plan_table(suite: Suite, specs: Sequence[TrialSpec], ledger: Ledger, estimates: Mapping[str, Estimate]) -> Table:
    table = Table(title=f"{suite.title} (preset {suite.preset or 'none'})", title_justify="left")
    for column in ("task", "contender"):
        table.add_column(column)
    for column in ("updates", "evaluations", "seeds", "done", "failed", "time to go"):
        table.add_column(column, justify="right")
    for cell in dict.fromkeys(spec.cell for spec in specs):
        trials = [spec for spec in specs if spec.cell == cell]
        states = [ledger.state(spec) for spec in trials]
        failed = states.count("failed") + states.count("diverged")
        numbers = (trials[0].budget, evaluations(trials[0]), len(trials), states.count("done"), failed)
        to_go = _to_go(sum(ledger.waiting(spec) for spec in trials), estimates.get(cell))
        table.add_row(trials[0].task, trials[0].contender, *map(str, numbers), to_go)
    return table


def _to_go(trials: int, estimate: Estimate | None) -> str:
    if not trials:
        return "-"
    if estimate is None or estimate.basis == "unknown":
        return "unknown"
    return _SAID_BEFORE[estimate.basis] + _duration(trials * estimate.seconds)


def _totals(missing: Sequence[TrialSpec], estimates: Mapping[str, Estimate]) -> Iterator[str]:
    """The time of all trials one after another, and as many at a time as Ray would run here."""
    found = [estimates.get(spec.cell, Estimate(0.0, "unknown")) for spec in missing]
    seconds = [estimate.seconds for estimate in found if estimate.basis != "unknown"]
    unknown = len(found) - len(seconds)
    bases = {estimate.basis for estimate in found}
    before = "up to " if "timed" in bases else "about " if "scaled" in bases else ""
    further = f", and {unknown} trials of unknown length" if unknown else ""
    yield f"To go: {before}{_duration(sum(seconds))} of trial time{further}."
    if not missing:
        return
    resources = missing[0].resources
    parallel = parallel_trials(resources)
    if not parallel:
        asked = f"cpu {resources.get('cpu', 1):g} and gpu {resources.get('gpu', 0):g}"
        yield f"Ray cannot run them on this machine: each trial asks for {asked}. --local runs without."
    elif seconds:
        yield f"With Ray on this machine, {parallel} at a time: {before}{_duration(wall_seconds(seconds, parallel))}."


def _legend(timed: Sequence[TrialSpec], calibration: Calibration) -> Iterator[str]:
    if calibration.learners:
        tried = f"a calibration of {calibration.seconds:.0f} s, in which {calibration.learners} learners were tried"
        yield (
            f"'up to' is an estimate from {tried} one at a time, on this machine, as busy as it is now; every "
            "evaluation game is taken to last as long as the longest episode of the data."
        )
    if any(estimate.basis == "scaled" for estimate in calibration.estimates.values()):
        yield "'about' is scaled, step for step, from the slowest finished trial of the same algorithm."
    labels = {spec.cell: f"{spec.contender} on {spec.task}" for spec in timed}
    for cell, estimate in calibration.estimates.items():
        if estimate.basis == "unknown":
            yield f"unknown: {labels[cell]} cannot be timed: {estimate.reason}"


def _disk(specs: Sequence[TrialSpec], ledger: Ledger) -> str:
    done = [ledger.folder(spec) for spec in specs if ledger.state(spec) == "done"]
    if not done:
        return "Disk: unknown until a trial is done."
    sizes = [sum(path.stat().st_size for path in folder.iterdir()) for folder in done]
    waiting = len(specs) - len(done)
    mean = sum(sizes) / len(sizes)
    return f"Disk: {sum(sizes) / 2**20:.1f} MiB used, about {waiting * mean / 2**20:.1f} MiB more."


def _task_options(suite: Suite) -> Iterator[str]:
    """The options that all tasks of the suite share, then those that some have, tasks of equal ones together."""
    options = {task: suite.options_of(task) for task in suite.tasks}
    first, *others = options.values()
    shared = {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }
    if shared:
        yield f"task options: {_listed(shared)}"
    tasks_of: dict[str, list[str]] = {}
    for task, given in options.items():
        own = _listed({name: value for name, value in given.items() if name not in shared})
        tasks_of.setdefault(own, []).append(task)
    for own, tasks in tasks_of.items():
        if own:
            yield f"task options of {', '.join(tasks)}: {own}"


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _by_source(specs: Sequence[TrialSpec]) -> dict[tuple[str, str], list[str]]:
    """(Source of the data, names of the real sources that they stand in for) -> tasks."""
    found: dict[tuple[str, str], list[str]] = {}
    for spec in {spec.task: spec for spec in specs}.values():
        sources = registry.make_task(spec.task, spec.task_options).sources
        real = [REAL[source.name] for source in sources if source.name in REAL and source.automatic]
        stood_in_for = "" if spec.dataset_source in REAL else " or ".join(real)
        found.setdefault((spec.dataset_source, stood_in_for), []).append(spec.task)
    return found


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def _say(text: str, style: str | None = None) -> None:
    """Print a line as it is, however long."""
    Console(highlight=False).print(text, style=style, markup=False, soft_wrap=True)


def _show(table: Table) -> None:
    console = Console(highlight=False)
    (console if console.is_terminal else Console(width=PIPED_WIDTH, highlight=False)).print(table)


def _name(spec: TrialSpec) -> str:
    return f"{spec.task} {spec.contender} seed {spec.seed}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
