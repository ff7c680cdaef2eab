"""Acting with cached keys and values gives what reading the whole window gives."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from baselines.discrete_cql import DiscreteCQL
from dtbench import Evaluator, History, TrajectoryDataset, make_dataset
from dtbench.algorithm import CachingLearner, Learner
from dtbench.decision_transformer import DecisionTransformer, kv_cache
from dtbench.decision_transformer.atari import AtariDecisionTransformer
from dtbench.decision_transformer.kv_cache import KeyValueCache, WindowCache, newest_hidden
from dtbench.decision_transformer.model import CausalTransformer
from dtbench.domains.key_to_door.env import KeyToDoorVectorEnv
from dtbench.errors import InvalidAlgorithm
from dtbench.registry import make_task
from dtbench.testing import check_algorithm, toy_dataset, toy_episodes

CPU = torch.device("cpu")
GAMES, CONTEXT = 9, 6
SMALL: Mapping[str, Any] = {"context": CONTEXT, "hidden_size": 16, "num_layers": 3, "init_std": 0.3, "batch_size": 8}
NEVER = [99] * GAMES


def dataset(*, discrete: bool = False, returns: int = 0) -> TrajectoryDataset:
    """Toy data; with so many distinct returns, of which each episode earns one with its last step."""
    data = toy_dataset(discrete_actions=discrete)
    if not returns:
        return data
    ends = np.asarray(data.offsets[1:]) - 1
    rewards = np.zeros(data.num_steps, np.float32)
    rewards[ends] = np.arange(len(ends)) % returns
    return make_dataset(
        observations=np.asarray(data.observations),
        actions=np.asarray(data.actions),
        rewards=rewards,
        terminals=np.asarray(data.terminals),
        lengths=np.asarray(data.lengths),
        observation_space=data.observation_space,
        action_space=data.action_space,
    )


def learner_of(data: TrajectoryDataset, **changes: Any) -> Any:
    """A learner whose weights are no longer what they were when it began, and whose biases are not zero."""
    algorithm = DecisionTransformer(**{**SMALL, **changes})
    return stirred(algorithm.learner(data, seed=0, device=CPU))


def stirred(learner: Any) -> Any:
    torch.manual_seed(0)
    for value in learner.average.values():
        value += 0.1 * torch.randn_like(value)
    return learner


def histories(data: TrajectoryDataset, *, steps: int, context: int = CONTEXT) -> Iterator[History]:
    return toy_episodes(data, batch=GAMES, context=context, steps=steps)


def differences(learner: Any, data: TrajectoryDataset, *, steps: int, ends: list[int] = NEVER) -> list[float]:
    """By how much the rollout's predictions differ from those of the whole window at most, step by step."""
    rollout = learner.rollout()
    found, expected = [], []
    for step, history in enumerate(histories(data, steps=steps, context=learner.context)):
        rows = torch.tensor([game for game, end in enumerate(ends) if step < end])
        ours, theirs = rollout.action_logits(history, rows), learner.action_logits(history.of(rows))
        assert ours.shape == theirs.shape
        found.append(float((ours - theirs).abs().max()))
        expected.append(theirs)
    assert torch.cat(expected).std(dim=0).min() > 1e-2  # an agreement about nothing would prove nothing
    return found


KINDS: list[dict[str, Any]] = [
    {},
    {"returns": "none"},
    {"returns": "generated"},
    {"returns": "predicted"},
    {"num_heads": 4},
    {"num_heads": 2, "returns": "predicted"},
    {"relative_timesteps": True},
    {"relative_timesteps": True, "returns": "generated"},
    {"activation": "gelu"},
    {"num_layers": 1},
    {"num_layers": 2},
    {"num_layers": 1, "returns": "predicted"},
    {"context": 1},
    {"context": 1, "returns": "predicted"},
    {"context": 2},
]


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: "-".join(map(str, changes.values())) or "default")
@pytest.mark.parametrize("discrete", [True, False])
def test_what_is_kept_changes_nothing(changes: dict[str, Any], discrete: bool) -> None:
    data = dataset(discrete=discrete, returns=4)
    learner = learner_of(data, **changes)
    assert isinstance(learner, CachingLearner)
    assert max(differences(learner, data, steps=4 * CONTEXT)) < 1e-5


@pytest.mark.parametrize("returns", ["given", "predicted"])
@pytest.mark.parametrize("ends", [[3, 5, 9, 9, 14, 15, 16, 30, 30], [30, 6, 6, 6, 6, 6, 6, 6, 8], [1] * 8 + [30]])
def test_games_that_ended_leave_the_others_as_they_are(returns: str, ends: list[int]) -> None:
    data = dataset(returns=4)
    learner = learner_of(data, returns=returns)
    assert max(differences(learner, data, steps=30, ends=ends)) < 1e-5


