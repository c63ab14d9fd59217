"""Whose images run, on a real registry with real Podman: what is not signed as the owner demands is not even pulled."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from edge.agent.adapters.image_proofs import ImageProofs
from edge.agent.adapters.podman import PodmanEngine
from edge.agent.engine.image_gate import ImageGate
from edge.cli import main
from edge.errors import EngineError, ImagePullError, ImageTrustError, NoSuchImageError, RegistryUnavailableError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import host_architecture
from edge.images.oci.references import parse_reference
from edge.images.oci.registries import Registries
from edge.images.signatures import gather
from edge.model.image_trust.evidence import FoundSignature
from edge.model.image_trust.keys import raw_key_pem
from edge.model.image_trust.policy import ImagePolicy, ImageRule, Requirement
from tests.model.image_signers import IDENTITY, Fulcio, ImageSigner, Log
from tests.support.image_signing import digest_at, push_signatures, registry_client, repository
from tests.support.oci_layout import busybox_image
from tests.support.podman import PodmanService, podman_service
from tests.support.registry import Registry

pytestmark = [pytest.mark.podman, pytest.mark.registry]
HERE = host_architecture()
SIGNER, LOG, FULCIO = ImageSigner(), Log(), Fulcio()
MANIFESTS = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    with podman_service(tmp_path_factory.mktemp("podman")) as service:
        yield service


class InProcess(ImageProofs):
    """Fetches without a process of its own: many tests, and one of those is enough to show that it works."""

    def gather(self, reference: str, architecture: str) -> bytes:
        client = RegistryClient(Registries.of_host(os.environ), os.environ)
        return gather(client, parse_reference(reference), architecture, 10).to_bytes()


class World:
    """A registry and a device that demands signatures of it."""

    def __init__(self, folder: Path, podman: PodmanService, registry: Registry) -> None:
        podman.allow_insecure(registry.address)
        self.podman, self.registry = podman, registry
        self.client: RegistryClient = registry_client(podman)
        self.engine = PodmanEngine(podman.socket)
        self.proofs = ImageProofs(folder / "image-trust", seconds=10)
        self._images = 0

    def gate(self, *rules: ImageRule, fleet_keys: Callable[[], tuple[bytes, ...]] = tuple) -> ImageGate:
        return ImageGate(self.engine, ImagePolicy(rules), self.proofs, fleet_keys)

    def image(self) -> tuple[str, str]:
        """Push an image nobody has seen; returns its reference and its digest."""
        self._images += 1
        command = ["sleep", str(time.monotonic_ns())]
        reference = busybox_image(self.registry, f"app-{self._images}-{time.monotonic_ns()}", command)
        return reference, digest_at(self.client, reference)

    def has(self, reference: str) -> bool:
        return self.podman.run_cli("images", "--quiet", "--filter", f"reference={repository(reference)}") != ""


@pytest.fixture
def world(
    tmp_path: Path, podman: PodmanService, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(podman.folder / "registries.conf"))
    made = World(tmp_path, podman, registry)
    yield made
    made.engine.close()


def sign(world: World, make: Callable[[str, str], FoundSignature], *, refers: bool = False) -> str:
    reference, digest = world.image()
    push_signatures(world.client, reference, digest, [make(digest, repository(reference))], refers=refers)
    return reference


@pytest.mark.parametrize("refers", [False, True])
def test_a_signed_image_is_pulled_by_the_digest_that_was_proven(world: World, refers: bool) -> None:  # noqa: FBT001
    reference = sign(world, SIGNER.sign, refers=refers)
    gate = world.gate(SIGNER.rule())
    assert gate.local(reference, HERE) is None
    image = gate.pull(reference, HERE)
    assert image.digest == digest_at(world.client, reference)
    gate.check(reference, image.image_id, HERE)
    assert gate.local(reference, HERE) == image


def test_keyless_and_logged_signatures_count(world: World) -> None:
    keyless = sign(world, lambda digest, name: FULCIO.sign(digest, name, LOG))
    world.gate(FULCIO.rule(LOG)).pull(keyless, HERE)
    logged = sign(world, lambda digest, name: LOG.promise(SIGNER.sign(digest, name), SIGNER.pem))
    world.gate(SIGNER.rule(log_keys=(LOG.key.pem,))).pull(logged, HERE)


OTHER = f"sha256:{'e' * 64}"
REFUSED: dict[str, tuple[Callable[[str, str], FoundSignature], ImageRule, str]] = {
    "another key": (ImageSigner().sign, SIGNER.rule(), "none of the keys that count"),
    "another repository": (lambda digest, _: SIGNER.sign(digest, "registry.example/other"), SIGNER.rule(), "not of"),
    "another digest": (lambda _, name: SIGNER.sign(OTHER, name), SIGNER.rule(), "it signs another image"),
    "no log": (SIGNER.sign, SIGNER.rule(log_keys=(LOG.key.pem,)), "no transparency log entry"),
    "another log": (
        lambda digest, name: Log().promise(SIGNER.sign(digest, name), SIGNER.pem),
        SIGNER.rule(log_keys=(LOG.key.pem,)),
        "no transparency log that counts",
    ),
    "another identity": (
        lambda digest, name: FULCIO.sign(digest, name, LOG, identity="thief@example.com"),
        FULCIO.rule(LOG),
        f"signed by thief@example.com, not by {IDENTITY}",
    ),
    "another issuer": (
        lambda digest, name: FULCIO.sign(digest, name, LOG, issuer="https://evil.example"),
        FULCIO.rule(LOG),
        "https://evil.example vouched",
    ),
    "a bare key where a certificate is due": (SIGNER.sign, FULCIO.rule(LOG), "a certificate is due"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_signature_that_is_none_lets_no_byte_of_the_image_in(world: World, tmp_path: Path, name: str) -> None:
    make, rule, why = REFUSED[name]
    reference = sign(world, make)
    with pytest.raises(ImageTrustError, match=why) as caught:
        ImageGate(world.engine, ImagePolicy((rule,)), InProcess(tmp_path)).pull(reference, HERE)
    assert caught.value.hint
    assert not world.has(reference)


def test_an_image_without_a_signature_is_not_pulled(world: World) -> None:
    reference, _ = world.image()
    with pytest.raises(ImageTrustError, match="it has no signature"):
        world.gate(SIGNER.rule()).pull(reference, HERE)
    assert not world.has(reference)
    world.gate(SIGNER.rule("elsewhere.example")).pull(reference, HERE)


def test_an_image_that_does_not_exist_says_so(world: World) -> None:
    with pytest.raises(ImagePullError, match="answered 404"):
        world.gate(SIGNER.rule()).pull(f"{world.registry.address}/nothing:1", HERE)


def test_a_manifest_that_was_changed_in_the_registry_is_refused(world: World) -> None:
    reference = sign(world, SIGNER.sign)
    digest = digest_at(world.client, reference)
    hexadecimal = digest.removeprefix("sha256:")
    stored = world.registry.store / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
    stored.write_bytes(stored.read_bytes().replace(b'"schemaVersion"', b'"schemaVersioN"'))
    with pytest.raises(EngineError):
        world.gate(SIGNER.rule()).pull(reference, HERE)
    assert not world.has(reference)


def test_a_signed_image_starts_without_a_network_and_after_a_restart(world: World) -> None:
    reference = sign(world, SIGNER.sign)
    image = world.gate(SIGNER.rule()).pull(reference, HERE)
    world.registry.stop()
    try:
        anew = world.gate(SIGNER.rule())
        assert anew.local(reference, HERE) == image
        world.gate(SIGNER.rule()).check(reference, image.image_id, HERE)
        with pytest.raises(RegistryUnavailableError):
            anew.pull(f"{repository(reference)}:2", HERE)
    finally:
        world.registry.start()


def test_a_key_that_was_retired_proves_nothing_even_of_what_is_here(world: World) -> None:
    reference = sign(world, SIGNER.sign)
    keys = [raw_key_pem(SIGNER.point)]
    rule = ImageRule("*", Requirement.SIGNATURE, fleet_keys=True)
    gate = world.gate(rule, fleet_keys=lambda: tuple(keys))
    image = gate.pull(reference, HERE)
    gate.check(reference, image.image_id, HERE)
    keys.clear()
    assert gate.local(reference, HERE) is None
    with pytest.raises(ImageTrustError, match="none of the keys"):
        gate.check(reference, image.image_id, HERE)


def test_what_is_kept_and_was_damaged_is_fetched_again(world: World, tmp_path: Path) -> None:
    reference = sign(world, SIGNER.sign)
    image = world.gate(SIGNER.rule()).pull(reference, HERE)
    for path in (tmp_path / "image-trust").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    anew = world.gate(SIGNER.rule())
    assert anew.local(reference, HERE) is None
    anew.check(reference, image.image_id, HERE)


def test_an_image_that_was_here_before_the_rule_is_proven_before_it_starts(world: World) -> None:
    signed, unsigned = sign(world, SIGNER.sign), world.image()[0]
    ids = {one: world.gate().pull(one, HERE).image_id for one in (signed, unsigned)}
    strict = world.gate(SIGNER.rule())
    strict.check(signed, ids[signed], HERE)
    with pytest.raises(ImageTrustError, match="no signature"):
        strict.check(unsigned, ids[unsigned], HERE)
    with pytest.raises(ImageTrustError, match="is the one that is signed"):
        strict.check(signed, ids[unsigned], HERE)


def test_another_image_under_the_proven_digest_is_refused(world: World) -> None:
    """The engine's store says something else than the manifest that was proven."""

    class Liar(PodmanEngine):
        def pull(self, reference: str, architecture: str, *, proven: bool = False) -> Any:
            return replace(super().pull(reference, architecture, proven=proven), image_id="f" * 64)

    reference = sign(world, SIGNER.sign)
    gate = ImageGate(Liar(world.podman.socket), ImagePolicy((SIGNER.rule(),)), world.proofs)
    with pytest.raises(ImageTrustError, match="under the digest of"):
        gate.pull(reference, HERE)


