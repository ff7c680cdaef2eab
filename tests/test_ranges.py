"""Where hyperparameters may lie: one table, which defaults, presets and meanings agree with."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtbench import registry
from dtbench.errors import InvalidValue
from dtbench.meanings import field_meanings
from dtbench.ranges import RANGES, check_range
from dtbench.suite.loading import read_document, suite_names
from dtbench.suite.planning import load_suite


def own_algorithms() -> Iterator[str]:
    yield from (name for name in registry.algorithm_names() if not name.startswith("rllib"))


def test_every_name_is_a_hyperparameter_and_all_defaults_and_presets_lie_inside() -> None:
    names = set()
    for algorithm in own_algorithms():
        for preset in ({}, *registry.algorithm_presets(algorithm).values()):
            numbers = {key: value for key, value in preset.items() if value != "train_steps"}  # the budget
            made = registry.make_algorithm(algorithm, numbers)
            for field in dataclasses.fields(made):  # type: ignore[arg-type]
                names.add(field.name)
                check_range(algorithm, field.name, getattr(made, field.name))
    rllib = {
        "actor_lr",
        "alpha_lr",
        "critic_lr",
        "fcnet_hiddens",
        "gamma",
        "lr",
        "train_batch_size_per_learner",
        "value_lr",
    }
    assert set(RANGES) <= names | rllib


def test_suites_that_ship_stay_inside() -> None:
    for name in suite_names():
        for preset in (None, *read_document(name)["presets"]):
            for contender in load_suite(name, preset=preset).contenders.values():
                for key, value in contender.hyperparameters.items():
                    check_range(contender.algorithm, key, value)


def test_meanings_state_the_same_range() -> None:
    stated = 0
    for algorithm in own_algorithms():
        for name, meaning in field_meanings(registry.algorithm_class(algorithm)).items():
            if found := re.search(r"\bin ([\[(][\d.]+, [\d.]+[\])])", meaning):
                stated += 1
                assert str(RANGES[name]) == f"in {found[1]}", (algorithm, name)
    assert stated > 10


@pytest.mark.parametrize(
    ("algorithm", "name", "value", "message"),
    [
        ("cql", "discount", 2, r"cql: discount = 2 must be in \[0, 1\]"),
        ("td3_bc", "tau", 0, r"tau = 0 must be in \(0, 1\]"),
        ("td3_bc", "tau", 5, r"tau = 5 must be in \(0, 1\]"),
        ("dt", "dropout", 1, r"dropout = 1 must be in \[0, 1\)"),
        ("dt", "context", 0, "context = 0 must be 1 or more"),
        ("bc", "hidden_size", 0, "hidden_size = 0 must be 1 or more"),
        ("iql", "expectile", 1.0, r"expectile = 1 must be in \(0, 1\)"),
        ("iql", "maximum_weight", 0.0, "maximum_weight = 0 must be above 0"),
        ("rebrac", "learning_rate", -1e-3, "learning_rate = -0.001 must be 0 or more"),
        ("dt_atari", "channels", (0, 1, 1), "channels = 0 must be 1 or more"),
    ],
)
def test_what_no_learner_can_mean_is_refused_before_anything_runs(
    algorithm: str, name: str, value: object, message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        registry.make_algorithm(algorithm, {name: value})


def test_other_packages_may_mean_something_else_by_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_file.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Theirs:\n"
        "    tau: float = 1.0  # of a softmax\n"
        "    def learner(self, dataset, *, seed, device): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    assert registry.make_algorithm("their_file:Theirs", tau=30).tau == 30  # type: ignore[attr-defined]
