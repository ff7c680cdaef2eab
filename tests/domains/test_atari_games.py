"""Atari as agents see it: two protocols, frames that others agree with, games that do not depend on each other."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv as ALEVectorEnv
from numpy.typing import NDArray

from dtbench.domains.atari.emulator import PROTOCOLS, SCREEN, AtariEmulator, action_count, check_game, protocol_of
from dtbench.domains.atari.env import AtariVectorEnv, frame_of
from dtbench.domains.atari.frames import grey_frames, resize_area, resize_linear
from dtbench.errors import UnknownName

DOPAMINE, OFFICIAL = PROTOCOLS["dopamine"], PROTOCOLS["official-dt"]
FOUR = ("breakout", "qbert", "pong", "seaquest")
# What OpenCV 5.0.0 makes of `random_screens` with INTER_LINEAR.
OPENCV_LINEAR = "8a1ff3a7ef52dc16c82005b6efa1cf7197e39438f1bfe3b6b06bb00b41f4107e"


def random_screens() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (20, *SCREEN)).astype(np.uint8)


def digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def played(env: AtariVectorEnv, *, steps: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Observations and rewards of random play from seeds 5, 6, ..."""
    rng = np.random.default_rng(seed)
    observations, rewards = [env.reset(seed=5)[0]], []
    for _ in range(steps):
        step = env.step(rng.integers(int(env.single_action_space.n), size=env.num_envs))
        observations.append(step[0])
        rewards.append(step[1])
    return np.stack(observations), np.stack(rewards)


def test_linear_interpolation_gives_the_bytes_of_opencv() -> None:
    assert hashlib.sha256(resize_linear(random_screens()).tobytes()).hexdigest() == OPENCV_LINEAR


