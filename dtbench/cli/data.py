"""The commands of `dtbench data`: datasets listed, fetched, generated, shown, verified and exported."""

from pathlib import Path
from typing import Annotated, Any

import typer

data_app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

TaskArgument = Annotated[
    str, typer.Argument(metavar="TASK", help="A name from `list tasks`, or minari:ID.", show_default=False)
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        help="d4rl, re-recorded, dqn-replay, minari, generated, ... Default: what is on disk, else what is generated; "
        "no download."
    ),
]
StepsOption = Annotated[int | None, typer.Option(help="Size of generated and re-recorded data, in steps.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of generated and re-recorded data.")]
RecipeOption = Annotated[
    str | None, typer.Option(help="Whose policies play a robot's generated data: sac, as in D4RL, or ppo.")
]


@data_app.command("ls")
def ls(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Names or patterns: 'hopper-*'.")
    ] = None,
) -> None:
    """List tasks and their sources: what is on disk, what can be downloaded or generated."""
    from dtbench.cli import inventory

    inventory.list_data(tasks or ())


@data_app.command()
def get(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Names from `list tasks`, or minari:ID.")],
    source: Annotated[str | None, typer.Option(help="Default: the first that can be downloaded.")] = None,
) -> None:
    """Download data and read it into the store; an interrupted download continues where it broke off."""
    from dtbench.cli import inventory

    for task in tasks:
        inventory.get(task, source)


@data_app.command()
def generate(
    task: TaskArgument, steps: StepsOption = None, seed: SeedOption = None, recipe: RecipeOption = None
) -> None:
    """Make a task's data with the behaviour policies that dtbench ships; what is made already stays."""
    from dtbench.cli import inventory

    inventory.generate(task, _options(steps, seed, recipe))


@data_app.command()
def rerecord(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A dataset of D4RL: hopper-medium-v2.")],
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="D4RL's v2 file of it, or an excerpt: it carries the policy."),
    ] = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
) -> None:
    """Record a set of D4RL again, with the policy that its file carries and D4RL's physics.

    The policy must give the log-probabilities that the file recorded. It is kept, so that runs with
    `--source re-recorded` find it. Random data needs no file; medium-expert needs the policies of both halves.
    """
    from dtbench.cli import inventory

    inventory.rerecord(task, file, _options(steps, seed))


@data_app.command()
def show(
    task: TaskArgument,
    source: SourceOption = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the card as SVG and PNG.")] = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
) -> None:
    """Print what is in a dataset: episodes, returns, their histogram, the best episode, frames, digest and origin."""
    from dtbench.cli import inventory

    inventory.show(task, source, out, _options(steps, seed, recipe))


@data_app.command()
def verify(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE", help="A name from `list tasks`, or a file in D4RL's layout.", show_default=False
        ),
    ],
    source: SourceOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    file: Annotated[
        Path | None, typer.Option(help="A file to read as the data of TASK, in place of D4RL's own.")
    ] = None,
    remake: Annotated[bool, typer.Option("--remake", help="Generate it again, and compare: takes minutes.")] = False,
) -> None:
    """Hash a dataset again and compare it with what is known of it. Exit code 1 where something differs.

    For Hopper, HalfCheetah and Walker2d (and files of Ant) it replays a sample of transitions under the physics d4rl,
    v4 and v5, prints the one-step errors and says which physics recorded the data.
    """
    from dtbench.cli import inventory

    options = _options(steps, seed, recipe, str(file) if file else None)
    raise typer.Exit(0 if inventory.verify(task, source, options, remake=remake) else 1)


@data_app.command()
def export(
    task: TaskArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.hdf5", help="The file to write.", show_default=False)],
    source: SourceOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a dataset as an HDF5 file in D4RL's layout, which knows no stacks of frames."""
    from dtbench.cli import inventory

    inventory.export(task, file, source, _options(steps, seed, recipe), force=force)


def _options(
    steps: int | None, seed: int | None, recipe: str | None = None, file: str | None = None
) -> dict[str, Any]:
    options = {"steps": steps, "seed": seed, "recipe": recipe, "file": file}
    return {name: value for name, value in options.items() if value is not None}
