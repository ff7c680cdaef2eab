"""`dtbench data`: which datasets are here, how to get the others, and what is in them."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dtbench import registry
from dtbench.data import minari_sets, store
from dtbench.data.download import reporting
from dtbench.data.hdf5 import write_d4rl
from dtbench.data.trajectories import ARRAYS, TrajectoryDataset, digest_of, statistics_card, validate
from dtbench.domains.d4rl import verification
from dtbench.errors import DtbenchError, InvalidDataset, MissingDataset, UnknownName
from dtbench.progress import download_bar
from dtbench.task import AUTO, DataSource, Task

GENERATED = "generated"
BAR = 40  # characters of a histogram's longest bar

Options = Mapping[str, Any]


def list_data(patterns: Sequence[str] = ()) -> None:
    """A table of tasks and sources: what is on disk, and what can be downloaded or generated. Makes nothing."""
    names = [*registry.task_names(), *(f"minari:{dataset_id}" for dataset_id in minari_sets.local_sets())]
    chosen = [name for name in names if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]
    if not chosen:
        raise UnknownName("task", " ".join(patterns), names)
    table = Table()
    for column in ("task", "source", "state", "episodes", "steps", "MiB", "digest"):
        table.add_column(column, justify="right" if column in ("episodes", "steps", "MiB") else "left", no_wrap=True)
    for name in chosen:
        for row in _rows(name):
            table.add_row(name, *row)
    console = Console(highlight=False)
    # Piped, a table would be cut to 80 columns.
    console.print(table, soft_wrap=True) if console.is_terminal else Console(width=150, highlight=False).print(table)
    console.print(f"datasets are kept in {store.root()}", soft_wrap=True)


def get(name: str, source: str | None) -> None:
    """Download a task's data with a progress bar, then read it into the store."""
    with download_bar(name) as on_bytes, reporting(on_bytes):
        task = registry.make_task(name)
        found = _downloadable(task, source)
        if not found.available():
            assert found.fetch is not None
            found.fetch()
    dataset = found.load()
    print(f"{name}: {found.name}, {dataset.num_episodes} episodes, {dataset.num_steps} steps, {dataset.digest}")


def generate(name: str, options: Options) -> None:
    """Make a task's generated data, unless it is in the store."""
    task = registry.make_task(name, options)
    sources = [found.name for found in task.sources]
    if sources and GENERATED not in sources:
        raise UnknownName(f"source of {name}", GENERATED, sources, hint="Its data cannot be generated.")
    dataset = _open_aloud(task, GENERATED if sources else AUTO)
    print(f"{name}: {dataset.num_episodes} episodes, {dataset.num_steps} steps, {dataset.digest}")


def show(name: str, source: str | None, out: Path | None, options: Options) -> None:
    """Print the card of a task's data; draw it into the folder `out`."""
    task = registry.make_task(name, options)
    dataset = _open_aloud(task, source)
    for line in card_lines(task, dataset):
        print(line)
    if out is not None:
        from dtbench.analysis.data_card import write_card

        for path in write_card(dataset, name, out):
            print(path)


def verify(name: str, source: str | None, options: Options, *, remake: bool) -> bool:
    """Hash a task's data again and compare it with all that is known of it; print a line each, True when all agree."""
    dataset = _open_aloud(registry.make_task(name, options), source)
    print(f"{name}: data source {dataset.info.get('source', 'unknown')}")
    fine = True
    for finding in _findings(dataset, remake=remake):
        fine = fine and finding.passed
        print(f"{'ok  ' if finding.passed else 'FAIL'} {finding.text}", flush=True)
    return fine


def export(name: str, path: Path, source: str | None, options: Options, *, force: bool) -> None:
    """Write a task's data as a file in D4RL's layout."""
    if path.exists() and not force:
        raise DtbenchError(f"{path} exists. Choose another name, or say --force.")
    dataset = _open_aloud(registry.make_task(name, options), source)
    write_d4rl(dataset, path)
    print(f"{path}: {dataset.num_episodes} episodes, {dataset.num_steps} steps, {path.stat().st_size / 2**20:.1f} MiB")


def train_behavior(robot_name: str, algorithm: str, folder: Path, *, steps: int, seed: int, snapshots: int) -> None:
    """Train a behaviour policy and keep snapshots of it."""
    from dtbench.domains.d4rl.robots import robot_named

    robot = robot_named(robot_name)
    if algorithm not in ("ppo", "sac"):
        raise UnknownName("algorithm for behaviour policies", algorithm, ("ppo", "sac"))
    try:
        from dtbench.domains.d4rl.training import train_behavior as train
    except ModuleNotFoundError as error:
        if error.name != "stable_baselines3":
            raise
        raise DtbenchError(
            "training behaviour policies needs stable-baselines3: pip install 'dtbench[behavior]'."
        ) from error
    train(robot, folder, algorithm=algorithm, steps=steps, seed=seed, snapshots=snapshots)
    print(f"{folder}: {len(list(folder.glob('*/step-*.npz')))} policies, their curves and manifest.json")


