from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edge.agent.device_key import make_request
from edge.errors import InvalidInputError, NotFoundError, RefusedError, StoreError
from edge.fleet.devices import find_device
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import add_device, revocation_list, revoke_device
from tests.cli.bench import NOW

HERE = Address("broker.example", 8883)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", HERE, HERE), NOW) as fleet:
        yield fleet


def request(
    name: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    signer: rsa.RSAPrivateKey | None = None,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    mine = key or ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(signer or mine, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def revoked_serials(fleet: Fleet) -> set[str]:
    return {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl(revocation_list(fleet, NOW))}


def test_a_key_made_on_the_device_never_leaves_it(fleet: Fleet, tmp_path: Path) -> None:
    device = tmp_path / "device"
    made = make_request(device, "pi-1")
    key = (device / "device.key").read_bytes()
    assert (device / "device.key").stat().st_mode & 0o777 == 0o600
    record = add_device(fleet, "pi-1", tmp_path / "out", NOW, request=made.read_bytes())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "agent.toml",
        "ca.crt",
        "device.crt",
        "trust.json",
    ]
    certificate = x509.load_pem_x509_certificate((tmp_path / "out" / "device.crt").read_bytes())
    private = serialization.load_pem_private_key(key, None)
    assert certificate.public_key() == private.public_key()
    assert certificate.subject.rfc4514_string() == "O=shop,CN=pi-1"
    assert f"{certificate.serial_number:x}" == record.certificate_serial


def test_a_request_that_is_repeated_keeps_the_key(tmp_path: Path) -> None:
    make_request(tmp_path, "pi-1")
    before = (tmp_path / "device.key").read_bytes()
    make_request(tmp_path, "pi-1")
    assert (tmp_path / "device.key").read_bytes() == before


@pytest.mark.parametrize(("content", "error"), [(b"no key", StoreError), (None, RefusedError)])
def test_another_key_is_left_alone(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    pem = content or ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "device.key").write_bytes(pem)
    with pytest.raises(error):
        make_request(tmp_path, "pi-1")
    assert (tmp_path / "device.key").read_bytes() == pem


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "not a certificate request"),
        (lambda: b"x" * 20_000, "20000 bytes"),
        (lambda: request("pi-1").replace(b"REQUEST", b"NONSENSE"), "not a certificate request"),
        (lambda: request("pi-2"), "is for pi-2, not for pi-1"),
        (lambda: request("pi-1/cmd"), "is for pi-1/cmd"),
        (lambda: request("pi-1", rsa.generate_private_key(65537, 2048)), "not for a P-256 key"),
        (lambda: request("pi-1", ec.generate_private_key(ec.SECP384R1())), "not for a P-256 key"),
        (lambda: tampered(request("pi-1")), "not signed by the key"),
    ],
)
def test_a_wrong_request_makes_no_device(fleet: Fleet, tmp_path: Path, make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        add_device(fleet, "pi-1", tmp_path / "out", NOW, request=make())
    with pytest.raises(NotFoundError):
        find_device(fleet.database, "shop", "pi-1")
    assert not (tmp_path / "out").exists()


def tampered(pem: bytes) -> bytes:
    """The same request with one bit of its signature turned."""
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


def test_every_certificate_of_a_revoked_device_is_on_the_list(fleet: Fleet, tmp_path: Path) -> None:
    other = add_device(fleet, "pi-2", tmp_path / "2", NOW)
    first = add_device(fleet, "pi-1", tmp_path / "1", NOW).certificate_serial
    second = add_device(fleet, "pi-1", tmp_path / "1", NOW, force=True).certificate_serial
    assert revoked_serials(fleet) == set()
    assert set(revoke_device(fleet, "pi-1", NOW)) == {first, second}
    assert revoke_device(fleet, "pi-1", NOW) == []
    assert revoked_serials(fleet) == {first, second}
    assert not find_device(fleet.database, "shop", "pi-1").may_connect
    assert find_device(fleet.database, "shop", other.device).may_connect
    third = add_device(fleet, "pi-1", tmp_path / "1", NOW, force=True)
    assert third.may_connect
    assert revoked_serials(fleet) == {first, second}


def test_a_device_that_is_none_cannot_be_revoked(fleet: Fleet) -> None:
    with pytest.raises(NotFoundError):
        revoke_device(fleet, "pi-9", NOW)


def test_the_list_does_not_end_before_the_authority(fleet: Fleet) -> None:
    authority = x509.load_pem_x509_certificate(fleet.folder.ca_certificate.read_bytes())
    listed = x509.load_pem_x509_crl(revocation_list(fleet, NOW))
    assert listed.next_update_utc == authority.not_valid_after_utc
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert listed.is_signature_valid(key)
