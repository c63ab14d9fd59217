"""A start is recorded, and what was recorded is fetched first at the next one."""

import json
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, InvalidInputError
from edge.images.image_store import ImageRecord
from edge.images.lazy_content import LazyContent
from edge.images.making import MadeImage
from edge.images.oci.references import parse_reference
from edge.images.serving import Layer, Serving
from edge.images.starts.ahead import FetchAhead, runs_of
from edge.images.starts.places import place
from edge.images.starts.profiles import Profiles
from edge.images.starts.recorder import Recorder
from edge.model.start_profile import StartProfile

_log = logging.getLogger(__name__)


class Starts:
    """What is known of starts, and made use of. Usable from any thread.

    Args:
        root: The service's state directory.
        serving: The layers.
        told: Told of what could not be used, in a sentence.
    """

    def __init__(self, root: Path, serving: Serving, told: Callable[[str], None]) -> None:
        self.profiles = Profiles(root)
        self._serving = serving
        self._told = told
        self._recorder = Recorder(self._ended)
        self._ahead = FetchAhead(serving.pulse, told)
        self._lock = threading.Lock()
        self._recorded: dict[str, tuple[StartProfile, bool]] = {}
        serving.record_with(self._recorder)

    def begins(self, made: MadeImage, layers: Sequence[Layer]) -> bool:
        """An image was published: record its start, and fetch what is known of it; returns whether that is anything.

        Args:
            made: The image.
            layers: Its layers, the lowest first.
        """
        lazy = {layer.facts.layer_id: layer.served.tree for layer in layers if layer.content is not None}
        trees = {layer_id: tree for layer_id, tree in lazy.items() if tree is not None}
        if not trees or all(layer.content is None or not layer.content.cache.missing for layer in layers):
            return False
        blank = _blank(made.image, made.configuration)
        with self._lock:
            # Of a layer that another container has read already, the kernel asks only for what that one did not read.
            unread = all(layer.content is not None and not layer.content.wanted for layer in layers)
            self._recorded[made.image.image_id] = (blank, unread)
        self._recorder.begin(made.image.image_id, trees)
        try:
            return self._fetch_known(blank, made, layers) or made.payload is not None
        except EdgeError as error:
            self._told(f"the start profile of {blank.image} is not used: {error}")
            return made.payload is not None

    def ready(self, image_id: str) -> StartProfile | None:
        """A container of an image is ready: what was read till then is its start; None if nothing was recorded.

        Raises:
            StoreError: It cannot be kept.
        """
        with self._lock:
            blank, whole = self._recorded.pop(image_id, (None, False))
        ranges = self._recorder.end(image_id)
        if blank is None or not ranges:
            return None
        newer = StartProfile(blank.image, blank.image_id, blank.digest, blank.platform, 1, ranges)
        return self.profiles.add(newer, ageing=whole)

    def forget(self, image_id: str) -> None:
        """An image is removed: its start is not recorded any more, and what its bundle brought goes."""
        with self._lock:
            self._recorded.pop(image_id, None)
        self._recorder.end(image_id)
        self._serving.bundles.remove(image_id)

    def tidy(self, image_ids: Collection[str]) -> None:
        """Remove what bundles brought of images that are none of these."""
        for image_id in self._serving.bundles.image_ids() - set(image_ids):
            self._serving.bundles.remove(image_id)

    def put(self, profile: StartProfile, platform: str) -> None:
        """Take a profile from elsewhere.

        Args:
            profile: What is known of an image's start.
            platform: `os/architecture` of this device.

        Raises:
            InvalidInputError: It is for another platform, or empty.
            StoreError: It cannot be kept.
        """
        if profile.platform != platform or not profile.ranges:
            raise InvalidInputError(
                f"the profile is for {profile.platform or 'no platform'} and has {len(profile.ranges)} ranges; "
                f"this device is {platform}"
            )
        self.profiles.put(profile)

    def _fetch_known(self, blank: StartProfile, made: MadeImage, layers: Sequence[Layer]) -> bool:
        known = self.profiles.of(blank.image_id, blank.platform, blank.image)
        if known is None:
            return False
        contents = {number: one.content for number, one in enumerate(layers) if isinstance(one.content, LazyContent)}
        trees = [layer.served.tree for layer in layers]
        ranges = place(trees, known.ranges)
        if not ranges:
            raise InvalidInputError("it names no file that the image has")
        payload = made.payload
        if payload is not None:
            held = [self._serving.bundles.pieces(layer.facts.layer_id) for layer in layers]
            ranges = tuple(
                one for one in ranges if (there := held[one.layer]) is None or not there.parts(one.start, one.end)
            )
        # What an update does not take from an older image is fetched by its chunks, in completion or when it is read.
        tables = [one.content.table if isinstance(one.content, LazyContent) else None for one in layers]
        runs = runs_of(tables, ranges)
        self._ahead.start(contents, runs, payload.wait_for_end if payload is not None else lambda: None)
        return bool(runs)

    def _ended(self, image_id: str) -> None:
        try:
            self.ready(image_id)
        except EdgeError as error:
            self._told(str(error))


def _blank(image: ImageRecord, configuration: bytes) -> StartProfile:
    name = next((one for one in image.names if "@" not in one), image.names[0] if image.names else "")
    try:
        repository = parse_reference(name).name
    except EdgeError:
        repository = ""
    found: Any = json.loads(configuration)
    platform = f"{found.get('os') or 'linux'}/{found.get('architecture') or 'unknown'}"
    return StartProfile(repository, image.image_id, image.digest, platform, 0, ())
