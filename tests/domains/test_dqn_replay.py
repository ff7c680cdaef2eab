import gzip
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtbench import TrajectoryDataset, make_task
from dtbench.data import cache
from dtbench.domains.atari.dqn_replay import Visit, find_shards, load_shards, plan_visits
from dtbench.errors import InvalidDataset, InvalidValue, MissingDataset

ACTIONS = 4
ENTRIES, CAPACITY = 420, 400
COLUMNS = ("observation", "action", "reward", "terminal")
Shard = dict[str, NDArray[Any]]


def file_of(folder: Path, column: str, buffer: int) -> Path:
    return folder / f"$store$_{column}_ckpt.{buffer}.gz"


def packed(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return gzip.compress(content.getvalue(), compresslevel=1)


def write(folder: Path, buffer: int, shard: Shard) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for column, array in shard.items():
        file_of(folder, column, buffer).write_bytes(packed(array))


def shard_of(buffer: int, lengths: list[int], entries: int) -> Shard:
    """Frames show buffer and index; rewards and actions differ from step to step."""
    index = np.arange(entries)
    frames = np.zeros((entries, 84, 84), np.uint8)
    frames[:, 0, 0], frames[:, 0, 1], frames[:, 83, 83] = buffer, index // 256, index % 256
    terminals = np.zeros(entries, np.uint8)
    terminals[np.cumsum(lengths) - 1] = 1
    actions = (index + buffer) % ACTIONS
    rewards = (index % 3 - 1).astype(np.float32)
    return dict(zip(COLUMNS, (frames, actions.astype(np.int32), rewards, terminals), strict=True))


def random_lengths(rng: np.random.Generator, entries: int) -> list[int]:
    """Episodes of 1 to 15 steps that fill less than the entries."""
    lengths = rng.integers(1, 16, entries)
    return [int(length) for length in lengths[np.cumsum(lengths) < entries]]


def slow_sample(
    terminals: Mapping[int, NDArray[np.bool_]],
    *,
    steps: int,
    seed: int,
    num_buffers: int,
    capacity: int,
    trajectories_per_visit: int = 10,
) -> tuple[list[tuple[int, int]], int]:
    """The rule of the public code, one transition at a time: (buffer, entry) of each, and the visits given up."""
    np.random.seed(seed)  # noqa: NPY002 - the public code draws from the global generator
    taken: list[tuple[int, int]] = []
    positions, given_up = dict.fromkeys(terminals, 0), 0
    while len(taken) < steps:
        buffer = int(np.random.choice(np.arange(50 - num_buffers, 50), 1)[0])  # noqa: NPY002 - as above
        if buffer not in terminals:
            continue
        entry, visit, to_load, reading = positions[buffer], [], trajectories_per_visit, True
        while reading:
            visit.append((buffer, entry))
            if terminals[buffer][entry]:
                reading = to_load > 0
                to_load -= 1
            entry += 1
            if entry >= capacity:
                visit, entry, reading = [], positions[buffer], False
                given_up += 1
        taken += visit
        positions[buffer] = entry
    return taken, given_up


def entries_of(plan: list[Visit]) -> list[tuple[int, int]]:
    return [(visit.buffer, entry) for visit in plan for entry in range(visit.first, visit.last + 1)]


def load(folder: Path, **options: Any) -> TrajectoryDataset:
    asked = {"actions": ACTIONS, "steps": 900, "seed": 123, "num_buffers": 5, "capacity": CAPACITY, **options}
    return load_shards(folder, "Breakout", **asked)


@pytest.fixture(scope="module")
def shards() -> dict[int, Shard]:
    rng = np.random.default_rng(0)
    return {buffer: shard_of(buffer, random_lengths(rng, ENTRIES), ENTRIES) for buffer in range(45, 50)}


@pytest.fixture
def folder(tmp_path: Path, shards: dict[int, Shard], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five shards of Breakout, and a store of one's own."""
    monkeypatch.setenv("DQN_REPLAY_DIR", str(tmp_path / "replay"))
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "store"))
    folder = tmp_path / "replay" / "Breakout" / "1" / "replay_logs"
    for buffer, shard in shards.items():
        write(folder, buffer, shard)
    return folder


def refused(folder: Path, **options: Any) -> str:
    """Return the error of a broken shard; nothing may be left behind."""
    with pytest.raises(InvalidDataset) as caught:
        load(folder, **options)
    assert not list(cache.root().glob("*"))
    return str(caught.value)


