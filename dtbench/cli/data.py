"""The commands of `dtbench data`: list, download, generate, show, verify and export datasets."""

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtbench.cli.data_verify import GENERATED, findings, print_finding, verify_file
from dtbench.cli.options import ImportOption, JsonOption
from dtbench.errors import DtbenchError, InvalidDataset, InvalidValue, MissingDataset, UnknownName

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.data.dataset import TrajectoryDataset
    from dtbench.task import DataSource, Task

data_app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

TaskArgument = Annotated[
    str, typer.Argument(metavar="TASK", help="A name from `list tasks`, or minari:ID.", show_default=False)
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        help="Data source: d4rl, re-recorded, dqn-replay, minari, generated, ... Default: the data on disk, else "
        "generated; never a download."
    ),
]
StepsOption = Annotated[int | None, typer.Option(help="Steps of generated and re-recorded data.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of generated and re-recorded data.")]
SettingsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[OPTION=VALUE]...", help="Task options: file=my.hdf5, episode_length=50.", show_default=False
    ),
]
RecipeOption = Annotated[
    str | None, typer.Option(help="Behaviour policies of generated locomotion data: sac, as in D4RL, or ppo.")
]


@data_app.command("ls")
def ls(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Names or patterns: 'hopper-*'.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List tasks and their sources: what is on disk, and what can be downloaded or generated."""
    from rich.table import Table

    from dtbench import registry
    from dtbench.cli.progress import say, show
    from dtbench.data import cache
    from dtbench.domains.minari import tasks as minari

    names = list(dict.fromkeys([*registry.task_names(), *minari.local_names()]))
    selected = [name for name in names if not tasks or any(fnmatch(name, pattern) for pattern in tasks)]
    if not selected:
        raise UnknownName("task", " ".join(tasks or ()), names)
    columns = ("task", "source", "state", "episodes", "steps", "MiB", "digest")
    if json_:
        rows = [dict(zip(columns, (name, *row), strict=True)) for name in selected for row in _rows(name)]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in ("episodes", "steps", "MiB") else "left", no_wrap=True)
    for name in selected:
        for row in _rows(name):
            table.add_row(name, *row)
    show(table)
    say(f"datasets are stored in {cache.root()}")


@data_app.command()
def get(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Names from `list tasks`, or minari:ID.")],
    source: Annotated[str | None, typer.Option(help="Data source. Default: the first that can be downloaded.")] = None,
) -> None:
    """Download datasets; continue interrupted downloads."""
    from dtbench import registry
    from dtbench.cli.progress import download_bar
    from dtbench.data.download import reporting

    for name in tasks:
        with download_bar(name) as on_bytes, reporting(on_bytes):
            selected = _downloadable(registry.make_task(name), source)
            if not selected.available():
                assert selected.fetch is not None
                selected.fetch()
        typer.echo(f"{name}: {selected.name}, {_size(selected.load())}")


@data_app.command()
def generate(
    task: TaskArgument, steps: StepsOption = None, seed: SeedOption = None, recipe: RecipeOption = None
) -> None:
    """Generate a dataset with dtbench's behaviour policies, unless it is on disk."""
    from dtbench import registry

    opened = registry.make_task(task, _options(steps, seed, recipe))
    sources = [source.name for source in opened.sources]
    if sources and GENERATED not in sources:
        raise UnknownName(f"source of {task}", GENERATED, sources, hint="Its data cannot be generated.")
    typer.echo(f"{task}: {_size(_open(opened, GENERATED if sources else 'auto'))}")


@data_app.command()
def rerecord(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A dataset of D4RL: hopper-medium-v2.")],
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="D4RL's v2 file of it, or an excerpt, with its policy."),
    ] = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
) -> None:
    """Record a dataset of D4RL again, with the policy in its file and D4RL's physics.

    The policy must reproduce the log-probabilities in the file. It is stored for later runs with `--source
    re-recorded`. Random data need no file; medium-expert data need the policies of both halves.
    """
    from dtbench import registry
    from dtbench.domains.d4rl import rerecorded, verification
    from dtbench.domains.d4rl.env_specs import locomotion_env

    env_name, kind = rerecorded.split_name(task)
    env = locomotion_env(env_name)
    rerecorded.check_kind(env, kind)
    opened = registry.make_task(task, _options(steps, seed))
    if file is not None:
        if kind not in ("medium", "expert"):
            raise InvalidValue(f"{task} has no single policy: leave out --from. {rerecorded.NEEDS[kind]}")
        policy = rerecorded.read_policy(file, env)
        rerecorded.check_returns(file, task, env)
        path = rerecorded.store_policy(task, policy)
        typer.echo(f"{file}: its policy reproduces its log-probabilities; stored in {path}")
    source = next(source for source in opened.sources if source.name == rerecorded.NAME)
    if not source.available():
        rerecorded.policies_of(env, kind)
        typer.echo(f"{task}: recording, which takes minutes")
    dataset = source.load()
    typer.echo(f"{task}: {dataset.info['source']}, {_size(dataset)}")
    for finding in verification.rerecorded_statistics(dataset):
        print_finding(finding)
    option = f"task_options.steps={dataset.info['asked_steps']}" + (
        "" if seed is None else f" task_options.seed={seed}"
    )
    typer.echo(f"Use it: dtbench run --suite d4rl -t {task} --source {rerecorded.NAME} {option}")


