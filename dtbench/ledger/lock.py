"""One run at a time on one ledger: a lock that a dead process leaves open, on one machine and on a shared folder."""

import contextlib
import errno
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from dtbench.errors import LedgerError


def this_process() -> dict[str, Any]:
    """Host, number and birth of this process, and when this was asked."""
    return {
        "host": platform.node(),
        "space": _space(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def alive(identity: Mapping[str, Any]) -> bool | None:
    """Whether the process that `this_process` described still runs; None where it is on another machine.

    A number that was given to another process since is told by its birth. No clock is read.
    """
    if identity.get("host") != platform.node() or identity.get("space", "") != _space():
        return None
    try:
        number, born = int(identity["process"]), int(identity.get("born", 0))
    except (KeyError, TypeError, ValueError):
        return False
    if not is_running(number):
        return False
    return not born or _born(number) in (0, born)


def is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def processors() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _born(process: int) -> int:
    """When the process started, in clock ticks since the machine did; 0 where that cannot be known."""
    try:
        # The name in brackets may hold anything; what follows it is plain. Field 22 is the 20th after it.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _space() -> str:
    """What process numbers refer to: this start of the machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


try:
    import fcntl
except ImportError:  # not POSIX: the beat alone decides
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
BEAT_SECONDS = 5.0
WATCH_SECONDS = 16.0  # a holder on another machine that has not beaten for so long is gone

Beats = Mapping[str, Any]


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the ledger at `root` while it is written to.

    The system's own lock goes with its process. Where it does not reach from machine to machine, a holder's beat does:
    it is seen to change or not, and no clocks are compared. Raises LedgerError where another run holds the ledger, or
    where the folder cannot be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = _locked(root)
    except OSError as error:
        raise LedgerError(f"cannot write to the ledger {root}: {error}. Say --results FOLDER.") from error
    with file:
        found = _read(root)
        if found and alive(found) is None and beats(lambda: _read(root)):
            raise LedgerError(in_use(root, found))
        with _beating(root / NAME):
            yield


def holder(root: Path) -> dict[str, Any] | None:
    """The run that holds the ledger at `root` and is alive, or None. Looks twice at the beat of another machine's."""
    found = _read(root)
    if not found:
        return None
    here = alive(found)
    return found if here or (here is None and beats(lambda: _read(root))) else None


def described(root: Path) -> dict[str, Any] | None:
    """What the holder of the ledger at `root` wrote of itself, whether it is alive or not; None where nothing is."""
    found = _read(root)
    return {name: found.get(name) for name in ("host", "space", "process", "born", "began")} if found else None


def in_use(root: Path | str, found: Mapping[str, Any] | None) -> str:
    """What to tell a second run."""
    who = "another run" if not found else f"a run on {found['host']} (process {found['process']}, {found['began']})"
    return (
        f"the ledger {root} is in use by {who}. Wait for it, or say --results FOLDER and join both afterwards: "
        "dtbench merge."
    )


def beats(read: Callable[[], Beats | None], seconds: float = WATCH_SECONDS) -> bool:
    """Whether what `read` gives of a holder changes within these seconds; None is a file just being written."""
    first = read()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(min(0.25, seconds))
        if (now := read()) is not None and now != first:
            return True
    return False


@contextmanager
def beating(beat: Callable[[int], None]) -> Iterator[None]:
    """Call `beat` with 1, 2, 3, ... every BEAT_SECONDS from a thread of its own."""
    ended = threading.Event()

    def count() -> None:
        number = 0
        while not ended.wait(BEAT_SECONDS):
            number += 1
            beat(number)

    thread = threading.Thread(target=count, daemon=True, name="ledger-lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def understood(text: str | bytes) -> dict[str, Any] | None:
    """What a holder wrote of itself; None for what is nobody's description."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"host", "process", "began"} <= found.keys() else None


def description(beat: int) -> dict[str, Any]:
    """What a holder writes of itself."""
    return {**this_process(), "command": " ".join(sys.argv[1:])[:500], "beat": beat}


def _locked(root: Path) -> IO[str]:
    """The lock's file, locked; raise LedgerError where another process has it."""
    path = root / NAME
    while True:
        file = path.open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.close()
                raise LedgerError(in_use(root, _read(root))) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system that knows no locks
                file.close()
                raise
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # its last holder has removed it between our opening and locking it


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    """Keep this process's description in the lock's file, counting; remove the file at the end."""
    first = description(0)
    _write(path, first)
    try:
        with beating(lambda count: _write(path, {**first, "beat": count})):
            yield
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path, content: Beats) -> None:
    """Into the same file, which is what is locked; a full disk is told by those who write results."""
    with contextlib.suppress(OSError), path.open("r+") as file:
        file.write(json.dumps(content, sort_keys=True) + "\n")
        file.truncate()


def _read(root: Path) -> dict[str, Any] | None:
    try:
        return understood((root / NAME).read_bytes())
    except OSError:
        return None
