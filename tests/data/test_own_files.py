"""Files that people recorded themselves: missing keys, other names and shapes, sizes that are not theirs."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from dtbench import TrajectoryDataset
from dtbench.data import hdf5, memory
from dtbench.data.d4rl_hdf5 import exported_source, read_d4rl
from dtbench.errors import InvalidDataset

STEPS, LENGTH = 12, 4
SEEING = gym.spaces.Box(-np.inf, np.inf, (2,))
LEVER = gym.spaces.Box(-1, 1, (1,))
CHOICE = gym.spaces.Discrete(3)


def content(**changes: Any) -> dict[str, Any]:
    """Three episodes of four steps, the second of which terminates."""
    last = np.arange(STEPS) % LENGTH == LENGTH - 1
    arrays = {
        "observations": np.arange(2.0 * STEPS, dtype=np.float32).reshape(STEPS, 2),
        "actions": np.linspace(-1, 1, STEPS, dtype=np.float32)[:, None],
        "rewards": np.ones(STEPS, np.float32),
        "terminals": np.arange(STEPS) == 7,
        "timeouts": last & (np.arange(STEPS) != 7),
    }
    return {key: values for key, values in (arrays | changes).items() if values is not None}


def following() -> np.ndarray:
    """The observations after each step; another episode begins where they are not the next row's."""
    after = np.asarray(content()["observations"])[1:]
    after = np.concatenate([after, [[24, 25]]]).astype(np.float32)
    after[[3, 7, 11]] += 100
    return after


