"""The command that searches for hyperparameters: tune."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtbench.errors import DtbenchError, UnknownName

if TYPE_CHECKING:  # heavy modules are imported by the command: --help answers at once
    from dtbench.tuning.planning import Search
    from dtbench.tuning.ray_tune import SearchState
    from dtbench.tuning.search import SearchRecord
    from dtbench.tuning.space import Setting

SHOWN = 5  # settings in the table at the end


def _folder(text: str | Path) -> Path:
    if "://" in str(text):
        raise DtbenchError(f"--results {text}: a search keeps its ledger in a folder that all nodes reach. Name one.")
    return Path(text)


def tune(
    suite: Annotated[str, typer.Option("--suite", "-s", help="A name from `list suites`, or a YAML file.")],
    contender: Annotated[str, typer.Option("--contender", "-c", help="The one to tune.")],
    space: Annotated[str, typer.Option(help="A search space: a YAML file, or a name such as dt, cql, iql.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="path=value, e.g. evaluation.targets=[3600,1800] or train_steps=1000")
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help="Name or pattern. Default: all.")] = None,
    preset: Annotated[str | None, typer.Option(help="A preset of the suite: smoke, cpu, paper, ...")] = None,
    source: Annotated[str | None, typer.Option(help="Of the data: auto, d4rl, minari, ...")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Settings to try. Default: 32, or the whole grid.")
    ] = None,
    searcher: Annotated[str, typer.Option(help="random, optuna or grid")] = "random",
    asha: Annotated[bool, typer.Option("--asha", help="Stop what falls behind early (successive halving).")] = False,
    grace: Annotated[
        int | None,
        typer.Option(min=1, help="Gradient steps before --asha stops anything. Default: a 9th of the budget."),
    ] = None,
    reduction_factor: Annotated[int, typer.Option(min=2, help="--asha lets one in so many go on.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each setting, from 1000 on.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the search itself.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the search. Default: from suite, contender and task.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto or ray://host:10001.")] = None,
    results: Annotated[
        Path, typer.Option(parser=_folder, metavar="FOLDER", help="Of ledgers (runs/) and records (searches/).")
    ] = Path("results"),
) -> None:
    """Search for a contender's hyperparameters with Ray Tune; the same command continues an interrupted search.

    Nothing is tuned on what it is reported on: training seeds begin at 1000,
    and evaluation episodes are others than those of `run`. Every target
    return that is tried counts as a setting tried. Writes the record
    results/searches/NAME.json, which the report reads, and prints the best
    setting as a suite.
    """
    from dtbench.cli import progress
    from dtbench.suite.planning import load_suite, narrow
    from dtbench.tuning.planning import plan_search
    from dtbench.tuning.ray_tune import search_state
    from dtbench.tuning.search import SEARCHERS, TuneOptions, write_record
    from dtbench.tuning.space import load_space

    if searcher not in SEARCHERS:
        raise UnknownName("searcher", searcher, SEARCHERS)
    whole = load_suite(suite, preset=preset, source=source, overrides=overrides or ())
    chosen = narrow(whole, tasks=task or (), contenders=[contender])
    options = TuneOptions(searcher, samples, asha, grace, reduction_factor, seeds, seed)
    with progress.preparing():
        search = plan_search(chosen, load_space(space), options, results, name)
    with search_state(search) as state:
        _print_plan(search, state)
        _run(search, state, address)
        record = state.record
    if record.best is None:
        raise DtbenchError(f"no setting was trained to the end: see {search.root}. The same command tries again.")
    path = results / "searches" / f"{search.name}.json"
    write_record(path, record)
    _print_result(search, record, suite, path)
    raise typer.Exit(any(candidate.state == "failed" for candidate in record.candidates))


COMMANDS: tuple[Callable[..., None], ...] = (tune,)


def tuned_suite(search: "Search", record: "SearchRecord", base: str) -> dict[str, Any]:
    """Return a suite whose one contender has the best setting, and the target that did best as its first.

    Tasks that `base` does not report on are left out; where none remains, all of its own tasks are there.
    """
    from dtbench.suite.planning import load_suite

    config, best = search.config, record.best
    assert best is not None
    reported = set(config.tasks) & set(load_suite(base, preset=config.preset or None).tasks)
    targets = {
        task: {"targets": [target, *(other for other in config.targets[task] if other != target)]}
        for task, target in best.targets(config).items()
        if target is not None
    }
    own: dict[str, Any] = {"contenders": {f"{config.contender} tuned": _contender(search, best.hyperparameters)}}
    if reported:
        own["tasks"] = [task for task in config.tasks if task in reported]
        own |= {"by_task": {task: {"evaluation": targets[task]} for task in own["tasks"]}} if targets else {}
    elif targets:
        own["evaluation"] = next(iter(targets.values()))
    # Repeated in the preset, which would otherwise lay the base's tasks and targets over these.
    presets = {"presets": {config.preset: own}, "default_preset": config.preset} if config.preset else {}
    return {"name": search.name, "base": base, **own, **presets}


def _contender(search: "Search", setting: "Setting") -> dict[str, Any]:
    """Return all that decides the contender, with what differs from task to task by task."""
    first = search.specs[0]
    by_task = {spec.task: spec.hyperparameters for spec in search.specs_of(setting)}
    contender = {
        "algorithm": first.algorithm,
        "train_steps": first.train_steps,
        "action_mode": first.evaluation.action_mode,
        "hyperparameters": by_task[first.task],
    }
    if any(values != by_task[first.task] for values in by_task.values()):
        contender["by_task"] = {task: {"hyperparameters": values} for task, values in by_task.items()}
    return contender


def _run(search: "Search", state: "SearchState", address: str | None) -> None:
    """Run what is left; Ctrl-C ends with exit code 130 and loses nothing that is done."""
    from dtbench.tuning.ray_tune import run_search

    try:
        run_search(search, state, typer.echo, address=address)
    except KeyboardInterrupt:
        typer.echo("interrupted: what is done is kept, the same command continues the rest.", err=True)
        raise typer.Exit(130) from None


def _print_plan(search: "Search", state: "SearchState") -> None:
    config, ended = search.config, len(state.ended)
    typer.echo(f"{search.name}: {search.num_samples} settings, {ended} done, {search.num_samples - ended} to try")
    rungs = ", ".join(map(str, config.rungs[:-1]))
    stopped = f", one in {config.reduction_factor} goes on at {rungs}" if rungs else ""
    typer.echo(f"{config.searcher} search, {config.train_steps} steps each{stopped}")
    for task, (first, last) in config.evaluation_seeds.items():
        targets = ", ".join(f"{target:g}" for target in config.targets[task])
        at = f", target returns {targets}" if targets else ""
        typer.echo(f"{task} ({config.data[task]}): tuning episodes {first} to {last}{at}")


def _print_result(search: "Search", record: "SearchRecord", base: str, path: Path) -> None:
    from ruamel.yaml import YAML

    from dtbench.analysis.compare import text
    from dtbench.analysis.tables.searches import best_table

    full = record.num_samples * record.config.full_steps
    typer.echo("\n" + text(best_table(record, SHOWN)))
    typer.echo(f"{record.settings_tried} settings tried, {record.steps} gradient steps of {full} in full: {path}")
    typer.echo(
        f"To report the best one, save this as {search.name}.yaml and run it: dtbench run -s {search.name}.yaml\n"
    )
    YAML().dump(tuned_suite(search, record, base), sys.stdout)
