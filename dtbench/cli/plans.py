"""The output of `run`: before the trials their data, counts and time left; after them scores and failures."""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from dtbench import registry
from dtbench.analysis.convergence import ENOUGH, LATE_EVALUATIONS, late_evaluations
from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.statistics import MIN_SEEDS
from dtbench.analysis.superseded import sentences
from dtbench.cli.progress import complain, duration, finished_seconds, note, quiet, say, show, trial_name
from dtbench.convergence import backups_of, return_profile
from dtbench.errors import decimals_of
from dtbench.execution.resources import parallel_trials
from dtbench.ledger.remote import remote_of
from dtbench.ledger.store import MOST_FAILURES, Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.suite.loading import read_document
from dtbench.suite.schema import Suite

FULL_PRESET = "paper"  # the full protocol
# Sources with published numbers.
PUBLISHED_SOURCES = {"d4rl": "D4RL", "dqn-replay": "DQN-replay", "minari": "Minari"}
_CAUTIONS = {
    "re-recorded": "data: RE-RECORDED with D4RL's policies in its physics, comparable with published numbers",
    "re-recorded-part": "data: A PART of a re-recorded set (fewer steps than D4RL's, or other physics), never compare "
    "with published numbers",
    "d4rl-excerpt": "data: AN EXCERPT of D4RL's file, never compare with published numbers",
}


def preset_reason(suite: Suite, name: str, preset: str | None) -> str:
    """Return why the suite of this name runs with its preset, if the user did not choose it."""
    if preset or not suite.preset:
        return ""
    has_full = suite.preset != FULL_PRESET and FULL_PRESET in read_document(name)["presets"]
    return "the suite's default" + (f"; --preset {FULL_PRESET} for the full protocol" if has_full else "")


def print_trials(suite: Suite, specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], *, why: str = "") -> None:
    """Print the number of trials, the preset and its reason `why`, the tasks' options and their data sources."""
    note(f"{suite.name}: {len(specs)} trials, {len(specs) - len(missing)} done, {len(missing)} to run")
    if suite.preset:
        note(f"preset {suite.preset}" + (f" ({why})" if why else ""))
    for line in _task_options(suite):
        note(line)
    for (source, published), tasks in _by_source(specs).items():
        names = ", ".join(tasks)
        if source in _CAUTIONS:
            first = {spec.task: spec for spec in specs if spec.task in tasks}
            _caution(f"{_CAUTIONS[source]}: {', '.join(map(_with_excerpt, first.values()))}")
        elif published:
            caution = "behaviour policies of dtbench; never compare with published numbers"
            _caution(f"data: GENERATED HERE, not {published}: {names} ({caution})")
        else:
            note(f"data: {source} ({names})")


def print_shared(specs: Sequence[TrialSpec], shared: Collection[str], ledger: Ledger) -> None:
    """Print the number of planned trials that only other suites have finished; `shared` are the keys of theirs."""
    if count := sum(spec.key in shared and ledger.state(spec) is TrialState.MISSING for spec in specs):
        note(f"{count} of the done are archived trials of other suites: the same settings on the same data")


def _caution(text: str) -> None:
    """Print a line that stands out; with -q on stderr, beside which tables stand alone."""
    if quiet():
        complain(text)
    else:
        say(text, style="bold yellow")


def print_remarks(
    saved: Mapping[str, Any] | None,
    specs: Sequence[TrialSpec],
    missing: Sequence[TrialSpec],
    archived: Collection[str],
    ledger: Ledger,
) -> None:
    """Print what is superseded, what needs no training or has no data yet, and what does not run again."""
    print_without_data(specs)
    print_changes(saved, specs)
    print_unconverged(missing)
    print_rarely_evaluated(specs, missing)
    print_trained(missing, ledger)
    print_skipped(specs, [*(spec.key for spec in missing), *archived], ledger)


def print_without_data(specs: Sequence[TrialSpec]) -> None:
    """Print the tasks whose data are not on disk, of which a dry run knows less than a run."""
    if names := _without_data(specs):
        complain(
            f"no data on disk: {', '.join(names)}. A run downloads or generates them first, which takes minutes; a "
            "dry run does not. Until then nothing says which of their trials are done, whether their learners fit, "
            "and whether TD learners will converge."
        )


def _without_data(specs: Sequence[TrialSpec]) -> list[str]:
    return list(dict.fromkeys(spec.task for spec in specs if not spec.dataset_digest))


