"""Where fuzzing begins: one good input of each kind, small."""

import base64
import json
import tarfile
from collections.abc import Callable
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.images.oci.documents import digest_of
from edge.images.soci.builder import build_layer_index
from edge.images.soci.values import Compression
from edge.images.soci.ztoc import write_ztoc
from edge.model.documents import DESIRED_STATE_TYPE
from edge.model.envelope import seal
from edge.model.image_trust.evidence import Evidence
from edge.model.topics import Topics
from edge.model.trust import BundleRole, TrustBundle, bundle_key, make_bundle
from edge.model.trust_chain import write_chain
from tests.images.soci.layers import deflate, member, pieces, tar, text
from tests.model.image_signers import SIGNED_AT, Fulcio, ImageSigner, Log
from tests.model.signers import MemorySigner

_DIGEST: Final = f"sha256:{'ab' * 32}"


def _bundle() -> tuple[bytes, bytes, bytes]:
    signer = MemorySigner()
    role = BundleRole(key_ids=[signer.key_id], threshold=1)
    bundle = TrustBundle(
        version=1,
        clusters=["default"],
        issued_at="2026-11-28T12:00:00Z",
        keys={signer.key_id: bundle_key(signer.public)},
        roles={"root": role, "desired-state": role, "command": role, "head": role},
    )
    newer = bundle.model_copy(update={"version": 2})
    sealed = make_bundle(bundle, [signer])
    return sealed, bundle.model_dump_json(by_alias=True).encode(), write_chain([sealed, make_bundle(newer, [signer])])


BUNDLE, BUNDLE_PAYLOAD, CHAIN = _bundle()
SEALED: Final = seal(b"{}", DESIRED_STATE_TYPE, [MemorySigner()])

