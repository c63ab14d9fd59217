"""Where values stand while a container starts: in memory, for their owner alone, and not a moment longer."""

import base64
import os
from pathlib import Path

import pytest

from edge.agent.adapters.podman.secret_places import take_out
from edge.agent.adapters.vault import MemoryVault, is_in_memory
from edge.agent.secrets_key import own_key
from edge.errors import SecretUnavailableError
from edge.model.sealing import public_key_of, seal_secret
from edge.model.secrets import DesiredSecret, associated_data

TASK = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def vault(tmp_path: Path) -> MemoryVault:
    return MemoryVault(tmp_path / "secrets.key", "shop", "pi-1", owner=str(tmp_path), places=("/dev/shm",))


def secret(folder: Path, name: str, value: str, version: int = 1, *, device: str = "pi-1") -> DesiredSecret:
    key = public_key_of(own_key(folder / "secrets.key"))
    sealed = seal_secret(key, value.encode(), associated_data("shop", device, name, version))
    return DesiredSecret(name=name, version=version, sealed=base64.b64encode(sealed).decode())


def test_values_stand_in_memory_for_their_owner_alone_and_are_gone_afterwards(
    vault: MemoryVault, tmp_path: Path
) -> None:
    files = dict(vault.files(TASK, "app", ["A", "B"]))
    assert len(set(files.values())) == 2
    with vault.opened([(files["A"], secret(tmp_path, "a", "one")), (files["B"], secret(tmp_path, "b", "two"))]):
        assert [Path(file).read_text() for file in files.values()] == ["one", "two"]
        assert {Path(file).stat().st_mode & 0o777 for file in files.values()} == {0o600}
        folder = Path(files["A"]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_sealed_secrets_that_were_swapped_or_are_of_another_version_or_device_stand_nowhere(
    vault: MemoryVault, tmp_path: Path
) -> None:
    ((_, file), (_, other)) = vault.files(TASK, "app", ["A", "B"])
    good = secret(tmp_path, "a", "one", 2)
    swapped = [
        good.model_copy(update={"name": "b"}),
        good.model_copy(update={"version": 1}),
        good.model_copy(update={"version": 3}),
        good.model_copy(update={"sealed": secret(tmp_path, "b", "two", 2).sealed}),
        secret(tmp_path, "a", "one", 2, device="pi-2"),
    ]
    for bad in swapped:
        told = pytest.raises(SecretUnavailableError, match=f"secret {bad.name}, version {bad.version}")
        with told, vault.opened([(other, good), (file, bad)]):
            pytest.fail("it was opened")
        assert not Path(file).exists()
        assert not Path(other).exists()


def test_a_start_that_fails_leaves_nothing_standing(vault: MemoryVault, tmp_path: Path) -> None:
    ((_, file),) = vault.files(TASK, "app", ["A"])
    with pytest.raises(ValueError, match="no such image"), vault.opened([(file, secret(tmp_path, "a", "one"))]):
        raise ValueError("no such image")
    assert not Path(file).exists()


def test_what_a_killed_agent_left_is_gone_with_the_next(vault: MemoryVault, tmp_path: Path) -> None:
    ((_, file),) = vault.files(TASK, "app", ["A"])
    vault._make_folder()
    Path(file).write_text("left")
    MemoryVault(tmp_path / "secrets.key", "shop", "pi-1", owner=str(tmp_path), places=("/dev/shm",))
    assert not Path(file).exists()


def test_a_link_or_a_folder_of_somebody_else_in_its_place_is_not_used(vault: MemoryVault, tmp_path: Path) -> None:
    ((_, file),) = vault.files(TASK, "app", ["A"])
    folder = Path(file).parent
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    folder.symlink_to(elsewhere)
    try:
        told = pytest.raises(SecretUnavailableError, match="somebody else")
        with told, vault.opened([(file, secret(tmp_path, "a", "one"))]):
            pytest.fail("it was opened")
        assert list(elsewhere.iterdir()) == []
    finally:
        folder.unlink()


def test_where_nothing_is_in_memory_secrets_are_refused(tmp_path: Path) -> None:
    vault = MemoryVault(tmp_path / "secrets.key", "shop", "pi-1", owner="x", places=("/sys/nowhere",))
    with pytest.raises(SecretUnavailableError, match="in memory"):
        vault.files(TASK, "app", ["A"])


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("/dev/sda / ext4 rw\ntmpfs /run tmpfs rw\n", True),
        ("tmpfs /run tmpfs rw\n/dev/sdb /run ext4 rw\n", False),
        ("tmpfs / tmpfs rw\n", True),
        ("tmpfs /runner tmpfs rw\n/dev/sda / ext4 rw\n", False),
        ("tmpfs /run/lock tmpfs rw\n/dev/sda / ext4 rw\n", False),
        ("", False),
    ],
)
def test_what_is_in_memory(mounts: str, expected: bool) -> None:  # noqa: FBT001
    assert is_in_memory(mounts, "/run") is expected


def test_taking_out_leaves_the_rest_and_overwrites_what_was(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"process": {"env": ["A=1", "PW=secret", "PWD=/"], "args": ["x"]}, "root": {}}')
    config.chmod(0o644)
    before = os.open(config, os.O_RDONLY)
    try:
        take_out(config, frozenset({"PW"}))
        assert config.read_text() == '{"process": {"env": ["A=1", "PWD=/"], "args": ["x"]}, "root": {}}'
        assert config.stat().st_mode & 0o777 == 0o644
        assert set(os.read(before, 1000)) == {0}
    finally:
        os.close(before)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"process": {"env": 1}}', "nonsense"])
def test_what_is_no_configuration_is_told(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        take_out(config, frozenset({"PW"}))
    assert config.read_text() == text
