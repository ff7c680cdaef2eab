"""RLlib in a process with its own Ray, which trains and acts on request and ends with its parent.

Inside a trial of Ray Tune, Ray Data waits for cores that the trial's placement group holds, as RLlib's examples warn.
A separate process has neither that problem nor RLlib's global state, and leaves nothing behind.
"""

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import torch

GRACE = 20.0  # seconds for Ray to end before it is killed
PARENT_SECONDS = 1.0  # between checks that the parent is alive
SHOWN = 2000  # last characters of the output of a process that died

Message = dict[str, Any]
"""Tensors and plain values, so that nothing is unpickled on either side."""


class RLlibProcess:
    """A process that runs RLlib as long as this object lives."""

    def __init__(self, settings: Message) -> None:
        """Start it with the arguments of `rllib.module.Trainer`."""
        ours, theirs = Pipe()
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        command = [sys.executable, "-m", "baselines.rllib.process", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
        )
        theirs.close()
        self.connection = ours
        self.close = weakref.finalize(self, _end, self.process, ours, self.output)
        self.request("begin", **settings)

    def request(self, method: str, **arguments: Any) -> Message:
        """Call a method of the `Trainer` and return its result; raise RuntimeError with the error of that process."""
        try:
            self.connection.send_bytes(_packed({"method": method, "arguments": arguments}))
            answer = _unpacked(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the process of RLlib died: {self._last_output()}") from error
        if "error" in answer:
            raise RuntimeError(f"RLlib failed:\n{answer['error']}")
        return answer

    def _last_output(self) -> str:
        try:
            code: int | str = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            code = "none"
        self.output.seek(0)
        return f"exit code {code}. {self.output.read().decode(errors='replace')[-SHOWN:]}"


def serve(connection: Connection) -> None:
    """Answer requests until the parent closes the pipe."""
    from dtbench.execution.cluster import ray_started

    try:
        with ray_started():
            _answer_all(connection)
    except Exception:  # Ray did not start: the waiting parent must see the error
        connection.send_bytes(_packed({"error": traceback.format_exc()}))


def main() -> None:
    """Serve the pipe whose number is the only argument."""
    number = int(sys.argv[1])
    os.set_inheritable(number, False)  # Ray's processes must not hold it open
    threading.Thread(target=_exit_with_parent, args=[os.getppid()], daemon=True).start()
    code = 1
    try:
        serve(Connection(number))
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)  # Ray Data's generators complain, or hang, when an interpreter ends in order


def _answer_all(connection: Connection) -> None:
    from baselines.rllib.module import Trainer

    trainer: Trainer | None = None
    while True:
        try:
            request = _unpacked(connection.recv_bytes())
        except (EOFError, OSError):
            break
        try:
            if request["method"] == "begin":
                if trainer is not None:
                    trainer.stop()
                trainer = Trainer(**request["arguments"])
                answer: Message = {}
            else:
                answer = getattr(trainer, request["method"])(**request["arguments"])
        except Exception:
            answer = {"error": traceback.format_exc()}
        connection.send_bytes(_packed(answer))
    if trainer is not None:
        trainer.stop()


def _exit_with_parent(parent: int) -> None:
    """Exit when the parent is killed; Ray's processes end with their driver."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _environment() -> dict[str, str]:
    """Return the environment without the variables of Ray's workers, with which the new Ray would join the old one."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (here, variables.get("PYTHONPATH", "")) if part)
    # A Ray worker's threads are as many as its cores; RLlib's are set in `Trainer`.
    return {**variables, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def _end(process: subprocess.Popen[bytes], connection: Connection, output: IO[bytes]) -> None:
    connection.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    output.close()


def _packed(message: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(message), buffer)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Message:
    message: Message = torch.load(io.BytesIO(content), weights_only=True)
    return message


if __name__ == "__main__":
    main()
