"""The registry client: resolve, read, read ranges, find referrers, push."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from edge.errors import (
    EdgeError,
    EngineError,
    ImagePullError,
    InvalidInputError,
    RegistryUnavailableError,
    TransientError,
)
from edge.images.oci.auth import find_credentials
from edge.images.oci.documents import (
    INDEXES,
    MANIFESTS,
    MAXIMUM_CONFIGURATION,
    MAXIMUM_MANIFEST,
    OCI_INDEX,
    Configuration,
    Descriptor,
    Index,
    Manifest,
    digest_of,
    parse_configuration,
    parse_manifest,
)
from edge.images.oci.http import REASON, Patience, Server, discard, joined, unavailable
from edge.images.oci.references import ImageReference
from edge.images.oci.registries import Endpoint, Registries

_T = TypeVar("_T")

_ACCEPT: Final = ", ".join((*MANIFESTS, *INDEXES))
_PIECE: Final = 64 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)")
_FOUND: Final = frozenset({200, 404})
_MAXIMUM_REFERRERS: Final = 32
"""Of each type."""
_MIRROR_RESTS_SECONDS: Final = 60.0
"""How long a mirror that did not answer is passed over: each part of a layer would wait for it anew."""


class NoRangeError(ImagePullError):
    """The registry does not serve parts of a layer; it can be had only whole."""


class RegistryClient:
    """Reads from the registries of one host's configuration. Usable from any thread.

    Args:
        registries: Where each image is fetched from.
        environment: Where the credentials are.
        patience: How often a request is tried.
    """

    def __init__(
        self, registries: Registries, environment: Mapping[str, str], patience: Patience | None = None
    ) -> None:
        self._registries = registries
        self._environment = environment
        self._patience = patience or Patience()
        self._servers: dict[Endpoint, Server] = {}
        self._resting: dict[Endpoint, float] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the connections that wait for another request; one that is asked again opens others."""
        with self._lock:
            for server in self._servers.values():
                server.close()

    def manifest(self, reference: ImageReference) -> Manifest | Index:
        """Fetch the manifest or index a reference means, verified if it names a digest.

        Raises:
            RegistryUnavailableError: Nobody answered.
            ImagePullError: There is none, or it may not be read.
            InvalidInputError: It is malformed.
        """
        return self._first(reference, lambda endpoint: self._manifest(endpoint, reference.wanted))

    def find_manifest(self, reference: ImageReference) -> Manifest | Index | None:
        """Return what `manifest` does, and None where neither the registry nor a mirror has it."""
        for endpoint in self._registries.endpoints(reference):
            server = self._server(endpoint)
            answer, data = server.document(
                f"/v2/{endpoint.repository}/manifests/{reference.wanted}",
                MAXIMUM_MANIFEST,
                scope=_pull(endpoint),
                headers={"Accept": _ACCEPT},
                accept=_FOUND,
            )
            if answer.status == 200:  # noqa: PLR2004
                return self._checked(server, reference.wanted, answer, data)
        return None

    def image(self, reference: ImageReference, architecture: str) -> Manifest:
        """Fetch the manifest for an architecture; raises as `manifest`."""
        found = self.manifest(reference)
        if isinstance(found, Index):
            found = self.manifest(reference.at(found.choose(architecture).digest))
        if isinstance(found, Index):
            raise ImagePullError(f"{reference} is an index of indexes", reason=REASON)
        return found

    def configuration(self, reference: ImageReference, manifest: Manifest) -> Configuration:
        """Fetch an image's configuration; raises as `manifest`."""
        return parse_configuration(self.blob(reference, manifest.config, MAXIMUM_CONFIGURATION))

    def blob(self, reference: ImageReference, blob: Descriptor, most: int) -> bytes:
        """Fetch a small blob whole and verified.

        Raises:
            RegistryUnavailableError: Nobody answered, or broke off.
            ImagePullError: There is none, it is larger than `most`, or it has another digest.
        """
        if blob.size > most:
            raise ImagePullError(f"blob {blob.digest} has {blob.size} bytes; {most} are the most", reason=REASON)
        data = b"".join(self.chunks(reference, blob, 0, blob.size))
        if digest_of(data) != blob.digest:
            raise ImagePullError(f"the registry sent other bytes for {blob.digest}", reason=REASON)
        return data

    def chunks(self, reference: ImageReference, blob: Descriptor, offset: int, size: int) -> Iterator[bytes]:
        """Yield the bytes of a blob from `offset` on, exactly `size`, unverified; goes on where a connection broke off.

        Raises:
            NoRangeError: Only the whole blob is served.
            RegistryUnavailableError: Nobody answered, or all broke off without a byte.
            ImagePullError: There is no such blob.
        """
        done, empty, most = 0, 0, len(self._registries.endpoints(reference))
        while done < size:
            before = done
            try:
                for piece in self._part(reference, blob, offset + done, size - done):
                    done += len(piece)
                    yield piece
            except RegistryUnavailableError:
                # A mirror that broke off rests: the next one, or the registry itself, gives what it did not.
                empty = empty + 1 if done == before else 0
                if empty == most:
                    raise

    def referrers(self, reference: ImageReference, digest: str, *artifact_types: str) -> tuple[Descriptor, ...]:
        """Return the artifacts of these types that refer to a manifest, in the types' order; raises as `manifest`.

        By the referrers API, or else by the tag schema (OCI distribution specification 1.1).
        """
        endpoint = self._registries.endpoints(reference)[-1]
        query = f"?{urlencode({'artifactType': artifact_types[0]})}" if len(artifact_types) == 1 else ""
        answer, data = self._server(endpoint).document(
            f"/v2/{endpoint.repository}/referrers/{digest}{query}",
            MAXIMUM_MANIFEST,
            scope=_pull(endpoint),
            headers={"Accept": OCI_INDEX},
            accept=_FOUND,
        )
        document = data if answer.status == 200 else self._tagged_referrers(endpoint, digest)  # noqa: PLR2004
        if document is None:
            return ()
        found = parse_manifest(document, OCI_INDEX)
        if not isinstance(found, Index):
            return ()
        listed = [descriptor for descriptor, _ in found.manifests]
        of_kind = ([one for one in listed if one.artifact_type == kind][:_MAXIMUM_REFERRERS] for kind in artifact_types)
        return tuple(one for found in of_kind for one in found)

    # --- push

    def has_blob(self, reference: ImageReference, digest: str) -> bool:
        """Say whether a blob is there; raises as `manifest`."""
        endpoint = self._own(reference)
        path = f"/v2/{endpoint.repository}/blobs/{digest}"
        answer = self._server(endpoint).request("HEAD", path, scope=_push(endpoint), accept=_FOUND)
        discard(answer)
        return answer.status == 200  # noqa: PLR2004

    def push_blob(self, reference: ImageReference, data: bytes) -> Descriptor:
        """Upload a blob, if it is not there; raises as `manifest`."""
        digest = digest_of(data)
        endpoint = self._own(reference)
        if not self.has_blob(reference, digest):
            server = self._server(endpoint)
            path = f"/v2/{endpoint.repository}/blobs/uploads/"
            begun = server.request("POST", path, scope=_push(endpoint), accept=frozenset({202}))
            discard(begun)
            location = joined(path, begun.headers.get("Location", ""), server.host)
            target = f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
            headers = {"Content-Type": "application/octet-stream"}
            done = server.request(
                "PUT", target, scope=_push(endpoint), headers=headers, body=data, accept=frozenset({201})
            )
            discard(done)
        return Descriptor("", digest, len(data))

    def push_manifest(self, reference: ImageReference, data: bytes, media_type: str) -> bool:
        """Upload a manifest under the reference's tag or digest; raises as `manifest`.

        Returns:
            Whether the registry lists it as a referrer by itself (`OCI-Subject`).
        """
        endpoint = self._own(reference)
        path = f"/v2/{endpoint.repository}/manifests/{reference.wanted}"
        headers = {"Content-Type": media_type}
        answer = self._server(endpoint).request(
            "PUT", path, scope=_push(endpoint), headers=headers, body=data, accept=frozenset({201})
        )
        discard(answer)
        return "OCI-Subject" in answer.headers

    def add_referrer(
        self, reference: ImageReference, subject: str, referrer: Descriptor, *, instead: bool = False
    ) -> None:
        """List an artifact in the tag schema of a registry without the referrers API; raises as `manifest`.

        With `instead` it takes the place of those of its type.
        """
        data = self._tagged_referrers(self._own(reference), subject)
        if data is not None and not isinstance(parse_manifest(data, OCI_INDEX), Index):
            raise InvalidInputError(f"{reference.name}:{_tag(subject)} is no list of referrers")
        listed: list[dict[str, Any]] = json.loads(data)["manifests"] if data is not None else []
        own = {
            "mediaType": referrer.media_type,
            "digest": referrer.digest,
            "size": referrer.size,
            "artifactType": referrer.artifact_type,
        } | ({"annotations": dict(referrer.annotations)} if referrer.annotations else {})
        gone = referrer.artifact_type if instead else None
        kept = [
            one for one in listed if one.get("digest") != referrer.digest and (one.get("artifactType") or "") != gone
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, own]}
        tagged = ImageReference(reference.registry, reference.repository, _tag(subject))
        self.push_manifest(tagged, json.dumps(document).encode(), OCI_INDEX)

    # --- inside

    def _own(self, reference: ImageReference) -> Endpoint:
        return self._registries.endpoints(reference)[-1]

    def _first(self, reference: ImageReference, ask: Callable[[Endpoint], _T]) -> _T:
        """Ask the mirrors and then the registry itself, whose error is the one raised."""
        *mirrors, own = self._registries.endpoints(reference)
        failures = []
        for mirror in mirrors:
            if self._resting.get(mirror, 0.0) > self._patience.now():
                continue
            try:
                return ask(mirror)
            except EdgeError as error:
                failures.append(str(error))
                if isinstance(error, TransientError):
                    self._rest(mirror)
        try:
            return ask(own)
        except EngineError as error:
            if not failures:
                raise
            message = f"{error} (and its mirrors: {'; '.join(failures)})"
            raise type(error)(message, reason=error.reason, hint=error.hint) from error

    def _tagged_referrers(self, endpoint: Endpoint, subject: str) -> bytes | None:
        """Fetch the list of referrers that stands under the tag schema, if there is one."""
        answer, data = self._server(endpoint).document(
            f"/v2/{endpoint.repository}/manifests/{_tag(subject)}",
            MAXIMUM_MANIFEST,
            scope=_pull(endpoint),
            headers={"Accept": OCI_INDEX},
            accept=_FOUND,
        )
        return data if answer.status == 200 else None  # noqa: PLR2004

    def _manifest(self, endpoint: Endpoint, wanted: str) -> Manifest | Index:
        server = self._server(endpoint)
        path = f"/v2/{endpoint.repository}/manifests/{wanted}"
        answer, data = server.document(path, MAXIMUM_MANIFEST, scope=_pull(endpoint), headers={"Accept": _ACCEPT})
        return self._checked(server, wanted, answer, data)

    @staticmethod
    def _checked(server: Server, wanted: str, answer: BaseHTTPResponse, data: bytes) -> Manifest | Index:
        if wanted.startswith("sha256:") and f"sha256:{hashlib.sha256(data).hexdigest()}" != wanted:
            raise ImagePullError(f"registry {server.host} sent another manifest than {wanted}", reason=REASON)
        return parse_manifest(data, answer.headers.get("Content-Type", ""))

    def _part(self, reference: ImageReference, blob: Descriptor, offset: int, size: int) -> Iterator[bytes]:
        answer, endpoint = self._first(reference, lambda endpoint: self._open(endpoint, blob, offset, size))
        left = size
        try:
            while left:
                # At once what is there, so that a span is not kept waiting for the rest of a piece.
                piece = answer.read1(min(_PIECE, left))
                if not piece:
                    break
                left -= len(piece)
                yield piece
        except (HTTPError, OSError) as error:
            self._rest(endpoint)
            raise unavailable(endpoint.server, error) from error
        finally:
            # Of an answer read to its end this ends nothing: its connection is back in the pool.
            answer.close()
        if left:
            self._rest(endpoint)
            raise RegistryUnavailableError(f"registry {endpoint.server} broke off {left} bytes early", reason=REASON)

    def _rest(self, endpoint: Endpoint) -> None:
        self._resting[endpoint] = self._patience.now() + _MIRROR_RESTS_SECONDS

    def _open(self, endpoint: Endpoint, blob: Descriptor, offset: int, size: int) -> tuple[BaseHTTPResponse, Endpoint]:
        server = self._server(endpoint)
        partial = offset > 0 or size < blob.size
        headers = {"Range": f"bytes={offset}-{offset + size - 1}"} if partial else {}
        answer = server.request(
            "GET",
            f"/v2/{endpoint.repository}/blobs/{blob.digest}",
            scope=_pull(endpoint),
            headers=headers,
            accept=frozenset({200, 206}),
        )
        if not partial or (answer.status == 206 and _is_range(answer, offset, size)):  # noqa: PLR2004
            return answer, endpoint
        answer.close()
        if answer.status == 206:  # noqa: PLR2004
            told = answer.headers.get("Content-Range", "no range")
            raise RegistryUnavailableError(
                f"registry {server.host} sent {told}, not the bytes asked for", reason=REASON
            )
        raise NoRangeError(
            f"registry {server.host} serves layers only whole (no Range)",
            reason=REASON,
            hint="The image is pulled in the ordinary way.",
        )

    def _server(self, endpoint: Endpoint) -> Server:
        with self._lock:
            found = self._servers.get(endpoint)
            if found is None:
                # A mirror's own, never the registry's: whoever runs it is somebody else.
                name = f"{endpoint.server}/{endpoint.repository}"
                credentials = find_credentials(name, self._environment)
                certificates = self._registries.certificates(endpoint.server)
                found = Server(endpoint.server, endpoint.insecure, credentials, certificates, self._patience)
                self._servers[endpoint] = found
            return found


def _is_range(answer: BaseHTTPResponse, offset: int, size: int) -> bool:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return found is not None and (int(found[1]), int(found[2])) == (offset, offset + size - 1)


def _tag(subject: str) -> str:
    """The referrers tag schema's name for a manifest's referrers."""
    return subject.replace(":", "-")


def _pull(endpoint: Endpoint) -> str:
    return f"repository:{endpoint.repository}:pull"


def _push(endpoint: Endpoint) -> str:
    return f"repository:{endpoint.repository}:pull,push"
