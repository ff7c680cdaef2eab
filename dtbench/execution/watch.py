"""Notice that a Ray of our own died: its clients would wait for ever."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dtbench.errors import RayDied

WATCH_SECONDS = 2.0  # between looks at its processes
TEXT = "Ray died (its {}). Finished trials and checkpoints are kept; the same command continues."


@contextmanager
def watched(node: Any) -> Iterator[None]:
    """Raise RayDied in the main thread where the raylet of Ray's `node` dies; end the process where its GCS does.

    Without GCS every call of Ray blocks, and after a minute Ray ends the process itself.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    finished, raylet_died = threading.Event(), threading.Event()

    def watch() -> None:
        while not finished.wait(WATCH_SECONDS):
            dead = {name for name, _ in node.dead_processes()}
            if "gcs_server" in dead:
                print("dtbench:", TEXT.format("gcs_server"), file=sys.stderr, flush=True)
                os._exit(1)
            if "raylet" in dead:
                raylet_died.set()
                signal.pthread_kill(main.ident or 0, signal.SIGUSR2)
                return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, interrupt)  # Tune takes SIGUSR1
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        if raylet_died.is_set():
            raise RayDied(TEXT.format("raylet")) from None
        raise
    finally:
        finished.set()
        watcher.join()
        signal.signal(signal.SIGUSR2, before)
