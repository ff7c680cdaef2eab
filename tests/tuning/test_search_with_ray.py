"""Searches with Ray Tune: ASHA stops candidates, optuna proposes them, and a driver that was killed continues."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dtbench.tuning.ray_tune import _scheduler
from dtbench.tuning.search import Candidate, read_record
from tests.support.search_records import config

SUITE: dict[str, Any] = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0],
    "evaluation": {"episodes": 4, "every": 100, "targets": [1.0]},
    "contenders": {"F": {"algorithm": "graded:Graded", "train_steps": 1600}},
}
GRADED = '''
import time
from dataclasses import dataclass
import torch
from baselines.uniform_random import UniformRandomLearner


class Learner(UniformRandomLearner):
    def update(self):
        time.sleep(0.002)
        return {}


@dataclass(frozen=True)
class Graded:
    """Learns nothing, and takes its time."""

    grade: int = 0

    def learner(self, dataset, *, seed, device):
        return Learner(int(dataset.action_space.n))
'''
RUNGS = (100, 400, 1600)
MAIN = "from dtbench.cli.run import main; main()"


@pytest.fixture
def toy(tmp_path: Path) -> None:
    (tmp_path / "graded.py").write_text(GRADED)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    (tmp_path / "space.yaml").write_text("grade: {choices: [0, 1, 2, 3, 4, 5]}\n")


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "tune", "--suite", "toy.yaml", "-c", "F", "--space", "space.yaml"]
    return subprocess.Popen(
        [*command, "--name", "one", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def start_asha() -> subprocess.Popen[str]:
    return start("--searcher", "grid", "--asha", "--reduction-factor", "4")


def ended() -> dict[int, Candidate]:
    """Return the candidates that are done or stopped, by number."""
    path = Path("results/runs/searches/one/search.json")
    found = read_record(path).candidates if path.exists() else ()
    return {one.number: one for one in found if one.state in ("done", "stopped")}


def ended_before_the_driver_was_killed() -> dict[int, Candidate]:
    """Kill a search amid its candidates; once more where all ended first, as they may on a busy machine."""
    found: dict[int, Candidate] = {}
    for _ in range(5):
        process = start_asha()
        deadline = time.monotonic() + 400
        while not ended() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = ended()
        if 0 < len(found) < 6:
            break
        shutil.rmtree("results", ignore_errors=True)
    return found


@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("toy")
def test_a_driver_that_was_killed_continues_and_runs_nothing_again() -> None:
    before = ended_before_the_driver_was_killed()
    assert 0 < len(before) < 6
    time.sleep(3)  # Ray's own processes notice that their driver is gone
    output, _ = start_asha().communicate(timeout=500)
    assert f"6 settings, {len(before)} done" in output
    record = read_record(Path("results/searches/one.json"))
    assert record.config.scheduler == "asha"
    assert record.config.rungs == RUNGS
    assert [one.number for one in record.candidates] == list(range(6))
    assert {one.hyperparameters["grade"] for one in record.candidates} == set(range(6))
    assert {one.state for one in record.candidates} <= {"done", "stopped"}
    assert {one.steps for one in record.candidates} <= set(RUNGS)
    for number, one in before.items():
        assert record.candidates[number] == one
    assert not list(Path("results/runs/searches/one").glob(".tune-*"))


@pytest.mark.ray
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("toy")
def test_optuna_trains_a_setting_once_however_often_it_proposes_it_and_goes_on_from_earlier_scores() -> None:
    pytest.importorskip("optuna")
    Path("space.yaml").write_text("grade: {choices: [0, 1]}\n")
    for samples in ("4", "6"):
        output, _ = start("--searcher", "optuna", "--samples", samples, "F.train_steps=100").communicate(timeout=500)
        assert "best of 2 settings" in output
        record = read_record(Path("results/searches/one.json"))
        assert record.num_samples == int(samples)
        assert [(one.state, one.steps) for one in record.candidates] == [("done", 100)] * 2


def test_of_settings_at_a_rung_asha_stops_all_but_the_best_quarter() -> None:
    """Four candidates scored 10, 20, 30, 40 at the first rung: of the next one, 25 is stopped and 35 goes on."""
    scheduler = _scheduler(config(rungs=RUNGS, reduction_factor=4))
    scheduler.set_search_properties("score", "max")
    scores = {10.0: None, 20.0: None, 30.0: None, 40.0: None, 25.0: "STOP", 35.0: "CONTINUE"}
    for score, decision in scores.items():
        trial = SimpleNamespace(trial_id=str(score))
        scheduler.on_trial_add(None, trial)
        assert scheduler.on_trial_result(None, trial, {"steps": 100, "score": score}) == (decision or "CONTINUE")
