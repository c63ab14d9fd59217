"""Each parser that faces the network, in a few hundred inputs: a value or its declared refusal, in bounded memory.

`./dev soak fuzz` follows the same parsers' branches for ten minutes each.
"""

import json
import tracemalloc
import zlib
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import BY_NAME, PARSERS, Parser
from tests.soak import soak_fuzz

MEMORY_BYTES: Final = 64 * 1024 * 1024
"""For an input of at most 256 KiB, which is the most that comes by MQTT."""
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def edits(size: int) -> st.SearchStrategy[list[tuple[int, int, bytes]]]:
    """Some places, how much goes there, and what comes instead."""
    place = st.integers(0, max(0, size - 1))
    return st.lists(st.tuples(place, st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=5)


def edited(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    made = bytearray(data)
    for at, gone, new in changes:
        made[at : at + gone] = new
    return bytes(made)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document."""
    if not isinstance(document, dict | list):
        return [path]
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    return [path, *(one for key, value in inner for one in places(value, (*path, key)))]


def replaced(document: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    made = dict(document) if isinstance(document, dict) else list(document)
    made[path[0]] = replaced(made[path[0]], path[1:], new)
    return made


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_parser_understands_or_refuses(parser: Parser, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(parser.begin))
    try:
        document = json.loads(seed)
    except ValueError:
        document = None
    ways = [st.binary(max_size=200), edits(len(seed)).map(lambda changes: edited(seed, changes))]
    if document is not None:
        # One thing in it is something else: what a type check is for.
        where = st.sampled_from(places(document))
        ways.append(st.builds(lambda at, new: json.dumps(replaced(document, at, new)).encode(), where, JSON))
    parser.try_bytes(data.draw(st.one_of(ways)))


BOMBS: Final = {
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 50_000,
    "many members": b"{" + b",".join(b'"%d":[]' % number for number in range(8_000)) + b"}",
    "a long number": b"9" * 250_000,
    "a huge number": b'{"size":1e999999999}',
    "long text": b'"' + b"a" * 250_000 + b'"',
    "escapes": b'"' + b"\\ud800" * 40_000 + b'"',
    "zeros": bytes(250_000),
    "what inflates a thousandfold": zlib.compress(bytes(32 << 20), 9),
    "the same in gzip": zlib.compressobj(9, wbits=31).compress(bytes(32 << 20)),
}


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_bomb_is_refused_in_bounded_memory(parser: Parser) -> None:
    for name, bomb in BOMBS.items():
        head, newline, _ = parser.begin[0].partition(b"\n")
        tracemalloc.start()
        try:
            parser.try_bytes(head + newline + bomb if newline else bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MEMORY_BYTES, f"{name}: {peak >> 20} MiB"


def test_every_parser_has_a_name_of_its_own_and_is_tried_by_the_soak() -> None:
    assert len(BY_NAME) == len(PARSERS)
    assert tuple(BY_NAME) == soak_fuzz.NAMES


def test_what_a_parser_does_not_declare_comes_out() -> None:
    def broken(_: bytes) -> None:
        raise KeyError("nobody thought of it")

    with pytest.raises(KeyError):
        Parser("broken", broken, (ValueError,), (b"",)).try_bytes(b"")
