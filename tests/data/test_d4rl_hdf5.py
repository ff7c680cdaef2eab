import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dtbench import TrajectoryDataset, make_dataset
from dtbench.data import cache
from dtbench.data.d4rl_hdf5 import read_d4rl, write_d4rl
from dtbench.domains.d4rl import files
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS
from dtbench.errors import InvalidDataset, MissingDataset

HORIZON = 4
SEEING = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTING = spaces.Box(-1, 1, (1,), np.float32)
HOPPER = LOCOMOTION_ENVS["hopper"]


def read(path: Path) -> TrajectoryDataset:
    return read_d4rl(path, observation_space=SEEING, action_space=ACTING, horizon=HORIZON, info={"source": "d4rl"})


def columns(ends: str) -> dict[str, Any]:
    """One step a letter: `t` is terminal, `o` a time-out, `b` both, `.` neither."""
    steps = len(ends)
    return {
        "observations": np.arange(2 * steps, dtype=np.float32).reshape(steps, 2),
        "actions": np.linspace(-1, 1, steps, dtype=np.float32)[:, None],
        "rewards": np.arange(steps, dtype=np.float32),
        "terminals": np.array([letter in "tb" for letter in ends]),
        "timeouts": np.array([letter in "ob" for letter in ends]),
    }


def written(path: Path, content: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file.create_dataset(key, data=values, **options)
    return path


def dataset(lengths: list[int], ended: list[bool]) -> TrajectoryDataset:
    content = columns("." * sum(lengths))
    terminals = np.zeros(sum(lengths), bool)
    terminals[np.cumsum(lengths) - 1] = ended
    del content["timeouts"], content["terminals"]
    return make_dataset(
        **content,
        terminals=terminals,
        lengths=np.array(lengths),
        observation_space=SEEING,
        action_space=ACTING,
        info={"source": "generated"},
    )


def test_episodes_end_at_terminals_and_timeouts_and_the_tail_is_dropped(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.hdf5", columns(".t...o.b..")))
    assert found.lengths.tolist() == [2, 4, 2]
    assert found.terminals[found.offsets[1:] - 1].tolist() == [True, False, True]
    assert found.info == {"source": "d4rl", "unfinished_steps": 2, "next_observations": "absent"}


def test_without_timeouts_episodes_are_cut_at_the_step_limit(tmp_path: Path) -> None:
    content = columns("...t...o.t...o..")  # the first episode terminates exactly at the limit
    whole = read(written(tmp_path / "a.hdf5", content))
    del content["timeouts"]
    assert read(written(tmp_path / "b.hdf5", content)).digest == whole.digest
    assert whole.lengths.tolist() == [4, 4, 2, 4]


def test_timeouts_know_of_cuts_before_the_step_limit(tmp_path: Path) -> None:
    content = columns("..o...o")  # a replay buffer is cut where its training iterations end
    assert read(written(tmp_path / "a.hdf5", content)).lengths.tolist() == [3, 4]
    del content["timeouts"]
    assert read(written(tmp_path / "b.hdf5", content)).lengths.tolist() == [4]  # an old file cannot know


@given(
    st.lists(st.tuples(st.integers(1, HORIZON), st.booleans()), min_size=1, max_size=20),
    st.integers(0, HORIZON - 1),
)
@settings(max_examples=50, deadline=None)
def test_timeouts_differ_from_the_step_limit(episodes: list[tuple[int, bool]], tail: int) -> None:
    text = "".join("." * (n - 1) + ("t" if ended or n < HORIZON else "o") for n, ended in episodes) + "." * tail
    path = Path("written.hdf5")
    content = columns(text)
    whole = read(written(path, content))
    del content["timeouts"]
    assert read(written(path, content)).digest == whole.digest
    assert whole.lengths.tolist() == [n for n, _ in episodes]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in c.items()},
        lambda c: {**c, "rewards": c["rewards"][:, None], "terminals": c["terminals"][:, None]},
        lambda c: {**c, "terminals": c["terminals"].astype(np.uint8), "timeouts": c["timeouts"].astype(np.float32)},
        lambda c: {**c, "infos/qpos": np.zeros(3), "metadata/algorithm": "SAC", "next_observations": np.zeros((1, 9))},
    ],
    ids=["float64", "[N, 1]", "flags as numbers", "further keys"],
)
def test_the_same_data_in_other_clothes_has_the_same_digest(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    plain = columns(".t...o")
    digest = read(written(tmp_path / "a.hdf5", plain)).digest
    assert read(written(tmp_path / "b.hdf5", change(plain))).digest == digest


def test_compressed_files_are_read(tmp_path: Path) -> None:
    digest = read(written(tmp_path / "a.hdf5", columns(".t"))).digest
    assert read(written(tmp_path / "b.hdf5", columns(".t"), compression="gzip")).digest == digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": None}, "no key 'actions'. It holds: observations"),
        ({"rewards": np.array([0, 1, np.nan, 3, 4, 5])}, r"'rewards' holds nan in row 2"),
        ({"observations": np.full((6, 2), 1e300)}, r"'observations' holds .* in row 0: not finite as float32"),
        ({"actions": np.zeros((5, 1), np.float32)}, "'actions' has 5 rows where 'rewards' has 6"),
        ({"observations": np.zeros((6, 3), np.float32)}, r"'observations' has rows of shape \(3,\), the task's"),
        ({"actions": np.zeros((6, 2), np.float32)}, r"'actions' has rows of shape \(2,\)"),
        ({"rewards": np.zeros((6, 2))}, r"'rewards' has shape \(6, 2\)"),
        ({"rewards": np.float32(1)}, "'rewards' is one value"),
        ({"terminals": np.array([0, 2, 0, 0, 0, 0])}, "'terminals' holds 2 in row 1, not 0 or 1"),
        ({"timeouts": np.array([0, 0, np.nan, 0, 0, 0])}, "'timeouts' holds nan in row 2"),
        ({"rewards": np.array(["a"] * 6, "S1")}, "'rewards' holds |S1, not numbers"),
        ({"actions": np.array([[0], [0], [0], [1.1], [0], [0]])}, r"'actions' holds \[1.1.*\] in row 3, outside"),
        ({"terminals": np.zeros(6, bool), "timeouts": np.zeros(6, bool)}, "no episode ends within its 6 steps"),
        ({"actions/nested": np.zeros(6), "actions": None}, "'actions' is a group of 1"),
    ],
)
def test_a_malformed_file_is_named_with_its_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = {k: v for k, v in {**columns(".t...o"), **change}.items() if v is not None}
    path = written(tmp_path / "broken.hdf5", content)
    with pytest.raises(InvalidDataset, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_actions_may_be_out_of_bounds_by_rounding(tmp_path: Path) -> None:
    content = columns(".t")
    content["actions"] *= np.float32(1 + 1e-6)
    assert read(written(tmp_path / "a.hdf5", content)).num_steps == 2


@pytest.mark.parametrize("keep", [0, 10, 600, 0.5, 0.95])
def test_a_truncated_file_says_so(tmp_path: Path, keep: float) -> None:
    path = written(tmp_path / "a.hdf5", columns(".t" * 500))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 or keep == 0 else keep * len(whole))])
    with pytest.raises(InvalidDataset, match=r"a\.hdf5 cannot be read as HDF5"):
        read(path)


