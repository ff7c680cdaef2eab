"""Ctrl-C once, and twice."""

import os
import signal
import threading

import pytest

from dtbench.execution.signals import graceful_shutdown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    printed: list[str] = []
    with graceful_shutdown(lambda: printed.append("stopping")) as shutdown:
        assert not shutdown.requested
        os.kill(os.getpid(), number)
        assert shutdown.requested
        assert printed == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_what_heard_signals_before_hears_them_again() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with graceful_shutdown(lambda: None):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_hears_nothing() -> None:
    heard: list[bool] = []

    def work() -> None:
        with graceful_shutdown(lambda: None) as shutdown:
            heard.append(shutdown.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
