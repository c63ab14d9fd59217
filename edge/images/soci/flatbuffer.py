"""The part of FlatBuffers that zTOCs use: tables of integers and references, strings, vectors.

A `Shape` is a table's schema in the order its writer adds the fields; it serves both directions. `Writer` lays bytes
out exactly as the reference builders do (back to front, equal vtables shared), so that equal values give equal bytes.
`Reader` checks every offset before it follows it.

Format: https://flatbuffers.dev/internals/
"""

import struct
from collections.abc import Sequence
from operator import ne
from typing import Final, NamedTuple

from edge.errors import InvalidInputError

MAX_BUFFER_BYTES: Final = 0x7FFF_FFFF
"""A FlatBuffer's offsets are signed 32-bit numbers."""

_MAX_VTABLES: Final = 4096
"""Vtables differ by alignment and by which fields are absent; honest buffers have a few dozen."""

_LEAST_BUFFER_BYTES: Final = 8
"""A root reference and a table's reference to its vtable."""
_LEAST_VTABLE_BYTES: Final = 4
"""Its own size and its table's size."""
_REUSE: Final = 4
"""How often a buffer's bytes may be read on average: writers share strings, bombs share them without end."""
_SLACK_BYTES: Final = 1 << 16

_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_NULS: Final = tuple(bytes(1 + pad) for pad in range(4))
_SIZES: Final = {"q": 8, "i": 4, "I": 4, "b": 1, "r": 4}


class Field(NamedTuple):
    """One field: its slot in the vtable, a `struct` code (`r` is a reference), and the value that is left out."""

    slot: int
    code: str
    default: int = 0


class _Layout(NamedTuple):
    """How a table of one shape is packed, given its alignment and which fields are present."""

    packer: struct.Struct
    size: int
    plan: tuple[tuple[int, int], ...]
    """(index of the value, position in the object if it is a reference, else -1) in memory order."""
    slots: tuple[int, ...]


class Shape:
    """A table's fields, in the order in which they are written."""

    def __init__(self, *fields: Field) -> None:
        self.fields = fields
        self.defaults = tuple(field.default for field in fields)
        self.align = max(_SIZES[field.code] for field in fields)
        self._layouts: dict[tuple[int, tuple[bool, ...]], _Layout] = {}

    def layout(self, size: int, present: tuple[bool, ...]) -> _Layout:
        """Return the layout of a table that is written after `size` bytes."""
        key = (size & 7, present)
        found = self._layouts.get(key)
        if found is None:
            found = self._layouts[key] = self._lay_out(size & 7, present)
        return found

    def _lay_out(self, start: int, present: tuple[bool, ...]) -> _Layout:
        size, parts, ends = start, list[str](), dict[int, int]()
        for index, field in enumerate(self.fields):
            if not present[index]:
                continue
            width = _SIZES[field.code]
            pad = -size % width
            size += pad + width
            ends[index] = size
            parts += [f"{pad}x" if pad else "", field.code.replace("r", "I")]
        pad = -size % 4
        size += pad + 4
        parts += [f"{pad}x" if pad else "", "i"]
        slots = [0] * (1 + max((self.fields[index].slot for index in ends), default=-1))
        for index, end in ends.items():
            slots[self.fields[index].slot] = size - end
        plan = tuple((i, size - ends[i] if self.fields[i].code == "r" else -1) for i in reversed(ends))
        return _Layout(struct.Struct("<" + "".join(reversed(parts))), size - start, plan, tuple(slots))