def print_other_data(missing: Sequence[TrialSpec], planned: Iterable[TrialSpec]) -> None:
    """Print the tasks whose data are others than those of the archived trials, from the same source and options."""
    known: dict[tuple[str, ...], list[str]] = {}
    for spec in planned:
        if spec.dataset_digest:
            known.setdefault(_origin(spec), []).append(spec.dataset_digest)
    for spec in {spec.task: spec for spec in missing}.values():
        theirs = known.get(_origin(spec), [])
        if spec.dataset_digest and theirs and spec.dataset_digest not in theirs:
            complain(
                f"{spec.task}: its {spec.dataset_source} data here (digest {spec.dataset_digest[:12]}) are not those "
                f"of results/scores ({theirs[-1][:12]}), so that none of the trials there counts. Equal settings "
                "record other digits on another kind of processor; else the recipe or the file has changed."
            )


def _origin(spec: TrialSpec) -> tuple[str, ...]:
    return spec.task, spec.dataset_source, json.dumps(spec.task_options, sort_keys=True)


def print_unconverged(specs: Sequence[TrialSpec]) -> None:
    """Print the value learners whose steps cannot bring the data's rewards back, and how many steps could."""
    for spec in {spec.cell: spec for spec in specs}.values():
        backups = backups_of(registry.make_algorithm(spec.algorithm, spec.hyperparameters))
        if backups is None or not spec.train_steps or not spec.dataset_digest:
            continue
        task = registry.make_task(spec.task, spec.task_options)
        profile = return_profile(task.open(spec.open_from or spec.dataset_source), backups.discount)
        reached = backups.per_step * spec.train_steps
        if (share := profile.share(reached)) < ENOUGH:
            complain(
                f"{spec.contender} on {spec.task} will not converge: {spec.train_steps} steps are {reached:.3g} "
                f"Bellman backups, which reach {share:.0%} of the data's discounted return. {ENOUGH:.0%} take "
                f"{profile.steps_for(backups.per_step, ENOUGH)} steps, or faster targets. Its row takes part in no "
                "verdict."
            )


def print_rarely_evaluated(specs: Sequence[TrialSpec], missing: Sequence[TrialSpec]) -> None:
    """Print the contenders with seeds enough for a verdict of which nobody could tell whether they converged."""
    seeds = Counter((spec.task, spec.contender) for spec in specs)
    found: dict[tuple[str, int], list[str]] = {}
    for spec in {spec.cell: spec for spec in missing}.values():
        if seeds[spec.task, spec.contender] >= MIN_SEEDS and late_evaluations(spec) < LATE_EVALUATIONS:
            found.setdefault((spec.contender, spec.train_steps), []).append(spec.task)
    for (contender, steps), tasks in found.items():
        complain(
            f"{contender} on {', '.join(tasks)} is evaluated less than twice in the last third of its training, so "
            "that nobody can tell whether it converges. Its row takes part in no verdict. An eval_interval of "
            f"{steps // 3 + 1} or less helps."
        )


def print_changes(saved: Mapping[str, Any] | None, specs: Sequence[TrialSpec]) -> None:
    """Print which contenders of a saved suite get another configuration, and how to keep both apart."""
    earlier = {(trial["task"], trial["contender"]): trial for trial in (saved or {}).get("trials", ())}
    cells = {name: TrialSpec.from_json(trial).cell for name, trial in earlier.items()}
    known = [spec for spec in specs if spec.dataset_digest]
    changed = [spec for spec in known if cells.get((spec.task, spec.contender), spec.cell) != spec.cell]
    if changed:
        names = ", ".join(dict.fromkeys(spec.contender for spec in changed))
        complain(
            f"another configuration than before: {names}. Finished trials of the earlier one are superseded: listed "
            "apart, in no mean. --name NAME makes a suite of its own instead."
        )


def print_superseded(results: SuiteResults) -> None:
    """Print the superseded configurations with their scores."""
    for line in sentences(results):
        say(line)


