"""A start profile as SOCI's prefetch artifacts, one a layer, in the image's index: SOCI's users profit too.

Spans instead of paths, `priority` as the order over all layers. SOCI's snapshotter fetches what is named and passes the
order by; the image service fetches in it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge.errors import NotFoundError
from edge.images.indexing.found import FoundIndex, find_indexes, load_ztoc
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import OCI_MANIFEST, Descriptor, digest_of
from edge.images.oci.references import ImageReference
from edge.images.soci import manifests
from edge.images.soci.checkpoints import SpanTable, span_table
from edge.images.soci.manifests import PREFETCH_MEDIA_TYPE, IndexVersion, PrefetchEntry, write_index
from edge.images.soci.prefetch import SpanRange, write_prefetch
from edge.images.starts.ahead import runs_of
from edge.images.starts.places import place
from edge.images.tree import LayerTree, write_tree
from edge.model.start_profile import StartProfile

_REFERRING: Final = (IndexVersion.V1, IndexVersion.COMPACT)


@dataclass(frozen=True, slots=True)
class PushedPrefetch:
    """An index that names what is needed first, in the place of one that did not; `spans` is how many it names."""

    version: IndexVersion
    index: str
    spans: int


def push_prefetch(
    client: RegistryClient, reference: ImageReference, profile: StartProfile
) -> tuple[PushedPrefetch, ...]:
    """Put a profile into the indexes that refer to the image, of version 1 and compact.

    Raises:
        NotFoundError: The image has no such index, or none that has a file of the profile.
        EdgeError: As the client's methods.
    """
    pushed: list[PushedPrefetch] = []
    for _, indexes in find_indexes(client, reference, (profile.platform,)):
        for found in indexes:
            if found.index is not None and found.version in _REFERRING:
                pushed += _push(client, reference, found, profile)
    if not pushed:
        raise NotFoundError(
            f"{reference} has no index that could name what its start reads",
            hint=f"Make one: edge image index push {reference}",
        )
    return tuple(pushed)


def _push(
    client: RegistryClient, reference: ImageReference, found: FoundIndex, profile: StartProfile
) -> list[PushedPrefetch]:
    index = found.index
    if index is None:
        raise AssertionError
    layers = found.image.manifest.layers
    trees: list[LayerTree | None] = []
    tables: list[SpanTable | None] = []
    with tempfile.TemporaryDirectory(prefix="edge-profile-") as folder:
        for number, layer in enumerate(layers):
            entry = index.ztoc_of(layer.digest)
            if entry is None:
                trees.append(None)
                tables.append(None)
                continue
            ztoc = load_ztoc(client, reference, entry)
            write_tree(Path(folder) / str(number), ztoc.files)
            trees.append(LayerTree(Path(folder) / str(number)))
            tables.append(span_table(ztoc))
        runs = runs_of(tables, place(trees, profile.ranges))
    if not runs:
        return []
    prefetches = [
        _prefetch(client, reference, layer.digest, ranges)
        for number, layer in enumerate(layers)
        if (ranges := [SpanRange(run.first, run.last, at) for at, run in enumerate(runs, 1) if run.layer == number])
    ]
    data = write_index(replace(index, prefetches=tuple(prefetches)))
    listed = Descriptor(OCI_MANIFEST, digest_of(data), len(data), artifact_type=found.version.value)
    if not client.push_manifest(reference.at(listed.digest), data, OCI_MANIFEST):
        client.add_referrer(reference, found.image.manifest.digest, listed, instead=True)
    return [PushedPrefetch(found.version, listed.digest, sum(run.last - run.first + 1 for run in runs))]


def _prefetch(
    client: RegistryClient, reference: ImageReference, layer: str, ranges: Sequence[SpanRange]
) -> PrefetchEntry:
    blob = client.push_blob(reference, write_prefetch(ranges))
    return PrefetchEntry(manifests.Descriptor(PREFETCH_MEDIA_TYPE, blob.digest, blob.size), layer)
