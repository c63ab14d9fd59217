"""A fleet is one folder on the operator's machine: its database, its keys, its devices' hand-over folders.

Whoever can read the folder can make every device run anything: it is mode 0700, its keys 0600.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from edge.errors import InvalidInputError, NotFoundError, RefusedError
from edge.files import make_folder, store_error, write_atomically
from edge.fleet.clock import now
from edge.fleet.database import Database
from edge.fleet.keyring import Keyring, first_key
from edge.fleet.signing import FileSigner
from edge.model.envelope import Signer
from edge.model.identifiers import check_name
from edge.model.trust import Role
from edge.mqtt.broker import BrokerSettings

DEVICE_PORT: Final = 8883
"""MQTT over TLS, as IANA registered it."""
OPERATOR_PORT: Final = 8884
"""The second listener, where a client id is free to choose."""
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_MAXIMUM_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or address and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int) -> "Address":
        """Read `HOST`, `HOST:PORT` or `[IPV6]:PORT`.

        Raises:
            InvalidInputError: It is none of these.
        """
        if text.startswith("["):
            host, closing, port = text[1:].partition("]")
            # Without its `]` it is no address: an impossible port refuses it below.
            port = port.removeprefix(":") if closing else "0"
        elif text.count(":") > 1:
            host, port = text, ""
        else:
            host, _, port = text.partition(":")
        number = int(port) if port.isascii() and port.isdigit() else default_port if not port else 0
        if not _HOST.fullmatch(host) or not 1 <= number <= _MAXIMUM_PORT:
            raise InvalidInputError(f"{text!r} is not a broker address", hint="Write it as HOST or HOST:PORT.")
        return cls(host, number)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What `edge fleet init` decided.

    Attributes:
        broker: Where devices find the broker.
        operator: Where this command line finds it.
    """

    cluster: str
    broker: Address
    operator: Address


@dataclass(frozen=True, slots=True)
class FleetFolder:
    """Where everything of a fleet lies."""

    path: Path

    @property
    def database(self) -> Path:
        """SQLite."""
        return self.path / "fleet.db"

    @property
    def telemetry(self) -> Path:
        """What the devices measured."""
        return self.path / "telemetry.db"

    @property
    def ca_certificate(self) -> Path:
        """The CA every party of the fleet trusts for TLS."""
        return self.path / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Signs device certificates."""
        return self.path / "ca.key"

    @property
    def signing_key(self) -> Path:
        """The first key; there may be others, see `edge.fleet.keyring`."""
        return self.path / "signing.key"

    @property
    def trust_bundle(self) -> Path:
        """The newest trust bundle, sealed."""
        return self.path / "trust.json"

    @property
    def operator_certificate(self) -> Path:
        """Who this command line is to the broker."""
        return self.path / "operator.crt"

    @property
    def operator_key(self) -> Path:
        """The key of `operator_certificate`."""
        return self.path / "operator.key"

    def device(self, cluster: str, device: str) -> Path:
        """Where a device's identity waits to be handed over, unless the operator said another place."""
        return self.path / "devices" / check_name("cluster", cluster) / check_name("device", device)

    def broker_settings(self, operator: Address, client_id: str) -> BrokerSettings:
        """Say how this command line connects."""
        return BrokerSettings(
            host=operator.host,
            port=operator.port,
            client_id=client_id,
            ca_file=self.ca_certificate,
            cert_file=self.operator_certificate,
            key_file=self.operator_key,
            session_expiry_seconds=0,
            receive_maximum=64,
        )


class Fleet:
    """An open fleet."""

    def __init__(self, folder: FleetFolder, database: Database, settings: FleetSettings) -> None:
        self.folder = folder
        self.database = database
        self.settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    @property
    def keyring(self) -> Keyring:
        """The fleet's keys and trust bundles."""
        return Keyring(self.folder.path, self.database, self.folder.trust_bundle)

    def signers(self, role: Role) -> list[Signer]:
        """Return who must sign for a role; raises as `Keyring.signers`."""
        return self.keyring.signers(role)


def open_fleet(path: Path) -> Fleet:
    """Open a fleet that was initialized.

    Raises:
        NotFoundError: There is none at `path`.
        StoreError: Its database cannot be used.
    """
    folder = FleetFolder(path)
    missing = NotFoundError(
        f"there is no fleet in {path}",
        hint="Make one with `edge fleet init --broker HOST`, or name its folder with --fleet DIR or EDGE_FLEET.",
    )
    if not folder.database.exists():
        raise missing
    database = Database(folder.database)
    settings = _load_settings(database)
    if settings is None:
        database.close()
        raise missing
    fleet = Fleet(folder, database, settings)
    fleet.keyring.adopt(folder.signing_key, now())
    return fleet


def init_fleet(path: Path, settings: FleetSettings, moment: datetime) -> Fleet:
    """Make a fleet: CA, operator certificate, signing key, trust bundle, database.

    The database's settings are written last and make the fleet one: a run that broke off before is simply repeated.

    Raises:
        RefusedError: There is one already.
        InvalidInputError: The cluster's name is none.
        StoreError: Something cannot be written.
    """
    check_name("cluster", settings.cluster)
    folder = FleetFolder(path)
    try:
        make_folder(path)
    except OSError as error:
        raise store_error(f"cannot make {path}", error) from error
    database = Database(folder.database)
    try:
        with database.transaction():
            _refuse_existing(path, database)
            _make_keys(folder, database, settings, moment)
            _store_settings(database, settings)
    except BaseException:
        database.close()
        raise
    return Fleet(folder, database, settings)


def _refuse_existing(path: Path, database: Database) -> None:
    if _load_settings(database) is not None:
        raise RefusedError(f"{path} is a fleet already", hint="Name another folder with --fleet DIR.")


def _make_keys(folder: FleetFolder, database: Database, settings: FleetSettings, moment: datetime) -> None:
    from edge.fleet.authority import Authority, create_authority  # noqa: PLC0415 - heavy, used here only

    root = create_authority(settings.cluster, moment)
    operator = Authority(root.certificate, root.key).issue_operator(moment)
    write_atomically(folder.ca_key, root.key)
    write_atomically(folder.ca_certificate, root.certificate, 0o644)
    write_atomically(folder.operator_key, operator.key)
    write_atomically(folder.operator_certificate, operator.certificate, 0o644)
    signer = FileSigner.create(folder.signing_key)
    key = first_key(folder.signing_key.name, signer.public_key, moment)
    Keyring(folder.path, database, folder.trust_bundle).begin(settings.cluster, key, signer, moment)


def _load_settings(database: Database) -> FleetSettings | None:
    found = {row["key"]: row["value"] for row in database.rows("SELECT key, value FROM settings")}
    if "cluster" not in found:
        return None
    return FleetSettings(
        found["cluster"],
        Address.parse(found["broker"], DEVICE_PORT),
        Address.parse(found["operator"], OPERATOR_PORT),
    )


def _store_settings(database: Database, settings: FleetSettings) -> None:
    rows = {"cluster": settings.cluster, "broker": str(settings.broker), "operator": str(settings.operator)}
    for key, value in rows.items():
        database.change("INSERT INTO settings (key, value) VALUES (?, ?)", (key, value))
