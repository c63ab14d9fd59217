"""Signed one-offs to a device, and waiting for what becomes of them."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from edge.errors import DeadlineError, EdgeError, RefusedError
from edge.fleet.clock import timestamp
from edge.fleet.devices import DeviceRecord
from edge.fleet.link import FleetLink
from edge.fleet.messages import CommandAnswered
from edge.model.documents import COMMAND_TYPE, Command, CommandResult, CommandStatus, Operation
from edge.model.envelope import Signer, seal
from edge.model.topics import Topics

DEFAULT_LIFETIME_SECONDS: Final = 60
_FINAL: Final = frozenset(
    {CommandStatus.SUCCEEDED, CommandStatus.FAILED, CommandStatus.REJECTED, CommandStatus.EXPIRED}
)


@dataclass(frozen=True, slots=True)
class SealedCommand:
    """A command as it goes over the wire."""

    command: Command
    envelope: bytes

    @property
    def topics(self) -> Topics:
        """The branch of the device it is for."""
        return Topics(self.command.cluster, self.command.device)


def compose_command(  # noqa: PLR0913 - the parts of the document
    device: DeviceRecord,
    op: Operation,
    parameters: Mapping[str, Any],
    signers: Sequence[Signer],
    moment: datetime,
    *,
    lifetime_seconds: int = DEFAULT_LIFETIME_SECONDS,
) -> SealedCommand:
    """Compose and sign a command under a new idempotency key."""
    command = Command(
        cluster=device.cluster,
        device=device.device,
        op=op.value,
        id=secrets.token_hex(16),
        issued_at=timestamp(moment),
        expires_at=timestamp(moment + timedelta(seconds=lifetime_seconds)),
        lifetime_seconds=lifetime_seconds,
        parameters=dict(parameters),
    )
    data = json.dumps(command.to_wire(), separators=(",", ":")).encode()
    return SealedCommand(command, seal(data, COMMAND_TYPE, signers))


def send(link: FleetLink, sealed: SealedCommand) -> None:
    """Subscribe to the answer and publish the command."""
    command = sealed.command
    link.subscribe((sealed.topics.result(command.op, command.id), 1))
    link.publish(
        sealed.topics.command(command.op, command.id), sealed.envelope, expiry_seconds=command.lifetime_seconds
    )


def await_result(link: FleetLink, sealed: SealedCommand, *, until_running: bool = False) -> CommandResult:
    """Wait for the final answer, or with `until_running` for RUNNING; returns SUCCEEDED (or RUNNING) results.

    Raises:
        DeadlineError: No answer came during the command's life.
        EdgeError: The device could not (FAILED) or would not (REJECTED, EXPIRED); the message is its reason.
    """
    command = sealed.command
    deadline = time.monotonic() + command.lifetime_seconds
    for message in link.messages(deadline - time.monotonic()):
        if not isinstance(message, CommandAnswered) or message.result.id != command.id:
            continue
        result = message.result
        if result.status in _FINAL or (until_running and result.status is CommandStatus.RUNNING):
            return judged(command, result)
    raise DeadlineError(
        f"device {command.device} did not answer {command.op} within {command.lifetime_seconds} s",
        hint=f"`edge device show {command.device}` tells whether it is connected.",
    )


def judged(command: Command, result: CommandResult) -> CommandResult:
    """Return an answer that is no failure.

    Raises:
        EdgeError: It is one.
    """
    reason = result.reason or result.status.value
    match result.status:
        case CommandStatus.REJECTED:
            raise RefusedError(f"device {command.device} refused {command.op}: {reason}")
        case CommandStatus.EXPIRED:
            raise DeadlineError(f"device {command.device} got {command.op} too late: {reason}")
        case CommandStatus.FAILED:
            raise EdgeError(f"device {command.device} could not do {command.op}: {reason}")
        case _:
            return result
