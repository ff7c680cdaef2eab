import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from dtbench import trial
from dtbench.analysis.results import collect, write_scores
from dtbench.domains.key_to_door.tasks import key_to_door
from dtbench.errors import LedgerError
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.suite.planning import load_suite, resolved_document, trial_specs
from dtbench.trial import read_checkpoint, run_trial

SUITE = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0],
    "evaluation": {"episodes": 4, "every": 3, "targets": [1.0, 0.0]},
    "contenders": {
        "DT": {
            "algorithm": "dt",
            "train_steps": 7,
            "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 4, "batch_size": 4, "ema_decay": 0.9},
        },
        "CQL": {"algorithm": "discrete_cql", "train_steps": 7, "hyperparameters": {"hidden_size": 8}},
        "Random": {"algorithm": "random", "train_steps": 0, "action_mode": "sample"},
    },
}


def specs(folder: Path, **changes: object) -> list[TrialSpec]:
    (folder / "toy.yaml").write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return trial_specs(load_suite(str(folder / "toy.yaml")))


def test_a_trial_records_every_episode_of_every_checkpoint(tmp_path: Path) -> None:
    spec = specs(tmp_path)[0]
    assert run_trial(spec, Ledger(tmp_path / "runs")) == "done"
    record = Ledger(tmp_path / "runs").record(spec)
    assert record is not None
    episodes = record.episodes()
    assert sorted(episodes.step.unique()) == [3, 6, 7]
    assert len(episodes) == 3 * 2 * 4  # checkpoints x targets x episodes
    assert record.metrics().step.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert record.provenance["dataset"]["digest"] == spec.dataset_digest
    assert record.result["parameters"] > 0


def test_a_trial_without_budget_is_evaluated_once_as_it_is(tmp_path: Path) -> None:
    spec = specs(tmp_path)[2]
    assert run_trial(spec, Ledger(tmp_path / "runs")) == "done"
    episodes = Ledger(tmp_path / "runs").record(spec).episodes()  # type: ignore[union-attr]
    assert episodes.step.tolist() == [0] * 4
    assert episodes.target.isna().all()


def test_an_interrupted_trial_equals_an_undisturbed_one(tmp_path: Path) -> None:
    for spec in specs(tmp_path)[:2]:
        run_trial(spec, Ledger(tmp_path / "whole"))
        for last_step in (2, 5, 6):

            def stop(step: int, score: float | None, last_step: int = last_step) -> None:
                if step == last_step:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                run_trial(spec, Ledger(tmp_path / "broken"), on_progress=stop, checkpoint_seconds=0)
            assert Ledger(tmp_path / "broken").state(spec) == "interrupted"
        steps: list[int] = []
        run_trial(spec, Ledger(tmp_path / "broken"), on_progress=lambda step, score, steps=steps: steps.append(step))
        assert steps == [7]
        whole, broken = (Ledger(tmp_path / name).record(spec) for name in ("whole", "broken"))
        pd.testing.assert_frame_equal(whole.episodes(), broken.episodes())  # type: ignore[union-attr]
        pd.testing.assert_frame_equal(whole.metrics(), broken.metrics())  # type: ignore[union-attr]


KILLED = """
import sys, json, pathlib
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.trial import run_trial
ledger = Ledger(pathlib.Path(sys.argv[2]))
spec = TrialSpec.from_json(json.loads(pathlib.Path(sys.argv[1]).read_text()))
run_trial(spec, ledger, on_progress=lambda step, score: print(step, flush=True), checkpoint_seconds=0)
"""


def test_a_process_killed_at_any_moment_loses_no_result(tmp_path: Path) -> None:
    spec = specs(tmp_path, contenders={"DT": SUITE["contenders"]["DT"] | {"train_steps": 40}})[0]  # type: ignore[index]
    run_trial(spec, Ledger(tmp_path / "whole"))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    for delay in (0.0, 0.02, 0.05, 0.11):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "spec.json"), str(tmp_path / "broken")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run_trial(spec, Ledger(tmp_path / "broken"))
    whole, broken = (Ledger(tmp_path / name).record(spec) for name in ("whole", "broken"))
    pd.testing.assert_frame_equal(whole.episodes(), broken.episodes())  # type: ignore[union-attr]


