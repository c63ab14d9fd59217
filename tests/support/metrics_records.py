"""Records as a device makes them of its containers: 15 fields, 254 bytes of JSON, counters that grow."""

import json
import random
from collections.abc import Iterator

RECORD_BYTES = 254
CONTAINERS = 8


def metrics_records(seed: int = 1) -> Iterator[bytes]:
    """Yield records without end: eight containers in each pass, as the collector measures them."""
    chance = random.Random(seed)
    tasks = [f"{chance.getrandbits(128):032x}" for _ in range(CONTAINERS)]
    counters = [[chance.randrange(10**9), 40_960, 20_480, 819_200, 409_600] for _ in tasks]
    at_ms = 86_400_000
    while True:
        at_ms += chance.randrange(29_990, 30_010)
        for number, task in enumerate(tasks):
            pages = 4096 * chance.choice((0, 0, 0, 1, 2)), 4096 * chance.randrange(5)
            grown = chance.randrange(90_000_000), chance.randrange(4000), chance.randrange(2000), *pages
            counters[number] = [old + more for old, more in zip(counters[number], grown, strict=True)]
            cpu_ns, received, sent, read, wrote = counters[number]
            record = {
                "t": at_ms,
                "kind": "container",
                "task": task,
                "container": f"a{number}",
                "cpu": round(chance.uniform(0, 9), 1),
                "cpuNs": cpu_ns,
                "mem": 41_943_040 + 4096 * chance.randrange(500),
                "work": 31_940_608 + 4096 * chance.randrange(300),
                "limit": 268_435_456,
                "oom": 0,
                "rx": received,
                "tx": sent,
                "read": read,
                "wrote": wrote,
                "restarts": number % 3,
            }
            data = json.dumps(record, separators=(",", ":")).encode()
            # Some digits more or less: the last field evens it out, so that every figure is per 254 bytes.
            yield data[:-1] + b" " * (RECORD_BYTES - len(data)) + b"}"


def take(count: int, seed: int = 1) -> list[bytes]:
    """Return the first records."""
    source = metrics_records(seed)
    return [next(source) for _ in range(count)]
