# ruff: noqa: INP001 - it is a program of its own
"""A workload as large as real ones are: a `ready` line once NumPy computes, then a line a second."""

import json
import signal
import sys
import time

_started = time.monotonic()

import numpy as np  # noqa: E402 - its import is what is measured


def main() -> None:
    """Compute for ever; end at SIGTERM at once."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    random = np.random.default_rng(seed=1)
    matrix = random.standard_normal((200, 200))
    largest = float(np.linalg.eigvalsh(matrix @ matrix.T)[-1])
    say(event="ready", numpy=np.__version__, seconds=round(time.monotonic() - _started, 3), largest=round(largest, 3))
    number = 0
    while True:
        number += 1
        spectrum = np.abs(np.fft.rfft(random.standard_normal(4096)))
        say(event="reading", number=number, mean=round(float(spectrum.mean()), 3))
        time.sleep(1)


def say(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps(fields), flush=True)  # noqa: T201 - its output is its purpose


if __name__ == "__main__":
    main()