def test_visits_are_those_of_the_public_rule() -> None:
    visits_given_up = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        terminals = {buffer: rng.random(300) < 0.1 for buffer in range(40, 50) if buffer != 44}
        options = {"seed": seed, "num_buffers": 10, "capacity": 250 + 2 * seed, "trajectories_per_visit": seed % 4}
        taken, given_up = slow_sample(terminals, steps=1800, **options)
        assert entries_of(plan_visits(terminals, steps=1800, **options)) == taken
        visits_given_up.append(given_up)
    assert sum(given_up > 0 for given_up in visits_given_up) >= 15


@pytest.mark.parametrize("seed", [123, 231, 312])
def test_transitions_are_those_of_the_public_rule(folder: Path, shards: dict[int, Shard], seed: int) -> None:
    terminals = {buffer: shard["terminal"].astype(bool) for buffer, shard in shards.items()}
    taken, given_up = slow_sample(terminals, steps=1450, seed=seed, num_buffers=5, capacity=CAPACITY)
    found = load(folder, steps=1450, seed=seed)
    assert given_up > 0
    frames = np.asarray(found.observations).astype(int)
    assert list(zip(frames[:, 0, 0], frames[:, 0, 1] * 256 + frames[:, 83, 83], strict=True)) == taken
    for name, column in (("actions", "action"), ("rewards", "reward"), ("terminals", "terminal")):
        assert getattr(found, name).tolist() == [shards[buffer][column][entry] for buffer, entry in taken]
    assert found.terminals[found.offsets[1:] - 1].all()


def test_a_visit_reads_eleven_episodes_and_goes_on_where_the_last_one_ended() -> None:
    terminals = {49: np.tile([False, True], 50)}
    plan = plan_visits(terminals, steps=23, seed=0, num_buffers=1)
    assert plan == [Visit(49, 0, 21), Visit(49, 22, 43)]
    assert [visit.steps for visit in plan] == [22, 22]


def test_a_visit_may_end_before_the_last_entry_but_not_with_it() -> None:
    terminals = {49: np.tile([False, True], 50)}
    assert plan_visits(terminals, steps=22, seed=0, num_buffers=1, capacity=23) == [Visit(49, 0, 21)]
    with pytest.raises(InvalidDataset, match=r"22 steps are too many: .* first 22 entries, the buffers 49 give 0"):
        plan_visits(terminals, steps=22, seed=0, num_buffers=1, capacity=22)


def test_buffers_that_give_no_more_are_an_error_and_not_a_loop(folder: Path) -> None:
    message = refused(folder, steps=5000)
    assert str(folder) in message
    assert "5000 steps are too many" in message


def test_without_a_buffer_to_visit_there_is_no_plan() -> None:
    with pytest.raises(MissingDataset, match="none of the buffers 40 to 49"):
        plan_visits({39: np.ones(100, bool)}, steps=1, seed=0, num_buffers=10)


@pytest.mark.parametrize("options", [{"steps": 0}, {"num_buffers": 0}, {"num_buffers": 51}, {"capacity": 0}])
def test_options_out_of_range_are_refused(folder: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match="must be 1 or more"):
        load(folder, **options)


def test_a_hole_among_the_shards_is_passed_over_and_listed(folder: Path, shards: dict[int, Shard]) -> None:
    file_of(folder, "reward", 47).unlink()
    found = load(folder, steps=600)
    terminals = {buffer: shard["terminal"].astype(bool) for buffer, shard in shards.items() if buffer != 47}
    taken, _ = slow_sample(terminals, steps=600, seed=123, num_buffers=5, capacity=CAPACITY)
    assert [int(frame[0, 0]) for frame in found.observations] == [buffer for buffer, _ in taken]
    assert found.info["missing_buffers"] == [47]
    assert found.info["buffers"] == sorted({buffer for buffer, _ in taken})


def test_no_complete_shard_is_missing_data(folder: Path) -> None:
    for buffer in range(45, 50):
        file_of(folder, "action", buffer).unlink()
    with pytest.raises(MissingDataset, match=r"Breakout: no complete shard in .*observation_ckpt.N.gz.*45 to 49"):
        load(folder)


def test_what_was_read_says_where_it_comes_from(folder: Path) -> None:
    info = load(folder).info
    assert (info["source"], info["game"], info["seed"], info["steps"]) == ("dqn-replay", "Breakout", 123, 900)
    assert (info["num_buffers"], info["capacity"], info["missing_buffers"]) == (5, CAPACITY, [])
    assert "create_dataset.py" in info["rule"]


