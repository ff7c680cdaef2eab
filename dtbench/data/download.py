"""Downloads that resume, and put only complete files under their final name."""

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
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from dtbench.data.files import atomic_path
from dtbench.errors import DtbenchError, InvalidDataset, MissingDataset

OnBytes = Callable[[int, int | None], None]  # bytes so far, and in total where the server states it
T = TypeVar("T")

PATIENCE = 3.0  # seconds until a host counts as unreachable
STALLED = 30.0  # seconds without a byte
BLOCK = 1 << 20

_SILENT: set[tuple[str, int]] = set()  # hosts and ports that did not answer
_LISTENER: ContextVar[OnBytes | None] = ContextVar("_LISTENER", default=None)


@contextmanager
def reporting(on_bytes: OnBytes) -> Iterator[None]:
    """Let downloads within the block call `on_bytes`."""
    token = _LISTENER.set(on_bytes)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def download(url: str, path: Path) -> None:
    """Fetch `url` to `path` unless it exists; a part of it stays in `<name>.part` and is continued.

    Url, size and sha256 are written beside the file, to `<name>.sha256`. A second process waits for the first. Raises
    MissingDataset where the server cannot be reached or the connection breaks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, notes = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.is_file():
            return
        try:
            check_reachable(url)
            _fill(url, part, notes)
        except (OSError, http.client.HTTPException) as error:
            raise MissingDataset(_lost(url, path, part, notes, error)) from error
        receipt = {"url": url, "size": part.stat().st_size, "sha256": sha256_of(part)}
        _receipt_path(path).unlink(missing_ok=True)
        part.replace(path)
        notes.unlink(missing_ok=True)
        with atomic_path(_receipt_path(path)) as beside:
            beside.write_text(json.dumps(receipt, indent=2) + "\n")


def check_file(path: Path) -> str:
    """Return a file's sha256; raise InvalidDataset where it is not that of its download."""
    downloaded = _read_json(_receipt_path(path)).get("sha256")
    sha256 = sha256_of(path)
    if downloaded not in (None, sha256):
        raise InvalidDataset(f"{path} has changed since its download: sha256 {sha256}, not {downloaded}. Delete it.")
    return sha256


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_reachable(url: str) -> None:
    """Raise OSError within seconds where a host cannot be reached; resolving its name may itself take half a minute.

    With $DTBENCH_OFFLINE set only this machine is contacted. A host that did not answer is not contacted again.
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
        raise ConnectionError(f"DTBENCH_OFFLINE is set, so {host} is not contacted")
    if (host, port) in _SILENT:
        raise TimeoutError(f"{host} gave no answer before")
    try:
        within(PATIENCE, lambda: socket.create_connection((host, port), timeout=PATIENCE).close(), host)
    except OSError:
        if not local:
            _SILENT.add((host, port))
        raise


def within(seconds: float, call: Callable[[], T], whom: str = "") -> T:
    """Return `call()`; raise TimeoutError where it takes longer, and leave its thread running."""
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
        if answer.done():  # raised by `call` itself
            raise
        raise TimeoutError(f"no answer{whom and f' from {whom}'} within {seconds:g} s") from None


def _fill(url: str, part: Path, notes: Path) -> None:
    """Fetch the rest of the part; start again where the server has another file."""
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
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
