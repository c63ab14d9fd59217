"""Hold an image's indexes against its layers, byte for byte: what a device will serve is what the layers hold."""

from dataclasses import dataclass
from functools import partial

from edge.images.indexing.build import Progress
from edge.images.indexing.found import FoundIndex
from edge.images.indexing.layer_check import check_layer
from edge.images.oci.content import ContentReader
from edge.images.oci.references import ImageReference
from edge.images.soci.manifests import IndexVersion


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in an index that is not so.

    Attributes:
        layer: Its digest; empty when it is about the index itself.
        span: Its number, if it is about one.
    """

    index: str
    layer: str
    problem: str
    span: int | None = None


def verify_index(
    reader: ContentReader, reference: ImageReference, found: FoundIndex, progress: Progress = lambda _, __: None
) -> tuple[Finding, ...]:
    """Read each indexed layer once, whole, and return what the index says wrongly; nothing if all is right.

    Every span's compressed bytes are hashed, and inflated from its checkpoint as a device does; the result is compared
    with the layer inflated from its beginning, the table of contents with the layer's members.

    Raises:
        EdgeError: As the reader's methods, when a layer cannot be had.
    """
    if found.index is None:
        return (Finding(found.digest, "", found.problem),)
    index, manifest = found.index, found.image.manifest
    findings = list[Finding]()
    if found.version is not IndexVersion.V2 and (index.subject is None or index.subject.digest != manifest.digest):
        findings.append(Finding(found.digest, "", f"it does not refer to the image {manifest.digest}"))
    layers = {layer.digest: (layer, diff_id) for layer, diff_id in found.image.layers()}
    known = [entry for entry in index.ztocs if entry.layer_digest in layers]
    for entry in index.ztocs:
        if entry.layer_digest not in layers:
            findings.append(Finding(found.digest, entry.layer_digest, "the image has no such layer"))
    total, done = sum(layers[entry.layer_digest][0].size for entry in known), 0
    for entry in known:
        layer, diff_id = layers[entry.layer_digest]
        problems = check_layer(reader, reference, layer, diff_id, entry, partial(_told, progress, done, total))
        findings += [Finding(found.digest, layer.digest, text, span) for span, text in problems]
        done += layer.size
    return tuple(findings)


def _told(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)
