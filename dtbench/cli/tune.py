"""The command that searches for hyperparameters: tune."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtbench.cli.options import (
    AddressOption,
    ImportOption,
    JsonOption,
    OverridesArgument,
    PresetOption,
    SourceOption,
    SuiteOption,
    TaskOption,
)
from dtbench.errors import DtbenchError, UnknownName

if TYPE_CHECKING:  # heavy modules are imported by the command: --help answers at once
    from dtbench.tuning.planning import Search
    from dtbench.tuning.ray_tune import SearchState
    from dtbench.tuning.search import SearchRecord
    from dtbench.tuning.space import Setting

SHOWN = 5  # settings in the table at the end


def _directory(text: str | Path) -> Path:
    if "://" in str(text):
        raise DtbenchError(
            f"--results {text}: a search needs a directory that all nodes reach. Use --results DIRECTORY."
        )
    return Path(text)


SamplesOption = Annotated[
    int | None, typer.Option(min=1, help="Number of settings to try. Default: 32, or the whole grid.")
]
GraceOption = Annotated[
    int | None,
    typer.Option(min=1, help="Gradient steps before --asha stops a setting. Default: a 9th of the training steps."),
]
NameOption = Annotated[str | None, typer.Option(help="Name of the search. Default: from suite, contender and task.")]
ResultsOption = Annotated[
    Path,
    typer.Option(parser=_directory, metavar="DIRECTORY", help="Directory of ledgers (runs/) and records (searches/)."),
]


def tune(
    suite: SuiteOption,
    contender: Annotated[str, typer.Option("--contender", "-c", help="The contender to tune.")],
    space: Annotated[str, typer.Option(help="A search space: a YAML file, or a name such as dt, cql, iql.")],
    overrides: OverridesArgument = None,
    task: TaskOption = None,
    import_: ImportOption = None,
    preset: PresetOption = None,
    source: SourceOption = None,
    samples: SamplesOption = None,
    searcher: Annotated[str, typer.Option(help="Search algorithm: random, optuna or grid.")] = "random",
    asha: Annotated[bool, typer.Option("--asha", help="Stop inferior settings early (ASHA).")] = False,
    grace: GraceOption = None,
    reduction_factor: Annotated[int, typer.Option(min=2, help="ASHA reduction factor.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Number of training seeds of each setting, from 1000 on.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the search.")] = 0,
    name: NameOption = None,
    address: AddressOption = None,
    json_: JsonOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Search for a contender's hyperparameters with Ray Tune; the same command continues an interrupted search.

    Training seeds (from 1000 on) and evaluation episodes are other than those
    of `run`, so that nothing is tuned on what is reported. Every target return
    counts as a setting tried. Writes the record results/searches/NAME.json for
    the report, and prints the best setting as a suite.
    """
    from dtbench.cli import progress
    from dtbench.foreign import add_imports
    from dtbench.suite.planning import load_suite, narrow
    from dtbench.tuning.planning import plan_search
    from dtbench.tuning.ray_tune import search_state
    from dtbench.tuning.search import SEARCHERS, TuneOptions, write_record
    from dtbench.tuning.space import load_space

    if searcher not in SEARCHERS:
        raise UnknownName("searcher", searcher, SEARCHERS)
    if json_:
        logging.getLogger("dtbench").setLevel(logging.WARNING)  # as with -q
    add_imports(import_ or ())
    whole = load_suite(suite, preset=preset, source=source, overrides=overrides or ())
    narrowed = narrow(whole, tasks=task or (), contenders=[contender])
    options = TuneOptions(searcher, samples, asha, grace, reduction_factor, seeds, seed)
    with progress.preparing():
        search = plan_search(narrowed, load_space(space), options, results, name)
    with search_state(search) as state:
        if not json_:
            _print_plan(search, state)
        _run(search, state, address)
        record = state.record
    if record.best is None:
        raise DtbenchError(f"no setting was trained to the end: see {search.root}. Repeat the command to try again.")
    path = results / "searches" / f"{search.name}.json"
    write_record(path, record)
    if json_:
        typer.echo(json.dumps(_result_json(search, record, suite, path), indent=2))
    else:
        _print_result(search, record, suite, path)
    raise typer.Exit(any(candidate.state == "failed" for candidate in record.candidates))


