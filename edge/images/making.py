"""An image becomes startable: its manifest, its index, and for each layer a tree and a table of spans."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Condition
from typing import Final

from edge.errors import (
    EdgeError,
    EngineUnavailableError,
    ImagePullError,
    InvalidInputError,
    RegistryUnavailableError,
    StoreError,
    TransientError,
)
from edge.files import store_error, write_atomically
from edge.images import heavy
from edge.images.delta.fetching import RecipeSource, fetch_recipe
from edge.images.image_store import ImageRecord, LayerRecord, chain_ids
from edge.images.layers import LayerFacts, LayerFolders
from edge.images.lazy_content import LazyContent
from edge.images.oci.client import NoRangeError, RegistryClient
from edge.images.oci.documents import Configuration, Descriptor, Manifest
from edge.images.oci.layout import OciLayout
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.serving import Layer, Serving
from edge.images.soci.compact import MAX_COMPACT_BYTES, ZtocUnpacker
from edge.images.soci.manifests import (
    COMPACT_ZTOC_MEDIA_TYPE,
    MAX_MANIFEST_BYTES,
    IndexVersion,
    SociIndex,
    ZtocEntry,
    index_digest_of,
    read_index,
)
from edge.images.soci.prefetch import SpanRange, read_prefetch
from edge.images.soci.ztoc import MAX_ZTOC_BYTES
from edge.images.span_file import open_span_file
from edge.images.starts import late_windows
from edge.images.starts.artifact import find_bundles
from edge.images.starts.bundle import ARTIFACT_TYPE, entry_of
from edge.images.starts.bundle_fetch import ArrivingBundle
from edge.images.starts.pieces import Payload
from edge.images.unpack import DamagedLayerError, check_kind

_log = logging.getLogger(__name__)

_MAXIMUM_HEAD: Final = 64 * 1024
_LEAST_SHARE: Final = 0.25
"""Of a layer's content in older images: below, the layer is fetched by its own index."""
Progress = Callable[[int, int], None]
"""Bytes that came, of how many, before the image is startable."""


@dataclass(frozen=True, slots=True)
class MadeImage:
    """What `publish` puts into force.

    Attributes:
        first: Which spans to fetch first, by layer id, as the index's prefetch artifacts have them.
        payload: What its start bundle brings, if it has one.
    """

    image: ImageRecord
    layers: tuple[LayerRecord, ...]
    manifest: bytes
    configuration: bytes
    first: tuple[tuple[str, tuple[SpanRange, ...]], ...] = ()
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """An image as its registry or layout describes it; `layout` is empty for a registry.

    Attributes:
        index: Finds its index, asking the registry when it is first called.
    """

    reference: ImageReference
    pinned: ImageReference
    manifest: Manifest
    configuration: Configuration
    index: Callable[[], SociIndex | None]
    layout: str = ""
    proven: bool = False
    bundle: ArrivingBundle | None = None