def test_shards_are_read_once_and_again_after_they_changed(folder: Path, shards: dict[int, Shard]) -> None:
    first = load(folder)
    (stored,) = cache.root().iterdir()  # nothing else is left there
    assert load(folder).digest == first.digest
    assert list(cache.root().iterdir()) == [stored]
    assert cache.load(stored, verify=True).frame_stack == 4
    write(folder, 46, {**shards[46], "action": np.zeros(ENTRIES, np.int32)})
    assert load(folder).digest != first.digest


@pytest.mark.parametrize("column", COLUMNS)
def test_a_file_that_was_cut_short_is_named(folder: Path, column: str) -> None:
    path = file_of(folder, column, 48)
    path.write_bytes(path.read_bytes()[:-40])
    message = refused(folder)
    assert str(path) in message
    assert "cut short" in message


def test_rows_that_a_file_lacks_are_missed(folder: Path) -> None:
    path = file_of(folder, "observation", 48)
    content = gzip.decompress(path.read_bytes())
    short = gzip.compress(content[: 128 + 84 * 84 * 200])
    path.write_bytes(short[:-4] + len(content).to_bytes(4, "little"))  # whatever its end may tell
    assert str(path) in refused(folder, steps=1300)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [("observation", np.float32), ("action", np.int64), ("reward", np.float64), ("terminal", bool)],
)
def test_a_wrong_type_is_refused(folder: Path, shards: dict[int, Shard], column: str, dtype: Any) -> None:
    write(folder, 45, {column: shards[45][column].astype(dtype)})
    message = refused(folder)
    assert file_of(folder, column, 45).name in message
    assert f"holds {np.dtype(dtype)}" in message


@pytest.mark.parametrize("shape", [(ENTRIES, 42, 168), (ENTRIES, 84, 84, 1), (ENTRIES * 84 * 84,), (0, 84, 84), ()])
def test_frames_of_a_wrong_shape_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    write(folder, 45, {"observation": np.zeros(shape, np.uint8)})
    assert "where observations are uint8 of shape ('n', 84, 84)" in refused(folder)


def test_frames_stored_columns_first_are_refused(folder: Path, shards: dict[int, Shard]) -> None:
    write(folder, 45, {"observation": np.asfortranarray(shards[45]["observation"])})
    assert "rows first" in refused(folder)


class Trap:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_pickled_objects_are_refused_and_not_loaded(folder: Path) -> None:
    write(folder, 45, {"action": np.array([Trap()] * ENTRIES, object)})
    assert "holds object" in refused(folder)
    assert not Path("sprung").exists()


def test_files_of_different_lengths_are_refused(folder: Path, shards: dict[int, Shard]) -> None:
    write(folder, 45, {"reward": shards[45]["reward"][:-1]})
    message = refused(folder)
    assert f"{file_of(folder, 'reward', 45)} has 419 rows where others of buffer 45 have 420" in message


def test_a_file_that_is_not_gzip_is_refused(folder: Path) -> None:
    file_of(folder, "terminal", 45).write_bytes(b"<html>Not Found</html>")
    message = refused(folder)
    assert "$store$_terminal_ckpt.45.gz" in message
    assert "gzip" in message


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("action", ACTIONS, "holds 4 in row 1, where an action is 0 to 3"),
        ("action", -1, "holds -1 in row 1"),
        ("reward", np.nan, "holds nan in row 1"),
        ("terminal", 2, "holds 2 in row 1, where a terminal is 0 or 1"),
    ],
)
def test_values_out_of_range_are_refused_with_their_row(
    folder: Path, shards: dict[int, Shard], column: str, value: float, wanted: str
) -> None:
    for buffer, shard in shards.items():
        values = shard[column].copy()
        values[1] = value
        write(folder, buffer, {column: values})
    message = refused(folder)
    assert f"$store$_{column}_ckpt." in message
    assert wanted in message


def test_the_last_entry_which_dopamine_never_writes_may_hold_anything(folder: Path, shards: dict[int, Shard]) -> None:
    before = load(folder, capacity=ENTRIES)
    for buffer, shard in shards.items():
        rubbish = {"terminal": 255, "action": 2**31 - 1, "reward": np.inf}
        for column, value in rubbish.items():
            values = shard[column].copy()
            values[-1] = value
            write(folder, buffer, {column: values})
    assert load(folder, capacity=ENTRIES).digest == before.digest


@pytest.fixture
def eleven_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrajectoryDataset:
    """One visit by hand: episodes of 2 and 5 steps and nine of 3, rewards -1, 0, 1 by turns."""
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "store"))
    write(tmp_path, 49, shard_of(49, [2, 5] + [3] * 9, 40))
    return load(tmp_path, num_buffers=1, steps=1)


