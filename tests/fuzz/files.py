"""Data files that nobody intended: HDF5, DQN-replay shards, the store's own, Minari's, published tables."""

import gzip
import json
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from hypothesis import strategies as st

from dtbench import TrajectoryDataset, make_dataset, registry
from dtbench.analysis.published import published_tables
from dtbench.data import cache as store
from dtbench.data.d4rl_hdf5 import exported_source, read_d4rl, write_d4rl
from dtbench.data.dataset import statistics_card
from dtbench.data.download import check_file
from dtbench.domains.atari.dqn_replay import load_shards
from dtbench.domains.atari.generation import RamPolicy
from dtbench.domains.d4rl.generation import BehaviorPolicy
from tests.fuzz.outcome import Target
from tests.fuzz.suites import TINY
from tests.fuzz.values import anything, damage, damaged, mutated, texts

SEEING = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTING = gym.spaces.Box(-1, 1, (1,), np.float32)
KEYS = ("observations", "actions", "rewards", "terminals", "timeouts", "metadata/source", "metadata/written_by")
SECRET = "secret.hdf5"  # beside the folder that a file must not reach out of
BUFFERS, ENTRIES = (48, 49), 60


def toy_dataset(**changes: Any) -> TrajectoryDataset:
    """Three episodes of four steps."""
    steps = 12
    arrays: dict[str, Any] = {
        "observations": np.arange(2 * steps, dtype=np.float32).reshape(steps, 2),
        "actions": np.linspace(-1, 1, steps, dtype=np.float32)[:, None],
        "rewards": np.arange(steps, dtype=np.float32),
        "terminals": np.arange(steps) % 4 == 3,
        "lengths": np.array([4, 4, 4]),
        "observation_space": SEEING,
        "action_space": ACTING,
        "info": {"source": "generated", "seed": 0},
    }
    return make_dataset(**{**arrays, **changes})


@cache
def _hdf5(compression: str | None) -> bytes:
    path = Path(f"made-{compression}.hdf5").absolute()
    write_d4rl(toy_dataset(), path, compression=compression)
    content = path.read_bytes()
    path.unlink()
    return content


def _read(path: Path) -> TrajectoryDataset:
    exported_source(path)
    return read_d4rl(path, observation_space=SEEING, action_space=ACTING, horizon=4)


def _damaged_hdf5(folder: Path, given: tuple[str | None, Any]) -> None:
    compression, steps = given
    path = folder / "mine.hdf5"
    path.write_bytes(damaged(_hdf5(compression), steps))
    _used(_read(path))


def _used(dataset: TrajectoryDataset) -> None:
    """What is done with a dataset before a learner sees it."""
    json.dumps(statistics_card(dataset), allow_nan=False)
    dataset.select([int(dataset.returns.argmax())])
    dataset.observations_at(np.arange(dataset.num_steps))


@st.composite
def _columns(draw: st.DrawFn) -> Mapping[str, Any]:
    """For each key what to put there: see `_put`."""
    kinds = ("good", "good", "good", "good", "dtype", "shape", "value", "kind", "missing")
    return {key: (draw(st.sampled_from(kinds)), draw(st.integers(0, 30))) for key in KEYS}


def _good(key: str) -> Any:
    dataset = toy_dataset()
    if key == "timeouts":
        return np.zeros(dataset.num_steps, bool)
    return "dtbench" if key.startswith("metadata") else np.asarray(getattr(dataset, key))


_DTYPES = (
    "f2",
    "f4",
    "f8",
    "i1",
    "i8",
    "u8",
    "?",
    "c8",
    "S3",
    "g",
    ">f4",
    "O",
    "V5",
    [("a", "f4"), ("b", "i4")],
    ("f4", (2,)),
)
_SHAPES = ((), (0,), (12, 0), (0, 2), (3,), (12, 3), (1, 12, 2), (12, 1, 1), (13, 2), (12,), (12, 1), (1,) * 30)
_VALUES = (np.nan, np.inf, -np.inf, 2, -1, 1e39, -1e300, 0.5, 255)


