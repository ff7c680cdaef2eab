"""D4RL's sets recorded again, by the SAC policies in D4RL's files, in the physics that recorded them.

A v2 file holds the network that recorded it (`metadata/policy/*`), of which two episodes suffice: the network is read,
checked against the file's log-probabilities, stored, and plays any number of steps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dtbench.data import cache
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.files import atomic_path
from dtbench.data.hdf5 import HDF5_ERRORS, own_value, read_column
from dtbench.domains.d4rl import files
from dtbench.domains.d4rl.env_specs import LocomotionEnv
from dtbench.domains.d4rl.generation import BehaviorPolicy, Recording, Share, default_steps, mean_return
from dtbench.domains.d4rl.replay import verify_file
from dtbench.errors import InvalidDataset, InvalidValue, MissingDataset, UnknownName, one_line

NAME = "re-recorded"
PART = "re-recorded-part"  # the source of data of fewer steps than D4RL's set, or of other physics
_WHOLE = 0.99  # of the steps of D4RL's set, from which a recording counts as whole
RECIPE = 1  # raise it when equal arguments begin to give other data
# The policies of each kind in order; None plays uniformly at random. medium-replay cannot be recorded again, as D4RL
# published no policies of SAC's training.
PLAYED_BY: Mapping[str, tuple[str | None, ...]] = {
    "random": (None,),
    "medium": ("medium",),
    "expert": ("expert",),
    "medium-expert": ("medium", "expert"),
}
NEEDS: Mapping[str, str] = {
    "random": "It needs no file.",
    "medium-expert": "First record the -medium-v2 and -expert-v2 sets again, each from its own file.",
}
_LAYERS = ("fc0", "fc1", "last_fc", "last_fc_log_std")
_LONGEST_WORD = 64  # bytes
_MOST_WEIGHTS = 2**22  # of one layer: D4RL's have 65,536
_STEPS_AN_EPISODE = 20_000  # recorded, for each episode that measures a policy
_SATURATED = 0.999  # arctanh of larger float32 actions is imprecise
_FAR = 4.0  # standard deviations from D4RL's mean return, within which some episode must lie
_TOLERANCE = 1e-3  # of a log-probability; D4RL's files agree within 3e-5
_MOST_WRONG = 0.01  # share of the rows that may miss the tolerance


def read_policy(path: Path, robot: LocomotionEnv) -> BehaviorPolicy:
    """Read the network of a D4RL file and check that it recorded the file.

    Raises MissingDataset where there is no file, InvalidDataset where the file has no such network, one of another
    robot, or one that does not give the file's `infos/action_log_probs`.
    """
    if not path.is_file():
        raise MissingDataset(f"no file {path}. Give --from a v2 file of D4RL, or an excerpt of one.")
    try:
        with h5py.File(path, "r") as file:
            policy = _network(path, file, robot)
            keys = ("observations", "actions", "infos/action_log_probs")
            rows = {key: read_column(path, file, key).astype(np.float32) for key in keys}
    except HDF5_ERRORS as error:
        raise InvalidDataset(f"{path} cannot be read as HDF5: {one_line(str(error), 200)}.") from error
    _check_log_probabilities(path, policy, rows, robot)
    _check_physics(path, robot)
    return policy


def check_returns(path: Path, name: str, robot: LocomotionEnv) -> None:
    """Raise InvalidDataset where no episode's return is near those of this dataset."""
    known = files.known_statistics(name)
    if known is None or known.return_mean is None or known.return_std is None:
        return
    returns = files.load_file(path, name, robot, horizon=robot.horizon).returns
    if (np.abs(returns - known.return_mean) > _FAR * known.return_std).all():
        raise InvalidDataset(
            f"{path}: its episodes return {returns.mean():.0f}, those of {name} {known.return_mean:.0f} (s.d. "
            f"{known.return_std:.0f}). Is it the file of another set?"
        )


def store_policy(name: str, policy: BehaviorPolicy) -> Path:
    """Store the policy of a D4RL dataset, e.g. hopper-medium-v2; it replaces an earlier one, but not its data."""
    path = policy_path(name)
    try:
        with atomic_path(path) as temporary:
            policy.save(temporary, bytes_per_weight=4)
    except OSError as error:
        raise InvalidValue(
            f"cannot write a policy to {path.parent}: {error.strerror or error}. Set DTBENCH_DATA."
        ) from error
    return path


def policy_path(name: str) -> Path:
    """Return the path of the policy of a D4RL dataset."""
    return cache.root() / "policies" / f"{name}.npz"


def check_kind(robot: LocomotionEnv, kind: str) -> None:
    """Raise InvalidValue for a kind of data that no policy in D4RL's files recorded."""
    if kind not in PLAYED_BY:
        known = ", ".join(f"{robot.name}-{kind}-v2" for kind in PLAYED_BY)
        raise InvalidValue(
            f"{robot.name}-{kind}-v2 cannot be recorded again: D4RL published no policies of its training. "
            f"These can be: {known}."
        )


