"""Transitions that are played again show which physics recorded a file."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.data.d4rl_hdf5 import write_d4rl
from dtbench.domains.d4rl import replay
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS, PHYSICS, Physics
from dtbench.domains.d4rl.generation import Share, record
from dtbench.domains.d4rl.replay import verify_dataset, verify_file
from dtbench.errors import InvalidDataset, MissingDataset

SHOWN = ("hopper", "halfcheetah", "walker2d")


def random_file(path: Path, robot: str, physics: Physics, *, steps: int = 1000) -> Path:
    write_d4rl(record(LOCOMOTION_ENVS[robot], [Share(None)], steps=steps, seed=0, physics=physics), path)
    return path


@pytest.mark.parametrize("physics", PHYSICS)
@pytest.mark.parametrize("robot", SHOWN)
def test_the_physics_of_a_file_is_named(tmp_path: Path, robot: str, physics: Physics) -> None:
    verdict = verify_file(random_file(tmp_path / "a.hdf5", robot, physics))
    assert verdict.robot == robot
    assert physics in verdict.physics
    assert ("d4rl" in verdict.physics) == (physics == "d4rl")
    errors = {replay.physics: replay.median for replay in verdict.replays}
    assert errors[physics] < 3e-6  # rounding to single precision


def test_v5_is_distinguished_from_v4_where_they_differ(tmp_path: Path) -> None:
    # Hopper: v5 pays nothing for the step of a fall; HalfCheetah: nothing differs.
    assert verify_file(random_file(tmp_path / "a.hdf5", "hopper", "v5")).physics == ("v5",)
    assert verify_file(random_file(tmp_path / "b.hdf5", "hopper", "v4")).physics == ("v4",)
    assert verify_file(random_file(tmp_path / "c.hdf5", "halfcheetah", "v5")).physics == ("v4", "v5")


def test_a_dataset_is_replayed_from_its_observations() -> None:
    made = record(LOCOMOTION_ENVS["hopper"], [Share(None)], steps=1000, seed=0, physics="v4")
    verdict = verify_dataset(made, LOCOMOTION_ENVS["hopper"])
    assert verdict.physics == ("v4",)
    assert verdict.begun_from == "observations"
    assert len(verdict.replays[0].errors) == made.num_steps  # finals are known, nothing is left out


def test_clipped_velocities_are_left_out(tmp_path: Path) -> None:
    path = random_file(tmp_path / "a.hdf5", "hopper", "d4rl")
    with h5py.File(path, "r+") as file:
        file["observations"][:500, 7] = 10.0  # as the environment shows what is faster
    assert len(verify_file(path).replays[0].errors) <= 500


def test_states_that_are_not_of_the_rows_are_not_used(tmp_path: Path) -> None:
    path = random_file(tmp_path / "a.hdf5", "hopper", "d4rl")
    with h5py.File(path, "r+") as file:
        rows = len(file["rewards"])
        file["infos/qpos"] = np.zeros((rows, 6))
        file["infos/qvel"] = np.zeros((rows, 6))
    verdict = verify_file(path)
    assert verdict.begun_from == "observations"
    assert verdict.physics == ("d4rl",)


def test_data_of_unknown_physics_is_reported(tmp_path: Path) -> None:
    path = random_file(tmp_path / "a.hdf5", "hopper", "d4rl")
    with h5py.File(path, "r+") as file:
        file["actions"][:] = -file["actions"][:]
    verdict = verify_file(path)
    assert verdict.physics == ()
    assert "none of these physics" in verdict.text
    shown = CliRunner().invoke(app, ["data", "verify", str(path)])
    assert shown.exit_code == 1
    assert "none of these physics recorded it with a hopper" in shown.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": np.zeros((5, 3))}, "observations of 3 and actions of 3 numbers"),
        ({"rewards": np.zeros(3)}, "'rewards' has shape"),
        ({"actions": None}, "no key 'actions'"),
        ({"observations": np.full((5, 11), np.nan)}, "no transition can be replayed"),
    ],
)
def test_what_cannot_be_replayed_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content: dict[str, Any] = {
        "observations": np.zeros((5, 11)),
        "actions": np.zeros((5, 3)),
        "rewards": np.zeros(5),
        "terminals": np.zeros(5, bool),
        **change,
    }
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            if values is not None:
                file[key] = values
    with pytest.raises(InvalidDataset, match=message):
        verify_file(path)
    with pytest.raises(MissingDataset):
        verify_file(tmp_path / "none.hdf5")
    assert replay.SAME < 1e-2
