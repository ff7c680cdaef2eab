"""Overrides of the command line: "path=value", laid over a suite's document."""

import fnmatch
from collections.abc import Collection, Sequence
from typing import Any

from dtbench.errors import InvalidValue, UnknownName
from dtbench.plain_yaml import read_yaml


def override(document: dict[str, Any], text: str, *, suite: Collection[str], contender: Collection[str]) -> None:
    """Lay "path=value" over a suite's document; `suite` and `contender` are the settings that they have.

    Raises InvalidValue or UnknownName for what is no override.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InvalidValue(
            f"{text!r:.100} is no override: write path=value, e.g. evaluation.episodes=50 or DT.budget=100."
        )
    try:
        parsed = read_yaml(value) if value else None
    except ValueError as error:
        raise InvalidValue(f"override {text!r:.100}: its value is no YAML: {error}. Put text in quotes.") from None
    head, *rest = path.split(".")
    contenders = document.get("contenders") or {}
    if not isinstance(contenders, dict):
        raise InvalidValue(f"override {text!r:.100}: contenders must be a mapping of names to settings.")
    labels = fnmatch.filter(contenders, head)
    if head == "budget" and not rest:
        labels, rest = list(contenders), ["budget"]
    try:
        if labels and rest:
            for label in labels:
                _override_contender(contenders[label], rest, parsed, contender)
            return
        known_paths = [*suite, *contenders]
        if head not in known_paths:
            raise UnknownName("override", head, [*known_paths, "budget"])
        _put(document, [head, *rest], parsed)
        _put_where_said(document.get("by_task"), [head, *rest], parsed)
    except (AttributeError, TypeError):  # a path into what is a number, a text or a list
        raise InvalidValue(
            f"override {text!r:.100}: there is nothing below {'.'.join([head, *rest[:-1]])!r:.60}. Write the whole of "
            "it, e.g. seeds=[0,1] or 'tasks=[hopper-medium-v2]'."
        ) from None


def _override_contender(settings: dict[str, Any], path: list[str], value: Any, known: Collection[str]) -> None:
    if path[0] not in known and len(path) > 1:
        raise UnknownName("setting of a contender", path[0], known)
    if path[0] not in known or path[0] == "hyperparameters":
        path = ["hyperparameters", path[-1]]
        _put_where_said(settings.get("hyperparameters_by_task"), path[1:], value)
    _put(settings, path, value)
    _put_where_said(settings.get("by_task"), path, value)


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
    if not isinstance(target, dict):
        raise TypeError
    target[path[-1]] = value


def _put_where_said(by_task: Any, path: Sequence[str], value: Any) -> None:
    """Replace what is said otherwise for some tasks: what the command line asks for goes last."""
    for settings in (by_task or {}).values():
        for part in path[:-1]:
            settings = settings.get(part) or {}
        if path[-1] in settings:
            settings[path[-1]] = value