def test_area_averages_what_each_cell_covers() -> None:
    screens = random_screens()[:2]
    rows = np.repeat(screens, 84 // 42, axis=1)  # 210 x 2 = 420 = 84 x 5
    tall = rows.reshape(2, 84, 5, 160).mean(axis=2)
    wide = np.repeat(tall, 21, axis=2).reshape(2, 84, 84, 40).mean(axis=3)  # 160 x 21 = 84 x 40
    assert np.abs(resize_area(screens) - wide).max() <= 0.5 + 1e-9


def test_an_even_screen_stays_even() -> None:
    screens = np.full((1, *SCREEN), 142, np.uint8)
    assert (resize_area(screens) == 142).all()
    assert (resize_linear(screens) == 142).all()


def test_colour_becomes_the_grey_of_the_emulator() -> None:
    console = AtariEmulator("seaquest", DOPAMINE)
    console.begin(0)
    console.step(1)
    colour = console._ale.getScreenRGB()
    assert (grey_frames(colour[None]) == resize_area(console.screens[1:])).all()


@pytest.mark.parametrize("game", FOUR)
def test_dopamine_shows_the_frames_of_ale_pys_vector_environment(game: str) -> None:
    ours = AtariVectorEnv(game, 2, protocol=replace(DOPAMINE, sticky=0.0))
    theirs = ALEVectorEnv(
        game, 2, num_threads=1, reward_clipping=False, use_fire_reset=False, noop_max=0, repeat_action_probability=0.0
    )
    seen, _ = ours.reset(seed=0)
    expected, _ = theirs.reset(seed=0)
    rng = np.random.default_rng(1)
    for _ in range(60):
        # Equal but for halves: theirs are rounded after sums of floats, ours to even.
        unlike = np.abs(seen.astype(int) - expected)
        assert unlike.max() <= 1
        assert np.mean(unlike > 0) < 1e-4
        actions = rng.integers(action_count(game), size=2)
        seen, rewards, over, *_ = ours.step(actions)
        expected, paid, *_ = theirs.step(actions)
        assert (rewards == paid).all()
        if over.any():
            break
    theirs.close()


@pytest.mark.parametrize(
    ("game", "protocol", "golden"),
    [
        ("breakout", "official-dt", "34456d9919ce0c089e132485d5107211"),
        ("breakout", "dopamine", "ce6e8205385db6869e132485d5107211"),
        ("qbert", "official-dt", "8cd6b8de9f8ad1731ff8078fa14a5200"),
        ("qbert", "dopamine", "2495207b57861d499e132485d5107211"),
        ("pong", "official-dt", "8619b48736175e219e132485d5107211"),
        ("pong", "dopamine", "fab3720f6d4995219e132485d5107211"),
        ("seaquest", "official-dt", "ff321f85246341229e132485d5107211"),
        ("seaquest", "dopamine", "c260a08d6cabb8cf9e132485d5107211"),
    ],
)
def test_golden_frames(game: str, protocol: str, golden: str) -> None:
    observations, rewards = played(AtariVectorEnv(game, 2, protocol=PROTOCOLS[protocol]), steps=40)
    assert digest(observations) + digest(rewards) == golden


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
def test_neither_batch_nor_earlier_games_change_a_game(protocol: object) -> None:
    assert isinstance(protocol, type(DOPAMINE))
    together, _ = played(AtariVectorEnv("pong", 3, protocol=protocol), steps=30)
    env = AtariVectorEnv("pong", 3, protocol=protocol)
    played(env, steps=10, seed=3)
    again, _ = played(env, steps=30)
    assert (together == again).all()
    alone = AtariVectorEnv("pong", 1, protocol=protocol)
    rng = np.random.default_rng(0)
    seen, _ = alone.reset(seed=[6])
    for step in range(30):
        assert (seen[0] == together[step, 1]).all()
        seen = alone.step(rng.integers(6, size=3)[1:2])[0]


def test_actions_stick_by_one_protocol_and_not_by_the_other() -> None:
    for protocol, differs in ((DOPAMINE, True), (replace(OFFICIAL, max_noops=0), False)):
        env = AtariVectorEnv("breakout", 2, protocol=protocol)
        env.reset(seed=[1, 2])
        rng = np.random.default_rng(0)
        for _ in range(60):
            action = int(rng.integers(4))
            seen, _, over, *_ = env.step(np.array([action, action]))
            if over.any():
                break
        assert (seen[0] != seen[1]).any() == differs


def test_no_ops_begin_a_game_by_the_papers_protocol_alone() -> None:
    frames = {int(noops(OFFICIAL, seed)) for seed in range(12)}
    assert len(frames) > 3
    assert max(frames) < 30
    assert {int(noops(DOPAMINE, seed)) for seed in range(3)} == {0}


def noops(protocol: object, seed: int) -> int:
    assert isinstance(protocol, type(DOPAMINE))
    console = AtariEmulator("pong", protocol)
    console.begin(seed)
    return int(console._ale.getEpisodeFrameNumber())


def test_the_larger_of_two_screens_is_seen_after_resizing_or_before() -> None:
    screens = random_screens()[:2]
    assert (frame_of(screens, OFFICIAL) == resize_linear(screens).max(axis=0)).all()
    assert (frame_of(screens, DOPAMINE) == resize_area(screens.max(axis=0)[None])[0]).all()


def test_a_game_begins_with_frames_of_zeros_and_ends_after_so_many_frames() -> None:
    env = AtariVectorEnv("seaquest", 1, max_frames=200)
    seen, _ = env.reset(seed=0)
    assert (seen[0, :3] == 0).all()
    assert seen[0, 3].any()
    steps, truncated = 0, np.zeros(1, bool)
    while not truncated.any():
        _, _, terminated, truncated, _ = env.step(np.zeros(1, int))
        assert not terminated.any()
        steps += 1
    assert 40 <= steps <= 50
    stood, rewards, *_ = env.step(np.ones(1, int))
    assert (rewards == 0).all()
    assert (stood == env.step(np.ones(1, int))[0]).all()


def test_rewards_are_raw() -> None:
    env = AtariVectorEnv("qbert", 4)
    _, rewards = played(env, steps=120)
    assert rewards.max() >= 25


def test_a_mask_begins_some_games_again() -> None:
    env = AtariVectorEnv("pong", 2)
    before, _ = played(env, steps=5)
    after, _ = env.reset(seed=[9, 9], options={"reset_mask": np.array([True, False])})
    assert (after[1] == before[-1, 1]).all()
    assert (after[0, :3] == 0).all()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="dopamine"):
        protocol_of("dopamin")
    with pytest.raises(UnknownName, match="breakout"):
        check_game("breakot")
