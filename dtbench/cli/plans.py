"""What `run` prints: before the trials their data, counts and time left, after them scores and failures."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from dtbench import registry
from dtbench.cli.progress import complain, duration, finished_seconds, say, show, trial_name
from dtbench.execution.resources import parallel_trials
from dtbench.ledger.store import MOST_FAILURES, Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.suite.loading import read_document
from dtbench.suite.schema import Suite

FULL_PRESET = "paper"  # what suites call the full protocol
# Sources whose data others have published numbers on.
REAL = {"d4rl": "D4RL", "dqn-replay": "DQN-replay", "minari": "Minari"}
_CAUTIONS = {
    "re-recorded": "data: RE-RECORDED with D4RL's policies in its physics, comparable with published numbers",
    "re-recorded-part": "data: A PART of a re-recorded set (fewer steps than D4RL's, or other physics), never compare "
    "with published numbers",
    "d4rl-excerpt": "data: AN EXCERPT of D4RL's file, never compare with published numbers",
}


def preset_reason(suite: Suite, named: str, asked: str | None) -> str:
    """Why the suite, found by `named`, runs with its preset where none was asked for; else nothing."""
    if asked or not suite.preset:
        return ""
    full = suite.preset != FULL_PRESET and FULL_PRESET in read_document(named)["presets"]
    return "the suite's default" + (f"; --preset {FULL_PRESET} for the full protocol" if full else "")


def say_what_will_run(
    suite: Suite, specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], *, why: str = ""
) -> None:
    """How many trials, the preset and `why` it is that one, the tasks' options, and the data, loud where made here."""
    say(f"{suite.name}: {len(specs)} trials, {len(specs) - len(missing)} done, {len(missing)} to run")
    if suite.preset:
        say(f"preset {suite.preset}" + (f" ({why})" if why else ""))
    for line in _task_options(suite):
        say(line)
    for (source, real), tasks in _by_source(specs).items():
        names = ", ".join(tasks)
        if source in _CAUTIONS:
            ran = {spec.task: spec for spec in specs if spec.task in tasks}
            say(f"{_CAUTIONS[source]}: {', '.join(map(_with_excerpt, ran.values()))}", style="bold yellow")
        elif real:
            caution = "behaviour policies of dtbench; never compare with published numbers"
            say(f"data: GENERATED HERE, not {real}: {names} ({caution})", style="bold yellow")
        else:
            say(f"data: {source} ({names})")


def say_what_is_left_alone(specs: Sequence[TrialSpec], others: Collection[str], ledger: Ledger) -> None:
    """Count the trials that failed and do not run again; `others` are the keys of those that run or are archived."""
    states = Counter(ledger.state(spec) for spec in specs if spec.key not in others)
    said = {TrialState.DIVERGED: "diverged before", TrialState.FAILED: f"failed {MOST_FAILURES} times"}
    left = [f"{states[state]} {what}" for state, what in said.items() if states[state]]
    if left:
        complain(f"not run: {', '.join(left)}. `dtbench status` has the reasons, --retry-failed runs them again.")


def say_plan(suite: Suite, specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Print contenders and tasks, what is done of them, and the time left as far as finished trials show it."""
    speeds = finished_seconds(specs, ledger)
    show(_plan_table(suite, specs, missing, ledger, speeds))
    known = [speeds[spec.cell] * max(spec.train_steps, 1) for spec in missing if spec.cell in speeds]
    unknown = f", and {len(missing) - len(known)} trials of unknown length" if len(known) < len(missing) else ""
    say(f"To go: {duration(sum(known))} of trial time{unknown}.")
    if missing and not parallel_trials(missing[0].resources):
        cpu, gpu = (missing[0].resources.get(name, default) for name, default in (("cpu", 1), ("gpu", 0)))
        say(f"Ray cannot run them on this machine: each trial asks for cpu {cpu:g} and gpu {gpu:g}. Use --local.")


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
    say("score at the last checkpoint: mean over n training seeds (n)")
    show(table)


def say_what_failed(specs: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Name every trial of these that failed or diverged, and the last line of its traceback."""
    for spec in specs:
        state, path = ledger.state(spec), ledger.folder(spec) / "error.txt"
        if state in (TrialState.FAILED, TrialState.DIVERGED):
            reason = ledger.failure(spec).message or "no reason is recorded"
            complain(f"{state}: {trial_name(spec)}: {reason}\n        see {path}")


def evaluations(spec: TrialSpec) -> int:
    """Return how often a trial is evaluated: every so many steps and after the last."""
    return max(1, math.ceil(spec.train_steps / spec.evaluation.every))


def _plan_table(
    suite: Suite,
    specs: Sequence[TrialSpec],
    missing: Sequence[TrialSpec],
    ledger: Ledger,
    speeds: Mapping[str, float],
) -> Table:
    table = Table("task", "contender", title=f"{suite.title} (preset {suite.preset or 'none'})", title_justify="left")
    for column in ("steps", "evaluations", "seeds", "to run", "failed", "time left"):
        table.add_column(column, justify="right")
    to_run = Counter(spec.cell for spec in missing)
    failed = Counter(spec.cell for spec in specs if ledger.state(spec) in (TrialState.FAILED, TrialState.DIVERGED))
    for cell, spec in {spec.cell: spec for spec in specs}.items():
        seeds = sum(other.cell == cell for other in specs)
        left = duration(to_run[cell] * speeds[cell] * max(spec.train_steps, 1)) if cell in speeds else ""
        numbers = (spec.train_steps, evaluations(spec), seeds, to_run[cell], failed[cell])
        table.add_row(spec.task, spec.contender, *map(str, numbers), left if to_run[cell] else "")
    return table


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


def _with_excerpt(spec: TrialSpec) -> str:
    """The task's name, and how much an excerpt holds."""
    task = registry.make_task(spec.task, spec.task_options)
    excerpt = task.open(spec.open_from or spec.dataset_source).info.get("excerpt")
    return f"{spec.task} ({excerpt})" if excerpt else spec.task


def _by_source(specs: Sequence[TrialSpec]) -> dict[tuple[str, str], list[str]]:
    """(Source of the data, names of the real sources that they stand in for) -> tasks."""
    found: dict[tuple[str, str], list[str]] = {}
    for spec in {spec.task: spec for spec in specs}.values():
        sources = registry.make_task(spec.task, spec.task_options).sources
        real = [REAL[source.name] for source in sources if source.name in REAL and source.automatic]
        stood_in_for = "" if spec.dataset_source in REAL else " or ".join(real)
        found.setdefault((spec.dataset_source, stood_in_for), []).append(spec.task)
    return found
