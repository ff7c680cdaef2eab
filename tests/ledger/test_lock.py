"""One run at a time on one ledger."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dtbench.errors import LedgerError
from dtbench.ledger import lock
from dtbench.ledger import lock as processes

HOLD = """
import sys, time
from pathlib import Path
from dtbench import lock
with lock.hold(Path(sys.argv[1])):
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


def written_by_another_machine(root: Path, **changes: Any) -> None:
    (root / lock.NAME).write_text(json.dumps({**lock.description(3), "host": "elsewhere", **changes}))


def test_a_second_run_is_told_who_holds_the_ledger(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(LedgerError, match=rf"in use by a run on .*process {other.pid}.*--results") as caught:
        lock.hold(tmp_path).__enter__()
    assert "\n" not in str(caught.value)
    found = lock.holder(tmp_path)
    assert found is not None
    assert found["process"] == other.pid


def test_a_killed_holder_leaves_the_ledger_free(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    assert (tmp_path / lock.NAME).exists()
    assert lock.holder(tmp_path) is None
    with lock.hold(tmp_path):
        assert lock.holder(tmp_path) is not None


def test_nothing_is_left_of_a_lock_that_was_given_back(tmp_path: Path) -> None:
    with lock.hold(tmp_path / "runs"):
        assert (tmp_path / "runs" / lock.NAME).exists()
    assert list((tmp_path / "runs").iterdir()) == []
    assert lock.holder(tmp_path / "runs") is None


def test_the_lock_goes_when_the_work_under_it_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock.hold(tmp_path):
        raise RuntimeError
    with lock.hold(tmp_path):
        pass


def test_a_silent_holder_on_another_machine_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "beats", lambda read: False)
    written_by_another_machine(tmp_path)
    assert lock.holder(tmp_path) is None
    with lock.hold(tmp_path):
        pass


def test_a_beating_holder_on_another_machine_keeps_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "beats", lambda read: True)
    written_by_another_machine(tmp_path)
    with pytest.raises(LedgerError, match="in use by a run on elsewhere"):
        lock.hold(tmp_path).__enter__()
    assert lock.holder(tmp_path) is not None


def test_a_beat_is_seen_by_its_change_alone() -> None:
    counts = iter([{"beat": 1}, None, {"beat": 1}, {"beat": 2}])
    assert lock.beats(lambda: next(counts), seconds=300)
    assert not lock.beats(lambda: {"beat": 1}, seconds=0.01)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\x00\xff"])
def test_a_damaged_lock_file_is_nobodys(tmp_path: Path, content: str) -> None:
    (tmp_path / lock.NAME).write_text(content, encoding="latin-1")
    assert lock.holder(tmp_path) is None
    with lock.hold(tmp_path):
        assert lock.described(tmp_path) is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to_is_told_with_a_way_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match="Say --results FOLDER"):
        lock.hold(tmp_path / "runs").__enter__()


def test_a_file_where_the_ledger_should_be_is_told_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(LedgerError, match="Say --results FOLDER"):
        lock.hold(tmp_path / "runs").__enter__()


def test_a_process_is_known_by_its_birth_and_not_by_its_number_alone() -> None:
    own = processes.this_process()
    assert processes.alive(own)
    assert not processes.alive({**own, "born": own["born"] + 1})
    assert not processes.alive({**own, "process": 2**22 + 1})
    assert processes.alive({**own, "host": "elsewhere"}) is None
    assert processes.alive({**own, "space": "another container"}) is None
    assert not processes.alive({**own, "process": "x"})
