"""Locks on a results directory or address, and the identity of the process that holds one."""

import contextlib
import hashlib
import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
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

NAME = ".lock"  # the operating system releases it when the process ends, also by a kill
OWNER = ".lock-owner.json"
AT = "runs/.lock"  # in an object store
BEAT_SECONDS = 5.0  # between heartbeats
SETTLE_SECONDS = 1.0
WATCH_SECONDS = 16.0  # a holder on another machine without a heartbeat for this long is dead


@contextmanager
def acquire(root: Path) -> Iterator[None]:
    """Hold the ledger at `root` while it is written to; a shared directory must support flock.

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


class ObjectStore(Protocol):
    """A results address without file locks."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None where it does not exist."""

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file."""

    def delete(self, path: str) -> None:
        """Remove a file."""


@contextmanager
def acquire_at(store: ObjectStore) -> Iterator[None]:
    """Hold the ledger in an object store; raise LedgerError where another run does.

    The holder increments a counter in a file; other machines watch whether it changes. A killed holder counts as dead
    after WATCH_SECONDS. No clocks are compared.
    """
    if holder := holder_at(store):
        raise LedgerError(in_use(str(store), holder))
    mine = {**description(), "token": uuid.uuid4().hex}
    write_owner(store, mine)
    time.sleep(SETTLE_SECONDS)  # of two that start at the same moment, the one that writes last holds it
    if (now := read_owner(store)) and now.get("token") != mine["token"]:
        raise LedgerError(in_use(str(store), now))
    ended = threading.Event()
    thread = threading.Thread(target=_send_heartbeats, args=(store, mine, ended), daemon=True, name="ledger-lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(LedgerError):
            if (read_owner(store) or {}).get("token") == mine["token"]:
                store.delete(AT)


def holder_at(store: ObjectStore) -> dict[str, Any] | None:
    """Return the live run that holds the ledger in an object store, or None."""
    record = read_owner(store)
    if not record or (here := alive(record)) is False:
        return None
    return record if here or _has_heartbeat(store, record) else None


def read_owner(store: ObjectStore) -> dict[str, Any] | None:
    """Return the last record of the holder in an object store."""
    return parse_owner(store.read(AT) or b"")


def write_owner(store: ObjectStore, record: Mapping[str, Any]) -> None:
    """Write the record of the holder in an object store."""
    store.write(AT, json.dumps(record, sort_keys=True).encode())


def _send_heartbeats(store: ObjectStore, mine: Mapping[str, Any], ended: threading.Event) -> None:
    for count in itertools.count(1):
        if ended.wait(BEAT_SECONDS):
            return
        with contextlib.suppress(LedgerError):  # the trials' writes report a server that is gone
            if (read_owner(store) or {}).get("token") == mine["token"]:
                write_owner(store, {**mine, "count": count})


def _has_heartbeat(store: ObjectStore, first: Mapping[str, Any]) -> bool:
    deadline = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(0.25, WATCH_SECONDS))
        if (now := read_owner(store)) and now != first:
            return True
    return False


def owner(root: Path) -> dict[str, Any] | None:
    """Return the record of the last holder of the ledger at `root`, dead or alive; None without one."""
    try:
        return parse_owner((root / OWNER).read_bytes())
    except OSError:
        return None


def holder(root: Path) -> dict[str, Any] | None:
    """Return the live run that holds the ledger at `root`, or None; for another machine's run, try the lock."""
    record = owner(root)
    if not record or (here := alive(record)) is False:
        return None
    return record if here or _is_locked(root) else None


def in_use(ledger: Path | str, holder: Mapping[str, Any] | None) -> str:
    """Return the error message for a second run."""
    run = "another run"
    if holder:
        run = (
            f"a run on {holder['host']} (process {holder['process']}, {holder['began']}): {holder.get('command', '')}"
        )
    return f"the ledger {ledger} is in use by {run.rstrip(': ')}. Wait for it, or use --results DIRECTORY."


def parse_owner(text: bytes) -> dict[str, Any] | None:
    """Return a holder's record; None for anything else."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"host", "process", "began"} <= record.keys() else None


def description() -> dict[str, Any]:
    """Return the record of this process as a holder."""
    return {**this_process(), "command": " ".join(sys.argv[1:])[:200]}


def this_process() -> dict[str, Any]:
    """Return host, process ID and start of this process, and the time."""
    return {
        "host": platform.node(),
        "space": _space(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def alive(identity: Mapping[str, Any]) -> bool | None:
    """Return whether the process with this identity still runs; None where it is on another machine."""
    if identity.get("host") != platform.node() or identity.get("space", "") != _space():
        return None
    try:
        number, born = int(identity["process"]), int(identity.get("born", 0))
    except (KeyError, TypeError, ValueError):
        return False
    return is_running(number) and (not born or _born(number) in (0, born))  # else the ID was reused


def is_running(process: int) -> bool:
    """Return whether a process with this ID runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def process_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a directory below `parent` for this process; remove those of processes that were killed here."""
    parent.mkdir(parents=True, exist_ok=True)
    node = hashlib.sha256(platform.node().encode()).hexdigest()[:4]  # short: paths of sockets are limited
    prefix = f"{prefix}-{node}-"
    for left in parent.glob(f"{prefix}*"):
        process = left.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent.resolve()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def processors() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _born(process: int) -> int:
    """Return when the process started, in clock ticks since boot; 0 where unknown."""
    try:
        # The name in brackets may contain anything, so split after it: field 22 is the 20th from there.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _space() -> str:
    """Return the scope of process IDs: this boot of the machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_locked(root: Path) -> bool:
    try:
        with FileLock(root / NAME, timeout=0):
            return False
    except (Timeout, OSError):  # without write access the lock cannot be tried
        return True
