"""Results at an address: mirrors, working copies; and whole runs against an S3 server on this machine."""

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dtbench.cli.status import status_of
from dtbench.errors import LedgerError, LedgerUnwritable
from dtbench.ledger import remote
from dtbench.ledger.remote import Remote, leads_out, local_files, remote_of, results_folder, working_copy
from dtbench.ledger.store import Ledger, write_json
from tests.support.s3_server import address, files, names, s3_server
from tests.support.tiny_ledger import finish, spec_of, tiny_ledger

SPEC = spec_of("valley", "DT", 0)
HOURS_AGO = time.time() - 10_000


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder that the address `place` is of: what it does, every filesystem of pyarrow does."""
    return tmp_path / "there"


@pytest.fixture
def place(there: Path) -> Remote:
    return Remote(f"file://{there}")


def old(folder: Path) -> None:
    """Let all files be of a time long ago."""
    for path in folder.rglob("*"):
        os.utime(path, (HOURS_AGO, HOURS_AGO))


def content(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if not any(part.startswith(".") for part in Path(name).parts)}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are fetched."""
    found: list[str] = []
    read = Remote.read

    def noted(self: Remote, path: str) -> bytes | None:
        found.append(path)
        return read(self, path)

    monkeypatch.setattr(Remote, "read", noted)
    return found


# --- addresses


