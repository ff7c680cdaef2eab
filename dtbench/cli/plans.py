"""What is said of a suite before it runs, on the terminal: its data, what is done, what the rest takes."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from dtbench import registry
from dtbench.cli.progress import complain, duration, finished_seconds, say, show
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


def say_what_is_left_alone(specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Count the trials without a result that are not run again by themselves, and say what would run them."""
    run = {spec.key for spec in missing}
    states = Counter(ledger.state(spec) for spec in specs if spec.key not in run)
    said = {TrialState.DIVERGED: "diverged before", TrialState.FAILED: f"failed {MOST_FAILURES} times"}
    left = [f"{states[state]} {what}" for state, what in said.items() if states[state]]
    if left:
        complain(f"not run: {', '.join(left)}. `dtbench status` has the reasons, --again tries them once more.")


def say_plan(suite: Suite, specs: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Print contenders and tasks, what is done of them, and the time to go where finished trials tell it."""
    speeds = finished_seconds(specs, ledger)
    missing = list({spec.key: spec for spec in specs if ledger.should_run(spec)}.values())
    show(_plan_table(suite, specs, ledger, speeds))
    known = [speeds[spec.cell] * max(spec.train_steps, 1) for spec in missing if spec.cell in speeds]
    unknown = f", and {len(missing) - len(known)} trials of unknown length" if len(known) < len(missing) else ""
    say(f"To go: {duration(sum(known))} of trial time{unknown}.")
    if missing and not parallel_trials(missing[0].resources):
        cpu, gpu = (missing[0].resources.get(name, default) for name, default in (("cpu", 1), ("gpu", 0)))
        say(f"Ray cannot run them on this machine: each trial asks for cpu {cpu:g} and gpu {gpu:g}. Use --local.")
    say(_disk(specs, ledger))


def evaluations(spec: TrialSpec) -> int:
    """Return how often a trial is evaluated: every so many steps and after the last."""
    return max(1, math.ceil(spec.train_steps / spec.evaluation.every))


def _plan_table(suite: Suite, specs: Sequence[TrialSpec], ledger: Ledger, speeds: Mapping[str, float]) -> Table:
    table = Table(title=f"{suite.title} (preset {suite.preset or 'none'})", title_justify="left")
    for column in ("task", "contender"):
        table.add_column(column)
    for column in ("updates", "evaluations", "seeds", "done", "failed", "time to go"):
        table.add_column(column, justify="right")
    for cell in dict.fromkeys(spec.cell for spec in specs):
        trials = [spec for spec in specs if spec.cell == cell]
        states = [ledger.state(spec) for spec in trials]
        failed = states.count(TrialState.FAILED) + states.count(TrialState.DIVERGED)
        budget, done = trials[0].train_steps, states.count(TrialState.DONE)
        missing = sum(ledger.should_run(spec) for spec in trials)
        to_go = duration(missing * speeds[cell] * max(budget, 1)) if missing and cell in speeds else ""
        numbers = (budget, evaluations(trials[0]), len(trials), done, failed)
        table.add_row(trials[0].task, trials[0].contender, *map(str, numbers), to_go)
    return table


def _disk(specs: Sequence[TrialSpec], ledger: Ledger) -> str:
    done = [ledger.folder(spec) for spec in specs if ledger.state(spec) is TrialState.DONE]
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
