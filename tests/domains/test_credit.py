import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dtbench import registry
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.decision_transformer import DecisionTransformer
from dtbench.decision_transformer.critic import class_weights
from dtbench.decision_transformer.model import CausalAttention, CausalTransformer, visibility
from dtbench.domains.key_to_door.credit import OUTCOMES, Walks, by_event, inspect_credit, key_steps, side_by_side
from dtbench.domains.key_to_door.data import draw_walks, random_walks
from dtbench.domains.key_to_door.env import HORIZON, KEY, VIEW_RADIUS, KeyToDoorVectorEnv
from dtbench.domains.key_to_door.exact import arrivals, success_probabilities
from dtbench.domains.key_to_door.report import draw_attention, draw_return_predictions
from dtbench.ledger.store import Ledger
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.testing import check_algorithm, toy_dataset
from dtbench.trial import run_trial
from tests.domains.test_key_to_door import exact_random_success
from tests.support.table_inputs import empty_analysis

CPU = torch.device("cpu")
NORTH, SOUTH, WEST, EAST = range(4)
SMALL: dict[str, Any] = {
    "context": None,
    "hidden_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "batch_size": 4,
    "anchor": "inside",
}


def critic_learner(**changes: Any) -> Any:
    algorithm = DecisionTransformer(**SMALL, returns="predicted", balance_returns=True, **changes)
    return algorithm.learner(random_walks(300, seed=1), seed=0, device=CPU)


def test_the_weights_shown_are_those_of_the_fused_attention() -> None:
    torch.manual_seed(0)
    attention = CausalAttention(24, 3, 0.0).eval()
    tokens = torch.randn(4, 10, 24)
    mask, private = torch.ones(4, 10, dtype=torch.bool), torch.arange(10) % 3 == 1
    mask[0, :4] = False
    for visible in (None, visibility(tokens, mask, private)):
        _, _, value = attention._projections(tokens)
        mixed = attention.weights(tokens, visible) @ value
        ours = attention.out(mixed.transpose(1, 2).reshape(tokens.shape))
        assert (ours - attention(tokens, visible)).abs().max() < 1e-5


def test_attention_rows_sum_to_one_and_see_no_future() -> None:
    transformer = CausalTransformer(hidden_size=12, num_layers=2, num_heads=2, dropout=0.0).eval()
    weights = transformer.attention_weights(torch.randn(3, 7, 12))
    assert weights.shape == (2, 3, 2, 7, 7)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 3, 2, 7))
    assert (weights.triu(1) == 0).all()


def test_a_critics_attention_sums_to_one_over_past_steps() -> None:
    learner = critic_learner()
    walks = side_by_side(random_walks(5, seed=2))
    weights = learner.critic().attention(walks.history(np.arange(5)))
    assert weights.shape == (2, 5, 2, HORIZON, HORIZON)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 5, 2, HORIZON))
    assert (weights.triu(1) == 0).all()


def test_no_prediction_depends_on_a_return_token() -> None:
    learner = critic_learner()
    history = side_by_side(random_walks(3, seed=2)).history(np.arange(3))
    network = learner.network.eval()
    inputs = (history.observations, history.actions, history.timesteps, None)
    zeros, ones = (network(torch.full((3, HORIZON), token), *inputs) for token in (0, 1))
    assert torch.equal(zeros[1], ones[1])
    assert not torch.allclose(zeros[0], ones[0])  # actions do depend on it


def test_a_prediction_depends_on_what_came_before_alone() -> None:
    critic = critic_learner().critic()
    walks = side_by_side(random_walks(3, seed=2))
    before = critic.probabilities(walks.history(np.arange(3)))
    walks.observations[:, 20:] = 0
    walks.actions[:, 19:] = 0  # the action of step 19 is chosen after its prediction
    after = critic.probabilities(walks.history(np.arange(3)))
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-6)
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_balanced_draws_are_weighed_back() -> None:
    returns = np.array([0.0] * 90 + [1.0] * 10)
    weights = np.where(returns == 1, 1 / 10, 1 / 90)
    assert class_weights(returns, np.array([0.0, 1.0]), weights) == pytest.approx([0.5 / 0.9, 0.5 / 0.1])
    assert class_weights(returns, np.array([0.0, 1.0]), None).tolist() == [1, 1]


