"""The command that searches for hyperparameters: tune."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtbench.errors import DtbenchError, UnknownName

if TYPE_CHECKING:  # heavy modules are imported by the command: --help answers at once
    from dtbench.tuning.driver import Journal, Plan
    from dtbench.tuning.search import SearchRecord

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
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto or ray://host:10001.")] = None,
    results: Annotated[
        Path, typer.Option(parser=_folder, metavar="FOLDER", help="Of ledgers (runs/) and records (searches/).")
    ] = Path("results"),
) -> None:
    """Search for a contender's hyperparameters; the same command continues a search that was interrupted.

    Nothing is tuned on what it is reported on: training seeds begin at 1000,
    and evaluation episodes are others than those of `run`. Every target
    return that is tried counts as a setting tried. Writes the record
    results/searches/NAME.json, which the report reads, and NAME.yaml, a
    suite with the best setting.
    """
    from dtbench.cli import progress
    from dtbench.suite.planning import load_suite, narrow
    from dtbench.tuning.driver import Asked, journal_of, plan_search
    from dtbench.tuning.search import SEARCHERS, write_record
    from dtbench.tuning.space import load_space
    from dtbench.tuning.tuned_suite import write_tuned_suite

    if searcher not in SEARCHERS:
        raise UnknownName("searcher", searcher, SEARCHERS)
    if local and address:
        raise DtbenchError("--local and --address exclude each other.")
    whole = load_suite(suite, preset=preset, source=source, overrides=overrides or ())
    chosen = narrow(whole, tasks=task or (), contenders=[contender])
    asked = Asked(searcher, samples, asha, grace, reduction_factor, seeds, seed, local)
    with progress.preparing():
        plan = plan_search(chosen, load_space(space), asked, results, name)
    with journal_of(plan) as journal:
        _say_what_will_run(plan, journal)
        _search(plan, journal, local=local, address=address)
        record = journal.record
    if record.best is None:
        raise DtbenchError(f"no setting was trained to the end: see {plan.root}. The same command tries again.")
    place = results / "searches" / f"{plan.name}.json"
    write_record(place, record)
    write_tuned_suite(place.with_suffix(".yaml"), chosen, suite, record)
    _say_result(record, place)
    raise typer.Exit(1 if any(sample.state == "failed" for sample in record.samples) else 0)


COMMANDS: tuple[Callable[..., None], ...] = (tune,)


def _search(plan: "Plan", journal: "Journal", *, local: bool, address: str | None) -> None:
    """Run what is left; Ctrl-C ends with exit code 130 and loses nothing that is done."""
    from dtbench.tuning.driver import run_locally
    from dtbench.tuning.proposals import proposals_of
    from dtbench.tuning.ray_tune import run_with_ray

    proposals = proposals_of(plan, journal)
    try:
        if local:
            run_locally(plan, journal, proposals, typer.echo)
        else:
            run_with_ray(plan, journal, proposals, typer.echo, address=address)
    except KeyboardInterrupt:
        typer.echo("interrupted: what is done is kept, the same command continues the rest.", err=True)
        raise typer.Exit(130) from None


def _say_what_will_run(plan: "Plan", journal: "Journal") -> None:
    from dtbench.tuning.search import ENDED

    question, record = plan.question, journal.record
    ended = sum(sample.state in ENDED for sample in record.samples)
    typer.echo(f"{plan.name}: {plan.asked} settings, {ended} done, {plan.asked - ended} to try")
    rungs = ", ".join(map(str, question.rungs[:-1]))
    stopped = f", one in {question.reduction_factor} goes on at {rungs}" if rungs else ""
    typer.echo(f"{question.searcher} search, {question.budget} steps each{stopped}")
    for task, (first, last) in question.evaluation_seeds.items():
        targets = ", ".join(f"{target:g}" for target in question.targets[task])
        asked = f", target returns {targets}" if targets else ""
        typer.echo(f"{task} ({question.data[task]}): tuning episodes {first} to {last}{asked}")


def _say_result(record: "SearchRecord", place: Path) -> None:
    from dtbench.analysis.compare import text
    from dtbench.analysis.tables.searches import best_table

    full = record.asked * record.question.full_steps
    typer.echo("\n" + text(best_table(record, SHOWN)))
    typer.echo(f"{record.settings_tried} settings tried, {record.steps} gradient steps of {full} in full")
    typer.echo(f"{place}\nrun the best one: dtbench run --suite {place.with_suffix('.yaml')}")
