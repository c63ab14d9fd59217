"""The controller's answer to a device that asks what the newest is."""

import json
from datetime import datetime

from pydantic import ValidationError

from edge.errors import InvalidInputError, NotFoundError, RefusedError
from edge.fleet.clock import timestamp
from edge.fleet.devices import find_device
from edge.fleet.folder import Fleet
from edge.model.documents import HEAD_TYPE, MAXIMUM_DOCUMENT_BYTES, Head, HeadQuestion
from edge.model.envelope import seal
from edge.model.topics import Topics
from edge.model.trust import Role


def answer_head(fleet: Fleet, device: Topics, question: bytes, moment: datetime) -> bytes:
    """Return the signed head for a device.

    Raises:
        InvalidInputError: It is no question.
        NotFoundError: The fleet has no such device.
        RefusedError: It was revoked; or the key that signs heads is not here.
    """
    if len(question) > MAXIMUM_DOCUMENT_BYTES:
        raise InvalidInputError(f"a question of {len(question)} bytes")
    try:
        asked = HeadQuestion.model_validate_json(question)
    except ValidationError as error:
        raise InvalidInputError("no question for the head") from error
    if device.cluster != fleet.settings.cluster:
        raise NotFoundError(f"there is no cluster {device.cluster} in this fleet")
    record = find_device(fleet.database, device.cluster, device.device)
    if not record.may_connect:
        raise RefusedError(f"device {record.device} was revoked at {record.revoked_at}")
    head = Head(
        cluster=record.cluster,
        device=record.device,
        nonce=asked.nonce,
        revision=record.revision,
        trust_version=fleet.keyring.trusted().version,
        time=timestamp(moment),
    )
    return seal(json.dumps(head.to_wire(), separators=(",", ":")).encode(), HEAD_TYPE, fleet.signers(Role.HEAD))
