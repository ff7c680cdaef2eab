"""Results at an address such as s3://bucket/path: worked on in a folder here, which is kept equal to what is there.

Commands read and write a local mirror, so that they need to know of files alone. A trial runs in a working copy of its
own folder on the node that runs it, and tells the address after each durable write.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dtbench.data import cache
from dtbench.errors import LedgerError, LedgerUnwritable
from dtbench.ledger import lock
from dtbench.ledger import lock as processes
from dtbench.ledger.mirror import Mirror
from dtbench.ledger.remote import Remote, scheme_of
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec

HEAVY = ("checkpoint.pt",)  # what a mirror leaves where it is
LOCK = "runs/.lock"
_OF = ".mirror-of"  # the address that a mirror is of
_PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between tries of a push in a running trial


def results_folder(text: str | Path) -> Path:
    """The folder to work on for a path or an address; what is new at the address is fetched first.

    Raises LedgerError, within seconds, where an address does not answer.
    """
    scheme = scheme_of(str(text))
    if not scheme:
        return Path(text)
    if scheme == "file":
        return _local_path(str(text))
    remote = Remote(_tidy(str(text)))
    remote.check()
    mirror = _mirror_of(remote)
    with mirror.held():
        mirror.pull(skip=HEAVY)
    return mirror.folder


def remote_of(folder: Path) -> Remote | None:
    """The address of which a results folder, or the `runs` in it, is the mirror; None for any other folder."""
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):
            remote = Remote((place / _OF).read_text().strip())
            if _mirror_folder(remote).samefile(place):  # a file that came with someone's results says nothing
                return remote
    return None


def name_of(results: Path) -> str:
    """What a user calls a results folder: the address of a mirror, else its path."""
    return str(remote_of(results) or results)


@contextmanager
def published(results: Path, *, fresh: bool = True) -> Iterator[None]:
    """Within, a results folder's suites and scores may be written; they reach the address that it is a mirror of.

    `fresh`: what others have written there since is fetched first, trials too.
    """
    remote = remote_of(results)
    if remote is None:
        yield
        return
    mirror = _mirror_of(remote)
    with mirror.held():
        if fresh:
            mirror.pull(skip=HEAVY)
        yield
        for prefix in ("runs/suites", "scores"):
            mirror.push(prefix)


@contextmanager
def working_copy(remote: Remote, spec: TrialSpec) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """(ledger on this node with what there is of one trial, the function that tells the address what changed in it).

    The function tries for half a minute, then raises LedgerUnwritable.
    """
    with _scratch() as folder:
        copy = Mirror(remote, folder)
        copy.pull(_place(remote, folder, spec))

        def keep(written: Path) -> None:
            _patiently(lambda: copy.push(written.relative_to(folder).as_posix()))

        yield folder / "runs", keep


@contextmanager
def hold_remote(remote: Remote) -> Iterator[None]:
    """Hold the ledger at an address while it is written to; raise LedgerError where another run does.

    As with a folder, a holder on another machine is watched: its beat changes or it does not; no clocks are compared.
    """
    found = _lock_of(remote)
    if found and _works(remote, found):
        raise LedgerError(lock.in_use(str(remote), found))
    own = {**lock.description(0), "token": uuid.uuid4().hex}
    _write_lock(remote, own)
    time.sleep(1.0)  # who comes at the same moment writes in this time, and the last one has it
    if (now := _lock_of(remote)) and now.get("token") != own["token"]:
        raise LedgerError(lock.in_use(str(remote), now))
    with _beating(remote, own):
        yield


def remote_holder(remote: Remote) -> Mapping[str, Any] | None:
    """The run that holds the ledger at an address and is alive, or None."""
    found = _lock_of(remote)
    return found if found and _works(remote, found) else None


def held_back(results: Path) -> dict[str, set[str]]:
    """What a mirror left at its address: trial folder, relative to the results -> names of files."""
    remote = remote_of(results)
    found: dict[str, set[str]] = {}
    for path in _mirror_of(remote).left if remote else ():
        place, _, name = path.rpartition("/")
        found.setdefault(place, set()).add(name)
    return found


def complete(folder: Path, results: Path) -> None:
    """Fetch what a mirror left at its address of one trial's folder; it goes when the mirror is brought up to date."""
    if remote := remote_of(results):
        mirror = _mirror_of(remote)
        with mirror.held():
            mirror.pull(folder.relative_to(results).as_posix())


