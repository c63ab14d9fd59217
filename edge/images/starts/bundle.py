"""The start bundle: an OCI artifact that refers to an image and holds what its start reads, in order.

One blob, fetched with one request and usable as it arrives:

    head       one zstd frame: `EDGEBND1`, `uint32` length of a JSON object, that object, for each range `uint32` layer,
               `uint64` start and end in the layer's tar, the SHA-256 of each 64 KiB of the payload, then for each layer
               its zTOC without the windows
    payload    one zstd frame: the ranges' bytes, one after the other
    0x00       nobody asks for it: so the request is one for a part, and shows that the registry serves parts

The JSON has `manifest` (digest of the image's), `platform`, `size` (bytes of the payload), `ranges`, and `layers`: for
each `digest`, `size`, `head` (the blob's bytes before its first span, hexadecimal), `toc` (bytes of its zTOC here) and
`ztoc` (`digest` and `size` of the whole zTOC in its compact form, a blob of this artifact too).

The artifact's annotations, which the list of referrers repeats, say where the blob is and what its head's digest is.
The head has the digests of all that follows.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.errors import InvalidInputError
from edge.images.oci.documents import Descriptor, Manifest
from edge.images.oci.references import DIGEST
from edge.images.soci.ztoc import MAX_ZTOC_BYTES
from edge.images.starts.pieces import BLOCK, DIGEST_BYTES, RANGE
from edge.images.starts.places import TarRange
from edge.model.start_profile import MAX_RANGES, MAX_START_BYTES

ARTIFACT_TYPE: Final = "application/vnd.edge.start-bundle.v1+json"
BUNDLE_MEDIA_TYPE: Final = "application/vnd.edge.start-bundle.v1+zstd"
BLOB_DIGEST: Final = "vnd.edge.bundle.blob-digest"
BLOB_SIZE: Final = "vnd.edge.bundle.blob-size"
HEAD_SIZE: Final = "vnd.edge.bundle.head-size"
HEAD_DIGEST: Final = "vnd.edge.bundle.head-digest"
START_BYTES: Final = "vnd.edge.bundle.start-bytes"
CREATED: Final = "org.opencontainers.image.created"
MAX_BLOB_BYTES: Final = MAX_START_BYTES
MAX_HEAD_BYTES: Final = 16 << 20
"""Packed."""
MAX_UNPACKED_HEAD_BYTES: Final = 2 * MAX_ZTOC_BYTES

_MAGIC: Final = b"EDGEBND1"
_LENGTH: Final = struct.Struct("<8sI")
_MAX_JSON: Final = 1 << 20
_MAX_PLACES: Final = 4 * MAX_RANGES
_MAX_LAYER_HEAD: Final = 64 << 10
_NUMBER: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """A bundle as a list of referrers has it.

    Attributes:
        digest: Of the artifact's manifest.
        blob: The blob.
        head_size: Bytes of its head.
        head_digest: `sha256:…` of these.
        created: RFC 3339; of several, the newest counts.
    """

    digest: str
    blob: Descriptor
    head_size: int
    head_digest: str
    created: str = ""


@dataclass(frozen=True, slots=True)
class BundleLayer:
    """A layer in a bundle.

    Attributes:
        head: The blob's bytes before its first span.
        toc: (offset, bytes) of its zTOC without windows in the unpacked head.
        ztoc: The whole zTOC, compact.
    """

    digest: str
    size: int
    head: bytes
    toc: tuple[int, int]
    ztoc: Descriptor


@dataclass(frozen=True, slots=True)
class BundleHead:
    """What a bundle says it holds.

    Attributes:
        manifest: `sha256:…` of the image's manifest.
        size: Bytes of the payload.
        digests: The SHA-256 of each block of the payload.
    """

    manifest: str
    platform: str
    size: int
    layers: tuple[BundleLayer, ...]
    ranges: tuple[TarRange, ...]
    digests: bytes

    def check(self, manifest: Manifest) -> None:
        """Hold it against the image's manifest.

        Raises:
            InvalidInputError: It is of another image.
        """
        if self.manifest != manifest.digest:
            raise InvalidInputError(f"it is of the image {self.manifest}, not of {manifest.digest}")
        if [(one.digest, one.size) for one in self.layers] != [(one.digest, one.size) for one in manifest.layers]:
            raise InvalidInputError("it has other layers than the image")


def entry_of(found: Descriptor) -> BundleEntry:
    """Read an entry of a list of referrers.

    Raises:
        InvalidInputError: It does not say where the bundle is, or it is too large.
    """
    notes = found.annotations
    numbers = [notes.get(BLOB_SIZE, ""), notes.get(HEAD_SIZE, "")]
    digests = [notes.get(BLOB_DIGEST, ""), notes.get(HEAD_DIGEST, "")]
    if not all(map(_NUMBER.fullmatch, numbers)) or not all(map(DIGEST.fullmatch, digests)):
        raise InvalidInputError("its annotations do not say where it is")
    size, head = map(int, numbers)
    if not 0 < head < size <= MAX_BLOB_BYTES or head > MAX_HEAD_BYTES:
        raise InvalidInputError(f"it has {size} bytes, {head} of them its head; {MAX_BLOB_BYTES} are the most")
    return BundleEntry(
        found.digest, Descriptor(BUNDLE_MEDIA_TYPE, digests[0], size), head, digests[1], notes.get(CREATED, "")
    )


def annotations_of(entry: BundleEntry, start_bytes: int) -> dict[str, str]:
    """Return what the artifact's manifest and its list of referrers say."""
    return {
        BLOB_DIGEST: entry.blob.digest,
        BLOB_SIZE: str(entry.blob.size),
        HEAD_SIZE: str(entry.head_size),
        HEAD_DIGEST: entry.head_digest,
        START_BYTES: str(start_bytes),
        CREATED: entry.created,
    }


