"""The image service of this device, for the agent: images that can be used before they have arrived."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.agent.engine.ports import Image, ImageArrival
from edge.errors import EdgeError, EngineError, EngineUnavailableError
from edge.image_service import ask
from edge.model.start_profile import StartProfile, profile_of

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0
"""How often is looked while something is on its way; there is no looking while nothing is."""
_FINAL: Final = "MATERIALIZED"


class LazyImages:
    """Asks the service; on a device without one every image is pulled in the ordinary way.

    Args:
        socket: Where the service is.
        seen: Told, from another thread, how far all its images have come, whenever that changed.
        learnt: Told, from another thread, all that is known of what images read when they start.
    """

    def __init__(
        self,
        socket: Path,
        seen: Callable[[tuple[ImageArrival, ...]], None],
        learnt: Callable[[tuple[StartProfile, ...]], None] = lambda _: None,
    ) -> None:
        self._socket = socket
        self._seen = seen
        self._learnt = learnt
        self._told: tuple[ImageArrival, ...] | None = None
        self._look = threading.Event()
        self._closed = False
        threading.Thread(target=self._watch, name="images", daemon=True).start()
        self._look.set()

    def prepare(self, reference: str, architecture: str, *, proven: bool = False) -> Image | None:
        """Make an image usable; None on a device without the service.

        Raises:
            EngineError: The registry does not have it, or does not answer; an ordinary pull would end the same.
            EdgeError: It cannot be used before it has arrived.
        """
        if not self._socket.exists():
            return None
        found = ask(self._socket, op="prepare", image=reference, architecture=architecture, proven=proven)
        self._look.set()
        return Image(str(found["imageId"]), str(found["digest"]), architecture)

    def check_sealed(self, image_id: str) -> None:
        """See that everything that is read of an image is what its digests say, from the first byte on.

        Raises:
            EngineUnavailableError: Not yet, or nobody knows.
        """
        if not self._socket.exists():
            return
        try:
            sealed = ask(self._socket, op="sealed", imageId=image_id) is True
        except EdgeError as error:
            raise EngineUnavailableError(str(error), reason="CannotPullContainerError", hint=error.hint) from error
        if not sealed:
            raise EngineUnavailableError(
                f"image {image_id[:12]} is here by an index that nobody has signed, and not proved yet",
                reason="CannotPullContainerError",
            )

    def protect(self, image_ids: frozenset[str]) -> None:
        """Say which images are needed.

        Raises:
            EdgeError: The service did not hear it.
        """
        if self._socket.exists():
            ask(self._socket, op="protect", imageIds=sorted(image_ids))

    def started(self, image_ids: frozenset[str], after_seconds: float) -> None:
        """Say of which images a container is ready, or will be in so many seconds; what is learnt of it is told.

        Raises:
            EdgeError: The service did not hear it.
        """
        if after_seconds:
            timer = threading.Timer(after_seconds, self._started_later, (image_ids,))
            timer.daemon = True
            timer.start()
        elif self._socket.exists() and not self._closed:
            known = [ask(self._socket, op="ready", image=image_id) for image_id in sorted(image_ids)]
            if any(known):
                self._tell_profiles()

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._look.set()

    def _started_later(self, image_ids: frozenset[str]) -> None:
        try:
            self.started(image_ids, 0.0)
        except EdgeError as error:
            _log.info("the image service was not told that images have started: %s", error)

    def _tell_profiles(self) -> None:
        found = ask(self._socket, op="profiles")
        self._learnt(tuple(profile_of(one) for one in found))

    def _watch(self) -> None:
        try:
            if self._socket.exists():
                self._tell_profiles()
        except EdgeError as error:
            _log.debug("the image service does not say what it knows of starts: %s", error)
        while True:
            self._look.wait()
            self._look.clear()
            while not self._closed and self._tell():
                self._look.wait(_LOOK_SECONDS)
            if self._closed:
                return

    def _tell(self) -> bool:
        """Return whether something is on its way."""
        if not self._socket.exists():
            return False
        try:
            arrivals = tuple(map(_arrival, ask(self._socket, op="list")))
        except EdgeError as error:
            _log.debug("the image service does not say how far images are: %s", error)
            return True
        if arrivals != self._told:
            self._told = arrivals
            self._seen(arrivals)
        return any(arrival.state != _FINAL for arrival in arrivals)


def _arrival(found: dict[str, Any]) -> ImageArrival:
    return ImageArrival(
        str(found["imageId"]), str(found["state"]), int(found["size"]), int(found["here"]), str(found["problem"])
    )


def prepared(
    images: LazyImages | None, reference: str, architecture: str, *, proven: bool = False
) -> tuple[Image | None, str]:
    """Return the image, or None and why it must be pulled in the ordinary way.

    Raises:
        EngineError: It cannot be had in any way.
    """
    if images is None:
        return None, ""
    try:
        return images.prepare(reference, architecture, proven=proven), ""
    except EngineError:
        raise
    except EdgeError as error:
        _log.warning("%s is pulled whole: %s", reference, error)
        return None, f"pulled whole before it started: {error}"
