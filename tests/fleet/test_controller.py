import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import BrokerError, BrokerUnavailableError, InvalidInputError, NotFoundError, RefusedError
from edge.fleet.controller import Controller
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.heads import answer_head
from edge.fleet.identities import add_device, revoke_device
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.documents import HEAD_TYPE, Head
from edge.model.topics import Topics
from edge.model.trust import Role
from edge.mqtt.broker import BrokerEvent, Disconnected, MessageReceived, Publication, Subscribed
from tests.cli.bench import NOW
from tests.fakes.broker import FakeHub

HERE = Address("broker.example", 8883)
PI = Topics("shop", "pi-1")
QUESTION = json.dumps({"schemaVersion": 1, "nonce": "ab" * 16}).encode()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", HERE, HERE), NOW) as fleet:
        add_device(fleet, "pi-1", tmp_path / "pi-1", NOW)
        yield fleet


def opened(fleet: Fleet, answer: bytes) -> Head:
    return Head.model_validate_json(fleet.keyring.trusted().verify(answer, HEAD_TYPE).payload)


def test_the_head_is_the_newest_revision_and_the_question_s_number(fleet: Fleet) -> None:
    record = add_device(fleet, "pi-2", fleet.folder.path / "pi-2", NOW)
    next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), record, NOW, nothing_new)
    head = opened(fleet, answer_head(fleet, Topics("shop", "pi-2"), QUESTION, NOW))
    assert (head.device, head.nonce, head.revision, head.trust_version) == ("pi-2", "ab" * 16, 1, 1)
    assert opened(fleet, answer_head(fleet, PI, QUESTION, NOW)).revision == 0


@pytest.mark.parametrize("question", [b"", b"{}", b"[]", b'{"schemaVersion":1,"nonce":"../x"}', b"[" * 300_000])
def test_what_is_no_question_is_refused(fleet: Fleet, question: bytes) -> None:
    with pytest.raises(InvalidInputError):
        answer_head(fleet, PI, question, NOW)


@pytest.mark.parametrize("device", [Topics("shop", "pi-9"), Topics("farm", "pi-1")])
def test_a_device_that_is_none_gets_no_answer(fleet: Fleet, device: Topics) -> None:
    with pytest.raises(NotFoundError):
        answer_head(fleet, device, QUESTION, NOW)


def test_a_revoked_device_gets_no_answer(fleet: Fleet) -> None:
    revoke_device(fleet, "pi-1", NOW)
    with pytest.raises(RefusedError, match="was revoked at"):
        answer_head(fleet, PI, QUESTION, NOW)


def test_questions_are_answered_to_who_asked_and_wrong_ones_are_not(fleet: Fleet) -> None:
    hub = FakeHub()
    controller = Controller(hub.broker(fleet.folder.broker_settings(HERE, "controller")), fleet, lambda: NOW)
    controller.start()
    device = hub.broker(fleet.folder.broker_settings(HERE, "pi-1"))
    heard: list[MessageReceived] = []
    device.start(lambda event: heard.append(event) if isinstance(event, MessageReceived) else None)
    hub.pump()
    device.subscribe(((PI.head, 1),))
    settle(hub, controller)
    for number, payload in enumerate((b"nonsense", QUESTION)):
        device.publish(Publication(PI.head_question, payload, number))
        settle(hub, controller)
    assert (controller.answered, controller.refused) == (1, 1)
    assert opened(fleet, heard[0].payload).nonce == "ab" * 16
    controller.close()


def settle(hub: FakeHub, controller: Controller) -> None:
    hub.pump()
    while controller.step(0.01):
        hub.pump()


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Subscribed(("x",), (0x87,)), BrokerError),
        (Disconnected("not authorised", refused=True, retry_seconds=1.0), BrokerUnavailableError),
    ],
)
def test_a_broker_that_refuses_ends_it(fleet: Fleet, event: BrokerEvent, error: type[Exception]) -> None:
    broker = FakeHub().broker(fleet.folder.broker_settings(HERE, "controller"))
    controller = Controller(broker, fleet, lambda: NOW)
    controller.start()
    broker.deliver(event)
    with pytest.raises(error):
        controller.step(0.1)
