"""Suite files: YAML read into plain documents, bases inherited, presets laid over them."""

import copy
import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dtbench.errors import InvalidSuite, InvalidValue, UnknownName, one_line
from dtbench.suite import package_data

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


LARGEST_FILE = 2**20  # bytes: the largest shipped suite has some ten thousand
LONGEST_NAME = 80  # as the ledger cuts the names of its folders

_TAKEN = ("overview",)  # folders of the report that belong to no suite


def suite_names() -> list[str]:
    """The suites in ./sweeps and those that dtbench ships."""
    return sorted(Path(name).stem for name in package_data.names("sweeps") if name.endswith((".yaml", ".yml")))


def read_document(name: str, *, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file of a suite's name, or at a path, with what its `base` says where it says nothing.

    `heirs` are the suites whose base it is. Raises UnknownName where there is none, InvalidSuite for what is no
    mapping in YAML.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in suite_names():
            raise UnknownName("suite", name, suite_names(), hint="Your own: --suite path/to/suite.yaml.")
        path = package_data.find("sweeps", f"{name}.yaml")
    document = _mapping_in(path, name)
    for part in ("contenders", "presets"):
        document = _with_mappings(path, document, part)
    for preset, settings in document.get("presets", {}).items():
        document["presets"][preset] = _with_mappings(path, settings, "contenders", f"presets.{preset}.")
    document.setdefault("name", path.stem)
    document.setdefault("title", document["name"])
    return _inherited(document, document.pop("base"), path, heirs) if "base" in document else document


def _mapping_in(path: Path, name: str) -> dict[str, Any]:
    """The document of a file."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE} bytes, which no suite needs")
        document = read_yaml(content.decode("utf-8"))
    except FileNotFoundError:
        raise UnknownName("suite file", name, suite_names()) from None
    except (OSError, ValueError) as error:
        raise InvalidSuite(f"{path} cannot be read as YAML: {error}. Mend it, or name another suite.") from error
    if not isinstance(document, dict):
        raise InvalidSuite(f"{path} must be a mapping with name, tasks, contenders, seeds; it is {document!r:.60}.")
    return document


def _with_mappings(path: Path, document: dict[str, Any], part: str, above: str = "") -> dict[str, Any]:
    """The document, in which `part` is a mapping of names to mappings where it is there; empty ones for null."""
    if part not in document:
        return document
    found = document[part] or {}
    if not isinstance(found, dict):
        raise InvalidSuite(f"{path}: {above}{part} must be a mapping of names to settings; it is {found!r:.60}.")
    for name, settings in found.items():
        if not isinstance(settings, dict | None):
            raise InvalidSuite(f"{path}: {above}{part}.{name} must be a mapping of settings; it is {settings!r:.60}.")
    return {**document, part: {name: settings or {} for name, settings in found.items()}}


def _inherited(document: dict[str, Any], base: Any, path: Path, heirs: tuple[str, ...]) -> dict[str, Any]:
    """What `base` names is taken from that suite where this one says nothing.

    Of the contenders only those listed here remain, each with its settings of there and the differences of here;
    presets too are laid over those of there.
    """
    if base == path.stem or not isinstance(base, str):
        raise InvalidSuite(f"{path}: base {base!r} must be another suite.")
    if base in heirs:
        raise InvalidSuite(f"{path}: base {base!r} has this suite for its own base: {' -> '.join((*heirs, base))}.")
    found = read_document(base, heirs=(*heirs, base))
    mine = document.pop("contenders", found.get("contenders", {}))
    theirs = found.pop("contenders", {})
    contenders: dict[str, Any] = {}
    for label, differences in mine.items():
        contenders[label] = copy.deepcopy(theirs.get(label, {}))
        merge(contenders[label], differences)
    presets = found.pop("presets", {})
    for preset in presets.values():
        settings = preset.get("contenders", {})
        for pattern in [pattern for pattern in settings if not fnmatch.filter(contenders, pattern)]:
            del settings[pattern]
    for name, preset in document.pop("presets", {}).items():
        presets.setdefault(name, {})
        _lay_over(presets[name], preset)
    found.pop("published", None)
    return {**found, **document, "contenders": contenders, "presets": presets}


def _lay_over(lower: dict[str, Any], upper: Mapping[str, Any]) -> None:
    for key, value in upper.items():
        if isinstance(value, Mapping) and isinstance(lower.get(key), dict):
            _lay_over(lower[key], value)
        else:
            lower[key] = copy.deepcopy(value)


def merge(document: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Lay `changes` over `document`; contenders may be named by a pattern such as "*" or "DT*"."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), dict):
            if key == "contenders":
                for pattern, settings in value.items():
                    for label in select("contender", document[key], [pattern]):
                        _merge_one(document[key], label, settings)
            else:
                merge(document[key], value)
        else:
            document[key] = copy.deepcopy(value)


def _merge_one(settings: dict[str, Any], label: str, changes: Any) -> None:
    if isinstance(settings[label], dict) and isinstance(changes, Mapping):
        merge(settings[label], changes)
    else:
        settings[label] = copy.deepcopy(changes)


def select(kind: str, known: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of the known names that fit a pattern, in their order; UnknownName for a pattern that fits none."""
    names = list(known)
    chosen = []
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise UnknownName(kind, pattern, names)
        chosen += matching
    return [name for name in names if name in chosen]


def check_names(name: str, contenders: Iterable[str]) -> None:
    """Raise InvalidSuite for a suite's name that is none for a file, or a contender's that no table can show."""
    if not _is_label(name) or name[0] in ".-" or set(name) & set('/\\:*?"<>|') or not re.search("[A-Za-z0-9]", name):
        raise InvalidSuite(
            f"{name!r:.100} is no name for a suite, whose files are called so: write letters, digits and - . _ alone, "
            f"at most {LONGEST_NAME}."
        )
    if name in _TAKEN:
        raise InvalidSuite(f"a suite cannot be called {name!r}: the report has a folder of that name. Choose another.")
    for label in contenders:
        if not _is_label(label):
            raise InvalidSuite(
                f"{label!r:.100} is no name for a contender: write 1 to {LONGEST_NAME} characters on one line."
            )


def _is_label(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name == name.strip() and not NOT_TEXT.search(name) and "\n" not in name


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
