from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor

from dtbench import Evaluator, History, IncompatibleTask
from dtbench.domains.graph.env import GraphVectorEnv, random_graph
from dtbench.domains.key_to_door.env import KeyToDoorEnv, KeyToDoorVectorEnv


class Watcher:
    """Plays random actions that depend on what it sees, and remembers every history."""

    def __init__(self, context: int = 1, return_conditioned: bool = False) -> None:
        self.context, self.return_conditioned = context, return_conditioned
        self.seen: list[History] = []

    def update(self) -> Mapping[str, float]:
        return {}

    def act(self, history: History) -> Tensor:
        fields = ("observations", "actions", "returns_to_go", "timesteps", "mask")
        self.seen.append(History(**{name: getattr(history, name).clone() for name in fields}))
        return self.action_logits(history).argmax(dim=-1)

    def action_logits(self, history: History) -> Tensor:
        sums = history.observations[:, -1].flatten(1).float() @ torch.arange(100.0)
        numbers = torch.stack(
            [sums * (k + 1) + history.timesteps[:, -1] * k + history.returns_to_go[:, -1] * k * 7 for k in range(4)],
            dim=1,
        )
        return torch.sin(numbers)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Silent(Watcher):
    """A learner without logits."""

    action_logits = None  # type: ignore[assignment]

    def act(self, history: History) -> Tensor:
        return torch.zeros(len(history.mask), dtype=torch.long)


def key_to_door(episodes: int = 6, **options: Any) -> Evaluator:
    return Evaluator(KeyToDoorVectorEnv, list(range(100, 100 + episodes)), **options)


def test_episodes_times_targets_in_order() -> None:
    table = key_to_door(3).evaluate(Watcher(return_conditioned=True), [1.0, 0.0])
    assert table.targets.tolist() == [1, 1, 1, 0, 0, 0]
    assert table.episodes.tolist() == [0, 1, 2] * 2
    assert table.seeds.tolist() == [100, 101, 102] * 2
    assert (table.lengths > 0).all()


@pytest.mark.parametrize("mode", ["argmax", "sample"])
def test_one_batch_of_many_targets_equals_many_single_runs(mode: Any) -> None:
    targets = [float(t) for t in range(20)]
    together = key_to_door(action_mode=mode).evaluate(Watcher(3, True), targets)
    alone = [key_to_door(action_mode=mode).evaluate(Watcher(3, True), [t]) for t in targets]
    assert together.lengths.tolist() == [n for table in alone for n in table.lengths]
    assert together.returns.tolist() == [r for table in alone for r in table.returns]


def test_batching_changes_nothing() -> None:
    whole = key_to_door(7).evaluate(Watcher(4))
    parts = key_to_door(7, max_batch=2).evaluate(Watcher(4))
    assert whole.lengths.tolist() == parts.lengths.tolist()


def test_a_learner_without_target_returns_plays_once_with_no_target() -> None:
    table = key_to_door(4).evaluate(Watcher(), [1.0, 0.5])
    assert len(table.returns) == 4
    assert np.isnan(table.targets).all()


def test_returns_to_go_are_the_target_less_what_was_earned() -> None:
    graph = random_graph(0)
    learner = Watcher(3, True)
    learner.action_logits = lambda history: torch.zeros(len(history.mask), 20)  # type: ignore[method-assign]
    learner.act = lambda history: (learner.seen.append(history), torch.zeros(len(history.mask)))[1]  # type: ignore
    Evaluator(lambda n: GraphVectorEnv(n, graph=graph), [1]).evaluate(learner, [-5.0])
    latest = [float(history.returns_to_go[0, -1]) for history in learner.seen]
    assert latest[:4] == [-5, -4, -3, -2][: len(latest)]


def test_histories_are_padded_on_the_left_and_the_present_has_no_action_yet() -> None:
    learner = Watcher(context=4)
    key_to_door(2).evaluate(learner)
    first, later = learner.seen[0], learner.seen[10]
    assert first.mask.tolist() == [[False, False, False, True]] * 2
    assert first.observations[:, :3].abs().sum() == 0
    assert later.mask.all()
    assert later.timesteps[0].tolist() == [7, 8, 9, 10]
    for before, after in zip(learner.seen[4:20], learner.seen[5:21], strict=True):
        assert (after.actions[:, -1] == 0).all()
        assert torch.equal(after.observations[:, :-1], before.observations[:, 1:])
        assert torch.equal(after.actions[:, -2], before_actions(before, learner))


def before_actions(history: History, learner: Watcher) -> Tensor:
    return learner.action_logits(history).argmax(dim=-1).float()


def test_sampled_actions_follow_their_probabilities() -> None:
    learner = Watcher()
    logits = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    learner.action_logits = lambda history: logits.expand(len(history.mask), 4)  # type: ignore[method-assign]
    taken: list[np.ndarray] = []

    class Recording(KeyToDoorVectorEnv):
        def step(self, actions: np.ndarray) -> Any:
            taken.append(actions.copy())
            return super().step(actions)

    Evaluator(Recording, list(range(2000)), "sample").evaluate(learner)
    shares = np.bincount(np.concatenate(taken[:20]), minlength=4) / (20 * 2000)
    assert shares == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.01)


def test_training_seeds_sample_differently_and_each_the_same_again() -> None:
    def sampled(seed: int) -> list[np.ndarray]:
        taken: list[np.ndarray] = []

        class Recording(KeyToDoorVectorEnv):
            def step(self, actions: np.ndarray) -> Any:
                taken.append(actions.copy())
                return super().step(actions)

        Evaluator(Recording, list(range(10)), "sample", seed).evaluate(Watcher())
        return taken[:20]

    assert np.array_equal(sampled(0), sampled(0))
    assert not np.array_equal(sampled(0), sampled(1))


def test_sampling_needs_logits_and_says_so_before_playing() -> None:
    with pytest.raises(IncompatibleTask, match="argmax"):
        key_to_door(action_mode="sample").evaluate(Silent())


def test_gymnasiums_own_vector_environment_gives_the_same_returns() -> None:
    def synchronous(games: int) -> VectorEnv:
        return SyncVectorEnv([KeyToDoorEnv for _ in range(games)])

    ours = key_to_door(5).evaluate(Watcher(2))
    theirs = Evaluator(synchronous, list(range(100, 105))).evaluate(Watcher(2))
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    assert ours.returns.tolist() == theirs.returns.tolist()
