"""A runtime bundle as a file: an uncompressed tar of the signed manifest and then the wheels, in its order.

Nothing is unpacked before all of it is known to be good: first the signature, then each wheel's digest, both while the
file lies where it is. What is unpacked is hashed once more on its way, so a file changed in between gains nothing.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from edge.errors import InvalidInputError, NotFoundError, RefusedError, TrustError
from edge.files import store_error
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES, RUNTIME_BUNDLE_TYPE
from edge.model.envelope import Signer, seal
from edge.model.runtime_bundle import BundleFile, RuntimeManifest, read_manifest
from edge.model.trust import TrustedSet

MANIFEST_NAME: Final = "manifest.dsse.json"
BUNDLE_MEDIA_TYPE: Final = "application/vnd.edge.runtime-bundle.v1.tar"
_PIECE: Final = 1 << 20
_EDGE_WHEEL: Final = re.compile(r"edge-(\d+\.\d+\.\d+)-py3-none-any\.whl")


Member = tuple[tarfile.TarFile, tarfile.TarInfo]
"""Where a file lies in a tar that is open."""


class RuntimeBundle:
    """A verified bundle; made by `opened_bundle` alone.

    Attributes:
        envelope: The signed manifest, exactly as it came; kept beside what is installed.
    """

    def __init__(self, where: Path, envelope: bytes, manifest: RuntimeManifest, members: Sequence[Member]) -> None:
        self._where = where
        self._members = members
        self.envelope = envelope
        self.manifest = manifest

    def unpack(self, folder: Path) -> tuple[Path, ...]:
        """Write the wheels into a folder and return them.

        Raises:
            RefusedError: The file has changed since it was verified.
            StoreError: They cannot be written.
        """
        written = []
        for file, member in zip(self.manifest.files, self._members, strict=True):
            path = folder / file.name
            try:
                with path.open("xb") as target:
                    _copy(self._where, file, member, target.write)
            except OSError as error:
                raise store_error(f"cannot write {path}", error) from error
            written.append(path)
        return tuple(written)


@contextmanager
def opened_bundle(path: Path, trust: TrustedSet) -> Iterator[RuntimeBundle]:
    """Open a bundle and verify all of it.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: It is no bundle, or its manifest is wrong.
        TrustError: It is not signed by whom it must be, or a wheel is not the one that was signed.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    with file:
        try:
            # No compression: nothing can grow while it is read.
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with the file
            yield _verified(tar, path, trust)
        except tarfile.TarError as error:
            raise InvalidInputError(
                f"{path} is no runtime bundle: {error}", hint="`edge firmware bundle` makes one."
            ) from error


def _verified(tar: tarfile.TarFile, path: Path, trust: TrustedSet) -> RuntimeBundle:
    first = tar.next()
    if first is None or first.name != MANIFEST_NAME or not first.isreg() or first.size > MAXIMUM_DOCUMENT_BYTES:
        raise InvalidInputError(
            f"{path} is no runtime bundle: it does not begin with {MANIFEST_NAME}",
            hint="`edge firmware bundle` makes one.",
        )
    content = tar.extractfile(first)
    envelope = b"" if content is None else content.read(MAXIMUM_DOCUMENT_BYTES + 1)
    manifest = read_manifest(trust.verify(envelope, RUNTIME_BUNDLE_TYPE).payload)
    members: list[Member] = []
    # One after the other: how many more there are is for nobody to say who did not sign.
    for file in manifest.files:
        found = tar.next()
        if found is None or found.name != file.name or not found.isreg() or found.size != file.size:
            raise TrustError(f"{path} does not hold {file.name} as its manifest says", hint="Copy the bundle again.")
        members.append((tar, found))
        _copy(path, file, members[-1], lambda _: None)
    if tar.next() is not None:
        raise TrustError(f"{path} holds more than its manifest says")
    return RuntimeBundle(path, envelope, manifest, members)


def _copy(where: Path, file: BundleFile, member: Member, write: Callable[[bytes], object]) -> None:
    tar, found = member
    content = tar.extractfile(found)
    digest = hashlib.sha256()
    while content is not None and (piece := content.read(_PIECE)):
        digest.update(piece)
        write(piece)
    if digest.hexdigest() != file.sha256:
        raise TrustError(f"{file.name} in {where} is not the file that was signed", hint="Copy the bundle again.")


def find_wheels(folder: Path) -> tuple[tuple[Path, ...], str]:
    """Return the wheels in a folder, by name, and the version of `edge` among them.

    Raises:
        NotFoundError: There is no wheel of `edge`.
        InvalidInputError: There are two.
    """
    wheels = tuple(sorted(folder.glob("*.whl")))
    versions = [found[1] for wheel in wheels if (found := _EDGE_WHEEL.fullmatch(wheel.name))]
    if not versions:
        raise NotFoundError(
            f"{folder} holds no wheel of edge", hint="`pip wheel --wheel-dir DIR PATH-OR-NAME-OF-EDGE` puts all there."
        )
    if len(versions) > 1:
        raise InvalidInputError(f"{folder} holds edge in {len(versions)} versions: {', '.join(versions)}")
    return wheels, versions[0]


def described(wheel: Path) -> BundleFile:
    """Return what a manifest says of a wheel.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return BundleFile(name=wheel.name, sha256=digest, size=wheel.stat().st_size)
    except OSError as error:
        raise store_error(f"cannot read {wheel}", error) from error


def write_bundle(path: Path, manifest: RuntimeManifest, wheels: Sequence[Path], signers: Sequence[Signer]) -> None:
    """Sign a manifest, and put it and the wheels into a new file; the same content makes the same bytes.

    Raises:
        RefusedError: There is such a file.
        StoreError: It cannot be written.
    """
    payload = manifest.model_dump_json(by_alias=True).encode()
    envelope = seal(payload, RUNTIME_BUNDLE_TYPE, signers)
    try:
        with path.open("xb") as file, tarfile.open(fileobj=file, mode="w:", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, MANIFEST_NAME, len(envelope), io.BytesIO(envelope))
            for wheel in wheels:
                with wheel.open("rb") as content:
                    _add(tar, wheel.name, wheel.stat().st_size, content)
    except FileExistsError as error:
        raise RefusedError(f"{path} exists already", hint="Name another file with --out.") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise store_error(f"cannot write {path}", error) from error


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, content)