@pytest.mark.parametrize("discrete", [True, False])
def test_it_chooses_the_actions_that_the_learner_chooses(discrete: bool) -> None:
    data = dataset(discrete=discrete)
    learner = learner_of(data)
    rollout = learner.rollout()
    for history in histories(data, steps=20):
        ours, theirs = rollout.act(history, torch.arange(GAMES)), learner.act(history)
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_rollout_plays_with_the_weights_of_its_beginning() -> None:
    data = dataset()
    learner = learner_of(data)
    rollout, history = learner.rollout(), next(histories(data, steps=1))
    before = learner.act(history)
    learner.update()
    assert not torch.equal(learner.act(history), before)
    torch.testing.assert_close(rollout.act(history, torch.arange(GAMES)), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("returns", ["given", "none"])
def test_the_layout_of_atari_is_read_again_but_only_what_counts(returns: Any) -> None:
    data = dataset(discrete=True)
    algorithm = AtariDecisionTransformer(
        context=CONTEXT, hidden_size=16, num_layers=3, num_heads=4, returns=returns, init_std=0.3
    )
    learner = stirred(algorithm.learner(data, seed=0, device=CPU))
    assert max(differences(learner, data, steps=20, ends=[3, 8, 8, 8, 20, 20, 20, 20, 20])) < 1e-5


@pytest.mark.parametrize("context", [CONTEXT, 40])
def test_conservative_q_learning_with_history_keeps_too_what_nothing_changes(context: int) -> None:
    data = dataset(discrete=True)
    learner = DiscreteCQL(context=context, hidden_size=16, num_layers=2, num_heads=2).learner(data, seed=0, device=CPU)
    for _ in range(30):
        learner.update()
    ends = [3, 8, 8, 8, 20, 20, 20, 20, 20]
    assert max(differences(learner, data, steps=20, ends=ends)) < 1e-5
    assert DiscreteCQL(context=1).learner(data, seed=0, device=CPU).rollout() is None


@pytest.mark.parametrize("mode", ["greedy", "sample"])
@pytest.mark.parametrize("returns", ["given", "none", "predicted"])
def test_key_to_door_is_played_as_by_the_learner_itself(mode: Any, returns: Any) -> None:
    data = make_task("key-to-door-1k", {}).open("generated").select(range(60))
    learner = learner_of(data, context=None, returns=returns, return_scale=1.0, normalize_observations=False)
    assert learner.context == 46
    tables = []
    for player in (learner, Reference(learner)):
        evaluator = Evaluator(KeyToDoorVectorEnv, list(range(40)), action_mode=mode)
        tables.append(evaluator.evaluate(player, [1.0, 0.0]))
    ours, theirs = tables
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    assert ours.returns.tolist() == theirs.returns.tolist()


def test_the_contract_tells_a_rollout_that_forgets_from_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    check_algorithm(DecisionTransformer(**SMALL))
    monkeypatch.setattr(KeyValueCache, "keep", lambda self, rows: None)
    with pytest.raises((InvalidAlgorithm, RuntimeError)):
        check_algorithm(DecisionTransformer(**SMALL))
    monkeypatch.undo()
    monkeypatch.setattr(WindowCache, "append", lambda self, tokens, **_: tokens[:, -1])
    with pytest.raises(InvalidAlgorithm, match="at step 6 of an episode its rollout"):
        check_algorithm(DecisionTransformer(**SMALL))


def test_how_games_are_batched_changes_no_outcome() -> None:
    learner = learner_of(make_task("key-to-door-1k", {}).open("generated").select(range(60)), context=20)
    whole, parts = (
        Evaluator(KeyToDoorVectorEnv, list(range(30)), max_batch=most).evaluate(learner, [1.0, 0.0])
        for most in (2048, 7)
    )
    assert whole.lengths.tolist() == parts.lengths.tolist()
    assert whole.returns.tolist() == parts.returns.tolist()


def test_games_are_taken_in_parts_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "CHUNK_TOKENS", 20)
    data = dataset()
    assert max(differences(learner_of(data), data, steps=20, ends=[3, 8, 8, 8, 20, 20, 20, 20, 20])) < 1e-5


class Reference:
    """The learner without its rollout."""

    def __init__(self, learner: Learner) -> None:
        self.context, self.return_conditioned = learner.context, learner.return_conditioned
        self.act, self.update = learner.act, learner.update
        self.action_logits = learner.action_logits  # type: ignore[attr-defined]
        self.state_dict, self.load_state_dict = learner.state_dict, learner.load_state_dict


def stack(layers: int, heads: int = 2) -> CausalTransformer:
    torch.manual_seed(1)
    made = CausalTransformer(hidden_size=8, num_layers=layers, num_heads=heads, dropout=0.0, init_std=0.5).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_the_newest_token_alone_is_what_the_whole_stack_gives_for_it(layers: int) -> None:
    transformer, tokens = stack(layers), torch.randn(5, 7, 8)
    torch.testing.assert_close(newest_hidden(transformer, tokens), transformer(tokens)[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [KeyValueCache, WindowCache])
@torch.no_grad()
def test_a_private_token_is_seen_by_none_that_follows(kind: Any) -> None:
    transformer, tokens, secret = stack(2), torch.randn(3, 4, 8), torch.randn(3, 1, 8)
    cache = kind(transformer, 5)
    cache.append(torch.cat([tokens[:, :2], secret], dim=1), private=True)
    got = cache.append(tokens[:, 2:])
    torch.testing.assert_close(got, transformer(tokens)[:, -1], atol=1e-5, rtol=0)