def _put(file: Any, key: str, how: str, number: int) -> None:
    """Something under a key that is not what belongs there."""
    good = _good(key)
    text = isinstance(good, str)
    if how == "missing":
        return
    if how == "good" or (text and how != "kind"):
        file[key] = good if not text or how == "good" else ("<script>\n" * 1000, "d4rl", "\u202e", "")[number % 4]
    elif how == "dtype":
        dtype = _DTYPES[number % len(_DTYPES)]
        if dtype == "O":
            file.create_dataset(key, data=["x"] * 12, dtype=h5py.string_dtype())
        else:
            file.create_dataset(key, data=np.zeros(good.shape, np.dtype(dtype)))
    elif how == "shape":
        file.create_dataset(key, data=np.zeros(_SHAPES[number % len(_SHAPES)], good.dtype))
    elif how == "value":
        values = good.astype(np.float64)
        values.flat[number % values.size] = _VALUES[number % len(_VALUES)]
        file.create_dataset(key, data=values)
    else:
        _put_strange(file, key, number % 11)


def _put_strange(file: Any, key: str, number: int) -> None:
    above = Path(file.filename).parent.parent / SECRET
    if number == 0:
        file.create_group(key)
    elif number == 1:
        file[key] = h5py.ExternalLink(str(above), "observations")
    elif number == 2:
        file[key] = h5py.SoftLink("/rewards")
    elif number == 3:
        file[key] = h5py.SoftLink(f"/{key}")
    elif number == 4:
        layout = h5py.VirtualLayout((12, 2), "f4")
        layout[:] = h5py.VirtualSource(str(above), "observations", (12, 2))
        file.create_virtual_dataset(key, layout)
    elif number == 5:
        file.create_dataset(key, (12,), "f4", external=[("/etc/passwd", 0, 48)])
    elif number == 6:
        file.create_dataset(key, (10**12, 2), "f4", chunks=(1000, 2))
    elif number == 7:
        file.create_dataset(key, (2**62,), "f4", chunks=(1000,))
    elif number == 8:
        file.create_dataset(key, (12,), h5py.ref_dtype)
    elif number == 9:
        file[key] = h5py.Empty("f4")
    else:
        file[key] = np.dtype("f4")


def _strange_hdf5(folder: Path, columns: Mapping[str, tuple[str, int]]) -> None:
    with h5py.File(folder.parent / SECRET, "w") as secret:
        secret["observations"] = np.full((12, 2), 77, np.float32)
    path = folder / "mine.hdf5"
    with h5py.File(path, "w", track_order=True) as file:
        for key, (how, number) in columns.items():
            _put(file, key, how, number)
    found = _read(path)
    assert not (np.asarray(found.observations) == 77).any(), "it read another file"
    _used(found)


def _npy(array: np.ndarray[Any, Any], **header: Any) -> bytes:
    """The bytes of a .npy; `header` says other things of it than what is true."""
    true = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    text = repr({**true, **header}).encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


def _shard(buffer: int) -> dict[str, np.ndarray[Any, Any]]:
    index = np.arange(ENTRIES)
    return {
        "observation": np.zeros((ENTRIES, 84, 84), np.uint8),
        "action": (index % 4).astype(np.int32),
        "reward": (index % 3).astype(np.float32),
        "terminal": (index % 2 == 1).astype(np.uint8),
    }


_HEADERS: tuple[Mapping[str, Any], ...] = (
    *(
        {"descr": descr}
        for descr in ("|O", "<f8", ">i4", "|S4", "|V8", [("a", "<f4")], "", "<M8[s]", "x", "<U9999999")
    ),
    *(
        {"shape": shape}
        for shape in ((), (0,), (-1,), (10**9,), (10**30,), (2**64,), (1, 2, 3, 4), (60.5,), "x", None, (True,))
    ),
    {"fortran_order": True},
    {"fortran_order": 7},
    {"more": 1},
    {"descr": "(" * 100},
)


