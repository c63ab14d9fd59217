"""The fleet's keys and the trust bundles that follow one another: who may sign what, and how that changes.

A change is one new bundle, signed by the thresholds of the old root and of its own. It is stored before anybody sees
it, with the keys' new state in the same transaction.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from edge.errors import InvalidInputError, RefusedError
from edge.files import write_atomically
from edge.fleet.clock import timestamp
from edge.fleet.database import Database, Row
from edge.fleet.signing import CommandSigner, FileSigner, LateFileSigner
from edge.model.envelope import Signer, key_id_of, open_envelope
from edge.model.identifiers import check_name
from edge.model.trust import DOCUMENT_ROLES, BundleRole, Role, TrustBundle, TrustedSet, bundle_key, make_bundle

FIRST_KEY: Final = "first"
"""Name of the key that `edge fleet init` makes."""


class KeyKind(StrEnum):
    """Who holds a key's private half."""

    FILE = "file"
    COMMAND = "command"
    ABSENT = "absent"
    """Nobody here: it counts where its owner signs."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the fleet knows it.

    Attributes:
        location: Of a file: its path below the fleet's folder. Of a command: its words as a JSON list.
        retired_at: RFC 3339; empty for a key in force.
    """

    name: str
    key_id: str
    kind: KeyKind
    location: str
    public: bytes
    added_at: str
    retired_at: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """`threshold` of these keys must sign; `what` is for a person."""

    key_ids: frozenset[str]
    threshold: int
    what: str


Change = Callable[[TrustBundle, Mapping[str, KeyRecord]], TrustBundle]
"""Makes the next bundle's keys and roles out of the present ones and the keys by name."""


class Keyring:
    """The keys of one fleet."""

    def __init__(self, folder: Path, database: Database, bundle_file: Path) -> None:
        self._folder = folder
        self._database = database
        self._bundle_file = bundle_file

    # --- what is there ------------------------------------------------------------------------------------------

    def records(self) -> list[KeyRecord]:
        """Return all keys, the retired ones too, by name."""
        return [_record(row) for row in self._database.rows("SELECT * FROM keys ORDER BY name")]

    def chain(self) -> list[bytes]:
        """Return the sealed trust bundles, oldest first."""
        return trust_chain(self._database)

    def trusted(self) -> TrustedSet:
        """Return the keys in force."""
        return TrustedSet.from_bundle(self.chain()[-1])

    def signers(self, role: Role) -> list[Signer]:
        """Return as many holders of keys for a role as must sign, those first that ask nobody.

        Raises:
            RefusedError: Too few of them are here.
        """
        trusted = self.trusted()
        return _enough(self._holders(), (Rule(trusted.key_ids(role), trusted.threshold(role), role.value),))

    # --- what changes -------------------------------------------------------------------------------------------

    def begin(self, cluster: str, key: KeyRecord, signer: Signer, moment: datetime) -> None:
        """Store the first key and the first trust bundle, in which it may sign everything; inside a transaction."""
        rule = BundleRole(key_ids=[key.key_id], threshold=1)
        bundle = TrustBundle(
            version=1,
            clusters=[cluster],
            issued_at=timestamp(moment),
            keys={key.key_id: bundle_key(key.public)},
            roles=dict.fromkeys(DOCUMENT_ROLES, rule),
        )
        self._store_key(key)
        self._store_bundle(1, make_bundle(bundle, [signer]))

    def adopt(self, first_key: Path, moment: datetime) -> None:
        """Take over the one key and the one bundle of a fleet that was made before there was a keyring."""
        first = "SELECT 1 FROM trust_bundles"
        if self._database.row(first):
            return
        with self._database.transaction():
            if self._database.row(first):
                return
            sealed = self._bundle_file.read_bytes()
            signer = FileSigner.load(first_key)
            location = str(first_key.relative_to(self._folder))
            self._store_key(_file_record(FIRST_KEY, location, signer.public_key, moment))
            self._store_bundle(TrustedSet.version_of(sealed), sealed)

    def change(
        self, change: Change, moment: datetime, *, added: Sequence[KeyRecord] = (), brought: Sequence[Signer] = ()
    ) -> TrustedSet:
        """Make, sign and store the next trust bundle.

        Args:
            change: What is to be different.
            moment: Now.
            added: New keys, whose files are written already.
            brought: Holders of absent keys who are here for this once.

        Raises:
            RefusedError: Too few keys are here for the old root's threshold or for the new one's.
            TrustError: The bundle would be inconsistent.
            InvalidInputError: A new key's name is taken, or it is known under another name.
        """
        with self._database.transaction():
            for key in added:
                self._refuse_known(key)
                self._store_key(key)
            old = self.trusted()
            present = _payload(old.bundle)
            by_name = {key.name: key for key in self.records()}
            planned = change(present, by_name)
            version = old.version + 1
            bundle = planned.model_copy(update={"version": version, "issued_at": timestamp(moment)})
            holders = self._holders() | {one.key_id: one for one in brought}
            new_root = bundle.roles[Role.ROOT]
            rules = (
                Rule(old.key_ids(Role.ROOT), old.threshold(Role.ROOT), "root"),
                Rule(frozenset(new_root.key_ids), new_root.threshold, "the new root"),
            )
            sealed = make_bundle(bundle, _enough(holders, rules, leaving=set(present.keys) - set(bundle.keys)))
            trusted = old.replace(sealed)
            retired = [key for key in by_name.values() if not key.retired_at and key.key_id not in bundle.keys]
            for key in retired:
                self._database.change("UPDATE keys SET retired_at = ? WHERE name = ?", (timestamp(moment), key.name))
            self._store_bundle(version, sealed)
        return trusted

    # --- inside -------------------------------------------------------------------------------------------------

    def _holders(self) -> dict[str, Signer]:
        found = ((key.key_id, self._holder(key)) for key in self.records() if not key.retired_at)
        return {key_id: holder for key_id, holder in found if holder is not None}

    def _holder(self, key: KeyRecord) -> Signer | None:
        match key.kind:
            case KeyKind.FILE:
                path = self._folder / key.location
                return LateFileSigner(path, key.key_id) if path.exists() else None
            case KeyKind.COMMAND:
                return CommandSigner(tuple(json.loads(key.location)), key.public)
            case KeyKind.ABSENT:
                return None
            case _:
                assert_never(key.kind)

    def _refuse_known(self, key: KeyRecord) -> None:
        row = self._database.row("SELECT name FROM keys WHERE name = ? OR key_id = ?", (key.name, key.key_id))
        if row is not None:
            raise InvalidInputError(f"the fleet has that key already, as {row['name']}", hint="Choose another name.")

    def _store_key(self, key: KeyRecord) -> None:
        self._database.change(
            "INSERT INTO keys (name, key_id, kind, location, public, added_at) VALUES (?, ?, ?, ?, ?, ?)",
            (key.name, key.key_id, key.kind.value, key.location, key.public, key.added_at),
        )

    def _store_bundle(self, version: int, sealed: bytes) -> None:
        self._database.change("INSERT INTO trust_bundles (version, envelope) VALUES (?, ?)", (version, sealed))
        # What a new device is handed; the database alone says what is in force.
        write_atomically(self._bundle_file, sealed, 0o644)


