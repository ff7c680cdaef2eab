import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from dtbench.cli import listings, plans, progress
from dtbench.cli.plans import evaluations
from dtbench.cli.run import app
from dtbench.ledger.store import Ledger, write_json
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec, TrialState
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.suite.schema import Suite

SUITE = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0, 1, 2],
    "evaluation": {"episodes": 4, "every": 3, "targets": [1.0, 0.0]},
    "contenders": {
        "DT": {
            "algorithm": "dt",
            "train_steps": 7,
            "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 4},
        },
        "DT longer": {
            "algorithm": "dt",
            "train_steps": 70,
            "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 4},
        },
        "Random": {"algorithm": "random", "train_steps": 0, "action_mode": "sample"},
    },
}


def suite_of(folder: Path, **changes: object) -> Suite:
    (folder / "toy.yaml").write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return load_suite(str(folder / "toy.yaml"))


def spec(train_steps: int = 7, every: int = 3, sweep: tuple[float, ...] = (), **changes: Any) -> TrialSpec:
    evaluation = EvaluationSpec(episodes=10, every=every, targets=(1.0, 2.0), action_mode="greedy", sweep=sweep)
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
        train_steps=train_steps,
        evaluation=evaluation,
    )
    return dataclasses.replace(made, **changes)


def finish(ledger: Ledger, done: TrialSpec, seconds: float) -> None:
    folder = ledger.create(done)
    write_json(folder / "provenance.json", {})
    write_json(folder / "result.json", {"action_mode": "", "seconds": seconds})


def test_a_trial_is_evaluated_every_so_many_steps_and_after_the_last() -> None:
    assert [evaluations(spec(train_steps=steps)) for steps in (0, 1, 3, 4, 7)] == [1, 1, 1, 2, 3]


def test_a_plan_gives_the_time_of_configurations_that_have_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = suite_of(tmp_path)
    specs = trial_specs(suite)
    ledger = Ledger(tmp_path / "runs")
    finish(ledger, specs[2], 30.0)  # Random, seed 0
    plans.print_plan(suite, specs, [one for one in specs if one is not specs[2]], ledger)
    text = capsys.readouterr().out
    assert "To go: 1 min 00 s of trial time, and 6 trials of unknown length." in text
    assert text.count("1 min 00 s") == 2  # Random's row, and the total


