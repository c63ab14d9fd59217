import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from edge.errors import EdgeError, InvalidInputError, NotFoundError, RefusedError
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet, open_fleet
from edge.fleet.key_changes import adding, requiring, retiring, rotating
from edge.fleet.keyring import KeyRecord, new_file_key, outside_key
from edge.fleet.signing import PASSPHRASE_FILE, CommandSigner, FileSigner, command_signer, read_public_key
from edge.model.documents import DESIRED_STATE_TYPE
from edge.model.envelope import seal
from edge.model.trust import DOCUMENT_ROLES, Role, TrustedSet
from edge.model.trust_chain import follow_chain, write_chain
from tests.cli.bench import NOW

ALL = list(DOCUMENT_ROLES)
HERE = Address("broker.example", 8883)
SIGNER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from edge.fleet.signing import FileSigner
sys.stdout.buffer.write(FileSigner.load(Path({key!r})).sign(sys.stdin.buffer.read()))
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", HERE, HERE), NOW) as fleet:
        yield fleet


def add(fleet: Fleet, name: str, *, passphrase: bytes = b"") -> KeyRecord:
    key = new_file_key(fleet.folder.path, name, passphrase, NOW)
    fleet.keyring.change(adding(name, ALL), NOW, added=[key])
    return key


def two_of_three(fleet: Fleet) -> None:
    add(fleet, "second")
    add(fleet, "third")
    for role in (Role.ROOT, Role.DESIRED_STATE):
        fleet.keyring.change(requiring(role, 2), NOW)


def public_file(folder: Path, signer: FileSigner) -> Path:
    path = folder / f"{signer.key_id[:8]}.pem"
    key = serialization.load_pem_private_key((folder / "elsewhere.key").read_bytes(), None).public_key()
    path.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return path


def test_every_change_is_a_bundle_that_devices_follow(fleet: Fleet) -> None:
    first = TrustedSet.from_bundle(fleet.folder.trust_bundle.read_bytes())
    two_of_three(fleet)
    newest = follow_chain(first, write_chain(fleet.keyring.chain()))
    assert newest.version == 5
    assert newest.bundle == fleet.folder.trust_bundle.read_bytes()
    assert (newest.threshold(Role.ROOT), newest.threshold(Role.COMMAND)) == (2, 1)


def test_the_loss_of_one_key_of_three_is_survived(fleet: Fleet) -> None:
    two_of_three(fleet)
    fleet.folder.signing_key.unlink()
    assert len(fleet.signers(Role.DESIRED_STATE)) == 2
    key = new_file_key(fleet.folder.path, "fourth", b"", NOW)
    trusted = fleet.keyring.change(rotating("first", "fourth"), NOW, added=[key])
    assert len(trusted.key_ids(Role.ROOT)) == 3
    assert [one.name for one in fleet.keyring.records() if one.retired_at] == ["first"]


