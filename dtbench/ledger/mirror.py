"""A folder here that stands for one at an address, and is made equal to it or it to the folder."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dtbench.data.files import atomic_path
from dtbench.ledger.remote import Entry, Remote
from dtbench.ledger.store import write_json

try:
    import fcntl
except ImportError:  # not POSIX: two commands at the same time may read each other's half of a mirror
    fcntl = None  # type: ignore[assignment]

RESULT = "result.json"  # goes last: it alone means done
_KNOWN = ".known.json"  # what was equal on both sides when we last looked
_BUSY = ".busy"  # locked by the command that changes a mirror
_CONNECTIONS = 16  # files on their way at the same time
_SETTLED = 2_000_000_000  # nanoseconds after which a file of the same size and time must be the same file

_HELD: set[Path] = set()  # the mirrors that this process holds

T = TypeVar("T")


class Mirror:
    """A folder that stands for an address, and what is known to be equal on both sides."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        """Use `folder`, which need not exist yet."""
        self.remote, self.folder = remote, folder

    @property
    def left(self) -> list[str]:
        """The files that the last `pull` of everything skipped."""
        return list(self._known().get("left", ()))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, no other command on this machine changes the mirror; may be said again within."""
        if self.folder in _HELD:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _BUSY).open("w") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            _HELD.add(self.folder)
            try:
                yield
            finally:
                _HELD.discard(self.folder)

    def pull(self, prefix: str = "", *, skip: Sequence[str] = ()) -> None:
        """Make the folder below `prefix` what is at the address; files named in `skip` are left there."""
        listing = {path: entry for path, entry in self.remote.listing(prefix).items() if not _private(path)}
        wanted = {path: entry for path, entry in listing.items() if not _named(path, skip)}
        known = self._known()
        files = known["files"]
        stale = [path for path, entry in wanted.items() if not self._is_current(files.get(path), path, entry)]
        newest = max((entry.modified for entry in listing.values()), default=0)
        for path, digest in _in_order(lambda path: self._fetch(path, wanted[path]), stale, (RESULT,)):
            # A file may be written again within the second that its time tells, and then look the same.
            settled = newest - wanted[path].modified > _SETTLED
            files[path] = self._facts(path, digest, wanted[path] if settled else None)
        for path in {*self._files(prefix), *_below(files, prefix)} - wanted.keys():
            (self.folder / path).unlink(missing_ok=True)
            files.pop(path, None)
        if not prefix:
            known["left"] = sorted(listing.keys() - wanted.keys())
        self._remember(known)

    def push(self, prefix: str, *, last: Sequence[str] = (RESULT,)) -> None:
        """Make the address below `prefix` what is in the folder, whatever order a reader sees it in.

        Files named in `last` are there only while all others of their folder are.
        """
        known = self._known()
        files = known["files"]
        here = {path: self._digest(path) for path in self._files(prefix)}
        gone = [path for path in _below(files, prefix) if path not in here]
        changed = [path for path, digest in here.items() if (files.get(path) or {}).get("digest") != digest]
        self._delete([path for path in gone if _named(path, last)])
        for _ in _in_order(lambda path: self.remote.write(path, (self.folder / path).read_bytes()), changed, last):
            pass
        self._delete([path for path in gone if not _named(path, last)])
        for path in gone:
            del files[path]
        files.update({path: self._facts(path, here[path], None) for path in changed})
        self._remember(known)

    def _delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.remote.delete(path)

    def _fetch(self, path: str, entry: Entry) -> str:
        """Copy a file here; give its digest."""
        content = self.remote.read(path)
        if content is None:  # removed since it was listed
            return ""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as beside:
            beside.write_bytes(content)
            os.utime(beside, ns=(entry.modified, entry.modified))
        return _digest_of(content)

    def _is_current(self, facts: Mapping[str, Any] | None, path: str, entry: Entry) -> bool:
        return (
            facts is not None
            and facts["remote"] == [entry.size, entry.modified]
            and facts["local"] == self._stat(path)
        )

    def _facts(self, path: str, digest: str, entry: Entry | None) -> dict[str, Any]:
        remote = [entry.size, entry.modified] if entry else None
        return {"remote": remote, "local": self._stat(path), "digest": digest}

    def _stat(self, path: str) -> list[int] | None:
        try:
            found = (self.folder / path).stat()
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns]

    def _digest(self, path: str) -> str:
        return _digest_of((self.folder / path).read_bytes())

    def _files(self, prefix: str) -> list[str]:
        root = self.folder / prefix
        found = (path.relative_to(self.folder).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(path for path in found if not _private(path))

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads((self.folder / _KNOWN).read_text())
            return {"left": list(known["left"]), "files": dict(known["files"])}
        except (OSError, ValueError, KeyError, TypeError):  # then all is fetched again
            return {"left": [], "files": {}}

    def _remember(self, known: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _KNOWN, known)


def _below(files: Mapping[str, Any], prefix: str) -> list[str]:
    return sorted(path for path in files if not prefix or path.startswith(f"{prefix}/"))


def _private(path: str) -> bool:
    """Whether a file belongs to a machine or a moment: locks, scratch folders, what is being written."""
    parts = PurePosixPath(path).parts
    scratch = len(parts) > 1 and parts[0] == "runs" and parts[1].startswith(".")
    return parts[0].startswith(".") or scratch or (parts[-1].startswith(".") and parts[-1].endswith(".tmp"))


def _digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _in_order(work: Callable[[str], T], paths: Iterable[str], last: Sequence[str]) -> Iterator[tuple[str, T]]:
    """(path, what `work` gives), several at the same time; those named in `last` begin when all others are through."""
    batches: tuple[list[str], list[str]] = ([], [])
    for path in paths:
        batches[_named(path, last)].append(path)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for batch in batches:
            yield from zip(batch, list(pool.map(work, batch)), strict=True)


def _named(path: str, names: Sequence[str]) -> bool:
    return path.rpartition("/")[2] in names