def written(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def read(
    path: Path, *, actions: gym.Space[Any] = LEVER, horizon: int | None = None, **options: Any
) -> TrajectoryDataset:
    return read_d4rl(path, observation_space=SEEING, action_space=actions, horizon=horizon, **options)


def test_ends_are_read_from_next_observations(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.hdf5", content(timeouts=None, next_observations=following())))
    assert found.lengths.tolist() == [4, 4, 4]
    assert found.terminals[found.offsets[1:] - 1].tolist() == [False, True, False]
    assert found.final_observations is not None
    assert found.info["episodes_end_by"] == "next_observations"


def test_an_unfinished_last_episode_is_not_counted_by_next_observations(tmp_path: Path) -> None:
    short = {key: values[:10] for key, values in content(next_observations=following(), timeouts=None).items()}
    assert read(written(tmp_path / "a.hdf5", short)).lengths.tolist() == [4, 4]


@pytest.mark.parametrize("next_observations", [None, np.zeros((STEPS, 2)), np.zeros((STEPS, 5))])
def test_without_timeouts_the_length_is_asked_for(tmp_path: Path, next_observations: Any) -> None:
    path = written(tmp_path / "a.hdf5", content(timeouts=None, next_observations=next_observations))
    with pytest.raises(InvalidDataset, match="episode_length=N"):
        read(path)
    found = read(path, horizon=4)
    assert found.lengths.tolist() == [4, 4, 4]
    assert found.info["episodes_end_by"] == "episode_length 4"


@pytest.mark.parametrize(
    ("changes", "horizon"),
    [
        ({"terminals": None, "terminations": content()["terminals"]}, None),
        ({"timeouts": None, "truncations": content()["timeouts"].astype(np.float64)}, None),
        ({"terminals": None, "dones": content()["terminals"] | content()["timeouts"]}, None),
        ({"timeouts": None, "episode_terminals": content()["terminals"] | content()["timeouts"]}, None),
        ({"timeouts": content()["timeouts"].astype(np.float32)[:, None]}, None),
        ({"actions": content()["actions"][:, 0]}, None),
        ({"rewards": np.ones((STEPS, 1))}, None),
    ],
)
def test_other_names_and_shapes_are_the_same_data(
    tmp_path: Path, changes: dict[str, Any], horizon: int | None
) -> None:
    expected = read(written(tmp_path / "a.hdf5", content())).digest
    assert read(written(tmp_path / "b.hdf5", content(**changes)), horizon=horizon).digest == expected


def test_dones_alone_need_the_length_of_an_episode(tmp_path: Path) -> None:
    done = np.isin(np.arange(STEPS), [3, 5, 9, 11])
    path = written(tmp_path / "a.hdf5", content(terminals=None, timeouts=None, dones=done))
    with pytest.raises(InvalidDataset, match="a done, which at step N is a timeout"):
        read(path)
    found = read(path, horizon=4)
    assert found.lengths.tolist() == [4, 2, 4, 2]
    assert found.cut_off.tolist() == [True, False, True, False]


@pytest.mark.parametrize("shape", [(STEPS,), (STEPS, 1)])
@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.float64])
def test_discrete_actions_may_be_columns_and_whole_floats(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    chosen = (np.arange(STEPS) % 3).astype(kind).reshape(shape)
    found = read(written(tmp_path / "a.hdf5", content(actions=chosen)), actions=CHOICE)
    assert np.asarray(found.actions).tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full(STEPS, 0.5), "holds 0.5 in row 0, the task has integers"),
        (np.full(STEPS, np.nan), "holds nan in row 0"),
        (np.eye(3)[np.arange(STEPS) % 3], r"argmax\(axis=1\)"),
    ],
)
def test_actions_that_are_no_choices_say_what_to_do(tmp_path: Path, actions: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read(written(tmp_path / "a.hdf5", content(actions=actions)), actions=CHOICE)


def test_clipping_is_an_option_that_is_recorded(tmp_path: Path) -> None:
    actions = content()["actions"].copy()
    actions[[2, 5], 0] = 1.3, -1.1
    path = written(tmp_path / "a.hdf5", content(actions=actions))
    with pytest.raises(InvalidDataset, match=r"row 2, outside .*2 of 12 rows.*clip_actions=true"):
        read(path)
    found = read(path, clip_actions=True)
    assert np.asarray(found.actions)[[2, 5], 0].tolist() == [1, -1]
    assert found.info["clipped_actions"] == 2


@pytest.mark.parametrize(
    ("name", "recipe"), [("a.npz", "np.load"), ("a.csv", "howto/dataset.md"), ("a.pkl", "never read")]
)
def test_files_of_another_kind_get_a_recipe_and_no_advice_to_download(tmp_path: Path, name: str, recipe: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 or anything else" * 100)
    with pytest.raises(InvalidDataset, match=recipe) as error:
        read(tmp_path / name)
    assert "fetch" not in str(error.value)
    assert "download" not in str(error.value)


def bomb(path: Path, key: str, rows: int, *, inner: int) -> Path:
    """A small file whose key declares gigabytes."""
    with h5py.File(path, "w") as file:
        for name, values in content().items():
            if name != key:
                file[name] = values
        shape = (rows, inner) if inner else (rows,)
        packed = file.create_dataset(key, shape, "u1", chunks=(2**20, *shape[1:]), compression="gzip")
        for first in range(0, rows, 2**24):
            packed[first : first + 2**20] = 0
    return path


@pytest.mark.parametrize(("key", "inner"), [("timeouts", 0), ("observations", 2)])
def test_columns_of_other_lengths_are_refused_unread(
    tmp_path: Path, key: str, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "a.hdf5", key, 2**25, inner=inner)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InvalidDataset, match=rf"'{key}' (has 33554432 rows|declares)"):
        read(path)


def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   64000000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/pod/job\n" if "v2" in files else "5:cpu,memory:/pod\n")
    root = tmp_path / "cgroup" / ("pod" if "v2" in files else "memory")
    root.mkdir(parents=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (
            {"v2": "", "memory__max": "1000\n", "memory__current": "900", "memory__stat": "anon 5\ninactive_file 300"},
            400,
        ),
        ({"v2": "", "memory__max": "max\n", "memory__current": "900"}, 64_000_000 * 1024),
        ({"memory__limit_in_bytes": "5000", "memory__usage_in_bytes": "6000"}, 0),
    ],
)
def test_memory_is_that_of_the_cgroups_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int
) -> None:
    cgroup(tmp_path, monkeypatch, **files)
    assert memory.free_memory() == free


def test_a_file_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "free_memory", lambda: 100)
    with pytest.raises(InvalidDataset, match="bytes of memory, and 100 are free"):
        read(written(tmp_path / "a.hdf5", content()))


def claimed(path: Path, source: Any, writer: Any = "dtbench") -> str | None:
    return exported_source(written(path, {"metadata/written_by": writer, "metadata/source": source}))


def test_a_file_is_believed_only_where_it_claims_no_real_data(tmp_path: Path) -> None:
    assert claimed(tmp_path / "a", "generated") == "generated"
    assert claimed(tmp_path / "b", "d4rl") == "file (says d4rl)"
    assert claimed(tmp_path / "c", "re-recorded") == "file (says re-recorded)"
    assert claimed(tmp_path / "d", "d4rl", writer="me") is None
    assert claimed(tmp_path / "e", "[/nope]") is None


@pytest.mark.parametrize(
    "writer",
    [np.array(["dtbench"] * 3, "S7"), np.array("dtbench" + " " * 2_000_000, "S2000007"), 7, np.zeros((3, 3))],
    ids=["array", "long", "number", "matrix"],
)
def test_metadata_that_is_no_short_text_is_none(tmp_path: Path, writer: Any) -> None:
    assert claimed(tmp_path / "a", "generated", writer) is None
