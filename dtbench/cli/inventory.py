"""`dtbench data`: which datasets are here, how to get the others, and what is in them."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dtbench import registry
from dtbench.cli.progress import download_bar
from dtbench.data import cache
from dtbench.data.d4rl_hdf5 import write_d4rl
from dtbench.data.dataset import ARRAYS, TrajectoryDataset, digest_of, statistics_card, validate
from dtbench.data.download import reporting
from dtbench.domains.d4rl import rerecorded, verification
from dtbench.domains.d4rl.env_specs import locomotion_env
from dtbench.domains.d4rl.replay import verify_file
from dtbench.domains.minari.tasks import local_names
from dtbench.errors import DtbenchError, InvalidDataset, InvalidValue, MissingDataset, UnknownName, abridged
from dtbench.task import AUTO, DataSource, Task

GENERATED = "generated"
RAW = "raw_rewards"  # rewards before they were clipped, among a dataset's extras
GAME = "atari:"  # how the names of games begin
BAR = 40  # characters of a histogram's longest bar
SHADES = " ░▒▓█"
CELL = (4, 2)  # pixels of a frame that a character stands for, which is twice as high as it is wide

Options = Mapping[str, Any]


def list_data(patterns: Sequence[str] = ()) -> None:
    """A table of tasks and sources: what is on disk, and what can be downloaded or generated. Makes nothing."""
    names = list(dict.fromkeys([*registry.task_names(), *local_names()]))
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
    console.print(f"datasets are kept in {cache.root()}", soft_wrap=True)


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


def rerecord(name: str, file: Path | None, options: Options) -> None:
    """Keep the policy of a D4RL file and record its dataset again with it."""
    robot_name, kind = rerecorded.split_name(name)
    robot = locomotion_env(robot_name)
    rerecorded.check_kind(robot, kind)
    task = registry.make_task(name, options)
    if file is not None:
        if kind not in ("medium", "expert"):
            raise InvalidValue(f"{name} is not played by one policy: leave out --from. {rerecorded.NEEDS[kind]}")
        policy = rerecorded.read_policy(file, robot)
        rerecorded.check_returns(file, name, robot)
        path = rerecorded.keep_policy(name, policy)
        print(f"{file}: its policy gives its own log-probabilities; kept in {path}")
    source = next(found for found in task.sources if found.name == rerecorded.NAME)
    if not source.available():
        rerecorded.policies_of(robot, kind)
        print(f"{name}: recording, which takes minutes", flush=True)
    dataset = source.load()
    label = dataset.info["source"]
    print(f"{name}: {label}, {dataset.num_episodes} episodes, {dataset.num_steps} steps, {dataset.digest}")
    for finding in verification.rerecorded_statistics(dataset):
        _print_finding(finding)
    steps = f"task_options.steps={dataset.info['asked_steps']}"
    print(f"use it: dtbench run --suite d4rl -t {name} --source {rerecorded.NAME} {steps}{_seed_option(options)}")


def show(name: str, source: str | None, out: Path | None, options: Options) -> None:
    """Print the card of a task's data; draw it into the folder `out`."""
    task = registry.make_task(name, options)
    dataset = _open_aloud(task, source)
    for line in card_lines(task, dataset):
        print(line)
    if sys.stdout.isatty() and holds_frames(dataset):
        for line in frame_lines(dataset, shutil.get_terminal_size().columns):
            print(line)
    if out is not None:
        from dtbench.analysis.figures.data_card import write_card

        for path in write_card(dataset, name, out):
            print(path)


def verify(name: str, source: str | None, options: Options, *, remake: bool) -> bool:
    """Hash a task's data again and compare it with all that is known of it; print a line each, True when all agree.

    `name` may be a file in D4RL's layout, of which only the physics is looked at.
    """
    if name.endswith((".hdf5", ".h5")):
        return _verify_file(Path(name).expanduser(), options)
    task = registry.make_task(name, options)
    dataset = _open_aloud(task, source)
    print(f"{name}: data source {dataset.info.get('source', 'unknown')}")
    fine = True
    file = Path(str(options["file"])).expanduser().absolute() if options.get("file") else None
    for finding in _findings(task, dataset, remake=remake, file=file):
        fine = fine and finding.passed
        _print_finding(finding)
    return fine


def _print_finding(finding: verification.Finding) -> None:
    print(f"{'ok  ' if finding.passed else 'FAIL'} {finding.text}", flush=True)