class Turncoat:
    """A registry whose tag means the signed image when it is asked first, and another one from then on."""

    def __init__(self, registry: Registry, name: str, good: str, evil: str) -> None:
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above
                """Say nothing."""

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path
                outer.asked.append((self.command, path))
                if path == f"/v2/{name}/manifests/1":
                    turn = sum(one == path for _, one in outer.asked)
                    path = f"/v2/{name}/manifests/{good if turn == 1 else evil}"
                headers = {"Accept": self.headers.get("Accept", "*/*")}
                try:
                    answer = urlopen(Request(f"http://{registry.address}{path}", headers=headers))
                    status, body, kind = answer.status, answer.read(), answer.headers.get("Content-Type", "")
                except OSError as error:
                    status, body, kind = getattr(error, "code", 404), b"{}", "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_registry_that_changes_its_tag_between_two_questions_gains_nothing(world: World) -> None:
    good, evil = world.image(), world.image()
    name = parse_reference(good[0]).repository
    # Both in one repository, the second never signed.
    manifest = world.client.manifest(parse_reference(evil[0]))
    for one in (manifest.config, *manifest.layers):  # type: ignore[union-attr]
        world.client.push_blob(parse_reference(good[0]), world.client.blob(parse_reference(evil[0]), one, 1 << 24))
    world.client.push_manifest(parse_reference(good[0]).at(evil[1]), manifest.data, MANIFESTS)
    turncoat = Turncoat(world.registry, name, good[1], evil[1])
    world.podman.allow_insecure(turncoat.address)
    reference = f"{turncoat.address}/{name}:1"
    push_signatures(world.client, good[0], good[1], [SIGNER.sign(good[1], repository(reference))])
    try:
        image = world.gate(SIGNER.rule()).pull(reference, HERE)
        assert image.digest == good[1]
        signed = world.client.configuration(
            parse_reference(good[0]), world.client.image(parse_reference(good[0]), HERE)
        )
        assert image.image_id == signed.image_id
        # Whoever asks by the tag now gets the other one: the signature does not fit it.
        with pytest.raises(ImageTrustError, match="no signature"):
            world.gate(SIGNER.rule()).pull(reference, HERE)
        # Without a rule the tag is what the registry says: the attack is real.
        assert world.gate().pull(reference, HERE).digest == evil[1]
    finally:
        turncoat.server.shutdown()
        turncoat.server.server_close()


