"""The command line. Exit codes: 0 success, 1 some trials have no result, 2 an error, 130 interrupted."""

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dtbench import __version__
from dtbench.cli.completion import complete_contender, complete_key
from dtbench.cli.data import data_app
from dtbench.cli.export import export_app
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
from dtbench.cli.play import COMMANDS as PLAY_COMMANDS
from dtbench.cli.report import COMMANDS, ResultsOption, SuitesOption, keep_scores
from dtbench.cli.streams import forgiving
from dtbench.cli.suites import COMMANDS as SUITE_COMMANDS
from dtbench.cli.tune import COMMANDS as TUNE_COMMANDS
from dtbench.errors import DtbenchError, RayDied, UnknownName
from dtbench.ledger.trial_spec import TrialSpec, TrialState

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.execution.local import OnProgress
    from dtbench.ledger.store import Ledger
    from dtbench.suite.schema import Suite


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dtbench {__version__}")
        raise typer.Exit


app = typer.Typer(
    help="Does return-conditioned sequence modelling match TD learning for offline RL?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 some trials have no result, 2 an error, 130 interrupted.",
)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print tables, paths and errors alone.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the traceback of an error, too.")] = False,
) -> None:
    """Set how much is printed."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.getLogger("dtbench").setLevel(level)


app.add_typer(data_app, name="data", help="List, download, generate, show, verify and export datasets.")
app.add_typer(export_app, name="export", help="Write scores and policies for other programs.")

SeedsOption = Annotated[str | None, typer.Option(help="Training seeds: 0..4 or 0,2,5.")]
ContenderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--contender", "-c", help="Names or patterns: 'DT,BC*'. Repeatable.", autocompletion=complete_contender
    ),
]
LocalOption = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
ResourcesOption = Annotated[
    str | None,
    typer.Option(help="Resources of each trial: cpu=2,gpu=0.25; gpu=auto measures how many fit on one GPU."),
]
CheckpointOption = Annotated[float, typer.Option(min=0.0, help="Minutes between checkpoints.")]
NameOption = Annotated[
    str | None, typer.Option(help="Keep these trials as a suite of this name. Default: the suite's own.")
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Run trials again that diverged or failed three times.")
]
TrackOption = Annotated[
    str, typer.Option(metavar="TRACKER", help="tensorboard: write event files beside trials while they train.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what would run, what is done and the time left; run, download and generate nothing."
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Start a default preset that takes more than an hour without asking.")
]


@app.command()
def run(
    suite: SuiteOption,
    overrides: OverridesArgument = None,
    preset: PresetOption = None,
    seeds: SeedsOption = None,
    contender: ContenderOption = None,
    task: TaskOption = None,
    name: NameOption = None,
    import_: ImportOption = None,
    local: LocalOption = False,
    address: AddressOption = None,
    resources: ResourcesOption = None,
    checkpoint_minutes: CheckpointOption = 1.0,
    retry_failed: RetryOption = False,
    source: SourceOption = None,
    track: TrackOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json_: JsonOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Run the missing trials of a suite; continue interrupted ones from their checkpoints.

    Trials that results/scores has finished count as done, also those of other suites. Ctrl-C once: trials write their
    checkpoints and stop. Twice: they stop at once. The same command continues them.
    """
    from dtbench.analysis.archive import archived_keys, planned_trials
    from dtbench.analysis.results_directory import shared_keys
    from dtbench.cli import plans, progress, workload
    from dtbench.execution.resources import sized
    from dtbench.foreign import add_imports
    from dtbench.suite.planning import check_source, load_suite, narrow, trial_specs, with_variants

    if json_:
        logging.getLogger("dtbench").setLevel(logging.WARNING)  # as with -q
    run_trials = _runner(local, address, results, 60 * checkpoint_minutes, track)
    add_imports(import_ or ())
    sized((), resources)  # raises an error before any data are opened
    whole = load_suite(suite, name=name, preset=preset, seeds=seeds, source=source, overrides=overrides or ())
    narrowed = narrow(whole, tasks=task or (), contenders=contender or ())
    check_source(narrowed)  # a mistyped one leaves no results directory behind
    with _ledger_at(results, read_only=dry_run) as ledger:
        saved = ledger.saved_suite(whole.name)
        if whole.preset and not (dry_run or yes or preset or task or contender or address or saved):
            workload.agree(narrowed, ledger)  # the user chose nothing and began nothing before
        whole, narrowed = (with_variants(one, saved) for one in (whole, narrowed))
        with progress.preparing() as on_dataset:
            specs = sized(trial_specs(narrowed, on_dataset, make_data=not dry_run), resources)
        own = archived_keys(results / "scores", whole.name)
        shared = shared_keys(results / "scores", whole.name, {spec.key for spec in specs} - own)
        archived = own | shared
        unique = {spec.key: spec for spec in specs if spec.key not in archived}
        missing = [spec for spec in unique.values() if ledger.should_run(spec, retry_failed=retry_failed)]
        plans.print_trials(narrowed, specs, missing, why=plans.preset_reason(whole, suite, preset))
        plans.print_shared(specs, shared, ledger)
        plans.print_remarks(saved, specs, missing, archived, ledger)
        plans.print_other_data(missing, planned_trials(results / "scores", whole.name))
        _check(missing, on_this_machine=not (local or address or dry_run))
        if dry_run:
            plans.print_plan(narrowed, specs, missing, ledger, as_json=json_)
            raise typer.Exit
        document = _save_suite(whole, specs, ledger)
        states = None
        with _interruptible(missing, ledger) as (on_progress, should_stop):
            try:
                states = run_trials(missing, ledger.root, on_progress, should_stop=should_stop)
            except RayDied as error:
                states = {}
                typer.echo(f"dtbench: {error}", err=True)
        stopped = states is None or TrialState.STOPPED in states.values()
        damaged = _finish(document, ledger, missing, stopped=stopped, as_json=json_)
    done = not damaged and all(spec.key in archived or ledger.state(spec) is TrialState.DONE for spec in specs)
    raise typer.Exit(130 if stopped else 0 if done else 1)


