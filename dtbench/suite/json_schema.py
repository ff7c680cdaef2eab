"""The JSON schema of suite files, for editors."""

import copy
from typing import Any

from pydantic import BaseModel

from dtbench.meanings import field_meanings
from dtbench.suite.schema import Contender, ContenderSettings, Evaluation, Resources, Suite, TaskSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: tuple[type[BaseModel], ...] = (Suite, Evaluation, Resources, TaskSettings, Contender, ContenderSettings)
LIKE = {"type": "string", "description": "Another contender of the suite, of which all is taken that is not here."}
SET_BY_COMMANDS = ("preset", "overrides")  # keys of a suite that no file has


def suite_schema() -> dict[str, Any]:
    """Return the schema of a suite's YAML file: the keys of `Suite`, and base, presets and default_preset.

    What a base or a preset may bring is not required: with `base`, nothing is; a contender's algorithm and steps
    never. `dtbench check FILE` knows more: names of tasks, algorithms and hyperparameters.
    """
    schema = Suite.model_json_schema()
    parts = {"Suite": schema, **schema["$defs"]}
    for model in MODELS:
        meanings = field_meanings(model)
        for name in model.model_fields:
            parts[model.__name__]["properties"][name]["description"] = meanings[name]
    parts["Contender"]["properties"] = {"like": LIKE, **parts["Contender"]["properties"]}
    definitions = {name: _relaxed(part) for name, part in schema.pop("$defs").items()}
    properties = {name: part for name, part in schema["properties"].items() if name not in SET_BY_COMMANDS}
    properties["contenders"] = _named({"$ref": "#/$defs/Contender"}, "Name -> contender.")
    keys = {"type": "object", "properties": properties, "additionalProperties": False}
    definitions["Preset"] = {**copy.deepcopy(keys), "description": "Differences from the suite."}
    definitions["Preset"]["properties"].pop("name")
    own = {
        "base": {"type": "string", "description": "Another suite, from which everything is taken that is not here."},
        "presets": _named({"$ref": "#/$defs/Preset"}, "Name -> differences; the contender * stands for all."),
        "default_preset": {"type": "string", "description": "The preset without --preset."},
    }
    return {
        "$schema": DIALECT,
        "title": "A suite of dtbench: tasks x contenders x seeds",
        **keys,
        "properties": {**own, **properties},
        "anyOf": [{"required": ["base"]}, {"required": ["tasks", "contenders"]}],
        "$defs": definitions,
    }


def _relaxed(part: dict[str, Any]) -> dict[str, Any]:
    """Return a definition without required keys."""
    return {name: value for name, value in part.items() if name != "required"}


def _named(value: dict[str, Any], description: str) -> dict[str, Any]:
    """Return the schema of names with values, each of which may be empty."""
    return {
        "type": ["object", "null"],
        "description": description,
        "additionalProperties": {"anyOf": [value, {"type": "null"}]},
    }
