"""What the client makes of registries that are slow, gone, lying or hostile; nothing waits and nothing is guessed."""

import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge.errors import EdgeError, ImagePullError, InvalidInputError, RegistryUnavailableError, TransientError
from edge.images.oci.client import NoRangeError
from edge.images.oci.documents import MAXIMUM_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, digest_of
from tests.images.oci.registry_clients import BLOB, HALF, LAYER, Device, named, paths, read
from tests.support.fault_registry import Fault, FaultRegistry

KIND = "application/vnd.amazon.soci.index.v1+json"


@pytest.fixture
def mirror(registry: FaultRegistry) -> Iterator[FaultRegistry]:
    with FaultRegistry(blobs=registry.blobs, manifests=registry.manifests) as running:
        yield running


def mirrored(device: Device, registry: FaultRegistry, *mirrors: FaultRegistry) -> None:
    lines = [f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n']
    lines += [f'[[registry.mirror]]\nlocation = "{one.address}"\ninsecure = true\n' for one in mirrors]
    device.registries("".join(lines))


# --- layers


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, HALF), (1, HALF), (len(LAYER) - 1, 1), (0, len(LAYER))])
def test_a_layer_is_read_in_parts(registry: FaultRegistry, device: Device, offset: int, size: int) -> None:
    assert read(device.client(), named(registry), offset, size) == LAYER[offset : offset + size]
    assert registry.sent <= size + 1000


def test_reading_nothing_asks_nobody(registry: FaultRegistry, device: Device) -> None:
    assert read(device.client(), named(registry), 5, 0) == b""
    assert registry.count() == 0


def test_a_broken_connection_goes_on_where_it_broke(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.TRUNCATED, on="/blobs/", times=1)
    assert read(device.client(), named(registry)) == LAYER
    assert [one.headers.get("range") for one in registry.asked("/blobs/")] == [None, f"bytes={HALF}-{len(LAYER) - 1}"]


def test_a_connection_that_always_breaks_still_gets_there(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.TRUNCATED, on="/blobs/", times=12)
    assert read(device.client(), named(registry)) == LAYER


def test_a_connection_that_brings_nothing_is_an_error(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.TRUNCATED, on="/blobs/")
    with pytest.raises(RegistryUnavailableError):
        read(device.client(), named(registry))


def test_an_answer_that_is_too_short_is_asked_for_the_rest(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.TOO_SHORT, on="/blobs/", times=1)
    assert read(device.client(), named(registry), 100, 1000) == LAYER[100:1100]


def test_what_has_arrived_is_given_before_the_rest_stalls(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.STALLED, on="/blobs/")
    pieces = device.client().chunks(named(registry), BLOB, 0, BLOB.size)
    found = b""
    while len(found) < HALF:
        found += next(pieces)
    registry.wait_for_stall()
    registry.heal()
    assert found + b"".join(pieces) == LAYER


def test_a_stalled_connection_is_given_up_and_goes_on(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.STALLED, on="/blobs/", times=1)
    assert read(device.client(read_seconds=0.2), named(registry)) == LAYER
    assert registry.count("/blobs/") == 2


def test_a_registry_without_ranges_is_told_before_a_byte_is_given(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.NO_RANGE, on="/blobs/")
    pieces = device.client().chunks(named(registry), BLOB, 10, 10)
    with pytest.raises(NoRangeError):
        next(pieces)


def test_a_registry_without_ranges_gives_a_whole_layer(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.NO_RANGE, on="/blobs/")
    assert read(device.client(), named(registry)) == LAYER


@pytest.mark.parametrize("offset", [0, 10])
def test_another_part_than_asked_for_is_not_taken(registry: FaultRegistry, device: Device, offset: int) -> None:
    registry.fault(Fault.OTHER_RANGE, on="/blobs/")
    with pytest.raises(RegistryUnavailableError, match="not the bytes asked for"):
        read(device.client(), named(registry), offset, 10)


def test_a_layer_that_is_longer_than_it_says_ends_where_it_should(registry: FaultRegistry, device: Device) -> None:
    client, short = device.client(), Descriptor("", BLOB.digest, 1000)
    assert b"".join(client.chunks(named(registry), short, 0, 1000)) == LAYER[:1000]
    assert client.blob(named(registry), BLOB, len(LAYER)) == LAYER


def test_a_reader_may_stop_at_any_byte(registry: FaultRegistry, device: Device) -> None:
    client = device.client()
    for _ in range(3):
        pieces = client.chunks(named(registry), BLOB, 0, BLOB.size)
        assert next(pieces)
        del pieces
    assert read(client, named(registry)) == LAYER


