"""What an operator is told of a stream."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """How a stream stands.

    Attributes:
        records: How many wait, in memory and on the disk; after damage at most so many.
        bytes: About how much memory and disk they take.
        oldest_boot_id: The boot `oldest_ms` is of; None when nothing waits.
        oldest_ms: When the oldest was put, monotonic milliseconds of that boot.
        gaps: How many gap records were written about it since the start.
        damaged: How many damaged places were passed over since the start.
        problem: Why the disk takes nothing at present; empty when it does.
        window_seconds: How old a record may become in memory alone: a power cut loses what was put within it. 0 when
            nothing is lost.
    """

    stream: str
    records: int
    bytes: int
    oldest_boot_id: str | None
    oldest_ms: int | None
    gaps: int
    damaged: int
    problem: str
    window_seconds: float
