"""Downloads that continue where they broke off, and never leave half a file under the final name."""

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
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from dtbench.data.files import atomic_path
from dtbench.errors import DtbenchError, InvalidDataset, MissingDataset

OnBytes = Callable[[int, int | None], None]  # bytes so far, and in all where the server says
T = TypeVar("T")

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


@contextmanager
def reporting(on_bytes: OnBytes) -> Iterator[None]:
    """Within, downloads call `on_bytes`: whoever shows progress is far from whoever downloads."""
    token = _LISTENER.set(on_bytes)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def download(url: str, path: Path) -> Receipt:
    """Fetch `url` to `path`, unless it is there; what arrived before a break stays in `<name>.part` and is continued.

    A second process that wants the same file waits for the first. Raises MissingDataset where the server cannot be
    reached or the connection breaks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, notes = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.is_file():
            return read_receipt(path) or Receipt(url, path.stat().st_size, sha256_of(path))
        try:
            check_reachable(url)
            _fill(url, part, notes)
        except (OSError, http.client.HTTPException) as error:
            raise MissingDataset(_lost(url, path, part, notes, error)) from error
        receipt = Receipt(url, part.stat().st_size, sha256_of(part))
        _receipt_path(path).unlink(missing_ok=True)
        part.replace(path)
        notes.unlink(missing_ok=True)
        with atomic_path(_receipt_path(path)) as beside:
            beside.write_text(json.dumps(asdict(receipt), indent=2) + "\n")
        return receipt


def read_receipt(path: Path) -> Receipt | None:
    """Return the receipt beside a downloaded file; None where there is none that belongs to a file of this size."""
    found = _read_json(_receipt_path(path))
    try:
        receipt = Receipt(str(found["url"]), int(found["size"]), str(found["sha256"]))
    except (KeyError, TypeError, ValueError):
        return None
    return receipt if path.is_file() and path.stat().st_size == receipt.size else None


def check_file(path: Path) -> str:
    """Hash a file again and return its sha256; raise InvalidDataset where its receipt says another."""
    found = _read_json(_receipt_path(path)).get("sha256")
    sha256 = sha256_of(path)
    if found is not None and found != sha256:
        raise InvalidDataset(f"{path} has changed since its download: sha256 {sha256}, it was {found}. Delete it.")
    return sha256


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_reachable(url: str) -> None:
    """Raise OSError within seconds where there is no network; a resolver alone may take half a minute to say so.

    With $DTBENCH_OFFLINE set nothing but this machine is asked; a place that did not answer is not asked again.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DtbenchError(f"cannot download {url!r}: an address begins with http:// or https://.")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    local = host in ("localhost", "127.0.0.1", "::1")
    if os.environ.get("DTBENCH_OFFLINE") and not local:
        raise ConnectionError(f"DTBENCH_OFFLINE is set, so {host} is not asked")
    if (host, port) in _SILENT:
        raise TimeoutError(f"{host} gave no answer before")
    try:
        within(PATIENCE, lambda: socket.create_connection((host, port), timeout=PATIENCE).close(), host)
    except OSError:
        if not local:
            _SILENT.add((host, port))
        raise


def within(seconds: float, call: Callable[[], T], whom: str = "") -> T:
    """Return `call()`; raise TimeoutError where it takes longer, and leave it behind in its thread."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except TimeoutError:
        if answer.done():  # its own
            raise
        raise TimeoutError(f"no answer{whom and f' from {whom}'} within {seconds:g} s") from None


def _fill(url: str, part: Path, notes: Path) -> None:
    """Bring the part to its full length; continue it where the server says that the file is the same."""
    have, known = part.stat().st_size if part.exists() else 0, _read_json(notes)
    headers = {"User-Agent": "dtbench", "Accept-Encoding": "identity"}
    if have and known.get("url") == url and known.get("validator"):
        headers |= {"Range": f"bytes={have}-", "If-Range": str(known["validator"])}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=STALLED)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or "Range" not in headers:
            raise
        part.unlink()  # as long as the file, or longer
        _fill(url, part, notes)
        return
    with answer, part.open("ab") as file:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(have := 0)
        elif not (span := answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            raise ConnectionError(f"the server sent {span or 'a part'} when asked for the bytes from {have}")
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        etag = answer.headers.get("ETag")
        strong = etag if etag and not etag.startswith("W/") else None  # If-Range takes no weak ones
        notes.write_text(json.dumps({"url": url, "validator": strong or answer.headers.get("Last-Modified")}) + "\n")
        while block := answer.read(BLOCK):
            file.write(block)
            have += len(block)
            if listener := _LISTENER.get():
                listener(have, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _lost(url: str, path: Path, part: Path, notes: Path, error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) and error.reason else error
    kept = part.stat().st_size if part.is_file() else 0
    if not kept:
        part.unlink(missing_ok=True)
        notes.unlink(missing_ok=True)
    code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
    again = f"{kept} bytes are kept: run the command again to continue" if kept else "Try again with a network"
    return f"{url} could not be downloaded: {code}{reason}. {again}, or put the file at {path} yourself."


def _receipt_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
