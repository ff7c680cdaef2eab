"""Import code that is not dtbench's, and try it in a fork first: it may crash, hang or end its process."""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from dtbench.errors import FOREIGN, InvalidAlgorithm, InvalidValue, one_line

IMPORTS = "DTBENCH_IMPORTS"  # modules that register environments, separated by commas: they reach Ray's workers
SECONDS = 45  # for a module to be imported, or an environment to be made, reset and stepped once
_WORKER = "RAY_RAYLET_PID"  # set by Ray in its workers, which must not fork and may die
_PASSED = b"passed"
_PASSED_ONCE: set[str] = set()


def tried(action: Callable[[], str], doing: str) -> str:
    """Run an action in a fork; return its text, or how it ended the fork when it was `doing`: "imported"."""
    if not _may_fork():
        return action()
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fork only tries; it uses no threads
        child = os.fork()
    if not child:
        _answer(action, sender)
    os.close(sender)
    answered = False
    try:
        answered = bool(select.select([receiver], [], [], SECONDS)[0])
        text = os.read(receiver, 65536) if answered else b""
    finally:
        os.close(receiver)
        if not answered:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not answered:
        return f"it takes more than {SECONDS} s to be {doing}. Correct it there."
    if text.startswith(_PASSED):
        return text.removeprefix(_PASSED).decode()
    code = os.waitstatus_to_exitcode(status)
    names = {number.value: number.name for number in signal.Signals}
    how = f"crashed ({names.get(-code, f'signal {-code}')})" if code < 0 else f"ended the process with code {code}"
    return f"it {how} when it was {doing}. Correct it there."


def tried_once(what: str, action: Callable[[], str], doing: str) -> str:
    """Try an action as `tried`, once a process for each `what` that passes."""
    problem = "" if what in _PASSED_ONCE else tried(action, doing)
    if not problem:
        _PASSED_ONCE.add(what)
    return problem


def import_plugin(module: str) -> None:
    """Import a module of the working directory, or an installed one; raise InvalidValue where that fails."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that nothing installed is hidden
    try:
        import_tried(module)
    except FOREIGN as error:
        remedy = "Correct it there."
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            remedy = "Put it into the directory where dtbench runs, or install it (on a cluster: on every node)."
        raise InvalidValue(f"module {module!r:.80} cannot be imported: {describe(error)}. {remedy}") from error


def import_tried(module: str) -> ModuleType:
    """Import a module, unless that ends the process: InvalidAlgorithm. What it prints goes to stderr."""
    importing = functools.partial(importlib.import_module, module)
    return sys.modules[module] if module in sys.modules else _tried_import(module, importing)


def imports() -> list[str]:
    """Return the modules that register environments for this process and its workers."""
    return list(filter(None, os.environ.get(IMPORTS, "").split(",")))


def add_imports(modules: Iterable[str]) -> None:
    """Import modules that register environments, in this process now and in its workers."""
    for module in modules:
        import_plugin(module)
        os.environ[IMPORTS] = ",".join(dict.fromkeys([*imports(), module]))


def import_target(target: str, kind: str) -> ModuleType:
    """Import a file, with or without .py, or a module; raise InvalidAlgorithm where that fails."""
    path = file_of(target)
    missing = InvalidAlgorithm(
        f"no {kind} module {target!r:.100}: neither a file {target:.100}.py in {Path.cwd()} nor an installed module."
    )
    if path is None and not all(part.isidentifier() for part in target.split(".")):
        raise missing
    try:
        return _module_from_file(path) if path else import_tried(target)
    except ModuleNotFoundError as error:
        if error.name and target.split(".")[0] == error.name:
            raise missing from None
        raise InvalidAlgorithm(f"{target} cannot be imported: {describe(error)}. Install it.") from error
    except FOREIGN as error:
        raise InvalidAlgorithm(f"{target} cannot be imported: {describe(error)}. Correct it there.") from error


def file_of(target: str) -> Path | None:
    """Return the file of a name with or without .py, None where there is none."""
    path = Path(target if target.endswith(".py") else f"{target}.py")
    try:
        return path.resolve() if path.is_file() else None
    except OSError:  # a name too long for any file
        return None


def files_of_modules(names: Iterable[str]) -> dict[str, Path]:
    """Return the files of imported modules by name, and of those beside them that they use; not Python's own."""
    found: dict[str, Path] = {}
    left = list(names)
    while left:
        name = left.pop()
        module = sys.modules.get(name)
        path = Path(getattr(module, "__file__", None) or "")
        if name in found or not path.is_file() or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        found[name] = path
        if "site-packages" not in path.parts and name.partition(".")[0] != "dtbench":
            used = (
                getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in vars(module).values()
            )
            left += [other for other in used if isinstance(other, str) and _lies_beside(other, path)]
    return found


def describe(error: BaseException) -> str:
    """Describe an exception of a plug-in in one line, with the place where it was raised."""
    if isinstance(error, _EndsProcess):
        return str(error).removesuffix(". Correct it there.")
    where = ""
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        where = f" ({Path(frame.filename).name}, line {frame.lineno})"
    return one_line(f"{type(error).__name__}: {error}", 250) + where


class _EndsProcess(InvalidAlgorithm):
    """A module whose import crashes, hangs or ends the process."""


def _may_fork() -> bool:
    return hasattr(os, "fork") and _WORKER not in os.environ


def _answer(action: Callable[[], str], sender: int) -> NoReturn:
    """Write the action's text and end this process in silence, without its parent's clean-up."""
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)  # OpenMP's other threads do not survive a fork: waiting for them would never end
        os.write(sender, _PASSED + action().encode(errors="replace")[:60000])
    finally:
        os._exit(1)


def _tried_import(name: str, importing: Callable[[], ModuleType]) -> ModuleType:
    def attempt() -> str:
        with contextlib.suppress(*FOREIGN):  # raised again in this process
            importing()
        return ""

    if _may_fork() and (problem := tried(attempt, "imported")):
        raise _EndsProcess(problem)
    with contextlib.redirect_stdout(sys.stderr):
        return importing()


def _lies_beside(module: str, path: Path) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and Path(file).is_relative_to(path.parent)


def _module_from_file(path: Path) -> ModuleType:
    # Named by its path, so that two files of one name are two modules and one file is loaded once.
    name = f"dtbench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name not in sys.modules:
        _tried_import(name, functools.partial(_run_file, name, path))
    return sys.modules[name]


def _run_file(name: str, path: Path) -> ModuleType:
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