def test_a_critic_that_knows_nothing_says_the_base_rate() -> None:
    learner = critic_learner()
    for parameter in learner.network.return_head.parameters():
        parameter.data.zero_()  # even odds on the balanced batches that it learns from
    learner.average = copy.deepcopy(learner.network.state_dict())
    data = random_walks(300, seed=1)
    probabilities = learner.critic().probabilities(side_by_side(data).history(np.arange(2)))[..., 1]
    assert probabilities.numpy() == pytest.approx(data.returns_to_go.mean(), rel=1e-4)


@pytest.mark.parametrize("discrete", [True, False])
def test_predicting_returns_keeps_the_contract_of_algorithms(discrete: bool) -> None:
    algorithm = DecisionTransformer(hidden_size=8, num_layers=1, context=4, batch_size=4, returns="predicted")
    check_algorithm(algorithm, toy_dataset(discrete_actions=discrete))


def hand_made(*, takes_key: bool, opens: bool) -> Walks:
    """One walk; the key lies north of the player at step 3 and the player goes there or not."""
    observations = np.zeros((1, HORIZON, 5, 5, 4), np.uint8)
    actions = np.full((1, HORIZON), SOUTH)
    observations[0, 3, VIEW_RADIUS - 1, VIEW_RADIUS, KEY] = 1
    actions[0, 3] = NORTH if takes_key else EAST
    length = 40 if opens else HORIZON
    return Walks(observations, actions, np.array([length]), np.array([opens]), key_steps(observations, actions))


@pytest.mark.parametrize(
    ("takes_key", "opens", "outcome"), [(False, False, "no key"), (True, False, "key, no door"), (True, True, "door")]
)
def test_the_three_outcomes_are_distinguished(takes_key: bool, opens: bool, outcome: str) -> None:
    walks = hand_made(takes_key=takes_key, opens=opens)
    assert OUTCOMES[walks.outcomes[0]] == outcome
    assert walks.key_steps[0] == (3 if takes_key else -1)


def test_the_step_that_takes_the_key_is_the_games_own() -> None:
    data = random_walks(400, seed=7)
    walks = side_by_side(data)
    actions, games = draw_walks(400, seed=7)
    env = KeyToDoorVectorEnv(400)
    env.reset(seed=games)
    taken = np.full(400, -1)
    for step in range(15):
        _, _, _, _, info = env.step(actions[:, step])
        taken[(taken < 0) & info["has_key"]] = step
    assert (walks.key_steps == taken).all()
    assert (taken >= 0).sum() > 20


def test_the_exact_probability_is_that_of_the_markov_chain() -> None:
    exact = success_probabilities(6000, seed=3)
    expected = exact_random_success()
    assert exact[:, 0].mean() == pytest.approx(expected, abs=0.002)  # starts and keys are drawn, not enumerated
    walks = side_by_side(random_walks(6000, seed=3))
    in_empty_room = exact[:, 20]
    assert (in_empty_room[walks.key_steps < 0] == 0).all()
    assert in_empty_room[walks.key_steps >= 0].std() == 0
    happened = walks.opened[walks.key_steps >= 0].mean()
    assert in_empty_room.max() == pytest.approx(happened, abs=0.05)


def test_whoever_stands_on_the_goal_has_arrived() -> None:
    chance = arrivals(2, goal=(1, 5), steps=3)
    assert chance[:, 1, 5].tolist() == [1, 1, 1, 1]
    assert chance[:, 2, 5].tolist()[:2] == [0, 0.25]


def test_attention_is_averaged_by_event() -> None:
    walks = hand_made(takes_key=True, opens=True)
    attention = np.zeros((1, 2, HORIZON, HORIZON))
    attention[0, :, 39, 3], attention[0, :, 39, 39], attention[0, :, 39, 10] = 0.5, 0.12, 0.38
    attention[0, :, 15:30, 3], attention[0, 0, 15:30, 4], attention[0, 1, 15:30, 5] = 0.75, 0.25, 0.25
    found = by_event(walks, attention, np.array([0]))
    assert found["last"] == {"key": 0.5, "door": 0.12, "other": 0.01, "uniform": 0.025}
    assert found["layers"] == [found["last"], found["last"]]
    assert found["empty_room"]["key"] == 0.75
    assert found["empty_room"]["other"] == pytest.approx(np.mean(0.25 / np.arange(15, 30)), abs=1e-4)
    assert found["near_key"]["0"] == 0.5


