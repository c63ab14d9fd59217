"""What the fuzzer once found: each input came out of its parser as an error that nobody had declared."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.errors import InvalidInputError, TrustError
from edge.fleet.authority import _requested_key
from edge.model.image_trust.certificate import read_certificates
from tests.fuzz import seeds

VERSION_1: bytes = b"\x02\x01\x00"
"""DER INTEGER 0: a request's version, and a certificate's in its explicit tag is `\\xa0\\x03\\x02\\x01\\x02`."""


def pem(kind: str, der: bytes) -> bytes:
    return f"-----BEGIN {kind}-----\n{base64.b64encode(der).decode()}\n-----END {kind}-----\n".encode()


def test_a_certificate_request_of_a_version_that_does_not_exist() -> None:
    der = x509.load_pem_x509_csr(seeds.REQUEST).public_bytes(Encoding.DER)
    assert VERSION_1 in der
    with pytest.raises(InvalidInputError, match="not a certificate request"):
        _requested_key(pem("CERTIFICATE REQUEST", der.replace(VERSION_1, b"\x02\x01\x40", 1)), "pi-1")


def test_a_certificate_of_a_version_that_does_not_exist() -> None:
    der = seeds.CERTIFICATES[0]
    assert b"\xa0\x03\x02\x01\x02" in der
    with pytest.raises(TrustError, match="cannot be read"):
        read_certificates(pem("CERTIFICATE", der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06", 1)))
