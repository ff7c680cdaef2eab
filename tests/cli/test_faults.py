"""What happens to trials when things break: disks, clocks, memory, workers."""

import errno
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from dtbench import trial
from dtbench.errors import LedgerError, LedgerUnwritable
from dtbench.execution import ray_driver, ray_worker
from dtbench.ledger import lock, store
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.trial import run_trial

TOY: dict[str, Any] = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0],
    "evaluation": {"episodes": 3, "every": 4},
    "contenders": {
        "DT": {
            "algorithm": "dt",
            "train_steps": 10,
            "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 3, "batch_size": 4, "dropout": 0.2},
        }
    },
}


def spec(tmp_path: Path, **changes: Any) -> TrialSpec:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**TOY, **changes}))
    return trial_specs(load_suite(str(tmp_path / "toy.yaml")))[0]


def with_algorithm(tmp_path: Path, code: str) -> TrialSpec:
    (tmp_path / "mine.py").write_text(code)
    return spec(tmp_path, contenders={"Mine": {"algorithm": "mine:Mine", "train_steps": 10}})


MINE = """
from dataclasses import dataclass
from baselines.uniform_random import UniformRandomLearner

@dataclass(frozen=True)
class Mine:
    def learner(self, dataset, *, seed, device):
        return Learner(int(dataset.action_space.n))

class Learner(UniformRandomLearner):
    steps = 0
    {extra}
    def update(self):
        self.steps += 1
        {update}
        return {{"loss": 1.0}}
"""


def episodes(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "episodes.parquet")


def undisturbed(tmp_path: Path) -> pd.DataFrame:
    one = spec(tmp_path)
    assert run_trial(one, Ledger(tmp_path / "undisturbed")) == "done"
    return episodes(Ledger(tmp_path / "undisturbed").folder(one))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_costs_nothing_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    one, root = spec(tmp_path), tmp_path / "runs"
    expected = undisturbed(tmp_path)
    writes, real = iter(range(1000)), os.fsync

    def full(descriptor: int) -> None:
        if next(writes) >= 5:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerUnwritable, match=f"{os.strerror(code)}.*repeat the command") as caught:
        run_trial(one, Ledger(root))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    folder = Ledger(root).folder(one)
    assert Ledger(root).state(one) == "interrupted"
    assert list(folder.glob(".*")) == []
    assert run_trial(one, Ledger(root)) == "done"
    pd.testing.assert_frame_equal(episodes(folder), expected)


def test_a_disk_with_no_room_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROOM", 2**62)
    with pytest.raises(LedgerError, match="Free some space, or use --results DIRECTORY"):
        store.check_disk(tmp_path / "results")


