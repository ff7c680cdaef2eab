"""The suites of the paper's Atari experiments, and the demo: what they would run, without making their data."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from dtbench.analysis.published import published_tables
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import load_suite, narrow, resolved_document, trial_specs
from dtbench.task import Task

GAMES = ("atari:breakout", "atari:qbert", "atari:pong", "atari:seaquest")
STEPS = 500_000
EPOCHS = 5


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets are names and two returns."""

    def opened(task: Task, source: str) -> SimpleNamespace:
        info = {"source": source}
        return SimpleNamespace(digest=task.name, returns=np.array([0.0, 10.0]), info=info, action_space=None)

    monkeypatch.setattr(Task, "resolve", lambda task, source, fetch=True: "generated")
    monkeypatch.setattr(Task, "open", opened)


def planned(name: str, preset: str) -> dict[tuple[str, str], TrialSpec]:
    """The trials of the first seed by task and contender."""
    suite = load_suite(name, preset=preset)
    return {(spec.task, spec.contender): spec for spec in trial_specs(suite) if spec.seed == suite.seeds[0]}


def updates(batch: int, share: float = 1.0) -> int:
    return math.ceil(EPOCHS * share * STEPS / batch)


@pytest.mark.parametrize("contender", ["DT", "BC"])
def test_the_full_protocol_is_that_of_table_8(contender: str) -> None:
    found = planned("atari", "paper")
    for game in GAMES:
        spec = found[game, contender]
        context, batch = (50, 512) if game == "atari:pong" else (30, 128)
        chosen = spec.hyperparameters
        assert (chosen["context"], chosen["batch_size"]) == (context, batch)
        assert spec.train_steps == updates(batch)
        assert math.ceil(spec.train_steps / spec.evaluation.every) == EPOCHS  # judged after each
        assert (chosen["num_layers"], chosen["num_heads"], chosen["hidden_size"], chosen["dropout"]) == (
            6,
            8,
            128,
            0.1,
        )
        assert (chosen["learning_rate"], chosen["weight_decay"], chosen["grad_clip"]) == (6e-4, 0.1, 1.0)
        assert tuple(chosen["betas"]) == (0.9, 0.95)
        assert tuple(chosen["channels"]) == (32, 64, 64)
        assert chosen["returns"] == ("given" if contender == "DT" else "none")
        assert (spec.evaluation.episodes, spec.evaluation.action_mode) == (10, "sample")
        assert spec.task_options == {"protocol": "official-dt", "steps": STEPS}
    assert load_suite("atari", preset="paper").seeds == [123, 231, 312]


