"""The meanings of fields: read from the comments beside them, and none is missing."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from dtbench import registry
from dtbench.cli.run import app
from dtbench.meanings import field_meanings
from dtbench.suite.json_schema import MODELS, suite_schema
from dtbench.task import DataSource, Task


@dataclass
class Parent:
    behind: int = 1  # said behind it
    # said above it,
    # in two lines
    above: int = 2
    kept: int = 3  # of the parent
    both: int = 4  # of the parent

    silent: int = 5


@dataclass
class Child(Parent):
    kept: int = 30
    both: int = 40  # of the child
    many: tuple[int, ...] = (
        1,  # of an item
        2,
    )  # behind its last line


def test_a_meaning_is_the_comment_behind_a_field_or_above_it() -> None:
    assert field_meanings(Parent) == {
        "behind": "said behind it",
        "above": "said above it, in two lines",
        "kept": "of the parent",
        "both": "of the parent",
    }


def test_a_child_without_a_comment_has_its_parent_s() -> None:
    found = field_meanings(Child)
    assert (found["kept"], found["both"]) == ("of the parent", "of the child")
    assert found["many"] == "behind its last line"


def test_a_class_without_source_has_no_meanings() -> None:
    made = dataclasses.make_dataclass("Made", [("size", int)])
    assert field_meanings(made) == {}
    assert field_meanings(int) == {}


@pytest.mark.parametrize("name", registry.algorithm_names())
def test_every_hyperparameter_has_a_meaning(name: str) -> None:
    algorithm: Any = registry.algorithm_class(name)
    assert {field.name for field in dataclasses.fields(algorithm)} <= set(field_meanings(algorithm))


@pytest.mark.parametrize("kind", [Task, DataSource])
def test_every_field_of_a_task_has_a_meaning(kind: Any) -> None:
    assert {field.name for field in dataclasses.fields(kind)} <= set(field_meanings(kind))


@pytest.mark.parametrize("model", MODELS)
def test_every_key_of_a_suite_has_a_meaning(model: Any) -> None:
    assert set(model.model_fields) <= set(field_meanings(model))


def test_the_schema_has_the_meanings() -> None:
    schema = suite_schema()
    parts = [schema, *schema["$defs"].values()]
    assert all("description" in key for part in parts for key in part["properties"].values())
    assert schema["$defs"]["Evaluation"]["properties"]["every"]["description"].startswith("gradient steps between")


def test_the_listing_of_an_algorithm_has_the_meanings() -> None:
    listed = CliRunner().invoke(app, ["list", "algorithms", "iql"]).stdout.splitlines()
    (line,) = [line for line in listed if line.split()[:1] == ["expectile"]]
    assert line.strip().split(maxsplit=2)[1:] == ["0.7", field_meanings(registry.algorithm_class("iql"))["expectile"]]
    found = json.loads(CliRunner().invoke(app, ["list", "algorithms", "dt", "--json"]).stdout)
    assert found["meanings"].keys() == found["hyperparameters"].keys()
    assert all(found["meanings"].values())
