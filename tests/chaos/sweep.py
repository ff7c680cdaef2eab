"""A sweep in a process of its own, on a cluster of this machine: started, watched, and killed from outside."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from dtbench.execution import cluster

MAIN = "from dtbench.cli.run import main; main()"
TRANSFORMER = {"hidden_size": 16, "num_layers": 1, "context": 8, "batch_size": 32, "dropout": 0.1}
SECONDS = 600.0  # the longest that anything here may take


def suite(name: str, *, train_steps: int, seeds: int) -> dict[str, Any]:
    """DT, BC and CQL on Key-to-Door, `seeds` trials of each; some have several checkpoints."""
    return {
        "name": name,
        "tasks": ["key-to-door-1k"],
        "seeds": list(range(seeds)),
        "evaluation": {"episodes": 10, "every": max(1, train_steps // 8)},
        "contenders": {
            "DT": {"algorithm": "dt", "train_steps": train_steps, "hyperparameters": TRANSFORMER},
            "BC": {
                "algorithm": "dt",
                "train_steps": train_steps,
                "hyperparameters": {**TRANSFORMER, "returns": "none"},
            },
            "CQL": {"algorithm": "discrete_cql", "train_steps": train_steps},
        },
    }


def write_suite(folder: Path, document: dict[str, Any]) -> Path:
    """The suite as a file."""
    path = folder / f"{document['name']}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def hear_ctrl_c() -> None:
    """A shell that runs tests in the background has its children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(folder: Path, file: Path, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """`dtbench run` in a process group of its own; what it says goes to the log."""
    out: int | IO[bytes] = log.open("ab") if log else subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", "--suite", str(file), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"},
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


class Nodes:
    """The cluster's process, to which orders are sent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.address = self._answer("address")

    def order(self, text: str) -> str:
        """Say it, and wait until it is done; the number of nodes then."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        return self._answer("nodes")

    def _answer(self, begins: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(begins):
                return line.split()[1]
        raise RuntimeError("the cluster's process ended")


@contextmanager
def nodes(count: int, home: Path) -> Iterator[Nodes]:
    """A cluster of so many nodes, this machine's own, that asks nobody's metadata; ended at the end."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "ray_bootstrap_config.yaml").write_text("provider:\n  type: local\n")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("nodes.py")), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | cluster.QUIET | {"HOME": str(home), "RAY_AUTH_MODE": "disabled"},
        start_new_session=True,
    )
    try:
        yield Nodes(process)
    finally:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write("end\n")
            process.stdin.close()
        try:
            process.wait(timeout=200)
        except subprocess.TimeoutExpired:
            process.kill()


def workers(results: Path) -> dict[int, int]:
    """The processes at work on trials: their number -> that of the node's process that started them."""
    found = {}
    for path in results.glob("runs/*/*/running.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            process = int(yaml.safe_load(path.read_text())["process"])
            stat = Path(f"/proc/{process}/stat").read_text()
            found[process] = int(stat.rpartition(")")[2].split()[1])
    return found


def finished(results: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every finished trial: its folder's name -> what would change if it were run again."""
    found = {}
    for path in sorted(results.glob("runs/*/*/result.json")):
        status = path.stat()
        found[path.parent.name] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return found


def wait_until(condition: Any, seconds: float = SECONDS) -> bool:
    """Wait for it; False where it does not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
