from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtbench.data.randomness import generator
from dtbench.domains.d4rl import generation
from dtbench.domains.d4rl.env_specs import KINDS, LOCOMOTION_ENVS
from dtbench.domains.d4rl.generation import BehaviorPolicy, Share, mean_return, record
from dtbench.errors import InvalidDataset, InvalidValue

SHIPPED = sorted((path.parent.parent.name, path.parent.name) for path in generation.POLICIES.glob("*/*/manifest.json"))
UNIFORM = [Share(None)]
MEDIUM_RETURNS = {"hopper": 1422.0, "halfcheetah": 4770.0, "walker2d": 2852.0}  # means of D4RL's medium-v2 files


def manifest(recipe: str, robot: str) -> dict[str, Any]:
    return generation.manifest_of(LOCOMOTION_ENVS[robot], recipe)


def random_policy(robot: str = "hopper", *, squash: bool = True, seed: int = 0) -> BehaviorPolicy:
    """A small policy with random weights: squashed like SAC's, or clipped like PPO's."""
    rng = np.random.default_rng(seed)
    inputs, actions = LOCOMOTION_ENVS[robot].observation_size, LOCOMOTION_ENVS[robot].action_size
    outputs = 2 * actions if squash else actions
    return BehaviorPolicy(
        mean=rng.normal(size=inputs).astype(np.float32),
        scale=rng.uniform(1, 2, inputs).astype(np.float32),
        weights=[rng.normal(size=shape).astype(np.float32) for shape in ((inputs, 8), (8, outputs))],
        biases=[rng.normal(size=size).astype(np.float32) for size in (8, outputs)],
        activation="relu" if squash else "tanh",
        squash=squash,
        log_std=None if squash else np.full(actions, -0.5, np.float32),
    )


