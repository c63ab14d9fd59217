"""The digests of a stream and of the parts between cuts in it."""

import hashlib


class SpanDigests:
    """Hashes a stream whole, and each part from one cut to the next or the end; what precedes the first cut is no part.

    Attributes:
        whole: Of the stream so far.
        digests: `sha256:<hex>` of each finished part.
        size: Bytes so far.
    """

    def __init__(self) -> None:
        self.whole = hashlib.sha256()
        self.digests: list[str] = []
        self.size = 0
        self._part = hashlib.sha256()
        self._last = b""
        self._open = False

    def feed(self, data: bytes, cuts: list[tuple[int, bool]]) -> None:
        """Take a piece and the cuts in it: (offset in the stream, whether the byte before it is shared)."""
        at = 0
        view = memoryview(data)
        for offset, shared in cuts:
            cut = max(offset - self.size, 0)
            self._part.update(view[at:cut])
            self._close()
            before = data[cut - 1 : cut] if cut else self._last
            self._part = hashlib.sha256(before if shared else b"")
            self._open, at = True, cut
        self._part.update(view[at:])
        self.whole.update(data)
        self._last = data[-1:]
        self.size += len(data)

    def _close(self) -> None:
        if self._open:
            self.digests.append(f"sha256:{self._part.hexdigest()}")

    def finish(self) -> None:
        """Say that the stream is at its end."""
        self._close()
