"""zlib's inflate as the system has it: stop at block boundaries, begin in the middle of a byte.

Python's own `zlib` can do neither. Interface: https://zlib.net/manual.html. Every buffer that zlib sees is an object
held here, and its length is taken from that object.
"""

import ctypes
from functools import cache
from types import TracebackType
from typing import Final, Self

from edge.errors import EdgeError, InvalidInputError

RAW: Final = -15
"""Window bits of a bare DEFLATE stream."""
GZIP: Final = 31
"""Window bits of a gzip stream."""

NO_FLUSH: Final = 0
BLOCK: Final = 5
"""Return at the next block boundary."""

_AT_BOUNDARY: Final = 128
_IN_LAST_BLOCK: Final = 64
_OK: Final = 0
_STREAM_END: Final = 1
_BUF_ERROR: Final = -5
_MAX_INPUT: Final = 1 << 30


class _Stream(ctypes.Structure):
    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libz.so.1")
    except OSError as error:
        raise EdgeError(f"zlib cannot be loaded: {error}", hint="Install the package zlib1g.") from error
    stream = ctypes.POINTER(_Stream)
    library.zlibVersion.restype = ctypes.c_char_p
    library.inflateInit2_.argtypes = (stream, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    library.inflate.argtypes = (stream, ctypes.c_int)
    library.inflateEnd.argtypes = (stream,)
    library.inflateReset2.argtypes = (stream, ctypes.c_int)
    library.inflateValidate.argtypes = (stream, ctypes.c_int)
    library.inflatePrime.argtypes = (stream, ctypes.c_int, ctypes.c_int)
    library.inflateSetDictionary.argtypes = (stream, ctypes.c_char_p, ctypes.c_uint)
    return library


class OutputBuffer:
    """Memory that zlib writes to."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)
        # The array keeps the bytearray from being resized for as long as its address is known here.
        self._array = (ctypes.c_char * size).from_buffer(self.data)
        self.address = ctypes.addressof(self._array)


class InflateStream:
    """One inflate state; a context manager, used by one thread at a time.

    Args:
        window_bits: `RAW` or `GZIP`.
        checked: Compare each gzip member's trailer with its content; otherwise the caller does.

    Attributes:
        ended: The stream (for gzip: the member) came to its end.
    """

    def __init__(self, window_bits: int, *, checked: bool = True) -> None:
        self._library = _library()
        self._inflate = self._library.inflate
        self._stream = _Stream()
        self._pointer = ctypes.byref(self._stream)
        self._input = b""
        self._open = False
        self._checked = checked
        self.ended = False
        version = self._library.zlibVersion()
        if self._library.inflateInit2_(self._pointer, window_bits, version, ctypes.sizeof(_Stream)) != _OK:
            raise EdgeError("zlib has no memory for another stream")
        self._library.inflateValidate(self._pointer, checked)
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free zlib's memory."""
        if self._open:
            self._open = False
            self._library.inflateEnd(self._pointer)

    @property
    def remaining(self) -> int:
        """Input bytes that were not consumed."""
        return int(self._stream.avail_in)

    @property
    def at_block_start(self) -> bool:
        """The last call stopped before a block's header."""
        return int(self._stream.data_type) & (_AT_BOUNDARY | _IN_LAST_BLOCK) == _AT_BOUNDARY

    @property
    def unused_bits(self) -> int:
        """How many bits of the last consumed byte were not used."""
        return int(self._stream.data_type & 7)

    def feed(self, data: bytes) -> None:
        """Give the input; what remained of the one before is forgotten."""
        if len(data) > _MAX_INPUT:
            raise InvalidInputError(f"{len(data)} bytes are too many at once")
        self._input = data
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        self._stream.avail_in = len(data)

    def skip(self, count: int) -> int:
        """Pass over up to `count` input bytes; return how many there were."""
        step = min(count, self.remaining)
        self._stream.next_in = (self._stream.next_in or 0) + step
        self._stream.avail_in -= step
        return step

    def prime(self, bits: int, value: int) -> None:
        """Put `bits` bits (0 to 7) in front of the input."""
        if bits:
            self._library.inflatePrime(self._pointer, bits, value)

    def set_window(self, window: bytes) -> None:
        """Set the output that came before (raw streams)."""
        self._library.inflateSetDictionary(self._pointer, window, len(window))

    def restart(self, window_bits: int) -> None:
        """Begin another stream with the input that remains."""
        self._library.inflateReset2(self._pointer, window_bits)
        self._library.inflateValidate(self._pointer, self._checked)
        self.ended = False

    def inflate(self, buffer: OutputBuffer, start: int, end: int, flush: int) -> int:
        """Inflate into `buffer[start:end]`; return how many bytes were written.

        Raises:
            InvalidInputError: The input is not a valid stream.
        """
        if not 0 <= start <= end <= len(buffer.data) or self.ended or not self._open:
            raise ValueError((start, end, len(buffer.data)))
        stream = self._stream
        stream.next_out = buffer.address + start
        stream.avail_out = end - start
        code = self._inflate(self._pointer, flush)
        if code == _STREAM_END:
            self.ended = True
        elif code not in (_OK, _BUF_ERROR):
            message = (stream.msg or b"").decode("ascii", "replace") or f"zlib code {code}"
            raise InvalidInputError(f"the compressed data is damaged: {message}")
        return int(end - start - stream.avail_out)
