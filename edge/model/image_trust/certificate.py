"""Keyless signatures: a certificate for ten minutes, by an authority that saw who asked (Sigstore's Fulcio).

It is judged at the time the log states, which the log has signed, and never by a clock: a device may not have one, and
the certificate is long over when the image is run. Fields: github.com/sigstore/fulcio `docs/oid-info.md`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from edge.errors import TrustError
from edge.model.image_trust.keys import usable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from edge.model.image_trust.keys import PublicKey

_ISSUER_V1: Final = "1.3.6.1.4.1.57264.1.1"
"""The issuer as bare bytes; newer certificates have it beside the other."""
_ISSUER_V2: Final = "1.3.6.1.4.1.57264.1.8"
"""The issuer as a DER UTF8String."""
_UTF8_STRING: Final = 0x0C
_LONG_FORM: Final = 0x81
_MAXIMUM_CERTIFICATES: Final = 8
_DEPTH: Final = 4


def read_certificates(pem: bytes) -> "list[Certificate]":
    """Read certificates in PEM, at most eight.

    Raises:
        TrustError: It is something else.
    """
    from cryptography import x509  # noqa: PLC0415 - heavy, and seldom needed

    if pem.count(b"-----BEGIN") > _MAXIMUM_CERTIFICATES:
        raise TrustError(f"more than {_MAXIMUM_CERTIFICATES} certificates")
    try:
        return x509.load_pem_x509_certificates(pem)
    except Exception as error:  # besides ValueError it has classes of its own: `InvalidVersion` was found by fuzzing
        raise TrustError("a certificate cannot be read") from error


def certified_key(pem: bytes, chain: bytes, authorities: Sequence[bytes], at: int) -> "tuple[Certificate, PublicKey]":
    """Return the signer's certificate and its key.

    Args:
        pem: The certificate.
        chain: Certificates that may lead to an authority.
        authorities: Those that count (PEM).
        at: When it must have been good, in seconds since 1970.

    Raises:
        TrustError: No authority that counts vouches for it at that time, or it is not for signing code.
    """
    found = read_certificates(pem)
    if len(found) != 1:
        raise TrustError("it has not exactly one certificate")
    roots = [one for text in authorities for one in read_certificates(text)]
    between = read_certificates(chain) if chain else []
    try:
        problem = _problem(found[0], between, roots, datetime.fromtimestamp(at, UTC))
        key = found[0].public_key()
    except Exception as error:
        raise TrustError("its certificate cannot be read") from error
    if problem:
        raise TrustError(problem)
    return found[0], usable(key)


def _problem(leaf: "Certificate", between: "list[Certificate]", roots: "list[Certificate]", moment: datetime) -> str:
    from cryptography.x509 import ExtendedKeyUsage  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    if _is_authority(leaf):
        return "its certificate is an authority's"
    if ExtendedKeyUsageOID.CODE_SIGNING not in leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value:
        return "its certificate is not for signing code"
    if not _leads_to(leaf, between, roots, moment, _DEPTH):
        return f"no authority that counts here vouched for its certificate at {moment:%Y-%m-%d %H:%M} UTC"
    return ""


def check_identity(certificate: "Certificate", identity: str, issuer: str) -> None:
    """See that a certificate names this signer, by this issuer.

    Raises:
        TrustError: It names somebody else, or nobody.
    """
    from cryptography import x509  # noqa: PLC0415

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        told = [str(one.value) for one in names if isinstance(one, x509.RFC822Name | x509.UniformResourceIdentifier)]
        complete = len(told) == len(list(names))
        issuers = _issuers(certificate)
    except Exception as error:
        raise TrustError("its certificate names nobody") from error
    if told != [identity] or not complete:
        raise TrustError(f"it was signed by {', '.join(told)[:200] or 'nobody'}, not by {identity}")
    if issuers != {issuer}:
        raise TrustError(f"{', '.join(sorted(issuers))[:200] or 'nobody'} vouched for {identity}, not {issuer}")


def _issuers(certificate: "Certificate") -> set[str]:
    from cryptography.x509 import UnrecognizedExtension  # noqa: PLC0415

    found = set[str]()
    for extension in certificate.extensions:
        if not isinstance(extension.value, UnrecognizedExtension):
            continue
        if extension.oid.dotted_string == _ISSUER_V1:
            found.add(extension.value.value.decode())
        elif extension.oid.dotted_string == _ISSUER_V2:
            found.add(_utf8_string(extension.value.value))
    return found


def _utf8_string(der: bytes) -> str:
    long = len(der) > 2 and der[1] == _LONG_FORM  # noqa: PLR2004 - tag and length
    length, start = (der[2], 3) if long else (der[1], 2)
    if der[0] != _UTF8_STRING or length > 0xFF or (not long and length >= 0x80) or len(der) != start + length:  # noqa: PLR2004
        raise ValueError("no UTF8String")
    return der[start:].decode()


def _leads_to(
    certificate: "Certificate", between: "list[Certificate]", roots: "list[Certificate]", moment: datetime, depth: int
) -> bool:
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        return False
    if any(_issued(certificate, root, _DEPTH - depth) and _is_good(root, moment) for root in roots):
        return True
    return depth > 0 and any(
        _issued(certificate, one, _DEPTH - depth) and _leads_to(one, between, roots, moment, depth - 1)
        for one in between
    )


def _is_good(root: "Certificate", moment: datetime) -> bool:
    return root.not_valid_before_utc <= moment <= root.not_valid_after_utc


def _issued(certificate: "Certificate", issuer: "Certificate", below: int) -> bool:
    """Say whether an authority that may do so issued a certificate, with so many authorities below it."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    if not _is_authority(issuer):
        return False
    limit = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if limit is not None and below > limit:
        return False
    known = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
    if any(one.critical and not isinstance(one.value, known) for one in certificate.extensions):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_authority(certificate: "Certificate") -> bool:
    from cryptography import x509  # noqa: PLC0415

    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    if not constraints.ca:
        return False
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True
