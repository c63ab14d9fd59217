"""A log that is shipped: its file, what its container may write, and what was left out of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge.agent.adapters.log_file import LogFile
from edge.agent.telemetry.log_lines import Source, dropped_record, log_record
from edge.agent.telemetry.metrics import encode
from edge.agent.telemetry.rate_limit import TokenBucket
from edge.model.records import MAXIMUM_BLOCK_RECORDS

BURST_SECONDS: Final = 10
"""A container that was quiet may write as much at once as in so many seconds."""
REPORT_SECONDS: Final = 10.0
"""A container that writes too much all the time is told of once in so many seconds."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """What is shipped of one container in a second, on average."""

    lines: int = 100
    size: int = 32 * 1024


class FollowedLog:
    """For one thread.

    Attributes:
        report_due: When what was left out is to be told; None while nothing was.
    """

    def __init__(self, source: Source, file: LogFile, limits: LogLimits, now: float) -> None:
        self.source = source
        self.file = file
        self.report_due: float | None = None
        self._lines = TokenBucket(limits.lines, limits.lines * BURST_SECONDS, now)
        self._bytes = TokenBucket(limits.size, limits.size * BURST_SECONDS, now)
        self._dropped_lines = self._dropped_bytes = 0

    def read(self, now: float, at_ms: int) -> Iterator[list[bytes]]:
        """Yield what was written since as batches of records, as far as the container may write.

        Raises:
            OSError: The file cannot be read.
        """
        full = False

        def admits(size: int) -> bool:
            nonlocal full
            # Once over the limit, over it for all of this look: then lines are only counted, which costs next to
            # nothing however many they are.
            full = full or self._lines.available(now) < 1 or self._bytes.available(now) <= 0
            if not full:
                self._lines.take(1, now)
                self._bytes.take(size, now)
            return not full

        batch: list[bytes] = []
        for chunk in self.file.chunks():
            read = self.file.reader.read(chunk, admits)
            self._dropped_lines += read.dropped_lines
            self._dropped_bytes += read.dropped_bytes
            batch += [encode(log_record(self.source, entry, at_ms)) for entry in read.entries]
            while len(batch) >= MAXIMUM_BLOCK_RECORDS:
                yield batch[:MAXIMUM_BLOCK_RECORDS]
                batch = batch[MAXIMUM_BLOCK_RECORDS:]
        if batch:
            yield batch
        if (self._dropped_lines or self.file.missed_files) and self.report_due is None:
            self.report_due = now + REPORT_SECONDS

    def report(self, at_ms: int) -> list[bytes]:
        """Return the record that tells of what was left out, if anything was, and begin counting anew."""
        self.report_due = None
        lines, size, files = self._dropped_lines, self._dropped_bytes, self.file.missed_files
        if not (lines or files):
            return []
        self._dropped_lines = self._dropped_bytes = self.file.missed_files = 0
        return [encode(dropped_record(self.source, at_ms, lines=lines, size=size, files=files))]

    def finish(self, at_ms: int) -> list[bytes]:
        """Return the last records: nobody writes to the file any more."""
        rest = [encode(log_record(self.source, entry, at_ms)) for entry in self.file.reader.finish()]
        return rest + self.report(at_ms)

    def close(self) -> None:
        """Free the file."""
        self.file.close()
