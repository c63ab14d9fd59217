"""Which bytes of an image are read, in order, until its container is ready."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from edge.images.namespace import ServedLayer
from edge.images.tree import LayerTree, Record
from edge.model.start_profile import FileRange, without_overlaps

MAX_READS: Final = 100_000
LONGEST_SECONDS: Final = 300.0
"""Whoever is not ready so long after its first read, or does not say so, is not what is waited for."""


class Recorder:
    """Sees all reads. Usable from any thread.

    Args:
        done: Told, on a thread of its own, the id of each image whose start has lasted `LONGEST_SECONDS`.

    Attributes:
        changed: Told when a start begins to read, and when it is over.
    """

    def __init__(self, done: Callable[[str], None], seconds: float = LONGEST_SECONDS) -> None:
        self._done = done
        self._seconds = seconds
        self._lock = threading.Lock()
        self._by_layer: dict[str, tuple[Recording, ...]] = {}
        self._recordings: dict[str, Recording] = {}
        self.changed: Callable[[], None] = lambda: None

    def begin(self, image_id: str, trees: Mapping[str, LayerTree]) -> None:
        """Record the reads of an image's layers, from now on."""
        recording = Recording(trees)
        with self._lock:
            self._recordings[image_id] = recording
            self._sort()

    def end(self, image_id: str) -> tuple[FileRange, ...]:
        """Record no more of an image, and return what was read; nothing if nothing was recorded."""
        with self._lock:
            recording = self._recordings.pop(image_id, None)
            self._sort()
        self.changed()
        return () if recording is None else recording.ranges()

    @property
    def busy(self) -> bool:
        """A start is being recorded, and has begun to read."""
        return any(one.began is not None for one in tuple(self._recordings.values()))

    def saw(self, layer: ServedLayer, file: Record, offset: int, size: int) -> None:
        """Take a read."""
        for recording in self._by_layer.get(layer.layer_id, ()):
            recording.reads.append((layer.layer_id, file.inode, offset, size))
            if recording.began is None:
                self._began(recording)
            elif len(recording.reads) >= MAX_READS:
                self._stop(recording)

    def _began(self, recording: "Recording") -> None:
        recording.began = time.monotonic()
        timer = threading.Timer(self._seconds, self._too_long, (recording,))
        timer.daemon = True
        timer.start()
        self.changed()

    def _stop(self, recording: "Recording") -> None:
        with self._lock:
            self._by_layer = {
                key: tuple(one for one in found if one is not recording) for key, found in self._by_layer.items()
            }

    def _too_long(self, recording: "Recording") -> None:
        with self._lock:
            image_id = next((key for key, one in self._recordings.items() if one is recording), None)
        if image_id is not None:
            self._done(image_id)

    def _sort(self) -> None:
        by_layer: dict[str, tuple[Recording, ...]] = {}
        for recording in self._recordings.values():
            for layer_id in recording.trees:
                by_layer[layer_id] = (*by_layer.get(layer_id, ()), recording)
        self._by_layer = by_layer


class Recording:
    """The reads of one start."""

    def __init__(self, trees: Mapping[str, LayerTree]) -> None:
        self.trees = trees
        self.reads: list[tuple[str, int, int, int]] = []
        self.began: float | None = None

    def ranges(self) -> tuple[FileRange, ...]:
        """Return what was read, by path."""
        paths: dict[tuple[str, int], str] = {}
        found: list[FileRange] = []
        for layer_id, number, offset, size in self.reads:
            path = paths.get((layer_id, number))
            tree = self.trees[layer_id]
            record = tree.record(number)
            if path is None:
                path = paths[layer_id, number] = tree.path(record).decode("utf-8", "surrogateescape")
            end = min(offset + size, record.size)
            if offset < end:
                found.append(FileRange(path, offset, end))
        return without_overlaps(found)
