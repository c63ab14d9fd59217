"""What the commands `edge image index …` share: where the image is, and how an index is made."""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.cli.image_socket import bar, size_text
from edge.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from edge.images.indexing.build import BuiltImage, BuiltLayer, IndexOptions
    from edge.images.oci.client import RegistryClient
    from edge.images.oci.content import ContentReader
    from edge.images.oci.references import ImageReference

COLUMNS: Final = ("PLATFORM", "LAYER", "SIZE", "ZTOC", "SPANS", "FILES", "NOTE")
REF_HELP: Final = "registry.example/app:1, oci:DIR[:TAG] or oci-archive:FILE[:TAG]"
_MEANT: Final = {"oci-archive:": "the tar file of an OCI layout", "oci:": "the folder of an OCI layout"}
_SIZE: Final = re.compile(r"([0-9]{1,12})(KiB|MiB)?", re.ASCII)
_UNITS: Final = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20}
_VERSIONS: Final = ("compact", "v1", "v2")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image is read.

    Attributes:
        folder: Of its layout; None for a registry and an archive.
    """

    reader: "ContentReader"
    reference: "ImageReference"
    folder: Path | None


def open_source(text: str) -> Source:
    """Find what REF means.

    Raises:
        InvalidInputError: It is no reference, or no layout.
        NotFoundError: There is no such layout.
    """
    from edge.images.oci.layout import OciLayout  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.references import parse_reference  # noqa: PLC0415

    transport = next((one for one in _MEANT if text.startswith(one)), None)
    if transport is None:
        return Source(registry_client(), parse_reference(text), None)
    path, _, tag = text.removeprefix(transport).partition(":")
    if not path:
        raise InvalidInputError(f"{text} names no path", hint=f"Write it as {transport}PATH[:TAG].")
    where = Path(path)
    if not where.exists():
        raise NotFoundError(f"there is no {path}", hint=f"{transport} names {_MEANT[transport]}.")
    if (transport == "oci:") != where.is_dir():
        other = "oci:" if where.is_dir() else "oci-archive:"
        raise InvalidInputError(f"{path} is not what {transport} means", hint=f"Write {other}{path}.")
    layout = OciLayout.at(where)
    return Source(layout, layout.reference(tag), where if where.is_dir() else None)


def registry_client() -> "RegistryClient":
    """Return a client for this host's registries, with Podman's configuration and credentials."""
    from edge.images.oci.client import RegistryClient  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.registries import Registries  # noqa: PLC0415

    return RegistryClient(Registries.of_host(os.environ), os.environ)


def add_platforms(parser: argparse.ArgumentParser) -> None:
    """Declare `--platform`."""
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH",
        help="only this one, such as linux/arm64; may be repeated (default: all the image has)",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what an index is made of."""
    add_platforms(parser)
    parser.add_argument(
        "--index-version",
        choices=_VERSIONS,
        default="compact",
        help="compact is a tenth as large as SOCI's, which v1 and v2 are; compact and v1 refer to the image, which "
        "stays as it is, v2 makes a new image that names its index (default: compact)",
    )
    parser.add_argument("--tag", default="", help="v2: the new image's tag; the image's own tag replaces it")
    parser.add_argument(
        "--span-size",
        type=_size,
        metavar="SIZE",
        help="uncompressed bytes that are fetched at once: 256KiB, 4MiB, … (default: compact 256KiB, SOCI's 4MiB)",
    )
    parser.add_argument(
        "--min-layer-size",
        type=_size,
        metavar="SIZE",
        help="smaller layers are left out (default: compact 1MiB, SOCI's 10MiB)",
    )
    parser.add_argument(
        "--optimizations",
        choices=("xattr",),
        action="append",
        default=[],
        help="xattr: let readers skip extended attributes where a layer has none",
    )
    parser.add_argument(
        "--for-updates",
        action="store_true",
        help="compact: also say which piece of which file is what, so that devices fetch of the next version only what "
        "changed; building takes longer",
    )


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write bytes, or 256KiB, or 4MiB")
    return int(found[1]) * _UNITS[found[2]]


def options_of(args: argparse.Namespace) -> "IndexOptions":
    """Return what was asked for.

    Raises:
        InvalidInputError: A version 2 index without a tag for its image.
    """
    from edge.images.indexing.build import IndexOptions  # noqa: PLC0415 - imported when it runs
    from edge.images.soci.manifests import IndexVersion  # noqa: PLC0415

    version = IndexVersion[args.index_version.upper()]
    if (version is IndexVersion.V2) != bool(args.tag):
        raise InvalidInputError(
            "--index-version v2 and --tag belong together",
            hint="Version 2 makes a new image, which needs a tag; the others leave the image as it is.",
        )
    usual = IndexOptions.of(version)
    return IndexOptions(
        version,
        usual.span_size if args.span_size is None else args.span_size,
        usual.min_layer_size if args.min_layer_size is None else args.min_layer_size,
        tuple(args.platform),
        disable_xattrs="xattr" in args.optimizations,
        recipes=args.for_updates,
    )


def show_progress(done: int, total: int) -> None:
    """Show on stderr, when somebody looks, how much was read."""
    if sys.stderr.isatty():
        end = "\r\x1b[K" if done >= total else ""
        sys.stderr.write(f"\r\x1b[Klayers read {bar({'here': done, 'size': total})} of {size_text(total)}{end}")
        sys.stderr.flush()


def built_json(images: "Sequence[BuiltImage]") -> list[dict[str, Any]]:
    """Return what was built, for programs."""
    return [
        {
            "platform": image.platform,
            "manifest": image.manifest_digest,
            "index": image.index_digest,
            "layers": [_layer_json(layer) for layer in image.layers],
        }
        for image in images
    ]


def _layer_json(layer: "BuiltLayer") -> dict[str, Any]:
    blob = layer.ztoc.blob if layer.ztoc is not None else None
    found: Mapping[str, Any] = {"digest": layer.layer.digest, "size": layer.layer.size}
    if blob is None:
        return {**found, "ztoc": None, "skipped": layer.skipped}
    return {
        **found,
        "ztoc": {"digest": blob.digest, "size": blob.size},
        "spans": layer.spans,
        "files": layer.files,
    }


def built_rows(images: "Sequence[BuiltImage]") -> list[tuple[str, ...]]:
    """Return what was built, for people."""
    return [
        (
            image.platform,
            layer.layer.digest[7:19],
            size_text(layer.layer.size),
            size_text(layer.ztoc.blob.size) if layer.ztoc is not None else "",
            str(layer.spans or ""),
            str(layer.files or ""),
            layer.skipped,
        )
        for image in images
        for layer in image.layers
    ]
