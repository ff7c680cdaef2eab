"""The training of behaviour policies: SAC's runs, and which snapshots are chosen."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.sac import SAC
from dtbench.domains.atari.generation import FEATURES, RamPolicy, policy_files
from dtbench.domains.atari.generation import POLICIES as ATARI_POLICIES
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS
from dtbench.testing import check_algorithm

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "behavior_policies"


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    for name in ("train", "choose", "choose_ppo"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_sac_keeps_the_contract_of_algorithms() -> None:
    check_algorithm(SAC(hidden_size=8, batch_size=4))


def small(robot: str = "hopper") -> Any:
    from train import Training

    return replace(
        Training(robot),
        steps=480,
        environments=4,
        warmup=80,
        width=16,
        actor_width=8,
        batch_size=16,
        snapshot_every=80,
        dense_until=320,
        sparse_every=160,
        evaluate_every=240,
        evaluation_episodes=2,
        checkpoint_every=160,
    )


def test_a_run_that_was_killed_continues_to_the_numbers_of_one_that_was_not(tmp_path: Path) -> None:
    from train import Run

    Run(small(), tmp_path / "whole").train()
    broken = Run(small(), tmp_path / "broken")
    played = broken._play

    def die() -> None:
        if broken.step >= 240:
            raise KeyboardInterrupt
        played()

    broken._play = die
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    Run(small(), tmp_path / "broken").train()
    whole, resumed = (json.loads((tmp_path / name / "curve.json").read_text()) for name in ("whole", "broken"))
    assert [{**row, "seconds": 0} for row in whole] == [{**row, "seconds": 0} for row in resumed]
    assert [row["step"] for row in whole] == [0, 80, 160, 240, 320, 480]
    last = [np.load(tmp_path / name / "snapshots" / "step-00000480.npz") for name in ("whole", "broken")]
    np.testing.assert_array_equal(last[0]["weight_1"], last[1]["weight_1"])
    with pytest.raises(SystemExit, match="other settings"):
        Run(replace(small(), seed=1), tmp_path / "whole").train()


def test_a_replay_is_played_from_warm_up_to_medium(tmp_path: Path) -> None:
    from choose import replay_of
    from train import Run

    Run(small(), tmp_path).train()
    assert replay_of(tmp_path, warmup=80, until=320) == [
        [None, 80],
        ["step-00000080.npz", 80],
        ["step-00000160.npz", 80],
        ["step-00000240.npz", 80],
    ]


@pytest.mark.parametrize("robot", ["hopper", "halfcheetah", "reacher2d"])
def test_games_go_on_exactly_from_their_state(robot: str) -> None:
    games, others = (LocomotionVectorEnv(LOCOMOTION_ENVS[robot], 3, threads=1) for _ in range(2))
    rng = np.random.default_rng(0)
    games.reset(seed=0)
    others.reset(seed=9)
    actions = rng.uniform(-1, 1, (60, 3, LOCOMOTION_ENVS[robot].action_size)).astype(np.float32)
    for action in actions[:30]:
        seen = games.step(action)[0]
    np.testing.assert_array_equal(others.restore(games.state()), seen)
    for action in actions[30:]:
        for mine, theirs in zip(games.step(action)[:4], others.step(action)[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def ram_mlp(seed: int = 0) -> RamPolicy:
    rng = np.random.default_rng(seed)
    sizes = [FEATURES, 8, 6]
    weights = [rng.normal(size=(i, o)).astype(np.float32) for i, o in pairwise(sizes)]
    return RamPolicy(weights, [rng.normal(size=o).astype(np.float32) for o in sizes[1:]])


def test_choosing_spreads_a_games_policies_over_skill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import choose_ppo

    run = tmp_path / "seed0"
    run.mkdir()
    rows = [{"step": step, "return_mean": mean} for step, mean in enumerate([None, *range(30)])]
    (run / "curve.json").write_text(json.dumps(rows))
    for row in rows:
        ram_mlp(seed=row["step"] or 0).save(run / f"step-{row['step']:08d}.npz")
    monkeypatch.setattr(choose_ppo, "measured_returns", lambda game, policy: {"return_mean": 0.0, "return_std": 1.0})
    manifest = choose_ppo.choose_for_game("pong", tmp_path)
    assert len(manifest["policies"]) == 8
    assert len(list(run.glob("*.npz"))) == 8
    assert f"seed0/step-{30:08d}.npz" in manifest["policies"]


def test_choosing_wants_an_episode_that_ended(tmp_path: Path) -> None:
    import choose_ppo

    with pytest.raises(SystemExit, match="Train on"):
        choose_ppo.choose_for_game("pong", tmp_path)


def test_the_measured_return_of_a_game_is_what_its_policy_earns() -> None:
    import choose_ppo

    name = policy_files("pong")[-1]
    manifest = json.loads((ATARI_POLICIES / "pong" / "manifest.json").read_text())
    policy = RamPolicy.load(ATARI_POLICIES / "pong" / name)
    measured, expected = choose_ppo.measured_returns("pong", policy, episodes=1), manifest["measured"][name]
    assert abs(measured["return_mean"] - expected["return_mean"]) < 5 * expected["return_std"] + 1


def test_medium_is_nearest_to_d4rls_returns_before_training_has_mastered(tmp_path: Path) -> None:
    import choose_ppo

    steps = [100, 200, 300, 400]
    rows = [(100, 10.0, 1.0), (200, 1400.0, 380.0), (300, 3500.0, 10.0), (400, 1420.0, 379.0)]
    run = tmp_path / "seed0"
    run.mkdir()
    curve = [{"step": step, "return_mean": mean, "return_std": std} for step, mean, std in rows]
    (run / "curve.json").write_text(json.dumps(curve))
    for step in steps:
        (run / choose_ppo.snapshot_name(step)).touch()
    returns = {choose_ppo.snapshot_name(step): (mean, std) for step, mean, std in rows}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choose_ppo.BehaviorPolicy, "load", lambda path: path.name)
        patched.setattr(choose_ppo, "mean_return", lambda robot, policy, **options: returns[policy])
        manifest = choose_ppo.choose_for_robot(LOCOMOTION_ENVS["hopper"], tmp_path)
    assert manifest["medium"] == "seed0/step-00000200.npz"  # the one of 400 is a lapse
    assert manifest["expert"] == "seed0/step-00000300.npz"
    assert manifest["replay"] == ["seed0/step-00000100.npz", "seed0/step-00000200.npz"]
    assert sorted(path.name for path in run.glob("*.npz")) == [choose_ppo.snapshot_name(step) for step in steps[:3]]
