"""The command line. Exit codes: 0 all is well, 1 some trials have no result, 2 a mistake, 130 interrupted."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dtbench.cli.data import data_app
from dtbench.cli.report import COMMANDS, ResultsOption, SuitesOption, keep_scores
from dtbench.cli.tune import COMMANDS as TUNE_COMMANDS
from dtbench.errors import DtbenchError, UnknownName
from dtbench.ledger.trial_spec import TrialSpec, TrialState

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.execution.local import OnProgress
    from dtbench.execution.signals import Shutdown
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

app.add_typer(data_app, name="data", help="List, download, generate, show, verify and export datasets.")

SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A name from `list suites`, or a YAML file.")]


@app.command()
def run(
    suite: SuiteOption,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="path=value, e.g. evaluation.episodes=50, train_steps=100 or DT.dropout=0.2."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A preset of the suite: smoke, cpu, paper, ...")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds: 0..4 or 0,2,5.")] = None,
    contender: Annotated[
        list[str] | None, typer.Option("--contender", "-c", help="Name or pattern of contenders: 'DT*'.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help="Name or pattern of tasks.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster: auto or ray://host:10001.")
    ] = None,
    resources: Annotated[
        str | None,
        typer.Option(help="Resources of each trial: cpu=2,gpu=0.25; gpu=auto measures how many fit on one GPU."),
    ] = None,
    checkpoint_minutes: Annotated[float, typer.Option(min=0.0, help="Minutes between checkpoints.")] = 1.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run trials again that diverged or failed three times.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="Source of the data: auto (real on disk, else download, else generate), d4rl, minari, ..."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, what is done and the time left; run nothing.")
    ] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Run the missing trials of a suite; interrupted ones continue from their checkpoints.

    Trials that results/scores/SUITE has finished count as done.

    Ctrl-C once: trials write their checkpoints and end. Twice: at once. The same command continues either way.
    """
    from dtbench.analysis.archive import archived_keys
    from dtbench.cli import plans, progress
    from dtbench.execution.resources import check_room, sized
    from dtbench.ledger.remote import remote_of
    from dtbench.suite.planning import check_fit, load_suite, narrow, trial_specs

    run_trials = _runner(local, address)
    sized((), resources)  # refuses what is wrong before any data are opened
    whole = load_suite(suite, preset=preset, seeds=seeds, source=source, overrides=overrides or ())
    chosen = narrow(whole, tasks=task or (), contenders=contender or ())
    with _ledger_at(results, read_only=dry_run) as ledger:
        with progress.preparing() as on_dataset:
            specs = sized(trial_specs(chosen, on_dataset), resources)
        archived = archived_keys(results / "scores", whole.name)
        missing = [
            spec
            for spec in {spec.key: spec for spec in specs}.values()
            if spec.key not in archived and ledger.should_run(spec, retry_failed=retry_failed)
        ]
        plans.say_what_will_run(chosen, specs, missing, why=plans.preset_reason(whole, suite, preset))
        plans.say_what_is_left_alone(specs, [*(spec.key for spec in missing), *archived], ledger)
        if dry_run:
            plans.say_plan(chosen, specs, missing, ledger)
            raise typer.Exit
        if not local and address is None:
            check_room(missing)
        check_fit(missing)
        document = _save_suite(whole, specs, ledger)
        states = None
        with _interruptible(missing, ledger) as (on_progress, shutdown):
            states = run_trials(
                missing,
                ledger.root,
                on_progress,
                should_stop=lambda: shutdown.requested,
                remote=remote_of(results),
                checkpoint_seconds=60 * checkpoint_minutes,
            )
        stopped = states is None or TrialState.STOPPED in states.values()
        _finish(document, ledger, missing, stopped=stopped)
    done = all(spec.key in archived or ledger.state(spec) is TrialState.DONE for spec in specs)
    raise typer.Exit(130 if stopped else 0 if done else 1)


