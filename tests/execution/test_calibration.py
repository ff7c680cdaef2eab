import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from dtbench import Evaluator
from dtbench.cli import listings, outcomes, plans, progress
from dtbench.domains.key_to_door.env import KeyToDoorVectorEnv
from dtbench.errors import DtbenchError, InvalidValue
from dtbench.execution import calibration
from dtbench.execution.calibration import (
    Estimate,
    Speed,
    calibrate,
    check_room,
    evaluation_games,
    evaluations,
    measured,
    parallel_trials,
    scaled,
    time_learner,
    trial_seconds,
    wall_seconds,
)
from dtbench.ledger.store import Ledger, write_json
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.registry import make_task
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.suite.schema import Suite
from tests.test_evaluation import Watcher

SUITE = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0, 1, 2],
    "evaluation": {"episodes": 4, "every": 3, "targets": [1.0, 0.0]},
    "contenders": {
        "DT": {"algorithm": "dt", "budget": 7, "hyperparameters": {"width": 8, "layers": 1, "context": 4}},
        "DT longer": {"algorithm": "dt", "budget": 70, "hyperparameters": {"width": 8, "layers": 1, "context": 4}},
        "Random": {"algorithm": "random", "budget": 0, "action_mode": "sample"},
    },
}
BROKEN = (
    "from dataclasses import dataclass\n"
    "@dataclass(frozen=True)\n"
    "class Broken:\n"
    "    def learner(self, dataset, *, seed, device):\n"
    "        raise RuntimeError('no such luck')\n"
)

WALKS = (
    "from dtbench.registry import make_task\n"
    "def walks(steps=0):\n"
    "    assert steps == 10\n"
    "    return make_task('key-to-door-1k')\n"
)


def suite_of(folder: Path, **changes: object) -> Suite:
    (folder / "toy.yaml").write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return load_suite(str(folder / "toy.yaml"))


def spec(budget: int = 7, every: int = 3, sweep: tuple[float, ...] = (), **changes: Any) -> TrialSpec:
    evaluation = EvaluationSpec(episodes=10, every=every, targets=(1.0, 2.0), action_mode="argmax", sweep=sweep)
    made = TrialSpec(
        suite="toy",
        contender="DT",
        task="hopper-medium-v2",
        task_version=1,
        dataset_digest="",
        dataset_source="generated",
        algorithm="dt",
        algorithm_version="1",
        hyperparameters={},
        seed=0,
        budget=budget,
        evaluation=evaluation,
    )
    return dataclasses.replace(made, **changes)


def finish(ledger: Ledger, done: TrialSpec, seconds: float) -> None:
    folder = ledger.begin(done)
    write_json(folder / "provenance.json", {})
    write_json(folder / "result.json", {"action_mode": "", "seconds": seconds})


def at_equal_speed(*_: Any, **__: Any) -> Speed:
    return Speed(update=1.0, game_step=0.0, return_conditioned=True)


def test_a_trial_is_evaluated_every_so_many_steps_and_after_the_last() -> None:
    assert [evaluations(spec(budget=budget)) for budget in (0, 1, 3, 4, 7)] == [1, 1, 1, 2, 3]


def test_the_sweep_asks_for_its_own_targets_once() -> None:
    swept = spec(sweep=(0.0, 1.0, 3.0))  # 1.0 is asked for anyway
    assert evaluation_games(swept, return_conditioned=True) == (3 * 2 + 2) * 10
    assert evaluation_games(swept, return_conditioned=False) == 3 * 10


def test_a_trial_takes_its_updates_and_the_steps_of_its_games() -> None:
    speed = Speed(update=2.0, game_step=0.5, return_conditioned=False)
    assert trial_seconds(spec(budget=7), speed, longest=100) == 7 * 2.0 + 30 * 100 * 0.5


def test_trials_begin_in_turn_on_the_first_free_place() -> None:
    assert wall_seconds([3, 1, 1, 2], 1) == 7
    assert wall_seconds([3, 1, 1, 2], 2) == 4
    assert wall_seconds([3, 1], 9) == 3
    assert wall_seconds([], 2) == 0


def test_trials_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert parallel_trials({"cpu": 1, "gpu": 0}) == 9
    assert parallel_trials({"cpu": 2, "gpu": 0}) == 4
    assert parallel_trials({"cpu": 1, "gpu": 0.25}) == 4
    assert parallel_trials({"cpu": 10, "gpu": 0}) == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert parallel_trials({"cpu": 1, "gpu": 0.25}) == 0


def test_finished_trials_of_a_cell_tell_of_the_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    for seed, seconds in ((0, 10.0), (1, 20.0)):
        finish(ledger, spec(seed=seed), seconds)
    other = spec(seed=2, budget=70)
    assert measured([spec(seed=2), other], ledger) == {spec().cell: Estimate(15.0, "measured")}
    assert scaled([other], ledger) == {other.cell: Estimate(200.0, "scaled")}


