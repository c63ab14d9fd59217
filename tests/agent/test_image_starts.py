"""When an image's start is over, who is told, and what the fleet hears of it."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.agent.adapters.lazy_images import LazyImages
from edge.agent.engine.uplink import Uplink
from edge.agent.store.state import Change, StateStore
from edge.model.start_profile import FileRange, StartProfile
from edge.model.start_profiles_document import decode_profiles
from edge.model.topics import Topics
from edge.mqtt.broker import Connected, Publication, PublicationAcknowledged
from tests.support.island import Island
from tests.support.tasks import container_definition as container

CHECK: dict[str, Any] = {"healthCheck": {"command": ["CMD", "true"], "interval": 10, "retries": 2}}
PROFILE = StartProfile("reg.example/app", "a" * 64, "sha256:x", "linux/arm64", 1, (FileRange("bin/app", 0, 10),))


def test_a_container_without_a_check_has_started_when_it_runs(tmp_path: Path) -> None:
    island = Island(tmp_path)
    assert island.reconciler.images_started() == (frozenset(), frozenset())
    task_id = island.run(container("app"))
    [image_id] = {one.image_id for one in island.reconciler.tasks[task_id].containers}
    assert island.reconciler.images_started() == (frozenset(), frozenset({image_id}))
    island.crash(task_id)
    assert island.reconciler.images_started() == (frozenset(), frozenset())


def test_a_container_with_a_check_has_started_when_it_is_healthy(tmp_path: Path) -> None:
    island = Island(tmp_path)
    task_id = island.run(container("app", **CHECK))
    [image_id] = {one.image_id for one in island.reconciler.tasks[task_id].containers}
    assert island.reconciler.images_started() == (frozenset(), frozenset())
    island.wait(30)
    assert island.reconciler.images_started() == (frozenset({image_id}), frozenset())


class Service:
    """An image service that knows one profile once it was told that its image is ready."""

    def __init__(self, path: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as lines:
                asked = json.loads(lines.readline())
                known = any(one["op"] == "ready" for one in self.asked)
                self.asked.append(asked)
                answer: Any = {"ready": {"starts": 1}, "profiles": [PROFILE.to_json()] if known else []}.get(
                    asked["op"], []
                )
                peer.sendall(json.dumps({"result": answer}).encode() + b"\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "images.sock")
    yield made
    made.close()


@pytest.mark.parametrize("after", [0.0, 0.05])
def test_the_service_is_told_and_what_it_learnt_is_passed_on(tmp_path: Path, service: Service, after: float) -> None:
    learnt: list[tuple[StartProfile, ...]] = []
    came = threading.Event()

    def take(profiles: tuple[StartProfile, ...]) -> None:
        learnt.append(profiles)
        if profiles:
            came.set()

    images = LazyImages(tmp_path / "images.sock", lambda _: None, take)
    images.started(frozenset({"a" * 64}), after)
    assert came.wait(20)
    images.close()
    assert learnt[-1] == (PROFILE,)
    assert {"op": "ready", "image": "a" * 64} in service.asked


class Wire:
    """A broker that takes everything."""

    def __init__(self) -> None:
        self.said: list[Publication] = []

    def publish(self, publication: Publication) -> bool:
        self.said.append(publication)
        return True


def test_profiles_are_told_retained_once_for_each_change_and_again_after_a_new_connection(tmp_path: Path) -> None:
    wire, topics = Wire(), Topics("shop", "pi-1")
    uplink = Uplink(wire, topics, StateStore(tmp_path / "state.db"), lambda _: b"{}")  # type: ignore[arg-type]
    uplink.profiles_changed((PROFILE,))
    uplink.pump()
    assert wire.said == []
    for _connection in range(2):
        uplink.connection_made(
            Connected(session_present=False, receive_maximum=20, maximum_packet_size=0), b"{}", b"{}"
        )
        uplink.pump()
        uplink.acknowledged(PublicationAcknowledged(wire.said[-1].token, 0), Change())
        uplink.profiles_changed((PROFILE,))
        uplink.pump()
    told = [one for one in wire.said if one.topic == "edge/v1/shop/pi-1/profiles"]
    assert [(one.retain, decode_profiles(json.loads(one.payload))) for one in told] == [(True, (PROFILE,))] * 2