def _seed_option(options: Options) -> str:
    return f" task_options.seed={options['seed']}" if "seed" in options else ""


def _verify_file(path: Path, options: Options) -> bool:
    if options:
        given = ", ".join(f"--{name}" for name in options)
        raise InvalidValue(f"{given} with {path}: of a file only the physics is looked at. Name a task to check more.")
    verdict = verify_file(path)
    print(path)
    for line in verdict.lines():
        print(line)
    return bool(verdict.physics)


def export(name: str, path: Path, source: str | None, options: Options, *, force: bool) -> None:
    """Write a task's data as a file in D4RL's layout."""
    if path.exists() and not force:
        raise DtbenchError(f"{path} exists. Choose another name, or say --force.")
    dataset = _open_aloud(registry.make_task(name, options), source)
    if dataset.frame_stack > 1:
        raise InvalidDataset(f"{name} holds stacks of frames, which D4RL's layout does not know.")
    write_d4rl(dataset, path)
    print(f"{path}: {dataset.num_episodes} episodes, {dataset.num_steps} steps, {path.stat().st_size / 2**20:.1f} MiB")


def card_lines(task: Task, dataset: TrajectoryDataset) -> Iterator[str]:
    """The card of a dataset as text, with a histogram of its returns."""
    card, info = statistics_card(dataset), dataset.info
    first = int(dataset.offsets[card["best_episode"]])
    best = int(dataset.lengths[card["best_episode"]])
    scores = _scores(task, dataset)
    yield f"task      {task.name}"
    yield f"source    {info.get('source', 'unknown')}"
    yield f"digest    {dataset.digest}"
    if holds_frames(dataset):
        height, width = dataset.observations.shape[1:]
        yield f"frames    {height} x {width} of {dataset.observations.dtype}, an observation is {dataset.frame_stack}"
    yield f"episodes  {card['episodes']}, of which {card['cut_off_episodes']} were cut off"
    spread = f"mean {card['length_mean']:.1f}, std {card['length_std']:.1f}"
    yield f"steps     {card['steps']}: {card['length_min']} to {card['length_max']} an episode, {spread}"
    dropped = card["unknown_transitions"]
    lost = "all of them" if not dropped else f"all but {dropped}, the last of episodes cut off to an unknown successor"
    yield f"          TD learners learn from {lost}"
    if card["actions_on_bound"] is not None:
        yield f"actions   {card['actions_on_bound']:.2%} of their numbers lie on a bound"
    yield from _policy_lines(info)
    if info.get("excerpt"):
        yield f"excerpt   {info['excerpt']}: NOT the set that published numbers are of"
    yield f"return    mean {card['return_mean']:.4g}, std {card['return_std']:.4g}"
    yield f"          lowest {card['return_min']:.4g}, highest {card['return_max']:.4g}"
    if RAW in dataset.extras:
        raw = _raw_returns(dataset)
        yield f"          of rewards before they were clipped: mean {raw.mean():.4g}, highest {raw.max():.4g}"
    if scores is not None:
        yield f"score     mean {scores[0]:.1f}, highest {scores[1]:.1f}: {task.score_name}"
    yield f"best      episode {card['best_episode']}: {best} steps from step {first}, return {card['return_max']:.4g}"
    yield "returns   episodes"
    yield from _histogram(card["return_histogram"]["counts"], card["return_histogram"]["edges"])
    for key, value in sorted(info.items()):
        if key not in ("excerpt", "policy_returns"):
            yield f"{key:<9} {abridged(value)}"


def _policy_lines(info: Mapping[str, Any]) -> Iterator[str]:
    """How many policies recorded the data, and what each earns with its noise and without."""
    policies = info.get("policies")
    if policies:
        yield f"policies  {len(policies)}"
    for row in info.get("policy_returns") or ():
        without = row.get("without_noise")
        reach = "" if without is None else f"; without noise {without:.1f}, what imitation can reach"
        yield f"          {row['policy']}: mean return {row['with_noise']:.1f}{reach}"


def holds_frames(dataset: TrajectoryDataset) -> bool:
    """Whether a row of the observations is one frame of a stack of them."""
    return dataset.frame_stack > 1 and dataset.observations.ndim == 3


