"""`dtbench schema` and the check of a suite's file."""

import json
from collections.abc import Callable

import typer


def schema() -> None:
    """Print the JSON schema of suite files, which editors complete and check by.

    `dtbench schema > suite.schema.json`; a suite names it in its first line:
    # yaml-language-server: $schema=suite.schema.json
    """
    from dtbench.suite.json_schema import suite_schema

    typer.echo(json.dumps(suite_schema(), indent=2))


def is_suite(name: str) -> bool:
    """Return whether what is to be checked is a suite: a YAML file, or a name from `list suites`."""
    from dtbench.suite.loading import suite_names

    return name.endswith((".yaml", ".yml")) or name in suite_names()


def check_suite(path: str) -> None:
    """Read a suite with each of its presets and print their sizes; raise an error for the first mistake.

    Names of tasks, algorithms, hyperparameters and keys are checked; no data are opened.
    """
    from dtbench.suite.loading import read_document
    from dtbench.suite.planning import load_suite

    presets = list(read_document(path)["presets"])
    for preset in presets or [None]:
        suite = load_suite(path, preset=preset)
        tasks, contenders, seeds = len(suite.tasks), len(suite.contenders), len(suite.seeds)
        trials = f"{tasks} tasks x {contenders} contenders x {seeds} seeds = {tasks * contenders * seeds} trials"
        typer.echo(f"{path}, {f'preset {preset}' if preset else 'no preset'}: {trials}")


COMMANDS: tuple[Callable[..., None], ...] = (schema,)
