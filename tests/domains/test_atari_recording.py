"""Atari data made here: policies on RAM, whole episodes, clipped and raw rewards."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dtbench.domains.atari.emulator import action_count
from dtbench.domains.atari.generation import (
    FEATURES,
    POLICIES,
    RamPolicy,
    Recording,
    features,
    games_with_policies,
    policy_files,
    record,
)
from dtbench.domains.atari.tasks import GAMES, atari_task
from dtbench.errors import InvalidDataset, InvalidValue, MissingDataset, UnknownName


def policy(actions: int = 6, seed: int = 0) -> RamPolicy:
    rng = np.random.default_rng(seed)
    sizes = [FEATURES, 8, actions]
    weights = [rng.normal(size=(i, o)).astype(np.float32) for i, o in pairwise(sizes)]
    return RamPolicy(weights, [rng.normal(size=o).astype(np.float32) for o in sizes[1:]])


def test_features_are_bytes_and_their_changes() -> None:
    ram, before = np.zeros((1, 128), np.uint8), np.zeros((1, 128), np.uint8)
    ram[0, :3], before[0, :3] = [255, 2, 100], [255, 254, 50]
    seen = features(ram, before)
    assert seen.shape == (1, FEATURES)
    assert seen[0, :3].tolist() == pytest.approx([1.0, 2 / 127.5 - 1, 100 / 127.5 - 1])
    assert seen[0, 128:131].tolist() == [0.0, 0.25, 1.0]  # 2 - 254 wraps to 4; 50 counts as 16


def test_actions_follow_their_likelihood_and_the_temperature() -> None:
    plain = RamPolicy([np.zeros((FEATURES, 3), np.float32)], [np.log([0.5, 0.3, 0.2]).astype(np.float32)])
    uniform = (np.arange(10_000) + 0.5) / 10_000
    drawn = plain.act(np.zeros((10_000, FEATURES), np.float32), uniform)
    assert (np.bincount(drawn) / 10_000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)
    sharp = plain.act(np.zeros((10_000, FEATURES), np.float32), uniform, temperature=0.5)
    squares = np.array([0.25, 0.09, 0.04]) / 0.38
    assert (np.bincount(sharp) / 10_000).tolist() == pytest.approx(squares.tolist(), abs=1e-3)


def test_a_saved_policy_is_the_one_that_is_loaded_but_for_a_bytes_rounding(tmp_path: Path) -> None:
    ours = policy()
    ours.save(tmp_path / "policy.npz")
    loaded = RamPolicy.load(tmp_path / "policy.npz")
    for before, after in zip(ours.weights, loaded.weights, strict=True):
        assert np.abs(before - after).max() <= np.abs(before).max() / 250
    loaded.save(tmp_path / "again.npz")
    again = RamPolicy.load(tmp_path / "again.npz")
    assert all(np.allclose(a, b) for a, b in zip(loaded.weights, again.weights, strict=True))


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04broken"])
def test_a_broken_policy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy.npz").write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"policy\.npz"):
        RamPolicy.load(tmp_path / "policy.npz")


def test_recorded_data_are_whole_episodes_with_clipped_and_raw_rewards(tmp_path: Path) -> None:
    data = record(Recording("seaquest", steps=600, seed=3, max_frames=800), [None, policy(18)], scratch=tmp_path)
    assert 600 <= data.num_steps < 600 + 200
    assert set(np.unique(data.rewards)) <= {0.0, 1.0}
    assert (data.rewards == np.asarray(data.extras["raw_rewards"]).clip(-1, 1)).all()
    assert data.observations.shape[1:] == (84, 84)
    assert data.frame_stack == 4
    stack = data.observations_at(np.array([0, 5, int(data.offsets[1])]))
    assert (stack[0, :3] == 0).all()
    assert (stack[2, :3] == 0).all()
    assert (stack[1] == data.observations[2:6]).all()
    assert (data.lengths <= 200).all()


def test_equal_arguments_give_equal_data(tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        recording = Recording("pong", steps=150, seed=seed, max_frames=400)
        made.append(record(recording, [policy()], scratch=tmp_path / name).digest)
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("game", sorted(GAMES))
def test_shipped_policies_beat_a_random_player_clearly(game: str) -> None:
    manifest = json.loads((POLICIES / game / "manifest.json").read_text())
    random = manifest["random"]
    best = manifest["measured"][manifest["policies"][-1]]
    assert manifest["measured_episodes"] >= 20
    spread = (random["return_std"] ** 2 + best["return_std"] ** 2) ** 0.5 / 20**0.5
    assert best["return_mean"] - random["return_mean"] > 4 * spread
    loaded = RamPolicy.load(POLICIES / game / policy_files(game)[-1])
    assert loaded.weights[-1].shape[1] == action_count(game)
    training = json.loads((POLICIES / game / policy_files(game)[-1]).parent.joinpath("training.json").read_text())
    assert training["command"].startswith(f"dtbench data train-behavior atari:{game} ")


def test_every_game_of_the_paper_has_policies() -> None:
    assert set(games_with_policies()) == set(GAMES)


def test_generated_data_are_kept_and_leave_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    recording = Recording("pong", steps=300, seed=0, max_frames=200)
    made, again = recording.load(), recording.load()
    assert made.digest == again.digest
    assert [path.name for path in (tmp_path / "data").iterdir()] == [
        "generated-atari-pong-300-seed0-official-dt-200-recipe1"
    ]
    assert made.info["policies"][0] == "uniform"
    assert made.num_episodes >= 6


def test_a_game_without_policies_says_what_there_is() -> None:
    with pytest.raises(MissingDataset, match=r"breakout, pong"):
        atari_task("freeway").open("generated")


def test_a_task_says_its_protocol_and_its_units() -> None:
    task = atari_task("pong", protocol="dopamine", reward_units="official")
    assert "dopamine" in task.score_name
    assert task.target_units is not None
    assert not task.target_units.lower_return_to_go
    clipped = atari_task("breakout").target_units
    assert clipped is not None
    assert clipped.lower_return_to_go
    assert clipped.convert(np.array([7.0, 0.0, -3.0])).tolist() == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"protocol": "d4rl"}, UnknownName), ({"reward_units": "raw"}, UnknownName), ({"steps": 0}, InvalidValue)],
)
def test_impossible_options_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        atari_task("pong", **options)  # type: ignore[arg-type]


def test_targets_are_the_papers_on_its_data_and_multiples_of_the_best_elsewhere(tmp_path: Path) -> None:
    task = atari_task("seaquest")
    data = record(Recording("seaquest", steps=200, seed=3), [None], scratch=tmp_path)
    best = float(data.returns.max())
    assert task.targets(data) == ((5 * best, best) if best else (0.0,))
    assert task.targets(data.with_info({"source": "dqn-replay"})) == (1450.0, best)