@pytest.mark.parametrize(("preset", "steps"), [("paper", 200 * 250_000 // 4), ("short", 5 * 250_000 // 4)])
def test_td_learners_are_those_of_the_official_one_per_cent_runs(preset: str, steps: int) -> None:
    found = planned("atari", preset)
    for game in GAMES:
        for contender in ("CQL", "QR-DQN", "REM"):
            spec = found[game, contender]
            chosen = spec.hyperparameters
            assert (chosen["batch_size"], chosen["learning_rate"], chosen["discount"]) == (32, 5e-5, 0.99)
            assert chosen["target_every"] == 8000 // 4  # agent steps, of which every fourth learns
            assert chosen.get("quantiles", chosen.get("num_heads")) == 200
            assert spec.evaluation.action_mode == "epsilon_greedy"
            assert spec.train_steps == steps
        assert found[game, "CQL"].hyperparameters["alpha"] == 4.0


@pytest.mark.parametrize("name", ["atari-context-length", "atari-percent-bc"])
@pytest.mark.parametrize("preset", ["paper", "cpu", "smoke"])
def test_what_suites_share_is_one_trial(name: str, preset: str) -> None:
    own, base = planned(name, preset), planned("atari", preset)
    shared = [place for place in own if place in base]
    assert {contender for _, contender in shared} >= {"DT"}
    assert {place: own[place].key for place in shared} == {place: base[place].key for place in shared}


@pytest.mark.parametrize("preset", ["paper", "cpu", "smoke"])
def test_the_ablation_of_context_differs_in_nothing_else(preset: str) -> None:
    found = planned("atari-context-length", preset)
    for game in GAMES:
        alone, whole = found[game, "DT K=1"], found[game, "DT"]
        assert alone.hyperparameters == {**whole.hyperparameters, "context": 1}
        assert whole.hyperparameters["context"] > 1
        assert (alone.train_steps, alone.evaluation) == (whole.train_steps, whole.evaluation)


def test_imitation_of_the_best_x_per_cent_takes_five_epochs_of_what_is_kept() -> None:
    found = planned("atari-percent-bc", "paper")
    for game in GAMES:
        batch = 512 if game == "atari:pong" else 128
        for contender, share in {"BC 10%": 0.1, "BC 25%": 0.25, "BC 40%": 0.4, "BC": 1.0}.items():
            spec = found[game, contender]
            assert spec.hyperparameters["best_fraction"] == share
            assert spec.hyperparameters["returns"] == "none"
            assert spec.train_steps == updates(batch, share)
            assert math.ceil(spec.train_steps / spec.evaluation.every) == EPOCHS


@pytest.mark.parametrize("name", ["atari", "atari-context-length", "atari-percent-bc"])
def test_every_number_of_the_papers_tables_is_found(name: str) -> None:
    suite = load_suite(name, preset="paper")
    tables = published_tables(resolved_document(suite, []))
    found = {place for table in tables for place in table.numbers}
    assert found == {(game, contender) for game in GAMES for contender in suite.contenders}
    assert {table.data for table in tables} == {"dqn-replay"}
    assert all(set(entry["protocol"]) == set(entry["contenders"]) for entry in suite.published)


@pytest.mark.parametrize("name", ["atari", "demo"])
def test_narrowed_suites_have_the_keys_of_the_whole(name: str) -> None:
    suite = load_suite(name, preset="smoke")
    whole = {spec.key for spec in trial_specs(suite)}
    narrowed = trial_specs(narrow(suite, tasks=["atari:pong"], contenders=["DT", "CQL"]))
    assert len(narrowed) == 2
    assert {spec.key for spec in narrowed} <= whole


def test_the_smoke_presets_are_small() -> None:
    for name in ("atari", "atari-context-length", "atari-percent-bc", "demo"):
        for (task, _), spec in planned(name, "smoke").items():
            assert spec.train_steps <= 10
            assert spec.evaluation.episodes == 2
            assert len(spec.evaluation.sweep) == 3
            if task in GAMES:
                assert spec.task_options["steps"] == 5000
                assert spec.task_options["max_frames"] == 1600


UNSEARCHED = "hopper-medium-expert-v2"  # has the settings of Gym's sets on which nobody was searched


def test_the_demo_runs_three_domains_with_the_hyperparameters_of_their_own_suites() -> None:
    found = planned("demo", "cpu")
    assert {spec.algorithm for (task, _), spec in found.items() if task == "atari:pong"} == {
        "dt_atari",
        "quantile_cql",
    }
    for task, suite in (("key-to-door-1k", "key-to-door"), ("atari:pong", "atari")):
        theirs = planned(suite, "cpu")
        for contender in ("DT", "BC"):
            assert found[task, contender].hyperparameters == theirs[task, contender].hyperparameters
    hopper = planned("d4rl", "cpu")
    for contender in ("DT", "BC"):
        mine, theirs_ = found["hopper-medium-replay-v2", contender], hopper[UNSEARCHED, contender]
        schedule = {"decay_steps": mine.train_steps} if contender == "DT" else {}
        assert mine.hyperparameters == {**theirs_.hyperparameters, **schedule}


def test_the_demos_value_learner_differs_in_how_fast_its_values_spread() -> None:
    faster = {
        ("key-to-door-1k", "key-to-door"): {"tau", "learning_rate"},
        ("hopper-medium-replay-v2", "d4rl"): {"tau"},
        ("atari:pong", "atari"): {"target_every", "discount", "learning_rate", "alpha"},
    }
    found = planned("demo", "cpu")
    for (task, suite), names in faster.items():
        theirs = planned(suite, "cpu")[UNSEARCHED if suite == "d4rl" else task, "CQL"].hyperparameters
        mine = found[task, "CQL"].hyperparameters
        assert {name for name in mine if mine[name] != theirs[name]} == names


def test_the_demo_gives_each_task_its_own_options_and_episodes() -> None:
    found = {task: spec for (task, contender), spec in planned("demo", "cpu").items() if contender == "DT"}
    assert found["key-to-door-1k"].task_options == {}
    assert found["hopper-medium-replay-v2"].task_options == {"physics": "d4rl", "steps": 100_000}
    assert found["atari:pong"].task_options["steps"] == 100_000
    episodes = {task: spec.evaluation.episodes for task, spec in found.items()}
    assert episodes == {"key-to-door-1k": 500, "hopper-medium-replay-v2": 10, "atari:pong": 10}