class Maker:
    """Makes images startable. Usable from many threads.

    Args:
        client: The registries.
        folders: Where layers are made.
        serving: Where they are served then.
        told: Told of what went wrong and was got round.
        older: Returns the layers of images of the same repository that are here, the newest image's first.
    """

    def __init__(
        self,
        client: RegistryClient,
        folders: LayerFolders,
        serving: Serving,
        told: Callable[[str], None],
        older: Callable[[ImageReference], list[str]],
    ) -> None:
        self._older = older
        self._client = client
        self._folders = folders
        self._serving = serving
        self._told = told
        self._settled = Condition()
        self._in_work: set[str] = set()

    def make(self, text: str, architecture: str, progress: Progress, *, proven: bool = False) -> MadeImage:
        """Do all that is needed before a container can be created from the image.

        Args:
            text: Its reference.
            architecture: As OCI names it.
            progress: Told of bytes.
            proven: Its manifest is proven: only an index that the manifest names may say what its files are.

        Raises:
            EngineUnavailableError: A layer of a proven image is here from another one, and not proved yet.
            InvalidInputError: It cannot be served from here; an ordinary pull may have it.
            ImagePullError: The registry has no such image for this architecture, or does not let us have it.
            RegistryUnavailableError: The registry is away.
            StoreError: No space.
        """
        reference = parse_reference(text)
        # The child takes its time to start: meanwhile the registry is asked.
        with heavy.Child() as child, ThreadPoolExecutor(1) as beside:
            manifest = self._client.image(reference, architecture)
            pinned = reference.at(manifest.digest)
            # What is asked on this thread goes over the connection that is open already.
            configuring = beside.submit(self._client.configuration, reference, manifest)
            # Anybody who may push to the repository can refer to the manifest; what it names itself is part of it.
            referring = () if proven else self._referrers(pinned, manifest)
            configuration = configuring.result()
            _check(text, architecture, manifest, configuration)
            index = cache(lambda: self._find_index(pinned, manifest, referring))
            # An update takes little more than what changed; a bundle would bring what is here already.
            updates = not proven and self._updates(pinned, configuration, index)
            bundle = None if updates else self._find_bundle(pinned, manifest, referring, configuration)
            try:
                payload = self._start_bundle(bundle, configuration)
                found = _Found(
                    reference,
                    pinned,
                    manifest,
                    configuration,
                    index,
                    proven=proven,
                    bundle=bundle if payload else None,
                )
                made = self._make_layers(found, child, progress)
                return replace(made, payload=payload, first=() if payload is not None else made.first)
            finally:
                if bundle is not None:
                    bundle.close()

    def take(self, path: Path, tag: str, name: str, architecture: str, progress: Progress) -> MadeImage:
        """Do the same from an OCI layout or archive; all of the image is here afterwards.

        Args:
            path: Of the layout.
            tag: Which of its images; may be empty where there is one.
            name: The reference it gets here, and where it would be fetched from again.
            architecture: Of the image, as OCI names it.
            progress: Told of bytes.

        Raises:
            NotFoundError: The layout has no such image.
            InvalidInputError: It is damaged, or cannot be served from here.
            ImagePullError: It has no such image for this architecture.
            StoreError: No space.
        """
        layout = OciLayout.at(path)
        inside, reference = layout.reference(tag), parse_reference(name)
        manifest = layout.image(inside, architecture)
        configuration = layout.configuration(inside, manifest)
        _check(str(path), architecture, manifest, configuration)
        found = _Found(reference, reference.at(manifest.digest), manifest, configuration, _none, str(path.absolute()))
        with heavy.Child() as child:
            return self._make_layers(found, child, progress)

    def _make_layers(self, found: "_Found", child: heavy.Child, progress: Progress) -> MadeImage:
        manifest, configuration, bundle = found.manifest, found.configuration, found.bundle
        index = found.index() if bundle is None else None
        ids = chain_ids(configuration.diff_ids)
        if found.proven:
            self._check_sealed(ids)
        kinds = [check_kind(layer.media_type) for layer in manifest.layers]
        came, total = _Sum(progress), 0
        records: list[LayerRecord] = []
        wanted = [index.ztoc_of(layer.digest) if index is not None else None for layer in manifest.layers]
        # A recipe that lies shows an older file until the DiffID tells: nothing of a proven image may be shown before.
        recipes = [None if found.proven else _recipe_source(index, layer.digest) for layer in manifest.layers]
        for layer_id, layer, entry in zip(ids, manifest.layers, wanted, strict=True):
            if layer_id not in self._serving.layers and bundle is None:
                total += entry.blob.size if entry is not None else layer.size
        came.total = total
        for number, layer_id in enumerate(ids):
            layer = manifest.layers[number]
            facts = LayerFacts(
                layer_id=layer_id,
                slot=0,
                digest=layer.digest,
                size=layer.size,
                diff_id=configuration.diff_ids[number],
                compression=kinds[number],
                content_size=0,
                source=str(found.pinned),
                below=tuple(reversed(ids[:number])),
            )
            done = self._layer(facts, wanted[number], recipes[number], came, child, found)
            records.append(_record(done, configuration.created))
        names = tuple(dict.fromkeys((str(found.reference), str(found.pinned))))
        image = ImageRecord(configuration.image_id, manifest.digest, names, ids[-1], configuration.created)
        first = tuple(self._prefetches(found, ids))
        return MadeImage(image, tuple(records), manifest.data, configuration.data, first)

    def _check_sealed(self, ids: Sequence[str]) -> None:
        """Another image, of which nothing is proven, may have brought a layer of this id with an index of its own."""
        for layer_id in ids:
            there = self._serving.layers.get(layer_id)
            if there is not None and not there.sealed:
                raise EngineUnavailableError(
                    f"layer {there.facts.digest[:19]} is here from another image, and not proved yet",
                    reason="CannotPullContainerError",
                )

    def _prefetches(self, found: "_Found", ids: Sequence[str]) -> Iterator[tuple[str, tuple[SpanRange, ...]]]:
        """What the index says is needed first. It is a hint: one that cannot be read is as none."""
        by_digest = {layer.digest: layer_id for layer, layer_id in zip(found.manifest.layers, ids, strict=True)}
        index = found.index() if found.bundle is None else None
        for entry in index.prefetches if index is not None else ():
            layer = self._serving.layers.get(by_digest.get(entry.layer_digest, ""))
            if layer is None or not isinstance(layer.content, LazyContent) or not layer.content.cache.missing:
                continue
            try:
                blob = Descriptor("", entry.blob.digest, entry.blob.size)
                data = self._client.blob(found.pinned, blob, MAX_MANIFEST_BYTES)
                yield layer.facts.layer_id, read_prefetch(data, len(layer.content.table.spans))
            except EdgeError as error:
                self._told(f"the prefetch artifact of layer {entry.layer_digest[:19]} cannot be used: {error}")

    # --- the index

    def _referrers(self, reference: ImageReference, manifest: Manifest) -> tuple[Descriptor, ...]:
        """What refers to the image and may help it start. That it cannot be asked for is as nothing."""
        kinds = (ARTIFACT_TYPE, IndexVersion.COMPACT.value, IndexVersion.V1.value)
        try:
            return self._client.referrers(reference, manifest.digest, *kinds)
        except TransientError:
            raise
        except EdgeError as error:
            self._told(f"the index of {reference} cannot be used: {error}")
            return ()

    def _find_bundle(
        self, reference: ImageReference, manifest: Manifest, found: Sequence[Descriptor], configuration: Configuration
    ) -> ArrivingBundle | None:
        """The newest one's head; its payload follows on the same connection. One that cannot be used is as none."""
        entry = next(iter(find_bundles(found)), None)
        # With all layers here there is nothing to be brought.
        if entry is None or all(one in self._serving.layers for one in chain_ids(configuration.diff_ids)):
            return None
        try:
            file = self._serving.bundles.temporary()
            return ArrivingBundle(self._client, reference, manifest, entry_of(entry), file)
        except EdgeError as error:
            self._told(f"the start bundle {entry.digest[:19]} of {reference} is not used: {error}")
            return None

    def _start_bundle(self, bundle: ArrivingBundle | None, configuration: Configuration) -> Payload | None:
        if bundle is None:
            return None
        ids, pulse = chain_ids(configuration.diff_ids), self._serving.pulse
        try:
            return bundle.start(configuration.image_id, ids, self._serving.bundles, pulse, self._told)
        except StoreError as error:
            self._told(f"the start bundle is not used: {error}")
            return None

    def _find_index(
        self, reference: ImageReference, manifest: Manifest, found: Sequence[Descriptor]
    ) -> SociIndex | None:
        """The compact one, version 2, which the manifest names, or version 1. One that cannot be used is as none."""
        try:
            named = index_digest_of(manifest.data)
            compact, old = IndexVersion.COMPACT.value, IndexVersion.V1.value
            found = [one for one in found if one.artifact_type in {compact, old}]
            best = next((one.digest for one in found if one.artifact_type == compact or named is None), named)
            if best is None:
                return None
            document = self._client.manifest(reference.at(best))
            return read_index(document.data)
        except TransientError:
            raise
        except EdgeError as error:
            self._told(f"the index of {reference} cannot be used: {error}")
            return None

    def _updates(
        self, reference: ImageReference, configuration: Configuration, index: Callable[[], SociIndex | None]
    ) -> bool:
        """Whether there is an older image here, and recipes that say what of the new one is in it."""
        ids = set(chain_ids(configuration.diff_ids))
        if not any(layer_id not in ids for layer_id in self._older(reference)):
            return False
        found = index()
        return found is not None and bool(found.recipes)

    # --- layers

    def _layer(  # noqa: PLR0913, PLR0917 - what a layer can be made from
        self,
        facts: LayerFacts,
        entry: ZtocEntry | None,
        recipe: RecipeSource | None,
        came: "_Sum",
        child: heavy.Child,
        found: "_Found",
    ) -> LayerFacts:
        with self._alone(facts.layer_id):
            there = self._serving.layers.get(facts.layer_id)
            if there is not None:
                if found.proven:
                    self._check_sealed((facts.layer_id,))
                return there.facts
            made = self._folders.begin(facts.layer_id)
            if recipe is not None and (done := self._delta(made, facts, recipe, child)) is not None:
                return done
            if found.bundle is not None and not (made / "blob").exists():
                try:
                    return self._bundled(made, facts, found.bundle, child)
                except InvalidInputError as error:
                    self._told(f"the start bundle of layer {facts.digest[:19]} is not used: {error}")
                    self._serving.bundles.remove(found.configuration.image_id)
                    index = found.index()
                    entry = index.ztoc_of(facts.digest) if index is not None else None
            if entry is not None and not (made / "blob").exists():
                try:
                    return self._indexed(made, replace(facts, sealed=found.proven), entry, came, child)
                except TransientError:
                    raise
                except (InvalidInputError, NoRangeError) as error:
                    self._told(f"layer {facts.digest[:19]} is fetched whole: {error}")
            return self._whole(made, replace(facts, sealed=True), came, child, found.layout)

    def _bundled(self, made: Path, facts: LayerFacts, bundle: ArrivingBundle, child: heavy.Child) -> LayerFacts:
        """A layer whose files and spans a bundle lists; windows come when they are needed."""
        layer = next(one for one in bundle.head.layers if one.digest == facts.digest)
        offset, length = layer.toc
        place = {"bundle": str(bundle.head_file), "offset": offset, "length": length}
        result = child.do("index", {"folder": str(made), "size": facts.size, **place})
        spans = open_span_file(made / "spans").spans
        if spans[0].compressed_start != len(layer.head):
            raise InvalidInputError(f"the first span begins at {spans[0].compressed_start}")
        pieces = self._serving.bundles.pieces(facts.layer_id)
        if pieces is not None and pieces.places and pieces.last > spans[-1].uncompressed_end:
            raise InvalidInputError("it has a range outside the layer")
        late_windows.mark(made, layer.ztoc)
        return self._put(made, facts, result["content"], layer.head.hex())

    def _delta(self, made: Path, facts: LayerFacts, recipe: RecipeSource, child: heavy.Child) -> LayerFacts | None:
        """Make a layer from its recipe and older layers; None where that cannot be, or is not worth it."""
        recipe.save(made)
        older = [one for one in self._older(parse_reference(facts.source)) if one != facts.layer_id]
        if not older or ((made / "blob").exists() and not (made / "recipe").exists()):
            return None
        try:
            self._fetch_recipe(made, facts, recipe, older)
            result = child.do("recipe", {"folder": str(made), "size": facts.size, "compression": facts.compression})
            share = self._serving.share_here(made, older)
            if share >= _LEAST_SHARE:
                write_atomically(made / "older", " ".join(older).encode())
                return self._put(made, facts, result["content"], "")
            self._told(f"layer {facts.digest[:19]}: older images have {share:.0%} of it, so it is fetched by itself")
        except TransientError:
            raise
        except (InvalidInputError, NoRangeError) as error:
            self._told(f"layer {facts.digest[:19]} is fetched without what is here of older images: {error}")
        for name in ("blob", "chunks", "tree"):
            (made / name).unlink(missing_ok=True)
        return None

    def _fetch_recipe(self, folder: Path, facts: LayerFacts, recipe: RecipeSource, older: Sequence[str]) -> None:
        known = [self._folders.folder(layer_id) / "recipe" for layer_id in older]
        count = fetch_recipe(self._client, parse_reference(facts.source), recipe, known, folder / "recipe")
        _log.info("of the recipe of %s, %s of %s bytes were fetched", facts.digest[:19], count, recipe.size)

    def keep(self, layer: Layer) -> None:
        """Fetch a complete layer's recipe, so that an update need not. It is only a help."""
        facts = layer.facts
        folder = self._folders.folder(facts.layer_id)
        recipe = RecipeSource.load(folder)
        if recipe is None or (folder / "recipe").exists():
            return
        try:
            self._fetch_recipe(folder, facts, recipe, self._older(parse_reference(facts.source)))
        except EdgeError as error:
            _log.info("the recipe of %s did not come: %s", facts.digest[:19], error)

    def without(self, layer: Layer) -> None:
        """Make a layer anew that was made from a false recipe; what was shown of it is shown no more.

        Raises:
            EdgeError: As `make`.
        """
        facts = layer.facts
        recipe = RecipeSource.load(self._folders.folder(facts.layer_id))
        entry = recipe.ztoc_of(facts.digest) if recipe is not None else None
        with heavy.Child() as child, self._alone(facts.layer_id):
            made = self._folders.begin(facts.layer_id)
            came = _Sum(lambda *_: None)
            if entry is not None and not (made / "blob").exists():
                self._indexed(made, facts, entry, came, child, instead=True)
            else:
                self._whole(made, replace(facts, sealed=True), came, child, "", instead=True)

    def _indexed(  # noqa: PLR0913 - what a layer is made from
        self,
        made: Path,
        facts: LayerFacts,
        entry: ZtocEntry,
        came: "_Sum",
        child: heavy.Child,
        *,
        instead: bool = False,
    ) -> LayerFacts:
        reference = parse_reference(facts.source)
        compact = entry.blob.media_type == COMPACT_ZTOC_MEDIA_TYPE
        self._save(reference, Descriptor("", entry.blob.digest, entry.blob.size), made / "ztoc", came, compact=compact)
        result = child.do("index", {"folder": str(made), "size": facts.size})
        start = open_span_file(made / "spans").spans[0].compressed_start
        if start > _MAXIMUM_HEAD:
            raise InvalidInputError(f"the first span begins at {start}")
        # Also the proof that this registry serves parts; the first connection is open then.
        blob = Descriptor("", facts.digest, facts.size)
        head = b"".join(self._client.chunks(reference, blob, 0, max(start, 1)))
        return self._put(made, facts, result["content"], head[:start].hex(), instead=instead)

    def _whole(  # noqa: PLR0913 - what a layer is made from
        self, made: Path, facts: LayerFacts, came: "_Sum", child: heavy.Child, layout: str, *, instead: bool = False
    ) -> LayerFacts:
        arguments = {
            "layout": layout,
            "folder": str(made),
            "source": facts.source,
            "digest": facts.digest,
            "size": facts.size,
            "diff_id": facts.diff_id,
            "compression": facts.compression,
        }
        before = came.done
        try:
            result = child.do("fetch", arguments, lambda done: came.at(before + done))
        except DamagedLayerError as error:
            if layout:
                raise InvalidInputError(f"{layout} is damaged: {error}", hint="Copy it again.") from error
            raise RegistryUnavailableError(str(error), reason="CannotPullContainerError") from error
        came.at(before + facts.size)
        return self._put(made, replace(facts, own=True), result["content"], "", instead=instead)

    def _put(self, made: Path, facts: LayerFacts, content: int, head: str, *, instead: bool = False) -> LayerFacts:
        known = replace(facts, slot=self._folders.next_slot(), content_size=content, head=head)
        if instead:
            # A slot of its own: what the kernel remembers of the former one is not asked of this one.
            self._folders.replace(made, known)
        else:
            self._folders.finish(made, known)
        self._serving.open(known)
        return known

    def _save(self, reference: ImageReference, blob: Descriptor, path: Path, came: "_Sum", *, compact: bool) -> None:
        """Fetch a zTOC, unpacking a compact one while it comes."""
        most = MAX_COMPACT_BYTES if compact else MAX_ZTOC_BYTES
        if blob.size > most:
            raise InvalidInputError(f"a zTOC of {blob.size} bytes; {most} are the most")
        found = hashlib.sha256()
        unpacker = ZtocUnpacker() if compact else None
        try:
            with path.open("wb") as file:
                for piece in self._client.chunks(reference, blob, 0, blob.size):
                    found.update(piece)
                    file.write(unpacker.feed(piece) if unpacker is not None else piece)
                    came.at(came.done + len(piece))
        except OSError as error:
            raise store_error(f"cannot keep {path}", error) from error
        if f"sha256:{found.hexdigest()}" != blob.digest:
            raise InvalidInputError(f"the registry sent other bytes for zTOC {blob.digest}")
        if unpacker is not None:
            unpacker.finish()

    @contextmanager
    def _alone(self, layer_id: str) -> Iterator[None]:
        with self._settled:
            self._settled.wait_for(lambda: layer_id not in self._in_work)
            self._in_work.add(layer_id)
        try:
            yield
        finally:
            with self._settled:
                self._in_work.discard(layer_id)
                self._settled.notify_all()


