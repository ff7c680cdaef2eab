"""The Gym tasks of D4RL (Fu et al. 2020) and the paper's Reacher, each with the sources of its data."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.minari import fetch_minari, is_local
from dtbench.domains.d4rl import files, generation, rerecorded
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import KINDS, LOCOMOTION_ENVS, PHYSICS, REACHER, LocomotionEnv, Physics
from dtbench.errors import InvalidValue, UnknownName
from dtbench.task import MOST_STEPS, DataSource, Task, check_flag, check_length, check_seed, normalized_score

GOALS = {
    "halfcheetah": "Run forward with half a cheetah",
    "hopper": "Hop forward on one leg",
    "walker2d": "Walk forward on two legs",
    REACHER: "Bring a two-link arm to a goal and hold it there",
}
POLICIES = {
    "random": "uniformly random actions",
    "medium": "a mediocre policy",
    "medium-replay": "what a policy played until it was mediocre",
    "medium-expert": "a mediocre and a good policy, half and half",
    "expert": "a good policy",
}


def gym_task(
    robot: LocomotionEnv,
    kind: str,
    *,
    delayed: bool = False,
    physics: Physics = "d4rl",
    steps: int | None = None,
    seed: int = generation.SEED,
    recipe: str = "",
    file: str = "",
    episode_length: int | None = None,
    clip_actions: bool = False,
) -> Task:
    """Return the task of one robot and one kind of data.

    `physics` is that of evaluation and of generated data: "d4rl" is gymnasium's v4 with the physics of mujoco_py
    restored, "v4" and "v5" are gymnasium's own. `steps` and `seed` are those of generated and re-recorded data; by
    default there are as many as in D4RL's set. `recipe` is "sac" or "ppo", the algorithm of the policies of
    generated data. `file` is a file in D4RL's layout that replaces D4RL's, `episode_length` the most steps of its
    episodes where it has no `timeouts`; with `clip_actions` its actions may lie outside of [-1, 1] and are clipped.
    Raises UnknownName or InvalidValue for others.
    """
    if physics not in PHYSICS:
        raise UnknownName("physics", physics, PHYSICS)
    recipe = generation.checked_recipe(robot, recipe)
    if steps is None:
        steps = generation.default_steps(robot, kind)
    if type(steps) is not int or not robot.horizon <= steps <= MOST_STEPS:
        raise InvalidValue(
            f"steps {steps!r:.40}: generated data needs a whole number of at least {robot.horizon} steps, "
            f"and of at most {MOST_STEPS}."
        )
    check_seed(seed)
    if not isinstance(file, str):
        raise InvalidValue(f"file {file!r:.60} must be a path: task_options.file=my.hdf5.")
    name = task_name(robot, kind, delayed=delayed)
    recording = generation.Recording(robot, kind, steps, seed, physics)
    check_length(f"{name}: episode_length", episode_length)
    check_flag(f"{name}: clip_actions", clip_actions)
    load_file = partial(files.load_file, horizon=episode_length, clip_actions=clip_actions)
    sources = tuple(_sources(recording, recipe=recipe, file=file, load_file=load_file))
    if delayed:
        sources = tuple(replace(source, load=partial(_delayed, source.load)) for source in sources)
    return Task(
        name=name,
        domain="d4rl",
        load_dataset=sources[-1].load,
        make_env=partial(LocomotionVectorEnv, robot, physics=physics, delayed=delayed),
        score=partial(normalized_score, reference=robot.reference),
        score_name=f"normalised score (physics {physics})",
        target_returns=robot.target_returns,
        targets_of=lambda dataset: targets_of(dataset, robot.target_returns),
        description=_description(robot, kind, delayed=delayed),
        version=2 if robot.name == "halfcheetah" else 1,  # 2: no contact of its head is missed
        sources=sources,
    )


def targets_of(dataset: TrajectoryDataset, published: tuple[float, ...]) -> tuple[float, ...]:
    """Return the paper's targets; of generated data its best return first, as the paper's are of D4RL's policies."""
    if dataset.info.get("source") != "generated":
        return published
    return tuple(dict.fromkeys((round(float(dataset.returns.max()), 1), *published)))


def _sources(
    recording: generation.Recording, *, recipe: str, file: str, load_file: Callable[..., TrajectoryDataset]
) -> Iterator[DataSource]:
    """Yield the sources of the data, the preferred one first; generated data, the last, can always be made."""
    robot, kind = recording.robot, recording.kind
    if robot.name != REACHER:
        yield _official(robot, kind, file, load_file)
        if kind in rerecorded.PLAYED_BY:
            yield DataSource(
                name=rerecorded.NAME,
                load=partial(rerecorded.load, recording),
                available=partial(rerecorded.is_stored, recording),
            )
        if kind in ("medium", "expert"):  # other policies, on gymnasium's v5: only on request
            dataset_id = f"mujoco/{robot.name}/{kind}-v0"
            yield DataSource(
                name="minari",
                load=partial(files.load_minari_for, robot, dataset_id),
                available=partial(is_local, dataset_id),
                fetch=partial(fetch_minari, dataset_id),
                automatic=False,
            )
    yield DataSource(
        name="generated",
        load=partial(generation.load_generated, recording, recipe=recipe),
        available=partial(generation.is_stored, recording, recipe=recipe),
    )


def _official(robot: LocomotionEnv, kind: str, file: str, load_file: Callable[..., TrajectoryDataset]) -> DataSource:
    name = task_name(robot, kind)
    if file:
        path = Path(file).expanduser().absolute()
        return DataSource(name="d4rl", load=lambda: load_file(path, name, robot), available=lambda: True)
    return DataSource(
        name="d4rl",
        load=lambda: files.load(name, robot),
        available=lambda: files.find_file(name) is not None,
        fetch=lambda: files.fetch(name),
    )


def task_name(robot: LocomotionEnv, kind: str, *, delayed: bool = False) -> str:
    """Return the task's name, D4RL's where it has one: hopper-medium-replay-v2."""
    words = [robot.name, kind, *(["delayed"] if delayed else []), *([] if robot.name == REACHER else ["v2"])]
    return "-".join(words)


def _description(robot: LocomotionEnv, kind: str, *, delayed: bool) -> str:
    late = "; all reward of an episode comes with its last step" if delayed else ""
    return f"{GOALS[robot.name]}; data of {POLICIES[kind]}{late}."


def _delayed(load: Callable[[], TrajectoryDataset]) -> TrajectoryDataset:
    dataset = load()
    return cache.open_or_make(f"delayed-terminal-{dataset.digest[:16]}", dataset.delayed)


TASKS: dict[str, Callable[..., Task]] = {
    task_name(robot, kind, delayed=delayed): partial(gym_task, robot, kind, delayed=delayed)
    for robot in LOCOMOTION_ENVS.values()
    for kind in KINDS
    for delayed in (False, True)
}
