"""A bundle is verified to its last byte before anything of it is unpacked."""

import json
import tarfile
from pathlib import Path

import pytest

from edge.errors import EdgeError, InvalidInputError, NotFoundError, RefusedError, TrustError
from edge.firmware.bundle_file import MANIFEST_NAME, find_wheels, opened_bundle
from edge.model.documents import COMMAND_TYPE
from edge.model.envelope import seal
from tests.firmware.bundles import NEW, OWNER, make_runtime_bundle, make_wheels, rewritten, trusting
from tests.model.signers import MemorySigner

WHEEL = f"edge-{NEW}-py3-none-any.whl"
THIEF = MemorySigner()


def refused(bundle: Path) -> str:
    with pytest.raises(TrustError) as caught, opened_bundle(bundle, trusting()):
        pytest.fail("it was opened")
    return str(caught.value)


def test_a_signed_bundle_is_unpacked_as_it_was_packed(tmp_path: Path) -> None:
    bundle = make_runtime_bundle(tmp_path)
    with opened_bundle(bundle, trusting()) as opened:
        (tmp_path / "out").mkdir()
        written = opened.unpack(tmp_path / "out")
    assert [one.name for one in written] == [WHEEL, "other-1.0-py3-none-any.whl"]
    assert [one.read_bytes() for one in written] == [
        (tmp_path / "wheels-0.2.0" / one.name).read_bytes() for one in written
    ]


def test_the_same_wheels_make_the_same_bytes(tmp_path: Path) -> None:
    first = make_runtime_bundle(tmp_path).read_bytes()
    assert make_runtime_bundle(tmp_path).read_bytes() == first


def test_a_key_that_may_not_sign_firmware_signs_for_nothing(tmp_path: Path) -> None:
    assert "unknown key" in refused(make_runtime_bundle(tmp_path, signers=[THIEF]))


def test_one_signature_of_two_that_are_needed_is_none(tmp_path: Path) -> None:
    second = MemorySigner()
    bundle = make_runtime_bundle(tmp_path)
    with (
        pytest.raises(TrustError, match="below threshold"),
        opened_bundle(bundle, trusting(OWNER, second, threshold=2)),
    ):
        pytest.fail("it was opened")


def test_a_document_of_another_type_is_no_manifest(tmp_path: Path) -> None:
    bundle = make_runtime_bundle(tmp_path)
    with tarfile.open(bundle) as tar:
        envelope = json.loads((tar.extractfile(MANIFEST_NAME) or pytest.fail("no manifest")).read())
    payload = b'{"schemaVersion": 1}'
    envelope["payload"] = payload
    rewritten(bundle, {MANIFEST_NAME: seal(payload, COMMAND_TYPE, [OWNER])})
    assert "wrong type" in refused(bundle)


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_changed_byte_of_a_wheel_is_found(tmp_path: Path, where: str) -> None:
    bundle = make_runtime_bundle(tmp_path)
    content = bytearray((tmp_path / "wheels-0.2.0" / WHEEL).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    assert "not the file that was signed" in refused(rewritten(bundle, {WHEEL: bytes(content)}))


def test_a_changed_manifest_is_found(tmp_path: Path) -> None:
    bundle = make_runtime_bundle(tmp_path)
    with tarfile.open(bundle) as tar:
        data = (tar.extractfile(MANIFEST_NAME) or pytest.fail("no manifest")).read()
    envelope = json.loads(data)
    envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]
    assert refused(rewritten(bundle, {MANIFEST_NAME: json.dumps(envelope).encode()}))


def test_a_file_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    assert "more than its manifest says" in refused(
        rewritten(make_runtime_bundle(tmp_path), {}, {"evil.pth": b"import os"})
    )


def test_a_wheel_under_a_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pattern"):
        make_runtime_bundle(tmp_path, files=[{"name": "../x.whl", "sha256": "0" * 64, "size": 1}])


def test_a_file_changed_after_it_was_verified_is_not_unpacked(tmp_path: Path) -> None:
    bundle = make_runtime_bundle(tmp_path)
    (tmp_path / "out").mkdir()
    with opened_bundle(bundle, trusting()) as opened:
        data = bytearray(bundle.read_bytes())
        at = data.index(b"other" * 900)
        with bundle.open("r+b") as file:
            file.seek(at)
            file.write(b"evil!")
        with pytest.raises(TrustError, match="not the file that was signed"):
            opened.unpack(tmp_path / "out")


@pytest.mark.parametrize("size", [0, 100, 512, 1000, 2000, 5000])
def test_a_bundle_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    bundle = make_runtime_bundle(tmp_path)
    bundle.write_bytes(bundle.read_bytes()[:size])
    with pytest.raises((InvalidInputError, TrustError)), opened_bundle(bundle, trusting()):
        pytest.fail("it was opened")


@pytest.mark.parametrize("content", [b"", b"not a tar at all" * 100, b"\x1f\x8b\x08" + b"x" * 2000, b"\0" * 10240])
def test_something_else_is_said_to_be_no_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidInputError, match="no runtime bundle"), opened_bundle(tmp_path / "x", trusting()):
        pytest.fail("it was opened")


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError), opened_bundle(tmp_path / "x", trusting()):
        pytest.fail("it was opened")


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    bundle = make_runtime_bundle(tmp_path)
    before = bundle.read_bytes()
    bundle.rename(tmp_path / "kept")
    (tmp_path / "kept").rename(bundle)
    from edge.firmware.bundle_file import write_bundle  # noqa: PLC0415
    from edge.model.runtime_bundle import RuntimeManifest  # noqa: PLC0415

    manifest = RuntimeManifest.model_validate(
        {
            "version": NEW,
            "architecture": "arm64",
            "python": "3.11",
            "issued_at": "",
            "files": [{"name": "a.whl", "sha256": "0" * 64, "size": 1}],
        }
    )
    with pytest.raises(RefusedError):
        write_bundle(bundle, manifest, [], [OWNER])
    assert bundle.read_bytes() == before


def test_wheels_without_edge_or_with_two_of_it_make_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        find_wheels(tmp_path)
    make_wheels(tmp_path, "0.1.0")
    assert find_wheels(tmp_path)[1] == "0.1.0"
    make_wheels(tmp_path, "0.2.0")
    with pytest.raises(EdgeError, match="2 versions"):
        find_wheels(tmp_path)