def card_lines(task: Task, dataset: TrajectoryDataset) -> Iterator[str]:
    """The card of a dataset as text, with a histogram of its returns."""
    card, info = statistics_card(dataset), dataset.info
    first = int(dataset.offsets[card["best_episode"]])
    best = int(dataset.lengths[card["best_episode"]])
    scores = _scores(task, dataset)
    yield f"task      {task.name}"
    yield f"source    {info.get('source', 'unknown')}"
    yield f"digest    {dataset.digest}"
    yield f"episodes  {card['episodes']}, of which {card['cut_off_episodes']} were cut off"
    span = f"{card['length_min']} to {card['length_max']} an episode, mean {card['length_mean']:.1f}"
    yield f"steps     {card['steps']}: {span}"
    yield f"return    mean {card['return_mean']:.4g}, std {card['return_std']:.4g}"
    yield f"          lowest {card['return_min']:.4g}, highest {card['return_max']:.4g}"
    if scores is not None:
        yield f"score     mean {scores[0]:.1f}, highest {scores[1]:.1f}: {task.score_name}"
    yield f"best      episode {card['best_episode']}: {best} steps from step {first}, return {card['return_max']:.4g}"
    yield "returns   episodes"
    yield from _histogram(card["return_histogram"]["counts"], card["return_histogram"]["edges"])
    for key, value in sorted(info.items()):
        yield f"{key:<9} {value}"


def _rows(task_name: str) -> list[tuple[str, ...]]:
    with store.reading_only():
        try:
            task = registry.make_task(task_name)
        except DtbenchError as error:
            return [("", _state_of(error), "", "", "", "")]
        sources = task.sources or (DataSource("", task.load_dataset, available=lambda: False),)
        return [_row(source, task) for source in sources]


def _row(source: DataSource, task: Task) -> tuple[str, ...]:
    try:
        dataset = source.load()
    except MissingDataset:
        if source.available():
            state = "on disk, not read yet"
        elif source.fetch is not None:
            state = "can be downloaded"
        else:
            state = "can be generated"
        return (source.name or GENERATED, state, "", "", "", "")
    except DtbenchError as error:
        return (source.name, _state_of(error), "", "", "", "")
    size = sum(getattr(dataset, array).nbytes for array in ARRAYS) / 2**20
    name = source.name or str(dataset.info.get("source", GENERATED))
    numbers = (str(dataset.num_episodes), str(dataset.num_steps), f"{size:.1f}")
    return (name, "on disk", *numbers, dataset.digest[:12])


def _state_of(error: DtbenchError) -> str:
    return "on disk, not read yet" if isinstance(error, MissingDataset) else f"broken: {error}"


def _downloadable(task: Task, source: str | None) -> DataSource:
    named = {found.name: found for found in task.sources if found.fetch is not None}
    if source is not None and source not in named:
        raise UnknownName(f"downloadable source of {task.name}", source, named)
    if not named:
        raise MissingDataset(f"{task.name} has nothing to download. Make it: dtbench data generate {task.name}")
    return named[source] if source is not None else next(iter(named.values()))


def _open_aloud(task: Task, source: str | None) -> TrajectoryDataset:
    """Open without touching the network unless asked to; say so before what may take minutes."""
    chosen = source or (task.resolve(fetch=False) if task.sources else AUTO)
    found = next((found for found in task.sources if found.name == chosen), None)
    if found is not None and chosen == GENERATED and not found.available():
        print(f"{task.name}: generating its data, which takes minutes", flush=True)
    if chosen == AUTO or found is None:
        with download_bar(task.name) as on_bytes, reporting(on_bytes):
            return task.open(chosen)
    return found.load()


def _findings(dataset: TrajectoryDataset, *, remake: bool) -> Iterator[verification.Finding]:
    yield verification.Finding(
        digest_of(dataset) == dataset.digest, f"digest {dataset.digest}: all arrays hashed again"
    )
    try:
        validate(dataset)
        yield verification.Finding(True, "whole, finite episodes of the declared spaces")
    except InvalidDataset as error:
        yield verification.Finding(False, str(error))
    yield from verification.findings(dataset, remake=remake)


def _scores(task: Task, dataset: TrajectoryDataset) -> tuple[float, float] | None:
    """Mean and highest score of the data's own episodes, where the score is a function of the return."""
    import numpy as np

    from dtbench.evaluation import Episodes

    count = dataset.num_episodes
    numbers = np.arange(count)
    played = Episodes(np.full(count, np.nan), numbers, numbers, dataset.returns, dataset.lengths)
    try:
        scores = task.score(played)
    except (KeyError, IndexError):  # the graph's score wants the environment's info
        return None
    return float(scores.mean()), float(scores.max())


def _histogram(counts: Sequence[int], edges: Sequence[float]) -> Iterator[str]:
    most = max(counts)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(BAR * count / most) or ("▏" if count else "")
        yield f"{low:>9.4g} to {high:>9.4g}  {bar} {count or ''}".rstrip()
