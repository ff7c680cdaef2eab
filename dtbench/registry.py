"""Look up algorithms and tasks by name: through entry points, modules and files."""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from dtbench import foreign
from dtbench.errors import FOREIGN, DtbenchError, InvalidAlgorithm, InvalidValue, UnknownName
from dtbench.ledger.families import FAMILIES
from dtbench.ledger.names import check_current
from dtbench.ranges import OWN_PACKAGES, check_range

if TYPE_CHECKING:  # a listing of names must not load torch
    from dtbench.algorithm import Algorithm
    from dtbench.task import Task

ALGORITHMS = "dtbench.algorithms"
DOMAINS = "dtbench.domains"
SCHEMES = "dtbench.task_schemes"
REPORT_SECTIONS = "dtbench.report_sections"
BASELINES = "baselines"  # our package of that name; others exist
LARGEST = 100_000_000  # the largest integer hyperparameter: a size, or steps of a schedule
# Sizes that nobody means, by the end of a hyperparameter's name: they would fill the memory before they fail.
LARGEST_SIZES = {
    "layers": 1000,
    "heads": 1000,
    "context": 100_000,
    "hidden_size": 65_536,
    "hiddens": 65_536,
    "batch_size": 1_000_000,
    "batch_size_per_learner": 1_000_000,
}


def algorithm_names() -> list[str]:
    """Return the names of the registered algorithms of all installed packages."""
    return sorted(_points(ALGORITHMS))


def algorithm_packages() -> set[str]:
    """Return the packages of the registered algorithms."""
    return {point.module.partition(".")[0] for point in _points(ALGORITHMS).values()}


def algorithm_class(name: str) -> "type[Algorithm]":
    """Return the class of a registered name, or of "file_or_module:Class".

    Raises UnknownName with the nearest names, InvalidAlgorithm unless it is a frozen dataclass with `learner`.
    """
    algorithm: Any = _named_object(name, "algorithm", ALGORITHMS)
    if not (dataclasses.is_dataclass(algorithm) and isinstance(algorithm, type) and hasattr(algorithm, "learner")):
        raise InvalidAlgorithm(f"{name} is not a dataclass with a method learner(dataset, *, seed, device).")
    if not algorithm.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise InvalidAlgorithm(f"{name} must be a frozen dataclass: @dataclass(frozen=True).")
    return cast("type[Algorithm]", algorithm)


def make_algorithm(
    name: str, hyperparameters: Mapping[str, Any] = MappingProxyType({}), /, **more: Any
) -> "Algorithm":
    """Return the algorithm with these hyperparameters, checked and coerced by its annotations, and its defaults.

    They are a mapping, or arguments, which come before it. Raises UnknownName for a hyperparameter that does not
    exist and InvalidValue for one of the wrong type.
    """
    hyperparameters = {**hyperparameters, **more}
    kind: Any = algorithm_class(name)
    known = hyperparameter_names(name)
    for key in hyperparameters:
        if key not in known:
            check_current(key, name)
            raise UnknownName(f"hyperparameter of {name}", key, known)
    try:
        algorithm: Algorithm = _adapter(kind, name).validate_python(dict(hyperparameters))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or name
        raise InvalidValue(f"{name}: {where} = {first['input']!r:.100}: {first['msg']}.") from None
    except DtbenchError:
        raise
    except FOREIGN as error:  # of a plug-in's __post_init__
        raise InvalidValue(f"{name} refuses {dict(hyperparameters)!r:.200}: {foreign.describe(error)}.") from error
    own = kind.__module__.partition(".")[0] in OWN_PACKAGES
    for key in hyperparameters:
        _check_number(name, key, getattr(algorithm, key))
        if own:
            check_range(name, key, getattr(algorithm, key))
    return algorithm


def hyperparameter_names(name: str) -> list[str]:
    """Return the names of an algorithm's hyperparameters."""
    kind: Any = algorithm_class(name)
    return [field.name for field in dataclasses.fields(kind) if field.init]