def test_clocks_that_jump_change_nothing_but_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = undisturbed(tmp_path)
    jumps = iter(range(10**6))

    class Wild(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Wild":
            year = 1990 if next(jumps) % 2 else 2090
            return cls(year, 1, 1, tzinfo=tz)

    for module in (trial, lock):
        monkeypatch.setattr(module, "datetime", Wild)
    monkeypatch.setattr(time, "time", lambda: -1e9 * next(jumps))
    one = spec(tmp_path)
    assert run_trial(one, Ledger(tmp_path / "runs")) == "done"
    folder = Ledger(tmp_path / "runs").folder(one)
    pd.testing.assert_frame_equal(episodes(folder), expected)
    assert json.loads((folder / "result.json").read_text())["seconds"] >= 0


def test_a_stopped_trial_keeps_its_checkpoint_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    one, root, asked = spec(tmp_path), tmp_path / "runs", iter(range(100))
    expected = undisturbed(tmp_path)
    assert run_trial(one, Ledger(root), should_stop=lambda: next(asked) == 5) == "stopped"
    folder = Ledger(root).folder(one)
    assert Ledger(root).state(one) == "interrupted"
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 6
    assert json.loads((folder / "running.json").read_text())["ended"]
    assert run_trial(one, Ledger(root)) == "done"
    assert not (folder / "running.json").exists()
    pd.testing.assert_frame_equal(episodes(folder), expected)


def test_a_trial_at_work_says_who_and_how_far(tmp_path: Path) -> None:
    one, root, seen = spec(tmp_path), tmp_path / "runs", []

    def look(folder: Path) -> None:
        if (folder / "running.json").exists():
            seen.append(json.loads((folder / "running.json").read_text()))

    assert run_trial(one, Ledger(root), on_saved=look) == "done"
    assert [running["step"] for running in seen] == [4, 8, 10]
    assert all(lock.alive(running) for running in seen)
    assert seen[0]["from_step"] == 0


def test_everything_durable_is_reported_and_the_result_last(tmp_path: Path) -> None:
    one, saved = spec(tmp_path), []
    run_trial(one, Ledger(tmp_path / "runs"), on_saved=lambda folder: saved.append((folder / "result.json").exists()))
    assert saved == [False, False, False, True]


def test_running_out_of_memory_is_a_cause_of_its_own(tmp_path: Path) -> None:
    one = with_algorithm(tmp_path, MINE.format(extra="", update="raise MemoryError('no room')"))
    assert run_trial(one, Ledger(tmp_path / "runs")) == "failed"
    assert Ledger(tmp_path / "runs").failure(one).cause == "out of memory"


def test_a_learner_that_cannot_be_resumed_starts_over(tmp_path: Path) -> None:
    one = with_algorithm(tmp_path, MINE.format(extra="resumable = False", update=""))
    asked, root = iter(range(100)), tmp_path / "runs"
    assert run_trial(one, Ledger(root), should_stop=lambda: next(asked) == 5, checkpoint_seconds=0) == "stopped"
    folder = Ledger(root).folder(one)
    assert Ledger(root).state(one) == "missing"
    (folder / "checkpoint.pt").write_bytes(b"what a kill between two writes of the end may leave")
    assert run_trial(one, Ledger(root)) == "done"
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 10


def test_what_a_killed_process_was_writing_is_removed_by_the_next(tmp_path: Path) -> None:
    one, root = spec(tmp_path), tmp_path / "runs"
    folder = Ledger(root).create(one)
    (folder / ".checkpoint.pt.0123.tmp").write_bytes(b"half")
    run_trial(one, Ledger(root))
    assert list(folder.glob(".*")) == []


WORKER, NODE, MEMORY = ({"cause": cause} for cause in ("worker died", "node lost", "out of memory"))


@pytest.mark.parametrize(
    ("failures", "oom_retry", "verdict"),
    [
        ([], False, "retry"),
        ([WORKER] * 2, False, "retry"),
        ([WORKER] * 3, False, "give up"),
        ([NODE] * 20, False, "retry"),
        ([NODE] * 21, False, "give up"),
        ([MEMORY], False, "retry later"),
        ([MEMORY], True, "retry"),
        ([MEMORY] * 2, True, "retry"),
        ([MEMORY] * 3, True, "give up"),
        ([NODE, WORKER, WORKER, MEMORY], True, "retry"),
        ([{}], False, "retry"),
    ],
)
def test_each_cause_of_a_worker_failure_has_its_own_remedy(failures: list[Any], oom_retry: bool, verdict: str) -> None:
    assert ray_worker.retry_policy(failures, oom_retry=oom_retry) == verdict


def test_causes_are_distinguished_by_rays_error_and_whether_the_node_is_alive() -> None:
    from ray import exceptions

    low = str(exceptions.OutOfMemoryError("Task was killed due to the node running low on memory."))
    assert ray_driver.cause_of(low) == "out of memory"
    assert ray_driver.cause_of("The actor is dead because its node has died. Node Id: 1") == "node lost"
    assert ray_driver.cause_of("RpcError: Socket closed", node_is_alive=False) == "node lost"
    assert ray_driver.cause_of("RpcError: Socket closed") == "worker died"
    assert ray_driver.cause_of(str(exceptions.ActorDiedError())) == "worker died"


def test_worker_failures_are_kept_in_the_trials_folder_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    one, book = spec(tmp_path), Ledger(tmp_path / "runs")
    book.add_worker_failure(one, {"cause": "node lost", "run": "a"})
    path = book.add_worker_failure(one, {"cause": "worker died", "run": "b"})
    assert [failure["cause"] for failure in book.worker_failures(one)] == ["node lost", "worker died"]
    with path.open("a") as file:
        file.write('{"cause": "wor')
    assert len(book.worker_failures(one)) == 2
    assert book.state(one) == "missing"
