"""Processes that answer one line of JSON for each line of JSON that they are asked."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Ask = Callable[[Any], Any]


@contextmanager
def answering(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[tuple[Any, Ask]]:
    """Start a process; gives what it said first, and a function that asks it.

    What it writes to standard error is told if it ends before it answers, in a RuntimeError, and forgotten otherwise.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            bufsize=1,
            env={**os.environ, **(environment or {})},
        )
        asked, said = process.stdin, process.stdout
        assert asked is not None
        assert said is not None

        def answer() -> Any:
            if line := said.readline():
                return json.loads(line)
            process.wait()
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended: {errors.read()[-2000:]}")

        def ask(question: Any) -> Any:
            asked.write(json.dumps(question) + "\n")
            return answer()

        try:
            yield answer(), ask
        finally:
            asked.close()
            process.wait()
            said.close()
