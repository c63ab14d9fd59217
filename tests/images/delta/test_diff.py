"""What an update costs, from two images' recipes alone."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from edge.errors import NotFoundError
from edge.images.indexing.build import IndexOptions, build_indexes
from edge.images.indexing.diff import Known, LayerUpdate, known_of, read_known, update_cost
from edge.images.oci.layout import OciLayout
from edge.images.oci.layout_writer import LayoutWriter
from edge.images.soci.manifests import IndexVersion
from tests.images.soci.layers import noise, text
from tests.support import oci_layout

PLATFORM = "linux/arm64"
OLD = {f"usr/{number:02}": text(number, 20_000) for number in range(20)}
NEW = OLD | {"usr/07": text(99, 20_000)}


def _image(folder: Path, *layers: Mapping[str, bytes], version: IndexVersion = IndexVersion.COMPACT) -> OciLayout:
    layout = oci_layout.OciLayout(folder)
    layout.finish(layout.image([oci_layout.layer(files) for files in layers], {}, "arm64"), tag="1")
    found = OciLayout.at(folder)
    options = IndexOptions(version, 64 << 10, 1, recipes=version is IndexVersion.COMPACT)
    build_indexes(found, found.reference("1"), LayoutWriter(folder), options)
    return OciLayout.at(folder)


def _known(layout: OciLayout) -> Known:
    return known_of(layout, layout.reference("1"), PLATFORM)


def test_what_is_the_same_costs_nothing_and_what_changed_about_its_size(tmp_path: Path) -> None:
    big = {"model": noise(5, 500_000)}
    old, new = _image(tmp_path / "old", big, OLD), _image(tmp_path / "new", big, NEW)
    shared, changed = update_cost(new, new.reference("1"), PLATFORM, _known(old))
    assert (shared.how, shared.fetched) == (LayerUpdate.SHARED, 0)
    assert (changed.how, changed.changed, changed.files) == (LayerUpdate.DELTA, ("usr/07",), 20)
    assert 5_000 < changed.fetched < 0.5 * changed.size


def test_a_layer_without_a_recipe_is_fetched_whole(tmp_path: Path) -> None:
    old, new = _image(tmp_path / "old", OLD), _image(tmp_path / "new", NEW, version=IndexVersion.V1)
    [layer] = update_cost(new, new.reference("1"), PLATFORM, _known(old))
    assert (layer.how, layer.fetched) == (LayerUpdate.WHOLE, layer.size)


def test_of_an_older_image_without_recipes_nobody_knows(tmp_path: Path) -> None:
    old = _image(tmp_path / "old", OLD, version=IndexVersion.V1)
    with pytest.raises(NotFoundError, match="has no recipes"):
        _known(old)


def test_a_device_without_recipes_says_so(tmp_path: Path) -> None:
    (tmp_path / "torn").write_bytes(b"EDGERCP1")
    with pytest.raises(NotFoundError, match="no recipe"):
        read_known(["sha256:0"], [str(tmp_path / "torn"), str(tmp_path / "missing")])
