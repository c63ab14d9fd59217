"""Bundles of OS images, by RAUC itself: made, believed, not believed."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.errors import EdgeError, NotFoundError, RefusedError
from edge.firmware.image_bundle import is_image_bundle, read_image_facts, write_image_bundle
from edge.fleet.image_signing import ImageKeys, image_keys
from tests.firmware.bundles import make_runtime_bundle
from tests.vm.firmware_images import small

NOW = datetime.now(UTC)


def info(bundle: Path, keyring: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """What a device with this keyring makes of a bundle."""
    config = folder / "system.conf"
    config.write_text(
        f"[system]\ncompatible=edge-vm-amd64\nbootloader=noop\n[keyring]\npath={keyring}\ncheck-purpose=codesign\n"
    )
    return subprocess.run(
        ("rauc", "--conf", str(config), "info", str(bundle)), capture_output=True, text=True, check=False
    )


@pytest.fixture
def keys(tmp_path: Path) -> ImageKeys:
    return image_keys(tmp_path / "fleet", "shop", NOW)


def test_a_device_believes_its_fleet_s_images_and_nobody_else_s(keys: ImageKeys, tmp_path: Path) -> None:
    bundle = tmp_path / "image.raucb"
    small(tmp_path / "image", bundle, keys, "1.2.0", "edge-vm-amd64")
    assert is_image_bundle(bundle)
    believed = info(bundle, keys.keyring, tmp_path)
    assert believed.returncode == 0, believed.stderr
    assert "1.2.0" in believed.stdout
    stranger = image_keys(tmp_path / "thief", "shop", NOW)
    refused = info(bundle, stranger.keyring, tmp_path)
    assert refused.returncode != 0
    assert "signature verification failed" in refused.stderr


def test_a_changed_bundle_is_not_believed(keys: ImageKeys, tmp_path: Path) -> None:
    bundle = tmp_path / "image.raucb"
    small(tmp_path / "image", bundle, keys, "1.2.0", "edge-vm-amd64")
    data = bytearray(bundle.read_bytes())
    data[-200] ^= 1
    bundle.write_bytes(data)
    assert info(bundle, keys.keyring, tmp_path).returncode != 0


def test_the_keys_are_made_once(keys: ImageKeys, tmp_path: Path) -> None:
    before = keys.keyring.read_bytes()
    assert image_keys(tmp_path / "fleet", "shop", NOW).keyring.read_bytes() == before
    assert keys.key.stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_not_replaced_and_no_image_is_none(keys: ImageKeys, tmp_path: Path) -> None:
    bundle = tmp_path / "image.raucb"
    bundle.write_text("mine")
    with pytest.raises(RefusedError):
        write_image_bundle(tmp_path, bundle, keys.certificate, keys.key)
    assert bundle.read_text() == "mine"
    with pytest.raises(NotFoundError):
        read_image_facts(tmp_path)
    with pytest.raises(NotFoundError):
        is_image_bundle(tmp_path / "missing")


def test_a_bundle_of_edge_is_none_of_an_image(tmp_path: Path) -> None:
    assert not is_image_bundle(make_runtime_bundle(tmp_path))


def test_what_rauc_says_is_said(keys: ImageKeys, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "rootfs.ext4").write_bytes(b"")
    (image / "image.env").write_text("COMPATIBLE=edge-vm-amd64\nVERSION=1.0.0\n")
    with pytest.raises(EdgeError, match="rauc bundle: "):
        write_image_bundle(image, tmp_path / "x.raucb", keys.certificate, tmp_path / "no.key")
    assert not (tmp_path / "x.raucb").exists()