@data_app.command()
def show(
    task: TaskArgument,
    settings: SettingsArgument = None,
    import_: ImportOption = None,
    source: SourceOption = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the card as SVG and PNG.")] = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    json_: JsonOption = False,
) -> None:
    """Print a dataset's card: episodes, returns and their histogram, best episode, digest and provenance."""
    from dtbench import foreign, registry
    from dtbench.cli.data_card import card_json, card_lines

    foreign.add_imports(import_ or ())
    opened = registry.make_task(task, _options(steps, seed, recipe) | _settings(settings or ()))
    dataset = _open(opened, source)
    drawn: list[str] = []
    if out is not None:
        from dtbench.analysis.figures.data_card import write_card

        drawn = [str(path) for path in write_card(dataset, task, out)]
    if json_:
        typer.echo(json.dumps({**card_json(opened, dataset), "files": drawn}, indent=2))
    else:
        typer.echo("\n".join([*card_lines(opened, dataset), *drawn]))


@data_app.command()
def verify(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE", help="A name from `list tasks`, or a file in D4RL's layout.", show_default=False
        ),
    ],
    settings: SettingsArgument = None,
    import_: ImportOption = None,
    source: SourceOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    file: Annotated[Path | None, typer.Option(help="File to read as the data of TASK, instead of D4RL's.")] = None,
    remake: Annotated[bool, typer.Option("--remake", help="Generate it again and compare; takes minutes.")] = False,
) -> None:
    """Hash a dataset again and compare it with published facts. Exit code 1: something differs.

    For Hopper, HalfCheetah and Walker2d (and files of Ant) it replays a sample of transitions under the physics d4rl,
    v4 and v5, prints the one-step errors and names the physics that recorded the data.
    """
    from dtbench import foreign, registry

    foreign.add_imports(import_ or ())
    options = _options(steps, seed, recipe, str(file) if file else None) | _settings(settings or ())
    if task.endswith((".hdf5", ".h5")):
        raise typer.Exit(0 if verify_file(Path(task).expanduser(), options) else 1)
    opened = registry.make_task(task, options)
    dataset = _open(opened, source)
    typer.echo(f"{task}: data source {dataset.info.get('source', 'unknown')}")
    absolute = file.expanduser().absolute() if file else None
    passed = [print_finding(finding) for finding in findings(opened, dataset, remake=remake, file=absolute)]
    raise typer.Exit(0 if all(passed) else 1)