FAILING = """
from dataclasses import dataclass
from baselines.uniform_random import UniformRandomLearner


@dataclass(frozen=True)
class Failing:
    how: str = "crash"

    def learner(self, dataset, *, seed, device):
        return FailingLearner(self.how, int(dataset.action_space.n))


class FailingLearner(UniformRandomLearner):
    def __init__(self, how, actions):
        super().__init__(actions)
        self.how = how

    def update(self):
        if self.how == "crash":
            raise RuntimeError("lost my mind")
        return {"loss": float("nan")}
"""


@pytest.mark.parametrize(
    ("how", "state", "reason"),
    [("crash", "failed", "lost my mind"), ("diverge", "diverged", "loss is not finite at step 1")],
)
def test_a_failure_is_recorded_with_its_reason(tmp_path: Path, how: str, state: str, reason: str) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    contender = {"algorithm": "failing:Failing", "train_steps": 3, "hyperparameters": {"how": how}}
    spec = specs(tmp_path, contenders={"Failing": contender})[0]
    ledger = Ledger(tmp_path / "runs")
    assert run_trial(spec, ledger) == state
    assert ledger.state(spec) == state
    assert reason in (ledger.folder(spec) / "error.txt").read_text()
    assert reason in ledger.failure(spec).message
    assert ledger.record(spec) is None
    assert ledger.should_run(spec) is (state == "failed")
    assert ledger.should_run(spec, retry_failed=True)
    assert run_trial(spec, ledger) == state
    assert ledger.failure(spec).times == 2
    run_trial(spec, ledger)
    assert not ledger.should_run(spec)
    assert not (ledger.folder(spec) / "running.json").exists()


def test_a_checkpoint_that_cannot_be_continued_says_what_to_delete(tmp_path: Path) -> None:
    spec = specs(tmp_path)[0]
    folder = Ledger(tmp_path / "runs").create(spec)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    assert run_trial(spec, Ledger(tmp_path / "runs")) == "failed"
    assert "Delete it to restart the trial" in (folder / "error.txt").read_text()
    (folder / "checkpoint.pt").unlink()
    assert run_trial(spec, Ledger(tmp_path / "runs")) == "done"


