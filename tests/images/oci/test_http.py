"""How a registry is spoken to: who gets which credentials, TLS, tokens, redirects, and what is tried again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import ImagePullError, InvalidInputError, RegistryUnavailableError
from tests.images.oci.registry_clients import BLOB, HALF, LAYER, Device, named, paths, read
from tests.support.certificates import CertificateAuthority
from tests.support.fault_registry import Fault, FaultRegistry


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


@pytest.fixture
def storage() -> Iterator[FaultRegistry]:
    with FaultRegistry() as running:
        yield running


# --- credentials and tokens


def test_a_password_is_sent_only_when_it_is_asked_for(registry: FaultRegistry, device: Device) -> None:
    device.log_in({registry.address: "me:secret"})
    device.client().manifest(named(registry))
    assert all("authorization" not in one.headers for one in registry.requests)
    registry.auth, registry.users = "basic", {"me": "secret"}
    device.client().manifest(named(registry))
    assert ["authorization" in one.headers for one in registry.requests] == [False, False, True]


def test_a_wrong_password_is_told_and_not_tried_again(registry: FaultRegistry, device: Device) -> None:
    registry.auth, registry.users = "basic", {"me": "secret"}
    device.log_in({registry.address: "me:wrong"})
    with pytest.raises(ImagePullError, match=r"answered 401.*authentication required") as told:
        device.client().manifest(named(registry))
    assert "podman login" in told.value.hint
    assert registry.count() == 2


def test_without_credentials_the_hint_says_where_they_come_from(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "basic"
    with pytest.raises(ImagePullError) as told:
        device.client().manifest(named(registry))
    assert "podman login" in told.value.hint
    assert registry.count() == 1


def test_a_token_is_fetched_once_for_many_requests(registry: FaultRegistry, device: Device) -> None:
    registry.auth, registry.users = "bearer", {"me": "secret"}
    device.log_in({registry.address: "me:secret"})
    client = device.client()
    for _ in range(5):
        client.manifest(named(registry))
    assert registry.count("/token") == 1
    assert "scope=repository%3Aapp%3Apull" in registry.asked("/token")[0].path
    assert registry.count("/v2/") == 6


def test_a_public_image_is_had_with_an_anonymous_token(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    assert read(device.client(), named(registry)) == LAYER
    assert "authorization" not in registry.asked("/token")[0].headers


def test_a_token_is_replaced_when_it_runs_out(registry: FaultRegistry, device: Device) -> None:
    registry.auth, registry.token_seconds = "bearer", 300
    client = device.client()
    for device.clock in (0, 200, 299):
        client.manifest(named(registry))
    assert registry.count("/token") == 2


@pytest.mark.parametrize("seconds", [None, -1, True, "60", 10**30, 1.5, "never"])
def test_a_token_may_say_anything_of_its_life(registry: FaultRegistry, device: Device, seconds: object) -> None:
    registry.auth, registry.token_seconds = "bearer", seconds
    client = device.client()
    client.manifest(named(registry))
    client.manifest(named(registry))
    assert registry.count("/token") <= 2


def test_a_token_withdrawn_in_mid_layer_is_replaced(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    client = device.client()
    assert read(client, named(registry), 0, HALF) == LAYER[:HALF]
    registry.revoke_tokens()
    assert read(client, named(registry), HALF, HALF) == LAYER[HALF:]
    assert registry.count("/token") == 2
    assert device.pauses == []


def test_a_token_that_is_never_taken_ends_in_an_error(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    registry.fault(Fault.UNAUTHORIZED, on="/manifests/")
    with pytest.raises(ImagePullError, match="answered 401"):
        device.client().manifest(named(registry))
    assert registry.count("/token") == 1


def test_wrong_credentials_are_told_by_who_gives_tokens(registry: FaultRegistry, device: Device) -> None:
    registry.auth, registry.users = "bearer", {"me": "secret"}
    device.log_in({registry.address: "me:wrong"})
    with pytest.raises(ImagePullError, match="incorrect username or password") as told:
        device.client().manifest(named(registry))
    assert "podman login" in told.value.hint


def test_who_gives_tokens_may_be_busy_for_a_while(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    registry.fault(Fault.BROKEN, on="/token", times=2)
    device.client().manifest(named(registry))
    assert registry.count("/token") == 3


def test_an_identity_token_is_traded_for_others(registry: FaultRegistry, device: Device) -> None:
    registry.auth, registry.users, registry.identity_token = "bearer", {"me": "secret"}, "refresh me"
    (device.folder / "auth.json").write_text(
        f'{{"auths": {{"{registry.address}": {{"auth": "bWU6", "identitytoken": "refresh me"}}}}}}'
    )
    assert read(device.client(), named(registry)) == LAYER
    assert [one.method for one in registry.asked("/token")] == ["POST"]


def test_pushing_asks_for_the_right_to_push(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    device.client().push_blob(named(registry), b"new")
    assert any("push" in path for path in paths(registry, "/token"))


# --- redirects


def test_credentials_are_not_sent_to_where_a_redirect_leads(
    registry: FaultRegistry, device: Device, storage: FaultRegistry
) -> None:
    registry.storage, registry.auth, registry.users = storage, "basic", {"me": "secret"}
    device.log_in({registry.address: "me:secret"})
    assert read(device.client(), named(registry)) == LAYER
    assert storage.count("/signed/") == 1
    assert all("authorization" not in one.headers for one in storage.requests)


def test_a_storage_that_asks_for_credentials_gets_none(
    registry: FaultRegistry, device: Device, storage: FaultRegistry
) -> None:
    registry.storage, registry.auth, registry.users = storage, "bearer", {"me": "secret"}
    device.log_in({registry.address: "me:secret"})
    storage.auth = "bearer"
    storage.fault(Fault.UNAUTHORIZED, on="/signed/")
    with pytest.raises(RegistryUnavailableError):
        read(device.client(), named(registry))
    assert storage.count("/token") == 0


def test_a_link_that_ran_out_is_asked_for_anew(registry: FaultRegistry, device: Device, storage: FaultRegistry) -> None:
    registry.storage = storage
    registry.fault(Fault.EXPIRED_LINK, on="/blobs/", times=1)
    assert read(device.client(), named(registry), 7, 1000) == LAYER[7:1007]
    assert registry.count("/blobs/") == 2


def test_links_that_never_work_end_in_an_error_that_a_retry_may_help(
    registry: FaultRegistry, device: Device, storage: FaultRegistry
) -> None:
    registry.storage = storage
    registry.fault(Fault.EXPIRED_LINK, on="/blobs/")
    with pytest.raises(RegistryUnavailableError, match=storage.address):
        read(device.client(), named(registry))


def test_a_part_is_asked_of_the_storage_too(registry: FaultRegistry, device: Device, storage: FaultRegistry) -> None:
    registry.storage = storage
    assert read(device.client(), named(registry), 10, 90) == LAYER[10:100]
    assert storage.asked("/signed/")[0].headers["range"] == "bytes=10-99"


def test_redirects_without_end_are_an_error(registry: FaultRegistry, device: Device) -> None:
    registry.moved = lambda path: path
    with pytest.raises(ImagePullError, match="redirect"):
        device.client().manifest(named(registry))
    assert registry.count() < 10


def test_a_redirect_from_tls_to_plain_http_is_refused(
    device: Device, authority: CertificateAuthority, storage: FaultRegistry
) -> None:
    with FaultRegistry(identity=authority.server(), storage=storage) as registry:
        registry.add(LAYER)
        device.trust(registry, {"ca.crt": authority.ca_file})
        with pytest.raises(ImagePullError, match="without TLS"):
            read(device.client(), named(registry))
    assert storage.count() == 0


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[", "http://127.0.0.1:x/"])
def test_a_redirect_to_nowhere_is_an_error_of_ours(registry: FaultRegistry, device: Device, location: str) -> None:
    registry.moved = lambda _: location
    with pytest.raises((ImagePullError, RegistryUnavailableError)):
        device.client().manifest(named(registry))


def test_credentials_are_not_sent_to_where_an_upload_leads(
    registry: FaultRegistry, device: Device, storage: FaultRegistry
) -> None:
    registry.auth, registry.users = "basic", {"me": "secret"}
    registry.uploads_to = f"{storage.url}/v2/app/blobs/uploads/1"
    device.log_in({registry.address: "me:secret"})
    device.client().push_blob(named(registry), b"new")
    assert b"new" in storage.blobs.values()
    assert all("authorization" not in one.headers for one in storage.requests)


# --- TLS


def test_a_registry_with_an_authority_of_certs_d_is_trusted(device: Device, authority: CertificateAuthority) -> None:
    with FaultRegistry(identity=authority.server()) as registry:
        registry.add(LAYER)
        device.trust(registry, {"ca.crt": authority.ca_file})
        assert read(device.client(), named(registry)) == LAYER


def test_a_registry_of_an_unknown_authority_is_not_and_the_hint_says_where_to_put_it(
    device: Device, authority: CertificateAuthority
) -> None:
    with FaultRegistry(identity=authority.server()) as registry:
        registry.image("app:1", LAYER)
        with pytest.raises(RegistryUnavailableError, match="certificate verify failed") as told:
            device.client().manifest(named(registry))
        assert f"certs.d/{registry.address}/ca.crt" in told.value.hint
        assert registry.count() == 0


def test_a_certificate_for_another_host_is_not_trusted(device: Device, authority: CertificateAuthority) -> None:
    with FaultRegistry(identity=authority.device("other.example")) as registry:
        device.trust(registry, {"ca.crt": authority.ca_file})
        with pytest.raises(RegistryUnavailableError, match="certificate"):
            device.client().manifest(named(registry))


def test_an_insecure_registry_may_have_any_certificate(device: Device, authority: CertificateAuthority) -> None:
    with FaultRegistry(identity=authority.server()) as registry:
        registry.add(LAYER)
        device.insecure(registry)
        assert read(device.client(), named(registry)) == LAYER


def test_a_registry_gets_the_clients_certificate_it_asks_for(device: Device, authority: CertificateAuthority) -> None:
    client = authority.device("pi-1")
    with FaultRegistry(identity=authority.server(), client_ca=authority.ca_file) as registry:
        registry.add(LAYER)
        files = {"ca.crt": authority.ca_file, "client.cert": client.cert_file, "client.key": client.key_file}
        device.trust(registry, files)
        assert read(device.client(), named(registry)) == LAYER


def test_certificates_that_cannot_be_used_are_named(device: Device, registry: FaultRegistry) -> None:
    (device.folder / "junk").write_text("no certificate")
    device.trust(registry, {"ca.crt": device.folder / "junk"})
    with pytest.raises(InvalidInputError, match=r"certs\.d"):
        device.client().manifest(named(registry))


def test_plain_http_is_not_spoken_to_a_registry_that_is_not_insecure(device: Device, registry: FaultRegistry) -> None:
    device.registries("")
    with pytest.raises(RegistryUnavailableError):
        device.client().manifest(named(registry))
    assert registry.count() == 0


def test_a_token_is_not_fetched_without_tls(
    device: Device, authority: CertificateAuthority, storage: FaultRegistry
) -> None:
    with FaultRegistry(identity=authority.server(), auth="bearer", users={"me": "secret"}) as registry:
        registry.realm = f"{storage.url}/token"
        device.log_in({registry.address: "me:secret"})
        device.trust(registry, {"ca.crt": authority.ca_file})
        with pytest.raises(ImagePullError, match="without TLS"):
            device.client().manifest(named(registry))
    assert storage.count() == 0


# --- what is tried again


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.BUSY, Fault.RESET])
def test_what_passes_is_tried_again(registry: FaultRegistry, device: Device, fault: Fault) -> None:
    registry.retry_after = 0
    registry.fault(fault, times=2)
    device.client().manifest(named(registry))
    assert registry.count() == 3


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.BUSY, Fault.RESET])
def test_what_does_not_pass_is_told_as_such_after_the_last_attempt(
    registry: FaultRegistry, device: Device, fault: Fault
) -> None:
    registry.fault(fault)
    with pytest.raises(RegistryUnavailableError, match=registry.address):
        device.client().manifest(named(registry))
    assert registry.count() == 3


def test_a_refusal_is_not_tried_again(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.FORBIDDEN)
    with pytest.raises(ImagePullError, match=r"answered 403.*requested access to the resource is denied") as told:
        device.client().manifest(named(registry))
    assert not isinstance(told.value, RegistryUnavailableError)
    assert told.value.hint
    assert registry.count() == 1


def test_a_busy_registry_is_left_alone_as_long_as_it_asks(registry: FaultRegistry, device: Device) -> None:
    registry.retry_after = 7
    registry.fault(Fault.BUSY, times=1)
    device.client().manifest(named(registry))
    assert 7 in device.pauses


def test_a_registry_cannot_ask_to_be_left_alone_for_ever(registry: FaultRegistry, device: Device) -> None:
    registry.retry_after = 10**9
    registry.fault(Fault.BUSY, times=1)
    device.client().manifest(named(registry))
    assert max(device.pauses) <= 60


def test_after_the_last_attempt_nobody_waits(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.BUSY)
    with pytest.raises(RegistryUnavailableError):
        device.client(attempts=1).manifest(named(registry))
    assert device.pauses == []


def test_a_connection_is_used_again(registry: FaultRegistry, device: Device) -> None:
    client = device.client()
    for offset in range(0, 10_000, 1000):
        read(client, named(registry), offset, 1000)
    client.manifest(named(registry))
    client.blob(named(registry), BLOB, len(LAYER))
    with pytest.raises(ImagePullError):
        client.manifest(named(registry, "nobody:1"))
    client.push_blob(named(registry), b"new")
    assert len({one.peer for one in registry.requests if one.path.startswith("/v2/app/")}) == 1
