"""Ray Tune on this machine: the same results as in one process, whatever dies on the way."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtbench.errors import DtbenchError
from dtbench.execution import cluster
from dtbench.ledger import lock

pytestmark = pytest.mark.ray

DT = {"algorithm": "dt", "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 4, "batch_size": 4}}
SUITE: dict[str, Any] = {
    "name": "toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0, 1],
    "evaluation": {"episodes": 4, "every": 400},
    "contenders": {"DT": DT | {"train_steps": 1200}, "Random": {"algorithm": "random", "train_steps": 0}},
}
MAIN = "from dtbench.cli.run import main; main()"


def _hear_ctrl_c() -> None:
    """A shell that runs tests in the background has its children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MAIN, "run", "--suite", "toy.yaml", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def table(results: str) -> bytes:
    return (Path(results) / "scores" / "toy.csv").read_bytes()


def checkpoints(results: str) -> list[Path]:
    return list(Path(results).glob("runs/*/*/checkpoint.pt"))


def kill_after_first_checkpoint(results: str, *arguments: str) -> None:
    """Start a run and kill it amid its trials; once more where it was faster than this process, on a busy machine."""
    for _ in range(5):
        process = start(*arguments, "--results", results)
        deadline = time.monotonic() + 300
        while not checkpoints(results) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if checkpoints(results) and not (Path(results) / "scores").exists():
            return
        shutil.rmtree(results, ignore_errors=True)
    pytest.fail("no run could be killed amid its trials")


@pytest.mark.timeout(1800)
def test_ray_and_this_process_and_killed_drivers_give_the_same_table_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    finished(start("--local", "--results", "whole"))

    for results, flags in (("killed-local", ["--local"]), ("killed-ray", [])):
        kill_after_first_checkpoint(results, *flags)
        assert not (tmp_path / results / "scores").exists()
        time.sleep(3)  # Ray's own processes notice that their driver is gone
        output = finished(start(*flags, "--results", results))
        assert "4 trials" in output
        assert table(results) == table("whole")

    again = finished(start("--results", "killed-ray"))
    assert "4 done, 0 to run" in again
    more = finished(start("--results", "killed-ray", "--seeds", "0..2"))
    assert "6 trials, 4 done, 2 to run" in more
    assert "usage" not in more.lower()
    left = [path.name for path in (tmp_path / "killed-ray" / "runs").glob(".*")]
    assert left == [".lock"]  # nothing of Tune; a file that is locked cannot be removed without a race


@pytest.mark.timeout(600)
def test_rays_dashboard_finds_the_file_that_keeps_it_off_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ray_bootstrap_config.yaml in its HOME it asks the cloud's metadata address at every start."""
    home = os.environ["HOME"]
    monkeypatch.setenv("DTBENCH_TEST", str(os.getpid()))  # inherited by what Ray starts
    with cluster.ray_started():
        assert os.environ["HOME"] == home
        homes = {environment.get("HOME") for environment in dashboards()}
        assert len(homes) == 1
        assert (Path(str(homes.pop())) / "ray_bootstrap_config.yaml").read_text() == "provider:\n  type: local\n"


def dashboards() -> list[dict[str, str]]:
    """Environments of the dashboard processes that descend from this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if "ray/dashboard/dashboard.py" in (process / "cmdline").read_text():
                pairs = (process / "environ").read_text().split("\0")
                found.append(dict(pair.split("=", 1) for pair in pairs if "=" in pair))
    return [environment for environment in found if environment.get("DTBENCH_TEST") == str(os.getpid())]


JOIN = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(lambda: "ran").remote()))
"""


@pytest.mark.timeout(600)
def test_a_stranger_without_the_token_cannot_run_code_in_our_ray() -> None:
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    with cluster.ray_started():
        import ray

        address = ray.get_runtime_context().gcs_address
        ours = dict(os.environ)
        none = {name: value for name, value in ours.items() if not name.startswith("RAY_AUTH")}
        for stranger in (none | {"RAY_AUTH_MODE": "disabled"}, ours | {"RAY_AUTH_TOKEN": "0" * 64}):
            joined = _join(address, stranger)
            assert joined.returncode != 0
            assert "ran" not in joined.stdout
        assert _join(address, ours).stdout == "ran\n"
    assert {name: os.environ.get(name) for name in before} == before