@app.command()
def status(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="A trial's key or its beginning: print this trial's record.",
            autocompletion=complete_key,
        ),
    ] = None,
    suite: SuitesOption = None,
    json_: JsonOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Summarize trial states: running, done, failed and why, interrupted, missing. Read-only.

    The exit code is 0 for all states; programs can use --json.
    """
    from dtbench.cli.status import show_status, show_trial, status_of

    if key is not None:
        show_trial(key, results, as_json=json_)
    elif json_:
        typer.echo(json.dumps(status_of(results, suite or ()).to_json(), indent=2))
    else:
        show_status(status_of(results, suite or ()))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="suites, tasks or algorithms")],
    name: Annotated[
        str | None, typer.Argument(help="An algorithm: list its hyperparameters and what they mean.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List the names of suites, tasks or algorithms, or the hyperparameters of one algorithm."""
    from dtbench.cli import listings

    known: dict[str, tuple[Callable[[], None], Callable[[], Any]]] = {
        "suites": (listings.list_suites, listings.suites),
        "tasks": (listings.list_tasks, listings.tasks),
        "algorithms": (listings.list_algorithms, listings.algorithms),
    }
    if what not in known:
        raise UnknownName("listing", what, known)
    listed, facts = known[what]
    if name is not None:
        if what != "algorithms":
            raise DtbenchError(f"list {what} {name:.60}: of algorithms alone one can be listed. Leave the name out.")
        listed, facts = partial(listings.list_algorithm, name), partial(listings.algorithm, name)
    if json_:
        typer.echo(json.dumps(facts(), indent=2))
    else:
        listed()


for _command in (*PLAY_COMMANDS, *COMMANDS, *TUNE_COMMANDS, *SUITE_COMMANDS):
    app.command()(_command)


