"""End what a Ray of our own leaves behind, however its driver ends.

Ray's agents outlive a killed driver by a minute and more. So a small process waits until its driver's pipe closes,
and kills what is left of that Ray: the processes whose HOME is its directory. Without /proc it finds none.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
GRACE_SECONDS = 1.0  # in which processes end by themselves
SECONDS = 5.0  # in which killed ones do


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Kill the processes whose HOME is `directory` when the context or this process ends, also by SIGKILL."""
    command = [sys.executable, "-P", "-m", __name__, str(directory)]
    null = subprocess.DEVNULL
    # Of a session of its own, so that Ctrl-C in a terminal does not reach it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True) as guard:
        try:
            yield
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.communicate(timeout=GRACE_SECONDS + SECONDS)  # closes the pipe
            guard.kill()


def end_processes(home: str) -> None:
    """Kill this user's processes whose HOME was `home` when they started and that do not end by themselves."""
    began = time.monotonic()
    while (left := _processes(home)) and (waited := time.monotonic() - began) < GRACE_SECONDS + SECONDS:
        for process in left if waited > GRACE_SECONDS else ():
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _processes(home: str) -> list[int]:
    found = []
    for environment in PROC.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if f"HOME={home}".encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


if __name__ == "__main__":
    sys.stdin.buffer.read()  # until the driver has ended
    end_processes(sys.argv[1])
