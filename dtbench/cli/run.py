"""The command line. Exit codes: 0 all is well, 1 some trials have no result, 2 a mistake, 130 interrupted."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dtbench.cli.data import data_app
from dtbench.cli.ledger import COMMANDS as LEDGER_COMMANDS
from dtbench.cli.report import COMMANDS, ResultsOption, keep_scores
from dtbench.cli.tune import COMMANDS as TUNE_COMMANDS
from dtbench.errors import DtbenchError, UnknownName
from dtbench.ledger.trial_spec import TrialSpec, TrialState

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.ledger.store import Ledger
    from dtbench.suite.schema import Suite

app = typer.Typer(
    help="Does return-conditioned sequence modelling match TD learning for offline RL?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well, 1 some trials have no result, 2 a mistake in what was asked, 130 interrupted.",
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
    resources: Annotated[
        str | None,
        typer.Option(help="Of each trial: cpu=2,gpu=0.25; gpu=auto measures how many fit on one GPU."),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0.0, help="At most so much learning is lost with a killed worker.")
    ] = 1.0,
    again: Annotated[bool, typer.Option("--again", help="Also trials that diverged or failed three times.")] = False,
    source: SourceOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Run what is missing of a suite; what is done stays done, what was interrupted continues.

    Ctrl-C once: trials write their checkpoints and end. Twice: at once. The same command goes on either way.
    """
    from dtbench.cli import outcomes, plans, progress
    from dtbench.execution.calibration import check_room
    from dtbench.execution.cluster import check_address
    from dtbench.execution.resources import as_overrides, sized
    from dtbench.suite.planning import check_fit, load_suite, narrow, trial_specs

    if local and address is not None:
        raise DtbenchError("--local and --address exclude each other.")
    if address is not None:
        check_address(address)
    given = [*as_overrides(resources), *(overrides or ())]
    whole = load_suite(suite, preset=preset, seeds=seeds, source=source, overrides=given)
    chosen = narrow(whole, tasks=task or (), contenders=contender or ())
    where = _Where(local, address, 60 * checkpoint_minutes)
    with _ledger_at(results) as ledger:
        with progress.preparing() as on_dataset:
            specs = sized(trial_specs(chosen, on_dataset), resources)
        missing = [spec for spec in {spec.key: spec for spec in specs}.values() if ledger.waiting(spec, again=again)]
        if not local and address is None:
            check_room(missing)
        check_fit(missing)
        plans.say_what_will_run(chosen, specs, missing, why=plans.preset_reason(whole, suite, preset))
        plans.say_what_is_left_alone(specs, missing, ledger)
        stopped = _run(whole, specs, missing, ledger, where)
        outcomes.say_what_failed([spec for spec in missing if not stopped], ledger)
    raise typer.Exit(130 if stopped else 0 if all(ledger.state(spec) is TrialState.DONE for spec in specs) else 1)


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
    from dtbench.cli import plans, progress
    from dtbench.ledger.store import Ledger
    from dtbench.suite.planning import load_suite, narrow, trial_specs

    whole = load_suite(suite, preset=preset, seeds=seeds, source=source, overrides=overrides or ())
    chosen = narrow(whole, tasks=task or (), contenders=contender or ())
    ledger = Ledger(results / "runs")
    with progress.preparing() as on_dataset:
        specs = trial_specs(chosen, on_dataset)
    missing = [spec for spec in specs if ledger.waiting(spec)]
    plans.say_what_will_run(chosen, specs, missing, why=plans.preset_reason(whole, suite, preset))
    plans.say_what_is_left_alone(specs, missing, ledger)
    plans.say_plan(chosen, specs, ledger, try_learners=calibrate)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="suites, tasks, algorithms or runs")],
    results: ResultsOption = Path("results"),
) -> None:
    """List what exists."""
    from dtbench.cli import listings

    known: dict[str, Callable[[], None]] = {
        "suites": listings.list_suites,
        "tasks": listings.list_tasks,
        "algorithms": listings.list_algorithms,
        "runs": lambda: listings.list_runs(results),
    }
    if what not in known:
        raise UnknownName("listing", what, known)
    known[what]()


for _command in (*COMMANDS, *LEDGER_COMMANDS, *TUNE_COMMANDS):
    app.command()(_command)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A trial's key, or the beginning of it.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Print one trial: its spec, its scores over training, where it comes from, and its traceback if it failed."""
    from dtbench.cli import listings

    listings.show_trial(trial, results)


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
    from dtbench.cli.doctor import examine

    raise typer.Exit(0 if examine() else 1)


@dataclass(frozen=True)
class _Where:
    """Where trials run, and how often they write their checkpoints."""

    local: bool
    address: str | None
    checkpoint_seconds: float


@contextmanager
def _ledger_at(results: Path) -> "Iterator[Ledger]":
    """The ledger of a results folder, held against other runs."""
    from dtbench.ledger.remote import acquire
    from dtbench.ledger.store import Ledger, check_disk

    check_disk(results)
    with acquire(results):
        yield Ledger(results / "runs")


def _run(whole: "Suite", specs: list[TrialSpec], missing: list[TrialSpec], ledger: "Ledger", where: _Where) -> bool:
    """Run the trials, then bring the suite's scores up to date; True where it was told to stop before all ended."""
    from dtbench.analysis.suite_analysis import final_rows
    from dtbench.cli import outcomes
    from dtbench.ledger.remote import published
    from dtbench.suite.planning import resolved_document

    results = ledger.root.parent
    with published(results, fresh=False):
        document = ledger.remember_suite(resolved_document(whole, specs))
    stopped = _executed(missing, results, where)
    with published(results):
        found = None if stopped else keep_scores(document, ledger, results)
    if found and found.records:
        diverged = Counter((u.spec.contender, u.spec.task) for u in found.unfinished if u.state is TrialState.DIVERGED)
        outcomes.say_scores(final_rows(found), list(document["contenders"]), document["tasks"], diverged)
    return stopped


def _executed(missing: list[TrialSpec], results: Path, where: _Where) -> bool:
    """Run the trials under a live table; True where Ctrl-C ended that, which loses nothing that is done."""
    from dtbench.cli import progress
    from dtbench.execution.ray_driver import run_locally, run_with_ray
    from dtbench.execution.signals import hear_signals
    from dtbench.ledger.remote import remote_of

    def on_first() -> None:
        typer.echo("stopping: trials write their checkpoints ... (once more to stop at once)", err=True)

    run = run_locally if where.local else partial(run_with_ray, address=where.address)
    root, remote, seconds = results / "runs", remote_of(results), where.checkpoint_seconds
    try:
        with progress.display(missing) as on_progress, hear_signals(on_first) as stop:
            states = run(missing, root, on_progress, stop=stop, remote=remote, checkpoint_seconds=seconds)
    except KeyboardInterrupt:
        states = dict.fromkeys((spec.key for spec in missing), "stopped")
    if "stopped" not in states.values():
        return False
    typer.echo("interrupted: what is done is kept, the same command continues the rest.", err=True)
    return True


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr, never a traceback."""
    try:
        app(standalone_mode=True)
    except DtbenchError as error:
        typer.echo(f"dtbench: {error}", err=True)
        sys.exit(2)
    sys.exit(0)