def test_a_flood_of_signatures_costs_a_bounded_time(world: World) -> None:
    reference, digest = world.image()
    flood = [replace(ImageSigner().sign(digest, repository(reference))) for _ in range(80)]
    push_signatures(world.client, reference, digest, flood)
    with pytest.raises(ImageTrustError, match=r"64 signatures, none that counts.*\(16 more"):
        world.gate(SIGNER.rule()).pull(reference, HERE)


def test_an_image_that_left_the_store_is_no_image(world: World) -> None:
    reference = sign(world, SIGNER.sign)
    gate = world.gate(SIGNER.rule())
    image = gate.pull(reference, HERE)
    world.podman.run_cli("rmi", "--force", image.image_id)
    assert gate.local(reference, HERE) is None
    with pytest.raises(NoSuchImageError):
        world.engine.create(_spec(image.image_id))


def _spec(image_id: str) -> Any:
    from edge.model.container_spec import ContainerSpec  # noqa: PLC0415

    return ContainerSpec(name="never", image_id=image_id, labels=())


def test_the_operator_asks_what_the_device_would_say(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "cosign.pub"
    key.write_bytes(SIGNER.pem)
    signed, unsigned = sign(world, SIGNER.sign), world.image()[0]
    assert main(["image", "verify", signed, "--key", str(key), "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest_at(world.client, signed)
    assert main(["image", "verify", unsigned, "--key", str(key)]) == 5
    assert "it has no signature" in capsys.readouterr().err
    assert main(["image", "signatures", signed]) == 0
    assert "1 signatures" in capsys.readouterr().out
