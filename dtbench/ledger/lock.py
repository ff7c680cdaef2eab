"""An inter-process lock on a results directory, and the identity of the process that holds it."""

import contextlib
import itertools
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from dtbench.data.files import atomic_path
from dtbench.errors import LedgerError

NAME = ".lock"  # locked by the system, which releases it when the process ends however it ends
OWNER = ".lock-owner.json"  # who holds it
AT = "runs/.lock"  # at a place without locks
BEAT_SECONDS = 5.0
SETTLE_SECONDS = 1.0
WATCH_SECONDS = 16.0  # a holder on another machine that has not counted on for so long is gone


@contextmanager
def acquire(root: Path) -> Iterator[None]:
    """Hold the ledger at `root` while it is written to, on this machine or on a shared directory that knows flock.

    Raises LedgerError where another run holds it, naming its host and process, or where `root` cannot be written to.
    """
    held = FileLock(root / NAME)
    try:
        root.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
        with atomic_path(root / OWNER) as path:
            path.write_text(json.dumps(description(), sort_keys=True) + "\n")
    except Timeout:
        raise LedgerError(in_use(root, owner(root))) from None
    except OSError as error:
        held.release()
        raise LedgerError(f"cannot write to the ledger {root}: {error}. Use --results DIRECTORY.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (root / OWNER).unlink(missing_ok=True)
        held.release()


class Place(Protocol):
    """A directory that knows no locks, such as one in an object store."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None where there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file."""

    def delete(self, path: str) -> None:
        """Remove a file."""


@contextmanager
def acquire_at(place: Place) -> Iterator[None]:
    """Hold the ledger at a place without locks; raise LedgerError where another run does.

    The holder counts in a file, and who comes from another machine watches whether the count changes: a holder that
    was killed is gone after WATCH_SECONDS. No clocks are compared.
    """
    if found := holder_at(place):
        raise LedgerError(in_use(str(place), found))
    own = {**description(), "token": uuid.uuid4().hex}
    write_owner(place, own)
    time.sleep(SETTLE_SECONDS)  # who comes at the same moment writes in this time, and the last one has it
    if (now := read_owner(place)) and now.get("token") != own["token"]:
        raise LedgerError(in_use(str(place), now))
    ended = threading.Event()
    thread = threading.Thread(target=_count, args=(place, own, ended), daemon=True, name="ledger-lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(LedgerError):
            if (read_owner(place) or {}).get("token") == own["token"]:
                place.delete(AT)


def holder_at(place: Place) -> dict[str, Any] | None:
    """Return the run that holds the ledger at a place and is alive, or None."""
    found = read_owner(place)
    if not found or (here := alive(found)) is False:
        return None
    return found if here or _counts(place, found) else None


def read_owner(place: Place) -> dict[str, Any] | None:
    """Return what the holder at a place wrote last."""
    return parse_owner(place.read(AT) or b"")


def write_owner(place: Place, content: Mapping[str, Any]) -> None:
    """Write who holds a place."""
    place.write(AT, json.dumps(content, sort_keys=True).encode())


def _count(place: Place, own: Mapping[str, Any], ended: threading.Event) -> None:
    for count in itertools.count(1):
        if ended.wait(BEAT_SECONDS):
            return
        with contextlib.suppress(LedgerError):  # the trials' own writes tell of a server that is gone
            if (read_owner(place) or {}).get("token") == own["token"]:
                write_owner(place, {**own, "count": count})


def _counts(place: Place, first: Mapping[str, Any]) -> bool:
    deadline = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(0.25, WATCH_SECONDS))
        if (now := read_owner(place)) and now != first:
            return True
    return False


def owner(root: Path) -> dict[str, Any] | None:
    """Return what the holder of the ledger at `root` wrote of itself, dead or alive; None where there is nothing."""
    try:
        return parse_owner((root / OWNER).read_bytes())
    except OSError:
        return None


def holder(root: Path) -> dict[str, Any] | None:
    """Return the run that holds the ledger at `root`, or None; of another machine's the lock is tried."""
    found = owner(root)
    if not found or (here := alive(found)) is False:
        return None
    return found if here or _is_locked(root) else None


def in_use(place: Path | str, found: Mapping[str, Any] | None) -> str:
    """Return the error of a second run."""
    who = "another run"
    if found:
        who = f"a run on {found['host']} (process {found['process']}, {found['began']}): {found.get('command', '')}"
    return f"the ledger {place} is in use by {who.rstrip(': ')}. Wait for it, or use --results DIRECTORY."


def parse_owner(text: bytes) -> dict[str, Any] | None:
    """Return what `description` wrote; None for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"host", "process", "began"} <= found.keys() else None


def description() -> dict[str, Any]:
    """Return what a holder writes of itself."""
    return {**this_process(), "command": " ".join(sys.argv[1:])[:200]}


def this_process() -> dict[str, Any]:
    """Return host, number and start of this process, and the time."""
    return {
        "host": platform.node(),
        "space": _space(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def alive(identity: Mapping[str, Any]) -> bool | None:
    """Return whether the process that `this_process` described still runs; None where it is on another machine."""
    if identity.get("host") != platform.node() or identity.get("space", "") != _space():
        return None
    try:
        number, born = int(identity["process"]), int(identity.get("born", 0))
    except (KeyError, TypeError, ValueError):
        return False
    return is_running(number) and (not born or _born(number) in (0, born))  # else the number is another process's now


def is_running(process: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def processors() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _born(process: int) -> int:
    """Return when the process started, in clock ticks since the machine did; 0 where that cannot be known."""
    try:
        # The name in brackets may hold anything; what follows it is plain. Field 22 is the 20th after it.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _space() -> str:
    """Return what process numbers refer to: this start of the machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_locked(root: Path) -> bool:
    try:
        with FileLock(root / NAME, timeout=0):
            return False
    except (Timeout, OSError):  # who may not write there cannot try the lock
        return True
