"""Results at an address such as s3://bucket/path: a local copy of it, and one trial's working copy on each node.

Commands pull the address into a local mirror and read that. A trial runs in a working copy of its own directory and
pushes it after each checkpoint and at its end. `result.json` alone means done: it is written last and removed first.
"""

import contextlib
import hashlib
import itertools
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache as memoized
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from filelock import FileLock

from dtbench.data import cache
from dtbench.data.download import within
from dtbench.data.files import atomic_path
from dtbench.errors import LedgerError, LedgerUnwritable
from dtbench.ledger import lock
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec

OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss")  # a file is seen there when it is whole
RESULT = "result.json"
HEAVY = ("checkpoint.pt",)  # what a mirror leaves at the address
CHECK_SECONDS = 20.0  # that a first sign of life may take

_CONNECTIONS = 16
_PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between tries of a push in a running trial
_MIRROR_OF = ".mirror-of"  # in a mirror: its address
_SETTLED = 2_000_000_000  # nanoseconds after which a file of the same size and time must be the same file
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; on EC2 with a role AWS_EC2_METADATA_DISABLED="
    "false. Your own server: s3://bucket/path?endpoint_override=host:port&scheme=http",
    "gs": "`gcloud auth application-default login`, or a key file in GOOGLE_APPLICATION_CREDENTIALS; a public bucket "
    "is gs://anonymous@bucket/path",
    "ab": "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or ?credential_kind=cli",
}

Known = dict[str, tuple[int, int, int]]  # path -> what tells versions of a local file apart: inode, size, time


