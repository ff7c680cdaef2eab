"""Detection of the physics that recorded a file, by replaying single transitions under each.

A transition is begun from `infos/qpos` and `infos/qvel` where a file has them and they belong to its observations,
else from its observations, whose velocities must then not have been clipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import mujoco
import numpy as np
from numpy.typing import NDArray

from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.hdf5 import HDF5_ERRORS, read_column
from dtbench.data.randomness import generator
from dtbench.domains.d4rl.env import VELOCITY_CLIP, WALKERS, LocomotionRules
from dtbench.domains.d4rl.env_specs import ANT, LOCOMOTION_ENVS, PHYSICS, LocomotionEnv, Physics
from dtbench.errors import InvalidDataset, MissingDataset, one_line

REPLAYED: Mapping[str, LocomotionEnv] = {name: LOCOMOTION_ENVS[name] for name in WALKERS} | {ANT.name: ANT}
TRANSITIONS = 1000  # replayed
SAME = 1e-3  # a median error below it is rounding; that of wrong physics is at least 1e-2
APART = 10.0  # times the least error, within which two physics are indistinguishable
_REWARD_SLACK = 0.01  # a wrong reward is off by 1, that of a fall
_ROUNDING = 1e-4
_CLIPPED = ("hopper", "walker2d")  # their observed velocities

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """Transitions to replay."""

    positions: Array  # [n, coordinates]
    velocities: Array  # [n, coordinates]
    actions: Array  # [n, action]
    following: Array  # [n, coordinates seen]: the recorded observation after the step, without contact forces
    rewards: Array  # [n]
    begun_from: str  # "qpos and qvel" or "observations"


@dataclass(frozen=True, slots=True)
class Replay:
    """Errors of one physics: the largest of each transition's observation."""

    physics: Physics
    errors: Array  # [n]
    wrong_rewards: int  # by more than rounding

    @property
    def median(self) -> float:
        """Median error of the transitions."""
        return float(np.median(self.errors))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The physics that recorded a file, with the errors of each."""

    robot: str
    replays: tuple[Replay, ...]  # one for each physics
    begun_from: str

    @property
    def physics(self) -> tuple[Physics, ...]:
        """The physics that fit: several where they give equal transitions, none where none fits."""
        best = min(self.replays, key=lambda replay: (replay.median, replay.wrong_rewards))
        if not best.median <= SAME:
            return ()
        near = [replay for replay in self.replays if replay.median <= max(APART * best.median, _ROUNDING)]
        fewest = min(replay.wrong_rewards for replay in near)
        return tuple(replay.physics for replay in near if replay.wrong_rewards == fewest)

    @property
    def text(self) -> str:
        """The verdict in a line."""
        if not self.physics:
            return f"none of these physics recorded it with a {self.robot}"
        same = "" if len(self.physics) == 1 else f", which are the same for these transitions of {self.robot}"
        return f"recorded with physics {' or '.join(self.physics)}{same}"

    def lines(self) -> Iterator[str]:
        """Yield a line for each physics, then the verdict."""
        count = len(self.replays[0].errors)
        yield f"one-step error of {count} transitions of {self.robot}, begun from {self.begun_from}:"
        for replay in self.replays:
            ninety, worst = np.quantile(replay.errors, (0.95, 1.0))
            rewards = f", {replay.wrong_rewards} rewards differ" if replay.wrong_rewards else ""
            yield f"  {replay.physics:<5} median {replay.median:.1e}, 95 % {ninety:.1e}, largest {worst:.1e}{rewards}"
        yield self.text


def verify_file(path: Path, robot: LocomotionEnv | None = None, *, seed: int = 0) -> Verdict:
    """Replay transitions of an HDF5 file in D4RL's layout under each physics.

    Without `robot` every robot of the file's sizes is tried, and the best fit is returned. Raises MissingDataset where
    there is no file and InvalidDataset for one without transitions of these robots.
    """
    columns = _columns(path)
    sizes = columns["observations"].shape[1], columns["actions"].shape[1]
    candidates = [robot] if robot else [known for known in REPLAYED.values() if _sizes(known) == sizes]
    if not candidates or _sizes(candidates[0]) != sizes:
        known = ", ".join(f"{name} {_sizes(robot)}" for name, robot in REPLAYED.items())
        raise InvalidDataset(
            f"{path}: observations of {sizes[0]} and actions of {sizes[1]} numbers are not those of "
            f"{robot.name if robot else 'any robot'}. Known: {known}."
        )
    verdicts = [_verdict(known, _sample(path, columns, known, seed)) for known in candidates]
    return min(verdicts, key=lambda verdict: min(replay.median for replay in verdict.replays))


def verify_dataset(dataset: TrajectoryDataset, robot: LocomotionEnv, *, seed: int = 0) -> Verdict:
    """Replay transitions of a dataset under each physics, begun from its observations."""
    last = np.zeros(dataset.num_steps, bool)
    last[dataset.offsets[1:] - 1] = True
    observations = np.asarray(dataset.observations)
    following = np.concatenate([observations[1:], observations[:1]])
    if dataset.final_observations is not None:
        following[last] = dataset.final_observations
        last[:] = False
    columns = {
        "observations": observations,
        "actions": np.asarray(dataset.actions),
        "rewards": np.asarray(dataset.rewards),
        "following": following,
    }
    return _verdict(robot, _chosen("the dataset", columns, np.flatnonzero(~last), robot, seed))


def one_step(robot: LocomotionEnv, sample: Sample, physics: Physics) -> Replay:
    """Replay the sample under one physics."""
    env: Any = robot.make(physics)
    model, state = env.model, env.data
    positions, velocities = np.empty_like(sample.positions), np.empty_like(sample.velocities)
    for row, action in enumerate(sample.actions):
        mujoco.mj_resetData(model, state)
        state.qpos[:], state.qvel[:], state.ctrl[:] = sample.positions[row], sample.velocities[row], action
        mujoco.mj_step(model, state, nstep=env.frame_skip)
        positions[row], velocities[row] = state.qpos, state.qvel
    if robot.name == ANT.name:
        seen, wrong = np.concatenate([positions[:, 2:], velocities], axis=1), 0
    else:
        outcome = LocomotionRules(env, physics).outcome(sample.positions[:, 0], positions, velocities, sample.actions)
        seen = outcome.observations
        wrong = int((np.abs(outcome.rewards - sample.rewards) > _REWARD_SLACK).sum())
    return Replay(physics, np.abs(seen - sample.following).max(axis=1), wrong)


def _verdict(robot: LocomotionEnv, sample: Sample) -> Verdict:
    return Verdict(robot.name, tuple(one_step(robot, sample, physics) for physics in PHYSICS), sample.begun_from)


def _sizes(robot: LocomotionEnv) -> tuple[int, int]:
    return robot.observation_size, robot.action_size


def _columns(path: Path) -> dict[str, Array]:
    """Return the arrays of a file for a replay, flat and in double precision."""
    if not path.is_file():
        raise MissingDataset(f"no file {path}.")
    wanted = ("observations", "actions", "rewards", "terminals")
    optional = ("timeouts", "next_observations", "infos/qpos", "infos/qvel")
    try:
        with h5py.File(path, "r") as file:
            columns = {key: _array(path, file, key) for key in wanted}
            columns |= {key: _array(path, file, key) for key in optional if file.get(key, getlink=True)}
    except HDF5_ERRORS as error:
        raise InvalidDataset(f"{path} cannot be read as HDF5: {one_line(str(error), 200)}.") from error
    steps = len(columns["observations"])
    for key, values in columns.items():
        flat = key in ("rewards", "terminals", "timeouts")
        if len(values) != steps or values.ndim != (1 if flat else 2):
            raise InvalidDataset(f"{path}: {key!r} has shape {values.shape} beside {steps} observations.")
    if steps < 2:
        raise InvalidDataset(f"{path}: {steps} observations hold no transition.")
    return columns


def _array(path: Path, file: Any, key: str) -> Array:
    values: Array = read_column(path, file, key).astype(np.float64)
    return values[:, 0] if key in ("rewards", "terminals", "timeouts") and values.shape[1:] == (1,) else values


def _sample(path: Path, columns: Mapping[str, Array], robot: LocomotionEnv, seed: int) -> Sample:
    following = columns.get("next_observations")
    ends = columns["terminals"].astype(bool) | columns.get("timeouts", np.zeros(len(columns["rewards"]))).astype(bool)
    if following is None or following.shape != columns["observations"].shape:
        following = np.concatenate([columns["observations"][1:], columns["observations"][:1]])
        ends[-1] = True
        rows = np.flatnonzero(~ends)
    else:
        rows = np.arange(len(following))
    return _chosen(str(path), {**columns, "following": following}, rows, robot, seed)


def _chosen(
    name: str, columns: Mapping[str, Array], rows: NDArray[np.int64], robot: LocomotionEnv, seed: int
) -> Sample:
    """Return a sample of these rows with a known state before the step."""
    env: Any = robot.make()
    hidden, size, count = _hidden(robot), env.model.nq, env.model.nq + env.model.nv
    observations = np.asarray(columns["observations"][:, : count - hidden], np.float64)
    positions, velocities = columns.get("infos/qpos"), columns.get("infos/qvel")
    whole = positions is not None and velocities is not None
    rows = rows[_unclipped(columns["observations"][:, size - hidden : count - hidden][rows], robot)]
    if whole and _belong(observations, positions, velocities, hidden, size, robot):  # type: ignore[arg-type]
        begun_from = "qpos and qvel"
    else:
        begun_from = "observations"
        positions = np.concatenate([np.zeros((len(observations), hidden)), observations[:, : size - hidden]], axis=1)
        velocities = observations[:, size - hidden :]
    assert positions is not None
    assert velocities is not None
    finite = np.isfinite(np.concatenate([positions[rows], velocities[rows], columns["actions"][rows]], axis=1))
    rows = rows[finite.all(axis=1)]
    if not len(rows):
        raise InvalidDataset(f"{name}: no transition can be replayed: {robot.name}'s states are unknown.")
    chosen = generator(seed, 51).permutation(rows)[:TRANSITIONS]
    return Sample(
        positions=np.asarray(positions[chosen], np.float64),
        velocities=np.asarray(velocities[chosen], np.float64),
        actions=np.asarray(columns["actions"][chosen], np.float64),
        following=np.asarray(columns["following"][chosen, : count - hidden], np.float64),
        rewards=np.asarray(columns["rewards"][chosen], np.float64),
        begun_from=begun_from,
    )


def _hidden(robot: LocomotionEnv) -> int:
    """Return the number of unobserved coordinates: the distance covered."""
    return 2 if robot.name == ANT.name else 1


def _belong(
    observations: Array, positions: Array, velocities: Array, hidden: int, size: int, robot: LocomotionEnv
) -> bool:
    """Return whether qpos and qvel are those of the rows; in D4RL's v1 replay sets they are not."""
    if positions.shape[1:] != (size,) or velocities.shape[1:] != (observations.shape[1] - size + hidden,):
        return False
    seen = velocities if robot.name not in _CLIPPED else velocities.clip(-VELOCITY_CLIP, VELOCITY_CLIP)
    expected = np.concatenate([positions[:, hidden:], seen], axis=1)
    return bool(np.isclose(observations, expected, rtol=_ROUNDING, atol=_ROUNDING).all())


def _unclipped(velocities: Array, robot: LocomotionEnv) -> NDArray[np.bool_]:
    """Return which velocities are unclipped; observations clip Hopper's and Walker2d's."""
    if robot.name not in _CLIPPED:
        return np.ones(len(velocities), bool)
    slow: NDArray[np.bool_] = np.abs(velocities).max(axis=1) < VELOCITY_CLIP
    return slow