@pytest.mark.parametrize(
    ("archived", "said"),
    [
        ({"dataset_digest": "a" * 64}, False),
        ({"dataset_digest": "b" * 64}, True),
        ({"dataset_digest": "b" * 64, "task_options": {"steps": 1000}}, False),
        ({"dataset_digest": "b" * 64, "dataset_source": "d4rl"}, False),
        ({"dataset_digest": "b" * 64, "task": "hopper-expert-v2"}, False),
        ({}, False),
    ],
    ids=["equal", "other digits", "other options", "another source", "another task", "unknown"],
)
def test_data_with_other_digits_than_the_archives_are_pointed_out(
    archived: dict[str, Any], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    here = spec(dataset_digest="a" * 64, seed=1)
    plans.print_other_data([here, dataclasses.replace(here, seed=2)], [spec(**archived)])
    text = capsys.readouterr().err
    assert (
        "hopper-medium-v2: its generated data here (digest aaaaaaaaaaaa) are not those of results/scores (bbbb" in text
    ) is said
    assert text.count("another kind of processor") == said


def test_steps_of_other_contenders_do_not_estimate_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    slow, fast = spec(train_steps=10), spec(train_steps=10, contender="CQL", algorithm="cql")
    other = dataclasses.replace(fast, seed=1)
    with progress.display([slow, fast, other], Ledger(tmp_path / "runs")) as on_progress:
        for step in (0, 1, 2):
            on_progress(slow, TrialState.RUNNING, step, None)
        assert "left" not in capsys.readouterr().out  # nobody knows how fast CQL is
        for step in (0, 1, 2):
            on_progress(fast, TrialState.RUNNING, step, None)
    assert " left" in capsys.readouterr().out.splitlines()[-1]


def test_finished_trials_estimate_the_time_of_the_rest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    for seed, seconds in ((0, 10.0), (1, 20.0)):
        finish(ledger, spec(seed=seed, train_steps=5), seconds)
    known = progress.finished_seconds([spec(seed=2, train_steps=5), spec(seed=2, train_steps=70)], ledger)
    assert known == {spec(train_steps=5).cell: 3.0}


def test_a_plan_says_where_no_trial_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    suite = suite_of(tmp_path, resources={"cpu": 1, "gpu": 0.25})
    plans.print_plan(suite, trial_specs(suite), trial_specs(suite), Ledger(tmp_path / "runs"))
    assert "each trial needs cpu 1 and gpu 0.25" in capsys.readouterr().out


def test_generated_data_in_place_of_real_ones_are_announced(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("d4rl", preset="cpu")
    specs = [
        spec(task="hopper-medium-v2"),
        spec(task="hopper-expert-v2", dataset_source="d4rl"),
        spec(task="key-to-door-1k"),
    ]
    plans.print_trials(suite, specs, specs[1:], why="no GPU here")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "d4rl: 3 trials, 1 done, 2 to run"
    assert printed[1] == "preset cpu (no GPU here)"
    assert printed[2].startswith("task options: physics=d4rl, steps=")
    loud, *plain = printed[3:]
    assert loud.startswith("data: GENERATED HERE, not D4RL: hopper-medium-v2 (")
    assert "never compare with published numbers" in loud
    assert plain == ["data: d4rl (hopper-expert-v2)", "data: generated (key-to-door-1k)"]


def test_generated_atari_data_are_announced_too(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("atari", preset="cpu")
    specs = [spec(task="atari:pong"), spec(task="atari:qbert", dataset_source="dqn-replay")]
    plans.print_trials(suite, specs, specs)
    loud, plain = capsys.readouterr().out.splitlines()[-2:]
    assert loud.startswith("data: GENERATED HERE, not DQN-replay: atari:pong (")
    assert plain == "data: dqn-replay (atari:qbert)"


def test_options_of_some_tasks_are_printed_after_those_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = suite_of(
        tmp_path,
        tasks=["atari:pong", "hopper-medium-v2", "hopper-expert-v2"],
        task_options={"steps": 100, "seed": 1},
        by_task={"hopper-*": {"task_options": {"physics": "v4"}}, "atari:*": {"task_options": {"steps": 7}}},
    )
    plans.print_trials(suite, [], [])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "task options: seed=1",
        "task options of atari:pong: steps=7",
        "task options of hopper-medium-v2, hopper-expert-v2: steps=100, physics=v4",
    ]


def test_a_default_preset_says_why() -> None:
    suite = load_suite("d4rl")
    full = "the suite's default; --preset paper for the full protocol"
    assert plans.preset_reason(suite, "d4rl", None) == full
    assert plans.preset_reason(suite, "d4rl", "cpu") == ""


def test_a_suite_without_a_full_protocol_names_none(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, presets={"tiny": None})
    assert plans.preset_reason(suite, str(tmp_path / "toy.yaml"), None) == "the suite's default"
    assert plans.preset_reason(suite_of(tmp_path), str(tmp_path / "toy.yaml"), None) == ""


class Impatient:
    """A timer that is over as soon as it starts; every third never is."""

    fired = 0

    def __init__(self, seconds: float, act: Any, given: tuple[Any, ...]) -> None:
        self.act, self.given, self.daemon = act, given, False

    def start(self) -> None:
        Impatient.fired += 1
        if Impatient.fired % 3:
            self.act(*self.given)

    def cancel(self) -> None:
        pass


def test_data_that_take_long_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.preparing(moment=1e6) as on_dataset:
        trial_specs(suite_of(tmp_path), on_dataset)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(threading, "Timer", Impatient)
    clock = iter([0.0, 0.6, 65.0])  # begun, printed, printed again
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.preparing() as on_dataset:
        trial_specs(suite_of(tmp_path), on_dataset)
    first, again = capsys.readouterr().out.splitlines()
    assert first == "preparing data: key-to-door-1k ..."
    assert again == "preparing data: key-to-door-1k ... 1 min 05 s"


def test_a_table_of_many_tasks_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    finals = pd.DataFrame({"contender": ["DT", "DT"], "task": ["b", "b"], "score": [10.0, 20.0]})
    plans.print_scores(finals, ["DT", "BC"], ["a", "b", "c"], {("DT", "c"): 2})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ b")]
    assert line.split() == ["│", "b", "│", "15.0", "(2)", "│", "not", "run", "│"]


def test_tasks_are_listed_by_domain_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    listings.list_tasks()
    printed = capsys.readouterr().out
    assert printed.index("d4rl: ") < printed.index("data: d4rl, ") < printed.index("hopper-medium-v2")
    assert "graph-0" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_algorithms_are_listed_with_their_presets(capsys: pytest.CaptureFixture[str]) -> None:
    listings.list_algorithms()
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.split()[:2] == ["preset", "paper"]]
    assert any("context=20, " in line for line in lines)  # behaviour cloning's
    assert any("warmup_steps=100000" in line for line in lines)  # Decision Transformer's


def test_evaluations_too_few_for_a_verdict_are_said_before_computing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = {"episodes": 4, "every": 7, "targets": [1.0]}
    specs = trial_specs(suite_of(tmp_path, seeds=[0, 1, 2, 3, 4], evaluation=rare))
    plans.print_rarely_evaluated(specs, specs[:1])
    said = " ".join(capsys.readouterr().err.split())
    assert "DT on key-to-door-1k is evaluated less than twice in the last third" in said
    assert "An eval_interval of 3 or less helps." in said
    assert "Random" not in said
    few = trial_specs(suite_of(tmp_path, evaluation=rare))
    plans.print_rarely_evaluated(few, few)
    often = trial_specs(suite_of(tmp_path, seeds=[0, 1, 2, 3, 4]))
    plans.print_rarely_evaluated(often, often)
    assert not capsys.readouterr().err


def test_a_dry_run_generates_nothing_and_says_what_it_cannot_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    arguments = ["run", "-s", "d4rl", "--preset", "smoke", "-t", "hopper-*", "--dry-run", "--local"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert "no data on disk: hopper-medium-v2, hopper-medium-replay-v2" in printed.stderr
    assert "whether TD learners will converge" in printed.stderr
    assert "trials of unknown length" in printed.stdout
    assert not (tmp_path / "data").exists()
    plan = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert plan["without_data"][:1] == ["hopper-medium-v2"]
    assert plan["to_run"] == plan["trials"] > 0


def test_trials_without_data_supersede_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = spec(dataset_digest="a" * 64)
    plans.print_changes({"trials": [ran.to_json()]}, [spec()])
    assert not capsys.readouterr().err
    plans.print_changes({"trials": [ran.to_json()]}, [spec(dataset_digest="b" * 64)])
    assert "another configuration than before: DT" in capsys.readouterr().err
