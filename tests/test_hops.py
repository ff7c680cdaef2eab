"""From the command line to the gradient step it is three calls; with Ray, the worker is one more.

Counted are the functions of dtbench on the stack when a learner's `update` runs, from the command `run` on. Frames of
typer, Ray and contextlib are theirs; a context manager and a partial leave no frame.
"""

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from dtbench.cli.run import app

TRACED = """
import json
import pathlib
import sys
from dataclasses import dataclass

from baselines.uniform_random import UniformRandomLearner


@dataclass(frozen=True)
class Traced:
    file: str

    def learner(self, dataset, *, seed, device):
        return TracedLearner(self.file, int(dataset.action_space.n))


class TracedLearner(UniformRandomLearner):
    def __init__(self, file, actions):
        super().__init__(actions)
        self.file = file

    def update(self):
        frame, names = sys._getframe(1), []
        while frame:
            names.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")
            frame = frame.f_back
        pathlib.Path(self.file).write_text(json.dumps(names[::-1]))
        return {"loss": 1.0}
"""


def own(names: list[str]) -> list[str]:
    """The functions of dtbench, from the command or the worker's entry on."""
    return [name.removeprefix("dtbench.") for name in names if name.startswith("dtbench.")]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "traced.py").write_text(TRACED)
    contender = {
        "algorithm": "traced:Traced",
        "train_steps": 1,
        "hyperparameters": {"file": str(tmp_path / "stack.json")},
    }
    suite = {
        "name": "traced",
        "tasks": ["key-to-door-1k"],
        "seeds": [0],
        "evaluation": {"episodes": 1, "every": 1},
        "contenders": {"Traced": contender},
    }
    (tmp_path / "traced.yaml").write_text(yaml.safe_dump(suite))
    return ["run", "--suite", "traced.yaml"]


def test_from_the_command_to_a_gradient_step_it_is_three_calls(arguments: list[str]) -> None:
    assert app([*arguments, "--local"], standalone_mode=False) == 0
    stack = own(json.loads(Path("stack.json").read_text()))
    assert stack == ["cli.run.run", "execution.local.run_local", "trial.run_trial"]
    assert len([*stack, "update"]) - 1 == 3


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_with_ray_the_worker_is_one_call_more(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import tune

    driver: list[str] = []
    fit = tune.Tuner.fit

    def traced_fit(tuner: Any) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame:
            driver.insert(0, f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")
            frame = frame.f_back
        return fit(tuner)

    monkeypatch.setattr(tune.Tuner, "fit", traced_fit)
    assert app(arguments, standalone_mode=False) == 0
    worker = own(json.loads(Path("stack.json").read_text()))
    assert own(driver) == ["cli.run.run", "execution.ray_driver.run_ray"]
    assert worker == ["execution.ray_worker.train", "trial.run_trial"]
    assert len([*own(driver), *worker, "update"]) - 1 == 3 + 1