def _join(address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOIN, address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
def test_a_ray_that_dies_is_one_line_within_half_a_minute(process: str, tmp_path: Path) -> None:
    endless = {"DT": DT | {"train_steps": 1_000_000}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE | {"contenders": endless, "seeds": [0]}))
    command = [sys.executable, "-c", MAIN, "run", "--suite", "toy.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        while not list(tmp_path.glob("results/runs/*/*/running.json")):
            time.sleep(0.5)
            assert run.poll() is None
        os.kill(_child(run.pid, process), signal.SIGKILL)
        killed = time.monotonic()
        _, errors = run.communicate(timeout=300)
        assert time.monotonic() - killed < 30
    assert run.returncode == 1
    assert f"dtbench: Ray died (its {process})." in errors
    assert "Traceback" not in errors
    _all_ended(run.pid, since=killed)
    with lock.process_directory(*cluster.SESSIONS):
        assert not list(_sessions_of(run.pid))


@pytest.mark.timeout(900)
def test_workers_end_within_ten_seconds_of_their_driver(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE | {"contenders": {"DT": DT | {"train_steps": 10**6}}}))
    command = [sys.executable, "-c", MAIN, "run", "--suite", "toy.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        while not list(tmp_path.glob("results/runs/*/*/running.json")):
            time.sleep(0.5)
            assert run.poll() is None
        assert list(_sessions_of(run.pid))
        run.kill()
        run.wait()
    _all_ended(run.pid, since=time.monotonic())


def _all_ended(driver: int, *, since: float) -> None:
    """Wait until no process is left that works in the directory of the driver's Ray; fail after ten seconds."""
    sessions = [str(path).encode() for path in _sessions_of(driver)]
    while left := [
        path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if any(s in _content(path) for s in sessions)
    ]:
        assert time.monotonic() - since < 10, left
        time.sleep(0.2)


def _content(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _sessions_of(process: int) -> Iterator[Path]:
    folder, prefix = cluster.SESSIONS
    return folder.glob(f"{prefix}-*-{process}-*")


@pytest.mark.parametrize(
    "error", [Exception("The current node timed out during startup."), OSError(28, "No space left")]
)
def test_a_ray_that_cannot_start_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def fails(**_: object) -> None:
        raise error

    before = dict(os.environ)
    monkeypatch.setattr(ray, "init", fails)
    with (
        pytest.raises(DtbenchError, match=r"Ray did not start: .*\. Try again .*--local\."),
        cluster.ray_started(),
    ):
        raise AssertionError("it started")
    assert {name: os.environ.get(name) for name in ("HOME", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")} == {
        name: before.get(name) for name in ("HOME", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    }


def test_a_run_with_ray_needs_no_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("no directory can be made here")
    with cluster.ray_started():
        import ray

        assert ray.get(ray.remote(lambda: 7).remote()) == 7


def _child(parent: int, name: str) -> int:
    """The child of a process that runs the program `name`."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            program = (stat.parent / "cmdline").read_text().partition("\0")[0]
            if int(fields[1]) == parent and Path(program).name == name:
                return int(stat.parent.name)
    raise AssertionError(f"no child {name}")


@pytest.mark.timeout(1200)
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    long = {"DT": DT | {"train_steps": 10**6}}  # whatever else the machine does, it is still at work when Ctrl-C comes
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE | {"seeds": [0], "contenders": long}, sort_keys=False))
    for flags in ([], ["--local"]):
        process = start("--results", f"results{len(flags)}", *flags)
        deadline = time.monotonic() + 300
        while not checkpoints(f"results{len(flags)}") and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=250)
        assert process.returncode == 130, output
        assert "the same command continues" in output
        assert "Traceback" not in output


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_running_cluster_of_two_nodes_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else every node and driver needs the head's token file
    home = tmp_path / "home"
    home.mkdir()
    (home / "ray_bootstrap_config.yaml").write_text("provider:\n  type: local\n")
    contenders = {"Random": SUITE["contenders"]["Random"], "DT": DT | {"train_steps": 3}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SUITE | {"contenders": contenders}, sort_keys=False))
    finished(start("--local", "--results", "here"))
    environment = os.environ | cluster.QUIET | {"HOME": str(home)}
    nodes = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    try:
        address = next(line.strip() for line in nodes.stdout if ":" in line)
        finished(start("--address", address, "--results", "there"))
    finally:
        nodes.stdin.close()
        nodes.wait(timeout=200)
    assert table("there") == table("here")


MORTAL = '''
import os
from dataclasses import dataclass
from pathlib import Path
from baselines.uniform_random import UniformRandomLearner


@dataclass(frozen=True)
class Mortal:
    """Its first worker dies; the second finds the mark of the first and lives."""

    mark: str
    always: bool = False

    def learner(self, dataset, *, seed, device):
        if self.always or not Path(self.mark).exists():
            Path(self.mark).touch()
            os._exit(1)
        return UniformRandomLearner(int(dataset.action_space.n))
'''


@pytest.mark.timeout(600)
def test_a_worker_that_dies_is_replaced_and_one_that_always_dies_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    contenders = {
        "Once": {"algorithm": "mortal:Mortal", "train_steps": 2, "hyperparameters": {"mark": str(tmp_path / "mark")}},
        "Always": {
            "algorithm": "mortal:Mortal",
            "train_steps": 2,
            "hyperparameters": {"mark": str(tmp_path / "other"), "always": True},
        },
    }
    suite = SUITE | {"contenders": contenders, "seeds": [0]}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    process = start("--results", "results")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1, output
    assert "failed: key-to-door-1k Always seed 0" in output
    assert b"Once" in table("results")
    assert b"Always" not in table("results")
