"""SIGTERM and SIGINT, heard without fail."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, from a thread of its own, when this process is told to end. For the main thread.

    A handler of Python's runs in the main thread between two of its steps. A signal that comes just before that thread
    begins to wait for a lock is not seen until the wait is over (`./dev soak offline` met it); the byte that CPython
    writes to the wake-up descriptor in the signal handler itself is.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def hear() -> None:
        while number := os.read(reading, 1):
            if number[0] in handlers:
                stop()

    thread = threading.Thread(target=hear, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writing)
        thread.join()
        os.close(reading)
