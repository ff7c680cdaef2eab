"""The process that RLlib lives in: it starts a Ray of its own, trains, acts, and ends with the process that asked.

Inside a trial of Ray Tune, Ray Data waits for cores that the trial's placement group holds; RLlib's own examples warn
of the pair. A process of its own has neither that problem nor RLlib's global state, and leaves nothing behind.
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

GRACE = 20.0  # seconds for a Ray to end before it is killed
PARENT_SECONDS = 1.0  # between looks whether the parent lives
SHOWN = 2000  # characters of what a dead process said

Message = dict[str, Any]
"""Tensors and plain values, so that nothing is unpickled on either side."""


class RLlibProcess:
    """RLlib at work elsewhere; it ends when this object does."""

    def __init__(self, settings: Message) -> None:
        """Start it; `settings` are those of `rllib.module.Trainer`."""
        ours, theirs = Pipe()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        command = [sys.executable, "-m", "baselines.rllib.process", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.said,
            stderr=self.said,
        )
        theirs.close()
        self.connection = ours
        self.close = weakref.finalize(self, _end, self.process, ours, self.said)
        self.ask("begin", **settings)

    def ask(self, what: str, **details: Any) -> Message:
        """Send a request and wait for its answer; raise RuntimeError with what went wrong there."""
        try:
            self.connection.send_bytes(_packed({"what": what, "details": details}))
            answer = _unpacked(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the process of RLlib died: {self._last_words()}") from error
        if "error" in answer:
            raise RuntimeError(f"RLlib failed:\n{answer['error']}")
        return answer

    def _last_words(self) -> str:
        try:
            code: int | str = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            code = "none"
        self.said.seek(0)
        return f"exit code {code}. {self.said.read().decode(errors='replace')[-SHOWN:]}"


def serve(connection: Connection) -> None:
    """Answer requests until the other side hangs up."""
    from dtbench.execution.cluster import ray_started

    try:
        with ray_started():
            _answer_all(connection)
    except Exception:  # Ray did not start: the one who waits must hear it
        connection.send_bytes(_packed({"error": traceback.format_exc()}))


def main() -> None:
    """Serve the pipe whose number is the only argument."""
    number = int(sys.argv[1])
    os.set_inheritable(number, False)  # Ray's processes must not hold it open
    threading.Thread(target=_follow_parent, args=[os.getppid()], daemon=True).start()
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
            if request["what"] == "begin":
                if trainer is not None:
                    trainer.stop()
                trainer = Trainer(**request["details"])
                answer: Message = {}
            else:
                answer = getattr(trainer, request["what"])(**request["details"])
        except Exception:
            answer = {"error": traceback.format_exc()}
        connection.send_bytes(_packed(answer))
    if trainer is not None:
        trainer.stop()


def _follow_parent(parent: int) -> None:
    """End at once when the parent is killed; Ray's processes end when their driver does."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _environment() -> dict[str, str]:
    """The environment without what Ray tells its workers, which would make the new Ray join the old one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (here, kept.get("PYTHONPATH", "")) if part)
    # A Ray worker's threads are as many as its cores; RLlib's are set in `Trainer`.
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def _end(process: subprocess.Popen[bytes], connection: Connection, said: IO[bytes]) -> None:
    connection.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said.close()


def _packed(message: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(message), buffer)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Message:
    message: Message = torch.load(io.BytesIO(content), weights_only=True)
    return message


if __name__ == "__main__":
    main()
