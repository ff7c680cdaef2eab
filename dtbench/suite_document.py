"""Suite files: YAML read into plain documents, bases inherited, presets laid over them."""

import copy
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dtbench import shipped
from dtbench.errors import InvalidSuite, UnknownName


def suite_names() -> list[str]:
    """The suites in ./sweeps and those that dtbench ships."""
    return sorted(Path(name).stem for name in shipped.names("sweeps") if name.endswith((".yaml", ".yml")))


def read_document(name: str) -> dict[str, Any]:
    """The file of a suite's name, or at a path, with what its `base` says where it says nothing.

    Raises UnknownName where there is none, InvalidSuite for what is no mapping in YAML.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in suite_names():
            raise UnknownName("suite", name, suite_names(), hint="Your own: --suite path/to/suite.yaml.")
        path = shipped.find("sweeps", f"{name}.yaml")
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UnknownName("suite file", name, suite_names()) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSuite(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(document, dict):
        raise InvalidSuite(f"{path} must be a mapping with name, tasks, contenders, seeds; it is {document!r:.60}.")
    document = _unshared(document)
    document.setdefault("name", path.stem)
    document.setdefault("title", document["name"])
    return _inherited(document, document.pop("base"), path) if "base" in document else document


def _unshared(value: Any) -> Any:
    """Copy plain values, so that what YAML's aliases make one object can be changed in one place alone."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _inherited(document: dict[str, Any], base: str, path: Path) -> dict[str, Any]:
    """What `base` names is taken from that suite where this one says nothing.

    Of the contenders only those listed here remain, each with its settings of there and the differences of here;
    presets too are laid over those of there.
    """
    if base == path.stem or not isinstance(base, str):
        raise InvalidSuite(f"{path}: base {base!r} must be another suite.")
    found = read_document(base)
    mine = document.pop("contenders", found.get("contenders", {}))
    theirs = found.pop("contenders", {})
    contenders: dict[str, Any] = {}
    for label, differences in mine.items():
        contenders[label] = copy.deepcopy(theirs.get(label, {}))
        merge(contenders[label], differences or {})
    presets = found.pop("presets", {})
    for preset in presets.values():
        settings = (preset or {}).get("contenders", {})
        for pattern in [pattern for pattern in settings if not fnmatch.filter(contenders, pattern)]:
            del settings[pattern]
    for name, preset in document.pop("presets", {}).items():
        presets.setdefault(name, {})
        _lay_over(presets[name], preset or {})
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
                        merge(document[key][label], settings)
            else:
                merge(document[key], value)
        else:
            document[key] = copy.deepcopy(value)


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
