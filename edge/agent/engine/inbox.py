"""The engine's one door."""

import queue

from edge.agent.engine.events import Event


class Inbox:
    """The engine's one door; `put` may be called from any thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        """Tell the engine something."""
        self._queue.put(event)

    def get(self, timeout: float | None) -> Event | None:
        """Return the next event, or None when there was none for `timeout` seconds (None: wait for ever)."""
        try:
            return self._queue.get(timeout=timeout) if timeout != 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
