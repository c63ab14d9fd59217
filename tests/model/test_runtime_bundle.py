"""Which bundles a device takes."""

import json
from typing import Any

import pytest

from edge.errors import InvalidInputError, RefusedError, SupersededError
from edge.model.runtime_bundle import Place, RuntimeManifest, judge_fit, read_manifest, version_key

HERE = Place("0.2.0", "0.3.0", "arm64", "3.11", ("raspberrypi,4-model-b", "brcm,bcm2711"))
GOOD: dict[str, Any] = {
    "schemaVersion": 1,
    "version": "0.4.0",
    "architecture": "arm64",
    "python": "3.11",
    "issuedAt": "2026-01-01T00:00:00Z",
    "files": [{"name": "edge-0.4.0-py3-none-any.whl", "sha256": "ab" * 32, "size": 10}],
}


def manifest(**fields: Any) -> RuntimeManifest:
    return read_manifest(json.dumps({**GOOD, **fields}).encode())


def test_a_newer_version_for_this_device_fits() -> None:
    judge_fit(manifest(), HERE)
    judge_fit(manifest(boards=["raspberrypi,5-model-b", "raspberrypi,4-model-b"], minimumVersion="0.2.0"), HERE)
    judge_fit(manifest(version="0.3.0"), HERE)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architecture": "amd64"}, "for amd64, this is arm64"),
        ({"python": "3.13"}, "Python 3.13"),
        ({"boards": ["raspberrypi,5-model-b"]}, "raspberrypi,5-model-b"),
        ({"minimumVersion": "0.2.1"}, "0.2.1 or newer"),
    ],
)
def test_a_bundle_for_another_device_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        judge_fit(manifest(**fields), HERE)


@pytest.mark.parametrize("version", ["0.2.9", "0.1.0", "0.0.9"])
def test_what_is_older_than_the_floor_is_refused_unless_root_says_so(version: str) -> None:
    with pytest.raises(SupersededError, match=r"older than 0\.3\.0"):
        judge_fit(manifest(version=version), HERE)
    judge_fit(manifest(version=version), HERE, allow_downgrade=True)


def test_what_runs_already_is_refused_even_then() -> None:
    with pytest.raises(SupersededError, match="runs here already"):
        judge_fit(manifest(version="0.2.0"), HERE, allow_downgrade=True)


def test_numbers_are_compared_as_numbers() -> None:
    versions = ["0.9.0", "0.10.0", "0.10.1", "1.0.0", "1.0.10"]
    assert sorted({*versions}, key=version_key) == versions


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "0.4"},
        {"version": "0.4.0rc1"},
        {"version": "00.4.0"},
        {"version": "0.4.0\n"},
        {"schemaVersion": 2},
        {"files": []},
        {"files": GOOD["files"] * 2},
        {"files": [{"name": "a/b.whl", "sha256": "ab" * 32, "size": 1}]},
        {"files": [{"name": "a.whl", "sha256": "ab" * 32, "size": 1 << 40}]},
        {"files": [{"name": f"{n}.whl", "sha256": "ab" * 32, "size": 1} for n in range(65)]},
        {"files": [{"name": f"{n}.whl", "sha256": "ab" * 32, "size": 500 << 20} for n in range(2)]},
        {"mayRunOnlyOn": "Tuesdays"},
    ],
)
def test_a_manifest_that_says_something_else_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        manifest(**fields)