def _damaged_shard(folder: Path, given: tuple[str, int, Any, Any, bool]) -> None:
    column, buffer, header, steps, packed = given
    for number in BUFFERS:
        for name, array in _shard(number).items():
            content = _npy(array)
            if (name, number) == (column, buffer):
                if header is not None:
                    content = _npy(array, **header)
                if steps and not packed:
                    content = damaged(content, steps)
            content = gzip.compress(content, 1)
            if steps and packed and (name, number) == (column, buffer):
                content = damaged(content, steps)
            (folder / f"$store$_{name}_ckpt.{number}.gz").write_bytes(content)
    os.environ["DTBENCH_DATA"] = str(folder / "store")
    _used(load_shards(folder, "Breakout", actions=4, steps=30, seed=0, num_buffers=2, capacity=ENTRIES))


_DISCRETE = {
    "actions": np.arange(12) % 3,
    "action_space": gym.spaces.Discrete(3),
    "extras": {"raw_rewards": np.zeros(12, np.float32)},
}


def _damaged_store(folder: Path, given: tuple[str, Any, Any, bool, bool]) -> None:
    name, steps, meta, verify, discrete = given
    place = folder / "store" / "toy"
    store.save(toy_dataset(**(_DISCRETE if discrete else {})), place)
    if name == "meta.json" and meta is not None:
        (place / name).write_text(json.dumps(meta))
    elif (place / name).exists():
        (place / name).write_bytes(damaged((place / name).read_bytes(), steps))
    _used(store.load(place, verify=verify))


@cache
def _metas() -> tuple[str, str]:
    found = []
    for changes in ({}, _DISCRETE):
        place = Path("meta-store").absolute()
        store.save(toy_dataset(**changes), place / "toy")
        found.append((place / "toy" / "meta.json").read_text())
        shutil.rmtree(place)
    return found[0], found[1]


_meta = mutated(st.deferred(lambda: st.sampled_from(_metas()).map(json.loads)))
_some_damage = st.one_of(st.just([]), damage())
_NPYS = ("observations.npy", "actions.npy", "rewards.npy", "terminals.npy", "offsets.npy", "extra-raw_rewards.npy")


def _damaged_header(folder: Path, given: tuple[str, Mapping[str, Any]]) -> None:
    name, header = given
    place = folder / "store" / "toy"
    store.save(toy_dataset(**_DISCRETE), place)
    array = np.load(place / name, allow_pickle=False)
    (place / name).write_bytes(_npy(array, **header))
    _used(store.load(place))


def _damaged_minari(folder: Path, given: tuple[str, Any, Any]) -> None:
    name, steps, metadata = given
    place = folder / "minari" / "toy" / "set-v0"
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
    os.environ["DTBENCH_DATA"] = str(folder / "store")
    shutil.copytree(_minari_set(), place)
    path = place / "data" / name
    if name == "metadata.json" and metadata is not None:
        path.write_text(json.dumps(metadata))
    else:
        path.write_bytes(damaged(path.read_bytes(), steps))
    task = registry.make_task("minari:toy/set-v0")
    _used(task.open())


def _minari_set() -> Path:
    """A set of two episodes, made once."""
    import minari
    from minari.data_collector.episode_buffer import EpisodeBuffer

    kept = Path(os.environ["DTBENCH_DATA"]).parent.parent / "minari-made"
    if not kept.exists():
        os.environ["MINARI_DATASETS_PATH"] = str(kept)
        ends = [False, False, True]
        episodes = [
            EpisodeBuffer(
                observations=np.zeros((4, 2), np.float32),
                actions=np.zeros((3, 1), np.float32),
                rewards=[1.0, 2.0, 3.0],
                terminations=ends,
                truncations=[False] * 3,
                infos={},
            )
            for _ in range(2)
        ]
        spaces = {"observation_space": SEEING, "action_space": ACTING}
        minari.create_dataset_from_buffers("toy/set-v0", episodes, data_format="hdf5", **spaces)
    return kept / "toy" / "set-v0"


_METADATA = {
    "data_format": "hdf5",
    "dataset_id": "toy/set-v0",
    "minari_version": "0.5.3",
    "observation_space": '{"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}',
    "action_space": '{"type": "Box", "dtype": "float32", "shape": [1], "low": [-1], "high": [1]}',
    "total_episodes": 2,
    "total_steps": 6,
    "dataset_size": 0.1,
    "ref_min_score": 0,
    "ref_max_score": 10,
    "algorithm_name": "x",
    "env_spec": '{"id": "CartPole-v1", "entry_point": "os:system", "additional_wrappers": []}',
}


