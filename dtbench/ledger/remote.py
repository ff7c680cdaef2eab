"""A folder that is not on this machine: any address that pyarrow has a filesystem for; whole files in and out."""

import contextlib
import os
import platform
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit, urlunsplit

from dtbench.errors import LedgerError
from dtbench.ledger.lock import is_running

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
_FAMILY = {"gcs": "gs", "abfss": "abfs"}
_DENIED = ("ACCESS_DENIED", "ACCESS DENIED", "403", "CREDENTIAL", "SIGNATURE", "ACCESS_KEY", "PERMISSION", "AUTHENT")
OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss")  # they know no folders, and show a file when it is whole
CHECK_SECONDS = 20.0  # that a first sign of life may take
CONNECT_SECONDS = 5.0
_S3_OPTIONS: dict[str, Callable[[str], str | bool]] = {  # what an address may say after its `?` -> how it is read
    "region": str,
    "scheme": str,
    "endpoint_override": str,
    "tls_ca_file_path": str,
    "allow_bucket_creation": lambda text: text == "true",
    "force_virtual_addressing": lambda text: text == "true",
    "anonymous": lambda text: text == "true",
}
_OWN_SERVER = " A server of your own is s3://bucket/path?endpoint_override=host:port&scheme=http."
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that may list, read and "
    "write there; on EC2 with a role say AWS_EC2_METADATA_DISABLED=false.",
    "gs": "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file; on "
    "Google's machines say GCE_METADATA_HOST=metadata.google.internal; a public bucket is gs://anonymous@bucket/path.",
    "abfs": "Set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or say ?credential_kind=cli.",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing tells it."""

    size: int
    modified: int  # nanoseconds, by the clock of the server


@dataclass(frozen=True)
class Remote:
    """A folder on another machine or in a bucket; may be pickled, and opens its filesystem where it is used.

    All paths are relative to it, with `/`. Every method raises LedgerError, in one line with what to do, where the
    server does not answer, does not know us, or forbids it.
    """

    uri: str

    def __str__(self) -> str:
        """The address without credentials and options."""
        parts = self._parts
        user, _, host = parts.netloc.rpartition("@")
        # Azure writes the container where others have a user.
        named = f"{user}@{host}" if user and ":" not in user and parts.scheme != "s3" else host
        return urlunsplit((parts.scheme, named, parts.path, "", ""))

    def check(self) -> None:
        """Raise LedgerError unless the place answers within seconds and exists, as far as a bucket must exist."""
        with self._telling("reach"):
            _within(CHECK_SECONDS, self._check)

    def listing(self, prefix: str = "") -> dict[str, Entry]:
        """All files below a folder, however deep, by path; none where it does not exist.

        Raises LedgerError for names that would lead out of the folder that they are copied to.
        """
        with self._telling("list"):
            found = [info for info in self._infos(prefix, recursive=True) if info.is_file]
        return {self._safe(info.path): Entry(info.size or 0, info.mtime_ns or 0) for info in found}

    def folders(self, prefix: str) -> list[str]:
        """The names of what lies in a folder and is no file."""
        with self._telling("list"):
            found = [info for info in self._infos(prefix, recursive=False) if not info.is_file]
        return sorted(PurePosixPath(self._safe(info.path)).name for info in found)

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none of that name."""
        filesystem, base = self._opened
        with self._telling(f"read {path} of"):
            try:
                with filesystem.open_input_file(f"{base}/{path}") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes) -> None:
        """Write a file: whoever reads it finds all of it, or what was there before."""
        filesystem, base = self._opened
        with self._telling(f"write {path} to"):
            if self.scheme in OBJECT_STORES:
                _put(filesystem, f"{base}/{path}", content)
            else:
                _replace(filesystem, PurePosixPath(f"{base}/{path}"), content)

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""
        filesystem, base = self._opened
        with self._telling(f"remove {path} from"), contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{path}")

    def push(self, folder: Path, prefix: str, *, only: Sequence[str]) -> None:
        """Write the files of these names, as far as the folder has them, below `prefix`."""
        for name in only:
            if (folder / name).exists():
                self.write(f"{prefix}/{name}", (folder / name).read_bytes())

    def scratch(self) -> tuple[str, Any]:
        """(a folder for Tune's own files, its filesystem); what killed drivers of this machine left is removed."""
        mark = f".tune-{platform.node()}-"
        for left in self.folders("runs"):
            process = left.removeprefix(mark).split("-")[0]
            if left.startswith(mark) and process.isdecimal() and not is_running(int(process)):
                self.remove_scratch(f"{self._opened[1]}/runs/{left}")
        filesystem, base = self._opened
        return f"{base}/runs/{mark}{os.getpid()}-{uuid.uuid4().hex[:8]}", filesystem

    def remove_scratch(self, scratch: str) -> None:
        """Remove what `scratch` gave, if it can be done: nothing depends on it."""
        with contextlib.suppress(LedgerError), self._telling("remove scratch files of"):
            self._opened[0].delete_dir(scratch)

    @property
    def scheme(self) -> str:
        """What the address begins with, e.g. s3."""
        return self._parts.scheme

    @cached_property
    def _parts(self) -> SplitResult:
        return urlsplit(self.uri)

    @property
    def _opened(self) -> tuple[Any, str]:
        """(filesystem, folder in it)."""
        return _filesystem(self.uri)

    def _check(self) -> None:
        filesystem, base = _filesystem(self.uri, hasty=True)
        if self.scheme not in OBJECT_STORES or self._infos("", recursive=False, opened=(filesystem, base)):
            return
        bucket = base.split("/")[0]
        try:
            found = filesystem.get_file_info(bucket)
        except PermissionError:  # who may list may not always ask for the bucket itself
            return
        if not found.type:
            raise LedgerError(f"cannot reach {self}: there is no bucket {bucket!r}{self._where}. Create it first.")

    def _infos(self, prefix: str, *, recursive: bool, opened: tuple[Any, str] | None = None) -> list[Any]:
        from pyarrow import fs

        filesystem, base = opened or self._opened
        place = f"{base}/{prefix}" if prefix else base
        found: list[Any] = filesystem.get_file_info(fs.FileSelector(place, recursive=recursive, allow_not_found=True))
        return found

    def _safe(self, path: str) -> str:
        relative = path.removeprefix(self._opened[1]).lstrip("/")
        parts = relative.split("/")
        if not relative or {"", ".", ".."} & set(parts) or any(c in relative for c in "\\\0\n"):
            raise LedgerError(f"{self} holds a file named {relative!r}: no ledger writes such. Remove it.")
        return relative

    @property
    def _where(self) -> str:
        endpoint = parse_qs(self._parts.query).get("endpoint_override")
        return f" at {endpoint[0]}" if endpoint else ""

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn what a filesystem raises into one line."""
        from pyarrow import ArrowException

        try:
            yield
        except LedgerError:
            raise
        except (OSError, ValueError, NotImplementedError, ArrowException) as error:
            raise LedgerError(f"cannot {what} {self}{self._where}: {_short(error)}. {self._remedy(error)}") from error

    def _remedy(self, error: Exception) -> str:
        text = str(error).upper()
        if any(word in text for word in _DENIED):
            return _CREDENTIALS.get(_FAMILY.get(self.scheme, self.scheme), "Check your credentials for it.")
        return f"Check the address and the network.{_OWN_SERVER if self.scheme == 's3' else ''}"


def scheme_of(text: str) -> str:
    """What an address begins with; "" for a plain path. Raises LedgerError for one that nothing is known of."""
    scheme, found, _ = text.partition("://")
    if not found:
        return ""
    if scheme not in SCHEMES:
        raise LedgerError(f"no filesystem for {text}. Write a folder, or an address of {', '.join(SCHEMES)}.")
    return scheme


@cache
def _filesystem(uri: str, hasty: bool = False) -> tuple[Any, str]:
    """(pyarrow filesystem, folder in it); a hasty one gives up after the first try."""
    from pyarrow import fs

    scheme = scheme_of(uri)
    family = _FAMILY.get(scheme, scheme)
    # Before Amazon's library starts: without credentials it would ask the cloud's metadata address for some.
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    if scheme == "s3":
        filesystem, path = _s3(urlsplit(uri), attempts=1 if hasty else 4)
    elif family == "gs":
        filesystem, path = fs.FileSystem.from_uri(_google(uri, seconds=4 if hasty else 60))
    else:
        filesystem, path = fs.FileSystem.from_uri(_azure(uri) if family == "abfs" else uri)
    return filesystem, path.rstrip("/")


def _s3(parts: SplitResult, *, attempts: int) -> tuple[Any, str]:
    from pyarrow import fs

    said = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := sorted(said.keys() - _S3_OPTIONS.keys()):
        known = ", ".join(_S3_OPTIONS)
        raise LedgerError(f"unknown option {unknown[0]!r} in an s3:// address. Known: {known}.")
    options: dict[str, Any] = {name: _S3_OPTIONS[name](value) for name, value in said.items()}
    bucket = parts.netloc.rpartition("@")[2]
    if not bucket:
        raise LedgerError("an s3:// address names a bucket: s3://bucket/path.")
    if parts.username:
        options |= {"access_key": unquote(parts.username), "secret_key": unquote(parts.password or "")}
    filesystem = fs.S3FileSystem(
        **{"region": _region(bucket, options), **options},
        connect_timeout=CONNECT_SECONDS,
        request_timeout=CHECK_SECONDS,
        allow_delayed_open=True,  # one request for a file of a few megabytes, in place of three
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )
    return filesystem, f"{bucket}{unquote(parts.path)}"


def _region(bucket: str, options: Mapping[str, Any]) -> str | None:
    """Where a bucket of Amazon's lies; a server of one's own asks for none, but the protocol does."""
    from pyarrow import fs

    if "region" in options or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        return None
    if "endpoint_override" in options or {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & os.environ.keys():
        return "us-east-1"
    return str(fs.resolve_s3_region(bucket))


def _google(uri: str, *, seconds: int) -> str:
    """The address with an end to its retries, a quarter of an hour otherwise; it must not ask for credentials."""
    key = Path(os.environ.get("CLOUDSDK_CONFIG", "~/.config/gcloud")) / "application_default_credentials.json"
    known = {"GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"} & os.environ.keys() or key.expanduser().exists()
    if urlsplit(uri).username != "anonymous" and not known:
        raise LedgerError(f"no credentials for {Remote(uri)}. {_CREDENTIALS['gs']}")
    return _with_default(uri, "retry_limit_seconds", str(seconds))


def _azure(uri: str) -> str:
    """The address with the kind of its credentials: left to itself, the library asks the metadata address for some."""
    return uri if urlsplit(uri).password else _with_default(uri, "credential_kind", "environment")


def _with_default(uri: str, option: str, value: str) -> str:
    parts = urlsplit(uri)
    said = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return urlunsplit(parts._replace(query=urlencode({option: value, **said})))


def _put(filesystem: Any, path: str, content: bytes) -> None:
    # One write, then close: a stream that is closed half-way, as `with` does on an error, would put half a file there.
    stream = filesystem.open_output_stream(path)
    stream.write(content)
    stream.close()


def _replace(filesystem: Any, path: PurePosixPath, content: bytes) -> None:
    """Write beside and move."""
    filesystem.create_dir(str(path.parent), recursive=True)
    beside = str(path.with_name(f".{path.name}.{os.getpid()}.tmp"))
    _put(filesystem, beside, content)
    try:
        filesystem.move(beside, str(path))
    except OSError:  # HDFS moves nothing over what is there
        filesystem.delete_file(str(path))
        filesystem.move(beside, str(path))


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call; raise OSError where that takes longer: libraries retry for minutes, and silence may last for ever."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True, name="reach")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise OSError(f"no answer within {seconds:.0f} seconds")
    if raised:
        raise raised[0]


def _short(error: Exception) -> str:
    """The part of a library's message that tells what happened."""
    text = " ".join(str(error).split())
    return text[:240].rstrip(" .:")