def test_equal_arguments_give_equal_data_and_other_seeds_other_data() -> None:
    policies = [random_policy("reacher2d"), None]
    digests = [
        record(LOCOMOTION_ENVS["reacher2d"], [Share(policy) for policy in policies], steps=200, seed=seed).digest
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_other_physics_give_other_data() -> None:
    digests = {
        record(LOCOMOTION_ENVS["reacher2d"], UNIFORM, steps=100, seed=0, physics=name).digest
        for name in ("d4rl", "v4")
    }
    assert len(digests) == 2


def test_whole_episodes_fill_about_the_requested_steps() -> None:
    made = record(LOCOMOTION_ENVS["hopper"], UNIFORM, steps=1200, seed=0)
    assert 1200 - 200 < made.num_steps <= 1200  # no random hop lasts 200 steps
    assert made.terminals.sum() == made.num_episodes
    assert made.info["asked_steps"] == 1200


def test_a_kept_tail_fills_the_steps_to_the_last() -> None:
    made = record(LOCOMOTION_ENVS["hopper"], [*UNIFORM, *UNIFORM], steps=1000, seed=0, cut_last=True)
    assert made.num_steps == 1000
    ends = np.cumsum(made.lengths)
    assert 500 in ends  # each policy has its half
    cut = np.flatnonzero(~made.terminals[ends - 1])
    assert set(ends[cut]) <= {500, 1000}
    whole = record(LOCOMOTION_ENVS["hopper"], UNIFORM, steps=1000, seed=0)
    assert np.asarray(whole.terminals)[np.cumsum(whole.lengths) - 1].all()  # no tail was cut off and kept
    with pytest.raises(InvalidValue, match="for each of 2"):
        record(LOCOMOTION_ENVS["hopper"], [*UNIFORM, *UNIFORM], steps=1000, seed=0)


def test_an_episode_is_one_game_from_its_first_step_to_its_last() -> None:
    # Played again by its recorded actions, in an environment of its own, each game gives the same numbers.
    robot = LOCOMOTION_ENVS["hopper"]
    made = record(robot, UNIFORM, steps=1000, seed=3)
    env = robot.make("d4rl")
    seeds = generator(3, 13, 0).integers(2**31, size=1)  # the first game's; later rounds draw after the actions
    for episode, (begin, end) in enumerate(pairwise(made.offsets)):
        start = made.observations[begin]
        # Hopper begins within 0.005 of standing upright at rest: height 1.25, all else 0.
        np.testing.assert_allclose(start, [1.25, *[0] * 10], atol=0.00501)
        assert (np.abs(made.observations[begin + 1 : end] - start).max(axis=1) > 0.00501).all()
        if episode == 0:
            seen, _ = env.reset(seed=int(seeds[0]))
            for step in range(begin, end):
                np.testing.assert_array_equal(made.observations[step], seen.astype(np.float32))
                seen, reward, terminated, *_ = env.step(made.actions[step])
                assert made.rewards[step] == np.float32(reward)
                assert made.terminals[step] == terminated


def test_a_game_that_never_ends_is_cut_off_at_its_horizon() -> None:
    made = record(LOCOMOTION_ENVS["reacher2d"], [*UNIFORM, *UNIFORM], steps=1000, seed=0)
    assert made.lengths.tolist() == [100] * 10
    assert not made.terminals.any()


def test_a_replay_has_each_policy_for_an_equal_share_in_turn() -> None:
    still = [random_policy("reacher2d", seed=seed) for seed in (1, 2)]
    made = record(LOCOMOTION_ENVS["reacher2d"], [Share(policy) for policy in still], steps=2000, seed=0)
    for policy, part in zip(still, (slice(0, 1000), slice(1000, 2000)), strict=True):
        centre = policy.act(made.observations[part], np.zeros((1000, 2), np.float32))
        noise = policy.act(made.observations[part], np.ones((1000, 2), np.float32)) - centre
        # Within five standard deviations of this policy, before the tanh.
        drawn, middle, one = (np.arctanh(a.clip(-0.999, 0.999)) for a in (made.actions[part], centre, centre + noise))
        inside = (np.abs(made.actions[part]) < 0.999) & (np.abs(centre) < 0.999) & (np.abs(centre + noise) < 0.999)
        assert inside.sum() > 50
        assert (np.abs(drawn - middle)[inside] <= 5 * (one - middle)[inside] + 1e-3).all()


def test_fewer_steps_than_an_episode_are_refused() -> None:
    with pytest.raises(InvalidValue, match="1000 steps must fit for each of 1"):
        record(LOCOMOTION_ENVS["hopper"], UNIFORM, steps=999, seed=0)


def test_a_policy_acts_as_worked_by_hand() -> None:
    # (3 - 1) / 2 = 1; relu of [1, -1] is [1, 0]; the mean is 1 x 0.5 + 0.25 and log std 1 x 0 + 0.
    policy = BehaviorPolicy(
        mean=np.float32([1]),
        scale=np.float32([2]),
        weights=[np.float32([[1, -1]]), np.float32([[0.5, 0], [9, 9]])],
        biases=[np.zeros(2, np.float32), np.float32([0.25, 0])],
        activation="relu",
        squash=True,
        log_std=None,
    )
    noise = np.float32([[0], [0.5]])
    np.testing.assert_allclose(policy.act(np.float32([[3], [3]]), noise), np.tanh([[0.75], [1.25]]), rtol=1e-6)


def test_a_policy_that_clips_has_one_spread_for_all_observations() -> None:
    # tanh(1) x 0.5 = 0.38; with noise 2 x exp(log 0.5) = 1 more: clipped to 1.
    policy = BehaviorPolicy(
        mean=np.float32([0]),
        scale=np.float32([1]),
        weights=[np.float32([[1]]), np.float32([[0.5]])],
        biases=[np.zeros(1, np.float32), np.zeros(1, np.float32)],
        activation="tanh",
        squash=False,
        log_std=np.log(np.float32([0.5])),
    )
    acted = policy.act(np.float32([[1], [1], [1]]), np.float32([[0], [1], [2]]))
    np.testing.assert_allclose(acted, [[0.380797], [0.880797], [1]], rtol=1e-5)


@pytest.mark.parametrize("squash", [True, False])
def test_a_policy_comes_back_from_its_file_in_half_precision(tmp_path: Path, squash: bool) -> None:
    policy = random_policy(squash=squash)
    policy.save(tmp_path / "deep" / "policy.npz")
    loaded = BehaviorPolicy.load(tmp_path / "deep" / "policy.npz")
    assert (loaded.activation, loaded.squash) == (policy.activation, policy.squash)
    for mine, read in zip([*policy.weights, *policy.biases], [*loaded.weights, *loaded.biases], strict=True):
        np.testing.assert_array_equal(read, mine.astype(np.float16).astype(np.float32))
    for name in ("mean", "scale", "log_std"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(policy, name))
    loaded.save(tmp_path / "again.npz")
    again = BehaviorPolicy.load(tmp_path / "again.npz")
    rng = np.random.default_rng(0)
    seen, noise = rng.normal(size=(5, 11)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.act(seen, noise), loaded.act(seen, noise))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short", None])
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "policy.npz"
    if content is None:
        np.savez(path, mean=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"policy\.npz is not a behaviour policy"):
        BehaviorPolicy.load(path)


def test_a_policy_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"none\.npz"):
        BehaviorPolicy.load(tmp_path / "none.npz")


def test_every_robot_has_its_behaviour_policies() -> None:
    assert {("ppo", robot) for robot in LOCOMOTION_ENVS} <= set(SHIPPED)
    assert {("sac", robot) for robot in MEDIUM_RETURNS} <= set(SHIPPED)


@pytest.mark.parametrize(("recipe", "robot"), SHIPPED)
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_can_be_made(recipe: str, robot: str, kind: str) -> None:
    body, steps = LOCOMOTION_ENVS[robot], 2 * LOCOMOTION_ENVS[robot].horizon
    made = generation.make_generated(generation.Recording(body, kind, steps), recipe=recipe)
    assert (made.info["kind"], made.info["recipe"]) == (kind, recipe)
    assert made.info["policies"] == [name or "uniform" for name, _ in generation.policy_shares(body, kind, recipe)]
    assert made.lengths.max() <= body.horizon
    assert 0 < made.num_steps <= steps
    assert made.actions.dtype == made.observations.dtype == made.rewards.dtype == np.float32
    assert np.abs(made.actions).max() <= 1
    assert made.actions.std(axis=0).min() > 0.05
    assert made.final_observations is not None
    if kind == "medium-replay":
        assert made.num_steps == steps