@dataclass(frozen=True)
class Remote:
    """A directory at an address; may be pickled, and opens its filesystem where it is used.

    Paths are relative to it, with `/`. Every method raises LedgerError, in one line with what to do, where the server
    does not answer, does not know us, or forbids it.
    """

    uri: str

    def __str__(self) -> str:
        """Return the address without credentials and options."""
        parts = urlsplit(self.uri)
        user, _, host = parts.netloc.rpartition("@")
        # Azure writes the container where others have a user.
        named = f"{user}@{host}" if user and ":" not in user and parts.scheme != "s3" else host
        return urlunsplit((parts.scheme, named, parts.path, "", ""))

    def check(self) -> None:
        """Raise LedgerError unless the place answers within seconds and its bucket exists."""
        with self._explained("reach"):
            # Libraries retry for minutes, and silence may last for ever.
            within(CHECK_SECONDS, self._check)

    def listing(self, prefix: str = "") -> dict[str, Any]:
        """Return pyarrow's FileInfo of every file below a directory, by path; none where it does not exist.

        Raises LedgerError for names that would lead out of the directory that they are copied to.
        """
        with self._explained("list"):
            found = {info.path: info for info in self._infos(prefix) if info.is_file}
        for path in found:
            if {"", ".", ".."} & {*path.split("/")} or any(c in path for c in "\\\0\n"):
                raise LedgerError(f"{self} holds a file named {path!r}, which no ledger writes. Remove it.")
        return found

    def read(self, path: str) -> bytes | None:
        """Return a file's content; None where there is none of that name."""
        with self._explained(f"read {path} of"):
            try:
                with self._filesystem.open_input_file(path) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes) -> None:
        """Write a file; in an object store whoever reads it finds all of it, or what was there before."""
        with self._explained(f"write {path} to"):
            if urlsplit(self.uri).scheme not in OBJECT_STORES:
                self._filesystem.create_dir(str(PurePosixPath(path).parent), recursive=True)
            # A stream that is closed half-way, as `with` does on an error, would put half a file there.
            stream = self._filesystem.open_output_stream(path)
            stream.write(content)
            stream.close()

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._explained(f"remove {path} from"), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def pull(self, folder: Path, prefix: str = "", *, skip: Sequence[str] = ()) -> None:
        """Make `folder` below `prefix` equal to the address, but for files named in `skip`.

        A fetched file gets the time that the address gives it, so that it is not fetched twice, unless it may be
        written again within the second that this time tells.
        """
        listing = {path: info for path, info in self.listing(prefix).items() if not _is_private(path)}
        newest = max((info.mtime_ns or 0 for info in listing.values()), default=0)
        wanted = {path: info for path, info in listing.items() if PurePosixPath(path).name not in skip}
        known = local_files(folder, prefix)

        def fetch(path: str) -> None:
            content, modified = self.read(path), wanted[path].mtime_ns or 0
            if content is None:  # removed since it was listed
                return
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / path) as beside:
                beside.write_bytes(content)
                if newest - modified > _SETTLED:
                    os.utime(beside, ns=(modified, modified))

        _results_last(fetch, [p for p, info in wanted.items() if known.get(p, ())[1:] != (info.size, info.mtime_ns)])
        for path in known.keys() - wanted.keys():
            (folder / path).unlink(missing_ok=True)

    def push(self, folder: Path, prefix: str, known: Known) -> None:
        """Make the address below `prefix` what is in `folder`, whatever order a reader sees it in.

        `known` is what `local_files` gave when both were equal, and is brought up to date.
        """
        now = local_files(folder, prefix)
        gone = [path for path in known if path not in now]
        for path in gone:
            if path.endswith(RESULT):
                self.delete(path)
        _results_last(lambda p: self.write(p, (folder / p).read_bytes()), [p for p in now if known.get(p) != now[p]])
        for path in gone:
            if not path.endswith(RESULT):
                self.delete(path)
        known.clear()
        known.update(now)

    def scratch(self) -> tuple[str, Any]:
        """Return (a directory for Tune's own files, its filesystem), for whoever holds the ledger."""
        path = "runs/.tune"
        self.remove_scratch(path)  # of a driver that was killed
        return path, self._filesystem

    def remove_scratch(self, scratch: str) -> None:
        """Remove what `scratch` gave, if it can be done: nothing depends on it."""
        with contextlib.suppress(LedgerError), self._explained("remove scratch files of"):
            self._filesystem.delete_dir(scratch)

    @property
    def _filesystem(self) -> Any:
        return _filesystem(self.uri)

    def _check(self) -> None:
        from pyarrow import fs

        top = self._filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))
        if top or urlsplit(self.uri).scheme not in OBJECT_STORES:
            return
        bucket = self._filesystem.base_path.split("/")[0]
        with contextlib.suppress(PermissionError):  # who may list may not always ask for the bucket itself
            if not self._filesystem.base_fs.get_file_info(bucket).type:
                raise LedgerError(f"cannot reach {self}: there is no bucket {bucket!r}. Create it first.")

    def _infos(self, prefix: str) -> list[Any]:
        from pyarrow import fs

        selector = fs.FileSelector(prefix, recursive=True, allow_not_found=True)
        found: list[Any] = self._filesystem.get_file_info(selector)
        return found

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what a filesystem raises into one line without credentials."""
        from pyarrow import ArrowException

        try:
            yield
        except (OSError, ValueError, NotImplementedError, ArrowException) as error:
            text = " ".join(str(error).replace(self.uri, str(self)).split())[:200].rstrip(" .:")
            parts = urlsplit(self.uri)
            endpoint = parse_qs(parts.query).get("endpoint_override")
            where = f" at {endpoint[0]}" if endpoint else ""
            credentials = _CREDENTIALS.get("gs" if parts.scheme == "gcs" else parts.scheme[:2], "")
            advice = f"Check the address, the network and the credentials: {credentials}".rstrip(": ")
            raise LedgerError(f"cannot {what} {self}{where}: {text}. {advice}.") from error


def results_folder(text: str | Path) -> Path:
    """Return the directory to work on for a path or an address; what is new at the address is fetched first.

    Raises LedgerError, within seconds, where an address does not answer.
    """
    scheme, found, _ = str(text).partition("://")
    if not found:
        return Path(text)
    parts = urlsplit(str(text))
    if scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Path(unquote(parts.path))
    if scheme not in OBJECT_STORES or not parts.netloc:
        known = ", ".join(f"{name}://bucket/path" for name in OBJECT_STORES)
        raise LedgerError(f"no results at {text}: use a directory of this machine, or one of {known}.")
    remote = Remote(urlunsplit(parts._replace(path=parts.path.rstrip("/"))))
    remote.check()
    folder = _mirror_of(remote)
    with _held(folder):
        remote.pull(folder, skip=HEAVY)
    return folder


def remote_of(folder: Path) -> Remote | None:
    """Return the address of which a results directory, or the `runs` in it, is the mirror; None for any other."""
    for place in (folder, folder.parent):
        # A file that came with someone's results, in another place, says nothing.
        if (place / _MIRROR_OF).is_file() and place.resolve().parent == _mirrors().resolve():
            return Remote((place / _MIRROR_OF).read_text().strip())
    return None


def name_of(results: Path) -> str:
    """Return what a user calls a results directory: the address of a mirror, else its path."""
    return str(remote_of(results) or results)


@contextmanager
def published(results: Path, *, fresh: bool = True) -> Iterator[None]:
    """Within, a results directory's suites and scores may be written; they reach the address that it mirrors.

    `fresh`: what others have written there since is fetched first, trials too.
    """
    remote = remote_of(results)
    if remote is None:
        yield
        return
    with _held(results):
        if fresh:
            remote.pull(results, skip=HEAVY)
        known = {prefix: local_files(results, prefix) for prefix in ("runs/suites", "scores")}
        yield
        for prefix, before in known.items():
            remote.push(results, prefix, before)


@contextmanager
def working_copy(remote: Remote, spec: TrialSpec) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """Give (a ledger on this node with what there is of one trial, the function that pushes what changed in it).

    The function tries for half a minute, then raises LedgerUnwritable.
    """
    with _scratch() as folder:
        new = Ledger(folder / "runs").folder(spec).relative_to(folder)
        listed = {PurePosixPath(path).parent.name for path in remote.listing(new.parent.as_posix())}
        found = [name for name in listed if name.endswith(f"-{spec.key}")]  # under another label, maybe
        prefix = (new.with_name(found[0]) if found else new).as_posix()
        remote.pull(folder, prefix)
        known = local_files(folder, prefix)

        def keep(written: Path) -> None:
            _patiently(lambda: remote.push(folder, written.relative_to(folder).as_posix(), known))

        yield folder / "runs", keep


@contextmanager
def acquire(results: Path) -> Iterator[None]:
    """Hold the ledger of a results directory, or of the address that it mirrors, while it is written to.

    Raises LedgerError where another run does.
    """
    remote = remote_of(results)
    with lock.acquire_at(remote) if remote else lock.acquire(results / "runs"):
        yield


def holder(results: Path) -> dict[str, Any] | None:
    """Return the run that holds the ledger of a results directory and is alive, or None."""
    remote = remote_of(results)
    return lock.holder_at(remote) if remote else lock.holder(results / "runs")


def local_files(folder: Path, prefix: str = "") -> Known:
    """Return the files of `folder` below `prefix`, without what belongs to this machine or moment."""
    paths = [path for path in (folder / prefix).rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {p: (s.st_ino, s.st_size, s.st_mtime_ns) for p, s in found.items() if not _is_private(p)}


def _is_private(path: str) -> bool:
    """Whether a file belongs to a machine or a moment: locks, scratch directories, what is being written."""
    parts = PurePosixPath(path).parts
    scratch = len(parts) > 1 and parts[0] == "runs" and parts[1].startswith(".")
    return parts[0].startswith(".") or scratch or (parts[-1].startswith(".") and parts[-1].endswith(".tmp"))


def _results_last(call: Callable[[str], None], paths: Iterable[str]) -> None:
    """Call for all paths, several at a time; for results when everything else is done."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        in_turn = sorted(paths, key=lambda path: path.endswith(RESULT))
        for _, turn in itertools.groupby(in_turn, key=lambda path: path.endswith(RESULT)):
            list(pool.map(call, turn))


