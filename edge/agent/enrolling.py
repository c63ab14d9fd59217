"""`edge agent enroll`: a device without an identity asks for one, by an activation's id and code.

The key is made first and kept over every interruption; the request is made anew each time, for the same key, and the
fleet counts it once. Nothing is believed that does not prove knowledge of the code and repeat this run's nonce: not the
broker, not a clock.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.agent.adapters.clock import FlooredClock, SystemClock
from edge.agent.device_folder import DeviceFolder, Held
from edge.agent.device_key import make_request
from edge.agent.enrolling_request import Request, Wish
from edge.errors import InvalidInputError, StoreError
from edge.model.enrollment import DeviceIdentity
from edge.model.identifiers import check_name
from edge.mqtt.broker import Broker, BrokerSettings


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Who this device is now; `asked` is False when nothing was to do."""

    held: Held
    asked: bool


def enroll(
    folder: Path, wish: Wish, brokers: Callable[[BrokerSettings], Broker], tell: Callable[[str], None]
) -> Enrolled:
    """Give this device its identity, unless it has one whose certificate has not ended.

    Args:
        folder: Where it is to be, such as `/etc/edge`.
        wish: What to ask for.
        brokers: Makes a connection.
        tell: Told what is waited for, each thing once.

    Raises:
        RefusedError: The broker does not let the activation in; the fleet refuses the request, and says why; or there
            is an `agent.toml` with no place for an identity.
        TrustError: The answer was not made by who knows the code, or is not for this device.
        BrokerUnavailableError: There was no connection in time.
        DeadlineError: There was no answer in time, or no approval.
        InvalidInputError: The device has no name that could be its own; or there is an `agent.toml` that is none.
        StoreError: Something cannot be written.
    """
    place = DeviceFolder(folder)
    place.check()
    arrived = place.arrived()
    if arrived is not None:
        return _finished(place, arrived, asked=True)
    clock = FlooredClock(SystemClock(), "")
    held = place.held()
    if held is not None and not wish.force and datetime.fromisoformat(clock.now()) < held.ends:
        place.forget()
        return Enrolled(held, asked=False)
    device = _name(place, wish)
    request = Request(wish, device, make_request(place.waiting, device).read_text())
    identity = request.made(brokers, tell, clock.least)
    place.keep(identity)
    return _finished(place, identity, asked=True)


def _finished(place: DeviceFolder, identity: DeviceIdentity, *, asked: bool) -> Enrolled:
    place.put_in_place(identity)
    held = place.held()
    if held is None:
        raise StoreError(f"{place.path} does not hold what was just written there")
    return Enrolled(held, asked)


def _name(place: DeviceFolder, wish: Wish) -> str:
    """Return the device's name.

    Raises:
        InvalidInputError: It is none, or not that of the configuration that is here.
    """
    if place.config is not None and wish.device not in ("", place.config.device):
        raise InvalidInputError(
            f"{place.config.path} is for {place.config.device}, not for {wish.device}",
            hint="Leave out --device, put the file aside, or name another folder.",
        )
    if place.config is not None:
        return place.config.device
    return check_name("device", wish.device or socket.gethostname().split(".")[0].lower())
