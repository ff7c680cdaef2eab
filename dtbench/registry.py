"""Names to objects: algorithms and tasks, found through entry points and files, loaded only when asked for."""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from dtbench.errors import DtbenchError, InvalidAlgorithm, InvalidValue, UnknownName, one_line
from dtbench.ledger.names import check_current

if TYPE_CHECKING:  # a listing of names must not load torch
    from dtbench.algorithm import Algorithm
    from dtbench.task import Task

ALGORITHMS = "dtbench.algorithms"
DOMAINS = "dtbench.domains"
SCHEMES = "dtbench.task_schemes"
REPORT_SECTIONS = "dtbench.report_sections"
BASELINES = "baselines"  # our package of that name; others exist
LARGEST = 100_000_000  # of a hyperparameter that is a whole number: sizes, and steps of a schedule


def algorithm_names() -> list[str]:
    """The registered algorithms, ours and those of other installed packages."""
    return sorted(_points(ALGORITHMS))


def algorithm_packages() -> set[str]:
    """The packages that the registered algorithms are in."""
    return {point.module.partition(".")[0] for point in _points(ALGORITHMS).values()}


def algorithm_class(name: str) -> "type[Algorithm]":
    """The class of a registered name, or of "file_or_module:Class".

    Raises UnknownName with the nearest names, InvalidAlgorithm for what is no frozen dataclass with `learner`.
    """
    found: Any = _named_object(name, "algorithm", ALGORITHMS)
    if not (dataclasses.is_dataclass(found) and isinstance(found, type) and hasattr(found, "learner")):
        raise InvalidAlgorithm(f"{name} is not a dataclass with a method learner(dataset, *, seed, device).")
    if not found.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise InvalidAlgorithm(f"{name} must be a frozen dataclass: @dataclass(frozen=True).")
    checked: Any = found
    made: type[Algorithm] = checked
    return made


def make_algorithm(name: str, hyperparameters: Mapping[str, Any] = MappingProxyType({})) -> "Algorithm":
    """The algorithm with these differences from its defaults, checked and coerced by its annotations.

    Raises UnknownName for a hyperparameter that does not exist and InvalidValue for one of the wrong type.
    """
    found: Any = algorithm_class(name)
    known = [field.name for field in dataclasses.fields(found) if field.init]
    for key in hyperparameters:
        if key not in known:
            check_current(key, name)
            raise UnknownName(f"hyperparameter of {name}", key, known)
    try:
        made: Algorithm = _adapter(found, name).validate_python(dict(hyperparameters))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or name
        raise InvalidValue(f"{name}: {where} = {first['input']!r:.100}: {first['msg']}.") from None
    except DtbenchError:
        raise
    except Exception as error:  # of a __post_init__ of somebody's own
        raise InvalidValue(f"{name} cannot be made with {dict(hyperparameters)!r:.200}: {told(error)}.") from error
    for key in hyperparameters:
        _check_number(name, key, getattr(made, key))
    return made