TASK_DEFINITIONS: Final[tuple[dict[str, Any], ...]] = (
    {"family": "app", "containerDefinitions": [{"name": "app", "image": "registry.example/app:1", "memory": 8}]},
    {
        "family": "all",
        "networkMode": "bridge",
        "cpu": "256",
        "memory": "128",
        "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
        "volumes": [{"name": "v", "host": {"sourcePath": "/srv"}}, {"name": "w", "dockerVolumeConfiguration": {}}],
        "containerDefinitions": [
            {
                "name": "a",
                "image": f"registry.example/a@{_DIGEST}",
                "memoryReservation": 8,
                "essential": True,
                "command": ["sh", "-c", "true"],
                "environment": [{"name": "A", "value": "b"}],
                "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}],
                "mountPoints": [{"sourceVolume": "v", "containerPath": "/v", "readOnly": True}],
                "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5, "retries": 2},
                "linuxParameters": {"capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]}, "initProcessEnabled": True},
                "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
                "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
                "dependsOn": [{"containerName": "b", "condition": "START"}],
                "restartPolicy": {"enabled": True, "ignoredExitCodes": [0]},
                "user": "1:1",
                "workingDirectory": "/w",
            },
            {"name": "b", "image": "registry.example/b", "memory": 8, "essential": False},
        ],
    },
)
_STATE: Final = {
    "schemaVersion": 1,
    "cluster": "default",
    "device": "pi-1",
    "revision": 9,
    "issuedAt": "2026-11-28T12:00:00Z",
}
DESIRED_STATES: Final[tuple[dict[str, Any], ...]] = (
    {
        **_STATE,
        "taskDefinitions": {"app:1": TASK_DEFINITIONS[0], "all:2": TASK_DEFINITIONS[1]},
        "tasks": [{"taskId": "0" * 32, "taskDefinition": "app:1", "desiredStatus": "RUNNING"}],
        "services": [{"serviceName": "web", "taskDefinition": "app:1", "desiredCount": 2}],
        "schedules": [{"name": "night", "taskDefinition": "app:1", "scheduleExpression": "cron(0 3 * * ? *)"}],
    },
    {**_STATE, "schedules": [{"name": "often", "taskDefinition": "x:1", "scheduleExpression": "rate(5 minutes)"}]},
)
COMMANDS: Final[tuple[dict[str, Any], ...]] = tuple(
    {
        "schemaVersion": 1,
        "cluster": "default",
        "device": "pi-1",
        "op": op,
        "id": "0" * 32,
        "issuedAt": "2026-11-28T12:00:00Z",
        "expiresAt": "2026-11-28T13:00:00Z",
        "lifetimeSeconds": 60,
        "parameters": parameters,
    }
    for op, parameters in (
        ("stopTask", {"taskId": "0" * 32, "reason": "r"}),
        ("logs", {"taskId": "0" * 32, "tail": 5, "follow": True}),
        ("describe", {}),
        ("pullImage", {"reference": "registry.example/app:1"}),
    )
)
HEAD: Final[dict[str, Any]] = {
    "schemaVersion": 1,
    "cluster": "default",
    "device": "pi-1",
    "nonce": "0" * 32,
    "revision": 3,
    "trustVersion": 1,
    "time": "2026-11-28T12:00:00Z",
}
_DESCRIPTOR: Final = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": _DIGEST, "size": 7}
MANIFEST: Final[dict[str, Any]] = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 3},
    "layers": [_DESCRIPTOR],
    "annotations": {"com.amazon.soci.index-digest": _DIGEST},
}
INDEX: Final[dict[str, Any]] = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [
        {**_DESCRIPTOR, "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}, "artifactType": "x"}
    ],
}
CONFIGURATION: Final[dict[str, Any]] = {
    "architecture": "arm64",
    "os": "linux",
    "created": "2026-11-28T12:00:00Z",
    "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
}
SOCI: Final[tuple[dict[str, Any], ...]] = (
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.amazon.soci.index.v1+json",
        "config": {"mediaType": "application/vnd.amazon.soci.index.v1+json", "digest": _DIGEST, "size": 2},
        "layers": [
            {
                "mediaType": "application/octet-stream",
                "digest": _DIGEST,
                "size": 9,
                "annotations": {
                    "com.amazon.soci.image-layer-digest": _DIGEST,
                    "com.amazon.soci.image-layer-mediaType": _DESCRIPTOR["mediaType"],
                },
            }
        ],
        "subject": _DESCRIPTOR,
    },
    {"version": "1.0", "prefetch_spans": [{"start_span": 0, "end_span": 3, "priority": 0}]},
)
REFERENCES: Final = (
    b"registry.example/app:1",
    b"registry.example:5000/shop/app@" + _DIGEST.encode(),
    b"docker.io/alpine:3@" + _DIGEST.encode(),
    b"[::1]:5000/a__b/c-d.e:latest",
)
CHALLENGES: Final = (
    b'Bearer realm="https://auth.example/token",service="registry",scope="repository:app:pull"\n{"token":"abc"}',
    b'Bearer realm="https://auth.example/t?x=y"\n{"access_token":"abc","expires_in":300,"issued_at":"2026"}',
    b'Basic realm="r"\n',
)
ERRORS: Final = (
    b'{"errors":[{"code":"DENIED","message":"no","detail":[]}]}',
    b"\x1d<html>",
    b"",
)
HTTP_REQUESTS: Final = (
    b"POST /readings?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)

SIGNED_IMAGE: Final = "registry.example/app:1"
SIGNED_MANIFEST: Final = json.dumps({"config": {"digest": _DIGEST}, "layers": []}).encode()
LOG: Final = Log()
_FULCIO: Final = Fulcio()
KEYLESS: Final = _FULCIO.sign(digest_of(SIGNED_MANIFEST), "registry.example/app", LOG)
KEYLESS_RULE: Final = _FULCIO.rule(LOG)
KEY_RULE: Final = ImageSigner().rule()
SIGNED_SECONDS: Final = int(SIGNED_AT.timestamp())
EVIDENCE: Final = Evidence(b"", SIGNED_MANIFEST, (KEYLESS,)).to_bytes()
LOG_BODY: Final = base64.b64decode(json.loads(KEYLESS.log_entry)["Payload"]["body"])
CERTIFICATES: Final = tuple(
    one.public_bytes(serialization.Encoding.DER)
    for one in (x509.load_pem_x509_certificate(KEYLESS.certificate), _FULCIO.between, _FULCIO.root)
)

_TAR: Final = tar(
    tarfile.PAX_FORMAT,
    *[(member(f"f{number}", pax_headers={"SCHILY.xattr.user.a": "b"}), text(number, 20_000)) for number in range(3)],
    (member("d" * 150, tarfile.SYMTYPE, linkname="t" * 150), b""),
)
LAYER: Final = deflate(_TAR, 6)
ZTOC: Final = write_ztoc(build_layer_index(pieces(LAYER), Compression.GZIP, span_size=1 << 15).ztoc)
TAR_ZTOC: Final = write_ztoc(build_layer_index(pieces(_TAR), Compression.UNCOMPRESSED, span_size=1 << 15).ztoc)


def tar_with(kind: int) -> bytes:
    """Return a tar with a bit of everything."""
    return tar(
        kind,
        (member("dir", tarfile.DIRTYPE), b""),
        (member("n" * 120), b"long name"),
        (member("link", tarfile.SYMTYPE, linkname="l" * 120), b""),
        (member("hard", tarfile.LNKTYPE, linkname="n" * 120), b""),
        (member("node", tarfile.CHRTYPE), b""),
        (member(".wh.gone"), b""),
    )


def _request() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-1")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


REQUEST: Final = _request()


def device_messages(device: Topics) -> tuple[bytes, ...]:
    """Return a topic, a newline and a payload for each channel."""
    root = f"edge/v1/{device.cluster}/{device.device}"
    said: dict[str, dict[str, Any]] = {
        "reported": {"tasks": []},
        "birth": {},
        "status": {"state": "ONLINE", "session": "s", "bootId": "b", "agentVersion": "1"},
        "desired/ack": {"revision": 3, "outcome": "REJECTED", "errors": [{"path": "a", "message": "b"}]},
        f"res/logs/{'0' * 32}": {"id": "0" * 32, "op": "logs", "status": "SUCCEEDED", "result": {}},
        "evt/task": {"detail": {}},
        f"stream/{'0' * 32}/out": {"frames": []},
    }
    return tuple(f"{root}/{channel}\n{json.dumps(payload)}".encode() for channel, payload in said.items())


def batches(encode: Callable[..., bytes], block: Any, clock: Any) -> tuple[bytes, ...]:
    """Return a batch as it is, and one whose lines the fuzzer can write."""
    made = encode(block, historical=True, clock=clock)
    return made, made.partition(b"\n")[0] + b'\n{"t":1}\n{"t":2}'
