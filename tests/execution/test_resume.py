"""A trial that was cut anywhere and continued equals an undisturbed one, bit for bit."""

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dtbench import DtbenchError, IncompatibleTask, registry, trial
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.trial import run_trial
from tests.support.toy_tasks import NoisyGames

ROOT = Path(__file__).parents[2]
BUDGET, EVERY, LOG_POINTS = 13, 5, 5  # evaluated at 5, 10 and 13; logged at 3, 6, 9, 12 and 13
WALKS, ROBOT, CHOICES, FRAMES = (
    "key-to-door-1k",
    *(f"tests.support.toy_tasks:{n}" for n in ["robot", "choices", "frames"]),
)
TOYS = (ROBOT, CHOICES, FRAMES)
# What makes any learner small that has a hyperparameter of that name.
SMALL = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "hidden": 8,
    "context": 3,
    "channels": (4, 4, 4),
    "quantiles": 3,
    "sampled_actions": 2,
    "target_every": 3,
    "batch_size": 8,
    "warmup_steps": 4,
}


@dataclass(frozen=True)
class Case:
    task: str
    algorithm: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = "-".join(f"{name}={value}" for name, value in self.hyperparameters.items())
        return "-".join(filter(None, (self.algorithm, self.task.rpartition(":")[2], values)))

    @property
    def spec(self) -> TrialSpec:
        known = {own.name for own in fields(registry.algorithm_class(self.algorithm))}  # type: ignore[arg-type]
        small = {name: value for name, value in SMALL.items() if name in known}
        dataset = registry.make_task(self.task).open()
        return TrialSpec(
            suite="resume",
            contender=str(self),
            task=self.task,
            task_version=1,
            dataset_digest=dataset.digest,
            dataset_source=str(dataset.info["source"]),
            algorithm=self.algorithm,
            algorithm_version="1",
            hyperparameters={**small, **self.hyperparameters},
            seed=3,
            train_steps=BUDGET,
            evaluation=EvaluationSpec(episodes=2, every=EVERY, targets=(1.0,), action_mode="greedy"),
        )


NAMED = [
    Case(WALKS, "dt", {"balance_returns": True}),
    Case(WALKS, "dt", {"returns": "none", "context": None}),
    Case(WALKS, "dt", {"returns": "predicted", "ema_decay": 0.9}),
    Case(CHOICES, "dt", {"returns": "generated", "cut_off_return": -99.0, "relative_timesteps": True}),
    Case(ROBOT, "dt", {"decay_steps": 20}),
    Case(ROBOT, "dt", {"returns": "none", "anchor": "inside"}),
    Case(FRAMES, "dt_atari"),
    Case(FRAMES, "dt_atari", {"returns": "none", "standardize_images": True}),
    Case(ROBOT, "cql"),
    Case(ROBOT, "cql", {"backup": "soft", "cloning_steps": 6}),
    Case(WALKS, "discrete_cql", {"context": 1}),
    Case(WALKS, "discrete_cql", {"context": None, "dropout": 0.1, "decay_steps": 20}),
    Case(FRAMES, "discrete_cql"),
    Case(ROBOT, "iql"),
    Case(ROBOT, "iql", {"deterministic": True, "decay_steps": 20, "normalize_rewards": True}),
    Case(ROBOT, "td3_bc", {"policy_every": 3}),
    Case(ROBOT, "rebrac", {"policy_every": 3, "ema_decay": 0.9}),
    Case(ROBOT, "bc"),
    Case(WALKS, "bc", {"context": 1, "best_fraction": 0.5}),
    Case(FRAMES, "qr_dqn"),
    Case(FRAMES, "quantile_cql"),
    Case(FRAMES, "rem"),
]


