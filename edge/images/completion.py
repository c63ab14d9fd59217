"""Everything arrives: what no container has asked for yet is fetched in quiet moments, proved, and unpacked.

One thread and one connection. It goes on after every interruption: what has arrived stands in each layer's map.
"""

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from edge.errors import EdgeError, ImagePullError, InvalidInputError, StoreFullError, TransientError
from edge.files import store_error
from edge.images import heavy
from edge.images.delta.content import DeltaContent
from edge.images.delta.older import Place
from edge.images.delta.rebuilding import write_plan
from edge.images.layers import LayerFolders, free_bytes
from edge.images.lazy_content import LazyContent
from edge.images.oci.client import NoRangeError
from edge.images.serving import Layer, Serving
from edge.images.soci.prefetch import SpanRange
from edge.images.unpack import DamagedLayerError

_log = logging.getLogger(__name__)

_RUN_BYTES: Final = 16 << 20
"""Asked for at once: one request's overhead in so many bytes is nothing."""
_QUIET_SECONDS: Final = 1.0
"""A container that starts reads in bursts; between two of them the link is better left alone."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
_REFUSED_PAUSE: Final = 900.0
_LOOK_SECONDS: Final = 0.5
RESERVE_BYTES: Final = 256 << 20
"""Left free on the disk by what is not needed at once."""


class Recipes(Protocol):
    """What `Maker` does for completion."""

    def without(self, layer: Layer) -> None:
        """Have a layer anew, in the place of one whose recipe is false."""
        ...

    def keep(self, layer: Layer) -> None:
        """Have a complete layer's recipe here for the next update."""
        ...


