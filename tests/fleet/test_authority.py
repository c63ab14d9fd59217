from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InvalidInputError, StoreError
from edge.fleet.authority import Authority, Identity, create_authority

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = create_authority("shop", NOW)
AUTHORITY = Authority(ROOT.certificate, ROOT.key)


def loaded(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate)


def name_of(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    [attribute] = certificate.subject.get_attributes_for_oid(oid)
    return str(attribute.value)


def test_a_device_is_named_by_cn_and_its_cluster_by_o() -> None:
    certificate = loaded(AUTHORITY.issue_device("shop", "pi-1", NOW))
    assert name_of(certificate, NameOID.COMMON_NAME) == "pi-1"
    assert name_of(certificate, NameOID.ORGANIZATION_NAME) == "shop"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate.verify_directly_issued_by(loaded(ROOT))


def test_an_operator_is_named_as_the_access_list_expects() -> None:
    certificate = loaded(AUTHORITY.issue_operator(NOW))
    assert name_of(certificate, NameOID.COMMON_NAME) == "operator"
    assert name_of(certificate, NameOID.ORGANIZATION_NAME) == "edge-operators"


def test_a_certificate_is_valid_on_a_device_whose_clock_is_a_day_behind() -> None:
    for identity in (AUTHORITY.issue_device("shop", "pi-1", NOW), AUTHORITY.issue_server(["b"], NOW), ROOT):
        assert loaded(identity).not_valid_before_utc == NOW - timedelta(days=1)


def test_a_server_is_found_by_names_and_addresses() -> None:
    names = ["broker.example", "192.0.2.1", "2001:db8::1", "broker.example"]
    certificate = loaded(AUTHORITY.issue_server(names, NOW))
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in found.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]


def test_the_ca_can_sign_end_certificates_only() -> None:
    constraints = loaded(ROOT).extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    device = loaded(AUTHORITY.issue_device("shop", "pi-1", NOW))
    assert not device.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("name", ["d1/cmd", "+", "#", "", "D1", "-a", "a" * 65, "a\0", "a\n", "pí"])
def test_a_name_that_could_be_a_topic_is_never_signed(name: str) -> None:
    with pytest.raises(InvalidInputError):
        AUTHORITY.issue_device("shop", name, NOW)
    with pytest.raises(InvalidInputError):
        AUTHORITY.issue_device(name, "pi-1", NOW)


@settings(max_examples=300)
@given(st.text(max_size=70))
def test_any_name_is_signed_exactly_or_refused(name: str) -> None:
    try:
        identity = AUTHORITY.issue_device("shop", name, NOW)
    except InvalidInputError:
        return
    assert name_of(loaded(identity), NameOID.COMMON_NAME) == name
    assert not set(name) & set("/+#\0")


@pytest.mark.parametrize("names", [[], ["a b"], ["*"], ["a..b"], ["bröker"]])
def test_what_is_no_host_is_not_signed(names: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        AUTHORITY.issue_server(names, NOW)


def test_a_key_of_another_ca_is_told() -> None:
    with pytest.raises(StoreError, match="does not belong"):
        Authority(ROOT.certificate, create_authority("other", NOW).key)
    with pytest.raises(StoreError, match="cannot be read"):
        Authority(b"", b"")