def test_a_path_is_itself_and_a_file_address_its_path() -> None:
    assert results_folder("some/results") == results_folder(Path("some/results")) == Path("some/results")
    assert results_folder("file:///a%20folder/results") == Path("/a folder/results")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (
            "s4://bucket/x",
            "no results at s4://bucket/x: use a directory of this machine, or one of s3://bucket/path, gs",
        ),
        ("http://host/x", "no results at"),
        ("file://host/x", "no results at"),
        ("file://", "no results at"),
        ("s3://", "no results at"),
        ("s3://bucket/x?end_point=h", "'end_point'"),
        ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://container@account.dfs.core.windows.net/x", "AZURE_CLIENT_SECRET"),
    ],
)
def test_an_address_that_cannot_be_is_one_line_within_seconds(
    text: str, printed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote, "CHECK_SECONDS", 3.0)
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(LedgerError) as caught:
        results_folder(text)
    assert printed in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_server_that_is_not_there_is_an_error_within_seconds(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    user = "anonymous@" if scheme == "gs" else "hidden:hidden@"
    began = time.monotonic()
    with pytest.raises(LedgerError) as caught:
        results_folder(f"{scheme}://{user}bucket/x?endpoint_override=127.0.0.1:1&scheme=http")
    assert time.monotonic() - began < 60
    assert "at 127.0.0.1:1" in str(caught.value)
    assert "Check the address, the network" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHECK_SECONDS", 1.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        # pyarrow may be the first to lose patience.
        with pytest.raises(LedgerError, match=r"no answer within 1 s|Operation too slow"):
            results_folder(f"s3://bucket/x?endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http")


def test_the_name_of_an_address_holds_no_credentials() -> None:
    assert str(Remote("s3://key:secret@bucket/x?scheme=http")) == "s3://bucket/x"


def test_workers_get_an_address_as_it_is(place: Remote) -> None:
    place.write("a", b"1")
    assert pickle.loads(pickle.dumps(place)) == place


# --- mirrors


def test_a_mirror_is_made_equal_to_its_address(place: Remote, there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    tiny_ledger(there)
    write_json(here / "runs/valley/t/error.txt", "gone there")
    place.pull(here)
    assert content(here) == content(there)


def test_checkpoints_stay_where_they_are(place: Remote, there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    place.write("runs/valley/t/checkpoint.pt", b"weights")
    place.write("runs/valley/t/spec.json", b"{}")
    place.pull(here, skip=remote.HEAVY)
    assert content(here).keys() == {"runs/valley/t/spec.json"}
    place.push(here, "runs/valley/t", local_files(here))
    assert content(there).keys() == {"runs/valley/t/spec.json", "runs/valley/t/checkpoint.pt"}


def test_what_is_known_is_not_fetched_again(place: Remote, there: Path, tmp_path: Path, reads: list[str]) -> None:
    tiny_ledger(there)
    old(there)
    place.write("the newest", b"1")
    place.pull(tmp_path / "here")
    reads.clear()
    place.pull(tmp_path / "here")
    assert reads == ["the newest"]


def test_a_file_written_twice_within_a_second_is_fetched_again(place: Remote, there: Path, tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        place.write("running.json", text)
        os.utime(there / "running.json", (HOURS_AGO, HOURS_AGO))
        place.pull(tmp_path / "here")
        assert (tmp_path / "here/running.json").read_bytes() == text


def test_what_was_changed_in_a_mirror_and_never_pushed_is_fetched_again(
    place: Remote, there: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    place.write("scores/a.csv", b"theirs")
    place.write("the newest", b"")
    old(there / "scores")
    place.pull(here)
    (here / "scores/a.csv").write_bytes(b"ours!!")
    (here / "scores/b.csv").write_bytes(b"ours")
    place.pull(here)
    assert content(here / "scores") == {"a.csv": b"theirs"}


def test_only_what_changed_is_pushed(place: Remote, there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    known: dict[str, tuple[int, int, int]] = {}
    for name in ("running.json", "spec.json"):
        write_json(here / "runs/valley/t" / name, {})
    place.push(here, "runs/valley/t", known)
    place.write("runs/valley/t/spec.json", b"theirs")
    place.write("runs/valley/t/worker_failures.jsonl", b"theirs")
    (here / "runs/valley/t/running.json").unlink()
    write_json(here / "runs/valley/t/failure.json", {})
    place.push(here, "runs/valley/t", known)
    assert content(there / "runs/valley/t") == {
        "spec.json": b"theirs",
        "worker_failures.jsonl": b"theirs",
        "failure.json": b"{}\n",
    }


def test_locks_scratch_directories_and_what_is_being_written_stay_on_their_machine(
    place: Remote, there: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    for name in ("runs/.lock", "runs/.tune/x", "runs/valley/t/.spec.json.1.tmp", "runs/valley/.t/spec.json"):
        write_json(here / name, 1)
    place.push(here, "runs", {})
    assert [str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()] == [
        "runs/valley/.t/spec.json"
    ]


def finished_trial(folder: Path) -> Path:
    finish(Ledger(folder / "runs"), SPEC, 50.0)
    return Ledger(folder / "runs").folder(SPEC)


@pytest.mark.parametrize("writes", range(6))
def test_a_push_that_is_cut_anywhere_leaves_nothing_that_reads_as_done(
    writes: int, place: Remote, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, known = tmp_path / "here", {}
    folder = finished_trial(here)
    prefix = folder.relative_to(here).as_posix()
    left, write = [writes], Remote.write

    def cut(self: Remote, path: str, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise LedgerError("cut")
        write(self, path, content)

    whole = content(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "write", cut)
        if writes < len(whole):
            with pytest.raises(LedgerError, match="cut"):
                place.push(here, prefix, known)
    arrived = content(there / prefix) if there.exists() else {}
    assert "result.json" not in arrived or arrived == whole
    assert arrived.items() <= whole.items()
    place.push(here, prefix, known)
    assert content(there / prefix) == whole


def test_a_result_that_is_taken_back_goes_first(
    place: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, known = tmp_path / "here", {}
    folder = finished_trial(here)
    prefix = folder.relative_to(here).as_posix()
    place.push(here, prefix, known)
    for name in ("result.json", "episodes.parquet"):
        (folder / name).unlink()
    write_json(folder / "spec.json", {"changed": 1})
    done: list[str] = []
    monkeypatch.setattr(Remote, "delete", lambda self, path: done.append(Path(path).name))
    monkeypatch.setattr(Remote, "write", lambda self, path, content: done.append(Path(path).name))
    place.push(here, prefix, known)
    assert done == ["result.json", "spec.json", "episodes.parquet"]


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_names_that_lead_out_of_a_mirror_are_refused(name: str, place: Remote, there: Path) -> None:
    there.mkdir()
    (there / name).touch()
    with pytest.raises(LedgerError, match="which no ledger writes"):
        place.listing()


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "a//b", "./a", "/etc/x/../../y", "a\\b", "a\0b"])
def test_names_that_object_stores_allow_and_no_ledger_writes(name: str) -> None:
    assert leads_out(name)
    assert not leads_out("runs/valley/DT-seed0-0123456789abcdef/result.json")


def test_a_directory_that_claims_to_be_a_mirror_is_not_one(tmp_path: Path, place: Remote) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".mirror-of").write_text(f"{place.uri}\n")
    assert remote_of(tmp_path / "results") is None
    assert remote_of(tmp_path / "nowhere") is None


# --- working copies


def begin(ledger: Ledger) -> Path:
    folder = ledger.create(SPEC)
    (folder / "checkpoint.pt").write_bytes(b"step 10")
    write_json(folder / "running.json", {"step": 10})
    return folder


def test_a_trial_goes_on_where_another_node_left_it(place: Remote, there: Path) -> None:
    with working_copy(place, SPEC) as (root, keep):
        keep(begin(Ledger(root)))
    with working_copy(place, SPEC) as (root, keep):
        folder = Ledger(root).folder(SPEC)
        assert (folder / "checkpoint.pt").read_bytes() == b"step 10"
        (folder / "running.json").unlink()
        finish(Ledger(root), SPEC, 50.0)
        keep(folder)
    (record,) = Ledger(there / "runs").records()
    assert record.spec == SPEC
    assert not (Ledger(there / "runs").folder(SPEC) / "running.json").exists()


def test_what_was_not_kept_is_lost_with_the_node(place: Remote, there: Path) -> None:
    with working_copy(place, SPEC) as (root, keep):
        folder = begin(Ledger(root))
        keep(folder)
        (folder / "checkpoint.pt").write_bytes(b"step 20")
    assert (Ledger(there / "runs").folder(SPEC) / "checkpoint.pt").read_bytes() == b"step 10"
    assert not root.exists()


def test_a_renamed_contender_is_found_at_its_address(place: Remote, there: Path) -> None:
    finish(Ledger(there / "runs"), SPEC, 50.0)
    renamed = SPEC.labelled(suite="tiny", contender="Transformer")
    with working_copy(place, renamed) as (root, keep):
        assert Ledger(root).state(renamed) == "done"
        keep(Ledger(root).folder(renamed))
    assert len(list((there / "runs" / "valley").iterdir())) == 1


def test_copies_of_killed_workers_are_swept_up(place: Remote) -> None:
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    with working_copy(place, SPEC) as (root, _):
        left = root.parent.with_name(re.sub(r"[0-9]+-[^-]+$", f"{process}-left", root.parent.name))
        left.mkdir()
    with working_copy(place, SPEC):
        assert not left.exists()


def test_a_push_is_tried_again_before_a_trial_is_given_up(
    place: Remote, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_RETRY_SECONDS", (0.0,) * 3)
    failures, write = [3], Remote.write

    def flaky(self: Remote, path: str, content: bytes) -> None:
        failures[0] -= 1
        if failures[0] >= 0:
            raise LedgerError("unreachable")
        write(self, path, content)

    monkeypatch.setattr(Remote, "write", flaky)
    monkeypatch.setattr(remote, "_CONNECTIONS", 1)
    with working_copy(place, SPEC) as (root, keep):
        folder = begin(Ledger(root))
        keep(folder)
        assert content(there).keys() == {f"runs/valley/{folder.name}/{name}" for name in content(folder)}
        failures[0] = 1_000
        (folder / "checkpoint.pt").write_bytes(b"step 20")
        with pytest.raises(LedgerUnwritable, match="unreachable"):
            keep(folder)


# --- S3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as found:
        yield found


DT = {"algorithm": "dt", "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 4, "batch_size": 4}}
SUITE = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0, 1],
    "evaluation": {"episodes": 4, "every": 300},
    "contenders": {"DT": DT | {"train_steps": 1500}, "Random": {"algorithm": "random", "train_steps": 0}},
}
MAIN = "from dtbench.cli.run import main; main()"


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def printed(*arguments: str, code: int = 0, **environment: str) -> str:
    process = start(*arguments, **environment)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def until(true: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not true() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.timeout(900)
def test_a_run_on_s3_is_seen_by_others_while_it_is_at_work(tmp_path: Path, server: str) -> None:
    endless = SUITE | {"contenders": {"DT": DT | {"train_steps": 10**6}}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(endless, sort_keys=False))
    run = ["run", "--suite", "toy.yaml", "--local", "--results", address(server, "busy")]
    process = start(*run)
    until(lambda: any("checkpoint.pt" in name for name in names(server, "busy")), process)
    assert "running  missing" in printed("status", "--results", address(server, "busy"))
    printed(*run, code=2)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.timeout(900)
def test_a_run_on_s3_that_is_killed_ends_with_the_table_of_a_run_here(tmp_path: Path, server: str) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    uri = address(server, "killed")
    run = ["run", "--suite", "toy.yaml", "--local"]
    printed(*run, "--results", "here")

    process = start(*run, "--results", uri)
    until(lambda: any("checkpoint.pt" in name for name in names(server, "killed")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = files(server, "killed")
    assert not any(name.startswith("scores/") for name in before)

    # Another machine: it has nothing but the address.
    other = {"DTBENCH_DATA": str(tmp_path / "other")}
    printed(*run, "--results", uri, **other)
    found = files(server, "killed")
    assert found["scores/toy.csv"] == (tmp_path / "here/scores/toy.csv").read_bytes()
    assert {name.rpartition("/")[2] for name in found} & {"running.json", "error.txt", ".lock"} == set()
    finished = [name for name in before if name.endswith("result.json")]
    assert {name: found[name] for name in finished} == {name: before[name] for name in finished}

    assert "4 done, 0 to run" in printed(*run, "--results", uri)
    assert "done" in printed("status", "--results", uri)
    printed("report", "--results", uri, "--out", "report-of-s3")
    assert printed("compare", "here", uri).count("identical")


def test_report_writes_scores_at_the_address(tmp_path: Path, server: str) -> None:
    tiny_ledger(tmp_path / "made")
    Remote(address(server, "scored")).push(tmp_path / "made", "", {})
    assert len([name for name in files(server, "scored") if name.endswith("result.json")]) == 12
    printed("report", "--results", address(server, "scored"))
    printed("report", "--results", "made", "--out", "report-of-made")
    found = files(server, "scored")
    assert found["scores/tiny.csv"] == (tmp_path / "made/scores/tiny.csv").read_bytes()
    assert (tmp_path / "report/tiny/report.md").exists()


def test_an_interrupted_trial_at_an_address_is_listed_though_its_checkpoint_was_not_fetched(
    tmp_path: Path, server: str
) -> None:
    with working_copy(Remote(address(server, "interrupted")), SPEC) as (root, keep):
        keep(begin(Ledger(root)))
    (trial,) = status_of(results_folder(address(server, "interrupted"))).trials
    assert trial.state == "interrupted"


def test_a_bucket_that_is_not_there_is_named(server: str) -> None:
    uri = address(server, "x").replace("bucket", "bucked")
    assert "there is no bucket 'bucked'" in printed("status", "--results", uri, code=2)


def test_a_trial_of_a_hostile_name_is_refused(server: str) -> None:
    Remote(address(server, "hostile")).write("runs/..\\..\\x/spec.json", b"{}")
    with pytest.raises(LedgerError, match="which no ledger writes"):
        results_folder(address(server, "hostile"))


def connections(environment: dict[str, str], server: str) -> int:
    """How often a program without credentials asks the metadata address, which is one on this machine."""
    count = 0
    with socket.create_server(("127.0.0.1", 0)) as metadata:

        def answer() -> None:
            nonlocal count
            while True:
                try:
                    connection, _ = metadata.accept()
                except OSError:
                    return
                count += 1
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        endpoint = f"http://127.0.0.1:{metadata.getsockname()[1]}"
        start(
            "status",
            "--results",
            address(server, "unknown"),
            AWS_EC2_METADATA_SERVICE_ENDPOINT=endpoint,
            **environment,
        ).communicate(timeout=200)
        metadata.shutdown(socket.SHUT_RDWR)
    return count


def test_the_clouds_metadata_address_is_asked_for_credentials_only_where_the_user_says_so(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert connections({}, server) == 0
    assert connections({"AWS_EC2_METADATA_DISABLED": "false"}, server) > 0
