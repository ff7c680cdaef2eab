"""Algorithms of other people: a file beside the suite, and an installed package."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ALGORITHM = '''
from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Constant:
    """Always the same action."""

    action: int = 0

    def learner(self, dataset, *, seed, device):
        return ConstantLearner(self.action)


class ConstantLearner:
    context = 2
    return_conditioned = True

    def __init__(self, action):
        self.action = action

    def update(self):
        return {"loss": 0.0}

    def act(self, history):
        return torch.full((len(history.mask),), self.action)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
'''

SUITE = """
name: foreign
tasks: [key-to-door-1k, "my_task:mirrored"]
seeds: [0]
evaluation: {episodes: 3, every: 2, targets: [1.0, 0.0]}
contenders:
  Mine: {algorithm: "my_file:Constant", train_steps: 2, hyperparameters: {action: 1}}
  Theirs: {algorithm: theirs, train_steps: 2}
"""

TASK = """
import dataclasses
from dtbench.registry import make_task


def mirrored():
    return dataclasses.replace(make_task("key-to-door-1k"), name="mirrored", description="the same again")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the import path that holds another package with an entry point."""
    folder = tmp_path / "site"
    info = folder / "other_lab-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "other_lab.py").write_text(ALGORITHM)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dtbench.algorithms]\ntheirs = other_lab:Constant\n")
    return folder


def test_a_file_and_a_package_appear_in_scores_and_report(tmp_path: Path, site: Path) -> None:
    (tmp_path / "my_file.py").write_text(ALGORITHM)
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "foreign.yaml").write_text(SUITE)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def dtbench(*arguments: str) -> str:
        command = [sys.executable, "-c", "from dtbench.cli.run import main; main()", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "theirs" in dtbench("list", "algorithms")
    dtbench("run", "--suite", "foreign.yaml", "--local")
    scores = pd.read_csv(tmp_path / "results" / "scores" / "foreign.csv")
    assert set(scores.contender) == {"Mine", "Theirs"}
    assert set(scores.task) == {"key-to-door-1k", "my_task:mirrored"}
    assert scores.action_mode.isna().all()  # without logits there is nothing to choose a mode for
    assert len(scores) == 2 * 2 * 2  # tasks x contenders x targets
    page = Path(dtbench("report").strip()).read_text()
    assert "Mine" in page
    assert "Theirs" in page
