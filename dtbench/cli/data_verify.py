"""What `dtbench data verify` finds of a dataset or a file."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dtbench.errors import InvalidDataset, InvalidValue

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.data.dataset import TrajectoryDataset
    from dtbench.domains.d4rl.verification import Finding
    from dtbench.task import Task

GENERATED = "generated"


def print_finding(finding: "Finding") -> bool:
    """Print a finding; return whether it passed."""
    typer.echo(f"{'ok  ' if finding.passed else 'FAIL'} {finding.text}")
    return finding.passed


def verify_file(path: Path, options: Mapping[str, Any]) -> bool:
    """Print the physics that recorded a file in D4RL's layout; return whether it is known."""
    from dtbench.domains.d4rl import replay

    if options:
        given = ", ".join(f"--{name}" for name in options)
        raise InvalidValue(f"{given} does not apply to a file, whose physics alone is verified. Name a task instead.")
    verdict = replay.verify_file(path)
    typer.echo(path)
    for line in verdict.lines():
        typer.echo(line)
    return bool(verdict.physics)


def findings(task: "Task", dataset: "TrajectoryDataset", *, remake: bool, file: Path | None) -> "Iterator[Finding]":
    """Yield what is found of a dataset: its digest, its form, published facts, and whether it can be made again."""
    from dtbench.data.dataset import digest_of, validate
    from dtbench.domains.d4rl import verification
    from dtbench.domains.d4rl.verification import Finding

    yield Finding(digest_of(dataset) == dataset.digest, f"digest {dataset.digest}: all arrays hashed again")
    try:
        validate(dataset)
        yield Finding(True, "whole, finite episodes of the declared spaces")
    except InvalidDataset as error:
        yield Finding(False, str(error))
    yield from verification.findings(dataset, remake=remake, file=file)
    if remake and dataset.info.get("source") == GENERATED and "robot" not in dataset.info:
        with _empty_cache():
            again = task.open(GENERATED).digest
        yield Finding(again == dataset.digest, f"generated again: digest {again}")


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Use a temporary, empty cache of datasets within the block."""
    from dtbench.data import cache

    before = os.environ.get("DTBENCH_DATA")
    with tempfile.TemporaryDirectory(dir=cache.root(), prefix=".remade.") as directory:
        os.environ["DTBENCH_DATA"] = directory
        try:
            yield
        finally:
            del os.environ["DTBENCH_DATA"]
            if before is not None:
                os.environ["DTBENCH_DATA"] = before
