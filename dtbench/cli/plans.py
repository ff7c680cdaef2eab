"""What is said of a suite before it runs, on the terminal: its data, what is done, what the rest takes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dtbench import registry
from dtbench.cli.progress import complain, duration, say, show
from dtbench.errors import UnknownName
from dtbench.execution.calibration import (
    Calibration,
    Estimate,
    calibrate,
    evaluations,
    measured,
    parallel_trials,
    scaled,
    wall_seconds,
)
from dtbench.ledger.store import MOST_FAILURES, Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.suite.planning import load_suite
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
_SAID_BEFORE = {"measured": "", "timed": "up to ", "scaled": "about ", "unknown": ""}


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
    show(_plan_table(suite, specs, ledger, estimates))
    for line in _totals(missing, estimates):
        say(line)
    for line in _legend(new, calibration):
        say(line)
    say(_disk(specs, ledger))


def _calibration(specs: Sequence[TrialSpec]) -> Calibration:
    """Time the learners, saying so: a line before, and on a terminal which one it is."""
    if not specs:
        return Calibration()
    say("timing the learners of what is not done, for about a minute at most (--no-calibrate: not) ...")
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
        failed = states.count(TrialState.FAILED) + states.count(TrialState.DIVERGED)
        numbers = (trials[0].budget, evaluations(trials[0]), len(trials), states.count(TrialState.DONE), failed)
        to_go = _to_go(sum(ledger.waiting(spec) for spec in trials), estimates.get(cell))
        table.add_row(trials[0].task, trials[0].contender, *map(str, numbers), to_go)
    return table


def _to_go(trials: int, estimate: Estimate | None) -> str:
    if not trials:
        return "-"
    if estimate is None or estimate.basis == "unknown":
        return "unknown"
    return _SAID_BEFORE[estimate.basis] + duration(trials * estimate.seconds)


def _totals(missing: Sequence[TrialSpec], estimates: Mapping[str, Estimate]) -> Iterator[str]:
    """The time of all trials one after another, and as many at a time as Ray would run here."""
    found = [estimates.get(spec.cell, Estimate(0.0, "unknown")) for spec in missing]
    seconds = [estimate.seconds for estimate in found if estimate.basis != "unknown"]
    unknown = len(found) - len(seconds)
    bases = {estimate.basis for estimate in found}
    before = "up to " if "timed" in bases else "about " if "scaled" in bases else ""
    further = f", and {unknown} trials of unknown length" if unknown else ""
    yield f"To go: {before}{duration(sum(seconds))} of trial time{further}."
    if not missing:
        return
    resources = missing[0].resources
    parallel = parallel_trials(resources)
    if not parallel:
        asked = f"cpu {resources.get('cpu', 1):g} and gpu {resources.get('gpu', 0):g}"
        yield f"Ray cannot run them on this machine: each trial asks for {asked}. --local runs without."
    elif seconds:
        yield f"With Ray on this machine, {parallel} at a time: {before}{duration(wall_seconds(seconds, parallel))}."


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
