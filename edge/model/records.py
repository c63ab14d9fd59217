"""Records that wait for the broker: what is promised of each, what a block of them is, and how a loss is told.

A record is one JSON object without a newline. Records of a stream are numbered from 1 in each epoch (a start of the
agent), so that (device, epoch, stream, number) names a record for ever: whoever receives one twice can tell, and
whoever misses one can ask the gaps.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from edge.errors import InvalidInputError

MAXIMUM_RECORD: Final = 64 * 1024
"""Bytes of one record."""
MAXIMUM_BLOCK_RECORDS: Final = 500
MAXIMUM_BLOCK: Final = 128 * 1024
"""Bytes of a block's records before compression."""
MAXIMUM_GAP_RECORD: Final = 1024
_MAXIMUM_NUMBER: Final = 2**53
"""JSON numbers are exact below it."""

_STREAM_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_BOOT_ID: Final = re.compile(r"[0-9a-f]{32}")


class Promise(StrEnum):
    """What is promised of a stream's records."""

    CRITICAL = "critical"
    """On the disk before `put` returns."""
    NORMAL = "normal"
    """In memory first; on the disk when the broker has not acknowledged it within the window."""
    LATEST = "latest"
    """Only the newest of each key matters; memory only."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One of the outbox's queues.

    Attributes:
        name: `[a-z][a-z0-9-]{0,31}`: a folder's name and a topic's last level.
        most_bytes: What it may take of the disk (of the memory, for LATEST); beyond it the oldest goes.
        rank: 0 is the most important: sent first, and the last to be dropped when space is short.

    Raises:
        InvalidInputError: The name is not one.
    """

    name: str
    promise: Promise
    most_bytes: int
    rank: int

    def __post_init__(self) -> None:
        if not _STREAM_NAME.fullmatch(self.name):
            raise InvalidInputError(
                f"{self.name!r} is not a name of a stream",
                hint="Use 1 to 32 lower-case letters, digits and '-', beginning with a letter.",
            )


