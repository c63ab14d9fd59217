"""How measurements become records: pure, and compact, because a device makes them for a month with no link.

The fields and their units are in `docs/telemetry.md`; a test holds the two together.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge.agent.telemetry.ports import ContainerSample, RunningContainer

CONTAINER_FIELDS: Final[Mapping[str, str]] = {
    "since": "since_ms",
    "cpuNs": "cpu_ns",
    "mem": "memory_bytes",
    "work": "working_set_bytes",
    "limit": "memory_limit_bytes",
    "oom": "oom_kills",
    "rx": "rx_bytes",
    "tx": "tx_bytes",
    "rxPackets": "rx_packets",
    "txPackets": "tx_packets",
    "netErrors": "net_errors",
    "read": "read_bytes",
    "wrote": "written_bytes",
}
"""A container record's fields that are a sample's own, by the record's name."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A container's sample before this one, and when it was taken."""

    at_ms: int
    sample: ContainerSample


def container_record(
    container: RunningContainer, sample: ContainerSample, at_ms: int, earlier: Earlier | None
) -> dict[str, Any]:
    """Return a container's record.

    A rate is told only between two samples of one run. When the counters began anew, the record says `start` instead.
    """
    record: dict[str, Any] = {"t": at_ms, "kind": "container", "task": container.task_id, "container": container.name}
    if earlier is not None and began_anew(earlier.sample, sample):
        record["start"] = True
    elif (percent := _cpu_percent(earlier, sample, at_ms)) is not None:
        record["cpu"] = percent
    for name, attribute in CONTAINER_FIELDS.items():
        value = getattr(sample, attribute)
        if value is not None:
            record[name] = value
    record["restarts"] = container.restarts
    return record


def device_record(fields: Mapping[str, Any], at_ms: int) -> dict[str, Any]:
    """Return the device's record."""
    return {"t": at_ms, "kind": "device", **fields}


def encode(record: Mapping[str, Any]) -> bytes:
    """Return a record as the outbox takes it: compact JSON of one line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def began_anew(before: ContainerSample, now: ContainerSample) -> bool:
    """Say whether the counters are not those of `before` any more: another process, or one that went back."""
    counters = ("cpu_ns", "rx_bytes", "tx_bytes", "read_bytes", "written_bytes", "oom_kills")
    pairs = ((getattr(before, name), getattr(now, name)) for name in counters)
    return before.since_ms != now.since_ms or any(a is not None and b is not None and b < a for a, b in pairs)


def _cpu_percent(earlier: Earlier | None, now: ContainerSample, at_ms: int) -> float | None:
    if earlier is None or earlier.sample.cpu_ns is None or now.cpu_ns is None or at_ms <= earlier.at_ms:
        return None
    return round((now.cpu_ns - earlier.sample.cpu_ns) / (at_ms - earlier.at_ms) / 10_000, 1)
