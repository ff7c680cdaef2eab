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
from dtbench.errors import UnknownName
from dtbench.evaluation import TargetUnits, action_mode


class Watcher:
    """Plays random actions that depend on what it sees, and remembers every history."""

    def __init__(self, context: int = 1, return_conditioned: bool = False) -> None:
        self.context, self.return_conditioned = context, return_conditioned
        self.seen: list[History] = []

    def update(self) -> Mapping[str, float]:
        return {}

    def act(self, history: History) -> Tensor:
        fields = ("observations", "actions", "returns_to_go", "timesteps", "mask")
        copies = {name: getattr(history, name).clone() for name in fields}
        self.seen.append(History(**copies))
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


class Recorded(KeyToDoorVectorEnv):
    """Keeps the actions of every step, for all games."""

    taken: list[np.ndarray]

    def step(self, actions: np.ndarray) -> Any:
        self.taken.append(actions.copy())
        return super().step(actions)


def recorded(kind: type[Recorded] = Recorded) -> type[Recorded]:
    """The same with a record of its own."""
    return type("Fresh", (kind,), {"taken": []})


def actions_of(learner: Watcher, targets: tuple[float, ...] = (), **options: Any) -> np.ndarray:
    """The actions of nine games, [games, steps]."""
    environment = recorded()
    table = Evaluator(environment, list(range(9)), **options).evaluate(learner, targets)
    steps, batch = int(table.lengths.max()), options.get("max_batch", len(table.lengths))
    assert (table.lengths == steps).all()
    taken = [
        np.stack(environment.taken[i * steps : (i + 1) * steps], 1) for i in range(-(-len(table.lengths) // batch))
    ]
    return np.concatenate(taken)


class Staggered(Recorded):
    """The first game ends after three steps, each further one a step later."""

    def step(self, actions: np.ndarray) -> Any:
        observations, rewards, terminated, _, info = super().step(actions)
        return observations, rewards, terminated, len(self.taken) >= 3 + np.arange(len(actions)), info


class Paying(KeyToDoorVectorEnv):
    """Pays 25 to even games and 0.5 to odd ones at every step."""

    def step(self, actions: np.ndarray) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, np.where(np.arange(len(rewards)) % 2, 0.5, 25.0), *rest


def clipped(rewards: np.ndarray) -> np.ndarray:
    return np.clip(rewards, -1, 1)


def key_to_door(episodes: int = 6, **options: Any) -> Evaluator:
    return Evaluator(KeyToDoorVectorEnv, list(range(100, 100 + episodes)), **options)


def test_episodes_times_targets_in_order() -> None:
    table = key_to_door(3).evaluate(Watcher(return_conditioned=True), [1.0, 0.0])
    assert table.targets.tolist() == [1, 1, 1, 0, 0, 0]
    assert table.episodes.tolist() == [0, 1, 2] * 2
    assert table.seeds.tolist() == [100, 101, 102] * 2
    assert (table.lengths > 0).all()


@pytest.mark.parametrize("mode", ["greedy", "sample"])
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
    with pytest.raises(IncompatibleTask, match="greedy"):
        key_to_door(action_mode="sample").evaluate(Silent())


def test_gymnasiums_own_vector_environment_gives_the_same_returns() -> None:
    def synchronous(games: int) -> VectorEnv:
        return SyncVectorEnv([KeyToDoorEnv for _ in range(games)])

    ours = key_to_door(5).evaluate(Watcher(2))
    theirs = Evaluator(synchronous, list(range(100, 105))).evaluate(Watcher(2))
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    assert ours.returns.tolist() == theirs.returns.tolist()


def test_epsilon_takes_the_likeliest_action_but_for_one_in_a_thousand() -> None:
    learner, environment = Watcher(), recorded()
    logits = torch.tensor([0.0, 3.0, 2.9, 0.0])
    learner.action_logits = lambda history: logits.expand(len(history.mask), 4)  # type: ignore[method-assign]
    Evaluator(environment, list(range(20_000)), "epsilon_greedy", max_batch=20_000).evaluate(learner)
    taken = np.bincount(np.concatenate(environment.taken[:20]), minlength=4)
    assert 1 - taken[1] / taken.sum() == pytest.approx(0.00075, abs=0.0002)  # a quarter of all random ones are it too
    assert (taken > 50).all()  # about 100 of each other one in 400,000


def test_epsilon_depends_on_seed_episode_and_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtbench.evaluation.EPSILON", 0.5)
    asked = (1.0, 0.0)
    whole = actions_of(Watcher(2, True), asked, action_mode="epsilon_greedy")
    assert np.array_equal(whole, actions_of(Watcher(2, True), asked, action_mode="epsilon_greedy", max_batch=6))
    assert np.array_equal(whole[:9], actions_of(Watcher(2, True), asked[:1], action_mode="epsilon_greedy"))
    assert not np.array_equal(whole, actions_of(Watcher(2, True), asked))
    assert not np.array_equal(whole, actions_of(Watcher(2, True), asked, action_mode="epsilon_greedy", action_seed=1))


def test_the_number_that_asks_for_a_random_action_also_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of four actions: below 0.125, 0.25, 0.375 and 0.5 the first, second, third, fourth; from 0.5 the likeliest.
    monkeypatch.setattr("dtbench.evaluation.EPSILON", 0.5)
    numbers = np.array([0.0, 0.12, 0.13, 0.3, 0.49, 0.5, 0.99])

    class Numbers:
        def random(self, count: int) -> np.ndarray:
            return numbers[:count]

    monkeypatch.setattr("dtbench.evaluation.generator", lambda *keys: Numbers())
    learner, environment = Watcher(), recorded()
    logits = torch.tensor([0.0, 0.0, 9.0, 0.0])
    learner.action_logits = lambda history: logits.expand(len(history.mask), 4)  # type: ignore[method-assign]
    Evaluator(environment, list(range(7)), "epsilon_greedy").evaluate(learner)
    assert environment.taken[0].tolist() == [0, 0, 1, 2, 3, 2, 2]


def test_epsilon_needs_logits_and_says_so_before_playing() -> None:
    with pytest.raises(IncompatibleTask, match="no action_logits for action_mode epsilon_greedy: use greedy"):
        key_to_door(action_mode="epsilon_greedy").evaluate(Silent())


def test_an_action_mode_that_is_none_gets_the_nearest() -> None:
    assert action_mode("sample") == "sample"
    with pytest.raises(UnknownName, match="Did you mean 'sample'"):
        action_mode("sampel")


@pytest.mark.parametrize(("lower", "left"), [(True, [9, 9.5]), (False, [-15, 9.5])])
def test_targets_are_used_up_in_their_own_units_or_in_the_environments(lower: bool, left: list[float]) -> None:
    learner = Watcher(1, True)
    units = TargetUnits("clipped rewards", clipped, lower_return_to_go=lower)
    Evaluator(Paying, [1, 2], target_units=units).evaluate(learner, [10.0])
    assert learner.seen[0].returns_to_go[:, -1].tolist() == [10, 10]
    assert learner.seen[1].returns_to_go[:, -1].tolist() == left


@pytest.mark.parametrize("lower", [True, False])
def test_what_was_achieved_is_counted_in_the_targets_units_whatever_lowers_the_target(lower: bool) -> None:
    units = TargetUnits("clipped rewards", clipped, lower_return_to_go=lower)
    table = Evaluator(Paying, list(range(6)), target_units=units, max_batch=4).evaluate(Watcher(1, True), [10.0])
    assert table.achieved is not None
    assert table.achieved.tolist() == [n * share for n, share in zip(table.lengths, [1, 0.5] * 3, strict=True)]
    assert table.returns.tolist() == [n * paid for n, paid in zip(table.lengths, [25, 0.5] * 3, strict=True)]


def test_without_target_units_nothing_is_achieved_but_the_return() -> None:
    assert key_to_door(2).evaluate(Watcher()).achieved is None