class Clock:
    """In place of the module `time`: a second passes with every step of a trial."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


class Bench:
    """Runs trials that are interrupted at given steps."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(trial, "LOG_POINTS", LOG_POINTS)
        monkeypatch.setattr(trial, "time", Clock())

    def ledger(self, name: str) -> Ledger:
        return Ledger(self.folder / name)

    def run(self, spec: TrialSpec, name: str) -> list[int]:
        """To the end, in a process whose own random streams are anywhere; give the steps that were taken."""
        disturb_global_streams()
        taken: list[int] = []
        ended = run_trial(spec, self.ledger(name), on_progress=lambda step, score: taken.append(step))
        assert ended == "done", self.error(spec, name)
        return taken

    def cut(self, spec: TrialSpec, name: str, *, step: int, every: int) -> None:
        """Kill it after `step`; a checkpoint is written `every` so many steps, and after evaluations."""
        disturb_global_streams()

        def report(done: int, score: float | None) -> None:
            if done == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_trial(spec, self.ledger(name), on_progress=report, checkpoint_seconds=every - 0.5)

    def stop(self, spec: TrialSpec, name: str, *, step: int) -> None:
        """Ask it to stop after `step`, as the first Ctrl-C does."""
        disturb_global_streams()
        stops = iter([False] * (step - self.step(spec, name) - 1))
        ended = run_trial(spec, self.ledger(name), should_stop=lambda: next(stops, True))
        assert ended == "stopped", self.error(spec, name)
        assert self.step(spec, name) == step

    def step(self, spec: TrialSpec, name: str) -> int:
        """How far its checkpoint has come."""
        folder = self.ledger(name).folder(spec)
        return int(checkpoint(folder)["step"]) if (folder / "checkpoint.pt").exists() else 0

    def error(self, spec: TrialSpec, name: str) -> str:
        path = self.ledger(name).folder(spec) / "error.txt"
        return path.read_text() if path.exists() else ""

    def assert_equal(self, spec: TrialSpec, ours: str, theirs: str) -> None:
        """Episodes and metrics to the byte, and every tensor of the checkpoint."""
        one, other = (self.ledger(name).folder(spec) for name in (ours, theirs))
        for file in ("episodes.parquet", "metrics.jsonl"):
            assert (one / file).read_bytes() == (other / file).read_bytes(), file
        assert_same(checkpoint(one), checkpoint(other), "checkpoint")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def disturb_global_streams() -> None:
    """What another process would have: whoever draws from a global stream is found out."""
    seed = int.from_bytes(os.urandom(4))
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global stream is meant
    random.seed(seed)


