"""A signal to end is heard whatever the main thread does."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

from edge.stop_signals import stopped_by_signals

LATE = """
import os, queue, signal, threading
from edge.stop_signals import stopped_by_signals
inbox = queue.SimpleQueue()
# The other thread takes the signal: nothing interrupts the wait of the main one.
def elsewhere():
    ready.wait()
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
ready = threading.Event()
threading.Thread(target=elsewhere, daemon=True).start()
with stopped_by_signals(lambda: inbox.put("stop")):
    ready.set()
    print(inbox.get(timeout=20))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_stop(number: signal.Signals) -> None:
    stopped = threading.Event()
    before = signal.getsignal(number)
    with stopped_by_signals(stopped.set):
        os.kill(os.getpid(), number)
        assert stopped.wait(10)
    assert signal.getsignal(number) is before, "as it was"


def test_another_signal_does_not() -> None:
    stopped = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with stopped_by_signals(stopped.set):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stopped.wait(0.2)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_does_not_interrupt_the_main_thread_s_wait_is_heard() -> None:
    began = time.monotonic()
    done = subprocess.run((sys.executable, "-c", LATE), capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "stop\n"
    assert time.monotonic() - began < 15


def test_a_second_signal_while_ending_is_no_error() -> None:
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    with stopped_by_signals(lambda: heard.put(1)):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            heard.get(timeout=10)
