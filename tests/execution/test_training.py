"""`dtbench.train`: a policy in one call."""

import numpy as np
import pytest
import torch

import dtbench
from dtbench.errors import InvalidValue, UnknownName
from dtbench.execution import training
from dtbench.trial import Diverged

TINY = {"hidden_size": 8, "num_layers": 1}


def test_a_training_returns_the_policy_and_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    policy = dtbench.train("key-to-door-1k", "dt", preset="code", steps=4, context=5, **TINY)
    assert policy.learner.step == 4  # type: ignore[attr-defined]
    assert policy.learner.algorithm.return_scale == 1000  # type: ignore[attr-defined]  # of the preset
    assert policy.learner.context == 5
    assert repr(policy) == "Policy(dt on key-to-door-1k, target returns 1)"
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"dt on key-to-door-1k: step {n}/4" for n in (1, 2, 3, 4)]
    assert "action_loss" in lines[-1]
    assert list(policy.evaluate([1.0], episodes=2)["return"]) in ([0, 0], [0, 1], [1, 0], [1, 1])


def test_it_is_the_training_of_a_loop_by_hand() -> None:
    task = dtbench.make_task("graph-0")
    policy = dtbench.train(task, "bc", steps=3, seed=7, progress=False, **TINY)
    learner = dtbench.make_algorithm("bc", TINY).learner(task.load_dataset(), seed=7, device=torch.device("cpu"))
    for _ in range(3):
        learner.update()
    for ours, theirs in zip(
        policy.learner.network.parameters(),  # type: ignore[attr-defined]
        learner.network.parameters(),  # type: ignore[attr-defined]
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    dtbench.train("graph-0", "bc", steps=3, **TINY)
    assert "3/3" in capsys.readouterr().out


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match="'paper'"):
        dtbench.train("graph-0", "dt", preset="papr", steps=1)
    with pytest.raises(UnknownName, match="hidden_size"):
        dtbench.train("graph-0", "dt", steps=1, hiden_size=3)
    for wrong in (-1, 2.5, "many", True):
        with pytest.raises(InvalidValue, match=r"steps .* must be a whole number from 0"):
            dtbench.train("graph-0", "dt", steps=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="seed 'a' must be a whole number"):
        dtbench.train("graph-0", "dt", steps=1, seed="a")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="NoneType is no task"):
        dtbench.train(None, "dt", steps=1)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers_and_one_target_is_enough() -> None:
    policy = dtbench.train("graph-0", "dt", steps=np.int64(1), seed=np.int64(3), progress=False, **TINY)  # type: ignore[arg-type]
    first = float(policy.target_returns[0])
    assert policy.evaluate(first, episodes=2).equals(policy.evaluate([first], episodes=2))
    for wrong in ("best", [1.0, None], float("nan"), [[1.0]], []):
        with pytest.raises(InvalidValue, match="must be a finite number or several"):
            policy.evaluate(wrong, episodes=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="episodes 0 must be a whole number from 1"):
        policy.evaluate(episodes=0)
    with pytest.raises(InvalidValue, match="must be a finite number"):
        policy.reset("best")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"an observation of shape \(3,\) is none of graph-0's"):
        policy.act(np.zeros(3))
    with pytest.raises(InvalidValue, match=r"policy\.evaluate"):
        dtbench.evaluate(policy, policy.task)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_a_device_that_is_not_here_is_named_with_those_that_are(device: object) -> None:
    with pytest.raises(InvalidValue, match=r"is not here\. This machine has cpu"):
        dtbench.train("graph-0", "dt", steps=1, device=device, **TINY)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_ends_it() -> None:
    with pytest.raises(Diverged, match="action_loss is not finite at step 3"):
        training._checked(3, {"action_loss": float("nan")})