def test_a_key_that_leaves_is_not_needed_for_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be lost: here nobody knows the passphrases."""
    monkeypatch.delenv(PASSPHRASE_FILE, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    add(fleet, "plain")
    names = [f"lost-{number}" for number in range(4)]
    for name in names:
        add(fleet, name, passphrase=b"forgotten")
    fleet.keyring.change(requiring(Role.ROOT, 2), NOW)
    for name in names:
        fleet.keyring.change(retiring(name), NOW)
    assert len(fleet.keyring.trusted().key_ids(Role.ROOT)) == 2


def test_the_theft_of_one_key_of_three_gains_nothing(fleet: Fleet) -> None:
    two_of_three(fleet)
    stolen = FileSigner.load(fleet.folder.signing_key)
    trusted = fleet.keyring.trusted()
    with pytest.raises(EdgeError, match="below threshold"):
        trusted.verify(seal(b"{}", DESIRED_STATE_TYPE, [stolen, stolen]), DESIRED_STATE_TYPE)


def test_without_enough_keys_nothing_is_signed(fleet: Fleet) -> None:
    two_of_three(fleet)
    for name in ("second", "third"):
        (fleet.folder.path / "keys" / f"{name}.key").unlink()
    with pytest.raises(RefusedError, match="2 keys must sign as desired-state; 1 of its 3 are here"):
        fleet.signers(Role.DESIRED_STATE)
    before = fleet.keyring.chain()
    with pytest.raises(RefusedError, match="as root"):
        fleet.keyring.change(retiring("second"), NOW)
    assert fleet.keyring.chain() == before


def test_a_key_kept_elsewhere_is_brought_to_sign(fleet: Fleet, tmp_path: Path) -> None:
    signer = FileSigner.create(tmp_path / "elsewhere.key")
    key = outside_key("safe", (), read_public_key(public_file(tmp_path, signer)), NOW)
    fleet.keyring.change(adding("safe", [Role.ROOT]), NOW, added=[key])
    # Two of two must sign from now on: the new threshold wants both at once.
    with pytest.raises(RefusedError, match="as the new root"):
        fleet.keyring.change(requiring(Role.ROOT, 2), NOW)
    fleet.keyring.change(requiring(Role.ROOT, 2), NOW, brought=[signer])
    assert fleet.keyring.trusted().threshold(Role.ROOT) == 2


def test_a_retired_key_signs_no_more(fleet: Fleet) -> None:
    add(fleet, "second")
    fleet.keyring.change(retiring("first"), NOW)
    (signer,) = fleet.signers(Role.COMMAND)
    assert signer.key_id != FileSigner.load(fleet.folder.signing_key).key_id
    with pytest.raises(NotFoundError):
        fleet.keyring.change(retiring("first"), NOW)


def test_the_last_key_cannot_be_retired(fleet: Fleet) -> None:
    with pytest.raises(RefusedError, match="would have 0 keys, and 1 must sign"):
        fleet.keyring.change(retiring("first"), NOW)


@pytest.mark.parametrize("threshold", [0, 2, -1])
def test_a_threshold_that_nobody_can_reach_is_refused(fleet: Fleet, threshold: int) -> None:
    with pytest.raises(InvalidInputError, match="1 keys"):
        fleet.keyring.change(requiring(Role.ROOT, threshold), NOW)


def test_a_name_is_taken_once(fleet: Fleet) -> None:
    key = new_file_key(fleet.folder.path, "second", b"", NOW)
    fleet.keyring.change(adding("second", ALL), NOW, added=[key])
    with pytest.raises(RefusedError, match="exists already"):
        new_file_key(fleet.folder.path, "second", b"", NOW)
    with pytest.raises(InvalidInputError, match="as second"):
        fleet.keyring.change(adding("second", ALL), NOW, added=[key])
    with pytest.raises(InvalidInputError):
        new_file_key(fleet.folder.path, "../second", b"", NOW)


def test_a_key_with_a_passphrase(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = add(fleet, "second", passphrase=b"correct horse")
    path = fleet.folder.path / key.location
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    # The key that asks nobody is used while there is one.
    assert fleet.signers(Role.COMMAND)[0].key_id != key.key_id
    secret = tmp_path / "secret"
    monkeypatch.setenv(PASSPHRASE_FILE, str(secret))
    secret.touch(0o600)
    secret.write_text("correct horse\n")
    fleet.keyring.change(retiring("first"), NOW)
    (signer,) = fleet.signers(Role.COMMAND)
    assert len(signer.sign(b"message")) == 64
    secret.write_text("battery staple\n")
    with pytest.raises(RefusedError, match="not the passphrase"):
        fleet.signers(Role.COMMAND)[0].sign(b"message")


def test_nobody_to_ask_for_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_FILE, raising=False)
    with (tmp_path / "nobody").open("w+") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        FileSigner.create(tmp_path / "key", b"secret")
        with pytest.raises(RefusedError, match="nobody is there"):
            FileSigner.load(tmp_path / "key")


def test_another_program_holds_the_key(fleet: Fleet, tmp_path: Path) -> None:
    signer = FileSigner.create(tmp_path / "elsewhere.key")
    program = SIGNER.format(path=sys.path, key=str(tmp_path / "elsewhere.key"))
    command = (sys.executable, "-c", program)
    public = read_public_key(public_file(tmp_path, signer))
    command_signer(command, public)
    fleet.keyring.change(adding("token", ALL), NOW, added=[outside_key("token", command, public, NOW)])
    fleet.keyring.change(retiring("first"), NOW)
    with open_fleet(fleet.folder.path) as again:
        assert isinstance(again.signers(Role.COMMAND)[0], CommandSigner)
        document = seal(b"{}", DESIRED_STATE_TYPE, again.signers(Role.DESIRED_STATE))
        again.keyring.trusted().verify(document, DESIRED_STATE_TYPE)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((), "empty"),
        (("/nowhere/signer",), "could not sign"),
        (("false",), "could not sign"),
        (("echo", "nonsense!"), "no signature"),
        (("head", "-c", "64", "/dev/zero"), "gave no signature by key"),
    ],
)
def test_a_program_that_does_not_sign(tmp_path: Path, command: tuple[str, ...], message: str) -> None:
    signer = FileSigner.create(tmp_path / "key")
    with pytest.raises(EdgeError, match=message):
        command_signer(command, signer.public_key)


def test_a_public_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(InvalidInputError, match="not an Ed25519 public key"):
        read_public_key(tmp_path / "bad.pem")
    with pytest.raises(NotFoundError):
        read_public_key(tmp_path / "none.pem")


def test_a_fleet_from_before_the_keyring_is_taken_over(fleet: Fleet) -> None:
    with fleet.database.transaction():
        fleet.database.change("DELETE FROM keys")
        fleet.database.change("DELETE FROM trust_bundles")
    with open_fleet(fleet.folder.path) as again:
        assert [key.name for key in again.keyring.records()] == ["first"]
        assert again.keyring.chain() == [fleet.folder.trust_bundle.read_bytes()]
