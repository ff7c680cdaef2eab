"""Suite files: YAML read into plain documents, bases inherited, presets laid over them."""

import copy
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dtbench import shipped
from dtbench.errors import InvalidSuite, UnknownName
from dtbench.plain_yaml import NOT_TEXT, read_yaml

LARGEST_FILE = 2**20  # bytes: the largest shipped suite has some ten thousand
LONGEST_NAME = 80  # as the ledger cuts the names of its folders

_TAKEN = ("overview", "templates")  # folders of the report that belong to no suite


def suite_names() -> list[str]:
    """The suites in ./sweeps and those that dtbench ships."""
    return sorted(Path(name).stem for name in shipped.names("sweeps") if name.endswith((".yaml", ".yml")))


def read_document(name: str, *, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file of a suite's name, or at a path, with what its `base` says where it says nothing.

    `heirs` are the suites whose base it is. Raises UnknownName where there is none, InvalidSuite for what is no
    mapping in YAML.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in suite_names():
            raise UnknownName("suite", name, suite_names(), hint="Your own: --suite path/to/suite.yaml.")
        path = shipped.find("sweeps", f"{name}.yaml")
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
