r"""Blocks of records on the wire: a header line of JSON, and the block's payload as it is on the device's disk.

    {"schemaVersion":1,"stream":"metrics","epoch":7,"from":1001,"to":1500,"historical":true,
     "bootId":"…","clock":{"offsetMs":1763942400000,"synchronized":true},"codec":"zlib"}\n
    <zlib of the records, one JSON object a line>

(The header is one line.) Each record's `t` is in monotonic milliseconds of the boot; wall time in milliseconds since
1970 is `t + offsetMs`. What is read is bounded before it is inflated.
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edge.errors import InvalidInputError
from edge.model.records import MAXIMUM_BLOCK_RECORDS, Block

MAXIMUM_HEADER: Final = 1024
MAXIMUM_PAYLOAD: Final = 256 * 1024
"""Bytes of a whole message."""
MAXIMUM_INFLATED: Final = 1024 * 1024
_STREAM: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_BOOT_ID: Final = re.compile(r"[0-9a-f]{32}")
_LARGEST: Final = 2**53


@dataclass(frozen=True, slots=True)
class BootClock:
    """What is known of a boot's wall clock.

    Attributes:
        offset_ms: Wall time less monotonic time, in milliseconds; None when nobody knows it.
        synchronized: The wall clock was known good when it was taken.
    """

    offset_ms: int | None = None
    synchronized: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """A block as it arrived.

    Attributes:
        first, last: Numbers of its records.
        historical: It had waited on the disk: newer values may have come before it.
        records: As many as the numbers say.
    """

    stream: str
    epoch: int
    first: int
    last: int
    historical: bool
    boot_id: str
    clock: BootClock
    records: tuple[dict[str, Any], ...]


def encode_block(block: Block, *, historical: bool, clock: BootClock) -> bytes:
    """Return the message for a block."""
    header = {
        "schemaVersion": 1,
        "stream": block.stream,
        "epoch": block.epoch,
        "from": block.first,
        "to": block.last,
        "historical": historical,
        "bootId": block.boot_id,
        "clock": {"offsetMs": clock.offset_ms, "synchronized": clock.synchronized},
        "codec": "zlib",
    }
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + block.payload


def split_block(block: Block) -> tuple[Block, ...]:
    """Return two halves of a block that a broker would not take whole, or the block alone if it is one record."""
    if block.count == 1:
        return (block,)
    lines = zlib.decompress(block.payload).split(b"\n")
    middle = block.count // 2
    first = replace(block, count=middle, payload=zlib.compress(b"\n".join(lines[:middle])))
    rest = replace(
        block, first=block.first + middle, count=block.count - middle, payload=zlib.compress(b"\n".join(lines[middle:]))
    )
    return first, rest


def parse_batch(message: bytes) -> Batch:
    """Read a message.

    Raises:
        InvalidInputError: It is none, or too large.
    """
    if len(message) > MAXIMUM_PAYLOAD:
        raise InvalidInputError(f"the batch has {len(message)} bytes; {MAXIMUM_PAYLOAD} are the most")
    head, newline, payload = message.partition(b"\n")
    if not newline or len(head) > MAXIMUM_HEADER:
        raise InvalidInputError("the batch has no header line")
    header = _object(head, "the batch's header")
    if header.get("schemaVersion") != 1 or header.get("codec") != "zlib":
        raise InvalidInputError("the batch is of a version or codec that is not known here")
    stream, boot_id = header.get("stream"), header.get("bootId")
    if not (isinstance(stream, str) and _STREAM.fullmatch(stream)):
        raise InvalidInputError("the batch names no stream")
    if not (isinstance(boot_id, str) and _BOOT_ID.fullmatch(boot_id)):
        raise InvalidInputError("the batch's bootId is not one")
    first = _number(header, "from", 1)
    last = _number(header, "to", first)
    if last - first >= MAXIMUM_BLOCK_RECORDS:
        raise InvalidInputError(f"the batch has more than {MAXIMUM_BLOCK_RECORDS} records")
    text = _inflate(payload)
    # Counted before they are taken apart: a million empty lines are a list of 8 MiB.
    count = text.count(b"\n") + 1
    if count != last - first + 1:
        raise InvalidInputError(f"the batch has {count} records; its header says {last - first + 1}")
    lines = text.split(b"\n")
    return Batch(
        stream=stream,
        epoch=_number(header, "epoch", 0),
        first=first,
        last=last,
        historical=header.get("historical") is True,
        boot_id=boot_id,
        clock=_clock(header.get("clock")),
        records=tuple(_object(line, "a record") for line in lines),
    )


def _clock(told: object) -> BootClock:
    if not isinstance(told, Mapping):
        return BootClock()
    offset = told.get("offsetMs")
    if not isinstance(offset, int) or isinstance(offset, bool) or not -_LARGEST < offset < _LARGEST:
        return BootClock()
    return BootClock(offset, told.get("synchronized") is True)


def _inflate(payload: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload, MAXIMUM_INFLATED)
    except zlib.error as error:
        raise InvalidInputError(f"the batch cannot be inflated: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise InvalidInputError(f"the batch inflates to more than {MAXIMUM_INFLATED} bytes, or breaks off")
    return data


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{what} is not an object")
    return found


def _number(header: Mapping[str, Any], name: str, least: int) -> int:
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST:
        raise InvalidInputError(f"the batch's {name} is not a number of {least} or more")
    return value
