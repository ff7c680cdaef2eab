"""The commands that look at ledgers and join them: status and merge."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dtbench.cli.report import ResultsOption, SuitesOption, results_folder


def status(
    suite: SuitesOption = None,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Tell what is running, done, failed and why, interrupted or missing: from the ledger alone.

    Nothing is written, no dataset opened, and no exit code but 0 says how trials stand: take --json for that.
    """
    from dtbench.cli.status import status_of, text_of

    found = status_of(results, suite or ())
    typer.echo(json.dumps(found.to_json(), indent=2) if json_ else text_of(found).rstrip("\n"))


def merge(
    others: Annotated[
        list[Path], typer.Argument(metavar="OTHER...", parser=results_folder, help="Results folders or addresses.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, copy nothing.")] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Copy what the ledgers of other machines have done into this one.

    Everything is checked first. Where two have finished the same trial with different outcomes, nothing is copied and
    both are named. A finished trial replaces an unfinished one, a checkpoint one of fewer steps; ours stays otherwise.
    A merge that was interrupted is finished by the same command.
    """
    from dtbench.ledger.merge import merge
    from dtbench.ledger.storage import name_of

    merged = merge(others, results, dry_run=dry_run)
    for line in merged.remarks:
        typer.secho(line, err=True, fg="yellow", bold=True)
    place = f"{'would merge' if dry_run else 'merged'} into {name_of(results)}"
    typer.echo(f"{place}: {merged}. {'' if dry_run else 'Next: dtbench report'}".rstrip())


COMMANDS: tuple[Callable[..., None], ...] = (status, merge)