@memoized
def _filesystem(uri: str) -> Any:
    """Return pyarrow's filesystem of the directory at an address."""
    from pyarrow import fs

    # Before Amazon's library starts: without credentials it would ask the cloud's metadata address for some.
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    filesystem, path = fs.FileSystem.from_uri(uri)
    return fs.SubTreeFileSystem(path, filesystem)


def _mirrors() -> Path:
    return cache.root() / ".results"


def _mirror_of(remote: Remote) -> Path:
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", str(remote))[:60].strip("-")
    folder = _mirrors() / f"{name}-{hashlib.sha256(remote.uri.encode()).hexdigest()[:12]}"
    try:
        if not (folder / _MIRROR_OF).exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _MIRROR_OF).touch(mode=0o600)  # an address may hold credentials
            (folder / _MIRROR_OF).write_text(f"{remote.uri}\n")
    except OSError as error:
        raise LedgerError(f"cannot write to {folder}: {error}. Set DTBENCH_DATA to a disk with room.") from error
    return folder


def _held(mirror: Path) -> FileLock:
    """Return the lock, re-entrant in this process, of the command that changes a mirror."""
    return FileLock(mirror / ".busy", is_singleton=True)


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a directory of this node for one trial; remove those of processes that were killed here."""
    parent = _mirrors() / f"work-{platform.node()}"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        process = left.name.partition("-")[0]
        if process.isdecimal() and not lock.is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _patiently(push: Callable[[], None]) -> None:
    for seconds in (*_PATIENCE, None):
        try:
            push()
        except LedgerError as error:
            if seconds is None:
                raise LedgerUnwritable(str(error)) from error
            time.sleep(seconds)
        else:
            return
