"""Results at an address such as s3://bucket/path: a local mirror of it, and one trial's working copy on each node.

Commands pull the address into a mirror and read that. A trial runs in a working copy of its own directory and pushes
it after each checkpoint and at its end. `result.json` alone means done: it is written last and removed first.
"""

import contextlib
import hashlib
import itertools
import os
import re
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

OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss")  # readers see a file there once it is whole
HEAVY = ("checkpoint.pt", "policy.pt")  # files that mirrors leave at the address
CHECK_SECONDS = 20.0  # for the first answer

_SCRATCH = "runs/.tune"
_CONNECTIONS = 16
_RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # between the attempts of a push in a running trial
_MIRROR_OF = ".mirror-of"  # in a mirror: its address
_TIME_RESOLUTION = 2_000_000_000  # nanoseconds: of files modified within it, equal times do not mean equal content
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; on EC2 with a role AWS_EC2_METADATA_DISABLED="
    "false. Your own server: s3://bucket/path?endpoint_override=host:port&scheme=http",
    "g": "`gcloud auth application-default login`, or a key file in GOOGLE_APPLICATION_CREDENTIALS; a public bucket "
    "is gs://anonymous@bucket/path",
    "abfs": "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or ?credential_kind=cli",
}

Known = dict[str, tuple[int, int, int]]  # path -> version of the local file: inode, size, time


def leads_out(path: str) -> bool:
    """Return whether a name at an address, copied to a directory, could lead out of it or be read as another."""
    return bool({"", ".", ".."} & {*path.split("/")}) or any(character in path for character in "\\\0\n")


