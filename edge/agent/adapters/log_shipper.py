"""Containers' logs on their way to the outbox: one thread that sleeps until the kernel says that a file grew.

It reads what Podman's monitor writes, so it can neither block nor slow a container. What a container writes beyond its
rate is counted and told by one record; what the others write is read all the same.
"""

import json
import logging
import os
import queue
import selectors
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edge.agent.adapters.followed_log import FollowedLog, LogLimits
from edge.agent.adapters.inotify import CREATED, MODIFIED, MOVED_HERE, OVERFLOW, Inotify
from edge.agent.adapters.log_file import LOG_NAME, LogFile, Position, positions_from_json, positions_to_json
from edge.agent.telemetry.log_lines import Source
from edge.agent.telemetry.ports import Records
from edge.errors import EdgeError, StoreError
from edge.files import store_error, write_atomically
from edge.model.records import LOGS

SOURCE_NAME: Final = "source.json"
POSITIONS_NAME: Final = "positions.json"
LINGER_SECONDS: Final = 1.0
"""Between two looks: a container that writes all the time wakes the device once a second and not at every line."""
SAVE_SECONDS: Final = 60.0
"""Between two writings of the positions, each as of the one before: by then the lines before it are out of memory,
acknowledged or on disk. After a power cut the lines of up to two such times come again."""
_MOST_JSON: Final = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Follow:
    source: Source
    folder: Path


@dataclass(frozen=True, slots=True)
class _Release:
    task_id: str