COMMANDS: tuple[Callable[..., None], ...] = (tune,)


def tuned_suite(search: "Search", record: "SearchRecord", base: str) -> dict[str, Any]:
    """Return a suite whose one contender has the best setting, with the best target return first.

    Its tasks are those of the search that `base` has, or all tasks of `base` where it has none of them.
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
    settings: dict[str, Any] = {"contenders": {f"{config.contender} tuned": _contender(search, best.hyperparameters)}}
    if reported:
        settings["tasks"] = [task for task in config.tasks if task in reported]
        settings |= {"by_task": {task: {"evaluation": targets[task]} for task in settings["tasks"]}} if targets else {}
    elif targets:
        settings["evaluation"] = next(iter(targets.values()))
    # Repeated in the preset, which would otherwise override them with the base's tasks and targets.
    presets = {"presets": {config.preset: settings}, "default_preset": config.preset} if config.preset else {}
    return {"name": search.name, "base": base, **settings, **presets}


def _contender(search: "Search", setting: "Setting") -> dict[str, Any]:
    """Return the contender's settings, with `by_task` where its tasks differ."""
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
    """Run the remaining candidates; Ctrl-C exits with code 130 and keeps what is done."""
    from dtbench.cli.progress import note
    from dtbench.tuning.ray_tune import run_search

    try:
        run_search(search, state, note, address=address)
    except KeyboardInterrupt:
        typer.echo("interrupted: finished settings are kept; the same command continues the others.", err=True)
        raise typer.Exit(130) from None


def _print_plan(search: "Search", state: "SearchState") -> None:
    config, ended = search.config, len(state.ended)
    typer.echo(f"{search.name}: {search.num_samples} settings, {ended} done, {search.num_samples - ended} to try")
    rungs = ", ".join(map(str, config.rungs[:-1]))
    stopped = f", one in {config.reduction_factor} continues at {rungs}" if rungs else ""
    typer.echo(f"{config.searcher} search, {config.train_steps} steps each{stopped}")
    for task, (first, last) in config.evaluation_seeds.items():
        targets = ", ".join(f"{target:g}" for target in config.targets[task])
        at = f", target returns {targets}" if targets else ""
        typer.echo(f"{task} ({config.data[task]}): tuning episodes {first} to {last}{at}")


def _result_json(search: "Search", record: "SearchRecord", base: str, path: Path) -> dict[str, Any]:
    """Return what was tried, the best settings first, and the suite that reports the best one."""
    settings = [
        {
            "setting": one.number,
            "hyperparameters": one.hyperparameters,
            "state": one.state,
            "steps": one.last_step(record.config),
            "score": one.objective(record.config),
            "targets": one.targets(record.config),
        }
        for one in record.ranked()
    ]
    return {
        "search": search.name,
        "settings_tried": record.settings_tried,
        "gradient_steps": record.steps,
        "record": str(path),
        "settings": settings,
        "suite": tuned_suite(search, record, base),
    }


def _print_result(search: "Search", record: "SearchRecord", base: str, path: Path) -> None:
    from ruamel.yaml import YAML

    from dtbench.analysis.compare import text
    from dtbench.analysis.tables.searches import best_table

    full = record.num_samples * record.config.full_steps
    typer.echo("\n" + text(best_table(record, SHOWN)))
    typer.echo(f"{record.settings_tried} settings tried, {record.steps} gradient steps of {full} in full: {path}")
    typer.echo(f"To report the best one, save this as {search.name}.yaml: dtbench run -s {search.name}.yaml\n")
    YAML().dump(tuned_suite(search, record, base), sys.stdout)
