"""Activations: with one, somebody who has its id and code may enrol so many devices, until it ends.

The code is told once and kept nowhere. Kept are two keys that are derived from it, and a hash of the password that is:
who has the fleet's database can prove answers and requests of the activations in it, yet cannot come to the broker as
one of them, and cannot find the code.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from edge.errors import InvalidInputError, NotFoundError, RefusedError
from edge.fleet.broker_config import OPERATOR
from edge.fleet.broker_passwords import password_hash
from edge.fleet.clock import timestamp
from edge.fleet.database import Database, Row
from edge.fleet.folder import Fleet
from edge.model.enrollment import ActivationId, ActivationKeys, derive_keys, derive_password, new_code
from edge.model.identifiers import check_name

DEFAULT_LIFE: Final = timedelta(hours=24)
LONGEST_LIFE: Final = timedelta(days=30)
MOST_DEVICES: Final = 1000
"""Life and number as Systems Manager's `CreateActivation` has them:
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CreateActivation.html."""
_PATTERN: Final = re.compile(r"[a-z0-9*-]{1,64}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What an activation is to be good for.

    Attributes:
        device: The name of the one device it is for, or a pattern with `*`; empty for any name that is free.
        replaces: It is for a device that is there already, which gets a new certificate; its tasks stay.
        approval: An operator decides about each request.
    """

    limit: int = 1
    life: timedelta = DEFAULT_LIFE
    device: str = ""
    replaces: bool = False
    approval: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation as the fleet keeps it.

    Attributes:
        registered: How many of its requests count against the limit: all that were not denied.
        waiting: How many of these wait for an operator, or for the device to ask again.
    """

    id: ActivationId
    device: str
    replaces: bool
    approval: bool
    limit: int
    created_at: str
    expires_at: str
    revoked_at: str
    registered: int
    waiting: int
    password_hash: str = field(repr=False)
    keys: ActivationKeys = field(repr=False)

    def state(self, moment: datetime) -> str:
        """Return one word for people."""
        if self.revoked_at:
            return "REVOKED"
        if self.has_expired(moment):
            return "EXPIRED"
        return "USED" if self.registered >= self.limit and not self.waiting else "ACTIVE"

    def has_expired(self, moment: datetime) -> bool:
        """Whether its time is over, by our clock."""
        return moment >= datetime.fromisoformat(self.expires_at)

    def may_connect(self, moment: datetime) -> bool:
        """Whether the broker lets it in: until it ends, and as long as one of its requests waits."""
        return not self.revoked_at and (not self.has_expired(moment) or self.waiting > 0)

    def allows(self, device: str) -> bool:
        """Whether it is for a device of that name."""
        pattern = ".*".join(re.escape(part) for part in self.device.split("*"))
        return not self.device or re.fullmatch(pattern, device) is not None


def create_activation(fleet: Fleet, wish: Wish, moment: datetime) -> tuple[Activation, str]:
    """Make an activation; returns it and its code, which nobody can tell again.

    Raises:
        InvalidInputError: What is wished for cannot be.
        RefusedError: The one device it is for is there already, and it is not to be replaced; or the other way round.
    """
    _check(wish)
    activation, code = ActivationId.new(fleet.settings.cluster), new_code()
    keys = derive_keys(activation, code)
    with fleet.database.transaction():
        _check_device(fleet, wish)
        fleet.database.change(
            "INSERT INTO activations (activation, cluster, request_key, answer_key, password_hash, device, replaces,"
            " approval, registration_limit, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                str(activation),
                activation.cluster,
                keys.request,
                keys.answer,
                password_hash(derive_password(activation, code)),
                wish.device,
                int(wish.replaces),
                int(wish.approval),
                wish.limit,
                timestamp(moment),
                timestamp(moment + wish.life),
            ),
        )
    return find_activation(fleet.database, activation), code


def revoke_activation(fleet: Fleet, activation: ActivationId, moment: datetime) -> Activation:
    """Let nobody enrol by an activation any more. Devices that did stay; asking twice is fine.

    Raises:
        NotFoundError: There is no such activation.
    """
    with fleet.database.transaction():
        find_activation(fleet.database, activation)
        fleet.database.change(
            "UPDATE activations SET revoked_at = ? WHERE activation = ? AND revoked_at = ''",
            (timestamp(moment), str(activation)),
        )
    return find_activation(fleet.database, activation)


def find_activation(database: Database, activation: ActivationId) -> Activation:
    """Return an activation.

    Raises:
        NotFoundError: There is none of that id.
    """
    found = _read(database, str(activation))
    if not found:
        raise NotFoundError(f"there is no activation {activation}", hint="`edge fleet activation ls` lists them.")
    return found[0]


def list_activations(database: Database) -> list[Activation]:
    """Return all of them, the newest first."""
    return _read(database, "")


def _read(database: Database, activation: str) -> list[Activation]:
    """Return one of them, or all."""
    rows = database.rows(
        "SELECT a.*, count(e.enrollment) FILTER (WHERE e.status <> 'DENIED') AS registered,"
        " count(e.enrollment) FILTER (WHERE e.status IN ('PENDING', 'APPROVED')) AS waiting"
        " FROM activations a LEFT JOIN enrollments e USING (activation) WHERE ? IN ('', activation)"
        " GROUP BY activation ORDER BY a.created_at DESC, activation",
        (activation,),
    )
    return [_activation(row) for row in rows]


def _activation(row: Row) -> Activation:
    return Activation(
        id=ActivationId.parse(row["activation"]),
        device=row["device"],
        replaces=bool(row["replaces"]),
        approval=bool(row["approval"]),
        limit=row["registration_limit"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        registered=row["registered"],
        waiting=row["waiting"],
        password_hash=row["password_hash"],
        keys=ActivationKeys(row["request_key"], row["answer_key"]),
    )


def _check(wish: Wish) -> None:
    if not 1 <= wish.limit <= MOST_DEVICES:
        raise InvalidInputError(f"an activation is for 1 to {MOST_DEVICES} devices, not for {wish.limit}")
    if not timedelta(0) < wish.life <= LONGEST_LIFE:
        raise InvalidInputError(f"an activation lasts {LONGEST_LIFE.days} days at most, and longer than no time")
    if wish.device and not _PATTERN.fullmatch(wish.device):
        raise InvalidInputError(f"{wish.device!r} is no device's name, and no pattern of one")
    if wish.device and "*" not in wish.device and check_name("device", wish.device) == OPERATOR:
        raise InvalidInputError(f"a device cannot be called {OPERATOR}")
    if wish.replaces and (not wish.device or "*" in wish.device):
        raise InvalidInputError(
            "an activation for a device that is there already is for that one alone", hint="Name it with --device NAME."
        )


def _check_device(fleet: Fleet, wish: Wish) -> None:
    if not wish.device or "*" in wish.device:
        return
    values = (fleet.settings.cluster, wish.device)
    exists = fleet.database.row("SELECT 1 FROM devices WHERE cluster = ? AND device = ?", values) is not None
    if exists and not wish.replaces:
        raise RefusedError(
            f"device {wish.device} has an identity already",
            hint="--force makes an activation by which it gets a new one; its tasks stay.",
        )
    if wish.replaces and not exists:
        raise NotFoundError(f"there is no device {wish.device} to be replaced", hint="Leave out --force.")
