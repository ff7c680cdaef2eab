"""Suite files: YAML read into plain documents, with a base below and presets and overrides laid over them."""

import fnmatch
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from dtbench.errors import InvalidSuite, InvalidValue, UnknownName, one_line
from dtbench.ledger.names import check_current
from dtbench.suite import package_data

EVERY = "*"  # in a preset: every contender
LARGEST_FILE = 2**20  # bytes: the largest shipped suite has some ten thousand
LONGEST_NAME = 80  # as the ledger cuts the names of its directories
_UNPRINTABLE = re.compile(r"\\u00[01]|[\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # in JSON: controls, halves of characters
_TAKEN = ("overview",)  # directories of the report that belong to no suite


def read_yaml(text: str) -> Any:
    """Return the values of a YAML 1.2 text as plain JSON: what an alias repeats is copied, keys are text.

    Raises ValueError, of one line, for duplicate keys and for what JSON does not have, such as dates and other tags.
    """
    try:
        return _as_json(YAML(typ="safe", pure=True).load(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{one_line(error.problem or error.context or '', 200)}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except TypeError as error:
        raise ValueError(f"{one_line(str(error), 160)}: put it in quotes if it is text") from error
    except (YAMLError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(one_line(str(error), 200)) from error


def _as_json(found: Any) -> Any:
    """Return a copy; ten lines of aliases of aliases can stand for a billion values, so the size is limited."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(found):
        text += part
        if len(text) > LARGEST_FILE:
            raise ValueError(f"it stands for more than {LARGEST_FILE} characters")
    if found := _UNPRINTABLE.search(text):
        raise ValueError(f"it has {found[0]!r}, which cannot be printed")
    return json.loads(text)


def suite_names() -> list[str]:
    """Return the names of the suites in ./sweeps and of those that dtbench ships."""
    return sorted(Path(name).stem for name in package_data.names("sweeps") if name.endswith((".yaml", ".yml")))


def read_document(name: str, *, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the document of a suite's name, or of the file at a path, with its `base` below it.

    `heirs` are the suites whose base it is. Raises UnknownName for a suite that does not exist and InvalidSuite for
    a file that is not a mapping in YAML.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in suite_names():
            raise UnknownName("suite", name, suite_names(), hint="Your own: --suite path/to/suite.yaml.")
        path = package_data.find("sweeps", f"{name}.yaml")
    document = _mapping_in(path, name)
    document["presets"] = _mappings(document, "presets", path)
    for owner in (document, *document["presets"].values()):
        if "contenders" in owner:
            owner["contenders"] = _mappings(owner, "contenders", path)
    document.setdefault("name", path.stem)
    document.setdefault("title", document["name"])
    return _inherited(document, document.pop("base"), path, heirs) if "base" in document else document


def _mapping_in(path: Path, name: str) -> dict[str, Any]:
    """Return the document of a file."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE} bytes")
        document = read_yaml(content.decode("utf-8"))
    except FileNotFoundError:
        raise UnknownName("suite file", name, suite_names()) from None
    except (OSError, ValueError) as error:
        raise InvalidSuite(f"cannot read {path} as YAML: {error}. Correct it, or name another suite.") from error
    if not isinstance(document, dict):
        raise InvalidSuite(f"{path} must be a mapping with name, tasks, contenders, seeds; it is {document!r:.60}.")
    return document


def _mappings(owner: Mapping[str, Any], part: str, path: Path) -> dict[str, dict[str, Any]]:
    """Return a part that maps names to mappings, of which null is an empty one."""
    found = owner.get(part) or {}
    if not isinstance(found, dict):
        raise InvalidSuite(f"{path}: {part} must be a mapping of names to settings; it is {found!r:.60}.")
    for name, settings in found.items():
        if not isinstance(settings, dict | None):
            raise InvalidSuite(f"{path}: {part}.{name} must be a mapping of settings; it is {settings!r:.60}.")
    return {name: settings or {} for name, settings in found.items()}


def _inherited(document: dict[str, Any], base: Any, path: Path, heirs: tuple[str, ...]) -> dict[str, Any]:
    """Return the document laid over that of its base.

    Of the base's contenders those remain that are listed here. Its published numbers stay behind.
    """
    if base == path.stem or not isinstance(base, str):
        raise InvalidSuite(f"{path}: base {base!r} must be another suite.")
    if base in heirs:
        raise InvalidSuite(f"{path}: base {base!r} has this suite as its own base: {' -> '.join((*heirs, base))}.")
    lower = read_document(base, heirs=(*heirs, base))
    theirs = lower.get("contenders", {})
    listed = document.get("contenders", theirs)
    contenders = {label: merged(theirs.get(label, {}), own) for label, own in listed.items()}
    for preset in lower["presets"].values():
        own = preset.get("contenders", {})
        preset["contenders"] = {label: own[label] for label in own if label == EVERY or label in contenders}
    lower.pop("published", None)
    presets = merged(lower["presets"], document["presets"])
    return {**lower, **document, "contenders": contenders, "presets": presets}


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return `upper` laid over `lower`, mapping by mapping; neither is changed."""
    found = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = merged(below, value)
        found[key] = value
    return found


def with_preset(document: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset laid over a document; raise UnknownName for a contender that the suite does not have."""
    known = document.get("contenders", {})
    own = preset.get("contenders", {})
    for label in own:
        if label != EVERY and label not in known:
            raise UnknownName("contender of a preset", label, [EVERY, *known])
    contenders = {
        label: merged(merged(settings, own.get(EVERY, {})), own.get(label, {})) for label, settings in known.items()
    }
    return {**merged(document, preset), "contenders": contenders}


def select(kind: str, known: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the known names that fit a pattern, in their order; raise UnknownName for a pattern that fits none."""
    names = list(known)
    chosen = []
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise UnknownName(kind, pattern, names)
        chosen += matching
    return [name for name in names if name in chosen]


def check_names(name: str, contenders: Iterable[str]) -> None:
    """Raise InvalidSuite for a suite's name that cannot name a file, or a contender's that no table can show."""
    if not _is_label(name) or name[0] in ".-" or set(name) & set('/\\:*?"<>|') or not re.search("[A-Za-z0-9]", name):
        raise InvalidSuite(
            f"{name!r:.100} cannot name a suite and its files: write letters, digits and - . _ only, "
            f"at most {LONGEST_NAME}."
        )
    if name in _TAKEN:
        raise InvalidSuite(f"{name!r} cannot name a suite: the report has a directory of that name. Choose another.")
    for label in contenders:
        if not _is_label(label):
            raise InvalidSuite(
                f"{label!r:.100} cannot name a contender: write 1 to {LONGEST_NAME} characters on one line."
            )


def _is_label(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name == name.strip() and name.isprintable()


def overridden(
    document: Mapping[str, Any], text: str, *, suite: Collection[str], contender: Collection[str]
) -> dict[str, Any]:
    """Return a suite's document with "path=value" laid over it, also where `by_task` states it otherwise.

    `suite` and `contender` are the settings that they have. Raises InvalidValue or UnknownName.
    """
    place, equals, value = text.partition("=")
    if not equals or not place:
        raise InvalidValue(
            f"{text!r:.100} is not an override: write path=value, e.g. evaluation.episodes=50 or DT.train_steps=100."
        )
    try:
        parsed = read_yaml(value) if value else None
    except ValueError as error:
        raise InvalidValue(f"override {text!r:.100}: its value is not YAML: {error}. Put text in quotes.") from None
    head, *rest = place.split(".")
    contenders = document.get("contenders") or {}
    if not isinstance(contenders, Mapping):
        raise InvalidValue(f"override {text!r:.100}: contenders must be a mapping of names to settings.")
    labels = fnmatch.filter(contenders, head)
    if head == "train_steps" and not rest:
        labels, rest = list(contenders), ["train_steps"]
    if labels and rest:
        path = _path_in_contender(rest, contender)
        changed = {label: _with_value(contenders[label], path, parsed) for label in labels}
        return {**document, "contenders": {**contenders, **changed}}
    if head not in (known := [*suite, *contenders]):
        check_current(head)
        raise UnknownName("override", head, [*known, "train_steps"])
    return _with_value(document, [head, *rest], parsed)


def _path_in_contender(path: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the path of a contender's setting; of a single unknown name that of a hyperparameter."""
    if path[0] not in known and len(path) > 1:
        raise UnknownName("setting of a contender", path[0], known)
    return list(path) if path[0] in known else ["hyperparameters", path[0]]


def _with_value(settings: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    change: Any = value
    for part in reversed(path):
        change = {part: change}
    found = merged(settings, change)
    if isinstance(by_task := found.get("by_task"), Mapping):
        found["by_task"] = {
            pattern: merged(own, change) if _states(own, path) else own for pattern, own in by_task.items()
        }
    return found


def _states(settings: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True
