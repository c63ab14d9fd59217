"""zstd as the system has it: dpkg and APT need libzstd.so.1, so that every Debian has it, and Python 3.11 has none.

Interface: https://facebook.github.io/zstd/zstd_manual.html, the stable part. Frame format: RFC 8878.
"""

import ctypes
from collections.abc import Iterable, Iterator
from functools import cache
from types import TracebackType
from typing import Final, Self

from edge.errors import EdgeError, InvalidInputError

LEVEL: Final = 19
"""A bundle is packed once and fetched by every device; unpacking costs the same at every level."""
WINDOW_LOG: Final = 23
"""How far a frame may refer back, and so what unpacking takes in memory: 8 MiB, what `LEVEL` uses."""

_C_LEVEL: Final = 100
_C_WINDOW_LOG: Final = 101
_C_CHECKSUM: Final = 201
_D_WINDOW_LOG_MAX: Final = 100
_CONTINUE, _FLUSH, _END = 0, 1, 2
_PIECE: Final = 128 << 10
"""A block's most (RFC 8878, 3.1.1.2): output comes block by block."""


class _In(ctypes.Structure):
    _fields_ = (("src", ctypes.c_char_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


class _Out(ctypes.Structure):
    _fields_ = (("dst", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise EdgeError(f"zstd cannot be loaded: {error}", hint="Install the package libzstd1.") from error
    context, put, take = ctypes.c_void_p, ctypes.POINTER(_Out), ctypes.POINTER(_In)
    for name in ("ZSTD_createCCtx", "ZSTD_createDCtx"):
        getattr(library, name).restype = context
    for name in ("ZSTD_CCtx_setParameter", "ZSTD_DCtx_setParameter"):
        getattr(library, name).argtypes = (context, ctypes.c_int, ctypes.c_int)
        getattr(library, name).restype = ctypes.c_size_t
    for name in ("ZSTD_freeCCtx", "ZSTD_freeDCtx"):
        getattr(library, name).argtypes = (context,)
    library.ZSTD_compressStream2.argtypes = (context, put, take, ctypes.c_int)
    library.ZSTD_compressStream2.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = (context, put, take)
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


def _problem(library: ctypes.CDLL, code: int) -> str:
    return str(library.ZSTD_getErrorName(code).decode("ascii", "replace")) if library.ZSTD_isError(code) else ""


def compress(pieces: Iterable[bytes], level: int = LEVEL) -> bytes:
    """Return one frame of all pieces; the same bytes for the same content and the same zstd."""
    library = _library()
    context = library.ZSTD_createCCtx()
    if not context:
        raise EdgeError("zstd has no memory for another frame")
    try:
        for parameter, value in ((_C_LEVEL, level), (_C_WINDOW_LOG, WINDOW_LOG), (_C_CHECKSUM, 0)):
            if problem := _problem(library, library.ZSTD_CCtx_setParameter(context, parameter, value)):
                raise EdgeError(f"zstd does not take level {level}: {problem}")
        return b"".join(_packed(library, context, pieces))
    finally:
        library.ZSTD_freeCCtx(context)


def _packed(library: ctypes.CDLL, context: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    buffer = ctypes.create_string_buffer(_PIECE)
    for piece, end in _with_end(pieces):
        source = _In(piece, len(piece), 0)
        while True:
            target = _Out(ctypes.addressof(buffer), _PIECE, 0)
            left = library.ZSTD_compressStream2(context, ctypes.byref(target), ctypes.byref(source), end)
            if problem := _problem(library, left):
                raise EdgeError(f"zstd failed: {problem}")
            yield ctypes.string_at(buffer, target.pos)
            if source.pos == source.size and (end == _CONTINUE or left == 0):
                break


def _with_end(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    yield from ((piece, _CONTINUE) for piece in pieces)
    yield b"", _END


class Unpacker:
    """Unpacks one frame as it arrives, within bounds. A context manager, used by one thread at a time.

    Args:
        most: Bytes it may unpack to; a frame that goes on is refused when it gets there, whatever it would become.

    Raises (all methods):
        InvalidInputError: It is not such a frame, wants more than 8 MiB of memory, or is too large.
    """

    def __init__(self, most: int) -> None:
        self._library = _library()
        self._left = most
        self._most = most
        self._buffer = ctypes.create_string_buffer(_PIECE)
        self._context = self._library.ZSTD_createDCtx()
        if not self._context:
            raise EdgeError("zstd has no memory for another frame")
        self._library.ZSTD_DCtx_setParameter(self._context, _D_WINDOW_LOG_MAX, WINDOW_LOG)
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free zstd's memory."""
        context, self._context = self._context, None
        if context:
            self._library.ZSTD_freeDCtx(context)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Take the next piece, and yield what it gives, in pieces of up to 128 KiB."""
        source = _In(piece, len(piece), 0)
        while True:
            if self.ended:
                if source.pos < source.size:
                    raise InvalidInputError("bytes follow the end of the zstd frame")
                return
            target = _Out(ctypes.addressof(self._buffer), _PIECE, 0)
            left = self._library.ZSTD_decompressStream(self._context, ctypes.byref(target), ctypes.byref(source))
            if problem := _problem(self._library, left):
                raise InvalidInputError(f"the zstd frame is damaged: {problem}")
            self.ended = left == 0
            self._left -= target.pos
            if self._left < 0:
                raise InvalidInputError(f"the zstd frame unpacks to more than {self._most} bytes")
            if target.pos:
                yield ctypes.string_at(self._buffer, target.pos)
            elif source.pos == source.size:
                return

    def finish(self) -> None:
        """Say that this was all."""
        if not self.ended:
            raise InvalidInputError("the zstd frame breaks off")


def unpack(data: bytes, most: int) -> bytes:
    """Return what one whole frame holds; raises as `Unpacker`."""
    with Unpacker(most) as unpacker:
        found = b"".join(unpacker.feed(data))
        unpacker.finish()
        return found
