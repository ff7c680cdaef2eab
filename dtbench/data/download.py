"""Downloads that can be interrupted: resumed where they broke off, and never half a file under the final name."""

import hashlib
import http.client
import json
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dtbench.errors import DtbenchError, InvalidDataset, MissingDataset

OnBytes = Callable[[int, int | None], None]  # bytes so far, and in all where the server says

PATIENCE = 3.0  # seconds to find out that there is no network
STALLED = 30.0  # seconds without a byte
BLOCK = 1 << 20

_SILENT: set[tuple[str, int]] = set()  # hosts and ports that did not answer this process
_LISTENER: ContextVar[OnBytes | None] = ContextVar("_LISTENER", default=None)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was downloaded: kept as JSON beside the file, in `<name>.sha256`."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """A server's answer: its body, where that begins in the file, and how the file can be recognised later."""

    body: Any
    first: int
    total: int | None
    validator: str | None


@contextmanager
def reporting(on_bytes: OnBytes) -> Iterator[None]:
    """Within, downloads tell `on_bytes` how far they are: whoever shows progress is far from whoever downloads."""
    token = _LISTENER.set(on_bytes)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def download(url: str, path: Path) -> Receipt:
    """Fetch `url` to `path`, unless it is there; what arrived before a break stays in `<name>.part` and is continued.

    A part is only continued where the server vouches for it being of the same file (If-Range). A second process that
    wants the same file waits for the first. Raises MissingDataset where the server cannot be reached or the connection
    breaks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if path.is_file():
            return read_receipt(path) or Receipt(url, path.stat().st_size, sha256_of(path))
        part = path.with_name(f"{path.name}.part")
        try:
            check_reachable(url)
            with part.open("ab") as file:
                receipt = _fill(url, part, file)
        except (OSError, http.client.HTTPException) as error:
            raise MissingDataset(_lost(url, path, part, error)) from error
        _receipt_path(path).unlink(missing_ok=True)
        part.replace(path)
        _notes_path(part).unlink(missing_ok=True)
        return _write_receipt(path, receipt)


def read_receipt(path: Path) -> Receipt | None:
    """The receipt beside a downloaded file; None where there is none, or none that belongs to a file of this size."""
    found = _read_json(_receipt_path(path))
    try:
        receipt = Receipt(str(found["url"]), int(found["size"]), str(found["sha256"]))
    except (KeyError, TypeError, ValueError):
        return None
    return receipt if path.is_file() and path.stat().st_size == receipt.size else None


def check_file(path: Path) -> str:
    """Hash a file again and give its sha256; raise InvalidDataset where its receipt says another."""
    found = _read_json(_receipt_path(path)).get("sha256")
    sha256 = sha256_of(path)
    if found is not None and found != sha256:
        raise InvalidDataset(f"{path} has changed since its download: sha256 {sha256}, it was {found}. Delete it.")
    return sha256


def sha256_of(path: Path) -> str:
    """Sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(url: str, part: Path, file: Any) -> Receipt:
    """Bring the part to its full length; `file` is the part, open to be written at its end."""
    answer = _ask(url, part, file.tell())
    with answer.body:
        if answer.first != file.tell():
            file.truncate(answer.first)
            file.seek(answer.first)
        _notes_path(part).write_text(json.dumps({"url": url, "validator": answer.validator}) + "\n")
        sha, size = _sha_of_beginning(part, answer.first)
        while block := answer.body.read(BLOCK):
            file.write(block)
            sha.update(block)
            size += len(block)
            if listener := _LISTENER.get():
                listener(size, answer.total)
    file.flush()
    os.fsync(file.fileno())
    if answer.total is not None and size != answer.total:
        raise ConnectionError(f"the connection ended after {size} of {answer.total} bytes")
    return Receipt(url, size, sha.hexdigest())


def _ask(url: str, part: Path, have: int) -> _Answer:
    """Ask for what is missing, or for all of it where the part may be of another file."""
    notes = _read_json(_notes_path(part))
    validator = notes.get("validator") if notes.get("url") == url else None
    headers = {"User-Agent": "dtbench", "Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": str(validator)}
    try:
        body = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=STALLED)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            _notes_path(part).unlink(missing_ok=True)  # the part is as long as the file, or longer: begin anew
            return _ask(url, part, 0)
        raise
    first, total = _extent(body, have if "Range" in headers else 0)
    etag = body.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None  # If-Range takes no weak ones
    return _Answer(body, first, total, strong or body.headers.get("Last-Modified"))


def _extent(body: Any, asked: int) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how long the file is."""
    if body.status == http.HTTPStatus.PARTIAL_CONTENT:
        unit, _, said = body.headers.get("Content-Range", "").partition(" ")
        span, _, total = said.partition("/")
        first = span.partition("-")[0]
        if unit != "bytes" or not first.isdigit() or int(first) != asked:
            raise ConnectionError(f"the server sent {said or 'a part'} when asked for the bytes from {asked}")
        return asked, int(total) if total.isdigit() else None
    length = body.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def check_reachable(url: str) -> None:
    """Raise OSError within seconds where there is no network; a resolver alone may take half a minute to say so.

    With $DTBENCH_OFFLINE set nothing but this machine is asked; a place that did not answer is not asked again.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DtbenchError(f"{url!r} is no address that dtbench can download: it must begin with http:// or https://.")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    where = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    local = where[0] in ("localhost", "127.0.0.1", "::1")
    if os.environ.get("DTBENCH_OFFLINE") and not local:
        raise ConnectionError(f"DTBENCH_OFFLINE is set, so {where[0]} is not asked")
    if where in _SILENT:
        raise TimeoutError(f"{where[0]} gave no answer before")
    outcome: list[OSError | None] = []

    def knock() -> None:
        try:
            socket.create_connection(where, timeout=PATIENCE).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not local and (not outcome or outcome[0] is not None):
        _SILENT.add(where)
    if not outcome:
        raise TimeoutError(f"no answer from {where[0]} within {PATIENCE:g} s")
    if outcome[0]:
        raise outcome[0]


def _lost(url: str, path: Path, part: Path, error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) and error.reason else error
    kept = part.stat().st_size if part.is_file() else 0
    if part.is_file() and not kept:
        part.unlink()
        _notes_path(part).unlink(missing_ok=True)
    code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
    again = f"{kept} bytes are kept: run the command again to continue" if kept else "Try again with a network"
    return f"{url} could not be downloaded: {code}{reason}. {again}, or put the file at {path} yourself."


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("a") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two downloads at once would spoil each other's part
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sha_of_beginning(part: Path, size: int) -> tuple[Any, int]:
    sha, left = hashlib.sha256(), size
    with part.open("rb") as file:
        while left and (block := file.read(min(BLOCK, left))):
            sha.update(block)
            left -= len(block)
    return sha, size - left


def _receipt_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _notes_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_receipt(path: Path, receipt: Receipt) -> Receipt:
    temporary = path.with_name(f".{path.name}.sha256.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(receipt), indent=2) + "\n")
    temporary.replace(_receipt_path(path))
    return receipt


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
