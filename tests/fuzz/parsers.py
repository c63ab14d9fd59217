"""Every parser that faces somebody else's bytes, as `bytes -> None`, with what it may raise and where a fuzzer begins.

`test_parsers.py` gives each a few thousand inputs in the default suite; `./dev soak fuzz` follows its branches for ten
minutes. Whatever else a parser raises, takes too long for, or needs more memory for, is a defect.
"""

import base64
import contextlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, cast

from urllib3.response import BaseHTTPResponse, HTTPResponse

from edge.agent.engine.commands import _parameters
from edge.agent.engine.intake import Judge, revision_of
from edge.agent.telemetry.http_requests import RefusedRequest, RequestReader
from edge.errors import EdgeError, ImagePullError, InvalidInputError, RegistryUnavailableError, TrustError
from edge.fleet.authority import _requested_key
from edge.fleet.messages import parse_message
from edge.images.oci.auth import Credentials
from edge.images.oci.documents import Index, parse_configuration, parse_manifest
from edge.images.oci.http import Server, _refusal
from edge.images.oci.references import parse_reference
from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import span_table
from edge.images.soci.compact import pack_ztoc, unpack_ztoc
from edge.images.soci.manifests import annotate_manifest, bind_image_index, index_digest_of, read_index, referrers
from edge.images.soci.prefetch import read_prefetch
from edge.images.soci.spans import inflate_span
from edge.images.soci.values import Compression
from edge.images.soci.ztoc import read_ztoc, write_ztoc
from edge.model.device_policy import DevicePolicy
from edge.model.documents import CertificateRequest
from edge.model.envelope import open_envelope
from edge.model.image_trust.certificate import certified_key, check_identity, read_certificates
from edge.model.image_trust.evidence import Evidence, FoundSignature, read_evidence
from edge.model.image_trust.log_entry import logged_at
from edge.model.image_trust.verify import prove
from edge.model.records import Block
from edge.model.task_definition import parse_task_definition
from edge.model.telemetry import BootClock, encode_block, parse_batch
from edge.model.topics import Topics
from edge.model.trust import TrustedSet, Verified
from edge.model.trust_chain import follow_chain
from tests.fuzz import seeds


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser.

    Attributes:
        parse: Reads the bytes; returns, or raises one of `refuses`.
        begin: Inputs to begin with.
        most: Bytes of an input worth trying.
    """

    name: str
    parse: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    begin: tuple[bytes, ...]
    most: int = field(default=8192)

    def try_bytes(self, data: bytes) -> None:
        """Give it one input; anything but a value or a declared refusal comes out as an error."""
        with contextlib.suppress(*self.refuses):
            self.parse(data)


class _Believes:
    """Stands for a trust bundle whose keys have signed whatever comes: a thief's, or a careless operator's."""

    def verify(self, data: bytes, _kind: str) -> Verified:
        return Verified(data, ("0" * 64,))


_JUDGE: Final = Judge(cast("TrustedSet", _Believes()), "default", "pi-1", DevicePolicy())
_TRUSTED: Final = TrustedSet.from_bundle(seeds.BUNDLE)


def _bundle(data: bytes) -> None:
    signed = json.loads(seeds.BUNDLE)
    signed["payload"] = base64.b64encode(data).decode()
    TrustedSet.version_of(json.dumps(signed).encode())


def _chain(data: bytes) -> None:
    follow_chain(_TRUSTED, data)


def _desired_state(data: bytes) -> None:
    revision_of(data)
    _JUDGE.desired_state(data, in_force=0, tasks={})


def _command(data: bytes) -> None:
    claimed: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        claimed = json.loads(data)
    op, command_id = (claimed.get("op"), claimed.get("id")) if isinstance(claimed, dict) else (None, None)
    command, _ = _JUDGE.command(
        data, op=str(op), command_id=str(command_id), now="2026-11-28T12:00:00Z", clock_is_good=True
    )
    _parameters(command.op, command.parameters)


def _head(data: bytes) -> None:
    _JUDGE.head(data, nonce="0" * 32)


def _task_definition(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        found = parse_task_definition(document)
        DevicePolicy().problems(found)


def _device_message(data: bytes) -> None:
    topic, _, payload = data.partition(b"\n")
    with contextlib.suppress(UnicodeDecodeError):
        parse_message(topic.decode(), payload, retained=False)


def _certificate_request(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        CertificateRequest.model_validate_json(data)
    _requested_key(data, "pi-1")


def _manifest(data: bytes) -> None:
    found = parse_manifest(data)
    if isinstance(found, Index):
        found.choose("arm64")


def _soci_index(data: bytes) -> None:
    for read in (read_index, referrers, index_digest_of, lambda data: read_prefetch(data, 10)):
        with contextlib.suppress(InvalidInputError):
            read(data)
    with contextlib.suppress(InvalidInputError):
        annotate_manifest(data, None)
    bind_image_index(data, [], {})


def _ztoc(data: bytes) -> None:
    ztoc = read_ztoc(data)
    table = span_table(ztoc)
    for span in table.spans[:4]:
        with contextlib.suppress(InvalidInputError):
            inflate_span(table, span, seeds.LAYER[span.compressed_start : span.compressed_end])


def _compact_ztoc(data: bytes) -> None:
    read_ztoc(unpack_ztoc(data))


def _tar(data: bytes) -> None:
    found = build_layer_index([data], Compression.UNCOMPRESSED, span_size=1 << 15)
    assert read_ztoc(write_ztoc(found.ztoc)) == found.ztoc


def _layer(data: bytes) -> None:
    build_layer_index([data[:100], data[100:]], Compression.GZIP, span_size=1 << 15)


def _evidence(data: bytes) -> None:
    prove(read_evidence(data), seeds.KEYLESS_RULE, (), seeds.SIGNED_IMAGE)


def _payload(data: bytes) -> None:
    prove(Evidence(b"", seeds.SIGNED_MANIFEST, (FoundSignature(data, b"x"),)), seeds.KEY_RULE, (), seeds.SIGNED_IMAGE)


def _signed_manifest(data: bytes) -> None:
    for index, manifest in ((data, seeds.SIGNED_MANIFEST), (b"", data)):
        with contextlib.suppress(TrustError):
            prove(Evidence(index, manifest, (seeds.KEYLESS,)), seeds.KEYLESS_RULE, (), seeds.SIGNED_IMAGE)


def _log_entry(data: bytes) -> None:
    logged_at(replace(seeds.KEYLESS, log_entry=data), seeds.KEYLESS_RULE.log_keys, b"")


def _log_body(data: bytes) -> None:
    """The log promises whatever the fuzzer writes."""
    found = seeds.LOG.promise_bytes(seeds.KEYLESS, data)
    logged_at(found, seeds.KEYLESS_RULE.log_keys, b"")


def _certificate(data: bytes) -> None:
    """The fuzzer writes DER: it would not find base64 by itself."""
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    rule = seeds.KEYLESS_RULE
    with contextlib.suppress(TrustError):
        certified_key(seeds.KEYLESS.certificate, pem, rule.authorities, seeds.SIGNED_SECONDS)
    certificate, _ = certified_key(pem, seeds.KEYLESS.chain, rule.authorities, seeds.SIGNED_SECONDS)
    check_identity(certificate, rule.identity, rule.issuer)


def _identity(data: bytes) -> None:
    for certificate in read_certificates(
        b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    ):
        check_identity(certificate, seeds.KEYLESS_RULE.identity, seeds.KEYLESS_RULE.issuer)


@dataclass(slots=True)
class _Registry(Server):
    """A registry whose token server says what the fuzzer says."""

    body: bytes = b""

    def _raw(self, *_: object) -> BaseHTTPResponse:
        return HTTPResponse(io.BytesIO(self.body), status=200, preload_content=False)


@cache
def _registry() -> _Registry:
    # One for all inputs: to read the host's authorities takes a hundred times as long as a token.
    return _Registry("registry.example", insecure=False, credentials=Credentials("u", "p", ""))


def _token(data: bytes) -> None:
    challenge, _, body = data.partition(b"\n")
    server = _registry()
    server.body, server._basic = body, False
    server._tokens.clear()
    server._answer_challenge(challenge.decode("latin-1"), "repository:app:pull")
    server._authorization("repository:app:pull")


def _registry_error(data: bytes) -> None:
    status = 400 + (data[0] if data else 0)
    _refusal(HTTPResponse(io.BytesIO(data), status=status, preload_content=False), "registry.example", "/v2/")


def _reference(data: bytes) -> None:
    found = parse_reference(data.decode("utf-8", "replace"))
    assert parse_reference(str(found)) == found


def _readings(data: bytes) -> None:
    reader = RequestReader()
    for at in range(0, len(data), 97):
        reader.feed(data[at : at + 97])
        while reader.next() is not None:
            pass
        reader.wants_continue()


def _batch(data: bytes) -> None:
    """The payload is what a device compressed: the fuzzer writes what is inside."""
    head, newline, lines = data.partition(b"\n")
    with contextlib.suppress(InvalidInputError):
        parse_batch(data)
    parse_batch(head + newline + zlib.compress(lines, 1))


def _json(*documents: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(json.dumps(document).encode() for document in documents)


def _tar_seed(kind: int) -> bytes:
    return seeds.tar_with(kind)


_BLOCK: Final = Block("metrics", 7, 1, 2, "0" * 32, 0, 1, zlib.compress(b'{"t":1}\n{"t":2}'))
_CLOCK: Final = BootClock(5, synchronized=True)
_TOPIC: Final = Topics("default", "pi-1")

PARSERS: Final = (
    Parser("envelope", open_envelope, (TrustError,), (seeds.BUNDLE, seeds.SEALED)),
    Parser("trust-bundle", _bundle, (TrustError,), (seeds.BUNDLE_PAYLOAD,)),
    Parser("trust-chain", _chain, (EdgeError,), (seeds.CHAIN,)),
    Parser("desired-state", _desired_state, (EdgeError,), _json(*seeds.DESIRED_STATES)),
    Parser("command", _command, (EdgeError,), _json(*seeds.COMMANDS)),
    Parser("head", _head, (EdgeError,), _json(seeds.HEAD)),
    Parser("task-definition", _task_definition, (InvalidInputError,), _json(*seeds.TASK_DEFINITIONS)),
    Parser("device-message", _device_message, (), seeds.device_messages(_TOPIC)),
    Parser(
        "telemetry-batch",
        _batch,
        (InvalidInputError,),
        seeds.batches(encode_block, _BLOCK, _CLOCK),
    ),
    Parser("certificate-request", _certificate_request, (InvalidInputError,), (seeds.REQUEST,)),
    Parser("readings-request", _readings, (RefusedRequest,), seeds.HTTP_REQUESTS),
    Parser("manifest", _manifest, (InvalidInputError, ImagePullError), _json(seeds.MANIFEST, seeds.INDEX)),
    Parser("image-configuration", parse_configuration, (InvalidInputError,), _json(seeds.CONFIGURATION)),
    Parser("image-reference", _reference, (InvalidInputError,), seeds.REFERENCES),
    Parser("soci-index", _soci_index, (InvalidInputError,), _json(seeds.MANIFEST, seeds.INDEX, *seeds.SOCI)),
    Parser("ztoc", _ztoc, (InvalidInputError,), (seeds.ZTOC, seeds.TAR_ZTOC), 131072),
    Parser("compact-ztoc", _compact_ztoc, (InvalidInputError,), (pack_ztoc(seeds.ZTOC),), 65536),
    Parser("tar", _tar, (InvalidInputError,), tuple(map(_tar_seed, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))), 65536),
    Parser("gzip-layer", _layer, (InvalidInputError,), (seeds.LAYER,), 65536),
    Parser("registry-token", _token, (EdgeError,), seeds.CHALLENGES),
    Parser("image-signatures", _evidence, (TrustError,), (seeds.EVIDENCE,), 16384),
    Parser("signature-payload", _payload, (TrustError,), (seeds.KEYLESS.payload,)),
    Parser("signed-manifest", _signed_manifest, (TrustError,), (seeds.SIGNED_MANIFEST, *_json(seeds.INDEX))),
    Parser("log-entry", _log_entry, (TrustError,), (seeds.KEYLESS.log_entry,)),
    Parser("log-body", _log_body, (TrustError,), (seeds.LOG_BODY,)),
    Parser("signer-certificate", _certificate, (TrustError,), seeds.CERTIFICATES),
    Parser("signer-identity", _identity, (TrustError,), seeds.CERTIFICATES),
    Parser("registry-error", _registry_error, (RegistryUnavailableError,), seeds.ERRORS),
)
BY_NAME: Final = {parser.name: parser for parser in PARSERS}
