"""Tasks of the form gym:Pendulum-v1: a file in D4RL's layout, judged in any environment that gymnasium knows."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dtbench.data import cache
from dtbench.data.d4rl_hdf5 import exported_source, read_d4rl
from dtbench.data.dataset import TrajectoryDataset, is_flat, single_precision
from dtbench.data.download import sha256_of
from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.domains.gymnasium.source import environment_digest
from dtbench.errors import FOREIGN, InvalidDataset, InvalidValue, MissingDataset, one_line
from dtbench.foreign import import_plugin, tried_once
from dtbench.task import TargetReturns, Task, check_flag, check_length, normalized_score

SCHEME = "gym:"
SOURCE = "file"  # of data without a known source

_READER = 3  # part of an import's identity: raise it when the reader gives other arrays for the same file


def task_from_id(
    name: str,
    *,
    file: str = "",
    reference_min: float | None = None,
    reference_max: float | None = None,
    horizon: int | None = None,
    episode_length: int | None = None,
    clip_actions: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Task:
    """Return the task of a gymnasium environment, named gym:ID or gym:module:ID, with the data of `file`.

    `file` is HDF5 in D4RL's layout. Scores are returns, or 100 (return - reference_min) / (reference_max -
    reference_min). `horizon` is the most steps of an episode, by default the environment's; `episode_length` is that
    of the data, by default `horizon`, for a file that does not say where episodes were cut off. `clip_actions` moves
    actions beyond their bounds to them. `kwargs` are the arguments of the environment. Target returns are the best and
    the median return of the data.

    Raises InvalidValue for an environment that cannot be made and for options that do not fit, MissingDataset where
    there is no file; opening the data raises InvalidDataset where it is not of the environment's spaces.
    """
    env_id = name.removeprefix(SCHEME)
    for option, value in (("horizon", horizon), ("episode_length", episode_length)):
        check_length(f"{name}: {option}", value)
    check_flag(f"{name}: clip_actions", clip_actions)
    if not isinstance(file, str):
        raise InvalidValue(f"{name}: file {file!r:.60} must be a path: task_options.file=my.hdf5.")
    if not file:
        raise InvalidValue(
            f"{name} needs data: set task_options.file=my.hdf5 (`dtbench data show {name} file=my.hdf5`), "
            f"or in Python make_task({name!r}, file='my.hdf5')."
        )
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise MissingDataset(f"{name}: there is no file {path}.")
    make = partial(_made, name, env_id, horizon, checked_kwargs(name, kwargs))
    env = _first_made(name, make)
    spaces = _spaces(name, env)
    reference = _reference(name, reference_min, reference_max)
    return Task(
        name=name,
        domain="gym",
        load_dataset=partial(_load, name, path, spaces, episode_length or horizon, clip_actions),
        make_env=partial(GymnasiumVectorEnv, make),
        score=partial(normalized_score, reference=reference),
        score_name="raw return" if reference is None else "normalised return (references of one's own)",
        target_returns=(),
        targets_of=best_and_median,
        environment=environment_digest(env),
        description=f"{env_id} of gymnasium, with the data of {path.name}.",
    )


def best_and_median(dataset: TrajectoryDataset) -> TargetReturns:
    """Return the best return of the data and its median, each once, to four digits of the data's range."""
    wanted = (float(dataset.returns.max()), float(np.median(dataset.returns)))
    spread = float(np.ptp(dataset.returns))
    return tuple(dict.fromkeys(_rounded(value, min(spread or abs(value), abs(value))) for value in wanted))


def _rounded(value: float, size: float) -> float:
    """Round to four digits of a number of this size."""
    return round(value, 3 - math.floor(math.log10(size))) if size else value


def checked_kwargs(name: str, kwargs: Any) -> Mapping[str, Any]:
    """Return the arguments of an environment; raise InvalidValue for those that are not its own."""
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidValue(f"{name}: kwargs {kwargs!r:.60} must be a mapping: task_options.kwargs.is_slippery=false.")
    for reserved in ("id", "max_episode_steps", "disable_env_checker", "render_mode"):
        if reserved in (kwargs or {}):
            raise InvalidValue(
                f"{name}: kwargs.{reserved} is not an argument to choose; task_options.horizon limits steps."
            )
    return kwargs or {}


def _first_made(name: str, make: "partial[gym.Env[Any, Any]]") -> gym.Env[Any, Any]:
    """Make an environment whose constructor may end the process; raise InvalidValue where it does."""
    module, colon, _ = name.removeprefix(SCHEME).rpartition(":")
    if colon:
        import_plugin(module)
    if problem := tried_once(f"{make.args}", partial(can_be_made, make), "made"):
        raise InvalidValue(f"{name:.100}: gymnasium cannot make this environment: {problem}")
    return make()


def can_be_made(make: Callable[[], gym.Env[Any, Any]]) -> str:
    """Make and close an environment, in a fork; return "", since what it raises is raised here again."""
    with contextlib.suppress(*FOREIGN):
        make().close()  # type: ignore[no-untyped-call]  # gymnasium leaves it untyped
    return ""


def _made(name: str, env_id: str, horizon: int | None, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """Make one environment; raise InvalidValue where gymnasium cannot, or it has no time limit."""
    try:
        made: gym.Env[Any, Any] = gym.make(env_id, max_episode_steps=horizon, disable_env_checker=True, **kwargs)
    except FOREIGN as error:  # what the module of an environment raises shares no base class
        raise InvalidValue(
            f"{name:.100}: gymnasium cannot make this environment: {one_line(str(error), 200)}. "
            "The module that registers one of your own is named gym:my_module:MyEnv-v0, or --import my_module."
        ) from error
    if made.spec is None or made.spec.max_episode_steps is None:
        raise InvalidValue(f"{name} has no time limit, so an episode might never end: set task_options.horizon=1000.")
    return made


def _spaces(name: str, env: gym.Env[Any, Any]) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Return the spaces of observations and actions in single precision; close the environment."""
    spaces = (single_precision(env.observation_space), single_precision(env.action_space))
    env.close()  # type: ignore[no-untyped-call]  # gymnasium leaves it untyped
    for what, space in zip(("observations", "actions"), spaces, strict=True):
        if not is_flat(space):
            raise InvalidValue(f"{name}: its {what} are {space}: dtbench reads vectors and Discrete.")
    return spaces


def _load(
    name: str,
    path: Path,
    spaces: tuple[gym.Space[Any], gym.Space[Any]],
    episode_length: int | None,
    clip_actions: bool,  # of a partial
) -> TrajectoryDataset:
    """Open the file through the store; it is read when it is new or has changed."""
    observation_space, action_space = spaces
    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {spaces} {episode_length} {clip_actions} {_READER}"

    def make() -> TrajectoryDataset:
        info = {"source": exported_source(path) or SOURCE, "dataset": name, "sha256": sha256_of(path)}
        try:
            return read_d4rl(
                path,
                observation_space=observation_space,
                action_space=action_space,
                horizon=episode_length,
                clip_actions=clip_actions,
                info=info,
            )
        except InvalidDataset as error:
            raise InvalidDataset(
                f"{name} has observations {observation_space} and actions {action_space}. {error}"
            ) from error

    return cache.open_or_make(f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}", make)


def _reference(name: str, low: float | None, high: float | None) -> tuple[float, float] | None:
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise InvalidValue(f"{name}: reference_min and reference_max go together: the returns that score 0 and 100.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidValue(f"{name}: reference_min {low} must be less than reference_max {high}.")
    return float(low), float(high)
