"""Sets of D4RL recorded again, with policies made here in the layout of D4RL's files."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from dtbench import registry
from dtbench.cli.run import app
from dtbench.domains.d4rl import files, rerecorded
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS, LocomotionEnv
from dtbench.domains.d4rl.generation import BehaviorPolicy, Recording, Share, record
from dtbench.errors import InvalidDataset, InvalidValue, MissingDataset, UnknownName

HOPPER = LOCOMOTION_ENVS["hopper"]


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))


def sac_policy(robot: LocomotionEnv, *, seed: int = 0, width: int = 16) -> BehaviorPolicy:
    """A network of D4RL's layout with small random weights, so that actions seldom reach a bound."""
    rng = np.random.default_rng(seed)
    sizes = [robot.observation_size, width, width, 2 * robot.action_size]
    return BehaviorPolicy(
        mean=np.zeros(robot.observation_size, np.float32),
        scale=np.ones(robot.observation_size, np.float32),
        weights=[(rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32) for a, b in pairwise(sizes)],
        biases=[*(np.zeros(size, np.float32) for size in sizes[1:-1]), np.full(sizes[-1], -0.5, np.float32)],
        activation="relu",
        squash=True,
        log_std=None,
        clip=np.inf,
    )


def d4rl_file(
    path: Path, robot: LocomotionEnv, policy: BehaviorPolicy, *, physics: Any = "d4rl", **changes: Any
) -> Path:
    """A file as D4RL's: episodes of the policy, their log-probabilities, and the policy; `changes` replace keys."""
    data = record(robot, [Share(policy)], steps=robot.horizon, seed=3, physics=physics)
    ends = np.zeros(data.num_steps, bool)
    ends[data.offsets[1:] - 1] = True
    following = np.concatenate([data.observations[1:], data.observations[:1]])
    following[data.offsets[1:] - 1] = data.final_observations
    (first, second, last), actions = policy.weights, robot.action_size
    content: dict[str, Any] = {
        "observations": data.observations,
        "actions": data.actions,
        "rewards": data.rewards,
        "terminals": data.terminals,
        "timeouts": ends & ~data.terminals,
        "next_observations": following,
        "infos/action_log_probs": policy.log_density(data.observations, data.actions.clip(-0.9999, 0.9999)).astype(
            np.float32
        ),
        "metadata/policy/fc0/weight": first.T,
        "metadata/policy/fc1/weight": second.T,
        "metadata/policy/last_fc/weight": last[:, :actions].T,
        "metadata/policy/last_fc_log_std/weight": last[:, actions:].T,
        "metadata/policy/fc0/bias": policy.biases[0],
        "metadata/policy/fc1/bias": policy.biases[1],
        "metadata/policy/last_fc/bias": policy.biases[2][:actions],
        "metadata/policy/last_fc_log_std/bias": policy.biases[2][actions:],
        "metadata/policy/nonlinearity": np.bytes_("relu"),
        "metadata/policy/output_distribution": np.bytes_("tanh_gaussian"),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            if values is not None:
                file[key] = values
    return path


def test_a_file_gives_back_the_policy_that_it_carries(tmp_path: Path) -> None:
    policy = sac_policy(HOPPER)
    found = rerecorded.read_policy(d4rl_file(tmp_path / "a.hdf5", HOPPER, policy), HOPPER)
    assert found.digest == policy.digest
    path = rerecorded.store_policy("hopper-medium-v2", found)
    assert BehaviorPolicy.load(path).digest == policy.digest  # in single precision
    assert sac_policy(HOPPER, seed=1).digest != policy.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"infos/action_log_probs": np.zeros(1000, np.float32)}, "is not those|are not those|does not give its infos"),
        ({"metadata/policy/fc0/weight": np.zeros((16, 11), np.float32)}, "does not give its infos"),
        ({"metadata/policy/fc0/weight": np.full((16, 11), np.nan, np.float32)}, "not finite"),
        ({"metadata/policy/fc0/weight": np.zeros((16, 17), np.float32)}, "maps 17 numbers to 16"),
        ({"metadata/policy/fc1/bias": np.zeros(3, np.float32)}, "fc1"),
        ({"metadata/policy/fc1/bias": None}, "no key 'metadata/policy/fc1/bias'"),
        ({"metadata/policy/nonlinearity": np.bytes_("tanh")}, "nonlinearity 'tanh'"),
        ({"metadata/policy/output_distribution": np.bytes_("gaussian")}, "'gaussian'"),
        ({"infos/action_log_probs": None}, "no key 'infos/action_log_probs'"),
    ],
)
def test_a_policy_that_is_not_the_files_own_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", HOPPER, sac_policy(HOPPER), **changes)
    with pytest.raises(InvalidDataset, match=message):
        rerecorded.read_policy(path, HOPPER)


def test_a_file_of_another_robot_of_equal_sizes_is_refused_by_its_physics(tmp_path: Path) -> None:
    walker = LOCOMOTION_ENVS["walker2d"]
    path = d4rl_file(tmp_path / "a.hdf5", walker, sac_policy(walker))
    assert rerecorded.read_policy(path, walker).digest
    with pytest.raises(InvalidDataset, match="not recorded with a halfcheetah"):
        rerecorded.read_policy(path, LOCOMOTION_ENVS["halfcheetah"])


def test_a_file_without_a_policy_is_refused_with_what_carries_one(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((3, 11), np.float32)
    with pytest.raises(InvalidDataset, match="has no policy"):
        rerecorded.read_policy(path, HOPPER)
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidDataset, match="cannot be read as HDF5"):
        rerecorded.read_policy(path, HOPPER)
    with pytest.raises(MissingDataset, match="--from"):
        rerecorded.read_policy(tmp_path / "none.hdf5", HOPPER)