def test_learners_that_cost_the_same_are_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "time_learner", at_equal_speed)
    specs = trial_specs(suite_of(tmp_path))
    heard = []
    found = calibrate(specs, lambda done, learners, spec: heard.append((done, learners, spec.contender)))
    assert heard == [(0, 2, "DT"), (1, 2, "Random")]
    seconds = {spec.contender: found.estimates[spec.cell].seconds for spec in specs}
    assert seconds == {"DT": 7, "DT longer": 70, "Random": 0}


def test_a_learner_is_timed_as_its_trial_would_run_and_nothing_is_kept(tmp_path: Path) -> None:
    first = trial_specs(suite_of(tmp_path))[0]
    task = make_task(first.task)
    threads = torch.get_num_threads()
    speed = time_learner(first, task, task.open(), seconds=0.0)
    assert speed.update > 0
    assert speed.game_step > 0
    assert speed.return_conditioned
    assert torch.get_num_threads() == threads
    assert [path.name for path in tmp_path.iterdir()] == ["toy.yaml"]


def test_a_learner_that_fails_leaves_its_cells_unknown(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    specs = trial_specs(suite_of(tmp_path, contenders={"B": {"algorithm": "broken:Broken", "budget": 1}}))
    estimate = calibrate(specs).estimates[specs[0].cell]
    assert (estimate.basis, estimate.reason) == ("unknown", "RuntimeError: no such luck")


def test_each_task_is_timed_with_its_own_options_budget_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "time_learner", at_equal_speed)
    (tmp_path / "my_tasks.py").write_text(WALKS)
    suite = suite_of(
        tmp_path,
        tasks=["key-to-door-1k", "my_tasks:walks"],
        by_task={"my_tasks:*": {"task_options": {"steps": 10}}},
        contenders={"DT": {"algorithm": "dt", "budget": 7, "by_task": {"my_tasks:*": {"budget": 3}}}},
    )
    specs = trial_specs(suite)
    found = calibrate(specs)
    assert {spec.task: found.estimates[spec.cell].seconds for spec in specs} == {
        "key-to-door-1k": 7,
        "my_tasks:walks": 3,
    }


def test_a_mistake_is_raised_and_names_its_contender(tmp_path: Path) -> None:
    specs = trial_specs(suite_of(tmp_path, contenders={"SAC": {"algorithm": "cql", "budget": 1}}))
    with pytest.raises(DtbenchError, match="SAC on key-to-door-1k"):
        calibrate(specs)


def test_a_probe_plays_some_games_for_some_steps() -> None:
    evaluator = Evaluator(KeyToDoorVectorEnv, list(range(8)))
    watcher = Watcher()
    assert evaluator.probe(watcher, games=3, steps=5, seconds=1e9) > 0
    assert [len(history.mask) for history in watcher.seen] == [3] * 5
    hurried = Watcher()
    evaluator.probe(hurried, games=3, steps=5, seconds=0.0)
    assert len(hurried.seen) == 2


def test_a_probe_that_ends_early_changes_no_evaluation() -> None:
    evaluator = Evaluator(KeyToDoorVectorEnv, list(range(8)))
    before = evaluator.evaluate(Watcher())
    evaluator.probe(Watcher(), steps=2)
    after = evaluator.evaluate(Watcher())
    np.testing.assert_array_equal(before.lengths, after.lengths)
    np.testing.assert_array_equal(before.returns, after.returns)


def test_a_plan_says_what_is_measured_estimated_and_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "time_learner", at_equal_speed)
    monkeypatch.setattr(plans, "parallel_trials", lambda _: 2)
    suite = suite_of(tmp_path)
    specs = trial_specs(suite)
    ledger = Ledger(tmp_path / "runs")
    finish(ledger, specs[2], 30.0)  # Random, seed 0
    monkeypatch.setattr(plans, "_disk", lambda specs, ledger: "")

    plans.say_plan(suite, specs, ledger, try_learners=True)
    said = capsys.readouterr().out
    assert "up to 21 s" in said  # DT: three trials of 7 s
    assert "up to 3 min 30 s" in said  # DT longer
    assert "1 min 00 s" in said  # Random: two more of 30 s
    assert "To go: up to 4 min 51 s of trial time." in said
    # Two places take 7 70 | 7 70 30 | 7 70 30 in turn: one has 7 + 7 + 70 + 7 + 70, the other 70 + 30 + 30.
    assert "With Ray on this machine, 2 at a time: up to 2 min 41 s." in said
    assert "an estimate from a calibration of" in said

    plans.say_plan(suite, specs, ledger, try_learners=False)
    said = capsys.readouterr().out
    assert "To go: 1 min 00 s of trial time, and 6 trials of unknown length." in said
    assert "up to" not in said


