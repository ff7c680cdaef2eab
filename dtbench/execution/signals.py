"""Ctrl-C and SIGTERM: the first lets trials write their checkpoints and end, the second ends at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # batch systems send the second before they take a machine away


@dataclass
class Shutdown:
    """Whether trials should write their checkpoints and end."""

    requested: bool = False


@contextmanager
def graceful_shutdown(on_first: Callable[[], None]) -> Iterator[Shutdown]:
    """Within the block, the first signal sets `requested` and calls `on_first`; the second raises KeyboardInterrupt.

    Only the main thread receives signals.
    """
    shutdown = Shutdown()
    if threading.current_thread() is not threading.main_thread():
        yield shutdown
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if shutdown.requested:
            raise KeyboardInterrupt
        shutdown.requested = True
        on_first()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield shutdown
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
