"""One run at a time on one ledger: in a directory, and in an object store."""

import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dtbench.errors import LedgerError
from dtbench.ledger import lock

HOLD = """
import sys, time
from pathlib import Path
from dtbench.ledger import lock
with lock.acquire(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another process that holds the ledger."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def claim_elsewhere(root: Path) -> None:
    """Let the holder be a process of another machine."""
    (root / lock.OWNER).write_text(json.dumps({**lock.description(), "host": "elsewhere"}))


def test_a_second_run_is_refused_and_named_the_first(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(LedgerError, match=rf"in use by a run on .*process {other.pid}.*--results") as caught:
        lock.acquire(tmp_path).__enter__()
    assert "\n" not in str(caught.value)
    found = lock.holder(tmp_path)
    assert found is not None
    assert found["process"] == other.pid
    claim_elsewhere(tmp_path)
    with pytest.raises(LedgerError, match="in use by a run on elsewhere"):
        lock.acquire(tmp_path).__enter__()
    assert lock.holder(tmp_path) is not None


def test_a_killed_holder_leaves_the_ledger_free(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    assert lock.owner(tmp_path) is not None
    assert lock.holder(tmp_path) is None
    claim_elsewhere(tmp_path)
    assert lock.holder(tmp_path) is None
    with lock.acquire(tmp_path):
        assert lock.holder(tmp_path) is not None


def test_a_lock_goes_with_the_work_under_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock.acquire(tmp_path / "runs"):
        raise RuntimeError
    assert lock.owner(tmp_path / "runs") is lock.holder(tmp_path / "runs") is None
    with lock.acquire(tmp_path / "runs"):
        pass
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [lock.NAME]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\x00\xff"])
def test_a_damaged_owner_is_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / lock.OWNER).write_text(content, encoding="latin-1")
    assert lock.holder(tmp_path) is None
    with lock.acquire(tmp_path):
        assert lock.owner(tmp_path) is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_cannot_be_written_to_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match="--results DIRECTORY"):
        lock.acquire(tmp_path / "runs").__enter__()


def test_a_file_where_the_ledger_should_be_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(LedgerError, match="--results DIRECTORY"):
        lock.acquire(tmp_path / "runs").__enter__()


def test_a_process_is_known_by_its_birth_and_not_by_its_number_alone() -> None:
    own = lock.this_process()
    assert lock.alive(own)
    assert not lock.alive({**own, "born": own["born"] + 1})
    assert not lock.alive({**own, "process": 2**22 + 1})
    assert lock.alive({**own, "host": "elsewhere"}) is None
    assert lock.alive({**own, "space": "another container"}) is None
    assert not lock.alive({**own, "process": "x"})


# --- an object store


class Memory(dict[str, bytes]):
    """Files in memory."""

    def read(self, path: str) -> bytes | None:
        return self.get(path)

    def write(self, path: str, content: bytes) -> None:
        self[path] = content

    def delete(self, path: str) -> None:
        self.pop(path, None)

    def __str__(self) -> str:
        return "s3://bucket/path"


def claim(place: Memory, **facts: Any) -> None:
    lock.write_owner(place, {**lock.description(), "token": "theirs", **facts})


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.5)
    return Memory()


def test_a_second_run_at_an_address_is_refused_and_named_the_first(place: Memory) -> None:
    with lock.acquire_at(place):
        assert (lock.holder_at(place) or {})["process"] == os.getpid()
        with pytest.raises(LedgerError, match=f"s3://.* in use by a run on .* \\(process {os.getpid()}, "):
            lock.acquire_at(place).__enter__()
    assert lock.holder_at(place) is None
    assert place == {}


def test_the_lock_of_a_killed_run_is_taken_over(place: Memory) -> None:
    for facts in ({"born": 1}, {"host": "elsewhere"}):
        claim(place, **facts)
        with lock.acquire_at(place):
            assert (lock.read_owner(place) or {})["token"] != "theirs"


def test_a_lock_of_another_machine_that_counts_is_respected(place: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WATCH_SECONDS", 60.0)
    claim(place, host="elsewhere")
    ended = threading.Event()

    def count() -> None:
        for number in itertools.count(1):
            if ended.wait(0.2):
                return
            claim(place, host="elsewhere", count=number)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        with pytest.raises(LedgerError, match="a run on elsewhere"), lock.acquire_at(place):
            pass
    finally:
        ended.set()
        counting.join()


def test_of_two_that_come_at_the_same_moment_one_gives_way(place: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: claim(place, host="elsewhere"))
    with pytest.raises(LedgerError, match="elsewhere"), lock.acquire_at(place):
        pass
    assert (lock.read_owner(place) or {})["token"] == "theirs"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'{"host": 1}', b"\xff"])
def test_a_lock_that_cannot_be_read_holds_nobody_up(text: bytes, place: Memory) -> None:
    place.write(lock.AT, text)
    with lock.acquire_at(place):
        pass


def test_the_holder_counts(place: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 60.0)
    with lock.acquire_at(place):
        assert lock._has_heartbeat(place, lock.read_owner(place) or {})
