"""Nothing that a driver started for its Ray outlives it, also where it is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtbench.execution import guard

DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from dtbench.execution.guard import guarded

home = Path(sys.argv[1])
with guarded(home):
    sleeper = ["sleep", "600"]
    guarded_one = subprocess.Popen(sleeper, env=os.environ | {"HOME": str(home)}, start_new_session=True)
    other = subprocess.Popen(sleeper, env=os.environ | {"HOME": str(home) + "-other"}, start_new_session=True)
    print(guarded_one.pid, other.pid, flush=True)
    if sys.argv[2] == "wait":
        time.sleep(600)
"""


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not guard.PROC.is_dir(), reason="needs /proc")
@pytest.mark.parametrize("how", ["wait", "end"])
def test_what_a_driver_started_in_its_directory_ends_with_it(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        of_driver, other = map(int, driver.stdout.readline().split())
        try:
            if how == "wait":
                assert _is_running(of_driver)
                driver.kill()
            assert driver.wait(60) == (-signal.SIGKILL if how == "wait" else 0)
            deadline = time.monotonic() + 30
            while _is_running(of_driver):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert _is_running(other)
        finally:
            subprocess.run(["kill", "-9", str(of_driver), str(other)], check=False, stderr=subprocess.DEVNULL)