def print_trained(missing: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Print the number of trials to run whose learners other trials have trained."""
    known = {training for task in {spec.task for spec in missing} for training in ledger.trained_learners(task)}
    if count := sum(spec.training in known and ledger.state(spec) is TrialState.MISSING for spec in missing):
        note(f"no training for {count} of them: finished trials differ in the evaluation alone")


def print_skipped(specs: Sequence[TrialSpec], others: Collection[str], ledger: Ledger) -> None:
    """Print the number of failed trials that do not run again; `others` are the keys of all other trials."""
    states = Counter(ledger.state(spec) for spec in specs if spec.key not in others)
    reasons = {TrialState.DIVERGED: "diverged before", TrialState.FAILED: f"failed {MOST_FAILURES} times"}
    skipped = [f"{states[state]} {reason}" for state, reason in reasons.items() if states[state]]
    if skipped:
        complain(f"not run: {', '.join(skipped)}. `dtbench status` shows why, --retry-failed runs them again.")


def print_plan(
    suite: Suite, specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], ledger: Ledger, *, as_json: bool = False
) -> None:
    """Print a table of contenders and tasks, and the time left as far as finished trials show it."""
    speeds = finished_seconds(specs, ledger)
    rows = _plan_rows(specs, missing, ledger, speeds)
    if as_json:
        whole = {"suite": suite.name, "preset": suite.preset, "trials": len(specs), "to_run": len(missing)}
        print(json.dumps({**whole, "without_data": _without_data(specs), "rows": rows}, indent=2))
        return
    show(_plan_table(f"{suite.title} (preset {suite.preset or 'none'})", rows))
    known = [speeds[spec.cell] * max(spec.train_steps, 1) for spec in missing if spec.cell in speeds]
    parts = [f"{duration(sum(known))} of trial time"] if known or not missing else []
    unknown = len(missing) - len(known)
    parts += [f"{unknown} trial{'s' * (unknown > 1)} of unknown length"] if unknown else []
    say(f"To go: {', and '.join(parts)}.")
    if missing and not parallel_trials(missing[0].resources):
        cpu, gpu = (missing[0].resources.get(name, default) for name, default in (("cpu", 1), ("gpu", 0)))
        say(f"Ray cannot run them on this machine: each trial needs cpu {cpu:g} and gpu {gpu:g}. Use --local.")


def print_scores(
    finals: pd.DataFrame, contenders: Sequence[str], tasks: Sequence[str], diverged: Mapping[tuple[str, str], int]
) -> None:
    """Print mean scores over training seeds at the last checkpoint, with one row a contender, or a task if more.

    `diverged` counts the diverged seeds of a (contender, task).
    """
    groups = finals.groupby(["contender", "task"]).score.agg(["mean", "count"])
    cells = {key: f"{count} diverged" for key, count in diverged.items()}
    for key, row in groups.iterrows():
        others = f", {cells[key]}" if key in cells else ""
        cells[key] = f"{row['mean']:.{decimals_of(row['mean'])}f} ({int(row['count'])}{others})"
    by_task = len(tasks) > len(contenders)
    rows, columns = (tasks, contenders) if by_task else (contenders, tasks)
    table = Table("task" if by_task else "contender")
    for column in columns:
        table.add_column(column, justify="right")
    for name in rows:
        keys = [(column, name) if by_task else (name, column) for column in columns]
        table.add_row(name, *(cells.get(key, "not run") for key in keys))
    say("score at the last checkpoint: mean over n training seeds (n)")
    show(table)


def print_results(results: SuiteResults, document: Mapping[str, Any]) -> None:
    """Print the scores of a suite, then what is superseded."""
    lost = (one.spec for one in results.unfinished if one.state is TrialState.DIVERGED)
    diverged = Counter((spec.contender, spec.task) for spec in lost)
    print_scores(final_rows(results), list(document["contenders"]), document["tasks"], diverged)
    print_superseded(results)


def scores_json(results: SuiteResults, folder: Path) -> dict[str, Any]:
    """Return the scores at the last checkpoint by task and contender, the unfinished trials, and where scores are."""
    rows = []
    for (task, contender), own in final_rows(results).groupby(["task", "contender"], sort=False):
        seeds = {int(row.seed): _finite(row.score) for row in own.itertuples()}
        rows.append({"task": task, "contender": contender, "mean": _finite(own.score.mean()), "seeds": seeds})
    unfinished = [{"trial": one.spec.key, "state": one.state} for one in results.unfinished]
    file = str(folder / "scores" / f"{results.name}.csv") if results.records else None
    return {"suite": results.name, "scores": rows, "unfinished": unfinished, "file": file}


def _finite(value: float) -> float | None:
    """Return the number; None for nan and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def print_next_steps(results: SuiteResults, ledger: Ledger) -> None:
    """Print where the scores are, the command that makes the page, and the one that shows the best policy."""
    folder = ledger.root.parent
    where = "" if folder == Path("results") else f" --results {remote_of(folder) or folder}"
    say(f"scores: {folder / 'scores' / results.name}.csv")
    note(f"page:   dtbench report --suite {results.name}{where} --open")
    best = final_rows(results).sort_values("score", ascending=False, kind="stable")
    known = ledger.folders()
    key = next((key for key in best["trial"] if key in known and (known[key] / "checkpoint.pt").exists()), None)
    if key:
        note(f"watch:  dtbench play {key}{where} --gif policy.gif")


def print_failures(specs: Sequence[TrialSpec], ledger: Ledger) -> None:
    """Print every failed or diverged trial with the last line of its traceback."""
    for spec in specs:
        state = ledger.state(spec)
        if state in (TrialState.FAILED, TrialState.DIVERGED):
            reason = ledger.failure(spec).message or "no reason is recorded"
            complain(f"{state}: {trial_name(spec)}: {reason}\n        see {ledger.folder(spec) / 'error.txt'}")


def evaluations(spec: TrialSpec) -> int:
    """Return the number of evaluations of a trial."""
    return max(1, math.ceil(spec.train_steps / spec.evaluation.every))


def _plan_rows(
    specs: Sequence[TrialSpec], missing: Sequence[TrialSpec], ledger: Ledger, speeds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return a row a task and contender: their trials, and the seconds left, None where nobody knows."""
    seeds, to_run = Counter(spec.cell for spec in specs), Counter(spec.cell for spec in missing)
    failed = Counter(spec.cell for spec in specs if ledger.state(spec) in (TrialState.FAILED, TrialState.DIVERGED))
    return [
        {
            "task": spec.task,
            "contender": spec.contender,
            "steps": spec.train_steps,
            "evals": evaluations(spec),
            "seeds": seeds[cell],
            "to run": to_run[cell],
            "failed": failed[cell],
            "seconds left": to_run[cell] * speeds[cell] * max(spec.train_steps, 1) if cell in speeds else None,
        }
        for cell, spec in {spec.cell: spec for spec in specs}.items()
    ]


def _plan_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("task", "contender", title=title, title_justify="left")
    for column in ("steps", "evals", "seeds", "to run", "failed", "time left"):
        table.add_column(column, justify="right")
    for row in rows:
        seconds = row["seconds left"]
        left = duration(seconds) if seconds is not None and row["to run"] else ""
        table.add_row(*map(str, list(row.values())[:-1]), left)
    return table


def _task_options(suite: Suite) -> Iterator[str]:
    """Yield the options that all tasks share, then the others with their tasks."""
    options = {task: suite.options_of(task) for task in suite.tasks}
    first, *others = options.values()
    shared = {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }
    if shared:
        yield f"task options: {_format_options(shared)}"
    tasks_of: dict[str, list[str]] = {}
    for task, values in options.items():
        text = _format_options({name: value for name, value in values.items() if name not in shared})
        tasks_of.setdefault(text, []).append(task)
    yield from (f"task options of {', '.join(tasks)}: {text}" for text, tasks in tasks_of.items() if text)


def _format_options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _with_excerpt(spec: TrialSpec) -> str:
    """Return the task's name and, of an excerpt, its size."""
    if not spec.dataset_digest:
        return spec.task
    task = registry.make_task(spec.task, spec.task_options)
    excerpt = task.open(spec.open_from or spec.dataset_source).info.get("excerpt")
    return f"{spec.task} ({excerpt})" if excerpt else spec.task


def _by_source(specs: Sequence[TrialSpec]) -> dict[tuple[str, str], list[str]]:
    """Return the tasks by (source of their data, names of the published sources that it replaces)."""
    groups: dict[tuple[str, str], list[str]] = {}
    for spec in {spec.task: spec for spec in specs}.values():
        sources = registry.make_task(spec.task, spec.task_options).sources
        names = [PUBLISHED_SOURCES[one.name] for one in sources if one.name in PUBLISHED_SOURCES and one.automatic]
        replaced = "" if spec.dataset_source in PUBLISHED_SOURCES else " or ".join(names)
        groups.setdefault((spec.dataset_source, replaced), []).append(spec.task)
    return groups
