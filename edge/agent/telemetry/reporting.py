"""How the outbox stands, as a device reports it."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from edge.agent.store.outbox.facts import StreamFacts
from edge.model.telemetry import BootClock


def describe_streams(
    facts: Iterable[StreamFacts], clock_of: Callable[[str], BootClock], problem: str
) -> list[dict[str, Any]]:
    """Return one object for each stream that has something to say.

    `oldest` is left out when nobody knows the clock of its boot; `problem` is why the broker takes nothing.
    """
    told = []
    for one in facts:
        if not (one.records or one.gaps or one.damaged or one.problem):
            continue
        document = {
            "stream": one.stream,
            "waitingRecords": one.records,
            "waitingBytes": one.bytes,
            "oldest": _oldest(one, clock_of),
            "gaps": one.gaps,
            "damaged": one.damaged,
            "problem": one.problem or (problem if one.records else ""),
        }
        told.append({name: value for name, value in document.items() if value or name.startswith("waiting")})
    return told


def _oldest(facts: StreamFacts, clock_of: Callable[[str], BootClock]) -> str:
    if facts.oldest_boot_id is None or facts.oldest_ms is None:
        return ""
    offset = clock_of(facts.oldest_boot_id).offset_ms
    if offset is None:
        return ""
    try:
        moment = datetime.fromtimestamp((offset + facts.oldest_ms) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
