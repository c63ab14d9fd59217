"""The fleet's certificate authority: who may speak to the broker, and as whom.

EC P-256 throughout. The broker takes the common name as MQTT user and client id, and with it as a topic level, so
every name is checked before it is signed: a certificate named `d1/cmd` would inject commands into device `d1`.
Certificates begin one day in the past, because a device without a real-time clock starts behind.
"""

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.errors import InvalidInputError, StoreError
from edge.fleet.broker_config import OPERATOR
from edge.model.identifiers import check_name

OPERATOR_ORGANIZATION: Final = "edge-operators"
CA_LIFETIME: Final = timedelta(days=20 * 365)
"""Longer than the hardware: replacing a CA means touching every device."""
SERVER_LIFETIME: Final = timedelta(days=5 * 365)
DEVICE_LIFETIME: Final = timedelta(days=5 * 365)
OPERATOR_LIFETIME: Final = timedelta(days=2 * 365)
IMAGE_SIGNER: Final = "edge-images"
IMAGE_SIGNER_LIFETIME: Final = timedelta(days=20 * 365)
"""As the CA's: an image that was signed must stay installable, whatever the device's clock says."""
BACKDATED: Final = timedelta(days=1)
MAXIMUM_REQUEST_BYTES: Final = 16 * 1024
_MAXIMUM_COMMON_NAME: Final = 64
"""X.520's upper bound (RFC 5280, ub-common-name)."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, PEM; its serial number in hexadecimal."""

    certificate: bytes
    serial: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key, both PEM; the key is unencrypted PKCS #8."""

    certificate: bytes
    key: bytes
    serial: str
    expires_at: datetime


class Authority:
    """A CA certificate and its key.

    Raises:
        StoreError: The PEM texts are not a certificate and its EC key.
    """

    def __init__(self, certificate: bytes, key: bytes) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise StoreError("the fleet's CA certificate or key cannot be read") from error
        if (
            not isinstance(private, ec.EllipticCurvePrivateKey)
            or private.public_key() != self._certificate.public_key()
        ):
            raise StoreError("the fleet's CA key does not belong to its certificate")
        self._key = private

    def issue_server(self, names: Sequence[str], now: datetime) -> Identity:
        """Issue the broker's certificate for host names and addresses.

        Raises:
            InvalidInputError: A name is neither; or there is none.
        """
        if not names:
            raise InvalidInputError("a server certificate needs at least one host name or address")
        builder = _builder(_name(names[0][:_MAXIMUM_COMMON_NAME]), now, SERVER_LIFETIME)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)]), critical=False
        )
        return self._issue(builder, ExtendedKeyUsageOID.SERVER_AUTH)

    def issue_device(self, cluster: str, device: str, now: datetime) -> Identity:
        """Issue a device's certificate: CN is the device, O the cluster.

        Raises:
            InvalidInputError: One of the two is not a name.
        """
        subject = _name(check_name("device", device), check_name("cluster", cluster))
        return self._issue(_builder(subject, now, DEVICE_LIFETIME), ExtendedKeyUsageOID.CLIENT_AUTH)

    def sign_device(self, cluster: str, device: str, request: bytes, now: datetime) -> Certificate:
        """Issue a device's certificate for a key that the device made and keeps.

        Of the request only the key counts. A name in it must be the device's: it is there for people.

        Raises:
            InvalidInputError: It is no PEM request for a P-256 key, not signed by that key, or for somebody else.
        """
        key = _requested_key(request, check_name("device", device))
        subject = _name(device, check_name("cluster", cluster))
        builder = _builder(subject, now, DEVICE_LIFETIME)
        return _certificate(self._sign(builder, key, ExtendedKeyUsageOID.CLIENT_AUTH))

    def issue_image_signer(self, now: datetime) -> Identity:
        """Issue the certificate that signs OS images: it may sign code and nothing else."""
        return self._issue(_builder(_name(IMAGE_SIGNER), now, IMAGE_SIGNER_LIFETIME), ExtendedKeyUsageOID.CODE_SIGNING)

    @staticmethod
    def requested_key_digest(device: str, request: bytes) -> str:
        """Return the SHA-256 (hexadecimal) of the public key that a request is for.

        Raises:
            InvalidInputError: As `sign_device`.
        """
        key = _requested_key(request, check_name("device", device))
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def revocation_list(self, serials: Mapping[str, datetime], number: int, now: datetime) -> bytes:
        """Return the CRL (PEM) of hexadecimal serials and when each was revoked; `number` rises with each list.

        It does not end before the CA does: to OpenSSL everybody is refused by a list that is out of date, and a
        fleet may have nobody who makes a new one.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for serial, moment in serials.items():
            revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(moment)
            builder = builder.add_revoked_certificate(revoked.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue_operator(self, now: datetime) -> Identity:
        """Issue the certificate of the operator's command line."""
        subject = _name(OPERATOR, OPERATOR_ORGANIZATION)
        return self._issue(_builder(subject, now, OPERATOR_LIFETIME), ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(self, builder: x509.CertificateBuilder, usage: x509.ObjectIdentifier) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        return _identity(self._sign(builder, key.public_key(), usage), key)

    def _sign(
        self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, usage: x509.ObjectIdentifier
    ) -> x509.Certificate:
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            builder.issuer_name(self._certificate.subject)
            .public_key(key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def create_authority(fleet: str, now: datetime) -> Identity:
    """Make a new self-signed CA that may sign end certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"edge fleet {fleet}"[:_MAXIMUM_COMMON_NAME])
    certificate = (
        _builder(subject, now, CA_LIFETIME)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _identity(certificate, key)


def _builder(subject: x509.Name, now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _name(common_name: str, organization: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.rstrip(".").lower().split(".")
    if not all(label and label.replace("-", "").replace("_", "").isalnum() and label.isascii() for label in labels):
        raise InvalidInputError(f"{name!r} is neither a host name nor an address")
    return x509.DNSName(".".join(labels))


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(request: bytes, device: str) -> ec.EllipticCurvePublicKey:
    if len(request) > MAXIMUM_REQUEST_BYTES:
        raise InvalidInputError(
            f"the certificate request has {len(request)} bytes; {MAXIMUM_REQUEST_BYTES} are the most"
        )
    try:
        parsed = x509.load_pem_x509_csr(request)
        key = parsed.public_key()
        is_signed = parsed.is_signature_valid
        names = [str(name.value) for name in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception as error:  # besides ValueError it has classes of its own: `InvalidVersion` was found by fuzzing
        raise InvalidInputError("this is not a certificate request in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError("the certificate request is not for a P-256 key")
    if not is_signed:
        raise InvalidInputError("the certificate request is not signed by the key it is for")
    if names != [device]:
        raise InvalidInputError(f"the certificate request is for {', '.join(names) or 'nobody'}, not for {device}")
    return key


def _certificate(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        f"{certificate.serial_number:x}",
        certificate.not_valid_after_utc,
    )


def _identity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    return Identity(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        serial=f"{certificate.serial_number:x}",
        expires_at=certificate.not_valid_after_utc,
    )
