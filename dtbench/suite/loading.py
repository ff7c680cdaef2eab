"""Read suites from YAML: a base, presets and overrides merged into plain documents."""

import difflib
import fnmatch
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from dtbench import registry
from dtbench.errors import InvalidSuite, InvalidValue, UnknownName, one_line
from dtbench.ledger.names import check_current
from dtbench.suite import package_data

EVERY = "*"  # in a preset: every contender
LARGEST_FILE = 2**20  # bytes: the largest shipped suite has some ten thousand
LONGEST_NAME = 80  # the ledger truncates longer names of directories
_UNPRINTABLE = re.compile(r"\\u00[01]|[\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # in JSON: controls and surrogates
FORMULA = "=+-@"  # what a spreadsheet takes for a formula where a cell begins with it
_LIKE = 0.8  # similarity above which an unknown name is taken for a misspelt setting: 1 is equality
_RESERVED = ("overview", "index.html", "manifest.json")  # what else is in the report


def read_yaml(text: str) -> Any:
    """Return the values of a YAML 1.2 text as plain JSON; aliases are expanded and keys are text.

    Raises ValueError, in one line, for duplicate keys and for values that JSON does not have, such as dates.
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


def _as_json(values: Any) -> Any:
    """Return a copy of limited size: ten lines of nested aliases can expand to a billion values."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(values):
        text += part
        if len(text) > LARGEST_FILE:
            raise ValueError(f"it expands to more than {LARGEST_FILE} characters")
    if unprintable := _UNPRINTABLE.search(text):
        raise ValueError(f"it contains {unprintable[0]!r}, which cannot be printed")
    return json.loads(text)


def suite_names() -> list[str]:
    """Return the names of the suites in ./sweeps and in the package."""
    return sorted(Path(name).stem for name in package_data.names("sweeps") if name.endswith((".yaml", ".yml")))


def read_document(name: str, *, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the document of a suite, by name or path, merged with its `base`.

    `heirs` are the suites whose base it is. Raises UnknownName for a suite that does not exist and InvalidSuite for
    a file that is not a YAML mapping.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in suite_names():
            raise UnknownName("suite", name, suite_names(), hint="For your own, write --suite path/to/suite.yaml.")
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
    """Return the mapping in a YAML file."""
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
    """Return a part that maps names to mappings; null is an empty mapping."""
    mappings = owner.get(part) or {}
    if not isinstance(mappings, dict):
        raise InvalidSuite(f"{path}: {part} must be a mapping of names to settings; it is {mappings!r:.60}.")
    for name, settings in mappings.items():
        if not isinstance(settings, dict | None):
            raise InvalidSuite(f"{path}: {part}.{name} must be a mapping of settings; it is {settings!r:.60}.")
    return {name: settings or {} for name, settings in mappings.items()}


def _inherited(document: dict[str, Any], base: Any, path: Path, heirs: tuple[str, ...]) -> dict[str, Any]:
    """Return the document merged over its base, with the contenders of the document if it lists any.

    The base's published numbers are not inherited.
    """
    if base == path.stem or not isinstance(base, str):
        raise InvalidSuite(f"{path}: base {base!r} must be another suite.")
    if base in heirs:
        raise InvalidSuite(f"{path}: its bases form a circle: {' -> '.join((*heirs, base))}. Remove one.")
    lower = read_document(base, heirs=(*heirs, base))
    inherited = lower.get("contenders", {})
    listed = document.get("contenders", inherited)
    contenders = {label: merged(inherited.get(label, {}), settings) for label, settings in listed.items()}
    for preset in lower["presets"].values():
        changes = preset.get("contenders", {})
        preset["contenders"] = {label: changes[label] for label in changes if label == EVERY or label in contenders}
    lower.pop("published", None)
    presets = merged(lower["presets"], document["presets"])
    return {**lower, **document, "contenders": contenders, "presets": presets}


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return `lower` updated by `upper`, recursively; neither is changed."""
    result = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        result[key] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def with_preset(document: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document merged with a preset; raise UnknownName for a contender that the suite does not have."""
    known = document.get("contenders", {})
    changes = preset.get("contenders", {})
    for label in changes:
        if label != EVERY and label not in known:
            raise UnknownName("contender of a preset", label, [EVERY, *known])
    of_all = changes.get(EVERY, {})
    contenders = {label: merged(merged(settings, of_all), changes.get(label, {})) for label, settings in known.items()}
    return {**merged(document, preset), "contenders": contenders}


def with_likes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document in which a contender that is `like` another has that one's settings below its own.

    What it says itself also holds on tasks where the other one's `by_task` says otherwise. Raises UnknownName for one
    that the suite does not have, and InvalidSuite for a circle.
    """
    contenders = document.get("contenders", {})
    return {**document, "contenders": {label: _like(label, contenders, ()) for label in contenders}}


def _like(label: str, contenders: Mapping[str, Any], heirs: tuple[str, ...]) -> dict[str, Any]:
    own = dict(contenders[label])
    if "like" not in own:
        return own
    other = own.pop("like")
    if not isinstance(other, str) or other not in contenders:
        raise UnknownName(f"contender that {label!r} is like", str(other), [one for one in contenders if one != label])
    if other in (*heirs, label):
        raise InvalidSuite(
            f"contenders are like each other: {' -> '.join((*heirs, label, other))}. Remove one `like`."
        )
    below = _like(other, contenders, (*heirs, label))
    if isinstance(by_task := below.get("by_task"), Mapping):
        below["by_task"] = {pattern: _without(changes, own) for pattern, changes in by_task.items()}
    return merged(below, own)


def _without(changes: Any, own: Mapping[str, Any]) -> Any:
    """Return changes without those that `own` states, recursively."""
    if not isinstance(changes, Mapping):
        return changes
    return {
        name: _without(value, own[name]) if isinstance(own.get(name), Mapping) else value
        for name, value in changes.items()
        if name not in own or isinstance(own[name], Mapping)
    }


def select(kind: str, known: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the known names that match a pattern, in their order; raise UnknownName for a pattern without a match.

    What matches nothing as a whole may be several patterns with commas between them.
    """
    names = list(known)
    selected = []
    for pattern in patterns:
        several = [pattern] if fnmatch.filter(names, pattern) else [one.strip() for one in pattern.split(",")]
        for one in several:
            matching = fnmatch.filter(names, one)
            if not matching:
                raise UnknownName(kind, one, names)
            selected += matching
    return [name for name in names if name in selected]


def check_names(name: str, contenders: Iterable[str]) -> None:
    """Raise InvalidSuite for a suite's name that is not a file name, or a contender's name that is not a label."""
    if not _is_label(name) or name[0] in ".-" or set(name) & set('/\\:*?"<>|') or not re.search("[A-Za-z0-9]", name):
        raise InvalidSuite(
            f"{name!r:.100} cannot name a suite and its files: write letters, digits and - . _ only, "
            f"at most {LONGEST_NAME}."
        )
    if name in _RESERVED:
        raise InvalidSuite(f"{name!r} cannot name a suite: the report has something of that name. Choose another.")
    for label in contenders:
        if not _is_label(label):
            raise InvalidSuite(
                f"{label!r:.100} cannot name a contender: write 1 to {LONGEST_NAME} characters on one line."
            )
        if label[0] in FORMULA:
            raise InvalidSuite(
                f"{label!r:.100} cannot name a contender: spreadsheets read {label[0]} at the beginning as a formula."
            )


def _is_label(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name == name.strip() and name.isprintable()


def overridden(
    document: Mapping[str, Any], text: str, *, suite: Collection[str], contender: Collection[str]
) -> dict[str, Any]:
    """Return a suite's document with the setting "path=value", also in `by_task`.

    `suite` and `contender` are the names of their settings. Raises InvalidValue or UnknownName.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InvalidValue(
            f"{text!r:.100} is not an override: write path=value, e.g. evaluation.episodes=50 or DT.train_steps=100."
        )
    try:
        parsed = read_yaml(value) if value else None
    except ValueError as error:
        raise InvalidValue(f"override {text!r:.100}: its value is not YAML: {error}. Put text in quotes.") from None
    head, *rest = path.split(".")
    contenders = document.get("contenders") or {}
    if not isinstance(contenders, Mapping):
        raise InvalidValue(f"override {text!r:.100}: contenders must be a mapping of names to settings.")
    labels = fnmatch.filter(contenders, head)
    if head == "train_steps" and not rest:
        labels, rest = list(contenders), ["train_steps"]
    if labels and rest:
        changed = {}
        for label in labels:
            setting = _path_in_contender(rest, contenders[label], contender)
            changed[label] = _with_value(contenders[label], setting, parsed)
        return {**document, "contenders": {**contenders, **changed}}
    if head not in (known := [*suite, *contenders]):
        check_current(head)
        tasks = document["tasks"] if isinstance(document.get("tasks"), list) else []
        if any(head in registry.task_options(task) for task in tasks if isinstance(task, str)):
            raise InvalidValue(f"override {head!r} is an option of a task. Write task_options.{text:.100}.")
        raise UnknownName("override", head, [*known, "train_steps"])
    return _with_value(document, [head, *rest], parsed)


def _path_in_contender(path: Sequence[str], contender: Any, known: Collection[str]) -> list[str]:
    """Return the path of a contender's setting; a single unknown name is a hyperparameter.

    Raises UnknownName for a name that is like one of a setting and no hyperparameter's.
    """
    name, *rest = path
    if name in known:
        return list(path)
    algorithm = contender.get("algorithm") if isinstance(contender, Mapping) else None
    hyperparameters = registry.hyperparameter_names(algorithm) if isinstance(algorithm, str) else []
    if rest or (name not in hyperparameters and difflib.get_close_matches(name, known, cutoff=_LIKE)):
        raise UnknownName("setting of a contender", name, known)
    return ["hyperparameters", name]


def _with_value(settings: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    change: Any = value
    for part in reversed(path):
        change = {part: change}
    result = merged(settings, change)
    if isinstance(by_task := result.get("by_task"), Mapping):
        result["by_task"] = {
            pattern: merged(task, change) if _states(task, path) else task for pattern, task in by_task.items()
        }
    return result


def _states(settings: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True