def deflated(path: Path) -> None:
    """Compress a checkpoint: torch reads it all the same."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_checkpoint_that_unpacks_to_more_than_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specs(tmp_path)[0]
    ledger = Ledger(tmp_path / "runs")
    path = ledger.create(spec) / "checkpoint.pt"
    torch.save({"learner": torch.zeros(1_000_000)}, path)
    deflated(path)
    assert path.stat().st_size < 10_000
    assert read_checkpoint(path)["learner"].shape == (1_000_000,)
    monkeypatch.setattr(trial, "free_memory", lambda: 1_000_000)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    assert run_trial(spec, ledger) == "failed"
    assert re.search(r"needs 400\d+ bytes of memory, and 1000000 are free", (path.parent / "error.txt").read_text())


def test_the_score_table_has_one_row_a_trial_checkpoint_and_target(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    planned = specs(tmp_path)
    for spec in planned:
        run_trial(spec, ledger)
    document = resolved_document(load_suite(str(tmp_path / "toy.yaml")), planned)
    found = collect(document, ledger)
    assert found.scores.groupby("contender").size().to_dict() == {"DT": 6, "CQL": 3, "Random": 1}
    assert not found.not_run
    write_scores(found.scores, tmp_path / "one.csv")
    write_scores(collect(document, ledger).scores, tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    row = pd.read_csv(tmp_path / "one.csv").query("contender == 'DT' and step == 7 and target == 1").iloc[0]
    episodes = ledger.record(planned[0]).episodes().query("step == 7 and target == 1")  # type: ignore[union-attr]
    assert row.return_mean == episodes["return"].mean()
    assert row.score == 100 * (episodes["return"] > 0).mean()


def test_renaming_a_contender_loses_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    run_trial(specs(tmp_path)[2], ledger)
    renamed = specs(tmp_path, contenders={"Chance": SUITE["contenders"]["Random"]})  # type: ignore[index]
    assert ledger.state(renamed[0]) == "done"
    assert collect(
        resolved_document(load_suite(str(tmp_path / "toy.yaml")), renamed), ledger
    ).scores.contender.tolist() == ["Chance"]


def test_seeds_beyond_the_suites_own_belong_to_its_report(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    contenders = {"Random": SUITE["contenders"]["Random"]}  # type: ignore[index]
    for spec in specs(tmp_path, contenders=contenders, seeds=[0, 1, 2]):
        run_trial(spec, ledger)
    planned = specs(tmp_path, contenders=contenders, seeds=[1, 9])
    found = collect(resolved_document(load_suite(str(tmp_path / "toy.yaml")), planned), ledger)
    assert found.scores.seed.tolist() == [0, 1, 2]
    assert [spec.seed for spec in found.not_run] == [9]


def test_a_damaged_record_is_named_with_its_remedy(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    spec = specs(tmp_path)[2]
    run_trial(spec, ledger)
    (ledger.folder(spec) / "result.json").write_text("{")
    with pytest.raises(LedgerError, match="Delete that trial"):
        ledger.record(spec)


KNOWN = TrialSpec(
    suite="toy",
    contender="DT",
    task="key-to-door-1k",
    task_version=1,
    dataset_digest="0" * 64,
    dataset_source="generated",
    algorithm="dt",
    algorithm_version="1",
    hyperparameters={"hidden_size": 8},
    seed=3,
    train_steps=7,
    evaluation=EvaluationSpec(episodes=4, every=3, targets=(1.0, 0.0), action_mode="greedy"),
)


def test_trials_without_sweep_and_task_options_keep_the_keys_they_had_before_there_were_any() -> None:
    # Made with dtbench/spec.py as it was before both.
    assert KNOWN.key == "fcd7a3ec9a6ba97b"
    assert KNOWN.cell == "798210528965f708"


def test_sweep_and_task_options_decide_a_trials_key_and_source_does_not() -> None:
    swept = dataclasses.replace(KNOWN, evaluation=dataclasses.replace(KNOWN.evaluation, sweep=(0.5,)))
    others = [swept, *(dataclasses.replace(KNOWN, task_options={"physics": name}) for name in ("v4", "v5"))]
    assert len({spec.key for spec in (KNOWN, *others)}) == 4
    assert len({spec.cell for spec in (KNOWN, *others)}) == 4
    assert dataclasses.replace(KNOWN, dataset_source="d4rl").key == KNOWN.key


def test_a_spec_comes_back_from_json_with_its_key() -> None:
    evaluation = dataclasses.replace(KNOWN.evaluation, sweep=(0.0, 0.5))
    spec = dataclasses.replace(KNOWN, evaluation=evaluation, task_options={"physics": "v4", "steps": 1000})
    again = TrialSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.key == spec.key


def test_a_record_of_before_sweep_and_task_options_can_be_read() -> None:
    text = KNOWN.to_json()
    del text["task_options"], text["evaluation"]["sweep"]
    assert TrialSpec.from_json(text) == KNOWN


POINTS = """
import dataclasses
from dtbench.domains.key_to_door.tasks import key_to_door
from dtbench.evaluation import TargetUnits

