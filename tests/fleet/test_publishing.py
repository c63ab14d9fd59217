from collections.abc import Callable
from pathlib import Path

from edge.fleet.devices import find_device
from edge.fleet.folder import Address, FleetSettings, init_fleet
from edge.fleet.identities import add_device
from edge.fleet.link import FleetLink
from edge.fleet.publishing import publish_newest
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.trust import Role
from edge.mqtt.broker import BrokerSettings, Publication
from tests.cli.bench import NOW
from tests.fakes.broker import FakeBroker, FakeHub


def _nothing() -> None:
    pass


class Overtaken(FakeBroker):
    """Lets another command compose and publish a newer revision just before our first one reaches the broker."""

    def __init__(self, hub: FakeHub, settings: BrokerSettings) -> None:
        super().__init__(hub, settings)
        self.overtake: Callable[[], None] = _nothing

    def publish(self, publication: Publication) -> bool:
        if publication.retain:
            overtake, self.overtake = self.overtake, _nothing
            overtake()
        return super().publish(publication)


def test_a_command_that_was_overtaken_does_not_leave_its_older_revision_at_the_broker(tmp_path: Path) -> None:
    hub = FakeHub(threaded=True)
    here = Address("broker.example", 8883)
    made: list[Overtaken] = []

    def connect(settings: BrokerSettings) -> FakeBroker:
        made.append(Overtaken(hub, settings))
        return made[-1]

    with init_fleet(tmp_path / "fleet", FleetSettings("shop", here, here), NOW) as fleet:
        device = add_device(fleet, "pi-1", tmp_path / "pi-1", NOW)
        topic = "edge/v1/shop/pi-1/desired"

        def overtake() -> None:
            newer = next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), device, NOW, nothing_new)
            hub.publish(Publication(topic, newer.envelope, 0, retain=True))

        with FleetLink(BrokerSettings("b", 1, "operator-1", session_expiry_seconds=0), connect) as link:
            next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), device, NOW, nothing_new)
            made[0].overtake = overtake
            assert publish_newest(link, fleet.database, device) == 2
        newest = find_device(fleet.database, "shop", "pi-1")
        assert hub.retained[topic].publication.payload == newest.desired
        assert newest.published_revision == 2
    hub.close()


def test_a_device_that_never_had_a_desired_state_gets_none(tmp_path: Path) -> None:
    hub = FakeHub(threaded=True)
    here = Address("broker.example", 8883)
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", here, here), NOW) as fleet:
        device = add_device(fleet, "pi-1", tmp_path / "pi-1", NOW)
        with FleetLink(BrokerSettings("b", 1, "operator-1", session_expiry_seconds=0), hub.broker) as link:
            assert publish_newest(link, fleet.database, device) == 0
    assert hub.published == []
    hub.close()
