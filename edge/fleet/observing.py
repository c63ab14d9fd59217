"""What the broker has retained of devices, taken over into the fleet database before anything is decided."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from edge.errors import TrustError
from edge.fleet.device_keys import learn_key
from edge.fleet.devices import DeviceRecord, list_devices
from edge.fleet.folder import Fleet
from edge.fleet.link import FleetLink
from edge.fleet.messages import (
    Born,
    CommandAnswered,
    EventHappened,
    FleetMessage,
    FramesStreamed,
    LinkBack,
    LinkLost,
    ProfilesTold,
    Reported,
    RevisionJudged,
    StatusTold,
    Unreadable,
)
from edge.fleet.tasks import record_rejection, record_report
from edge.model.documents import ConnectionState, DeviceStatus, RevisionAck, RevisionOutcome
from edge.model.start_profile import StartProfile
from edge.model.topics import Topics

_log = logging.getLogger(__name__)


@dataclass
class DeviceView:
    """The newest that is known of a device; None and empty where it has said nothing."""

    status: DeviceStatus | None = None
    ack: RevisionAck | None = None
    report: dict[str, Any] = field(default_factory=dict)
    birth: dict[str, Any] = field(default_factory=dict)
    profiles: tuple[StartProfile, ...] = ()

    @property
    def connection(self) -> str:
        """`ONLINE`, `OFFLINE`, or `NEVER SEEN`."""
        return self.status.state.value if self.status else "NEVER SEEN"

    @property
    def is_online(self) -> bool:
        """Its agent is connected."""
        return self.status is not None and self.status.state is ConnectionState.ONLINE

    def take(self, message: FleetMessage) -> None:
        """Take a message of this device over."""
        match message:
            case Reported():
                self.report = message.document
            case Born():
                self.birth = message.document
            case ProfilesTold():
                self.profiles = message.profiles
            case StatusTold():
                self.status = message.status
            case RevisionJudged():
                self.ack = message.ack
            case CommandAnswered() | EventHappened() | FramesStreamed() | Unreadable() | LinkLost() | LinkBack():
                pass
            case _:
                assert_never(message)


def observe(link: FleetLink, fleet: Fleet, devices: Sequence[DeviceRecord]) -> dict[str, DeviceView]:
    """Return what devices said last, by device name, and keep listening to the same topics."""
    views = {record.device: DeviceView() for record in devices}
    filters = [name for record in devices for name in _retained_topics(record)]
    if not filters:
        return views
    for message in link.retained(fleet.settings.cluster, filters):
        view = _view_of(message, views)
        if view is not None:
            view.take(message)
    for record in devices:
        _remember(fleet, record, views[record.device])
    return views


def reported_profiles(link: FleetLink, fleet: Fleet) -> list[StartProfile]:
    """Return what the devices of a fleet said that their images read when they start."""
    topics = [Topics(one.cluster, one.device).profiles for one in list_devices(fleet.database) if one.may_connect]
    found = link.retained(fleet.settings.cluster, topics) if topics else []
    return [profile for message in found if isinstance(message, ProfilesTold) for profile in message.profiles]


def rejection_reason(ack: RevisionAck) -> str:
    """Say in one line why a device refused a revision."""
    told = "; ".join(f"{error.path}: {error.message}" if error.path else error.message for error in ack.errors)
    return told or "the device gave no reason"


def _retained_topics(record: DeviceRecord) -> tuple[str, ...]:
    topics = Topics(record.cluster, record.device)
    return topics.status, topics.reported, topics.birth, topics.desired_ack


def _view_of(message: FleetMessage, views: dict[str, DeviceView]) -> DeviceView | None:
    match message:
        case Unreadable() | LinkLost() | LinkBack():
            return None
        case _:
            return views.get(message.device.device)


def _remember(fleet: Fleet, record: DeviceRecord, view: DeviceView) -> None:
    if view.report:
        record_report(fleet.database, record, view.report)
    try:
        learn_key(fleet, record, view.birth)
    except TrustError as error:
        # What was believed before stays; whoever carries messages may have made this up.
        _log.warning("%s", error)
    ack = view.ack
    if ack is not None and ack.outcome is RevisionOutcome.REJECTED and ack.revision is not None:
        record_rejection(fleet.database, record, ack.revision, rejection_reason(ack), view.report)