def test_no_file_is_a_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(MissingDataset, match="no file"):
        read(tmp_path / "nowhere.hdf5")


@pytest.mark.parametrize("timeouts", [True, False])
def test_what_is_written_is_read_with_its_digest(tmp_path: Path, timeouts: bool) -> None:
    data = dataset([2, 4, 4], [True, False, True])
    path = tmp_path / "folder" / "data.hdf5"
    write_d4rl(data, path, timeouts=timeouts)
    assert read(path).digest == data.digest
    with h5py.File(path) as file:
        assert ("timeouts" in file) == timeouts
        assert file["metadata/source"][()] == b"generated"
        assert file["observations"].dtype == np.float32
    assert [p.name for p in path.parent.iterdir()] == ["data.hdf5"]


def test_a_failed_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.hdf5"
    path.write_text("old")
    monkeypatch.setattr("dtbench.data.d4rl_hdf5._columns", lambda *_: {"observations": object()})
    with pytest.raises(TypeError):
        write_d4rl(dataset([1], [True]), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["data.hdf5"]


def hopper_file(folder: Path, reward: float = 1.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = columns("..t...t")
    content["observations"], content["actions"] = np.zeros((7, 11)), np.zeros((7, 3))
    content["rewards"] = np.full(7, reward)
    return written(folder / "hopper_medium-v2.hdf5", content)


@pytest.fixture
def d4rl_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    return tmp_path / "d4rl"


def test_a_d4rl_file_is_imported_once_and_again_when_it_changed(d4rl_folder: Path) -> None:
    path = hopper_file(d4rl_folder)
    first = files.load("hopper-medium-v2", HOPPER)
    assert isinstance(first.observations, np.memmap)
    assert first.info["source"] == "d4rl-excerpt"
    assert first.info["excerpt"] == "2 of about 2187 episodes of hopper-medium-v2"
    assert first.info["file"] == "hopper_medium-v2.hdf5"
    assert len(first.info["sha256"]) == 64
    with cache.reading_only():
        assert files.load("hopper-medium-v2", HOPPER).digest == first.digest
    hopper_file(d4rl_folder, reward=2.0)
    os.utime(path, ns=(1, 1))
    assert files.load("hopper-medium-v2", HOPPER).returns.tolist() == [6.0, 8.0]


def test_files_are_found_in_all_folders(d4rl_folder: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "data" / "downloads", tmp_path / "home" / ".d4rl" / "datasets", d4rl_folder):
        path = hopper_file(folder)
        assert files.find_file("hopper-medium-v2") == path
    assert files.find_file("hopper-expert-v2") is None


def test_a_missing_file_says_where_it_was_looked_for(d4rl_folder: Path) -> None:
    with pytest.raises(MissingDataset, match=rf"{d4rl_folder}.*dtbench data get hopper-medium-v2"):
        files.load("hopper-medium-v2", HOPPER)


def test_exported_data_does_not_pass_for_d4rls(d4rl_folder: Path) -> None:
    data = files.load_file(hopper_file(d4rl_folder), "hopper-medium-v2", HOPPER)
    write_d4rl(data.with_info({"source": "generated"}), d4rl_folder / "hopper_medium-v2.hdf5")
    assert files.load("hopper-medium-v2", HOPPER).info["source"] == "generated"
    write_d4rl(data, d4rl_folder / "hopper_medium-v2.hdf5")
    assert files.load("hopper-medium-v2", HOPPER).digest == data.digest