@dataclass(frozen=True)
class Remote:
    """A directory at an address; can be pickled, and opens its filesystem where it is used.

    Paths are relative to it, with `/`. Every method raises LedgerError, in one line with what to do, where the server
    does not answer or refuses access.
    """

    uri: str

    def __str__(self) -> str:
        """Return the address without credentials and options."""
        parts = urlsplit(self.uri)
        user, _, host = parts.netloc.rpartition("@")
        # Azure writes the container in the place of the user.
        netloc = f"{user}@{host}" if user and ":" not in user and parts.scheme != "s3" else host
        return urlunsplit((parts.scheme, netloc, parts.path, "", ""))

    def check(self) -> None:
        """Raise LedgerError unless the server answers within seconds and the bucket exists."""
        with self._explained("reach"):
            within(CHECK_SECONDS, self._check)  # libraries retry for minutes

    def listing(self, prefix: str = "") -> dict[str, Any]:
        """Return pyarrow's FileInfo of every file below a directory, by path.

        Raises LedgerError for names that would lead out of the directory that they are copied to.
        """
        from pyarrow import fs

        selector = fs.FileSelector(prefix, recursive=True, allow_not_found=True)
        with self._explained("list"):
            infos = {info.path: info for info in self._filesystem.get_file_info(selector) if info.is_file}
        for path in infos:
            if leads_out(path):
                raise LedgerError(f"{self} holds a file named {path!r}, which no ledger writes. Remove it.")
        return infos

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None where it does not exist."""
        with self._explained(f"read {path} of"):
            try:
                with self._filesystem.open_input_file(path) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes) -> None:
        """Write a file; in an object store, readers get all of it or what was there before."""
        with self._explained(f"write {path} to"):
            if urlsplit(self.uri).scheme not in OBJECT_STORES:
                self._filesystem.create_dir(str(PurePosixPath(path).parent), recursive=True)
            # Not `with`: closing the stream after an error would upload half a file.
            stream = self._filesystem.open_output_stream(path)
            stream.write(content)
            stream.close()

    def delete(self, path: str) -> None:
        """Remove a file, if it exists."""
        with self._explained(f"remove {path} from"), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def pull(self, folder: Path, prefix: str = "", *, skip: Sequence[str] = ()) -> None:
        """Make `folder` below `prefix` equal to the address, except for files named in `skip`.

        A fetched file gets its time at the address, so that it is fetched once, unless it was modified so recently
        that the address may give the same time to a later version.
        """
        infos = {path: info for path, info in self.listing(prefix).items() if not _is_private(path)}
        newest = max((info.mtime_ns or 0 for info in infos.values()), default=0)
        wanted = {path: info for path, info in infos.items() if PurePosixPath(path).name not in skip}
        known = local_files(folder, prefix)

        def fetch(path: str) -> None:
            content, modified = self.read(path), wanted[path].mtime_ns or 0
            if content is None:  # removed since it was listed
                return
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / path) as temporary:
                temporary.write_bytes(content)
                if newest - modified > _TIME_RESOLUTION:
                    os.utime(temporary, ns=(modified, modified))

        _results_last(fetch, [p for p, info in wanted.items() if known.get(p, ())[1:] != (info.size, info.mtime_ns)])
        for path in known.keys() - wanted.keys():
            (folder / path).unlink(missing_ok=True)

    def push(self, folder: Path, prefix: str, known: Known) -> None:
        """Make the address below `prefix` equal to `folder`.

        `known` is what `local_files` gave when both were equal, and is updated.
        """
        now = local_files(folder, prefix)
        removed = sorted(known.keys() - now.keys(), key=_is_result)
        for path in filter(_is_result, removed):
            self.delete(path)
        _results_last(lambda p: self.write(p, (folder / p).read_bytes()), [p for p in now if known.get(p) != now[p]])
        for path in itertools.filterfalse(_is_result, removed):
            self.delete(path)
        known.clear()
        known.update(now)

    @contextmanager
    def scratch(self) -> Iterator[dict[str, Any]]:
        """Yield the storage of Tune's own files, for the holder of the ledger."""
        self._remove_scratch()  # of a driver that was killed
        try:
            yield {"storage_path": _SCRATCH, "storage_filesystem": self._filesystem}
        finally:
            self._remove_scratch()

    @property
    def _filesystem(self) -> Any:
        return _filesystem(self.uri)

    def _remove_scratch(self) -> None:
        with contextlib.suppress(LedgerError), self._explained("remove scratch files of"):
            self._filesystem.delete_dir(_SCRATCH)

    def _check(self) -> None:
        from pyarrow import fs

        top = self._filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))
        if top or urlsplit(self.uri).scheme not in OBJECT_STORES:
            return
        bucket = self._filesystem.base_path.split("/")[0]
        with contextlib.suppress(
            PermissionError
        ):  # the right to list may come without the right to ask for the bucket
            if not self._filesystem.base_fs.get_file_info(bucket).type:
                raise LedgerError(f"cannot reach {self}: there is no bucket {bucket!r}. Create it first.")

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn a filesystem's error into one line without credentials."""
        from pyarrow import ArrowException

        try:
            yield
        except (OSError, ValueError, NotImplementedError, ArrowException) as error:
            text = " ".join(str(error).replace(self.uri, str(self)).split())[:200].rstrip(" .:")
            parts = urlsplit(self.uri)
            endpoint = parse_qs(parts.query).get("endpoint_override")
            where = f" at {endpoint[0]}" if endpoint else ""
            credentials = next((how for name, how in _CREDENTIALS.items() if parts.scheme.startswith(name)), "")
            advice = f"Check the address, the network and the credentials: {credentials}".rstrip(": ")
            raise LedgerError(f"cannot {what} {self}{where}: {text}. {advice}.") from error


def results_folder(text: str | Path) -> Path:
    """Return the directory of a path, or the mirror of an address, brought up to date.

    Raises LedgerError, within seconds, where an address does not answer.
    """
    scheme, is_address, _ = str(text).partition("://")
    if not is_address:
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
    with _mirror_lock(folder):
        remote.pull(folder, skip=HEAVY)
    return folder


