"""The JSON schema of suite files: every suite fits, and what `load_suite` refuses for its form does not."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from dtbench.cli.run import app
from dtbench.errors import InvalidSuite, UnknownName
from dtbench.suite.json_schema import suite_schema
from dtbench.suite.loading import read_yaml
from dtbench.suite.schema import Suite

SWEEPS = Path(__file__).parents[2] / "sweeps"
FILES = sorted(SWEEPS.glob("*.yaml"))
SMALL: dict[str, Any] = {
    "tasks": ["key-to-door-1k"],
    "seeds": [0],
    "contenders": {"DT": {"algorithm": "dt", "train_steps": 3}},
}


def problems(document: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(suite_schema()).iter_errors(document)]


def invoke(*arguments: str) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(suite_schema())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_suite_fits_and_names_the_schema(path: Path) -> None:
    assert problems(read_yaml(path.read_text())) == []
    assert path.read_text().startswith("# yaml-language-server: $schema=suite.schema.json\n")


def test_the_schema_beside_the_suites_is_what_the_command_prints() -> None:
    assert (SWEEPS / "suite.schema.json").read_text() == invoke("schema").stdout


def test_it_has_the_keys_of_a_suite() -> None:
    assert set(suite_schema()["properties"]) == (set(Suite.model_fields) | {"base", "presets", "default_preset"}) - {
        "preset",
        "overrides",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"task": ["graph-0"]},
        {"seeds": [-1]},
        {"seeds": ["0..4"]},
        {"evaluation": {"episode": 3}},
        {"contenders": {"DT": {"algorithm": "dt", "steps": 3}}},
        {"presets": {"smoke": {"contenders": {"*": {"train_step": 1}}}}},
        {"preset": "smoke"},
    ],
)
def test_what_is_refused_as_a_suite_does_not_fit(change: dict[str, Any], tmp_path: Path) -> None:
    assert problems(SMALL) == []
    assert problems({**SMALL, **change})
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **change}))
    if "preset" not in change:
        with pytest.raises((UnknownName, InvalidSuite)):
            invoke("check", str(path))


def test_a_suite_needs_tasks_and_contenders_or_a_base() -> None:
    assert problems({"title": "none"})
    assert problems({"base": "d4rl", "contenders": {"DT": None}}) == []


def test_check_reads_every_preset() -> None:
    lines = invoke("check", "graph").stdout.splitlines()
    presets = json.loads(json.dumps(read_yaml((SWEEPS / "graph.yaml").read_text())))["presets"]
    assert [line.partition(":")[0] for line in lines] == [f"graph, preset {name}" for name in presets]
    assert " trials" in lines[0]


def test_check_of_a_preset_names_its_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "presets": {"cpu": {}, "smoke": {"tasks": ["grap-0"]}}}))
    with pytest.raises(UnknownName, match="Did you mean 'graph-0'"):
        invoke("check", str(path))