def all_hyperparameters(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Every hyperparameter of the algorithm with these differences from its defaults, as plain JSON values."""
    made = make_algorithm(name, hyperparameters)
    plain: dict[str, Any] = _adapter(type(made), name).dump_python(made, mode="json")
    return plain


def algorithm_presets(name: str) -> Mapping[str, Mapping[str, Any]]:
    """The named sets of hyperparameters that an algorithm's class declares as `presets`."""
    found: Mapping[str, Mapping[str, Any]] = getattr(algorithm_class(name), "presets", {})
    return found


def algorithm_version(name: str) -> str:
    """What of the algorithm's code belongs to a trial's identity.

    A file's content where the name points at a file, else the class attribute `version` (1 where it has none),
    to be raised when an algorithm's mathematics changes.
    """
    found = algorithm_class(name)
    target = name.partition(":")[0]
    if ":" in name and (path := _file_of(target)):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return str(getattr(found, "version", 1))


def file_of(name: str) -> Path | None:
    """The file that a name such as "my_file:MyAlgorithm" points at; None for a registered name or a module."""
    return _file_of(name.partition(":")[0]) if ":" in name else None


def task_names() -> list[str]:
    """The registered tasks of all domains."""
    return sorted(name for tasks in _domains().values() for name in tasks)


def tasks_by_domain() -> dict[str, list[str]]:
    """The registered tasks, domain by domain."""
    return {domain: list(tasks) for domain, tasks in sorted(_domains().items())}


def make_task(name: str, options: Mapping[str, Any] | None = None) -> "Task":
    """The task of a registered name, or of "file_or_module:name" (a Task, or a function that makes one).

    A prefix may also name a scheme of the entry-point group `dtbench.task_schemes`, as in "minari:mujoco/hopper/
    medium-v0". `options` go to the function that makes the task; raises UnknownName for those it does not take.
    """
    from dtbench.task import Task

    scheme, colon, _ = name.partition(":")
    if colon and scheme in (schemes := _points(SCHEMES)):
        return _checked_task(name, _made(name, functools.partial(_load(schemes[scheme]), name), options))
    if colon:
        found = _named_object(name, "task", DOMAINS)
        return found if isinstance(found, Task) and not options else _checked_task(name, _made(name, found, options))
    for tasks in _domains().values():
        if name in tasks:
            return _checked_task(name, _made(name, tasks[name], options))
    raise UnknownName("task", name, task_names())


def report_sections(domain: str) -> Callable[[Any], Iterator[Any]] | None:
    """Return what adds the sections of a domain's tasks to a report, None where nothing does.

    It takes a SuiteAnalysis (dtbench.analysis.suite_analysis) and yields instances of Section (dtbench.analysis.page):
    the entry point of the group `dtbench.report_sections` with the domain's name, else `sections` in
    dtbench/domains/<domain>/report.py. An archive names a domain, never code: a report runs only what is installed.
    """
    if domain in (points := _points(REPORT_SECTIONS)):
        found: Callable[[Any], Iterator[Any]] = _load(points[domain])
        return found
    folder = Path(__file__).parent / "domains" / domain
    if not domain.isidentifier() or not (folder / "report.py").is_file():
        return None
    built_in: Callable[[Any], Iterator[Any]] = importlib.import_module(f"dtbench.domains.{domain}.report").sections
    return built_in


def _made(name: str, make: Any, options: Mapping[str, Any] | None) -> Any:
    """Call the function that makes a task; raise UnknownName for an option that it has no parameter for."""
    taken = inspect.signature(make).parameters if callable(make) else {}
    for option in options or ():
        if option not in taken:
            raise UnknownName(f"option of task {name}", option, taken)
    try:
        return make(**(options or {}))
    except DtbenchError:
        raise
    except Exception as error:
        given = f" with the options {dict(options)!r:.200}" if options else ""
        raise InvalidValue(f"task {name} cannot be made{given}: {told(error)}. Mend it there.") from error


def told(error: BaseException) -> str:
    """An exception of somebody's own code in one line: what it says, and where it was raised."""
    where = ""
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        where = f" ({Path(frame.filename).name}, line {frame.lineno})"
    return one_line(f"{type(error).__name__}: {error}", 250) + where


def _check_number(name: str, key: str, value: Any) -> None:
    """Raise InvalidValue for what pydantic takes for a number, and no learner can begin with."""
    if isinstance(value, tuple | list):
        for item in value:
            _check_number(name, key, item)
    if isinstance(value, float) and math.isnan(value):
        raise InvalidValue(f"{name}: {key} is nan. Write a number.")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InvalidValue(f"{name}: {key} = {value:.3g} is more than {LARGEST}, too large to be meant.")


@functools.cache
def _adapter(found: "type[Algorithm]", name: str) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(found)
        adapter.rebuild(force=False)
    except (PydanticUserError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidAlgorithm(f"the hyperparameters of {name} must be plain values: {reason}") from None
    return adapter


def _checked_task(name: str, made: Any) -> "Task":
    from dtbench.task import Task

    if not isinstance(made, Task):
        raise InvalidValue(f"task {name} made a {type(made).__name__}, not a dtbench.Task.")
    return made


def _domains() -> dict[str, Mapping[str, Any]]:
    return {name: _load(point) for name, point in _points(DOMAINS).items()}


def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _named_object(name: str, kind: str, group: str) -> Any:
    if ":" in name:
        target, _, attribute = name.partition(":")
        module = _module(target, kind)
        if not hasattr(module, attribute):
            public = [n for n in vars(module) if not n.startswith("_")]
            raise UnknownName(f"{kind} in {target}", attribute, public)
        return getattr(module, attribute)
    points = _points(group)
    if name not in points:
        raise UnknownName(kind, name, points, hint='Your own: "file_or_module:Name".')
    return _load(points[name])


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        found = f"the plug-in {point.name} = {point.value}"
        if place := _shadowing(point.module):
            raise InvalidAlgorithm(
                f"{found} cannot be loaded: {place} shadows the package `{BASELINES}` of dtbench. Rename or uninstall "
                "it, or work in another directory."
            ) from error
        raise InvalidAlgorithm(f"{found} cannot be loaded: {told(error)}. Correct or uninstall it.") from error


def _shadowing(module: str) -> str:
    """Return where another package than ours is found under the name of our baselines, "" where none is."""
    if module.partition(".")[0] != BASELINES:
        return ""
    ours = Path(__file__).resolve().parents[1] / BASELINES
    spec = importlib.util.find_spec(BASELINES)
    places = (
        [Path(place).resolve() for place in (spec.submodule_search_locations or [spec.origin or ""])] if spec else []
    )
    return "" if not places or ours in places else str(places[0])


def _module(target: str, kind: str) -> ModuleType:
    path = _file_of(target)
    nowhere = InvalidAlgorithm(
        f"no {kind} module {target!r:.100}: neither a file {target:.100}.py in {Path.cwd()} nor an installed module."
    )
    if path is None and not all(part.isidentifier() for part in target.split(".")):
        raise nowhere
    try:
        return _module_from_file(path) if path else importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name and target.split(".")[0] == error.name:
            raise nowhere from None
        raise InvalidAlgorithm(f"{target} cannot be imported: {told(error)}. Install it.") from error
    except Exception as error:
        raise InvalidAlgorithm(f"{target} cannot be imported: {told(error)}. Mend it there.") from error


def _file_of(target: str) -> Path | None:
    path = Path(target if target.endswith(".py") else f"{target}.py")
    try:
        return path.resolve() if path.is_file() else None
    except OSError:  # a name too long for any file
        return None


def _module_from_file(path: Path) -> ModuleType:
    # Named by its place, so that two files of one name are two modules and one file is loaded once.
    name = f"dtbench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