def test_timesteps_and_returns_to_go_are_those_of_each_episode(eleven_episodes: TrajectoryDataset) -> None:
    found = eleven_episodes
    assert found.lengths.tolist() == [2, 5] + [3] * 9
    assert found.rewards[:10].tolist() == [-1, 0, 1, -1, 0, 1, -1, 0, 1, -1]
    assert found.timesteps[:10].tolist() == [0, 1, 0, 1, 2, 3, 4, 0, 1, 2]
    assert found.returns_to_go[:10].tolist() == [-1, 0, 0, -1, 0, 0, -1, 0, 0, -1]
    assert found.returns[:3].tolist() == [-1, 0, 0]


def test_stacks_begin_with_zeros_and_cross_no_episode(eleven_episodes: TrajectoryDataset) -> None:
    found = eleven_episodes
    assert found.observation_space.shape == (4, 84, 84)
    stacks = found.observations_at(np.array([0, 1, 2, 3, 6, 7]))
    assert stacks[..., 0, 0].tolist() == [  # the buffer's number where there is a frame
        [0, 0, 0, 49],
        [0, 0, 49, 49],
        [0, 0, 0, 49],
        [0, 0, 49, 49],
        [49, 49, 49, 49],
        [0, 0, 0, 49],
    ]
    assert stacks[4, :, 83, 83].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("place", ["breakout/1/replay_logs", "BREAKOUT/1/replay_logs", "Breakout", "breakout"])
def test_shards_are_found_under_their_games_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("DQN_REPLAY_DIR", str(tmp_path))
    (tmp_path / "Breakout" / "1" / "replay_logs").mkdir(parents=True)  # an empty folder is passed over
    assert find_shards("breakout") is None
    write(tmp_path / place, 7, shard_of(7, [3], 5))
    assert find_shards("Breakout") == find_shards("breakout") == tmp_path / place
    assert find_shards("pong") is None


def test_the_folder_of_a_game_may_be_given_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given_folder in (folder, folder.parents[1]):
        monkeypatch.setenv("DQN_REPLAY_DIR", str(given_folder))
        assert find_shards("breakout") == folder
        assert find_shards("pong") is None  # these frames are not Pong's


@pytest.mark.parametrize("buffer", [0, 50], ids=["actions only", "beyond the last"])
def test_incomplete_shards_are_named_with_what_a_shard_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    monkeypatch.setenv("DQN_REPLAY_DIR", str(tmp_path))
    folder = tmp_path / "Pong" / "1" / "replay_logs"
    write(folder, buffer, shard_of(7, [3], 5))
    if buffer == 0:
        for column in ("observation", "reward", "terminal"):
            (folder / f"$store$_{column}_ckpt.0.gz").unlink()
    assert find_shards("pong") is None
    with pytest.raises(MissingDataset, match=r"no complete shard in .*replay_logs: each needs .*same N, 0 to 49"):
        make_task("atari:pong").open("dqn-replay")


def test_without_any_folder_no_shards_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DQN_REPLAY_DIR", raising=False)
    assert find_shards("breakout") is None
    write(tmp_path / ".dqn_replay" / "Breakout" / "1" / "replay_logs", 0, shard_of(0, [3], 5))
    assert find_shards("breakout") == tmp_path / ".dqn_replay" / "Breakout" / "1" / "replay_logs"


SMALL = {column: packed(array) for column, array in shard_of(49, [2, 5] + [3] * 9, 40).items()}


def digest_of_shard(content: Mapping[str, bytes]) -> str:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTBENCH_DATA", str(Path(name) / "store"))
        for column, packing in content.items():
            file_of(Path(name), column, 49).write_bytes(packing)
        return load(Path(name), num_buffers=1, steps=1).digest


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, bytes]:
    """A shard with some bytes of one file changed, or of its .npy header before it was compressed, or cut off."""
    column = draw(st.sampled_from(COLUMNS))
    in_header = draw(st.booleans())
    content = bytearray(gzip.decompress(SMALL[column]) if in_header else SMALL[column])
    for _ in range(draw(st.integers(1, 3))):
        content[draw(st.integers(0, 127 if in_header else len(content) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 4)) == 0:
        del content[draw(st.integers(0, len(content))) :]
    return {**SMALL, column: gzip.compress(content, 1) if in_header else bytes(content)}


@settings(max_examples=200, deadline=None)
@given(damaged())
def test_damage_is_noticed_or_without_effect(content: dict[str, bytes]) -> None:
    try:
        found = digest_of_shard(content)
    except InvalidDataset:
        return
    assert found == digest_of_shard(SMALL)