def test_links_in_a_file_are_not_followed(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", HOPPER, sac_policy(HOPPER), **{"metadata/policy/fc0/bias": None})
    with h5py.File(path, "r+") as file:
        file["metadata/policy/fc0/bias"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "bias")
    with pytest.raises(InvalidDataset, match="is a link"):
        rerecorded.read_policy(path, HOPPER)


def test_rerecord_keeps_the_policy_and_records_what_runs_then_find(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", HOPPER, sac_policy(HOPPER))
    arguments = ["data", "rerecord", "hopper-medium-v2", "--from", str(path), "--steps", "2000"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "its policy reproduces its log-probabilities" in done.output
    task = registry.make_task("hopper-medium-v2", {"steps": 2000})
    data = task.open(rerecorded.NAME)
    assert data.info["source"] == rerecorded.PART  # 2000 steps are not the set that published numbers are of
    assert "--source re-recorded task_options.steps=2000" in done.output
    assert data.info["policy_digests"] == [sac_policy(HOPPER).digest]
    assert data.unknown_transitions == 0
    assert 1000 < data.num_steps <= 2000
    assert task.resolve(fetch=False) == rerecorded.NAME  # before what is generated
    assert CliRunner().invoke(app, arguments).output.count("which takes minutes") == 0  # recorded once


def test_the_policy_of_another_set_of_the_same_robot_is_refused_by_its_returns(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", HOPPER, sac_policy(HOPPER))
    refused = CliRunner().invoke(app, ["data", "rerecord", "hopper-expert-v2", "--from", str(path)])
    assert isinstance(refused.exception, InvalidDataset)
    assert "those of hopper-expert-v2 3511" in str(refused.exception)
    assert not rerecorded.policy_path("hopper-expert-v2").exists()


def test_another_policy_gives_other_data_under_another_name(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        rerecorded.store_policy("hopper-medium-v2", sac_policy(HOPPER, seed=seed))
        digests.add(rerecorded.load(Recording(HOPPER, "medium", 1000)).digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("steps", "physics", "whole"),
    [(1_000_000, "d4rl", True), (980_000, "d4rl", False), (200_000, "d4rl", False), (1_000_000, "v4", False)],
)
def test_only_as_many_steps_in_d4rls_physics_are_the_set(steps: int, physics: Any, whole: bool) -> None:
    assert rerecorded.is_whole(Recording(HOPPER, "medium", steps, physics=physics)) == whole
    assert not rerecorded.is_whole(Recording(HOPPER, "medium-expert", 1_000_000))  # D4RL's has two million


def test_listing_reads_no_file_and_a_run_reads_it_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "d4rl").mkdir()
    d4rl_file(tmp_path / "d4rl" / "hopper_medium-v2.hdf5", HOPPER, sac_policy(HOPPER))
    assert not rerecorded.is_stored(Recording(HOPPER, "medium", 1000))
    assert not rerecorded.policy_path("hopper-medium-v2").exists()
    assert rerecorded.load(Recording(HOPPER, "medium", 1000)).info["policy_digests"] == [sac_policy(HOPPER).digest]
    monkeypatch.setattr(rerecorded, "read_policy", None)  # the kept policy is enough from now on
    assert rerecorded.is_stored(Recording(HOPPER, "medium", 1000))
    assert rerecorded.load(Recording(HOPPER, "medium", 1000)).num_steps <= 1000


def test_medium_expert_is_played_by_both_halves_policies() -> None:
    rerecorded.store_policy("hopper-medium-v2", sac_policy(HOPPER))
    with pytest.raises(MissingDataset, match="dtbench data rerecord hopper-expert-v2 --from FILE"):
        rerecorded.load(Recording(HOPPER, "medium-expert", 2000))
    rerecorded.store_policy("hopper-expert-v2", sac_policy(HOPPER, seed=1))
    made = rerecorded.load(Recording(HOPPER, "medium-expert", 2000))
    assert made.info["policies"] == ["hopper-medium-v2", "hopper-expert-v2"]


def test_random_data_needs_no_file_and_a_replay_cannot_be_recorded_again() -> None:
    made = rerecorded.load(Recording(HOPPER, "random", 1000))
    assert made.info["policies"] == ["uniform"]
    with pytest.raises(InvalidValue, match="no policies of its training"):
        rerecorded.load(Recording(HOPPER, "medium-replay", 1000))
    with pytest.raises(UnknownName, match="reacher2d-medium"):
        rerecorded.split_name("reacher2d-medium")


def test_a_file_with_few_of_d4rls_episodes_is_called_an_excerpt(tmp_path: Path) -> None:
    folder = tmp_path / "d4rl"
    folder.mkdir()
    d4rl_file(folder / "hopper_medium-v2.hdf5", HOPPER, sac_policy(HOPPER))
    data = files.load("hopper-medium-v2", HOPPER)
    assert data.info["source"] == files.EXCERPT
    assert data.info["excerpt"] == f"{data.num_episodes} of about 2187 episodes of hopper-medium-v2"
    shown = CliRunner().invoke(app, ["data", "show", "hopper-medium-v2"]).output
    assert "NOT the dataset of published numbers" in shown
    assert "TD learners use all of them" in shown
    verified = CliRunner().invoke(app, ["data", "verify", "hopper-medium-v2"])
    assert "AN EXCERPT" in verified.output
    assert "recorded with physics d4rl" in verified.output
    assert verified.exit_code == 1, verified.output
