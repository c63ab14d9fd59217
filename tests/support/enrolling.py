"""A fleet whose broker takes activations: real Mosquitto with TLS, a real controller, and devices that enrol."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.agent.enrolling import Enrolled, enroll
from edge.agent.enrolling_request import Wish as Asked
from edge.fleet.activations import Activation, Wish, create_activation
from edge.fleet.broker_folder import refresh_access_list, write_broker_folder
from edge.fleet.broker_lists import BrokerLists
from edge.fleet.clock import now
from edge.fleet.controller import Controller
from edge.fleet.enrollments import Enrollment
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet, open_fleet
from edge.mqtt.paho_broker import PahoBroker
from tests.support.mosquitto import Mosquitto, free_port

CLUSTER = "shop"


@dataclass
class Site:
    """The fleet's side; `ahead` is how far the controller's clock is."""

    folder: Path
    ahead: timedelta = timedelta(0)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.folder / "fleet"
        self.port, device, operator = free_port(), free_port(), free_port()
        settings = FleetSettings(CLUSTER, Address("127.0.0.1", device), Address("127.0.0.1", operator))
        with init_fleet(self.path, settings, now()) as fleet:
            write_broker_folder(
                fleet, self.folder / "broker", now(), address="127.0.0.1", enrollment_port=self.port, user="root"
            )
        # The same without TLS, so that a test can see what travels.
        self.plain_port = free_port()
        plain = f"listener {self.plain_port} 127.0.0.1\nuse_username_as_clientid true\n"
        text = (self.folder / "broker" / "mosquitto.conf").read_text() + plain
        self.device_port = device
        self.broker = Mosquitto(self.folder / "broker", text, (device, operator, self.port, self.plain_port))
        self.broker.start()
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self.start_controller()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_controller()
        self.broker.kill()

    @property
    def ca(self) -> Path:
        return self.path / "ca.crt"

    def fleet(self) -> Fleet:
        return open_fleet(self.path)

    def start_controller(self, let_in: Callable[[Enrollment], None] | None = None) -> None:
        """`edge controller run`, on a thread; `let_in` in the place of what tells the broker."""
        ready, done = threading.Event(), threading.Event()

        def run() -> None:
            with self.fleet() as fleet:
                settings = fleet.folder.broker_settings(fleet.settings.operator, "operator-controller")
                lists = BrokerLists(fleet, ("kill", "-HUP", str(self.broker.pid)), now)
                controller = Controller(PahoBroker(settings), fleet, lambda: now() + self.ahead, let_in or lists.let_in)
                controller.start()
                # A broken controller ends here, as its process would.
                with suppress(Broken):
                    while not done.is_set():
                        controller.step(0.05)
                        ready.set()
                controller.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(10)

        def stop() -> None:
            done.set()
            thread.join(10)
            assert not thread.is_alive()

        self._stop = stop

    def stop_controller(self) -> None:
        self._stop()
        self._stop = lambda: None

    def activation(self, **wish: Any) -> tuple[Activation, str]:
        """Make one, and let the broker know it."""
        with self.fleet() as fleet:
            made = create_activation(fleet, Wish(**wish), now())
        self.reload()
        return made

    def reload(self) -> None:
        """Write the lists and return when Mosquitto has read them."""
        before = self.broker.log().count("Reloading config")
        with self.fleet() as fleet:
            refresh_access_list(fleet, now())
        self.broker.signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while self.broker.log().count("Reloading config") == before:
            assert time.monotonic() < end, self.broker.log()
            time.sleep(0.01)
        time.sleep(0.05)

    def asked(self, activation: Activation, code: str, device: str = "pi-1", **changes: Any) -> Asked:
        asked = Asked(activation.id, code, "127.0.0.1", self.port, self.ca, device, seconds=20.0)
        return replace(asked, **changes)

    def enroll(self, activation: Activation, code: str, device: str = "pi-1", **changes: Any) -> Enrolled:
        """What the device does; its folder is called like it."""
        return enroll(self.place(device), self.asked(activation, code, device, **changes), PahoBroker, self.told.append)

    def place(self, device: str) -> Path:
        """That folder."""
        return self.folder / "devices" / device

    def devices(self) -> list[str]:
        with self.fleet() as fleet:
            return [row["device"] for row in fleet.database.rows("SELECT device FROM devices ORDER BY device")]

    def registered(self) -> list[tuple[str, str]]:
        """Device and state of every request that was ever counted."""
        with self.fleet() as fleet:
            rows = fleet.database.rows("SELECT device, status FROM enrollments ORDER BY device")
        return [(row["device"], row["status"]) for row in rows]


class Broken(BaseException):
    """The controller dies."""
