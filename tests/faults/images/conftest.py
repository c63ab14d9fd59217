"""One registry with a few images for all of these tests: a proxy before it is broken, or a service behind it."""

from collections.abc import Iterator

import pytest

from tests.support.lazy_rig import TestImage, content, push_image
from tests.support.registry import Registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def image(registry: Registry) -> TestImage:
    """Two layers with an index of some forty spans."""
    return push_image(registry, "indexed", [content(1), {"top/file": content(2, 1)["data/00"]}])


@pytest.fixture(scope="session")
def plain(registry: Registry) -> TestImage:
    """One layer without an index."""
    return push_image(registry, "plain", [content(3)], index="")
