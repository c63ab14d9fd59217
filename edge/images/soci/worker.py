"""One thread beside the caller's."""

import queue
import threading
from collections.abc import Callable


class Worker:
    """One thread that does what it is given, in order; the first error ends the work and is raised to the giver.

    Args:
        name: The thread's.
        waiting: How many jobs wait at the most; who gives one more waits too.
    """

    def __init__(self, name: str, waiting: int) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Give a job."""
        if self._error is not None:
            raise self._error
        self._jobs.put(job)

    def finish(self) -> None:
        """Wait until all is done."""
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread when the jobs given so far are done, whether or not one failed."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is not None:
                continue
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - raised again where the work was given
                self._error = error