def frame_lines(dataset: TrajectoryDataset, columns: int) -> Iterator[str]:
    """Frames of the best episode side by side, as many as fit into so many columns: its middle, or up to three."""
    best = int(dataset.returns.argmax())
    begin, end = dataset.offsets[best : best + 2]
    wide = dataset.observations.shape[2] // CELL[1] + 2
    steps = np.linspace(begin, end, min(3, max(1, columns // wide)) + 2)[1:-1].astype(int)
    yield f"frames of episode {best}, steps {', '.join(str(step - begin) for step in steps)}"
    drawn = [_shaded(np.asarray(dataset.observations[step])) for step in steps]
    yield from ("  ".join(row).rstrip() for row in zip(*drawn, strict=True))


def _rows(task_name: str) -> list[tuple[str, ...]]:
    with cache.reading_only():
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
            state = "can be generated" if source.name in ("", GENERATED) else "not on disk"
        return (source.name or GENERATED, state, "", "", "", "")
    except DtbenchError as error:
        return (source.name, _state_of(error), "", "", "", "")
    arrays = [*(getattr(dataset, array) for array in ARRAYS), *dataset.extras.values()]
    size = sum(array.nbytes for array in arrays) / 2**20
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


def _findings(
    task: Task, dataset: TrajectoryDataset, *, remake: bool, file: Path | None
) -> Iterator[verification.Finding]:
    yield verification.Finding(
        digest_of(dataset) == dataset.digest, f"digest {dataset.digest}: all arrays hashed again"
    )
    try:
        validate(dataset)
        yield verification.Finding(True, "whole, finite episodes of the declared spaces")
    except InvalidDataset as error:
        yield verification.Finding(False, str(error))
    yield from verification.findings(dataset, remake=remake, file=file)
    if remake and dataset.info.get("source") == GENERATED and "robot" not in dataset.info:
        with _empty_store():
            again = task.open(GENERATED).digest
        yield verification.Finding(again == dataset.digest, f"made again: digest {again}")


@contextmanager
def _empty_store() -> Iterator[None]:
    """Within, datasets are kept in an empty folder of the store, which is then removed."""
    before = os.environ.get("DTBENCH_DATA")
    with tempfile.TemporaryDirectory(dir=cache.root(), prefix=".remade.") as folder:
        os.environ["DTBENCH_DATA"] = folder
        try:
            yield
        finally:
            os.environ.pop("DTBENCH_DATA")
            if before is not None:
                os.environ["DTBENCH_DATA"] = before


def _scores(task: Task, dataset: TrajectoryDataset) -> tuple[float, float] | None:
    """Mean and highest score of the data's own episodes, where the score is a function of the return."""
    from dtbench.evaluation import Episodes

    count = dataset.num_episodes
    numbers = np.arange(count)
    played = Episodes(np.full(count, np.nan), numbers, numbers, _raw_returns(dataset), dataset.lengths)
    try:
        scores = task.score(played)
    except (KeyError, IndexError):  # the graph's score wants the environment's info
        return None
    return float(scores.mean()), float(scores.max())


def _raw_returns(dataset: TrajectoryDataset) -> NDArray[np.float64]:
    """Returns of the episodes by what the environment paid, where the rewards are no longer that."""
    rewards = np.asarray(dataset.extras.get(RAW, dataset.rewards), np.float64)
    return np.add.reduceat(rewards, dataset.offsets[:-1])


def _shaded(frame: NDArray[Any]) -> list[str]:
    """A frame [H, W] as lines; a character has the shade that differs most, in its cell, from the background."""
    high, wide = CELL
    rows, columns = frame.shape[0] // high, frame.shape[1] // wide
    pixels = frame[: rows * high, : columns * wide].astype(int).reshape(rows, high, columns, wide)
    cells = pixels.swapaxes(1, 2).reshape(rows, columns, high * wide)
    ground = np.bincount(frame.ravel()).argmax()
    places = abs(cells - ground).argmax(axis=2, keepdims=True)  # a mean would lose the ball
    seen = np.take_along_axis(cells, places, axis=2)[..., 0]
    levels = (seen - seen.min()) * (len(SHADES) - 1) // max(1, int(np.ptp(seen)))
    return ["".join(SHADES[level] for level in row) for row in levels]


def _histogram(counts: Sequence[int], edges: Sequence[float]) -> Iterator[str]:
    most = max(counts)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(BAR * count / most) or ("▏" if count else "")
        yield f"{low:>9.4g} to {high:>9.4g}  {bar} {count or ''}".rstrip()