def encode_head(head: BundleHead, tocs: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a head's parts, unpacked; `BundleLayer.toc` is told by `tocs`."""
    layers = [
        {
            "digest": layer.digest,
            "size": layer.size,
            "head": layer.head.hex(),
            "toc": len(toc),
            "ztoc": {"digest": layer.ztoc.digest, "size": layer.ztoc.size},
        }
        for layer, toc in zip(head.layers, tocs, strict=True)
    ]
    facts = {"manifest": head.manifest, "platform": head.platform, "size": head.size, "ranges": len(head.ranges)}
    text = json.dumps(facts | {"layers": layers}, separators=(",", ":")).encode()
    yield _LENGTH.pack(_MAGIC, len(text)) + text
    yield b"".join(RANGE.pack(*one) for one in head.ranges) + head.digests
    yield from tocs


def read_head(path: Path) -> BundleHead:
    """Read an unpacked head from its file; the zTOCs stay there.

    Raises:
        InvalidInputError: It is malformed, or says what cannot be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic, length = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\0"))
        if magic != _MAGIC or length > _MAX_JSON:
            raise InvalidInputError("it is no start bundle, or one of a newer version")
        try:
            facts = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"its head is not JSON: {error}") from error
        payload, count, layers = _facts(facts)
        ranges = tuple(map(TarRange._make, RANGE.iter_unpack(_exactly(file.read(count * RANGE.size), count))))
        blocks = -(-payload // BLOCK)
        digests = file.read(blocks * DIGEST_BYTES)
        found = tuple(_layers(layers, file.tell()))
    end = found[-1].toc[0] + found[-1].toc[1] if found else 0
    if len(digests) != blocks * DIGEST_BYTES or end != size:
        raise InvalidInputError("its head breaks off")
    if sum(one.end - one.start for one in ranges) != payload or any(
        not 0 <= one.start < one.end < 1 << 50 or one.layer >= len(found) for one in ranges
    ):
        raise InvalidInputError("its ranges do not fit its payload or its layers")
    return BundleHead(str(facts["manifest"]), str(facts.get("platform", "")), payload, found, ranges, digests)


def _exactly(data: bytes, count: int) -> bytes:
    if len(data) != count * RANGE.size:
        raise InvalidInputError("its head breaks off")
    return data


def _facts(facts: object) -> tuple[int, int, list[Any]]:
    found = facts if isinstance(facts, Mapping) else {}
    size, count, layers = found.get("size"), found.get("ranges"), found.get("layers")
    good = (
        isinstance(found.get("manifest"), str)
        and _is_count(size, MAX_START_BYTES)
        and _is_count(count, _MAX_PLACES)
        and isinstance(layers, list)
        and 0 < len(layers) <= 500  # noqa: PLR2004 - as in a manifest
    )
    if not good:
        raise InvalidInputError("its head does not say what it holds, or more than allowed")
    return int(size or 0), int(count or 0), list(layers or ())


def _layers(layers: list[Any], position: int) -> Iterator[BundleLayer]:
    for number, one in enumerate(layers):
        entry: dict[str, Any] = one if isinstance(one, dict) else {}
        named = entry.get("ztoc")
        ztoc: dict[str, Any] = named if isinstance(named, dict) else {}
        head, toc = entry.get("head"), entry.get("toc")
        good = (
            all(isinstance(text, str) and DIGEST.fullmatch(text) for text in (entry.get("digest"), ztoc.get("digest")))
            and _is_count(entry.get("size"), 1 << 50)
            and _is_count(ztoc.get("size"), MAX_ZTOC_BYTES)
            and _is_count(toc, MAX_ZTOC_BYTES)
            and isinstance(head, str)
            and len(head) <= 2 * _MAX_LAYER_HEAD
            and _HEX.fullmatch(head) is not None
        )
        if not good:
            raise InvalidInputError(f"its head describes layer {number} as none can be")
        yield BundleLayer(
            entry["digest"],
            entry["size"],
            bytes.fromhex(str(head)),
            (position, int(str(toc))),
            Descriptor("", ztoc["digest"], ztoc["size"]),
        )
        position += int(str(toc))


def _is_count(found: object, most: int) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= most


def block_digests(payload: bytes) -> bytes:
    """Return the SHA-256 of each block."""
    return b"".join(hashlib.sha256(payload[at : at + BLOCK]).digest() for at in range(0, len(payload), BLOCK))
