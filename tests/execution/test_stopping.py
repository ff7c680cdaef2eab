"""Ctrl-C once, and twice."""

import os
import signal
import threading

import pytest

from dtbench.execution.signals import hear_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    said: list[str] = []
    with hear_signals(lambda: said.append("stopping")) as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert said == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_what_heard_signals_before_hears_them_again() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with hear_signals(lambda: None):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_hears_nothing() -> None:
    heard: list[bool] = []

    def work() -> None:
        with hear_signals(lambda: None) as stop:
            heard.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
