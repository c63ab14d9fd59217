"""What devices have measured, as it arrived: one SQLite file of blocks, each once, with times set right afterwards.

A block is kept compressed, as the device made it. A block that came before, whole or in parts, is dropped; records that
came twice in blocks of different borders are shown once. What is known of a boot's clock is kept beside the blocks, so
that a clock that becomes known sets the times of everything from that boot.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge.errors import InvalidInputError
from edge.fleet.database import Database, Row
from edge.fleet.ranges import Range, holes, size, union
from edge.model.records import GAPS, STREAMS, Gap, Promise, gap_from_record
from edge.model.telemetry import Batch

MOST_BYTES: Final = 1024 * 1024 * 1024
"""Of compressed blocks; beyond it the oldest go."""
_LATEST: Final = frozenset(stream.name for stream in STREAMS if stream.promise is Promise.LATEST)
_MIGRATIONS: Final = (
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        stream TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        historical INTEGER NOT NULL,
        received_at TEXT NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;
    CREATE INDEX batches_in_order ON batches (cluster, device, stream, epoch, first);
    CREATE TABLE boots (
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        offset_ms INTEGER NOT NULL,
        synchronized INTEGER NOT NULL,
        PRIMARY KEY (cluster, device, boot_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE gaps (
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        stream TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER,            -- null: up to the end of the epoch
        reason TEXT NOT NULL,
        PRIMARY KEY (cluster, device, stream, epoch, first)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE removed (
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        stream TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (cluster, device, stream, epoch, first)
    ) STRICT, WITHOUT ROWID;
    """,
)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record.

    Attributes:
        time: RFC 3339 in UTC; empty when nobody knows the clock of its boot.
        certain: The clock was known good.
    """

    device: str
    stream: str
    epoch: int
    number: int
    time: str
    certain: bool
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conservation:
    """Whether everything that was produced is accounted for, of one stream of one start of an agent.

    Attributes:
        produced: The highest number known.
        delivered: How many records arrived.
        lost: Told as gaps, and not delivered all the same.
        missing: Ranges that neither arrived nor are told as lost.
        open_ended: The agent died; what it had put within the last window is lost and was not counted.
        reasons: Of the gaps.
    """

    device: str
    stream: str
    epoch: int
    produced: int
    delivered: int
    lost: int
    missing: tuple[Range, ...]
    open_ended: bool
    reasons: tuple[str, ...]


class TelemetryStore:
    """An open file; one thread uses it. Raises `StoreError` from every method."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._database = Database(path, _MIGRATIONS)
        self._most_bytes = most_bytes

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, batches: Sequence[tuple[str, str, Batch, bytes]], received_at: str) -> int:
        """Store `(cluster, device, batch, its compressed records)`, all or none; returns how many were new."""
        with self._database.transaction():
            new = sum(self._add(*one, received_at) for one in batches)
            self._prune()
        return new

    def records(  # noqa: PLR0913 - what may be asked
        self, cluster: str, *, device: str = "", stream: str = "", after: int = 0, since: str = "", until: str = ""
    ) -> Iterator[StoredRecord]:
        """Yield records in the order they arrived, each once; `after` is an id of a batch, times are RFC 3339."""
        rows = self._database.rows(
            "SELECT batches.*, offset_ms, synchronized FROM batches LEFT JOIN boots USING (cluster, device, boot_id)"
            " WHERE cluster = ? AND (device = ? OR ? = '') AND (stream = ? OR ? = '') AND id > ? ORDER BY id",
            (cluster, device, device, stream, stream, after),
        )
        since, until = _normal(since), _normal(until)
        seen: dict[tuple[str, str, int], list[Range]] = {}
        for row in rows:
            ranges = seen.setdefault((row["device"], row["stream"], row["epoch"]), [])
            known = union(ranges)
            ranges.append((row["first"], row["last"]))
            for record in _records(row):
                there = any(first <= record.number <= last for first, last in known)
                if not there and (not since or record.time >= since) and (not until or record.time < until):
                    yield record

    def lines(self, cluster: str, device: str, stream: str) -> list[tuple[int, int, bytes]]:
        """Return `(epoch, number, record)` of a device's stream by epoch and number, to the byte; some may be twice."""
        rows = self._database.rows(
            "SELECT epoch, first, payload FROM batches WHERE cluster = ? AND device = ? AND stream = ?",
            (cluster, device, stream),
        )
        found = [
            (row["epoch"], number, line)
            for row in rows
            for number, line in enumerate(zlib.decompress(row["payload"]).split(b"\n"), row["first"])
        ]
        return sorted(found)

    def lost(self, cluster: str, device: str, stream: str) -> list[tuple[int, int, int | None]]:
        """Return `(epoch, first, last)` of what was told as lost, or was removed here for want of space."""
        return [
            (row["epoch"], row["first"], row["last"])
            for table in ("gaps", "removed")
            for row in self._database.rows(
                f"SELECT epoch, first, last FROM {table}"  # noqa: S608 - one of our own two names
                " WHERE cluster = ? AND device = ? AND stream = ?",
                (cluster, device, stream),
            )
        ]

    def devices(self, cluster: str, stream: str) -> list[str]:
        """Return the devices of which there is something of a stream."""
        rows = self._database.rows(
            "SELECT DISTINCT device FROM batches WHERE cluster = ? AND stream = ? ORDER BY device", (cluster, stream)
        )
        return [row["device"] for row in rows]

    def newest(self) -> int:
        """Return the id of the newest batch, for `records(after=…)`."""
        [row] = self._database.rows("SELECT coalesce(max(id), 0) AS newest FROM batches")
        return int(row["newest"])

    def check(self, cluster: str, device: str = "") -> list[Conservation]:
        """Return the account of every stream that promises one: of LATEST streams only the newest matters."""
        found: dict[tuple[str, str, int], list[Range]] = {}
        for table in ("batches", "removed"):
            rows = self._database.rows(
                f"SELECT device, stream, epoch, first, last FROM {table}"  # noqa: S608 - one of our own two names
                " WHERE cluster = ? AND (device = ? OR ? = '')",
                (cluster, device, device),
            )
            for row in rows:
                found.setdefault((row["device"], row["stream"], row["epoch"]), []).append((row["first"], row["last"]))
        gaps: dict[tuple[str, str, int], list[Row]] = {}
        for row in self._database.rows(
            "SELECT * FROM gaps WHERE cluster = ? AND (device = ? OR ? = '')", (cluster, device, device)
        ):
            gaps.setdefault((row["device"], row["stream"], row["epoch"]), []).append(row)
        keys = sorted(key for key in found.keys() | gaps.keys() if key[1] not in _LATEST)
        return [_account(key, found.get(key, []), gaps.get(key, [])) for key in keys]

    def _add(self, cluster: str, device: str, batch: Batch, payload: bytes, received_at: str) -> bool:
        self._note_boot(cluster, device, batch)
        if batch.stream == GAPS.name:
            self._note_gaps(cluster, device, batch)
        where = (cluster, device, batch.stream, batch.epoch)
        rows = self._database.rows(
            "SELECT first, last FROM batches WHERE cluster = ? AND device = ? AND stream = ? AND epoch = ?"
            " AND first <= ? AND last >= ?",
            (*where, batch.last, batch.first),
        )
        if not holes([(row["first"], row["last"]) for row in rows], batch.first, batch.last):
            return False
        self._database.change(
            "INSERT INTO batches (cluster, device, stream, epoch, first, last, boot_id, historical, received_at,"
            " payload)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*where, batch.first, batch.last, batch.boot_id, int(batch.historical), received_at, payload),
        )
        return True

    def _note_boot(self, cluster: str, device: str, batch: Batch) -> None:
        if batch.clock.offset_ms is None:
            return
        self._database.change(
            "INSERT INTO boots VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET offset_ms = excluded.offset_ms,"
            " synchronized = excluded.synchronized WHERE excluded.synchronized >= synchronized",
            (cluster, device, batch.boot_id, batch.clock.offset_ms, int(batch.clock.synchronized)),
        )

    def _note_gaps(self, cluster: str, device: str, batch: Batch) -> None:
        for record in batch.records:
            try:
                gap: Gap = gap_from_record(json.dumps(record).encode())
            except InvalidInputError:
                continue
            self._database.change(
                "INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?)",
                (cluster, device, gap.stream, gap.epoch, gap.first, gap.last, gap.reason.value),
            )

    def _prune(self) -> None:
        """Remove the oldest beyond the limit; what was delivered stays accounted for."""
        [row] = self._database.rows("SELECT coalesce(sum(length(payload)), 0) AS size FROM batches")
        excess = int(row["size"]) - self._most_bytes
        while excess > 0:
            rows = self._database.rows("SELECT *, length(payload) AS size FROM batches ORDER BY id LIMIT 100")
            for one in rows if excess > 0 else ():
                key = (one["cluster"], one["device"], one["stream"], one["epoch"], one["first"], one["last"])
                self._database.change("INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?, ?, ?)", key)
                self._database.change("DELETE FROM batches WHERE id = ?", (one["id"],))
                excess -= one["size"]
                if excess <= 0:
                    return
            if not rows:
                return