def test_inspecting_touches_no_learner_and_no_random_stream() -> None:
    looked_at, left_alone = critic_learner(), critic_learner()
    for learner in (looked_at, left_alone):
        learner.update()
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002  # the global one
    state = copy.deepcopy(looked_at.state_dict())
    assert inspect_credit(looked_at, random_walks(300, seed=1), walks=400)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002
    for name, value in looked_at.state_dict()["average"].items():
        assert torch.equal(value, state["average"][name])
    ours, theirs = looked_at.update(), left_alone.update()
    assert {name: float(value) for name, value in ours.items()} == {n: float(v) for n, v in theirs.items()}


def test_an_inspection_is_plain_small_json() -> None:
    found = inspect_credit(critic_learner(), random_walks(300, seed=1), walks=400)
    text = json.dumps(found, allow_nan=False, indent=2)
    assert len(text) < 60_000
    assert json.loads(text) == found
    assert [own["outcome"] for own in found["predictions"]] == list(OUTCOMES)
    assert sum(own["episodes"] for own in found["predictions"]) == 400
    assert found["calibration"]["moments"][0]["moment"] == "first step"
    episode = found["episode"]
    assert len(episode["attention"]) == len(episode["predicted"]) == episode["length"]
    assert sum(episode["attention"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("walks", [1, 3])
def test_few_walks_without_a_success_are_no_error(walks: int) -> None:
    found = inspect_credit(critic_learner(), random_walks(300, seed=1), walks=walks)
    json.dumps(found, allow_nan=False)
    assert "episode" not in found


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters"),
    [("discrete_cql", {"hidden_size": 8}), ("random", {}), ("dt", SMALL), ("dt", {**SMALL, "returns": "none"})],
)
def test_who_predicts_no_returns_is_not_inspected(algorithm: str, hyperparameters: dict[str, Any]) -> None:
    data = random_walks(50, seed=1)
    learner = registry.make_algorithm(algorithm, hyperparameters).learner(data, seed=0, device=CPU)
    assert inspect_credit(learner, data) == {}


def test_a_trial_records_what_its_task_saw_in_the_learner(tmp_path: Path) -> None:
    critic = {**SMALL, "returns": "predicted"}
    suite = {
        "name": "toy",
        "tasks": ["key-to-door-1k"],
        "seeds": [0],
        "evaluation": {"episodes": 2, "every": 2, "targets": [1.0]},
        "contenders": {
            "critic": {"algorithm": "dt", "train_steps": 1, "hyperparameters": critic},
            "DT": {"algorithm": "dt", "train_steps": 1, "hyperparameters": SMALL},
        },
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    ledger = Ledger(tmp_path / "runs")
    found = {}
    for spec in trial_specs(load_suite(str(tmp_path / "toy.yaml"))):
        assert run_trial(spec, ledger) == "done"
        assert (ledger.folder(spec) / "inspection.json").exists() == (spec.contender == "critic")
        record = ledger.record(spec)
        assert record is not None
        found[spec.contender] = record.inspection()
    assert found["critic"]["kind"] == "credit"
    assert found["DT"] == {}


def suite() -> SuiteAnalysis:
    return empty_analysis(["DT"])


def test_the_pair_is_drawn_equally_twice_and_explains_itself() -> None:
    found = [inspect_credit(critic_learner(), random_walks(300, seed=1), walks=800)] * 2
    for draw in (draw_return_predictions, draw_attention):
        first, second = (draw(suite(), "key-to-door-1k", found) for _ in range(2))
        assert first is not None
        assert first == second
        assert "2 training seeds" in first.caption
        labels = [label for marks in first.marks for label in marks.labels]
        assert all("nan" not in label for label in labels)
        assert len(labels) > 20


def test_without_an_inspection_nothing_is_drawn() -> None:
    assert draw_return_predictions(suite(), "key-to-door-1k", [{}]) is None
    assert draw_attention(suite(), "key-to-door-1k", []) is None


def test_outcomes_that_never_happened_are_left_out() -> None:
    found = inspect_credit(critic_learner(), random_walks(300, seed=1), walks=12)
    drawn = draw_return_predictions(suite(), "key-to-door-1k", [found])
    assert drawn is not None
    assert draw_attention(suite(), "key-to-door-1k", [{**found, "episode": None}]) is None
