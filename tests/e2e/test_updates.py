"""Updates of edge itself, with real wheels in real virtual environments, and a container that must not notice."""

import json
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.podman import PodmanService
from tests.support.registry import Registry
from tests.support.runtime_versions import DIES_AT_START, PYTHON, build_version, install_first
from tests.support.stack import DEVICE, Stack
from tests.support.supervised_device import SupervisedDevice, supervised_device

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto, pytest.mark.registry, pytest.mark.timeout(900)]


ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("versions")
    return {
        "0.1.0": build_version(folder, "0.1.0"),
        "0.2.0": build_version(folder, "0.2.0"),
        "0.3.0": build_version(folder, "0.3.0", DIES_AT_START),
    }


@pytest.fixture
def device(stack: Stack, tmp_path: Path, wheels: dict[str, Path]) -> Iterator[SupervisedDevice]:
    install_first(tmp_path / "opt", wheels["0.1.0"], "0.1.0")
    with supervised_device(stack, tmp_path / "opt") as running:
        yield running


@pytest.fixture
def registry(podman: PodmanService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """One that the device and the operator reach without TLS."""
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", podman.environment["CONTAINERS_REGISTRIES_CONF"])
    with Registry(tmp_path / "registry") as running:
        podman.allow_insecure(running.address)
        yield running


def bundle(stack: Stack, wheels: dict[str, Path], version: str) -> Path:
    path = stack.folder / f"{version}.bundle"
    path.unlink(missing_ok=True)
    stack.edge(
        "firmware", "bundle", str(wheels[version]), "--arch", ARCHITECTURE, "--python", PYTHON, "--out", str(path)
    )
    return path


def push(stack: Stack, registry: Registry, path: Path) -> str:
    reference = f"{registry.address}/edge/runtime:{path.stem}"
    stack.edge("firmware", "push", str(path), reference)
    return reference


def test_a_device_takes_a_new_version_by_command_refuses_an_older_one_and_leaves_a_broken_one_again(
    stack: Stack, registry: Registry, device: SupervisedDevice, wheels: dict[str, Path]
) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before = stack.running()
    new = push(stack, registry, bundle(stack, wheels, "0.2.0"))
    told = stack.json("device", "update", new, "--device", DEVICE, "--window", "60")
    assert told == {"outcome": "INSTALLED", "version": "0.2.0", "previous": "0.1.0"}
    assert stack.status()["agentVersion"] == "0.2.0"
    assert stack.running() == before, "same container, same process"

    older = push(stack, registry, bundle(stack, wheels, "0.1.0"))
    stack.edge("device", "update", older, "--device", DEVICE, expect=1)
    assert device.firmware_status()["result"]["outcome"] == "REFUSED"
    assert "older than 0.2.0" in device.firmware_status()["result"]["reason"]

    broken = push(stack, registry, bundle(stack, wheels, "0.3.0"))
    stack.edge("device", "update", broken, "--device", DEVICE, "--window", "20", expect=1)
    status = device.firmware_status()
    assert (status["current"], status["good"], status["floor"]) == ("0.2.0", "0.2.0", "0.2.0")
    assert (status["result"]["outcome"], status["trial"]) == ("RETURNED", None)
    versions = device.base / "versions"
    stack.wait("the broken one to go", lambda: sorted(one.name for one in versions.iterdir()) == ["0.1.0", "0.2.0"])
    stack.wait_connected()
    assert stack.running() == before
    assert stack.task(task_id)["lastStatus"] == "RUNNING"


def test_without_a_broker_a_version_from_a_file_proves_itself_by_what_runs(
    stack: Stack, device: SupervisedDevice, wheels: dict[str, Path]
) -> None:
    stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before = stack.running()
    path = bundle(stack, wheels, "0.2.0")
    stack.broker.kill()
    stack.wait("the agent notices", lambda: not stack.status()["connection"]["connected"])
    told = device.firmware("install", str(path), "--window", "60", "--output", "json")
    assert json.loads(told[told.index("{") : told.rindex("}") + 1])["outcome"] == "INSTALLED"
    assert stack.status()["agentVersion"] == "0.2.0"
    assert stack.running() == before
    assert "older" in device.firmware("install", str(bundle(stack, wheels, "0.1.0")), expect=5)
