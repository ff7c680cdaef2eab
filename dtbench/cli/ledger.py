"""The command that looks at ledgers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dtbench.cli.report import ResultsOption, SuitesOption


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


COMMANDS: tuple[Callable[..., None], ...] = (status,)
