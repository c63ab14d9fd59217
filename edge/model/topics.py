"""Every MQTT topic of this project, built and taken apart in one place. The table with directions is `docs/mqtt.md`.

Fixed depth below `edge/v1/<cluster>/<device>`, so that two ACL patterns hold a device to its own branch.

>>> Topics("shop", "pi-1").desired
'edge/v1/shop/pi-1/desired'
>>> parse_command("edge/v1/shop/pi-1/cmd/logs/0123456789abcdef")
('logs', '0123456789abcdef')
"""

import re
from dataclasses import dataclass
from typing import Final

from edge.model.identifiers import COMMAND_ID_PATTERN, NAME_PATTERN, check_name

ROOT: Final = "edge/v1"
EVENT_KINDS: Final = ("task", "service", "local")
_COMMAND: Final = re.compile(r"^edge/v1/[^/]+/[^/]+/cmd/([A-Za-z]{1,32})/([^/]+)$")
_COMMAND_ID: Final = re.compile(COMMAND_ID_PATTERN)
_NAME: Final = NAME_PATTERN[1:-1]
_DEVICE: Final = re.compile(rf"edge/v1/({_NAME})/({_NAME})/(.+)")
_ACTIVATION: Final = re.compile(rf"edge/v1/({_NAME})/_enroll/([0-9a-f]{{16}})/req")


@dataclass(frozen=True, slots=True)
class Topics:
    """One device's branch. Both names are checked before any topic is built."""

    cluster: str
    device: str

    def __post_init__(self) -> None:
        check_name("cluster", self.cluster)
        check_name("device", self.device)

    def _of(self, channel: str) -> str:
        return f"{ROOT}/{self.cluster}/{self.device}/{channel}"

    @property
    def desired(self) -> str:
        """To the device, retained: the envelope around its whole desired state."""
        return self._of("desired")

    @property
    def desired_ack(self) -> str:
        """From the device, retained: what became of a revision."""
        return self._of("desired/ack")

    @property
    def trust(self) -> str:
        """To the device, retained: every trust bundle since the first (`edge.model.trust_chain`)."""
        return self._of("trust")

    @property
    def head_question(self) -> str:
        """From the device: what is the newest revision?"""
        return self._of("head/ask")

    @property
    def head(self) -> str:
        """To the device: the signed answer."""
        return self._of("head")

    @property
    def certificate_request(self) -> str:
        """From the device: a certificate for a new key of its own."""
        return self._of("cert/ask")

    @property
    def certificate(self) -> str:
        """To the device: that certificate."""
        return self._of("cert")

    @property
    def reported(self) -> str:
        """From the device, retained: tasks and containers as ECS describes them."""
        return self._of("reported")

    @property
    def status(self) -> str:
        """From the device, retained, and its will: is it there?"""
        return self._of("status")

    @property
    def birth(self) -> str:
        """From the device, retained: what it is and can do."""
        return self._of("birth")

    @property
    def profiles(self) -> str:
        """From the device, retained: what its images read when they start."""
        return self._of("profiles")

    @property
    def commands(self) -> str:
        """The filter for all commands to the device."""
        return self._of("cmd/+/+")

    def command(self, op: str, command_id: str) -> str:
        """To the device: one signed one-off; `command_id` is its idempotency key."""
        return self._of(f"cmd/{op}/{command_id}")

    def result(self, op: str, command_id: str) -> str:
        """From the device: what became of a command."""
        return self._of(f"res/{op}/{command_id}")

    def telemetry(self, stream: str) -> str:
        """From the device: blocks of a stream's records."""
        return self._of(f"tel/{stream}")

    def event(self, kind: str) -> str:
        """From the device: a state change, EventBridge-shaped."""
        return self._of(f"evt/{kind}")

    def stream_in(self, stream_id: str) -> str:
        """To the device: window updates and the end of a stream."""
        return self._of(f"stream/{stream_id}/in")

    def stream_out(self, stream_id: str) -> str:
        """From the device: frames of a stream."""
        return self._of(f"stream/{stream_id}/out")

    @property
    def streams_in(self) -> str:
        """The filter for what is said to all streams of the device."""
        return self._of("stream/+/in")


@dataclass(frozen=True, slots=True)
class ActivationTopics:
    """The branch of an activation, where devices enrol. No device's branch can be called `_enroll`.

    >>> ActivationTopics("shop", "0123456789abcdef").request
    'edge/v1/shop/_enroll/0123456789abcdef/req'
    """

    cluster: str
    activation: str

    def __post_init__(self) -> None:
        check_name("cluster", self.cluster)
        check_name("activation", self.activation)

    @property
    def request(self) -> str:
        """From a device that is none yet."""
        return f"{ROOT}/{self.cluster}/_enroll/{self.activation}/req"

    @property
    def answer(self) -> str:
        """To it, and to all others that enrol by the same activation now."""
        return f"{ROOT}/{self.cluster}/_enroll/{self.activation}/res"


def parse_enrollment(topic: str) -> ActivationTopics | None:
    """Return the branch of a request for enrolment, or None when it is none."""
    match = _ACTIVATION.fullmatch(topic)
    return None if match is None else ActivationTopics(match[1], match[2])


def parse_command(topic: str) -> tuple[str, str] | None:
    """Return `(op, command id)` of a command topic, or None when it is not one."""
    match = _COMMAND.fullmatch(topic)
    if match is None or not _COMMAND_ID.fullmatch(match[2]):
        return None
    return match[1], match[2]


def parse_device(topic: str) -> tuple[Topics, str] | None:
    """Return whose branch a topic is in and the channel below it, or None when it is not below `edge/v1`."""
    match = _DEVICE.fullmatch(topic)
    if match is None:
        return None
    return Topics(match[1], match[2]), match[3]
