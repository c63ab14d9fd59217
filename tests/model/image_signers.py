"""Who signs images in tests: keys, an authority as Fulcio is one, a log as Rekor is one; in cosign's formats."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from edge.model.image_trust.evidence import FoundSignature
from edge.model.image_trust.policy import ImageRule, Requirement

SIGNED_AT: Final = datetime(2023, 5, 4, 12, 0, tzinfo=UTC)
"""Long ago: every certificate in these tests is over, as a Fulcio certificate is after ten minutes."""
IDENTITY: Final = "builder@example.com"
ISSUER: Final = "https://accounts.example.com"
_V1, _V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), ObjectIdentifier("1.3.6.1.4.1.57264.1.8")


def payload(digest: str, repository: str, **critical: Any) -> bytes:
    """What cosign signs."""
    document = {
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
            **critical,
        },
        "optional": None,
    }
    return json.dumps(document).encode()


@dataclass(frozen=True)
class ImageSigner:
    """A P-256 key, as `cosign generate-key-pair` makes one."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def der(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def point(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def sign_bytes(self, message: bytes) -> bytes:
        return self.private.sign(message, ec.ECDSA(hashes.SHA256()))

    def sign(self, digest: str, repository: str, **critical: Any) -> FoundSignature:
        signed = payload(digest, repository, **critical)
        return FoundSignature(signed, self.sign_bytes(signed))

    def rule(self, scope: str = "*", **more: Any) -> ImageRule:
        return ImageRule(scope, Requirement.SIGNATURE, keys=(self.pem,), **more)


@dataclass(frozen=True)
class Log:
    """A transparency log; what it is asked to promise it promises."""

    key: ImageSigner = field(default_factory=ImageSigner)

    def promise(self, found: FoundSignature, signer: bytes, at: datetime = SIGNED_AT, **changes: Any) -> FoundSignature:
        """The signature with an entry; `signer` in PEM, as the log has it."""
        body = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(found.payload).hexdigest()}},
                "signature": {
                    "content": base64.b64encode(found.signature).decode(),
                    "publicKey": {"content": base64.b64encode(signer).decode()},
                },
            },
        } | changes
        return self.promise_bytes(found, json.dumps(body).encode(), at)

    def promise_bytes(self, found: FoundSignature, body: bytes, at: datetime = SIGNED_AT) -> FoundSignature:
        """The signature with an entry of any body."""
        entry = {
            "body": base64.b64encode(body).decode(),
            "integratedTime": int(at.timestamp()),
            "logIndex": 7,
            "logID": hashlib.sha256(self.key.der).hexdigest(),
        }
        signed = self.key.sign_bytes(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode())
        bundle = {"SignedEntryTimestamp": base64.b64encode(signed).decode(), "Payload": entry}
        return replace(found, log_entry=json.dumps(bundle).encode())


@dataclass(frozen=True)
class Fulcio:
    """An authority that gives certificates for ten minutes: a root, and one between."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    between_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))

    @property
    def root(self) -> x509.Certificate:
        return _authority("root", self.root_key, _name("root"), self.root_key, 1)

    @property
    def between(self) -> x509.Certificate:
        return _authority("between", self.between_key, _name("root"), self.root_key, 0)

    def certificate(  # noqa: PLR0913 - what a certificate may differ in
        self,
        signer: ImageSigner,
        *,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        at: datetime = SIGNED_AT,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        more_names: Sequence[x509.GeneralName] = (),
    ) -> bytes:
        """Of a signer, PEM."""
        names = x509.SubjectAlternativeName([x509.RFC822Name(identity), *more_names])
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(_name("between"))
            .public_key(signer.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - timedelta(seconds=5))
            .not_valid_after(at + timedelta(minutes=10))
            .add_extension(names, critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.UnrecognizedExtension(_V1, issuer.encode()), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(_V2, b"\x0c" + bytes([len(issuer)]) + issuer.encode()), critical=False
            )
            .sign(self.between_key, hashes.SHA384())
        )
        return made.public_bytes(Encoding.PEM)

    def sign(self, digest: str, repository: str, log: Log, at: datetime = SIGNED_AT, **more: Any) -> FoundSignature:
        """A keyless signature, logged."""
        signer = ImageSigner()
        certificate = self.certificate(signer, **more)
        chain = self.between.public_bytes(Encoding.PEM) + self.root.public_bytes(Encoding.PEM)
        found = replace(signer.sign(digest, repository), certificate=certificate, chain=chain)
        return log.promise(found, certificate, at)

    def rule(self, log: Log, scope: str = "*", identity: str = IDENTITY, issuer: str = ISSUER) -> ImageRule:
        return ImageRule(
            scope,
            Requirement.SIGNATURE,
            log_keys=(log.key.pem,),
            authorities=(self.root.public_bytes(Encoding.PEM),),
            identity=identity,
            issuer=issuer,
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    path_length: int,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(SIGNED_AT - timedelta(days=400))
        .not_valid_after(SIGNED_AT + timedelta(days=400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .sign(issuer_key, hashes.SHA384())
    )
