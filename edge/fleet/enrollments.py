"""What the fleet says to a device that asks for its identity by an activation.

All of a decision is one transaction, so that two requests at once cannot both be the last that an activation allows.
A request is known by activation, name and key: the same one again gets the same answer again and counts once, so that a
device that was cut off anywhere finishes by asking again.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from edge.errors import InvalidInputError, NotFoundError, RefusedError, TrustError
from edge.fleet.activations import Activation, find_activation
from edge.fleet.authority import Authority
from edge.fleet.broker_config import OPERATOR
from edge.fleet.clock import timestamp
from edge.fleet.database import Database, Row
from edge.fleet.folder import Fleet
from edge.fleet.identities import open_authority, read_file, store_identity
from edge.model.enrollment import (
    ActivationId,
    DeviceIdentity,
    EnrollmentAnswer,
    EnrollmentRequest,
    EnrollmentStatus,
    prove,
    read_request,
)
from edge.model.topics import ActivationTopics


class State(StrEnum):
    """How far a request is."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    ENROLLED = "ENROLLED"


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A device's request; `id` is a digest of activation, name and key."""

    id: str
    activation: str
    device: str
    key_digest: str
    state: State
    requested_at: str
    decided_at: str = ""
    serial: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What to send. `enrolled` is the device that the broker must let in now, if there is one."""

    payload: bytes
    enrolled: Enrollment | None = None


def answer_enrollment(fleet: Fleet, branch: ActivationTopics, payload: bytes, moment: datetime) -> Answered:
    """Judge a request that came on an activation's branch. A refusal is an answer too.

    Raises:
        NotFoundError: There is no such activation.
        TrustError: Whoever asks does not know its code: there is nothing that could be proved to it.
        StoreError: The fleet's folder cannot be used.
    """
    activation = find_activation(fleet.database, ActivationId(branch.cluster, branch.activation))
    asked = read_request(payload, activation.keys.request)
    if asked.activation != str(activation.id):
        raise TrustError(f"a request for {asked.activation} on the branch of {activation.id}")
    answer = EnrollmentAnswer(
        activation=asked.activation, device=asked.device, nonce=asked.nonce, status=EnrollmentStatus.REFUSED
    )
    try:
        enrollment = _decide(fleet, asked, moment)
    except (InvalidInputError, RefusedError) as error:
        refused = answer.model_copy(update={"reason": str(error)[:512]})
        return Answered(prove(refused, activation.keys.answer))
    return _answered(fleet, answer, enrollment, activation)


def approve(fleet: Fleet, name: str, moment: datetime) -> Enrollment:
    """Let a waiting request be answered with a certificate, the next time the device asks.

    Raises:
        NotFoundError: No waiting request begins with `name`, or several do.
    """
    return _settle(fleet, name, State.APPROVED, moment)


def deny(fleet: Fleet, name: str, moment: datetime) -> Enrollment:
    """Refuse a waiting request for good. It does not count against the activation's limit any more.

    Raises:
        NotFoundError: No waiting request begins with `name`, or several do.
    """
    return _settle(fleet, name, State.DENIED, moment)


def list_enrollments(database: Database) -> list[Enrollment]:
    """Return all requests, the newest first."""
    return [_enrollment(row) for row in database.rows("SELECT * FROM enrollments ORDER BY requested_at DESC, device")]


def _answered(fleet: Fleet, answer: EnrollmentAnswer, enrollment: Enrollment, activation: Activation) -> Answered:
    told = answer.model_copy(update={"enrollment": enrollment.id})
    enrolled = None
    match enrollment.state:
        case State.PENDING | State.APPROVED:
            reason = "an operator has to approve it: edge fleet enrollment approve"
            told = told.model_copy(update={"status": EnrollmentStatus.PENDING, "reason": reason})
        case State.DENIED:
            told = told.model_copy(update={"reason": "an operator denied it"})
        case State.ENROLLED:
            enrolled = enrollment
            identity = _identity(fleet, activation.id.cluster, enrollment)
            told = told.model_copy(update={"status": EnrollmentStatus.ENROLLED, "identity": identity})
        case never:
            assert_never(never)
    return Answered(prove(told, activation.keys.answer), enrolled)


def _identity(fleet: Fleet, cluster: str, enrollment: Enrollment) -> DeviceIdentity:
    return DeviceIdentity(
        cluster=cluster,
        device=enrollment.device,
        certificate=enrollment.certificate,
        authority=read_file(fleet.folder.ca_certificate).decode(),
        trust=read_file(fleet.folder.trust_bundle).decode(),
        broker_host=fleet.settings.broker.host,
        broker_port=fleet.settings.broker.port,
    )


def _decide(fleet: Fleet, asked: EnrollmentRequest, moment: datetime) -> Enrollment:
    """Return the request as it stands now; all or nothing of what is new about it is stored.

    Raises:
        InvalidInputError: It is no request for a certificate of that name.
        RefusedError: The activation does not allow it.
    """
    with fleet.database.transaction():
        # Read again, under the lock: this is what the limit holds by.
        activation = find_activation(fleet.database, ActivationId.parse(asked.activation))
        if activation.revoked_at:
            raise RefusedError("the activation was revoked")
        request = asked.request.encode()
        enrollment = _known_or_new(fleet, activation, asked, moment)
        match enrollment.state:
            case State.APPROVED:
                return _issue(fleet, activation, enrollment, request, moment)
            case State.ENROLLED:
                _check_not_taken_back(fleet, enrollment)
                return enrollment
            case State.PENDING | State.DENIED:
                return enrollment
            case never:
                assert_never(never)


def _known_or_new(fleet: Fleet, activation: Activation, asked: EnrollmentRequest, moment: datetime) -> Enrollment:
    digest = Authority.requested_key_digest(asked.device, asked.request.encode())
    name = hashlib.sha256(f"{asked.activation}\n{asked.device}\n{digest}".encode()).hexdigest()
    row = fleet.database.row("SELECT * FROM enrollments WHERE enrollment = ?", (name,))
    if row is not None:
        return _enrollment(row)
    _check_new(fleet, activation, asked.device, moment)
    state = State.PENDING if activation.approval else State.APPROVED
    enrollment = Enrollment(name, asked.activation, asked.device, digest, state, timestamp(moment))
    fleet.database.change(
        "INSERT INTO enrollments (enrollment, activation, device, key_digest, status, requested_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (name, asked.activation, asked.device, digest, state.value, timestamp(moment)),
    )
    return enrollment


def _check_new(fleet: Fleet, activation: Activation, device: str, moment: datetime) -> None:
    if activation.has_expired(moment):
        raise RefusedError(f"the activation ended at {activation.expires_at}")
    if activation.registered >= activation.limit:
        raise RefusedError(f"the activation is used up: it was for {activation.limit} device(s)")
    if not activation.allows(device):
        raise RefusedError(f"the activation is not for {device} but for {activation.device}")
    if device == OPERATOR:
        raise RefusedError(f"a device cannot be called {OPERATOR}")
    _check_name_is_free(fleet, activation, device)


def _check_name_is_free(fleet: Fleet, activation: Activation, device: str) -> None:
    # Device ids are unique in a fleet, whatever the cluster.
    row = fleet.database.row("SELECT cluster FROM devices WHERE device = ?", (device,))
    if row is not None and not (activation.replaces and row["cluster"] == activation.id.cluster):
        raise RefusedError(f"there is a device {device} already")


def _check_not_taken_back(fleet: Fleet, enrollment: Enrollment) -> None:
    row = fleet.database.row("SELECT revoked_at FROM certificates WHERE serial = ?", (enrollment.serial,))
    if row is None or row["revoked_at"]:
        raise RefusedError(f"device {enrollment.device} was revoked since")


def _issue(
    fleet: Fleet, activation: Activation, enrollment: Enrollment, request: bytes, moment: datetime
) -> Enrollment:
    # Meanwhile another request for the same name may have been first.
    _check_name_is_free(fleet, activation, enrollment.device)
    identity = open_authority(fleet).sign_device(activation.id.cluster, enrollment.device, request, moment)
    store_identity(fleet.database, activation.id.cluster, enrollment.device, identity, moment)
    certificate = identity.certificate.decode()
    fleet.database.change(
        "UPDATE enrollments SET status = ?, decided_at = ?, serial = ?, certificate = ? WHERE enrollment = ?",
        (State.ENROLLED.value, timestamp(moment), identity.serial, certificate, enrollment.id),
    )
    return replace(enrollment, state=State.ENROLLED, serial=identity.serial, certificate=certificate)


def _settle(fleet: Fleet, name: str, state: State, moment: datetime) -> Enrollment:
    with fleet.database.transaction():
        found = [
            one
            for one in list_enrollments(fleet.database)
            if one.state is State.PENDING and name and (one.id.startswith(name) or one.device == name)
        ]
        if len(found) != 1:
            what = f"{len(found)} requests wait" if found else "no request waits"
            raise NotFoundError(
                f"{what} under the name {name}", hint="`edge fleet enrollment ls` lists those that wait; give its id."
            )
        fleet.database.change(
            "UPDATE enrollments SET status = ?, decided_at = ? WHERE enrollment = ?",
            (state.value, timestamp(moment), found[0].id),
        )
    return replace(found[0], state=state, decided_at=timestamp(moment))


def _enrollment(row: Row) -> Enrollment:
    return Enrollment(
        id=row["enrollment"],
        activation=row["activation"],
        device=row["device"],
        key_digest=row["key_digest"],
        state=State(row["status"]),
        requested_at=row["requested_at"],
        decided_at=row["decided_at"],
        serial=row["serial"],
        certificate=row["certificate"],
    )