@app.command()
def status(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="A trial's key or its beginning: print that trial's record.")
    ] = None,
    suite: SuitesOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Summarize trial states from the ledger (read-only): running, done, failed and why, interrupted, missing.

    The exit code is 0 whatever the states are; --json has them for programs.
    """
    from dtbench.cli.status import show_status, show_trial, status_of

    if key is not None:
        show_trial(key, results)
    elif json_:
        typer.echo(json.dumps(status_of(results, suite or ()).to_json(), indent=2))
    else:
        show_status(status_of(results, suite or ()))


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="suites, tasks or algorithms")]) -> None:
    """List the names of suites, tasks or algorithms."""
    from dtbench.cli import listings

    known = {
        "suites": listings.list_suites,
        "tasks": listings.list_tasks,
        "algorithms": listings.list_algorithms,
    }
    if what not in known:
        raise UnknownName("listing", what, known)
    known[what]()


for _command in (*COMMANDS, *TUNE_COMMANDS):
    app.command()(_command)


@app.command()
def check(
    algorithm: Annotated[str, typer.Argument(help="A name from `list algorithms`, or my_file:MyAlgorithm.")],
) -> None:
    """Check an algorithm against the contract of `dtbench.algorithm`."""
    from dtbench.testing import check_algorithm

    check_algorithm(algorithm)
    typer.echo(f"{algorithm} keeps the contract")


@app.command()
def doctor() -> None:
    """Check this installation: versions, processors, GPU, directories, plug-ins."""
    from dtbench.cli.doctor import examine

    raise typer.Exit(0 if examine() else 1)


def _runner(local: bool, address: str | None) -> "Callable[..., dict[str, TrialState]]":
    """Return what runs trials, in this process or with Ray."""
    if local:
        from dtbench.execution.local import run_local

        if address is not None:
            raise DtbenchError("--local and --address exclude each other.")
        return run_local
    from dtbench.execution.cluster import check_address
    from dtbench.execution.ray_driver import run_ray

    if address is not None:
        check_address(address)
    return partial(run_ray, address=address)


@contextmanager
def _ledger_at(results: Path, *, read_only: bool) -> "Iterator[Ledger]":
    """Yield the ledger of a results directory, locked against other runs unless it is only read."""
    from dtbench.ledger.remote import acquire
    from dtbench.ledger.store import Ledger, check_disk

    if not read_only:
        check_disk(results)
    with contextlib.nullcontext() if read_only else acquire(results):
        yield Ledger(results / "runs")


def _save_suite(whole: "Suite", specs: list[TrialSpec], ledger: "Ledger") -> Mapping[str, Any]:
    """Keep the suite's definition in the ledger, and return what is kept."""
    from dtbench.ledger.remote import published
    from dtbench.suite.planning import resolved_document

    with published(ledger.root.parent, fresh=False):
        return ledger.save_suite(resolved_document(whole, specs))


@contextmanager
def _interruptible(missing: list[TrialSpec], ledger: "Ledger") -> "Iterator[tuple[OnProgress, Shutdown]]":
    """Show the progress of trials; Ctrl-C ends them and loses nothing that is done."""
    from dtbench.cli import progress
    from dtbench.execution.signals import graceful_shutdown

    def on_first() -> None:
        typer.echo("stopping: trials write their checkpoints ... (once more to stop at once)", err=True)

    with (
        contextlib.suppress(KeyboardInterrupt),
        progress.display(missing, ledger) as on_progress,
        graceful_shutdown(on_first) as shutdown,
    ):
        yield on_progress, shutdown


def _finish(document: Mapping[str, Any], ledger: "Ledger", ran: list[TrialSpec], *, stopped: bool) -> None:
    """Bring the suite's scores up to date, and print them and what failed."""
    from dtbench.analysis.suite_analysis import final_rows
    from dtbench.cli import plans
    from dtbench.ledger.remote import published

    if stopped:
        typer.echo("interrupted: what is done is kept, the same command continues the rest.", err=True)
    results = ledger.root.parent
    with published(results):
        found = None if stopped else keep_scores(document, ledger, results)
    if found and found.records:
        diverged = Counter((u.spec.contender, u.spec.task) for u in found.unfinished if u.state is TrialState.DIVERGED)
        plans.say_scores(final_rows(found), list(document["contenders"]), document["tasks"], diverged)
    if not stopped:
        plans.say_what_failed(ran, ledger)


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr, never a traceback."""
    try:
        app(standalone_mode=True)
    except DtbenchError as error:
        typer.echo(f"dtbench: {error}", err=True)
        sys.exit(2)
    sys.exit(0)