points = dataclasses.replace(
    key_to_door("key-to-door-1k", size="key-to-door-1k", seed=0),
    name="points",
    target_units=TargetUnits("halves", lambda rewards: rewards / 2),
    targets_of=lambda dataset: (float(dataset.returns.max()) / 2,),
)
"""


def test_a_task_with_target_units_records_what_was_achieved_in_them(tmp_path: Path) -> None:
    (tmp_path / "points.py").write_text(POINTS)
    contenders = {"Random": SUITE["contenders"]["Random"]}  # type: ignore[index]
    evaluation = {"episodes": 400, "every": 3}
    (spec,) = specs(tmp_path, tasks=["points:points"], contenders=contenders, evaluation=evaluation)
    assert run_trial(spec, Ledger(tmp_path / "runs")) == "done"
    record = Ledger(tmp_path / "runs").record(spec)
    assert record is not None
    episodes = record.episodes()
    assert episodes["return"].sum() > 0
    assert (episodes["achieved"] == episodes["return"] / 2).all()
    assert record.provenance["task"]["target_units"] == "halves"


def test_a_task_without_target_units_records_no_more_than_before(tmp_path: Path) -> None:
    spec = specs(tmp_path)[2]
    run_trial(spec, Ledger(tmp_path / "runs"))
    record = Ledger(tmp_path / "runs").record(spec)
    assert record is not None
    assert list(record.episodes().columns) == ["step", "target", "episode", "seed", "return", "length", "score"]
    assert "target_units" not in record.provenance["task"]


def test_targets_may_depend_on_the_data() -> None:
    task = key_to_door("key-to-door-1k", size="key-to-door-1k", seed=0)
    dataset = task.open()
    assert task.targets(dataset) == task.target_returns == (1.0,)
    twice = dataclasses.replace(task, targets_of=lambda data: (2 * float(data.returns.max()),))
    assert twice.targets(dataset) == (2.0,)


def test_an_action_mode_that_is_none_fails_with_the_nearest(tmp_path: Path) -> None:
    spec = specs(tmp_path)[2]
    odd = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, action_mode="epsilon-greedy"))
    assert run_trial(odd, Ledger(tmp_path / "runs")) == "failed"
    assert "Did you mean 'epsilon_greedy'" in (Ledger(tmp_path / "runs").folder(odd) / "error.txt").read_text()


def test_a_trial_can_be_judged_by_epsilon_greedy_actions(tmp_path: Path) -> None:
    spec = specs(tmp_path)[1]
    greedy = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, action_mode="epsilon_greedy"))
    assert greedy.key != spec.key
    assert run_trial(greedy, Ledger(tmp_path / "runs")) == "done"
    record = Ledger(tmp_path / "runs").record(greedy)
    assert record is not None
    assert record.result["action_mode"] == "epsilon_greedy"


def test_the_sweep_is_asked_of_the_last_checkpoint_alone(tmp_path: Path) -> None:
    # From 0 to 1.5 in four: 0.0 and 1.0 are among the targets already and not asked twice.
    evaluation = SUITE["evaluation"] | {"sweep": 4}  # type: ignore[operator]
    spec = specs(tmp_path, evaluation=evaluation)[0]
    assert run_trial(spec, Ledger(tmp_path / "runs")) == "done"
    episodes = Ledger(tmp_path / "runs").record(spec).episodes()  # type: ignore[union-attr]
    asked = {step: sorted(group.target.unique()) for step, group in episodes.groupby("step")}
    assert asked == {3: [0.0, 1.0], 6: [0.0, 1.0], 7: [0.0, 0.5, 1.0, 1.5]}
    assert (episodes.groupby(["step", "target"]).size() == 4).all()


def test_a_sweep_changes_nothing_in_what_is_asked_anyway(tmp_path: Path) -> None:
    recorded = []
    for changes in ({}, {"evaluation": SUITE["evaluation"] | {"sweep": 4}}):  # type: ignore[operator]
        spec = specs(tmp_path, **changes)[0]
        run_trial(spec, Ledger(tmp_path / "runs"))
        recorded.append(Ledger(tmp_path / "runs").record(spec).episodes())  # type: ignore[union-attr]
    plain, swept = recorded
    kept = swept[swept.target.isin([0.0, 1.0])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, plain)


def test_a_learner_that_takes_no_target_is_not_swept(tmp_path: Path) -> None:
    spec = specs(tmp_path, evaluation=SUITE["evaluation"] | {"sweep": 4})[2]  # type: ignore[operator]
    run_trial(spec, Ledger(tmp_path / "runs"))
    assert len(Ledger(tmp_path / "runs").record(spec).episodes()) == 4  # type: ignore[union-attr]