@pytest.mark.parametrize(("recipe", "robot"), SHIPPED)
def test_policies_stand_in_order(recipe: str, robot: str) -> None:
    body, files = LOCOMOTION_ENVS[robot], manifest(recipe, robot)
    played = record(body, UNIFORM, steps=2 * body.horizon, seed=0)
    (medium, _), (expert, _) = files["medium_return"], files["expert_return"]
    assert played.returns.mean() < 0.5 * medium < 0.5 * expert
    names = [name for name, _ in generation.policy_shares(body, "medium-replay", recipe)]
    assert names[1:] == sorted(names[1:])  # along training


@pytest.mark.parametrize(("recipe", "robot"), [one for one in SHIPPED if one[1] in MEDIUM_RETURNS])
def test_the_medium_policy_returns_what_d4rls_did_within_15_per_cent(recipe: str, robot: str) -> None:
    # 15 % is for the policy; three standard errors more are for having played only 24 games.
    files = manifest(recipe, robot)
    policy = BehaviorPolicy.load(generation.POLICIES / recipe / robot / files["medium"])
    mean, spread = mean_return(LOCOMOTION_ENVS[robot], policy, episodes=24, seed=5)
    known = MEDIUM_RETURNS[robot]
    assert abs(mean - known) < 0.15 * known + 3 * spread / np.sqrt(24)
    measured, _ = files["medium_return"]
    assert abs(measured - known) < 0.15 * known  # of 100 games
    assert abs(mean - measured) < 4 * spread / np.sqrt(24)


@pytest.mark.parametrize("robot", sorted(MEDIUM_RETURNS))
def test_a_sac_replay_is_what_a_buffer_holds(robot: str) -> None:
    shares = generation.policy_shares(LOCOMOTION_ENVS[robot], "medium-replay", "sac")
    assert shares[0] == (None, 10_000)  # the uniform warm-up
    steps = [int(name.removeprefix("step-").removesuffix(".npz")) for name, _ in shares[1:] if name]
    medium = int(manifest("sac", robot)["medium"].removeprefix("step-").removesuffix(".npz"))
    assert steps[0] == 10_000
    # Each plays for as long as training took from it to the next.
    assert [later - step for step, later in zip(steps, [*steps[1:], medium], strict=True)] == [
        w for _, w in shares[1:]
    ]
    size = sum(path.stat().st_size for path in (generation.POLICIES / "sac" / robot).glob("*"))
    assert size < 4_500_000


def test_steps_are_shared_in_proportion_to_weights() -> None:
    policies = [random_policy("reacher2d", seed=seed) for seed in (1, 2)]
    made = record(LOCOMOTION_ENVS["reacher2d"], [Share(policies[0], 3.0), Share(policies[1], 1.0)], steps=2000, seed=0)
    both = record(LOCOMOTION_ENVS["reacher2d"], [Share(policies[0], 6.0), Share(policies[1], 2.0)], steps=2000, seed=0)
    assert made.digest == both.digest
    alone = record(LOCOMOTION_ENVS["reacher2d"], [Share(policies[0])], steps=1500, seed=0)
    np.testing.assert_array_equal(made.actions[:1500], alone.actions)


def test_what_follows_the_last_step_of_an_episode_is_recorded() -> None:
    robot = LOCOMOTION_ENVS["hopper"]
    made = record(robot, UNIFORM, steps=1000, seed=3, cut_last=True)
    assert made.final_observations is not None
    env = robot.make("d4rl")
    for episode in (0, made.num_episodes - 1):  # one that fell, one that was cut off
        begin, end = made.offsets[episode : episode + 2]
        seen = made.observations[end - 1].astype(np.float64)
        env.reset(seed=0)
        env.set_state(np.concatenate([[0.0], seen[:5]]), seen[5:])
        followed = env.step(made.actions[end - 1].astype(np.float64))[0]
        np.testing.assert_allclose(made.final_observations[episode], followed, atol=1e-4)
        assert end - begin > 1


def test_a_policy_in_one_byte_a_weight_is_within_half_a_level(tmp_path: Path) -> None:
    policy = random_policy()
    policy.save(tmp_path / "a.npz", bytes_per_weight=1)
    read = BehaviorPolicy.load(tmp_path / "a.npz")
    read.save(tmp_path / "again.npz", bytes_per_weight=1)
    for once, twice in zip(read.weights, BehaviorPolicy.load(tmp_path / "again.npz").weights, strict=True):
        np.testing.assert_allclose(once, twice, rtol=1e-6)
    for weight, there in zip(policy.weights, read.weights, strict=True):
        assert np.abs(weight - there).max() <= np.abs(weight).max() / 127 / 2 + 1e-6
    assert read.clip == 10.0