def remote_of(folder: Path) -> Remote | None:
    """Return the address that a results directory, or the `runs` in it, mirrors; None for any other directory."""
    for mirror in (folder, folder.parent):
        # Only below the cache: the file may have been copied along with someone's results.
        if (mirror / _MIRROR_OF).is_file() and mirror.resolve().parent == _mirrors().resolve():
            return Remote((mirror / _MIRROR_OF).read_text().strip())
    return None


@contextmanager
def published(results: Path, *, fresh: bool = True) -> Iterator[None]:
    """Push the suites and scores that are written within the block to the address that `results` mirrors, if any.

    With `fresh`, pull what others have written there first, trials included.
    """
    remote = remote_of(results)
    if remote is None:
        yield
        return
    with _mirror_lock(results):
        if fresh:
            remote.pull(results, skip=HEAVY)
        known = {prefix: local_files(results, prefix) for prefix in ("runs/suites", "scores")}
        yield
        for prefix, before in known.items():
            remote.push(results, prefix, before)


@contextmanager
def working_copy(remote: Remote, spec: TrialSpec) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """Yield a ledger on this node that holds the trial as it is at the address, and the function that pushes it.

    The function retries for half a minute, then raises LedgerUnwritable.
    """
    with lock.process_directory(_mirrors(), "work") as folder:
        new = Ledger(folder / "runs").folder(spec).relative_to(folder)
        names = {PurePosixPath(path).parent.name for path in remote.listing(new.parent.as_posix())}
        existing = [name for name in names if name.endswith(f"-{spec.key}")]  # perhaps under another label
        prefix = (new.with_name(existing[0]) if existing else new).as_posix()
        remote.pull(folder, prefix)
        known = local_files(folder, prefix)

        def push(written: Path) -> None:
            for seconds in (*_RETRY_SECONDS, None):
                try:
                    remote.push(folder, written.relative_to(folder).as_posix(), known)
                    break
                except LedgerError as error:
                    if seconds is None:
                        raise LedgerUnwritable(str(error)) from error
                    time.sleep(seconds)

        yield folder / "runs", push


@contextmanager
def acquire(results: Path) -> Iterator[None]:
    """Hold the ledger of a results directory, or of the address that it mirrors, while it is written to.

    Raises LedgerError where another run does.
    """
    remote = remote_of(results)
    with lock.acquire_at(remote) if remote else lock.acquire(results / "runs"):
        yield


def holder(results: Path) -> dict[str, Any] | None:
    """Return the live run that holds the ledger of a results directory, or None."""
    remote = remote_of(results)
    return lock.holder_at(remote) if remote else lock.holder(results / "runs")


def local_files(folder: Path, prefix: str = "") -> Known:
    """Return the versions of the files of `folder` below `prefix`, without private ones."""
    paths = [path for path in (folder / prefix).rglob("*") if path.is_file()]
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {p: (s.st_ino, s.st_size, s.st_mtime_ns) for p, s in stats.items() if not _is_private(p)}


def _is_private(path: str) -> bool:
    """Return whether a file stays on its machine: locks, scratch directories, files being written."""
    parts = PurePosixPath(path).parts
    scratch = len(parts) > 1 and parts[0] == "runs" and parts[1].startswith(".")
    return parts[0].startswith(".") or scratch or (parts[-1].startswith(".") and parts[-1].endswith(".tmp"))


def _is_result(path: str) -> bool:
    return path.endswith("result.json")


def _results_last(call: Callable[[str], None], paths: Iterable[str]) -> None:
    """Call for all paths, several at a time; for results when everything else is done."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for _, group in itertools.groupby(sorted(paths, key=_is_result), key=_is_result):
            list(pool.map(call, group))


@memoized
def _filesystem(uri: str) -> Any:
    """Return pyarrow's filesystem of the directory at an address."""
    from pyarrow import fs

    # Before Amazon's library starts: without credentials it would query the cloud's metadata address.
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


def _mirror_lock(mirror: Path) -> FileLock:
    """Return the lock, re-entrant in this process, of the command that changes a mirror."""
    return FileLock(mirror / ".busy", is_singleton=True)
