"""Blocks on the wire: what goes out comes in, and nothing else does."""

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.model.telemetry import MAXIMUM_PAYLOAD, BootClock, encode_block, parse_batch, split_block
from tests.fakes.outbox import BOOT, block_of

CLOCK = BootClock(1_763_942_400_000, synchronized=True)
RECORDS = [b'{"t":%d}' % number for number in range(1, 8)]


def test_a_block_arrives_as_it_was() -> None:
    batch = parse_batch(encode_block(block_of(RECORDS, first=11), historical=True, clock=CLOCK))
    assert (batch.stream, batch.epoch, batch.first, batch.last, batch.historical) == ("metrics", 1, 11, 17, True)
    assert (batch.boot_id, batch.clock) == (BOOT, CLOCK)
    assert batch.records == tuple(json.loads(record) for record in RECORDS)


def test_a_block_is_split_into_blocks_that_make_it_up() -> None:
    first, rest = split_block(block_of(RECORDS, first=11))
    assert [(part.first, part.last) for part in (first, rest)] == [(11, 13), (14, 17)]
    whole = [record for part in (first, rest) for record in zlib.decompress(part.payload).split(b"\n")]
    assert whole == RECORDS
    assert split_block(block_of(RECORDS[:1])) == (block_of(RECORDS[:1]),)


def message(header: dict[str, object], payload: bytes) -> bytes:
    return json.dumps(header).encode() + b"\n" + payload


GOOD: dict[str, object] = {
    "schemaVersion": 1, "stream": "metrics", "epoch": 1, "from": 1, "to": 2, "bootId": BOOT, "codec": "zlib",
}  # fmt: skip
TWO = zlib.compress(b'{"t":1}\n{"t":2}')


def test_a_clock_that_is_not_told_or_nonsense_is_unknown() -> None:
    for clock in (None, {}, {"offsetMs": "soon"}, {"offsetMs": True}, {"offsetMs": 2**60, "synchronized": True}):
        assert parse_batch(message(GOOD | {"clock": clock}, TWO)).clock == BootClock()


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"\n", b"{}\n", message(GOOD, b""), message(GOOD, TWO[:-3]), message(GOOD, TWO + b"more"),
        message(GOOD | {"to": 3}, TWO), message(GOOD | {"to": 0}, TWO), message(GOOD | {"to": 10**6}, TWO),
        message(GOOD | {"stream": "../x"}, TWO), message(GOOD | {"bootId": "x"}, TWO),
        message(GOOD | {"epoch": -1}, TWO),
        message(GOOD | {"codec": "zstd"}, TWO), message(GOOD | {"schemaVersion": 2}, TWO),
        message(GOOD | {"x": "y" * 2000}, TWO), message(GOOD, zlib.compress(b"[1]\n[2]")),
        message(GOOD | {"to": 1}, zlib.compress(b'{"x":"' + b"0" * 5_000_000 + b'"}')), bytes(MAXIMUM_PAYLOAD + 1),
        message(GOOD | {"to": 1}, zlib.compress(b"[" * 100_000)), message(GOOD | {"from": 1.5}, TWO),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused(wrong: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_batch(wrong)


VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
HEADERS = st.dictionaries(st.sampled_from([*GOOD, "clock"]), VALUES)
PAYLOADS = st.binary(max_size=60) | st.binary(max_size=60).map(zlib.compress)


@given(st.binary(max_size=400) | st.builds(lambda more, payload: message(GOOD | more, payload), HEADERS, PAYLOADS))
def test_any_bytes_are_a_batch_or_refused(data: bytes) -> None:
    try:
        parse_batch(data)
    except InvalidInputError:
        return