def _damaged_published(folder: Path, given: tuple[Any, Any]) -> None:
    reference, steps = given
    file = folder / "results" / "published" / "mine.csv"
    file.parent.mkdir(parents=True)
    row = "table,suite,dataset,env,algorithm,metric,mean,std,n_seeds,source,note\n"
    file.write_bytes(damaged((row + "6,g,d,e,DT,m,71.8,0.1,3,s,n\n7,g,d,e,BC,m,1,,,s,\n").encode(), steps))
    published_tables({"published": [reference]})


_reference = st.one_of(
    st.just({"file": "mine.csv", "table": 6, "datasets": {"hill": "d"}, "contenders": {"DT": "DT"}}),
    mutated(st.deferred(lambda: st.just(json.loads(json.dumps(TINY["published"][0] | {"file": "mine.csv"}))))),
    mutated(st.deferred(lambda: st.just({**TINY["published"][0], "averages": [{"name": "all", "tasks": ["*"]}]}))),
)


def _policies(folder: Path, given: tuple[str, Any]) -> None:
    kind, steps = given
    found = sorted(Path(store.__file__).parents[1].glob(f"domains/{kind}/policies/*/**/*.npz"))[0]
    path = folder / "policy.npz"
    path.write_bytes(damaged(found.read_bytes(), steps))
    (RamPolicy if kind == "atari" else BehaviorPolicy).load(path)


def _receipts(folder: Path, content: Any) -> None:
    (folder / "x").write_bytes(b"content")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "x.sha256").write_text(text, encoding="utf-8", errors="surrogatepass")
    check_file(folder / "x")


def _gym(folder: Path, given: tuple[str, Any, Any]) -> None:
    name, options, steps = given
    (folder / "mine.hdf5").write_bytes(damaged(_hdf5("gzip"), steps))
    registry.make_task(name, {"file": "mine.hdf5", **options}).open()


_gym_options = st.dictionaries(
    st.sampled_from(("file", "reference_min", "reference_max", "horizon")), anything, max_size=2
)
_column = st.sampled_from(("observation", "action", "reward", "terminal"))

TARGETS = (
    Target("hdf5 bytes", st.tuples(st.sampled_from(("gzip", None)), damage()), _damaged_hdf5),
    Target("hdf5 contents", _columns(), _strange_hdf5),
    Target(
        "shards",
        st.tuples(_column, st.sampled_from(BUFFERS), st.none(), damage(), st.booleans()),
        _damaged_shard,
    ),
    Target(
        "shard headers",
        st.tuples(_column, st.sampled_from(BUFFERS), st.sampled_from(_HEADERS), _some_damage, st.booleans()),
        _damaged_shard,
    ),
    Target(
        "store",
        st.tuples(st.sampled_from(("meta.json", *_NPYS)), damage(), st.none(), st.booleans(), st.booleans()),
        _damaged_store,
    ),
    Target(
        "store meta",
        st.tuples(st.just("meta.json"), st.just([]), _meta, st.booleans(), st.booleans()),
        _damaged_store,
    ),
    Target("store headers", st.tuples(st.sampled_from(_NPYS), st.sampled_from(_HEADERS)), _damaged_header),
    Target(
        "minari",
        st.one_of(
            st.tuples(st.sampled_from(("main_data.hdf5", "metadata.json")), damage(), st.none()),
            st.tuples(st.just("metadata.json"), st.just([]), mutated(st.just(_METADATA).map(dict))),
        ),
        _damaged_minari,
    ),
    Target("published", st.tuples(_reference, _some_damage), _damaged_published),
    Target("policies", st.tuples(st.sampled_from(("atari", "d4rl")), damage()), _policies),
    Target("receipts", st.one_of(anything, texts), _receipts),
    Target(
        "gym", st.tuples(st.sampled_from(("gym:Pendulum-v1", "gym:CartPole-v1")), _gym_options, _some_damage), _gym
    ),
)
