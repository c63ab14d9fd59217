"""A device and a registry that fails as told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.oci.registry_clients import LAYER, Device
from tests.support.fault_registry import FaultRegistry


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture
def registry(device: Device) -> Iterator[FaultRegistry]:
    with FaultRegistry() as running:
        running.image("app:1", LAYER)
        device.insecure(running)
        yield running
