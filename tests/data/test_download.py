"""Downloads from a server on this machine."""

import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dtbench.data import download as module
from dtbench.data.download import check_file, check_reachable, download, reporting
from dtbench.errors import DtbenchError, InvalidDataset, MissingDataset

CONTENT = bytes(range(256)) * 40


@dataclass
class Site:
    """What the server does; tests change it between requests."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    break_after: int | None = None  # bytes of a body, then the connection is closed
    status: int | None = None
    url: str = ""
    requests: list[tuple[str | None, str | None]] = field(default_factory=list)  # Range and If-Range of each request


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span, condition = self.headers.get("Range"), self.headers.get("If-Range")
            site.requests.append((span, condition))
            if site.status:
                self.send_error(site.status)
                return
            first = int(span.removeprefix("bytes=").removesuffix("-")) if span else 0
            partial = bool(span) and site.ranges and condition == site.etag
            if partial and first >= len(site.content):
                self.send_error(416)
                return
            body = site.content[first:] if partial else site.content
            self.send_response(206 if partial else 200)
            if partial:
                total = len(site.content)
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            if site.etag:
                self.send_header("ETag", site.etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if site.break_after is None else body[: site.break_after])

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_port}/data.hdf5"
        yield site
        server.shutdown()


def broken_off(site: Site, path: Path, after: int = 1000) -> Path:
    site.break_after = after
    with pytest.raises(MissingDataset, match=f"{after} bytes are kept: run the command again"):
        download(site.url, path)
    site.break_after = None
    assert not path.exists()
    part = path.with_name("data.hdf5.part")
    assert part.stat().st_size == after
    return part


def test_a_file_arrives_with_a_receipt_and_is_not_fetched_twice(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.hdf5"
    reports: list[tuple[int, int | None]] = []
    with reporting(lambda done, total: reports.append((done, total))):
        download(site.url, path)
    assert path.read_bytes() == CONTENT
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    expected = {"url": site.url, "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    assert json.loads((path.parent / "data.hdf5.sha256").read_text()) == expected
    download(site.url, path)
    assert len(site.requests) == 1
    assert {p.name for p in path.parent.iterdir()} == {"data.hdf5", "data.hdf5.sha256", ".data.hdf5.lock"}


def test_a_broken_download_continues_where_it_ended(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    broken_off(site, path)
    download(site.url, path)
    assert site.requests[-1] == ("bytes=1000-", '"one"')
    assert path.read_bytes() == CONTENT
    assert check_file(path) == hashlib.sha256(CONTENT).hexdigest()


def test_it_may_break_more_than_once(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    broken_off(site, path)
    site.break_after = 500
    with pytest.raises(MissingDataset, match="1500 bytes are kept"):
        download(site.url, path)
    site.break_after = None
    download(site.url, path)
    assert check_file(path) == hashlib.sha256(CONTENT).hexdigest()


def test_a_server_without_ranges_sends_it_all_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    path = tmp_path / "data.hdf5"
    broken_off(site, path)
    download(site.url, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_continued(site: Site, tmp_path: Path, etag: str | None) -> None:
    site.etag = etag
    path = tmp_path / "data.hdf5"
    broken_off(site, path)
    download(site.url, path)
    assert site.requests[-1] == (None, None)
    assert path.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_again(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    broken_off(site, path)
    site.content, site.etag = b"other" * 3000, '"two"'
    download(site.url, path)
    assert path.read_bytes() == b"other" * 3000


def test_a_part_of_another_address_is_not_continued(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    broken_off(site, path)
    download(site.url + "?other", path)
    assert site.requests[-1] == (None, None)


def test_a_part_that_is_complete_or_too_long_is_fetched_again(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    part = broken_off(site, path)
    part.write_bytes(CONTENT + b"more")
    download(site.url, path)
    assert path.read_bytes() == CONTENT


def test_an_http_error_is_reported_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.status = 404
    with pytest.raises(MissingDataset, match=r"HTTP 404 .* put the file at .*data.hdf5 yourself"):
        download(site.url, tmp_path / "data.hdf5")
    assert {p.name for p in tmp_path.iterdir()} == {".data.hdf5.lock"}


def test_no_server_is_reported_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(MissingDataset, match=r"could not be downloaded: .*refused"):
        download(f"http://127.0.0.1:{port}/data.hdf5", tmp_path / "data.hdf5")
    assert time.monotonic() - began < 20


def test_a_network_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(60) or socket.socket())
    began = time.monotonic()
    with pytest.raises(MissingDataset, match=r"no answer from 127\.0\.0\.1 within 0\.1 s"):
        download("http://127.0.0.1/data.hdf5", tmp_path / "data.hdf5")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://somewhere/x", "nonsense", "http://"])
def test_only_web_addresses_are_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(DtbenchError, match="http"):
        download(url, tmp_path / "data.hdf5")


def test_two_at_once_fetch_it_once(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    threads = [threading.Thread(target=download, args=(site.url, path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_file_that_changed_on_disk_is_found(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    download(site.url, path)
    assert check_file(path) == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(InvalidDataset, match="has changed since its download"):
        check_file(path)


def test_a_file_put_there_by_hand_has_no_receipt(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    path.write_bytes(CONTENT)
    assert check_file(path) == hashlib.sha256(CONTENT).hexdigest()


def test_offline_only_this_machine_is_contacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="DTBENCH_OFFLINE is set"):
        check_reachable("http://example.invalid/file")


def test_a_place_that_did_not_answer_is_not_contacted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DTBENCH_OFFLINE", raising=False)
    asked = []

    def refuse(where: tuple[str, int], timeout: float) -> None:
        asked.append(where)
        raise OSError("no route")

    monkeypatch.setattr("socket.create_connection", refuse)
    for _ in range(2):
        with pytest.raises(OSError, match=r"no route|gave no answer before"):
            check_reachable("http://silent.invalid/file")
    assert len(asked) == 1