def test_a_plan_says_where_no_trial_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    suite = suite_of(tmp_path, resources={"cpu": 1, "gpu": 0.25})
    plans.say_plan(suite, trial_specs(suite), Ledger(tmp_path / "runs"), try_learners=False)
    assert "each trial asks for cpu 1 and gpu 0.25" in capsys.readouterr().out


def test_generated_data_in_place_of_real_ones_are_said_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("d4rl", preset="cpu")
    specs = [
        spec(task="hopper-medium-v2"),
        spec(task="hopper-expert-v2", dataset_source="d4rl"),
        spec(task="key-to-door-1k"),
    ]
    plans.say_what_will_run(suite, specs, specs[1:], why="no GPU here")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "d4rl: 3 trials, 1 done, 2 to run"
    assert said[1] == "preset cpu (no GPU here)"
    assert said[2].startswith("task options: physics=d4rl, steps=")
    loud, *plain = said[3:]
    assert loud.startswith("data: GENERATED HERE, not D4RL: hopper-medium-v2 (")
    assert "never compare with published numbers" in loud
    assert plain == ["data: d4rl (hopper-expert-v2)", "data: generated (key-to-door-1k)"]


def test_generated_atari_data_are_said_aloud_too(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("atari", preset="cpu")
    specs = [spec(task="atari:pong"), spec(task="atari:qbert", dataset_source="dqn-replay")]
    plans.say_what_will_run(suite, specs, specs)
    loud, plain = capsys.readouterr().out.splitlines()[-2:]
    assert loud.startswith("data: GENERATED HERE, not DQN-replay: atari:pong (")
    assert plain == "data: dqn-replay (atari:qbert)"


def test_options_of_some_tasks_are_said_after_those_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = suite_of(
        tmp_path,
        tasks=["atari:pong", "hopper-medium-v2", "hopper-expert-v2"],
        task_options={"steps": 100, "seed": 1},
        by_task={"hopper-*": {"task_options": {"physics": "v4"}}, "atari:*": {"task_options": {"steps": 7}}},
    )
    plans.say_what_will_run(suite, [], [])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "task options: seed=1",
        "task options of atari:pong: steps=7",
        "task options of hopper-medium-v2, hopper-expert-v2: steps=100, physics=v4",
    ]


def test_a_default_preset_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    suite = load_suite("d4rl")
    full = "--preset paper for the full protocol"
    assert plans.preset_reason(suite, "d4rl", None) == f"no GPU here; {full}"
    assert plans.preset_reason(suite, "d4rl", "cpu") == ""
    assert plans.preset_reason(load_suite("graph"), "graph", None) == f"the suite's default; {full}"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert plans.preset_reason(load_suite("d4rl"), "d4rl", None) == "a GPU is here"


def test_a_suite_without_a_full_protocol_names_none(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, presets={"tiny": None})
    assert plans.preset_reason(suite, str(tmp_path / "toy.yaml"), None) == "the suite's default"
    assert plans.preset_reason(suite_of(tmp_path), str(tmp_path / "toy.yaml"), None) == ""


class Impatient:
    """A timer that is over as soon as it starts."""

    def __init__(self, seconds: float, act: Any) -> None:
        self.start = act

    def cancel(self) -> None:
        pass


def test_data_that_take_long_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.preparing(moment=1e6) as on_dataset:
        trial_specs(suite_of(tmp_path), on_dataset)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(threading, "Timer", Impatient)
    with progress.preparing() as on_dataset:
        trial_specs(suite_of(tmp_path), on_dataset)
    assert capsys.readouterr().out == "preparing data: key-to-door-1k ...\n"


def test_a_table_of_many_tasks_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    finals = pd.DataFrame({"contender": ["DT", "DT"], "task": ["b", "b"], "score": [10.0, 20.0]})
    outcomes.say_scores(finals, ["DT", "BC"], ["a", "b", "c"], {("DT", "c"): 2})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ b")]
    assert line.split() == ["│", "b", "│", "15.0", "(2)", "│", "not", "run", "│"]


def test_tasks_are_listed_by_domain_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    listings.list_tasks()
    said = capsys.readouterr().out
    assert said.index("d4rl: ") < said.index("data: d4rl, ") < said.index("hopper-medium-v2")
    assert "graph-0" in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_algorithms_are_listed_with_their_presets(capsys: pytest.CaptureFixture[str]) -> None:
    listings.list_algorithms()
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.split()[:2] == ["preset", "paper"]]
    assert any("context=20, " in line for line in lines)  # behaviour cloning's
    assert any("warmup_steps=100000" in line for line in lines)  # Decision Transformer's


def test_a_trial_that_no_processor_here_could_run_is_refused() -> None:
    check_room([spec()])
    with pytest.raises(InvalidValue, match=r"asks for .*100000.*resources\.gpu=0"):
        check_room([spec(resources={"cpu": 100_000.0, "gpu": 0.0})])