@data_app.command()
def export(
    task: TaskArgument,
    target: Annotated[
        str,
        typer.Argument(metavar="FILE.hdf5|minari:ID", help="The file or the set to write.", show_default=False),
    ],
    settings: SettingsArgument = None,
    import_: ImportOption = None,
    source: SourceOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a dataset without stacked frames as an HDF5 file in D4RL's layout, or as a local dataset of Minari's.

    minari:ID, e.g. minari:mine/hopper-v0, is then a task, and minari.load_dataset(ID) reads it.
    """
    from dtbench import foreign, registry

    foreign.add_imports(import_ or ())
    scheme, colon, dataset_id = target.partition(":")
    to_minari = bool(colon) and scheme == "minari"
    if not to_minari and Path(target).exists() and not force:
        raise DtbenchError(f"{target} exists. Choose another name, or use --force.")
    opened = registry.make_task(task, _options(steps, seed, recipe) | _settings(settings or ()))
    dataset = _open(opened, source)
    if dataset.frame_stack > 1:
        raise InvalidDataset(
            f"{task} holds stacked frames, which D4RL's layout does not support, nor the export to Minari."
        )
    if to_minari:
        from dtbench.data.minari_export import write_minari

        written = write_minari(dataset, dataset_id, environment=opened.make_env(1).spec, force=force)
    else:
        from dtbench.data.d4rl_hdf5 import write_d4rl

        written = Path(target)
        write_d4rl(dataset, written)
    size = sum(path.stat().st_size for path in (written, *written.rglob("*")) if path.is_file())
    episodes = f"{dataset.num_episodes} episodes, {dataset.num_steps} steps"
    typer.echo(f"{target}: {episodes}, {size / 2**20:.1f} MiB")


def _options(
    steps: int | None, seed: int | None, recipe: str | None = None, file: str | None = None
) -> dict[str, Any]:
    options = {"steps": steps, "seed": seed, "recipe": recipe, "file": file}
    return {name: value for name, value in options.items() if value is not None}


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return the options of "file=my.hdf5" or, as `run` has it, "task_options.file=my.hdf5"."""
    from dtbench.suite.loading import read_yaml

    options = {}
    for text in texts:
        name, equals, value = text.removeprefix("task_options.").partition("=")
        if not equals or not name:
            raise InvalidValue(f"{text!r:.100} is not an option of a task: write name=value, e.g. file=my.hdf5.")
        try:
            options[name] = read_yaml(value)
        except ValueError as error:
            raise InvalidValue(f"option {text!r:.100}: its value is not YAML: {error}. Put it in quotes.") from None
    return options


def _size(dataset: "TrajectoryDataset") -> str:
    return f"{dataset.num_episodes} episodes, {dataset.num_steps} steps, {dataset.digest}"


def _rows(task_name: str) -> list[tuple[str, ...]]:
    """Return the rows of a task in the list, one for each source."""
    from dtbench import registry
    from dtbench.data import cache
    from dtbench.task import DataSource

    with cache.reading_only():
        try:
            task = registry.make_task(task_name)
        except DtbenchError as error:
            return [("", _error_state(error), "", "", "", "")]
        sources = task.sources or (DataSource("", task.load_dataset, available=lambda: False),)
        return [_row(source) for source in sources]


def _row(source: "DataSource") -> tuple[str, ...]:
    from dtbench.data.dataset import ARRAYS

    try:
        dataset = source.load()
    except MissingDataset:
        if source.available():
            state = "on disk, not read yet"
        elif source.fetch is not None:
            state = "can be downloaded"
        else:
            state = "can be generated" if source.name in ("", GENERATED) else "not on disk"
        return (source.name or GENERATED, state, "", "", "", "")
    except DtbenchError as error:
        return (source.name, _error_state(error), "", "", "", "")
    arrays = [*(getattr(dataset, array) for array in ARRAYS), *dataset.extras.values()]
    name = source.name or str(dataset.info.get("source", GENERATED))
    size = f"{sum(array.nbytes for array in arrays) / 2**20:.1f}"
    return (name, "on disk", str(dataset.num_episodes), str(dataset.num_steps), size, dataset.digest[:12])


def _error_state(error: DtbenchError) -> str:
    return "on disk, not read yet" if isinstance(error, MissingDataset) else f"broken: {error}"


def _downloadable(task: "Task", source: str | None) -> "DataSource":
    sources = {found.name: found for found in task.sources if found.fetch is not None}
    if source is not None and source not in sources:
        raise UnknownName(f"downloadable source of {task.name}", source, sources)
    if not sources:
        raise MissingDataset(f"{task.name} has nothing to download. Generate it: dtbench data generate {task.name}")
    return sources[source] if source is not None else next(iter(sources.values()))


def _open(task: "Task", source: str | None) -> "TrajectoryDataset":
    """Open a task's data, without a download unless the source asks for one; announce what takes minutes."""
    from dtbench.cli.progress import download_bar
    from dtbench.data.download import reporting

    name = source or (task.resolve(fetch=False) if task.sources else "auto")
    selected = next((found for found in task.sources if found.name == name), None)
    if selected is not None and name == GENERATED and not selected.available():
        typer.echo(f"{task.name}: generating its data, which takes minutes", err=True)
    if selected is None:
        with download_bar(task.name) as on_bytes, reporting(on_bytes):
            return task.open(name)
    return selected.load()
