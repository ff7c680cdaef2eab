"""The contract must catch what it promises to catch."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.bc import BehaviorCloning, BehaviorCloningLearner
from dtbench import History
from dtbench.algorithm import Metrics
from dtbench.errors import InvalidAlgorithm
from dtbench.testing import check_algorithm


class Global(BehaviorCloningLearner):
    def update(self) -> Metrics:
        return {"loss": torch.rand(())}


class Restless(BehaviorCloningLearner):
    def act(self, history: History) -> Tensor:
        self.sampler.rng.random()
        return super().act(history)


class Forgetful(BehaviorCloningLearner):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])


class Pickled(BehaviorCloningLearner):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rng": self.sampler.rng}


class Misshapen(BehaviorCloningLearner):
    def act(self, history: History) -> Tensor:
        return super().act(history)[:, None]


class Exploding(BehaviorCloningLearner):
    def update(self) -> Metrics:
        return {"loss": float("nan")}


class Blind(BehaviorCloningLearner):
    context = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.context = 0


@pytest.mark.parametrize(
    ("learner", "clause"),
    [
        (Global, "global random stream"),
        (Restless, "acting between updates"),
        (Forgetful, "trains differently"),
        (Pickled, "more than tensors"),
        (Misshapen, "shape"),
        (Exploding, "after one step"),
        (Blind, "context"),
    ],
)
def test_each_breach_is_named(learner: type[BehaviorCloningLearner], clause: str) -> None:
    @dataclasses.dataclass(frozen=True)
    class Broken(BehaviorCloning):
        def learner(self, dataset: Any, *, seed: int, device: torch.device) -> BehaviorCloningLearner:
            return learner(self, dataset, seed=seed, device=device)

    check_algorithm(BehaviorCloning(hidden_size=8))
    with pytest.raises(InvalidAlgorithm, match=clause):
        check_algorithm(Broken(hidden_size=8))


def test_an_algorithm_must_be_a_frozen_dataclass() -> None:
    with pytest.raises(InvalidAlgorithm, match="dataclass"):
        check_algorithm(object())  # type: ignore[arg-type]