def trust_chain(database: Database) -> list[bytes]:
    """Return the sealed trust bundles of a fleet, oldest first."""
    return [bytes(row["envelope"]) for row in database.rows("SELECT envelope FROM trust_bundles ORDER BY version")]


def new_file_key(folder: Path, name: str, passphrase: bytes, moment: datetime) -> KeyRecord:
    """Make a key in the fleet's folder; nobody believes it yet.

    Raises:
        RefusedError: There is such a file already.
        StoreError: It cannot be written.
    """
    location = f"keys/{check_name('key', name)}.key"
    path = folder / location
    if path.exists():
        raise RefusedError(f"{path} exists already", hint="Choose another name.")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return _file_record(name, location, FileSigner.create(path, passphrase).public_key, moment)


def _file_record(name: str, location: str, public: bytes, moment: datetime) -> KeyRecord:
    return KeyRecord(name, key_id_of(public), KeyKind.FILE, location, public, timestamp(moment))


def first_key(location: str, public: bytes, moment: datetime) -> KeyRecord:
    """Return the record of the key that a fleet begins with."""
    return _file_record(FIRST_KEY, location, public, moment)


def outside_key(name: str, command: Sequence[str], public: bytes, moment: datetime) -> KeyRecord:
    """Return the record of a key that a command holds, or without one nobody here."""
    kind = KeyKind.COMMAND if command else KeyKind.ABSENT
    location = json.dumps(list(command)) if command else ""
    return KeyRecord(check_name("key", name), key_id_of(public), kind, location, public, timestamp(moment))


def _enough(
    holders: Mapping[str, Signer], rules: Iterable[Rule], leaving: AbstractSet[str] = frozenset()
) -> list[Signer]:
    """Choose who signs: keys that stay before those that leave (they may be lost), then those that ask nobody."""
    chosen: dict[str, Signer] = {}
    for rule in rules:
        present = [key for key in rule.key_ids if key in holders]
        if not 0 < rule.threshold <= len(present):
            raise RefusedError(
                f"{rule.threshold or 1} keys must sign as {rule.what}; "
                f"{len(present)} of its {len(rule.key_ids)} are here",
                hint="`edge fleet key ls` shows them; --with FILE brings one that is kept elsewhere.",
            )
        present.sort(key=lambda key: (key in leaving, _costs(holders[key])))
        chosen |= {key: holders[key] for key in present[: rule.threshold]}
    return list(chosen.values())


def _payload(sealed: bytes) -> TrustBundle:
    return TrustBundle.model_validate_json(open_envelope(sealed).payload)


def _costs(signer: Signer) -> tuple[int, str]:
    """Order holders: an open file, then another program, then who asks for a passphrase."""
    if isinstance(signer, LateFileSigner):
        return (2 if b"ENCRYPTED" in signer.path.read_bytes()[:64] else 0), signer.key_id
    return 1, signer.key_id


def _record(row: Row) -> KeyRecord:
    values = dict(row)
    return KeyRecord(**{**values, "kind": KeyKind(values["kind"]), "public": bytes(values["public"])})