def all_hyperparameters(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return all hyperparameters, these and the algorithm's defaults, as plain JSON values."""
    algorithm = make_algorithm(name, hyperparameters)
    plain: dict[str, Any] = _adapter(type(algorithm), name).dump_python(algorithm, mode="json")
    return plain


def algorithm_presets(name: str) -> Mapping[str, Mapping[str, Any]]:
    """Return an algorithm's `presets`: named sets of hyperparameters."""
    presets: Mapping[str, Mapping[str, Any]] = getattr(algorithm_class(name), "presets", {})
    return presets


def algorithm_version(name: str) -> str:
    """Return the version of the algorithm's code, a part of a trial's identity.

    It is the hash of the file where the name points at a file, else the class attribute `version` (default 1).
    """
    algorithm = algorithm_class(name)
    if path := file_of(name):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return str(getattr(algorithm, "version", 1))


def algorithm_family(algorithm: "Algorithm") -> str:
    """Return what the algorithm declares as its `family`, by default "other"; raise InvalidAlgorithm for another."""
    family: str = getattr(algorithm, "family", "other")
    if family not in FAMILIES:
        name = type(algorithm).__name__
        raise InvalidAlgorithm(f"{name} has the family {family!r:.40}. It is one of {', '.join(FAMILIES)}.")
    return family


def file_of(name: str) -> Path | None:
    """Return the file of a name such as "my_file:MyAlgorithm"; None for a registered name or a module."""
    return foreign.file_of(name.partition(":")[0]) if ":" in name else None


def task_names() -> list[str]:
    """Return the names of the registered tasks of all domains."""
    return sorted(name for tasks in _domains().values() for name in tasks)


def tasks_by_domain() -> dict[str, list[str]]:
    """Return the names of the registered tasks by domain."""
    return {domain: list(tasks) for domain, tasks in sorted(_domains().items())}


def make_task(name: str, options: Mapping[str, Any] | None = None, /, **more: Any) -> "Task":
    """Return the task of a registered name, or of "file_or_module:name" (a Task or a function that returns one).

    The prefix can also be a scheme of the entry-point group `dtbench.task_schemes`, as in "minari:mujoco/hopper/
    medium-v0". `options` and further arguments are those of the task's function, as in make_task("hopper-medium-v2",
    steps=10_000); raises UnknownName for one it does not take.
    """
    from dtbench.task import Task

    if not isinstance(name, str):
        raise InvalidValue(f"{type(name).__name__} is no task's name. `dtbench list tasks` has the names.")
    options = {**(options or {}), **more}
    for module in foreign.imports():
        foreign.import_plugin(module)
    make = _task_function(name)
    task = make if isinstance(make, Task) and not options else _call(name, make, options)
    if not isinstance(task, Task):
        raise InvalidValue(f"task {name} returns a {type(task).__name__}. Return a dtbench.Task.")
    return task


def task_options(name: str) -> list[str]:
    """Return the names of the options that a task takes."""
    return list(_parameters(_task_function(name)))


def report_sections(domain: str) -> Callable[[Any], Iterator[Any]] | None:
    """Return the function that yields a domain's sections of a report (Section) from a SuiteAnalysis, or None.

    It is the entry point of the group `dtbench.report_sections` with the domain's name, else `sections` in
    dtbench/domains/<domain>/report.py. An archive names a domain, never code: a report runs only what is installed.
    """
    if domain in (points := _points(REPORT_SECTIONS)):
        return cast("Callable[[Any], Iterator[Any]]", _load(points[domain]))
    if not domain.isidentifier() or not (Path(__file__).parent / "domains" / domain / "report.py").is_file():
        return None
    return cast("Callable[[Any], Iterator[Any]]", importlib.import_module(f"dtbench.domains.{domain}.report").sections)


def _task_function(name: str) -> Any:
    """Return the function of a task, or the Task that a file or module holds."""
    scheme, colon, _ = name.partition(":")
    if colon and scheme in (schemes := _points(SCHEMES)):
        return functools.partial(_load(schemes[scheme]), name)
    if colon:
        return _named_object(name, "task", DOMAINS)
    known = {task: make for tasks in _domains().values() for task, make in tasks.items()}
    if name not in known:
        raise UnknownName("task", name, known)
    return known[name]


def _parameters(make: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(make).parameters if callable(make) else {}


def _call(name: str, make: Any, options: Mapping[str, Any]) -> Any:
    """Call the function of a task; raise UnknownName for an option that is not one of its parameters."""
    parameters = _parameters(make)
    for option in options:
        if option not in parameters:
            raise UnknownName(f"option of task {name}", option, parameters)
    try:
        return make(**options)
    except DtbenchError:
        raise
    except FOREIGN as error:
        given = f" with the options {dict(options)!r:.200}" if options else ""
        raise InvalidValue(f"task {name} fails{given}: {foreign.describe(error)}. Correct it there.") from error


def _check_number(name: str, key: str, value: Any) -> None:
    """Raise InvalidValue for a number that pydantic accepts and no learner can use."""
    if isinstance(value, tuple | list):
        for item in value:
            _check_number(name, key, item)
    if isinstance(value, float) and math.isnan(value):
        raise InvalidValue(f"{name}: {key} is nan. Write a number.")
    most = next((size for end, size in LARGEST_SIZES.items() if key.endswith(end)), LARGEST)
    if isinstance(value, int) and abs(value) > most:
        raise InvalidValue(f"{name}: {key} = {value:.3g} exceeds the maximum of {most}.")


@functools.cache
def _adapter(algorithm: "type[Algorithm]", name: str) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(algorithm)
        adapter.rebuild(force=False)
    except (PydanticUserError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidAlgorithm(f"the hyperparameters of {name} must be plain values: {reason}") from None
    return adapter


def _domains() -> dict[str, Mapping[str, Any]]:
    return {name: _load(point) for name, point in _points(DOMAINS).items()}


@functools.cache  # a search through the metadata of every installed package takes 20 ms
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _named_object(name: str, kind: str, group: str) -> Any:
    if ":" in name:
        target, _, attribute = name.partition(":")
        module = foreign.import_target(target, kind)
        if not hasattr(module, attribute):
            public = [n for n in vars(module) if not n.startswith("_")]
            raise UnknownName(f"{kind} in {target}", attribute, public)
        return getattr(module, attribute)
    points = _points(group)
    if name not in points:
        raise UnknownName(kind, name, points, hint='For your own, write "file_or_module:Name".')
    return _load(points[name])


def _load(point: EntryPoint) -> Any:
    try:
        if point.module.partition(".")[0] not in ("dtbench", BASELINES):
            foreign.import_tried(point.module)
        return point.load()
    except FOREIGN as error:
        failure = f"the plug-in {point.name} = {point.value} cannot be loaded"
        if other := _shadowing(point.module):
            raise InvalidAlgorithm(
                f"{failure}: {other} shadows dtbench's package `{BASELINES}`. Rename or uninstall it, or work in "
                "another directory."
            ) from error
        raise InvalidAlgorithm(f"{failure}: {foreign.describe(error)}. Correct or uninstall it.") from error


def _shadowing(module: str) -> str:
    """Return the path of another package with the name of our baselines, "" where there is none."""
    spec = importlib.util.find_spec(BASELINES)
    if module.partition(".")[0] != BASELINES or spec is None:
        return ""
    paths = [Path(path).resolve() for path in (spec.submodule_search_locations or [spec.origin or ""])]
    return "" if Path(__file__).resolve().parents[1] / BASELINES in paths else str(paths[0])
