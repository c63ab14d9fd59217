from collections.abc import Iterator

import pytest

from tests.support.podman import PodmanService, podman_service


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    """One Podman for the faults of a file; each test removes its containers."""
    with podman_service(tmp_path_factory.mktemp("podman")) as service:
        yield service