def _account(key: tuple[str, str, int], delivered: list[Range], gaps: list[Row]) -> Conservation:
    device, stream, epoch = key
    told = [(row["first"], row["last"]) for row in gaps if row["last"] is not None]
    open_ended = [row["first"] for row in gaps if row["last"] is None]
    produced = max([last for _, last in (*delivered, *told)] + [first - 1 for first in open_ended], default=0)
    told.extend((first, produced) for first in open_ended if first <= produced)
    return Conservation(
        device=device,
        stream=stream,
        epoch=epoch,
        produced=produced,
        delivered=size(delivered),
        lost=size([*delivered, *told]) - size(delivered),
        missing=tuple(holes([*delivered, *told], 1, produced)),
        open_ended=bool(open_ended),
        reasons=tuple(sorted({str(row["reason"]) for row in gaps})),
    )


def _records(row: Row) -> Iterator[StoredRecord]:
    lines = zlib.decompress(row["payload"]).split(b"\n")
    for number, line in enumerate(lines, row["first"]):
        body = json.loads(line)
        yield StoredRecord(
            device=row["device"],
            stream=row["stream"],
            epoch=row["epoch"],
            number=number,
            time=_time(body.get("t"), row["offset_ms"]),
            certain=bool(row["synchronized"]),
            body=body,
        )


def _time(at_ms: object, offset_ms: int | None) -> str:
    if not isinstance(at_ms, int | float) or offset_ms is None:
        return ""
    try:
        moment = datetime.fromtimestamp((at_ms + offset_ms) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return _text(moment)


def _normal(text: str) -> str:
    """Return a time as records have it, so that the two can be compared as texts."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text[:40]!r} is not a time", hint="Write 2026-11-24T03:00:00Z.") from error
    return _text(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
