from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from edge.errors import RefusedError
from edge.fleet.commands import SealedCommand, compose_command
from edge.fleet.devices import DeviceRecord
from edge.fleet.link import FleetLink
from edge.fleet.log_stream import LogRecord, StreamEnded, follow
from edge.model.documents import Command, CommandResult, CommandStatus, Operation
from edge.mqtt.broker import BrokerSettings
from tests.cli.bench import NOW
from tests.fakes.broker import FakeHub
from tests.fakes.device import FakeDevice
from tests.model.signers import MemorySigner, sealed_bundle

SIGNER = MemorySigner()
DEVICE = DeviceRecord("shop", "pi-1", "", "", "", 0, 0, 0, None)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub(threaded=True)
    yield made
    made.close()


def running(command: Command, device: FakeDevice) -> Sequence[CommandResult]:
    device.stream = device.topics.stream_out(command.id)
    return [CommandResult(id=command.id, op=command.op, status=CommandStatus.RUNNING)]


def connect(hub: FakeHub, kind: type[FakeDevice], **options: Any) -> FakeDevice:
    settings = BrokerSettings("broker.example", 8883, "pi-1")
    device = kind(hub.broker, settings, "shop", sealed_bundle([SIGNER]), **options)
    assert device.ready.wait(10)
    return device


def logs() -> SealedCommand:
    return compose_command(DEVICE, Operation.LOGS, {"taskId": "1" * 32, "follow": True}, [SIGNER], NOW)


def operator(hub: FakeHub) -> FleetLink:
    return FleetLink(BrokerSettings("broker.example", 8884, "operator-1", session_expiry_seconds=0), hub.broker)


class EndsAfterThreeAcknowledgements(FakeDevice):
    def hear(self, topic: str, document: dict[str, Any]) -> None:
        super().hear(topic, document)
        if len(self.said) == 3:
            self.publish(self.stream, {"frames": [], "end": "heard of three times"}, qos=0)


def test_an_operator_who_sees_nothing_is_heard_of_all_the_same(hub: FakeHub) -> None:
    device = connect(hub, EndsAfterThreeAcknowledgements, on_command=running)
    with operator(hub) as link:
        assert list(follow(link, logs(), acknowledge_seconds=0.02)) == [StreamEnded("heard of three times")]
    assert [document for _, document in device.said][:3] == [{"ack": 0}] * 3


def test_a_follower_who_goes_away_ends_the_stream_at_the_device(hub: FakeHub) -> None:
    class Endless(FakeDevice):
        def hear(self, topic: str, document: dict[str, Any]) -> None:
            super().hear(topic, document)
            if document.get("close"):
                closed.append(topic)

    def one_line(command: Command, device: FakeDevice) -> Sequence[CommandResult]:
        frame = {"seq": 1, "container": "app", "stream": "stdout", "time": "", "text": "hello"}
        device.publish(device.topics.stream_out(command.id), {"frames": [frame]}, qos=0)
        return running(command, device)

    closed: list[str] = []
    connect(hub, Endless, on_command=one_line)
    command = logs()
    with operator(hub) as link:
        items = follow(link, command)
        assert next(items) == LogRecord("app", "stdout", "", "hello")
        items.close()
        hub.pump()
    assert closed == [command.topics.stream_in(command.command.id)]


def test_a_refused_command_is_an_error_and_there_is_no_stream_to_close(hub: FakeHub) -> None:
    def refuse(command: Command, _: FakeDevice) -> Sequence[CommandResult]:
        return [CommandResult(id=command.id, op=command.op, status=CommandStatus.REJECTED, reason="not now")]

    device = connect(hub, FakeDevice, on_command=refuse)
    with operator(hub) as link, pytest.raises(RefusedError, match="not now"):
        list(follow(link, logs()))
    hub.pump()
    assert device.said == []
