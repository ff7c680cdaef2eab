"""The Gym tasks of D4RL (Fu et al. 2020) and the paper's Reacher, each with the sources of its data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.minari import fetch_minari, is_local
from dtbench.domains.d4rl import files, generation, rerecorded
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import KINDS, LOCOMOTION_ENVS, PHYSICS, REACHER, LocomotionEnv, Physics
from dtbench.errors import InvalidValue, UnknownName
from dtbench.task import MOST_STEPS, DataSource, Task, check_seed, normalized_score

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
) -> Task:
    """Return the task of one robot and one kind of data.

    `physics` is that of evaluation and of generated data: "d4rl" is gymnasium's v4 with the physics of mujoco_py
    restored, "v4" and "v5" are gymnasium's own. `steps` and `seed` are those of generated and re-recorded data; by
    default there are as many as in D4RL's set. `recipe` is "sac" or "ppo", the algorithm of the policies of
    generated data. `file` is a file in D4RL's layout that replaces D4RL's.
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
    late = _delayed if delayed else _as_it_is
    recording = generation.Recording(robot, kind, steps, seed, physics)
    made_here = DataSource(
        name="generated",
        load=lambda: late(generation.load_generated(recording, recipe=recipe)),
        available=lambda: generation.is_stored(recording, recipe=recipe),
    )
    sources = [made_here]
    if robot.name != REACHER:
        again = [] if kind not in rerecorded.PLAYED_BY else [_rerecorded(recording, late)]
        sources = [_official(robot, kind, late, file), *again, *_minari(robot, kind, late), *sources]
    return Task(
        name=name,
        domain="d4rl",
        load_dataset=made_here.load,
        make_env=partial(LocomotionVectorEnv, robot, physics=physics, delayed=delayed),
        score=partial(normalized_score, reference=robot.reference),
        score_name=f"normalised score (physics {physics})",
        target_returns=robot.target_returns,
        description=_description(robot, kind, delayed=delayed),
        version=2 if robot.name == "halfcheetah" else 1,  # 2: no contact of its head is missed
        sources=tuple(sources),
    )


def _official(
    robot: LocomotionEnv, kind: str, late: Callable[[TrajectoryDataset], TrajectoryDataset], file: str
) -> DataSource:
    name = task_name(robot, kind)
    if file:
        path = Path(file).expanduser().absolute()
        return DataSource(name="d4rl", load=lambda: late(files.load_file(path, name, robot)), available=lambda: True)
    return DataSource(
        name="d4rl",
        load=lambda: late(files.load(name, robot)),
        available=lambda: files.find_file(name) is not None,
        fetch=lambda: files.fetch(name),
    )


def _rerecorded(recording: generation.Recording, late: Callable[[TrajectoryDataset], TrajectoryDataset]) -> DataSource:
    """Return D4RL's set recorded again with D4RL's policy."""
    return DataSource(
        name=rerecorded.NAME,
        load=lambda: late(rerecorded.load(recording)),
        available=lambda: rerecorded.is_stored(recording),
    )


def _minari(
    robot: LocomotionEnv, kind: str, late: Callable[[TrajectoryDataset], TrajectoryDataset]
) -> list[DataSource]:
    """Return Minari's set of the robot and level, which is used only on request: other policies, on gymnasium's v5."""
    if kind not in ("medium", "expert"):
        return []
    dataset_id = f"mujoco/{robot.name}/{kind}-v0"
    return [
        DataSource(
            name="minari",
            load=lambda: late(files.load_minari_for(robot, dataset_id)),
            available=partial(is_local, dataset_id),
            fetch=partial(fetch_minari, dataset_id),
            automatic=False,
        )
    ]


def task_name(robot: LocomotionEnv, kind: str, *, delayed: bool = False) -> str:
    """Return the task's name, D4RL's where it has one: hopper-medium-replay-v2."""
    words = [robot.name, kind, *(["delayed"] if delayed else []), *([] if robot.name == REACHER else ["v2"])]
    return "-".join(words)


def _description(robot: LocomotionEnv, kind: str, *, delayed: bool) -> str:
    late = "; all reward of an episode comes with its last step" if delayed else ""
    return f"{GOALS[robot.name]}; data of {POLICIES[kind]}{late}."


def _delayed(dataset: TrajectoryDataset) -> TrajectoryDataset:
    return cache.open_or_make(f"delayed-{dataset.digest[:16]}", dataset.delayed)


def _as_it_is(dataset: TrajectoryDataset) -> TrajectoryDataset:
    return dataset


TASKS: dict[str, Callable[..., Task]] = {
    task_name(robot, kind, delayed=delayed): partial(gym_task, robot, kind, delayed=delayed)
    for robot in LOCOMOTION_ENVS.values()
    for kind in KINDS
    for delayed in (False, True)
}