def test_many_threads_read_at_once(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    client, size = device.client(), len(LAYER) // 64
    with ThreadPoolExecutor(16) as threads:
        parts = threads.map(lambda number: read(client, named(registry), number * size, size), range(64))
        assert b"".join(parts) == LAYER


def test_many_threads_ask_for_one_token(registry: FaultRegistry, device: Device) -> None:
    registry.auth = "bearer"
    client, size = device.client(), len(LAYER) // 16
    for tokens in range(1, 6):
        registry.revoke_tokens()
        with ThreadPoolExecutor(16) as threads:
            parts = threads.map(lambda number: read(client, named(registry), number * size, size), range(16))
            assert b"".join(parts) == LAYER
        assert registry.count("/token") == tokens


def test_a_registry_that_restarts_is_used_again(registry: FaultRegistry, device: Device) -> None:
    client = device.client()
    assert read(client, named(registry), 0, 10) == LAYER[:10]
    registry.stop()
    with pytest.raises(RegistryUnavailableError, match="does not answer"):
        read(client, named(registry), 0, 10)
    registry.start()
    assert read(client, named(registry), 0, 10) == LAYER[:10]


# --- small documents


@pytest.mark.parametrize("fault", [Fault.WRONG_BYTES, Fault.TOO_SHORT])
def test_other_bytes_than_the_digest_says_are_not_taken(registry: FaultRegistry, device: Device, fault: Fault) -> None:
    client, reference = device.client(), named(registry)
    manifest = client.image(reference, "amd64")
    registry.fault(fault)
    with pytest.raises(ImagePullError, match="sent another manifest"):
        client.manifest(reference.at(manifest.digest))
    if fault is Fault.WRONG_BYTES:
        with pytest.raises(ImagePullError, match="sent other bytes"):
            client.configuration(reference, manifest)


def test_a_manifest_that_breaks_off_is_asked_for_again(registry: FaultRegistry, device: Device) -> None:
    registry.fault(Fault.TRUNCATED, on="/manifests/", times=1)
    assert device.client().image(named(registry), "amd64").layers[0].digest == BLOB.digest


def test_a_blob_larger_than_allowed_is_not_fetched(registry: FaultRegistry, device: Device) -> None:
    with pytest.raises(ImagePullError, match="are the most"):
        device.client().blob(named(registry), BLOB, len(LAYER) - 1)
    assert registry.count() == 0


def test_a_manifest_without_end_is_not_read_to_its_end(registry: FaultRegistry, device: Device) -> None:
    registry.put("app:huge", b" " * (MAXIMUM_MANIFEST * 4))
    with pytest.raises(ImagePullError, match="more than"):
        device.client().manifest(named(registry, "app:huge"))


def test_a_refusal_without_end_is_not_read_to_its_end(registry: FaultRegistry, device: Device) -> None:
    registry.refusal = b'{"errors": []}' + b" " * (32 << 20)
    with pytest.raises(ImagePullError):
        device.client().manifest(named(registry, "nobody:1"))
    assert device.client().image(named(registry), "amd64").layers[0].digest == BLOB.digest


@pytest.mark.parametrize(
    "words", [b"[" * 8000, b"{}", b"[]", b'{"errors": 7}', b'{"errors": [7]}', b"\xff", b"", b'{"errors": {"a": 1}}']
)
def test_a_refusal_may_say_anything(registry: FaultRegistry, device: Device, words: bytes) -> None:
    registry.refusal = words
    with pytest.raises(ImagePullError, match="answered 404"):
        device.client().manifest(named(registry, "nobody:1"))


def test_a_refusals_words_cannot_write_on_a_terminal(registry: FaultRegistry, device: Device) -> None:
    registry.refusal = json.dumps({"errors": [{"message": "\x1b[2Jgone\n" + "x" * 5000}]}).encode()
    with pytest.raises(ImagePullError, match="gone") as told:
        device.client().manifest(named(registry, "nobody:1"))
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize(
    "document",
    [
        b"[" * 100_000,
        b"{}",
        b"[]",
        b'{"token": 7}',
        b'{"token": ""}',
        b'{"token": "a\\r\\nb: c"}',
        b"\xff",
        b" " * 300_000,
    ],
)
def test_what_is_no_token_is_told(registry: FaultRegistry, device: Device, document: bytes) -> None:
    registry.auth, registry.token_document = "bearer", document
    with pytest.raises(ImagePullError, match=r"token|document"):
        device.client().manifest(named(registry))


def test_an_answer_is_not_unpacked_on_the_way(registry: FaultRegistry, device: Device) -> None:
    data = gzip.compress(LAYER)
    blob = Descriptor("", registry.add(data), len(data))
    registry.blob_headers = {"Content-Encoding": "gzip"}
    assert b"".join(device.client().chunks(named(registry), blob, 0, blob.size)) == data


def test_an_index_of_indexes_is_refused(registry: FaultRegistry, device: Device) -> None:
    inner = registry.put("app:inner", {"mediaType": OCI_INDEX, "manifests": []}, OCI_INDEX)
    data = registry.manifests[f"app/{inner}"][1]
    entry = {"digest": inner, "size": len(data), "platform": {"os": "linux", "architecture": "arm64"}}
    registry.put("app:outer", {"mediaType": OCI_INDEX, "manifests": [entry]}, OCI_INDEX)
    with pytest.raises(ImagePullError, match="index of indexes"):
        device.client().image(named(registry, "app:outer"), "arm64")


# --- mirrors


def test_the_first_mirror_that_has_it_is_enough(registry: FaultRegistry, device: Device, mirror: FaultRegistry) -> None:
    with FaultRegistry() as empty:
        mirrored(device, registry, empty, mirror)
        client = device.client()
        client.image(named(registry), "amd64")
        assert read(client, named(registry)) == LAYER
        assert empty.count() == 2
    assert mirror.count() == 2
    assert registry.count() == 0


@pytest.mark.parametrize(
    "fault", [Fault.BROKEN, Fault.FORBIDDEN, Fault.UNAUTHORIZED, Fault.RESET, Fault.WRONG_BYTES, Fault.TRUNCATED]
)
def test_a_mirror_that_fails_hides_nothing(
    registry: FaultRegistry, device: Device, mirror: FaultRegistry, fault: Fault
) -> None:
    mirrored(device, registry, mirror)
    mirror.fault(fault)
    client = device.client()
    manifest = client.image(named(registry), "amd64")
    assert client.image(named(registry).at(manifest.digest), "amd64") == manifest


@pytest.mark.parametrize("fault", [Fault.NO_RANGE, Fault.OTHER_RANGE, Fault.BROKEN, Fault.FORBIDDEN, Fault.TRUNCATED])
def test_parts_come_from_the_registry_where_a_mirror_fails(
    registry: FaultRegistry, device: Device, mirror: FaultRegistry, fault: Fault
) -> None:
    mirrored(device, registry, mirror)
    mirror.fault(fault)
    assert read(device.client(), named(registry), 100, 5000) == LAYER[100:5100]


def test_a_mirror_that_does_not_answer_is_left_alone_for_a_minute(
    registry: FaultRegistry, device: Device, mirror: FaultRegistry
) -> None:
    mirrored(device, registry, mirror)
    mirror.fault(Fault.BROKEN)
    client = device.client(attempts=2)
    for _ in range(5):
        read(client, named(registry), 0, 100)
    assert mirror.count() == 2
    mirror.heal()
    device.clock = 61
    read(client, named(registry), 0, 100)
    assert mirror.count() == 3
    assert registry.count() == 5


def test_a_mirrors_failure_is_told_beside_the_registrys(
    registry: FaultRegistry, device: Device, mirror: FaultRegistry
) -> None:
    mirrored(device, registry, mirror)
    mirror.fault(Fault.FORBIDDEN)
    registry.stop()
    with pytest.raises(RegistryUnavailableError, match=f"{registry.address} does not answer.*{mirror.address}.*403"):
        device.client().manifest(named(registry))


def test_a_mirror_gets_its_own_credentials_alone(
    registry: FaultRegistry, device: Device, mirror: FaultRegistry
) -> None:
    mirrored(device, registry, mirror)
    device.log_in({registry.address: "me:secret"})
    for one in (registry, mirror):
        one.auth, one.users = "basic", {"me": "secret"}
    device.client().manifest(named(registry))
    assert all("authorization" not in one.headers for one in mirror.requests)
    device.log_in({registry.address: "me:secret", mirror.address: "me:secret"})
    before = registry.count()
    device.client().manifest(named(registry))
    assert registry.count() == before


def test_what_is_pushed_goes_to_the_registry_itself(
    registry: FaultRegistry, device: Device, mirror: FaultRegistry
) -> None:
    mirrored(device, registry, mirror)
    client = device.client()
    blob = client.push_blob(named(registry), b"new")
    client.push_manifest(named(registry, "app:2"), registry.manifests["app/1"][1], OCI_MANIFEST)
    assert blob.digest in registry.blobs
    assert mirror.count() == 0


# --- referrers


def subject_and_referrer(registry: FaultRegistry, kind: str = KIND) -> tuple[str, Descriptor]:
    subject = registry.image("app:subject", LAYER)
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": registry.add(b"{}"), "size": 2}
    document = {"mediaType": OCI_MANIFEST, "artifactType": kind, "config": empty, "layers": []}
    data = json.dumps(document | {"subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}}).encode()
    return subject, Descriptor(OCI_MANIFEST, registry.put("app", data), len(data), {}, kind)


def test_referrers_come_from_the_api(registry: FaultRegistry, device: Device) -> None:
    subject, referrer = subject_and_referrer(registry)
    subject_and_referrer(registry, "application/spdx+json")
    assert device.client().referrers(named(registry), subject, KIND) == (referrer,)


def test_a_registry_says_that_it_lists_referrers_itself(registry: FaultRegistry, device: Device) -> None:
    subject, referrer = subject_and_referrer(registry)
    data = registry.manifests[f"app/{referrer.digest}"][1]
    reference = named(registry).at(referrer.digest)
    assert device.client().push_manifest(reference, data, OCI_MANIFEST) is True
    registry.referrers_api = False
    assert device.client().push_manifest(reference, data, OCI_MANIFEST) is False
    assert device.client().referrers(named(registry), subject, KIND) == ()


def test_adding_a_referrer_keeps_those_that_are_listed(registry: FaultRegistry, device: Device) -> None:
    registry.referrers_api = False
    client = device.client()
    subject, first = subject_and_referrer(registry)
    second = Descriptor(OCI_MANIFEST, digest_of(b"other"), 7, {}, KIND)
    for one in (first, second, first):
        client.add_referrer(named(registry), subject, one)
    listed = client.manifest(named(registry, f"app:{subject.replace(':', '-')}"))
    assert isinstance(listed, Index)
    assert [one.digest for one, _ in listed.manifests] == [second.digest, first.digest]


def test_a_list_of_referrers_that_cannot_be_read_now_is_not_written_anew(
    registry: FaultRegistry, device: Device
) -> None:
    registry.referrers_api = False
    subject, referrer = subject_and_referrer(registry)
    for fault in (Fault.BROKEN, Fault.FORBIDDEN):
        registry.fault(fault, on="/manifests/sha256-")
        with pytest.raises(EdgeError):
            device.client().add_referrer(named(registry), subject, referrer)
        registry.heal()
    assert not [one for one in registry.requests if one.method == "PUT"]


def test_referrers_that_are_no_index_are_refused_or_none(registry: FaultRegistry, device: Device) -> None:
    registry.referrers_api = False
    subject, _ = subject_and_referrer(registry)
    place = f"app:{subject.replace(':', '-')}"
    registry.put(place, registry.manifests["app/subject"][1])
    assert device.client().referrers(named(registry), subject, KIND) == ()
    registry.put(place, b"no JSON")
    with pytest.raises(InvalidInputError):
        device.client().referrers(named(registry), subject, KIND)


# --- pushing


def test_a_blob_that_is_there_is_not_sent_again(registry: FaultRegistry, device: Device) -> None:
    assert device.client().push_blob(named(registry), LAYER) == BLOB
    assert [one.method for one in registry.requests] == ["HEAD"]


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.RESET])
def test_an_upload_that_breaks_is_sent_again(registry: FaultRegistry, device: Device, fault: Fault) -> None:
    registry.fault(fault, on="digest=", times=1)
    assert device.client().push_blob(named(registry), b"new").digest in registry.blobs


def test_an_upload_may_lead_anywhere_but_is_an_error_of_ours(registry: FaultRegistry, device: Device) -> None:
    for place in ("http://[", "ftp://x/"):
        registry.uploads_to = place
        with pytest.raises((ImagePullError, TransientError)):
            device.client().push_blob(named(registry), b"new")


def test_a_repository_is_asked_under_its_own_name(registry: FaultRegistry, device: Device) -> None:
    registry.image("a/b-c/d__e:v1.0", LAYER)
    client = device.client()
    client.manifest(named(registry, "a/b-c/d__e:v1.0"))
    read(client, named(registry, "a/b-c/d__e:v1.0"))
    assert paths(registry) == ["/v2/a/b-c/d__e/manifests/v1.0", f"/v2/a/b-c/d__e/blobs/{BLOB.digest}"]


def test_a_stalled_reader_does_not_hold_up_others(registry: FaultRegistry, device: Device) -> None:
    client = device.client()
    registry.fault(Fault.STALLED, on="/blobs/", times=1)
    found: list[bytes] = []
    stuck = threading.Thread(target=lambda: found.append(read(client, named(registry))))
    stuck.start()
    registry.wait_for_stall()
    assert read(client, named(registry), 5, 5) == LAYER[5:10]
    registry.heal()
    stuck.join(10)
    assert found == [LAYER]