@app.command()
def check(
    name: Annotated[
        str,
        typer.Argument(help="An algorithm from `list algorithms`, my_file:MyAlgorithm, or a suite: suite.yaml."),
    ],
) -> None:
    """Check that an algorithm fulfils the contract of `dtbench.algorithm`, or a suite with all its presets."""
    from dtbench.cli.suites import check_suite, is_suite

    if is_suite(name):
        check_suite(name)
        return
    from dtbench.testing import check_algorithm

    check_algorithm(name)
    typer.echo(f"{name} passed all checks of the contract")


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Check this installation: versions, CPU, GPU, directories, plug-ins."""
    from dtbench.cli.doctor import examine

    raise typer.Exit(0 if examine(as_json=json_) else 1)


def _runner(
    local: bool, address: str | None, results: Path, checkpoint_seconds: float, tracker: str
) -> "Callable[..., dict[str, TrialState]]":
    """Return the function that runs trials, in this process or with Ray."""
    from dtbench.ledger.remote import remote_of
    from dtbench.tracking.live import check_tracker

    check_tracker(tracker)
    if local and address is not None:
        raise DtbenchError("--local and --address exclude each other. Leave one out.")
    options: dict[str, Any] = {
        "remote": remote_of(results),
        "checkpoint_seconds": checkpoint_seconds,
        "tracker": tracker,
    }
    if local:
        from dtbench.execution.local import run_local

        return partial(run_local, **options)
    from dtbench.execution.cluster import check_address
    from dtbench.execution.ray_driver import run_ray

    if address is not None:
        check_address(address)
    return partial(run_ray, address=address, **options)


@contextmanager
def _ledger_at(results: Path, *, read_only: bool) -> "Iterator[Ledger]":
    """Yield the ledger of a results directory, locked against other runs unless it is only read."""
    from dtbench.ledger.remote import acquire
    from dtbench.ledger.store import Ledger, check_disk

    if not read_only:
        check_disk(results)
    with contextlib.nullcontext() if read_only else acquire(results):
        yield Ledger(results / "runs")


def _check(missing: list[TrialSpec], *, on_this_machine: bool) -> None:
    """Raise an error for trials that cannot start, before any of them runs."""
    from dtbench.execution.resources import check_room
    from dtbench.suite.planning import check_fit

    if on_this_machine:
        check_room(missing)
    check_fit(missing)


def _save_suite(whole: "Suite", specs: list[TrialSpec], ledger: "Ledger") -> Mapping[str, Any]:
    """Save the suite's definition in the ledger and return it."""
    from dtbench.ledger.remote import published
    from dtbench.suite.planning import resolved_document

    with published(ledger.root.parent, fresh=False):
        return ledger.save_suite(resolved_document(whole, specs))


@contextmanager
def _interruptible(missing: list[TrialSpec], ledger: "Ledger") -> "Iterator[tuple[OnProgress, Callable[[], bool]]]":
    """Show the progress of trials; on Ctrl-C they stop and keep what is done."""
    from dtbench.cli import progress
    from dtbench.execution.signals import graceful_shutdown

    def on_first() -> None:
        typer.echo("stopping: trials write their checkpoints ... (once more to stop at once)", err=True)

    with (
        contextlib.suppress(KeyboardInterrupt),
        progress.display(missing, ledger) as on_progress,
        graceful_shutdown(on_first) as shutdown,
    ):
        yield on_progress, lambda: shutdown.requested


def _finish(
    document: Mapping[str, Any], ledger: "Ledger", ran: list[TrialSpec], *, stopped: bool, as_json: bool
) -> bool:
    """Update the suite's scores and print them with the failures; of an interrupted run, only push the suite.

    Return whether planned trials are damaged.
    """
    from dtbench.cli import plans
    from dtbench.ledger.remote import published

    if stopped:
        typer.echo("interrupted: finished trials are kept; the same command continues the others.", err=True)
    with published(ledger.root.parent):
        if ledger.saved_suite(document["name"]) is None:  # the results were removed meanwhile
            ledger.save_suite(document)
        scores = None if stopped else keep_scores(document, ledger, ledger.root.parent)
    if scores and as_json:
        typer.echo(json.dumps(plans.scores_json(scores, ledger.root.parent), indent=2))
    elif scores and scores.records:
        plans.print_results(scores, document)
    if not stopped:
        plans.print_failures(ran, ledger)
    if scores and scores.records and not as_json:
        plans.print_next_steps(scores, ledger)
    return scores is not None and any(one.state is TrialState.DAMAGED for one in scores.unfinished)


def main() -> NoReturn:
    """Run the command line; print a user's mistake as one line on stderr."""
    with forgiving():
        try:
            app(standalone_mode=True)
        except DtbenchError as error:
            if logging.getLogger("dtbench").isEnabledFor(logging.DEBUG):
                traceback.print_exc()
            typer.echo(f"dtbench: {error}", err=True)
            sys.exit(2)
    sys.exit(0)