class Writer:
    """Writes one FlatBuffer, leaves first. A returned *reference* is a distance from the end of the buffer."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._align = 4
        self._vtables: dict[tuple[int, ...], int] = {}

    def _put(self, chunk: bytes) -> int:
        self._chunks.append(chunk)
        self._size += len(chunk)
        return self._size

    def string(self, text: bytes) -> int:
        """Write a NUL-terminated string."""
        return self.strings([text])[0]

    def strings(self, texts: Sequence[bytes]) -> list[int]:
        """Write NUL-terminated strings, the first one first."""
        # This is most of the work of a large zTOC: no call for each string.
        size, pack, append, references = self._size, _U32.pack, self._chunks.append, list[int]()
        for text in texts:
            count = len(text)
            pad = -(size + count + 1) & 3
            append(pack(count) + text + _NULS[pad])
            size += count + pad + 5
            references.append(size)
        self._size = size
        return references

    def byte_vector(self, data: bytes | memoryview) -> int:
        """Write a vector of bytes."""
        if pad := -(self._size + len(data)) & 3:
            self._put(bytes(pad))
        self._put(bytes(data))
        return self._put(_U32.pack(len(data)))

    def reference_vector(self, references: Sequence[int]) -> int:
        """Write a vector of references."""
        count = len(references)
        if not count and not self._size & 3:
            return self._put(b"\0\0\0\0")
        if pad := -self._size & 3:
            self._put(bytes(pad))
        top = self._size + 4 * count
        relative = [top - 4 * index - reference for index, reference in enumerate(references)]
        return self._put(struct.pack(f"<{count + 1}I", count, *relative))

    def table(self, shape: Shape, values: Sequence[int]) -> int:
        """Write a table; `values` stand in the order of the shape's fields, references as they were returned.

        Raises:
            InvalidInputError: A value does not fit its field.
        """
        present = tuple(map(ne, values, shape.defaults))
        layout = shape.layout(self._size, present)
        at = self._size + layout.size
        packed = [values[i] if position < 0 else at - position - values[i] for i, position in layout.plan]
        self._align = max(self._align, shape.align)
        shared = self._vtables.get(layout.slots)
        vtable_size = 2 * (len(layout.slots) + 2)
        try:
            self._put(layout.packer.pack(vtable_size if shared is None else shared - at, *packed))
        except struct.error as error:
            raise InvalidInputError(f"a value does not fit its FlatBuffer field: {error}") from error
        if shared is None:
            header = struct.pack(f"<{len(layout.slots) + 2}H", vtable_size, layout.size, *layout.slots)
            self._vtables[layout.slots] = self._put(header)
        return at

    def finish(self, root: int) -> bytes:
        """Return the buffer whose root table is `root`."""
        if pad := -(self._size + 4) % self._align:
            self._put(bytes(pad))
        self._put(_U32.pack(self._size + 4 - root))
        if self._size > MAX_BUFFER_BYTES:
            raise InvalidInputError(f"the FlatBuffer would be {self._size} bytes, more than {MAX_BUFFER_BYTES}")
        return b"".join(reversed(self._chunks))


class _Access(NamedTuple):
    """How to read a table that has a certain vtable."""

    unpacker: struct.Struct
    take: tuple[int, ...]
    """For each field of the shape: which unpacked value it is, or -1 when it is absent."""
    places: tuple[int, ...]
    """For each field of the shape: its position in the table."""


class Reader:
    """Reads one FlatBuffer that may be hostile: whatever is wrong with it raises `InvalidInputError`.

    Memory and time stay within a few times the buffer's size, however often its parts refer to each other.
    """

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self.data = memoryview(data).toreadonly().cast("B")
        self.what = what
        self._end = len(self.data)
        self._access: dict[tuple[int, int], _Access] = {}
        self._left = _REUSE * self._end + _SLACK_BYTES
        if not _LEAST_BUFFER_BYTES <= self._end <= MAX_BUFFER_BYTES:
            raise self.wrong(f"it has {self._end} bytes")

    def wrong(self, problem: str) -> InvalidInputError:
        """Make the error to raise for a problem in this buffer."""
        return InvalidInputError(f"{self.what} is malformed: {problem}", hint="Build the index again.")

    def root(self) -> int:
        """Return the position of the root table."""
        return self.follow(0)

    def follow(self, position: int) -> int:
        """Return the position that the reference at `position` points to."""
        return position + self._u32(position)

    def _u32(self, position: int) -> int:
        if not 0 <= position <= self._end - 4:
            raise self.wrong(f"offset {position} is outside")
        found: int = _U32.unpack_from(self.data, position)[0]
        return found

    def table(self, shape: Shape, position: int) -> list[int]:
        """Read a table: values in the order of the shape's fields, references as positions (0 when absent)."""
        if not 0 <= position <= self._end - 4:
            raise self.wrong(f"a table at {position} is outside")
        vtable = position - _I32.unpack_from(self.data, position)[0]
        access = self._access.get((id(shape), vtable)) or self._learn(shape, vtable)
        if position + access.unpacker.size > self._end:
            raise self.wrong(f"the table at {position} is cut off")
        raw = access.unpacker.unpack_from(self.data, position)
        fields = shape.fields
        return [
            fields[i].default if t < 0 else (raw[t] + position + access.places[i] if fields[i].code == "r" else raw[t])
            for i, t in enumerate(access.take)
        ]

    def _learn(self, shape: Shape, vtable: int) -> _Access:
        if not 0 <= vtable <= self._end - 4:
            raise self.wrong(f"a vtable at {vtable} is outside")
        size, table_size = struct.unpack_from("<2H", self.data, vtable)
        if size < _LEAST_VTABLE_BYTES or size % 2 or vtable + size > self._end:
            raise self.wrong(f"the vtable at {vtable} has an impossible size")
        if len(self._access) >= _MAX_VTABLES:
            raise self.wrong(f"it has more than {_MAX_VTABLES} vtables")
        slots = struct.unpack_from(f"<{size // 2 - 2}H", self.data, vtable + 4)
        access = self._plan(shape, slots, table_size)
        self._access[id(shape), vtable] = access
        return access

    def _plan(self, shape: Shape, slots: tuple[int, ...], table_size: int) -> _Access:
        places = tuple(slots[field.slot] if field.slot < len(slots) else 0 for field in shape.fields)
        order = sorted(index for index, place in enumerate(places) if place)
        order.sort(key=places.__getitem__)
        at, parts = 0, ["<"]
        for index in order:
            code = shape.fields[index].code
            if places[index] < max(at, 4) or places[index] + _SIZES[code] > table_size:
                raise self.wrong("a table's fields overlap or leave it")
            parts.append(f"{places[index] - at}x{code.replace('r', 'I')}")
            at = places[index] + _SIZES[code]
        take = tuple(order.index(index) if places[index] else -1 for index in range(len(places)))
        return _Access(struct.Struct("".join(parts)), take, places)

    def vector(self, position: int, width: int) -> tuple[int, int]:
        """Return (position of the first element, number of elements); (0, 0) for an absent vector."""
        if not position:
            return 0, 0
        count = self._u32(position)
        if count * width > self._end - position - 4:
            raise self.wrong(f"the vector at {position} is cut off")
        return position + 4, count

    def references(self, position: int, most: int) -> list[int]:
        """Return the positions a vector of up to `most` references points to."""
        first, count = self.vector(position, 4)
        if count > most:
            raise self.wrong(f"the vector at {position} has {count} elements, more than {most}")
        self._spend(4 * count)
        relative = struct.unpack_from(f"<{count}I", self.data, first)
        return [first + 4 * index + offset for index, offset in enumerate(relative)]

    def string(self, position: int) -> bytes:
        """Return a string's or a byte vector's content; empty when it is absent."""
        first, count = self.vector(position, 1)
        self._spend(count)
        return bytes(self.data[first : first + count])

    def view(self, position: int) -> memoryview:
        """Return a byte vector's content without copying it."""
        first, count = self.vector(position, 1)
        return self.data[first : first + count]

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self.wrong("its parts are used over and over")
