"""Ctrl-C and SIGTERM: the first asks trials to write their checkpoints and end, the second ends at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # batch systems send the second before they take a machine away


class Stopping:
    """Whether it was asked to stop; a call tells."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether trials should write their checkpoints and end."""
        return self.asked


@contextmanager
def hear_signals(on_first: Callable[[], None]) -> Iterator[Stopping]:
    """Within, the first signal calls `on_first` and is told by what is given; the second raises KeyboardInterrupt.

    Only the main thread hears signals: elsewhere nothing is ever asked.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def heard(number: int, frame: FrameType | None) -> None:
        if stopping.asked:
            raise KeyboardInterrupt
        stopping.asked = True
        on_first()

    before = {number: signal.signal(number, heard) for number in SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
