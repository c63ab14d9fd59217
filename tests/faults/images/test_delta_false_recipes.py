"""A recipe that lies about its layer: the tar's digest tells, and the image is had anew, without what is here."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.images.delta.cutting import DIGEST_BYTES, Chunk, cut
from tests.support.lazy_rig import ROOT, Rig
from tests.support.registry import Registry
from tests.support.updates import CHANGED, NEW, OLD, fetched_bytes, push_false, push_newer, settled, updated

pytestmark = [pytest.mark.registry, pytest.mark.timeout(300)]

_AS_BEFORE = {
    chunk.digest: hashlib.sha256(OLD[CHANGED][at : at + chunk.size]).digest()[:DIGEST_BYTES]
    for at, chunk in cut(NEW[CHANGED])
}


def as_before(chunk: Chunk) -> Chunk:
    """The changed file is said to be what it was."""
    return Chunk(chunk.size, _AS_BEFORE.get(chunk.digest, chunk.digest))


def unheard_of(chunk: Chunk) -> Chunk:
    """The changed file is said to be what nobody has."""
    return Chunk(chunk.size, bytes(DIGEST_BYTES)) if chunk.digest in _AS_BEFORE else chunk


def test_a_changed_file_that_is_said_to_be_the_old_one(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = push_false(monkeypatch, registry, "lie-old", as_before)
    with updated(tmp_path, registry, image) as (made, _):
        found = made.prepare(image)
        made.until(lambda: "had anew" in made.notes())
        made.until(lambda: made.service.image(found["imageId"])["state"] == "MATERIALIZED")
        made.check(image)
        assert "is not the layer's: the tar has digest" in made.notes()


def test_a_chunk_that_nobody_has(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    image = push_false(monkeypatch, registry, "lie-none", unheard_of)
    with updated(tmp_path, registry, image) as (made, _):
        found = made.prepare(image)
        output, problem = made.start_reading(made.path(image, CHANGED)).communicate(timeout=60)
        assert output == NEW[CHANGED] or problem, "the right bytes or none"
        made.until(lambda: "other bytes came than its recipe lists; it is had anew" in made.notes())
        made.service.wait_for(found["imageId"], "MATERIALIZED", 120)
        made.check(image)


def test_a_recipe_of_another_layer_is_not_used(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = push_false(monkeypatch, registry, "lie-size", lambda chunk: Chunk(chunk.size - 1, chunk.digest))
    with updated(tmp_path, registry, image) as (made, _):
        found = made.prepare(image)
        assert "is fetched without what is here of older images" in made.notes()
        settled(made, image, found)


def test_one_that_does_not_lie_is_used_and_costs_what_was_said(tmp_path: Path, registry: Registry) -> None:
    """What the others are held against."""
    image = push_newer(registry)
    with updated(tmp_path, registry, image) as (made, older):
        names = [f"{made.proxy.address}/{one.name}" for one in (older, image)]
        by_registry, by_device = _diff(made, *names), _diff(made, names[1])
        found = made.prepare(image)
        settled(made, image, found)
        assert "had anew" not in made.notes()
        assert by_registry == by_device
        assert by_device["layers"][0]["changed"] == [CHANGED, "data/12", "data/30"]
        recipe = (made.service.state_dir / "layers" / image.layer_ids[0] / "recipe").stat().st_size
        assert 0 <= by_device["fetched"] - fetched_bytes(made) <= recipe


def _diff(made: Rig, *images: str) -> Any:
    command = (sys.executable, "-m", "edge", "image", "diff", *images, "--output", "json")
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(made.folder / "registries.conf")}
    done = subprocess.run(
        (*command, "--socket", str(made.service.socket)), env=environment, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
