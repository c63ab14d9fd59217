from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.podman import PodmanService, podman_service
from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    """One Podman for the tests of a file; each test removes its containers."""
    with podman_service(tmp_path_factory.mktemp("podman")) as service:
        yield service


@pytest.fixture
def stack(tmp_path: Path, podman: PodmanService) -> Iterator[Stack]:
    """Fleet, broker and a connected agent."""
    with running_stack(tmp_path / "stack", podman) as running:
        yield running
