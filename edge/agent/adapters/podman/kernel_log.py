"""The kernel's log as a witness: it names the cgroup, and so the container, whose process it killed for want of memory.

Asked when nobody looked at the cgroup's own counter before it was taken away: the process ended while it was being
started, or the agent was down. Source of the line: `dump_oom_victim` and `mem_cgroup_print_oom_context` in the kernel.
"""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

_RECORD_BYTES: Final = 8192
"""The most one record of `/dev/kmsg` has (`CONSOLE_EXT_LOG_MAX`, printk)."""
_SLACK_SECONDS: Final = 2.0
"""Podman's time of the start and the kernel's clock are not the same clock."""


def killed_for_memory(runtime_id: str, started_at: str) -> bool:
    """Say whether the log tells of such a kill since the container's start; False where it cannot be read.

    Args:
        runtime_id: The container's, 64 hexadecimal digits.
        started_at: RFC 3339; an older kill was of an earlier run.
    """
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds()
    except ValueError:
        return False
    oldest = (time.clock_gettime(time.CLOCK_MONOTONIC) - age - _SLACK_SECONDS) * 1e6
    return any("oom-kill:" in text and f"libpod-{runtime_id}" in text and when >= oldest for when, text in _records())


def _records() -> Iterator[tuple[int, str]]:
    """Yield `(microseconds since boot, text)`, oldest first: Documentation/ABI/testing/dev-kmsg."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES).decode(errors="replace")
            except BrokenPipeError:  # Overwritten while it was read: the next one is the oldest there is.
                continue
            except OSError:
                return
            head, _, text = record.partition(";")
            fields = head.split(",")
            if not record:
                return
            if len(fields) > 2 and fields[2].isdigit():  # noqa: PLR2004 - level, sequence, time
                yield int(fields[2]), text
    finally:
        os.close(descriptor)