_MIB: Final = 1024 * 1024
AUDIT: Final = Stream("audit", Promise.CRITICAL, 16 * _MIB, 0)
GAPS: Final = Stream("gaps", Promise.CRITICAL, 8 * _MIB, 0)
"""What was lost of the others, and of itself: each record is a `Gap`."""
READINGS_CRITICAL: Final = Stream("readings-critical", Promise.CRITICAL, 64 * _MIB, 1)
READINGS: Final = Stream("readings", Promise.NORMAL, 128 * _MIB, 2)
METRICS: Final = Stream("metrics", Promise.NORMAL, 256 * _MIB, 3)
LOGS: Final = Stream("logs", Promise.NORMAL, 256 * _MIB, 4)
STATE: Final = Stream("state", Promise.LATEST, _MIB // 2, 9)
STREAMS: Final = (AUDIT, GAPS, READINGS_CRITICAL, READINGS, METRICS, LOGS, STATE)
"""The streams of a device. 256 MiB hold a month of two records a second: about 45 bytes of disk each."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some records of one stream, consecutive: the unit of disk, wire and acknowledgement.

    Attributes:
        epoch: The start of the agent that numbered the records.
        first: The first record's number, from 1.
        count: How many, 1 to `MAXIMUM_BLOCK_RECORDS`.
        boot_id: The boot (32 hexadecimal digits) whose clock `first_ms` and `last_ms` are of.
        first_ms: When the first record was put, monotonic milliseconds of that boot.
        last_ms: When the last one was.
        payload: zlib (RFC 1950) of the records with a newline between them; stored and sent as it is.
    """

    stream: str
    epoch: int
    first: int
    count: int
    boot_id: str
    first_ms: int
    last_ms: int
    payload: bytes

    @property
    def last(self) -> int:
        """The last record's number."""
        return self.first + self.count - 1


class GapReason(StrEnum):
    """Why records are lost."""

    CAPACITY = "capacity"
    """The stream reached its share of the disk, or of the memory."""
    NO_SPACE = "no-space"
    """The disk is full."""
    WRITE_FAILED = "write-failed"
    """The disk could not be written: read-only, or an error of the device."""
    DAMAGED = "damaged"
    """What was on the disk is not what was written."""
    POWER_CUT = "power-cut"
    """The agent ended without having written what it had in memory."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that are lost, or may be: told before they are removed.

    Delivered records and gaps together are all that was produced. The two may overlap (a record was delivered, and its
    acknowledgement was lost): a record that arrived is not lost, whatever a gap says.

    Attributes:
        first: The first number that may be missing.
        last: The last one; None: unknown, up to the end of the epoch (what was put within the last window).
        first_ms: About when the first was put, monotonic milliseconds of the boot; 0 when unknown.
        last_ms: About when the last was; 0 when unknown.
        boot_id: The boot these times are of; empty when unknown.
    """

    stream: str
    epoch: int
    first: int
    last: int | None
    first_ms: int
    last_ms: int
    boot_id: str
    reason: GapReason


def join_records(records: Sequence[bytes]) -> bytes:
    """Return the records with a newline between them, having judged each: an object, no newline, not too large.

    Whether an object's inside is JSON is not judged here: whoever reads it does.

    Raises:
        InvalidInputError: One of them is not a record; the message says which.
    """
    joined = b"\n".join(records)
    fits = joined.count(b"}\n{") == len(records) - 1 and b"\n" not in b"".join(records)
    if not (fits and joined[:1] == b"{" and joined[-1:] == b"}" and max(map(len, records)) <= MAXIMUM_RECORD):
        _refuse(records)
    return joined


def _refuse(records: Sequence[bytes]) -> None:
    if not records:
        raise InvalidInputError("there is no record")
    for number, record in enumerate(records):
        if len(record) > MAXIMUM_RECORD:
            raise InvalidInputError(f"record {number} has {len(record)} bytes; a record has at most {MAXIMUM_RECORD}")
        if not (record[:1] == b"{" and record[-1:] == b"}") or b"\n" in record:
            raise InvalidInputError(f"record {number} is not one JSON object without a newline")


def gap_to_record(gap: Gap, at_ms: int) -> bytes:
    """Write a gap as a record; `at_ms` is when it was noted, monotonic milliseconds of the boot that notes it."""
    document = {
        "t": at_ms,
        "stream": gap.stream,
        "epoch": gap.epoch,
        "first": gap.first,
        "last": gap.last,
        "firstMs": gap.first_ms,
        "lastMs": gap.last_ms,
        "bootId": gap.boot_id,
        "reason": gap.reason.value,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def gap_from_record(record: bytes) -> Gap:
    """Read what `gap_to_record` wrote; fields that are not a gap's are passed over.

    Raises:
        InvalidInputError: It is not a gap.
    """
    if len(record) > MAXIMUM_GAP_RECORD:
        raise InvalidInputError(f"a gap record has at most {MAXIMUM_GAP_RECORD} bytes, not {len(record)}")
    try:
        document = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("a gap record is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidInputError("a gap record is not an object")
    stream, boot_id, reason = (document.get(key) for key in ("stream", "bootId", "reason"))
    if not (isinstance(stream, str) and _STREAM_NAME.fullmatch(stream)):
        raise InvalidInputError("a gap record names no stream")
    if not (isinstance(boot_id, str) and (not boot_id or _BOOT_ID.fullmatch(boot_id))):
        raise InvalidInputError("a gap record's bootId is not one")
    if not (isinstance(reason, str) and reason in set(GapReason)):
        raise InvalidInputError("a gap record gives no known reason")
    first, open_ended = _number(document, "first", 1), document.get("last", 0) is None
    return Gap(
        stream=stream,
        epoch=_number(document, "epoch", 0),
        first=first,
        last=None if open_ended else _number(document, "last", first),
        first_ms=_number(document, "firstMs", 0),
        last_ms=_number(document, "lastMs", 0),
        boot_id=boot_id,
        reason=GapReason(reason),
    )


def _number(document: Mapping[str, Any], key: str, least: int) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _MAXIMUM_NUMBER:
        raise InvalidInputError(f"a gap record's {key} is not a number of {least} or more")
    return value