def publish_trial(folder: Path, results: Path) -> None:
    """Tell the address that a results folder is a mirror of what changed in one trial's folder."""
    if remote := remote_of(results):
        mirror = _mirror_of(remote)
        with mirror.held():
            mirror.push(folder.relative_to(results).as_posix())


def _mirror_of(remote: Remote) -> Mirror:
    folder = _mirror_folder(remote)
    try:
        if not (folder / _OF).exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _OF).touch(mode=0o600)  # an address may hold credentials
            (folder / _OF).write_text(f"{remote.uri}\n")
    except OSError as error:
        raise LedgerError(f"cannot write to {folder}: {error}. Set DTBENCH_DATA to a folder with room.") from error
    return Mirror(remote, folder)


def _mirror_folder(remote: Remote) -> Path:
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", str(remote))[:60].strip("-")
    return cache.root() / ".results" / f"{name}-{hashlib.sha256(remote.uri.encode()).hexdigest()[:12]}"


def _tidy(uri: str) -> str:
    """The address without the slash that its path may end with: it is the same place."""
    before, found, options = uri.partition("?")
    return f"{before.rstrip('/') if before.rstrip('/').count('/') > 1 else before}{found}{options}"


def _local_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise LedgerError(f"{uri} names no folder of this machine. Write file:///folder, or the folder itself.")
    return Path(unquote(parts.path))


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder of this node for one trial; those of processes that were killed here are removed."""
    parent = cache.root() / ".results" / f"work-{platform.node()}"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("*-*"):
        number = left.name.partition("-")[0]
        if number.isdecimal() and not processes.is_running(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(remote: Remote, folder: Path, spec: TrialSpec) -> str:
    """The trial's folder: the one that is there already, found by its key, or a new one."""
    new = Ledger(folder / "runs").folder(spec).relative_to(folder)
    found = [name for name in remote.folders(new.parent.as_posix()) if name.endswith(f"-{spec.key}")]
    return (new.with_name(found[0]) if found else new).as_posix()


def _patiently(push: Callable[[], None]) -> None:
    for seconds in _PATIENCE:
        try:
            return push()
        except LedgerError:
            time.sleep(seconds)
    try:
        return push()
    except LedgerError as error:
        raise LedgerUnwritable(str(error)) from error


def _lock_of(remote: Remote) -> dict[str, Any] | None:
    return lock.understood(remote.read(LOCK) or b"")


def _works(remote: Remote, found: Mapping[str, Any]) -> bool:
    """Whether the process that wrote the lock is at work."""
    here = processes.alive(found)
    return bool(lock.beats(lambda: _lock_of(remote)) if here is None else here)


@contextmanager
def _beating(remote: Remote, own: Mapping[str, Any]) -> Iterator[None]:
    """Count in the lock while it is ours; remove it at the end."""

    def ours() -> bool:
        return bool((_lock_of(remote) or {}).get("token") == own["token"])

    def beat(count: int) -> None:
        with contextlib.suppress(LedgerError):  # the trials' own writes tell of a server that is gone
            if ours():
                _write_lock(remote, {**own, "beat": count})

    try:
        with lock.beating(beat):
            yield
    finally:
        with contextlib.suppress(LedgerError):
            if ours():
                remote.delete(LOCK)


def _write_lock(remote: Remote, content: Mapping[str, Any]) -> None:
    remote.write(LOCK, json.dumps(content, sort_keys=True).encode())
