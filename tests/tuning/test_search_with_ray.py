"""Searches with Ray Tune: its ASHA stops samples, and a driver that was killed continues where it was."""

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

from dtbench.suite.planning import load_suite
from dtbench.tuning.driver import Asked, Journal, journal_of, plan_search
from dtbench.tuning.proposals import proposals_of
from dtbench.tuning.ray_tune import _scheduler, _Search
from dtbench.tuning.search import Row, Sample, SearchRecord, read_record
from dtbench.tuning.space import read_space

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
        [*command, "--searcher", "grid", "--asha", "--reduction-factor", "4", "--name", "one", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def begun() -> SearchRecord | None:
    path = Path("results/runs/searches/one/search.json")
    return read_record(path) if path.exists() else None


def ended() -> dict[int, Sample]:
    """The samples that are done or stopped, by number."""
    record = begun()
    return {one.number: one for one in record.samples if one.state in ("done", "stopped")} if record else {}


def ended_before_the_driver_was_killed() -> dict[int, Sample]:
    """Kill a search amid its samples; once more where all ended first, as they may on a busy machine."""
    found: dict[int, Sample] = {}
    for _ in range(5):
        process = start()
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
    output, _ = start().communicate(timeout=500)
    assert f"6 settings, {len(before)} done" in output
    record = read_record(Path("results/searches/one.json"))
    assert record.question.scheduler == "asha"
    assert record.question.rungs == RUNGS
    assert [one.number for one in record.samples] == list(range(6))
    assert {one.hyperparameters["grade"] for one in record.samples} == set(range(6))
    assert {one.state for one in record.samples} <= {"done", "stopped"}
    assert {one.steps for one in record.samples} <= set(RUNGS)
    for number, one in before.items():
        assert record.samples[number] == one
    assert load_suite("results/searches/one.yaml").contenders["F tuned"].train_steps == 1600
    assert not list(Path("results/runs/searches/one").glob(".tune-*"))


@pytest.mark.usefixtures("toy")
def test_a_new_scheduler_is_told_what_earlier_samples_scored_at_their_rungs() -> None:
    """Four samples scored 10, 20, 30, 40 at the first rung: of the next one, 25 is stopped and 35 goes on."""
    asked = Asked("grid", asha=True, reduction_factor=4)
    space = read_space({"grade": {"choices": list(range(6))}}, "here")
    plan = plan_search(load_suite("toy.yaml"), space, asked, Path("results"))
    with journal_of(plan) as journal:
        for number in range(4):
            journal.keep(scored(journal, number, 10.0 * (number + 1)))
        scheduler = _scheduler(plan)
        _Search(plan, journal, proposals_of(plan, journal), print).replay(scheduler)
    for name, score, decision in (("a", 25.0, "STOP"), ("b", 35.0, "CONTINUE")):
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        assert scheduler.on_trial_result(None, trial, {"steps": 100, "score": score}) == decision


def scored(journal: Journal, number: int, score: float) -> Sample:
    row = Row(journal.plan.question.tasks[0], 1000, 100, None, score, 4)
    return Sample(number, {"grade": number}, "stopped", 100, 1.0, (row,))