def _none() -> None:
    return None


def _check(text: str, architecture: str, manifest: Manifest, configuration: Configuration) -> None:
    if configuration.architecture not in (architecture, ""):
        raise ImagePullError(
            f"{text} is for {configuration.architecture}, this device is {architecture}",
            reason="CannotPullContainerError",
        )
    if len(configuration.diff_ids) != len(manifest.layers) or not manifest.layers:
        raise InvalidInputError(f"{text} names {len(configuration.diff_ids)} layers and has {len(manifest.layers)}")


def _recipe_source(index: SociIndex | None, layer_digest: str) -> RecipeSource | None:
    recipe = index.recipe_of(layer_digest) if index is not None else None
    if index is None or recipe is None:
        return None
    ztoc = index.ztoc_of(layer_digest)
    return RecipeSource(
        recipe.blob.digest,
        recipe.blob.size,
        recipe.head_size,
        recipe.head_digest,
        *(ztoc.blob if ztoc is not None else ("", "", 0)),
    )


class _Sum:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.done = 0
        self.total = 0

    def at(self, done: int) -> None:
        self.done = done
        self._progress(done, self.total)


def _record(facts: LayerFacts, created: str) -> LayerRecord:
    return LayerRecord(
        layer_id=facts.layer_id,
        parent=facts.below[0] if facts.below else "",
        digest=facts.digest,
        compressed_size=facts.size,
        diff_id=facts.diff_id,
        size=facts.content_size,
        compression=facts.compression,
        created=created,
    )
