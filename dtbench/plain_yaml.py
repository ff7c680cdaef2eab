"""YAML as plain values, within limits: whatever a file says, it makes no objects and fills no memory."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from dtbench.errors import one_line

MOST_VALUES = 100_000  # of a document, each as often as aliases repeat it
DEEPEST = 40  # lists and mappings within each other
LARGEST_NUMBER = 2**63
NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, halves of characters

_NO_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def read_yaml(text: str) -> Any:
    """The plain values of a YAML text: mappings of names, lists, text, numbers, true, false and null.

    What aliases repeat is copied, so that it can be changed in one place alone. Raises ValueError, of one line, for
    anything else: other tags, keys said twice or that are no text, not-a-numbers, and what is too large to be meant.
    """
    try:
        return _read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except _NO_YAML as error:
        raise ValueError(one_line(str(error), 200) or type(error).__name__) from error


def _read(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, {}, ())
        return _plain(loader.construct_document(node), ())
    finally:
        loader.dispose()


def _check_node(node: Any, known: dict[int, tuple[int, int]], above: tuple[int, ...]) -> tuple[int, int]:
    """How many values a node stands for, aliases written out, and how deep they go; ValueError for too many.

    Checked before any is made: a file of ten lines can stand for a billion values.
    """
    if id(node) in above:
        raise ValueError(f"line {node.start_mark.line + 1}: an alias refers to what it is part of")
    if id(node) not in known:
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        sizes = [_check_node(child, known, (*above, id(node))) for child in _children(node)]
        known[id(node)] = (1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0))
    size, depth = known[id(node)]
    if size > MOST_VALUES:
        raise ValueError(f"it stands for more than {MOST_VALUES} values, which no suite needs")
    if depth > DEEPEST or len(above) > DEEPEST:
        raise ValueError(f"line {node.start_mark.line + 1}: it is nested more than {DEEPEST} deep")
    return size, depth


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _check_keys(node: Any) -> None:
    """YAML forbids a key twice, and PyYAML takes the last without a word; what `<<` merges may be said again."""
    said = set()
    for key, _ in node.value:
        own = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
        if own in said and key.tag != "tag:yaml.org,2002:merge":
            raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is said twice")
        if own:
            said.add(own)


def _plain(value: Any, place: tuple[str, ...]) -> Any:
    """A copy; ValueError, with the place, for what is not plain."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{_at(place)}the key {key!r} is no text: put it in quotes")
        return {_plain(key, place): _plain(item, (*place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, (*place, str(number))) for number, item in enumerate(value)]
    if isinstance(value, str) and NOT_TEXT.search(value):
        raise ValueError(f"{_at(place)}{value!r:.40} has characters that cannot be printed: leave them out")
    if value is not None and not isinstance(value, str | bool | int | float):
        raise ValueError(f"{_at(place)}{value!r:.40} is a {type(value).__name__}: put it in quotes if it is text")
    if value != value:
        raise ValueError(f"{_at(place)}.nan is no number: write one, or null")
    if isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
        raise ValueError(f"{_at(place)}a number of {value.bit_length()} bits is too large to be meant")
    return value


def _at(place: tuple[str, ...]) -> str:
    return f"{'.'.join(place)}: " if place else ""
