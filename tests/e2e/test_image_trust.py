"""A device whose owner demands digests and signatures: real agent, real broker, real Podman, real registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.image_signers import ImageSigner
from tests.support.image_signing import digest_at, push_signatures, registry_client, repository
from tests.support.oci_layout import busybox_image
from tests.support.podman import PodmanService
from tests.support.registry import Registry
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto, pytest.mark.registry]
RULES = """
[[policy.images]]
scope = "{registry}/signed"
require = "signature"
fleet_keys = true
[[policy.images]]
scope = "*"
require = "digest"
"""


@pytest.fixture
def registry(tmp_path: Path, podman: PodmanService) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as running:
        podman.allow_insecure(running.address)
        yield running


def restart(stack: Stack, podman: PodmanService) -> None:
    stack.kill_agent()
    stack.start_agent(environment={"CONTAINERS_REGISTRIES_CONF": podman.environment["CONTAINERS_REGISTRIES_CONF"]})
    stack.wait_connected()


def test_only_what_the_owner_s_rules_let_in_runs(
    stack: Stack, podman: PodmanService, registry: Registry, tmp_path: Path
) -> None:
    signer, client = ImageSigner(), registry_client(podman)
    (tmp_path / "cosign.pub").write_bytes(signer.pem)
    toml = stack.device / "agent.toml"
    toml.write_text(toml.read_text() + RULES.format(registry=registry.address))
    restart(stack, podman)
    stack.edge("fleet", "key", "add", "images", "--public", str(tmp_path / "cosign.pub"), "--role", "image")

    # A tag where a digest is demanded: refused before anything is fetched.
    tagged = stack.register({"name": "app", "image": f"{registry.address}/other:1"}, family="tagged")
    with pytest.raises(AssertionError, match=r"(?s)without a digest.*policy\.images"):
        stack.edge("task", "run", tagged)

    image = busybox_image(registry, "signed/app", ["sleep", "1000"])
    unsigned = stack.register({"name": "app", "image": image}, family="unsigned")
    stack.edge("task", "run", unsigned, expect=None)
    (refused,) = [task for task in stack.status()["tasks"] if task["taskDefinitionArn"].endswith("/unsigned:1")]
    assert stack.wait_status(refused["taskId"], "STOPPED")["stopCode"] == "TaskFailedToStart"
    assert stack.task(refused["taskId"])["stoppedReason"].startswith(f"ImageTrustError: {image}: it has no signature")
    assert stack.containers() == {}

    digest = digest_at(client, image)
    push_signatures(client, image, digest, [signer.sign(digest, repository(image))])
    good = stack.register({"name": "app", "image": image}, family="good")
    assert stack.task(stack.run_task(good))["lastStatus"] == "RUNNING"

    # Without the registry, and with another agent, the image that was proven starts again.
    registry.stop()
    restart(stack, podman)
    assert stack.task(stack.run_task(good))["lastStatus"] == "RUNNING"

    # A key that is retired proves nothing any more.
    registry.start()
    stack.edge("fleet", "key", "add", "others", "--public", str(_other(tmp_path)), "--role", "image")
    stack.edge("fleet", "key", "retire", "images")
    late = stack.register({"name": "app", "image": image}, family="late")
    stack.edge("task", "run", late, expect=None)
    (gone,) = [task for task in stack.status()["tasks"] if task["taskDefinitionArn"].endswith("/late:1")]
    assert "none of the keys that count here signed it" in stack.wait_status(gone["taskId"], "STOPPED")["stoppedReason"]
    assert len(stack.running()) == 2, "what runs goes on"


def _other(folder: Path) -> Path:
    path = folder / "other.pub"
    path.write_bytes(ImageSigner().pem)
    return path
