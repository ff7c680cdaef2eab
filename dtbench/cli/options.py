"""Command-line options that several commands share."""

from typing import Annotated

import typer

from dtbench.cli.completion import complete_preset, complete_suite, complete_task

SuiteOption = Annotated[
    str,
    typer.Option("--suite", "-s", help="A name from `list suites`, or a YAML file.", autocompletion=complete_suite),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Settings as path=value: evaluation.episodes=50, train_steps=100 or DT.dropout=0.2."),
]
PresetOption = Annotated[
    str | None, typer.Option(help="A preset of the suite: smoke, cpu, paper, ...", autocompletion=complete_preset)
]
TaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task", "-t", help="Names or patterns of tasks, with commas or repeated.", autocompletion=complete_task
    ),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="Module that registers environments. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AddressOption = Annotated[str | None, typer.Option(help="Address of a running Ray cluster: auto or ray://host:10001.")]
SourceOption = Annotated[
    str | None,
    typer.Option(help="Data source: auto (real data on disk, else download, else generate), d4rl, minari, ..."),
]