class Completion:
    """Completes layer after layer, on a thread of its own.

    Args:
        folders: The layers on disk.
        serving: The layers served.
        order: Returns the ids of the layers to complete, the most urgent first.
        told: Told of what went wrong, and of each layer that is done.
        bytes_per_second: At most so many, 0 for as many as come.
        recipes: What is done with layers' recipes.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        folders: LayerFolders,
        serving: Serving,
        order: Callable[[], list[str]],
        told: Callable[[str], None],
        bytes_per_second: int = 0,
        recipes: "Recipes | None" = None,
    ) -> None:
        self._recipes = recipes
        self._folders = folders
        self._serving = serving
        self._order = order
        self._told = told
        self._rate = bytes_per_second
        self._wake = threading.Event()
        self._stopped = False
        self._failures = 0
        self._not_before: dict[str, float] = {}
        self._first: deque[tuple[str, tuple[SpanRange, ...]]] = deque()
        self.problems: dict[str, str] = {}

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="completion", daemon=True).start()

    def stop(self) -> None:
        """End soon; what has arrived is kept."""
        self._stopped = True
        self._wake.set()

    def fetch_first(self, spans: Iterable[tuple[str, tuple[SpanRange, ...]]]) -> None:
        """Somebody knows what a container will read: fetch it now, in this order, without waiting for quiet."""
        self._first.extend(spans)
        self._wake.set()

    def look(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            if self._first:
                self._fetch_first(*self._first.popleft())
                continue
            layer, wait = self._next()
            if layer is None:
                self._wake.wait(wait)
                continue
            try:
                self._complete(layer)
            except _RemovedError:
                continue
            except TransientError as error:
                self._failures += 1
                pause = random.uniform(0.5, 1) * min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE)  # noqa: S311
                self._put_off(layer, error, pause)
            except EdgeError as error:
                self._put_off(layer, error, _REFUSED_PAUSE)
            except Exception as error:  # noqa: BLE001 - one layer's failure must not end the others' completion
                _log.exception("layer %s cannot be completed", layer.facts.layer_id)
                self._put_off(layer, InvalidInputError(f"{type(error).__name__}: {error}"), _REFUSED_PAUSE)
            else:
                self._failures = 0
                self.problems.pop(layer.facts.layer_id, None)

    def _fetch_first(self, layer_id: str, ranges: tuple[SpanRange, ...]) -> None:
        layer = self._serving.layers.get(layer_id)
        if layer is None or not isinstance(layer.content, LazyContent):
            return
        try:
            for wanted in ranges:
                position = wanted.start
                while run := layer.content.ahead(position, _RUN_BYTES):
                    run = tuple(span for span in run if span.number <= wanted.end)
                    if not run:
                        break
                    layer.content.fetch_ahead(run, self._throttle(layer).passed)
                    position = run[-1].number + 1
        except EdgeError as error:
            # Only a hint: what is needed comes when it is read.
            _log.info("what layer %s needs first did not come: %s", layer_id[:12], error)

    def _put_off(self, layer: Layer, error: EdgeError, seconds: float) -> None:
        if self._serving.layers.get(layer.facts.layer_id) is not layer:
            # Removed meanwhile, and maybe wanted again: that one need not wait for what this one met.
            self._folders.give_up_unpacking(layer.facts.layer_id)
            return
        self._not_before[layer.facts.layer_id] = time.monotonic() + seconds
        if self.problems.get(layer.facts.layer_id) != str(error):
            self.problems[layer.facts.layer_id] = str(error)
            self._told(f"layer {layer.facts.digest[:19]} is not complete yet: {error}")

    def _next(self) -> tuple[Layer | None, float | None]:
        now = time.monotonic()
        soonest: float | None = None
        for layer_id in self._order():
            layer = self._serving.layers.get(layer_id)
            if layer is None or layer.unpacked:
                continue
            not_before = self._not_before.get(layer_id, 0.0)
            if not_before <= now:
                return layer, None
            soonest = min(not_before, soonest or not_before)
        return None, None if soonest is None else soonest - now

    def _complete(self, layer: Layer) -> None:
        content = layer.content
        if content is None:
            return
        if isinstance(content, DeltaContent):
            self._complete_delta(layer, content)
            return
        damaged = content.damaged
        position = 0
        while content.cache.missing:
            self._quiet()
            self._check_wanted(layer)
            run = content.ahead(position, _RUN_BYTES)
            if not run:
                # What is missing is being fetched for a container, or lies before.
                position = 0
                time.sleep(0.2)
                continue
            self._check_space(run[-1].compressed_end - run[0].compressed_start)
            content.fetch_ahead(run, self._throttle(layer).passed)
            position = run[-1].number + 1
        self._serving.adapt_read_ahead()
        self._quiet()
        self._check_wanted(layer)
        self._write_head(layer, content)
        try:
            self._unpack(layer, "unpack")
        except DamagedLayerError as error:
            content.look_through()
            # A container may have come upon a wrong span first: the layer was unpacked while it was fetched again.
            if content.damaged != damaged:
                raise TransientError("spans were damaged on the disk and are fetched again") from error
            raise ImagePullError(
                f"the index does not describe this layer: {error}",
                reason="CannotPullContainerError",
                hint="Build the image's index anew, or remove the image and pull it without.",
            ) from error

    def _complete_delta(self, layer: Layer, content: DeltaContent) -> None:
        """Fetch what no older layer has, and put the layer together."""
        damaged, throttle = content.damaged, self._throttle(layer)
        try:
            for number in range(content.table.count):
                self._check_wanted(layer)
                if content.settle(number):
                    continue
                self._quiet()
                run = content.run_from(number)
                self._check_space(content.table.end(run[-1]) - content.table.starts[number])
                before = content.fetched
                content.fetch(run)
                self._pause(layer, throttle.passed(content.fetched - before))
            self._serving.adapt_read_ahead()
            self._quiet()
            elsewhere = write_plan(self._folders.folder(layer.facts.layer_id), content, self._path_of)
            self._told(
                f"layer {layer.facts.digest[:19]}: {elsewhere} bytes of its files are in older images, "
                f"{content.fetched} of {layer.facts.size} compressed ones were fetched"
            )
            self._unpack(layer, "rebuild")
        except (DamagedLayerError, TransientError, NoRangeError) as error:
            if isinstance(error, DamagedLayerError):
                content.look_through()
                if content.damaged != damaged:
                    raise TransientError("chunks were damaged on the disk and are had anew") from error
            elif isinstance(error, TransientError) and not content.false:
                raise
            self._told(
                f"the recipe of layer {layer.facts.digest[:19]} is not the layer's: {error}; "
                "it is had anew, without what is here of older images"
            )
            if self._recipes is not None:
                self._recipes.without(layer)

    def _path_of(self, place: Place) -> bytes | None:
        layer = self._serving.layers.get(place.layer_id)
        if layer is None or not layer.unpacked or layer.served.tree is None:
            return None
        tree = layer.served.tree
        return os.fsencode(self._folders.unpacked(place.layer_id)) + b"/" + tree.path(tree.record(place.number))

    def _pause(self, layer: Layer, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check_wanted(layer)
            time.sleep(min(left, _LOOK_SECONDS))

    def _check_space(self, needed: int) -> None:
        free, _ = free_bytes(self._folders.unpacked(""))
        if free < needed + RESERVE_BYTES:
            raise StoreFullError(f"{free >> 20} MiB are free on the disk; {RESERVE_BYTES >> 20} are left alone")

    def _quiet(self) -> None:
        pulse = self._serving.pulse
        with pulse.changed:
            while not self._stopped:
                wait = _QUIET_SECONDS - (time.monotonic() - pulse.last)
                if not pulse.busy and wait <= 0:
                    return
                pulse.changed.wait(None if pulse.busy else max(wait, 0.01))

    def _throttle(self, layer: Layer) -> "_Throttle":
        return _Throttle(self._rate, lambda: self._between_pieces(layer))

    def _check_wanted(self, layer: Layer) -> None:
        if self._serving.layers.get(layer.facts.layer_id) is not layer:
            raise _RemovedError(f"layer {layer.facts.layer_id[:12]} was removed")
        if self._stopped:
            raise _RemovedError("the service ends")

    def _between_pieces(self, layer: Layer) -> None:
        self._check_wanted(layer)
        self._let_demand_pass()

    def _let_demand_pass(self) -> None:
        pulse = self._serving.pulse
        with pulse.changed:
            pulse.changed.wait_for(lambda: not pulse.busy or self._stopped, timeout=20)

    def _unpack(self, layer: Layer, work: str) -> None:
        facts = layer.facts
        self._check_space(facts.content_size)
        folder = self._folders.folder(facts.layer_id)
        made = self._folders.begin_unpacking(facts.layer_id)
        arguments = {
            "folder": str(folder),
            "target": str(made),
            "digest": facts.digest,
            "diff_id": facts.diff_id,
            "compression": facts.compression,
            "own": facts.own,
            "claims": self._serving.bundles.claims(facts.layer_id),
        }
        with heavy.Child() as child:
            child.do(work, arguments)
        self._folders.finish_unpacking(made, facts.layer_id)
        self._serving.switch_to_unpacked(facts.layer_id)
        self._told(f"layer {facts.digest[:19]} is complete and unpacked")
        if self._recipes is not None:
            self._recipes.keep(layer)

    def _write_head(self, layer: Layer, content: LazyContent) -> None:
        try:
            with content.cache.path.open("r+b") as file:
                file.write(bytes.fromhex(layer.facts.head))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise store_error(f"cannot write {content.cache.path}", error) from error


class _RemovedError(EdgeError):
    """Nobody needs the rest."""


class _Throttle:
    """Asked between pieces of 64 KiB at the most: lets others pass, and tells the rate's pauses."""

    def __init__(self, bytes_per_second: int, let_others_pass: Callable[[], None]) -> None:
        self._rate = bytes_per_second
        self._let_others_pass = let_others_pass
        self._began = time.monotonic()
        self._done = 0

    def passed(self, count: int) -> float:
        """So many bytes came; return for how many seconds no more should."""
        self._let_others_pass()
        self._done += count
        return max(0.0, self._began + self._done / self._rate - time.monotonic()) if self._rate else 0.0