def policies_of(robot: LocomotionEnv, kind: str) -> dict[str, BehaviorPolicy | None]:
    """Return the policies of this kind by the dataset of each; "uniform" is None.

    A policy that is not stored is read from D4RL's file on this machine and stored (but not while datasets are only
    listed). Raises MissingDataset where there is neither, InvalidValue for kinds that cannot be recorded again.
    """
    check_kind(robot, kind)
    return dict(_policy(robot, played) for played in PLAYED_BY[kind])


def load(recording: Recording) -> TrajectoryDataset:
    """Open the data; record and store it first where it is missing."""
    policies = policies_of(recording.robot, recording.kind)
    return cache.open_or_make(_stored_name(recording, policies), lambda: make(recording, policies))


def is_stored(recording: Recording) -> bool:
    """Return whether the store has the data."""
    try:
        with cache.reading_only():
            policies = policies_of(recording.robot, recording.kind)
    except (MissingDataset, InvalidDataset, InvalidValue):
        return False
    return (cache.root() / _stored_name(recording, policies) / "meta.json").exists()


def make(recording: Recording, policies: Mapping[str, BehaviorPolicy | None]) -> TrajectoryDataset:
    """Record an equal share by each policy."""
    robot, kind = recording.robot, recording.kind
    return recording.play([Share(policy) for policy in policies.values()]).with_info(
        {
            "source": NAME if is_whole(recording) else PART,
            "kind": kind,
            "dataset": f"{robot.name}-{kind}-v2",
            "policies": list(policies),
            "policy_digests": _digests(policies),
            "policy_returns": [
                _returns(robot, name, policy, recording.steps)
                for name, policy in policies.items()
                if policy is not None
            ],
            "recipe": RECIPE,
        }
    )


def is_whole(recording: Recording) -> bool:
    """Return whether it has the steps and physics of D4RL's set, so that published numbers are comparable."""
    whole = _WHOLE * default_steps(recording.robot, recording.kind)
    return recording.physics == "d4rl" and recording.steps >= whole


