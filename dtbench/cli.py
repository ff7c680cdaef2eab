"""The command line. Exit codes: 0 all is well, 1 trials failed, 2 a mistake in what was asked, 130 interrupted."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dtbench.cli_data import data_app
from dtbench.cli_report import COMMANDS, ResultsOption, keep_scores
from dtbench.errors import DtbenchError, UnknownName

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.spec import TrialSpec

app = typer.Typer(
    help="Does return-conditioned sequence modelling match TD learning for offline RL?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well, 1 some trials failed, 2 a mistake in what was asked, 130 interrupted.",
)

app.add_typer(data_app, name="data", help="Datasets: list, fetch, generate, look into, verify, export.")

SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A name from `list suites`, or a YAML file.")]
PresetOption = Annotated[str | None, typer.Option(help="A preset of the suite: smoke, cpu, paper, ...")]
SeedsOption = Annotated[str | None, typer.Option(help="Training seeds: 0..4 or 0,2,5.")]
ContenderOption = Annotated[list[str] | None, typer.Option("--contender", "-c", help="Name or pattern: 'DT*'.")]
TaskOption = Annotated[list[str] | None, typer.Option("--task", "-t", help="Name or pattern.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Of the data: auto (real on disk, else download, else generate), d4rl, minari, ...")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="path=value, e.g. evaluation.episodes=50, budget=100 or DT.dropout=0.2"),
]


@app.command()
def run(
    suite: SuiteOption,
    overrides: Overrides = None,
    preset: PresetOption = None,
    seeds: SeedsOption = None,
    contender: ContenderOption = None,
    task: TaskOption = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto or ray://host:10001.")] = None,
    source: SourceOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Run what is missing of a suite; what is done stays done, what was interrupted continues."""
    from dtbench import progress
    from dtbench.analysis.material import final_rows
    from dtbench.calibration import check_room
    from dtbench.execution import check_address
    from dtbench.ledger import Ledger
    from dtbench.suite import check_fit, load_suite, narrow, resolved_document, trial_specs

    if local and address:
        raise DtbenchError("--local and --address exclude each other.")
    if address:
        check_address(address)
    whole = load_suite(suite, preset=preset, seeds=seeds, source=source, overrides=overrides or ())
    chosen = narrow(whole, tasks=task or (), contenders=contender or ())
    ledger = Ledger(results / "runs")
    with progress.preparing() as on_dataset:
        specs = trial_specs(chosen, on_dataset)
    missing = list({spec.key: spec for spec in specs if ledger.state(spec) != "done"}.values())
    if not local and not address:
        check_room(missing)
    check_fit(missing)
    progress.say_what_will_run(chosen, specs, missing, why=progress.preset_reason(whole, suite, preset))
    document = ledger.remember_suite(resolved_document(whole, specs))
    states = _execute(missing, ledger.root, local=local, address=address)
    found = keep_scores(document, ledger, results)
    if found.records:
        progress.say_scores(final_rows(found), list(document["contenders"]), document["tasks"])
    failed = [spec for spec in missing if states[spec.key] != "done"]
    progress.say_what_failed(failed, ledger)
    raise typer.Exit(1 if failed else 0)


@app.command()
def plan(
    suite: SuiteOption,
    overrides: Overrides = None,
    preset: PresetOption = None,
    seeds: SeedsOption = None,
    contender: ContenderOption = None,
    task: TaskOption = None,
    source: SourceOption = None,
    calibrate: Annotated[
        bool, typer.Option(help="Time the learners of which no trial is done, for about a minute at most.")
    ] = True,
    results: ResultsOption = Path("results"),
) -> None:
    """Say what would run, what is done, and the time and disk that the rest will take.

    Opens the datasets, and so makes or fetches those that are missing, as `run` would. Writes nothing else.
    """
    from dtbench import progress
    from dtbench.ledger import Ledger
    from dtbench.suite import load_suite, narrow, trial_specs

    whole = load_suite(suite, preset=preset, seeds=seeds, source=source, overrides=overrides or ())
    chosen = narrow(whole, tasks=task or (), contenders=contender or ())
    ledger = Ledger(results / "runs")
    with progress.preparing() as on_dataset:
        specs = trial_specs(chosen, on_dataset)
    missing = [spec for spec in specs if ledger.state(spec) != "done"]
    progress.say_what_will_run(chosen, specs, missing, why=progress.preset_reason(whole, suite, preset))
    progress.say_plan(chosen, specs, ledger, try_learners=calibrate)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="suites, tasks, algorithms or runs")],
    results: ResultsOption = Path("results"),
) -> None:
    """List what exists."""
    from dtbench import progress

    listings: dict[str, Callable[[], None]] = {
        "suites": progress.list_suites,
        "tasks": progress.list_tasks,
        "algorithms": progress.list_algorithms,
        "runs": lambda: progress.list_runs(results),
    }
    if what not in listings:
        raise UnknownName("listing", what, listings)
    listings[what]()


for _command in COMMANDS:
    app.command()(_command)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A trial's key, or the beginning of it.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Print one trial: its spec, its scores over training, where it comes from, and its traceback if it failed."""
    from dtbench import progress

    progress.show_trial(trial, results)


@app.command()
def check(
    algorithm: Annotated[str, typer.Argument(help="A name from `list algorithms`, or my_file:MyAlgorithm.")],
) -> None:
    """Try an algorithm against the contract that every algorithm must keep."""
    from dtbench.testing import check_algorithm

    check_algorithm(algorithm)
    typer.echo(f"{algorithm} keeps the contract")


@app.command()
def doctor() -> None:
    """Check this installation: versions, processors, GPU, folders, plug-ins; say how to mend what is wrong."""
    from dtbench.doctor import examine

    raise typer.Exit(0 if examine() else 1)


def _execute(missing: "list[TrialSpec]", root: Path, *, local: bool, address: str | None) -> dict[str, str]:
    """Run the trials under a live table; Ctrl-C ends with exit code 130 and loses nothing that is done."""
    from dtbench import progress
    from dtbench.execution import run_locally, run_with_ray

    try:
        with progress.display(missing) as on_progress:
            if local:
                return run_locally(missing, root, on_progress)
            return run_with_ray(missing, root, on_progress, address=address)
    except KeyboardInterrupt:
        typer.echo("interrupted: what is done is kept, the same command continues the rest.", err=True)
        raise typer.Exit(130) from None


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr, never a traceback."""
    try:
        app(standalone_mode=True)
    except DtbenchError as error:
        typer.echo(f"dtbench: {error}", err=True)
        sys.exit(2)
    sys.exit(0)