class LogShipper:
    """Follows the logs in a folder, one folder below it for each task and container, until it is closed."""

    def __init__(self, folder: Path, records: Records, monotonic: Callable[[], float], limits: LogLimits) -> None:
        self._folder = folder
        self._records = records
        self._monotonic = monotonic
        self._limits = limits
        self._news: queue.SimpleQueue[_Follow | _Release | None] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Follow again what an agent before this one followed, and remove what it had released."""
        for folder in sorted(self._folder.glob("*/*/")):
            if not (folder / SOURCE_NAME).exists():
                shutil.rmtree(folder, ignore_errors=True)
            elif (source := _read_source(folder / SOURCE_NAME)) is not None:
                self._tell(_Follow(source, folder))

    def prepare(self, source: Source) -> Path:
        """Return the path where the engine must write the container's log, and follow it from now on.

        Raises:
            StoreError: Its folder cannot be made.
        """
        folder = self._folder / source.task_id / source.container
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(f"cannot make {folder}", error) from error
        document = json.dumps(asdict(source)).encode()
        if not (folder / SOURCE_NAME).exists():
            write_atomically(folder / SOURCE_NAME, document)
        self._tell(_Follow(source, folder))
        return folder / LOG_NAME

    def release(self, task_id: str) -> None:
        """The task's containers are gone: hand over the last lines, then remove its logs."""
        if not (self._folder / task_id).is_dir():
            return
        for path in (self._folder / task_id).glob(f"*/{SOURCE_NAME}"):
            # Should this agent not come to remove the rest, the next one knows by this that nobody needs it.
            path.unlink(missing_ok=True)
        self._tell(_Release(task_id))

    def close(self) -> None:
        """Hand over what is written, have it put on the disk, note how far that is, and end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        self._news.put(None)
        os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
        os.close(self._wake)

    def _tell(self, news: _Follow | _Release) -> None:
        with self._lock:
            if self._closed:
                return
            self._news.put(news)
            os.eventfd_write(self._wake, 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            loop = _Loop(self._folder, self._records, self._monotonic, self._limits)
            loop.run(self._wake, self._news)
        except OSError:
            _log.exception("logs are not shipped any more")


class _Loop:
    """What the thread holds; nobody else touches it."""

    def __init__(self, folder: Path, records: Records, monotonic: Callable[[], float], limits: LogLimits) -> None:
        self._folder = folder
        self._records = records
        self._monotonic = monotonic
        self._limits = limits
        self._inotify = Inotify()
        self._logs: dict[int, FollowedLog] = {}
        self._dirty: set[int] = set()
        self._saved = self._read_positions()
        self._captured: dict[str, Position] = dict(self._saved)
        self._save_due: float | None = None
        self._ended = False

    def run(self, wake: int, news: "queue.SimpleQueue[_Follow | _Release | None]") -> None:
        with selectors.DefaultSelector() as told, selectors.DefaultSelector() as everything:
            told.register(wake, selectors.EVENT_READ)
            everything.register(wake, selectors.EVENT_READ)
            everything.register(self._inotify, selectors.EVENT_READ)
            rested_at = 0.0
            while not self._ended:
                now = self._monotonic()
                resting = self._dirty and now < rested_at
                due = [rested_at] if self._dirty else self._due()
                (told if resting else everything).select(max(0.0, min(due) - now) if due else None)
                self._learn(wake, news)
                self._notice()
                now = self._monotonic()
                if self._dirty and now >= rested_at and self._pass():
                    rested_at = now + LINGER_SECONDS
                self._report(now)
                if self._save_due is not None and now >= self._save_due:
                    self._save()
        self._end()

    # --- what is followed

    def _learn(self, wake: int, news: "queue.SimpleQueue[_Follow | _Release | None]") -> None:
        try:
            os.eventfd_read(wake)
        except BlockingIOError:
            return
        while not news.empty():
            match news.get():
                case None:
                    self._ended = True
                case _Follow(source, folder):
                    self._follow(source, folder)
                case _Release(task_id):
                    self._release(task_id)

    def _follow(self, source: Source, folder: Path) -> None:
        try:
            watch = self._inotify.watch(folder, MODIFIED | CREATED | MOVED_HERE)
        except OSError as error:
            _log.warning("the log of container %s is not shipped: %s", source.container, error)
            return
        if watch not in self._logs:
            file = LogFile(folder, self._saved.get(_name(source)), self._notice)
            self._logs[watch] = FollowedLog(source, file, self._limits, self._monotonic())
        self._dirty.add(watch)

    def _release(self, task_id: str) -> None:
        for watch, log in list(self._logs.items()):
            if log.source.task_id == task_id:
                self._read(log)
                self._put(log.finish(self._now_ms()))
                log.close()
                self._inotify.unwatch(watch)
                del self._logs[watch]
                self._dirty.discard(watch)
                self._captured.pop(_name(log.source), None)
        shutil.rmtree(self._folder / task_id, ignore_errors=True)

    def _notice(self) -> None:
        for event in self._inotify.read():
            if event.mask & OVERFLOW:
                self._dirty.update(self._logs)
            elif event.name == LOG_NAME and event.watch in self._logs:
                self._dirty.add(event.watch)
                if event.mask & MOVED_HERE:
                    self._logs[event.watch].file.replaced()

    # --- reading

    def _pass(self) -> bool:
        """Look at every log that grew; False when there was nothing in them, and so nothing to rest from."""
        files = {watch: self._logs[watch].file for watch in self._dirty}
        # What is noticed while one is read belongs to the next look.
        self._dirty = set()
        for watch, file in files.items():
            self._read(self._logs[watch])
            self._dirty |= {watch} if file.has_more else set()
        grown = any(file.has_grown for file in files.values())
        if grown and self._save_due is None:
            self._save_due = self._monotonic() + SAVE_SECONDS
        return grown

    def _read(self, log: FollowedLog) -> None:
        try:
            for batch in log.read(self._monotonic(), self._now_ms()):
                self._put(batch)
        except (OSError, EdgeError) as error:
            _log.warning("the log of container %s cannot be shipped: %s", log.source.container, error)

    def _report(self, now: float) -> None:
        for log in self._logs.values():
            if log.report_due is not None and log.report_due <= now:
                self._put(log.report(self._now_ms()))

    def _put(self, batch: list[bytes]) -> None:
        if batch:
            self._records.put(LOGS.name, batch)

    def _due(self) -> list[float]:
        reports = [log.report_due for log in self._logs.values()]
        return [due for due in (*reports, self._save_due) if due is not None]

    def _now_ms(self) -> int:
        return int(self._monotonic() * 1000)

    # --- how far

    def _positions(self) -> Iterator[tuple[str, Position]]:
        for log in self._logs.values():
            position = log.file.position()
            if position is not None:
                yield _name(log.source), position

    def _save(self) -> None:
        """Write what was captured the last time, and once more as long as that is not all."""
        now = dict(self._positions())
        self._write({name: self._captured[name] for name in now if name in self._captured})
        self._save_due = self._monotonic() + SAVE_SECONDS if now != self._captured else None
        self._captured = now

    def _write(self, positions: dict[str, Position]) -> None:
        if positions == self._saved:
            return
        try:
            write_atomically(self._folder / POSITIONS_NAME, positions_to_json(positions))
        except StoreError as error:
            # The lines will come again after a restart; that is all that is lost.
            _log.warning("%s", error)
        else:
            self._saved = positions

    def _read_positions(self) -> dict[str, Position]:
        try:
            with (self._folder / POSITIONS_NAME).open("rb") as file:
                return positions_from_json(file.read(_MOST_JSON))
        except OSError:
            return {}

    def _end(self) -> None:
        for log in self._logs.values():
            self._read(log)
            self._put(log.report(self._now_ms()))
        self._records.flush()
        self._write(dict(self._positions()))
        for log in self._logs.values():
            log.close()
        self._inotify.close()


def _name(source: Source) -> str:
    return f"{source.task_id}/{source.container}"


def _read_source(path: Path) -> Source | None:
    try:
        document: Any = json.loads(path.read_bytes())
        return Source(**{str(name): str(value) for name, value in document.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("the log beside %s is not shipped: %s", path, error)
        return None