def checkpoint(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    del found["seconds"]
    return found


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    """Equal in kind and to the bit, all the way down."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for name in ours:
            assert_same(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}[{place}]")
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), where


def random_cuts(case: Case, count: int = 3) -> list[tuple[int, int]]:
    """(Step of the cut, steps between checkpoints) of three cuts, rising; none is after the last step."""
    rng = random.Random(str(case))
    return [(step, rng.randint(1, 4)) for step in sorted(rng.sample(range(1, BUDGET), count))]


@pytest.mark.parametrize("case", NAMED, ids=str)
def test_a_trial_cut_at_any_of_three_random_steps_equals_an_undisturbed_one(case: Case, bench: Bench) -> None:
    spec = case.spec
    bench.run(spec, "whole")
    for place, (step, every) in enumerate(random_cuts(case)):
        bench.cut(spec, f"cut-{place}", step=step, every=every)
        bench.run(spec, f"cut-{place}")
        bench.assert_equal(spec, f"cut-{place}", "whole")


@pytest.mark.parametrize("name", [name for name in registry.algorithm_names() if name != "dt_pretrained"])
def test_every_registered_algorithm_that_learns_survives_being_killed_stopped_and_killed_again(
    name: str, bench: Bench
) -> None:
    cases = [Case(toy, name) for toy in TOYS if accepts(name, toy)]
    assert cases, f"{name} accepts none of {', '.join(TOYS)}"
    for case in cases:
        spec = case.spec
        bench.run(spec, "whole")
        (first, every), (second, _), (third, _) = random_cuts(case)
        bench.cut(spec, "cut", step=first, every=every)
        bench.stop(spec, "cut", step=second)
        bench.cut(spec, "cut", step=third, every=every)
        bench.run(spec, "cut")
        bench.assert_equal(spec, "cut", "whole")


def accepts(name: str, toy: str) -> bool:
    """Whether the algorithm learns from that data; one that cannot be resumed ends the test."""
    case = Case(toy, name)
    algorithm = registry.make_algorithm(name, case.spec.hyperparameters)
    try:
        learner = algorithm.learner(registry.make_task(toy).open(), seed=0, device=torch.device("cpu"))
    except IncompatibleTask:
        return False
    except DtbenchError as error:
        if type(error) is DtbenchError:  # it needs an extra that is not installed
            pytest.skip(str(error))
        raise
    if not getattr(learner, "resumable", True):
        pytest.skip(f"{name} starts over")
    return True


@pytest.mark.parametrize("case", [NAMED[0], Case(ROBOT, "cql"), Case(FRAMES, "dt_atari")], ids=str)
@pytest.mark.parametrize(("step", "every", "kept"), [(7, 9, 5), (3, 9, 0), (10, 9, 10), (9, 3, 8), (12, 1, 12)])
def test_steps_that_were_taken_after_the_last_checkpoint_are_taken_again(
    case: Case, step: int, every: int, kept: int, bench: Bench
) -> None:
    spec = case.spec
    bench.run(spec, "whole")
    bench.cut(spec, "cut", step=step, every=every)
    assert bench.step(spec, "cut") == kept
    assert bench.run(spec, "cut") == list(range(kept + 1, BUDGET + 1))
    bench.assert_equal(spec, "cut", "whole")


@pytest.mark.parametrize("case", [Case(ROBOT, "dt"), Case(ROBOT, "td3_bc"), Case(CHOICES, "discrete_cql")], ids=str)
@pytest.mark.parametrize("after", [0, 2, 7, 14])  # steps of games: the first evaluation is over after five
def test_a_trial_cut_during_an_evaluation_plays_it_again(
    case: Case, after: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = case.spec
    bench.run(spec, "whole")
    monkeypatch.setattr(NoisyGames, "interrupted_after", after)
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, bench.ledger("cut"))
    bench.run(spec, "cut")
    bench.assert_equal(spec, "cut", "whole")


EXITING = """
import json, os, pathlib, sys
from dtbench import trial
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from tests.execution.test_resume import LOG_POINTS, Clock

spec = TrialSpec.from_json(json.loads(pathlib.Path(sys.argv[1]).read_text()))
trial.LOG_POINTS, trial.time = LOG_POINTS, Clock()


def report(step, score):
    if step == 9:
        os._exit(9)


trial.run_trial(spec, Ledger(pathlib.Path(sys.argv[2])), on_progress=report, checkpoint_seconds=2.5)
"""


def test_a_trial_whose_process_vanished_equals_an_undisturbed_one(bench: Bench, tmp_path: Path) -> None:
    spec = NAMED[0].spec
    bench.run(spec, "whole")
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    command = [sys.executable, "-c", EXITING, str(tmp_path / "spec.json"), str(bench.ledger("cut").root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    assert bench.step(spec, "cut") == 8
    bench.run(spec, "cut")
    bench.assert_equal(spec, "cut", "whole")


FORGETFUL = """
from dataclasses import dataclass
from baselines.bc import BehaviorCloning, BehaviorCloningLearner


@dataclass(frozen=True)
class Forgetful(BehaviorCloning):
    forgotten: str = "stream"

    def learner(self, dataset, *, seed, device):
        learner = ForgetfulLearner(self, dataset, seed=seed, device=device)
        return learner


class ForgetfulLearner(BehaviorCloningLearner):
    def load_state_dict(self, state):
        own = self.state_dict()
        super().load_state_dict({**state, self.algorithm.forgotten: own[self.algorithm.forgotten]})
"""


@pytest.mark.parametrize("forgotten", ["network", "optimizer", "steps", "sampler", "stream"])
def test_a_learner_that_forgets_anything_is_found_out(forgotten: str, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    spec = Case(ROBOT, "forgetful:Forgetful", {"forgotten": forgotten, "warmup_steps": 10}).spec
    bench.run(spec, "whole")
    bench.cut(spec, "cut", step=6, every=9)
    bench.run(spec, "cut")
    with pytest.raises(AssertionError):
        bench.assert_equal(spec, "cut", "whole")
