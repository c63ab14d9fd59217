"""The audit trail: what was asked of a device, by whom, and what came of it, each record holding to the one before.

A record is one JSON object. `chain` names the trail (one for each state file), `n` counts from 1, and `prev` is the
SHA-256 of the record before, of its very bytes; so nothing can be changed, removed, put in or moved without the next
record saying so. What is lost on the way is told by number elsewhere (the outbox's gaps).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge.errors import InvalidInputError

BEGINNING: Final = "0" * 64
"""`prev` of a trail's first record."""
MAXIMUM_TEXT: Final = 500
"""Characters of a text in a record: a reason may quote what came from outside."""
_CHAIN: Final = re.compile(r"[0-9a-f]{16}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Head:
    """Where a trail stands: its name, how many records it has, and the hash of the last one."""

    chain: str
    count: int = 0
    hash: str = BEGINNING


def next_record(head: Head, at_ms: int, what: str, fields: Mapping[str, Any]) -> tuple[bytes, Head]:
    """Return the next record of a trail, and where the trail stands then.

    Args:
        head: Where it stands.
        at_ms: Monotonic milliseconds of the boot, as in every record.
        what: The kind of record, of `docs/telemetry.md`.
        fields: What is told; empty ones are left out, long texts are cut.
    """
    told = {name: _cut(value) for name, value in fields.items() if value not in ("", None, [], ())}
    document = {"t": at_ms, "chain": head.chain, "n": head.count + 1, "prev": head.hash, "what": what, **told}
    record = json.dumps(document, separators=(",", ":")).encode()
    return record, Head(head.chain, head.count + 1, hash_of(record))


def hash_of(record: bytes) -> str:
    """Return a record's hash, in hexadecimal."""
    return hashlib.sha256(record).hexdigest()


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:MAXIMUM_TEXT]
    if isinstance(value, list | tuple):
        return [_cut(one) for one in value[:50]]
    return value


@dataclass(frozen=True, slots=True)
class Arrived:
    """A record as it came: its numbers in the outbox, and its bytes."""

    epoch: int
    number: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A record of a trail, read."""

    arrived: Arrived
    chain: str
    n: int
    prev: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a trail that a person must know; `broken` when no loss that was told explains it."""

    chain: str
    n: int
    what: str
    broken: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in the trail of a device, oldest first; `records` counts each once."""

    records: int
    heads: tuple[Head, ...]
    findings: tuple[Finding, ...]

    @property
    def intact(self) -> bool:
        """Nothing was changed, removed, put in or moved, as far as anybody can tell."""
        return not any(finding.broken for finding in self.findings)


def read_link(arrived: Arrived) -> Link:
    """Read a record.

    Raises:
        InvalidInputError: It is none of an audit trail.
    """
    try:
        body = json.loads(arrived.record)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("not JSON") from error
    if not isinstance(body, dict):
        raise InvalidInputError("not an object")
    chain, n, prev = body.get("chain"), body.get("n"), body.get("prev")
    if not (isinstance(chain, str) and _CHAIN.fullmatch(chain) and isinstance(prev, str) and _HASH.fullmatch(prev)):
        raise InvalidInputError("it names no trail, or no record before it")
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n < 2**53:
        raise InvalidInputError("it has no number")
    return Link(arrived, chain, n, prev, body)


def verify_trail(
    arrived: Sequence[Arrived], lost: Sequence[tuple[int, int, int | None]], *, told_head: Head | None = None
) -> Verified:
    """Judge what came of a device's trail.

    Args:
        arrived: By epoch and number; the same record may be there twice (a device that died sends it again).
        lost: `(epoch, first, last)` of the outbox that were told as lost; last None: up to the end of the epoch.
        told_head: What the device itself says it has come to; None when it said nothing.
    """
    findings: list[Finding] = []
    links: list[Link] = []
    for one in arrived:
        try:
            links.append(read_link(one))
        except InvalidInputError as error:
            where = f"record {one.number} of epoch {one.epoch} is none of an audit trail: {error}"
            findings.append(Finding("", 0, where, broken=True))
    heads: list[Head] = []
    known: dict[tuple[str, int], str] = {}
    before: Link | None = None
    for link in links:
        digest = hash_of(link.arrived.record)
        if (seen := known.get((link.chain, link.n))) is not None:
            if seen != digest:
                findings.append(
                    Finding(link.chain, link.n, "there are two different records of this number", broken=True)
                )
            continue
        findings.extend(_step(before, link, lost))
        known[link.chain, link.n] = digest
        before = link
        head = Head(link.chain, link.n, digest)
        heads = [*heads[:-1], head] if heads and heads[-1].chain == link.chain else [*heads, head]
    if told_head is not None:
        findings.extend(_end(heads[-1] if heads else None, told_head))
    return Verified(len(known), tuple(heads), tuple(findings))


def _step(before: Link | None, link: Link, lost: Sequence[tuple[int, int, int | None]]) -> Iterable[Finding]:
    """Judge one record after another."""
    begins = before is None or before.chain != link.chain
    if begins and before is not None:
        what = f"a new trail begins after record {before.n} of {before.chain}: the device's state file is another one"
        yield Finding(link.chain, link.n, what, broken=False)
    expected = 1 if before is None or begins else before.n + 1
    missing = link.n - expected
    if missing < 0:
        yield Finding(
            link.chain, link.n, f"record {link.n} comes after record {expected - 1}: it was moved", broken=True
        )
    elif missing > 0:
        told = _lost_between(None if begins else before, link, lost)
        span = f"{expected} to {link.n - 1}" if missing > 1 else f"{expected}"
        if told is None or told >= missing:
            yield Finding(link.chain, expected, f"lost on the device, and told: records {span}", broken=False)
        else:
            yield Finding(link.chain, expected, f"missing, and nobody told of it: records {span}", broken=True)
    else:
        prev = BEGINNING if before is None or begins else hash_of(before.arrived.record)
        if link.prev != prev:
            what = f"record {link.n} holds to another record {link.n - 1} than the one that came: one was changed"
            yield Finding(link.chain, link.n, what, broken=True)


def _lost_between(before: Link | None, link: Link, lost: Sequence[tuple[int, int, int | None]]) -> int | None:
    """Return how many outbox numbers between two records were told as lost; None: an unknown number of them."""
    low = (before.arrived.epoch, before.arrived.number) if before is not None else (-1, 0)
    high = (link.arrived.epoch, link.arrived.number)
    total = 0
    for epoch, first, last in lost:
        if last is None:
            if low[0] <= epoch < high[0]:
                return None
            continue
        least = max(first, low[1] + 1) if epoch == low[0] else first
        most = min(last, high[1] - 1) if epoch == high[0] else last
        if low[0] <= epoch <= high[0] and most >= least:
            total += most - least + 1
    return total


def _end(last: Head | None, told: Head) -> Iterable[Finding]:
    """Judge the newest record by what the device says it has come to."""
    if last is None or last.chain != told.chain or last.count < told.count:
        come = last.count if last is not None and last.chain == told.chain else 0
        yield Finding(told.chain, come + 1, f"not here yet: records {come + 1} to {told.count}", broken=False)
    elif last.count == told.count and last.hash != told.hash:
        yield Finding(
            told.chain, told.count, f"record {told.count} is not the one the device has: it was changed", broken=True
        )