def _returns(robot: LocomotionEnv, name: str, policy: BehaviorPolicy, steps: int) -> dict[str, Any]:
    """Measure the policy's mean return with its noise and without."""
    episodes = int(np.clip(steps // _STEPS_AN_EPISODE, 2, 50))
    means = [mean_return(robot, policy, episodes=episodes, seed=0, noise=noise)[0] for noise in (True, False)]
    return {"policy": name, "with_noise": means[0], "without_noise": means[1], "episodes": episodes}


def _policy(robot: LocomotionEnv, kind: str | None) -> tuple[str, BehaviorPolicy | None]:
    if kind is None:
        return "uniform", None
    name = f"{robot.name}-{kind}-v2"
    if policy_path(name).exists():
        return name, _stored_policy(name)
    official = files.find_file(name)
    if official is not None and not cache.is_reading_only():
        policy = read_policy(official, robot)
        store_policy(name, policy)
        return name, policy
    raise MissingDataset(
        f"no policy of {name} is in {policy_path(name).parent}, and its file is not here. Read it from D4RL's "
        f"file or an excerpt of it: dtbench data rerecord {name} --from FILE."
    )


def _stored_policy(name: str) -> BehaviorPolicy:
    try:
        return BehaviorPolicy.load(policy_path(name))
    except InvalidDataset as error:
        raise InvalidDataset(
            f"{error} Delete it, and read it again: dtbench data rerecord {name} --from FILE."
        ) from error


def _digests(policies: Mapping[str, BehaviorPolicy | None]) -> list[str]:
    return ["" if policy is None else policy.digest for policy in policies.values()]


def _stored_name(recording: Recording, policies: Mapping[str, BehaviorPolicy | None]) -> str:
    digests = "-".join(digest[:12] or "uniform" for digest in _digests(policies))
    return f"re-recorded-{recording.slug}-{digests}-recipe{RECIPE}"


def _network(path: Path, file: Any, robot: LocomotionEnv) -> BehaviorPolicy:
    if file.get("metadata/policy", getlink=True) is None:
        raise InvalidDataset(
            f"{path} has no policy (no group metadata/policy). D4RL's v2 files of medium and expert data do; "
            f"random data needs no file, and other files cannot be recorded again."
        )
    nonlinearity = _text(path, file, "nonlinearity", "relu")
    if nonlinearity != "relu":
        raise InvalidDataset(f"{path}: its policy has nonlinearity {nonlinearity!r}, D4RL's SAC policies have relu.")
    distribution = _text(path, file, "output_distribution", "tanh_gaussian")
    if distribution not in ("tanh_gaussian", "tanh_gaussian_"):
        raise InvalidDataset(f"{path}: its policy is {distribution!r}, D4RL's SAC policies are tanh_gaussian.")
    layers = [_layer(path, file, name) for name in _LAYERS]
    sizes = [robot.observation_size, *(len(bias) for _, bias in layers[:2])]
    inputs = [*sizes, sizes[-1]]
    outputs = [*sizes[1:], robot.action_size, robot.action_size]
    for name, (weight, bias), expected in zip(_LAYERS, layers, zip(inputs, outputs, strict=True), strict=True):
        if weight.shape != expected or bias.shape != expected[1:]:
            raise InvalidDataset(
                f"{path}: metadata/policy/{name} maps {weight.shape[0]} numbers to {weight.shape[1]}, a policy of "
                f"{robot.name} needs {expected[0]} to {expected[1]}. Is it the file of another robot?"
            )
    *hidden, mean, log_std = layers
    joined = tuple(np.concatenate(parts, axis=-1) for parts in zip(mean, log_std, strict=True))
    return BehaviorPolicy(
        mean=np.zeros(robot.observation_size, np.float32),
        scale=np.ones(robot.observation_size, np.float32),
        weights=[*(weight for weight, _ in hidden), joined[0]],
        biases=[*(bias for _, bias in hidden), joined[1]],
        activation="relu",
        squash=True,
        log_std=None,
        clip=np.inf,
    )


def _layer(path: Path, file: Any, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read weight [inputs, outputs] and bias [outputs] of one layer."""
    arrays = []
    for part, dimensions in (("weight", 2), ("bias", 1)):
        key = f"metadata/policy/{name}/{part}"
        values = read_column(path, file, key)
        if values.ndim != dimensions or values.size > _MOST_WEIGHTS:
            raise InvalidDataset(f"{path}: {key} has shape {values.shape}: not that of a small network's {part}.")
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise InvalidDataset(f"{path}: {key} holds numbers that are not finite.")
        arrays.append(np.ascontiguousarray(values.T))
    return arrays[0], arrays[1]


def _text(path: Path, file: Any, key: str, default: str) -> str:
    """Return a word of the policy's description, or the default where it is missing."""
    key = f"metadata/policy/{key}"
    if file.get(key, getlink=True) is None:
        return default
    item = own_value(path, file, key)
    if not isinstance(item, h5py.Dataset) or item.shape or item.dtype.itemsize > _LONGEST_WORD:
        raise InvalidDataset(f"{path}: {key!r} is not a word.")
    value = item[()]
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip().lower()


def _check_log_probabilities(
    path: Path, policy: BehaviorPolicy, rows: Mapping[str, NDArray[np.float32]], robot: LocomotionEnv
) -> None:
    """Raise InvalidDataset unless the policy gives the log-probabilities that the file recorded."""
    observations, actions, recorded = rows.values()
    recorded = recorded.reshape(-1)
    shapes = (len(recorded), robot.observation_size), (len(recorded), robot.action_size)
    if observations.shape != shapes[0] or actions.shape != shapes[1] or not len(recorded):
        raise InvalidDataset(
            f"{path}: observations {observations.shape}, actions {actions.shape} and {len(recorded)} "
            f"log-probabilities are not those of {robot.name}."
        )
    plain = (np.abs(actions) < _SATURATED).all(axis=1)
    if not plain.any():
        raise InvalidDataset(f"{path}: every action lies on a bound, so that its policy cannot be checked.")
    ours = policy.log_density(observations[plain], actions[plain])
    off = np.abs(ours - recorded[plain])
    wrong = ~(off <= _TOLERANCE * np.maximum(1, np.abs(recorded[plain])))  # nan is wrong too
    if wrong.mean() > _MOST_WRONG:
        raise InvalidDataset(
            f"{path}: its policy does not give its infos/action_log_probs: {wrong.sum()} of {len(off)} rows are "
            f"off, by {np.median(off):.2g} in the median. It did not record this file, or the file was changed."
        )


def _check_physics(path: Path, robot: LocomotionEnv) -> None:
    """Raise InvalidDataset unless the file's transitions are those of this robot under D4RL's physics.

    Sizes do not distinguish Walker2d from HalfCheetah.
    """
    verdict = verify_file(path, robot)
    if "d4rl" not in verdict.physics:
        missed = min(replay.median for replay in verdict.replays)
        raise InvalidDataset(
            f"{path} was not recorded with a {robot.name} under D4RL's physics: one step is missed by {missed:.2g} in "
            f"the median. Run `dtbench data verify {path}`."
        )


def split_name(name: str) -> tuple[str, str]:
    """Return robot and kind of a D4RL dataset's name; raise UnknownName for others."""
    if name not in files.names():
        raise UnknownName("dataset of D4RL", name, files.names())
    robot, _, kind = name.removesuffix("-v2").partition("-")
    return robot, kind
