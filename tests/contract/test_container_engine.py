"""What every container engine does, on the fake and on real Podman."""

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from edge.agent.adapters.podman import PodmanEngine
from edge.agent.engine.ports import ContainerEngine, EngineStatus, Image
from edge.errors import (
    EngineError,
    EngineUnavailableError,
    ImagePullError,
    NameInUseError,
    NoSuchContainerError,
    NoSuchImageError,
    PortInUseError,
    RegistryUnavailableError,
)
from edge.model.container_spec import LABEL_SECRETS, ContainerSpec, LogSettings, Mount, PortMapping, VolumeSpec
from tests.fakes.container_engine import FakeEngine
from tests.support.mosquitto import free_port
from tests.support.oci_layout import busybox_image, host_architecture
from tests.support.podman import IMAGE, PodmanService, podman_service
from tests.support.registry import Registry

_LABELS = (("edge.device", "test/one"),)
_ABSENT = "f" * 64
_PATIENCE_SECONDS = 30


class World(Protocol):
    """An engine, and the hand that moves what is around it."""

    @property
    def engine(self) -> ContainerEngine: ...

    def spec(self, name: str, **fields: object) -> ContainerSpec:
        """A container that does what `say` and `end` tell it."""
        ...

    def say(self, container: ContainerSpec, text: str, stream: str = "stdout") -> None: ...

    def end(self, container: ContainerSpec, code: int) -> None: ...

    def publish(self, name: str, architecture: str) -> str:
        """Put an image into the registry and return its reference."""
        ...

    def registry_away(self) -> None: ...

    def engine_away(self) -> None: ...

    def engine_back(self) -> None: ...

    def close(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.engine.images[IMAGE] = Image("a" * 64, "", host_architecture())

    def spec(self, name: str, **fields: object) -> ContainerSpec:
        return ContainerSpec(name, "a" * 64, _LABELS, **{"network_mode": "none"} | fields)  # type: ignore[arg-type]

    def say(self, container: ContainerSpec, text: str, stream: str = "stdout") -> None:
        self.engine.say(self._id(container), text, stream)

    def end(self, container: ContainerSpec, code: int) -> None:
        self.engine.end(self._id(container), code)

    def _id(self, container: ContainerSpec) -> str:
        found = self.engine.find(container.name)
        assert found is not None
        return found.runtime_id

    def publish(self, name: str, architecture: str) -> str:
        assert self.engine.registry is not None
        digest = f"sha256:{name.encode().hex():0>64}"
        self.engine.registry[f"registry/{name}:1"] = Image("c" * 64, digest, architecture)
        self.engine.registry[f"registry/{name}@{digest}"] = Image("c" * 64, digest, architecture)
        return f"registry/{name}:1"

    def registry_away(self) -> None:
        self.engine.registry = None

    def engine_away(self) -> None:
        self.engine.alive = False

    def engine_back(self) -> None:
        self.engine.alive = True

    def close(self) -> None:
        self.engine.close()


class PodmanWorld:
    """Containers read what to do from a pipe that is mounted into them."""

    _SCRIPT = """exec 3<>/control/pipe
    while read -r verb text <&3; do
        case $verb in stdout) echo "$text";; stderr) echo "$text" >&2;; exit) exit $text;; esac
    done"""

    def __init__(self, service: PodmanService, folder: Path) -> None:
        self._service = service
        self._folder = folder
        self._registry = Registry(folder / "registry")
        self._registry.start()
        service.allow_insecure(self._registry.address)
        self.engine = PodmanEngine(service.socket)
        self._pipes: list[int] = []

    def spec(self, name: str, **fields: object) -> ContainerSpec:
        control = self._folder / f"control-{name}"
        control.mkdir(exist_ok=True)
        if not (control / "pipe").exists():
            os.mkfifo(control / "pipe")
        image = self.engine.image(IMAGE)
        assert image is not None
        base = {
            "network_mode": "none",
            "command": ("/bin/sh", "-c", self._SCRIPT),
            "mounts": (Mount("bind", str(control), "/control"),),
        }
        return ContainerSpec(name, image.image_id, _LABELS, **base | fields)  # type: ignore[arg-type]

    def say(self, container: ContainerSpec, text: str, stream: str = "stdout") -> None:
        self._tell(container, f"{stream} {text}")

    def end(self, container: ContainerSpec, code: int) -> None:
        self._tell(container, f"exit {code}")

    def _tell(self, container: ContainerSpec, line: str) -> None:
        # Opened for both, so that neither side waits for the other; the kernel keeps the line until it is read.
        pipe = os.open(Path(container.mounts[0].source) / "pipe", os.O_RDWR)
        os.write(pipe, f"{line}\n".encode())
        self._pipes.append(pipe)

    def publish(self, name: str, architecture: str) -> str:
        reference = busybox_image(self._registry, name, ["sleep", "1000"])
        assert architecture == host_architecture()
        return reference

    def registry_away(self) -> None:
        self._registry.kill()

    def engine_away(self) -> None:
        self._service.kill()

    def engine_back(self) -> None:
        self._service.start()

    def close(self) -> None:
        if self._service.died():
            self._service.start()
        for container in self.engine.list_labelled(*_LABELS[0]):
            self.engine.remove(container.runtime_id)
        self.engine.close()
        self._registry.kill()
        for pipe in self._pipes:
            os.close(pipe)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    with podman_service(tmp_path_factory.mktemp("podman")) as running:
        yield running


@pytest.fixture(params=["fake", pytest.param("podman", marks=[pytest.mark.podman, pytest.mark.registry])])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made: World = FakeWorld()
    if request.param == "podman":
        made = PodmanWorld(request.getfixturevalue("service"), tmp_path)
    yield made
    made.close()


@pytest.fixture
def engine(world: World) -> ContainerEngine:
    return world.engine


# --- a container's life


def test_a_created_container_does_not_run_yet(world: World, engine: ContainerEngine) -> None:
    spec = world.spec("one")
    found = engine.inspect(engine.create(spec))
    assert found is not None
    assert (found.status, found.pid, found.exit_code, found.started_at) == (EngineStatus.CREATED, 0, None, "")
    assert (found.name, found.labels["edge.device"], found.image_id) == ("one", "test/one", spec.image_id)


def test_a_started_container_is_returned_running_and_starting_it_again_leaves_it_alone(
    world: World, engine: ContainerEngine
) -> None:
    runtime_id = engine.create(world.spec("one"))
    first = engine.start(runtime_id)
    assert first.status is EngineStatus.RUNNING
    assert first.pid > 0
    assert first.started_at
    assert engine.start(runtime_id) == first


def test_a_name_is_given_once(world: World, engine: ContainerEngine) -> None:
    engine.create(world.spec("one"))
    with pytest.raises(NameInUseError):
        engine.create(world.spec("one"))
    assert len(engine.list_labelled(*_LABELS[0])) == 1


def test_an_image_that_is_not_there_makes_no_container(engine: ContainerEngine) -> None:
    assert engine.image("localhost/none:1") is None
    with pytest.raises(NoSuchImageError):
        engine.create(ContainerSpec("one", "0" * 64, _LABELS))
    assert engine.find("one") is None


def test_an_exit_code_is_kept_until_the_next_start(world: World, engine: ContainerEngine) -> None:
    spec = world.spec("one")
    container = engine.start(engine.create(spec))
    ended = threading.Event()
    engine.watch_exit(container, lambda _: ended.set())
    world.end(spec, 3)
    assert ended.wait(_PATIENCE_SECONDS)
    found = engine.inspect(container.runtime_id)
    assert found is not None
    assert (found.status, found.exit_code, found.oom_killed) == (EngineStatus.EXITED, 3, False)
    assert found.finished_at
    again = engine.start(container.runtime_id)
    assert (again.status, again.exit_code) == (EngineStatus.RUNNING, None)
    assert again.pid != container.pid


def test_a_container_that_is_stopped_has_ended_and_stopping_it_again_is_success(
    world: World, engine: ContainerEngine
) -> None:
    runtime_id = engine.create(world.spec("one"))
    engine.stop(runtime_id, 0)
    engine.start(runtime_id)
    engine.stop(runtime_id, 0)
    engine.stop(runtime_id, 0)
    found = engine.inspect(runtime_id)
    assert found is not None
    assert (found.status, found.exit_code) == (EngineStatus.EXITED, 137)


@pytest.mark.parametrize(
    ("command", "passes"),
    [
        (("true",), True),
        (("false",), False),
        (("no-such-program",), False),
        (("sleep", "4711"), False),
        (("/bin/sh", "-c", "sleep 4711 & sleep 4711"), False),
        (("/bin/sh", "-c", "yes >&2"), False),
    ],
)
def test_a_check_passes_when_its_command_ends_with_0_in_time(
    world: World,
    engine: ContainerEngine,
    command: tuple[str, ...],
    passes: bool,  # noqa: FBT001
) -> None:
    runtime_id = engine.create(world.spec("checked"))
    engine.start(runtime_id)
    before = _processes()
    assert engine.run_check(runtime_id, command, 1.0) is passes
    assert _processes() <= before
    assert engine.run_check(runtime_id, ("true",), 10.0)


def test_a_container_that_does_not_run_cannot_be_checked(world: World, engine: ContainerEngine) -> None:
    with pytest.raises(NoSuchContainerError):
        engine.run_check(_ABSENT, ("true",), 5.0)
    runtime_id = engine.create(world.spec("checked"))
    engine.start(runtime_id)
    assert engine.run_check(runtime_id, ("true",), 10.0)
    engine.stop(runtime_id, 0)
    with pytest.raises(NoSuchContainerError):
        engine.run_check(runtime_id, ("true",), 5.0)


def _processes() -> set[str]:
    """The command lines that a check could leave behind."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line.startswith((b"sleep\x004711", b"yes", b"/bin/sh\x00-c\x00sleep 4711")):
            found.add(str(path))
    return found


def test_what_is_gone_is_stopped_and_removed_already_but_cannot_start(engine: ContainerEngine) -> None:
    engine.stop(_ABSENT, 0)
    engine.remove(_ABSENT)
    assert engine.inspect(_ABSENT) is None
    with pytest.raises(NoSuchContainerError):
        engine.start(_ABSENT)


def test_a_running_container_is_removed(world: World, engine: ContainerEngine) -> None:
    runtime_id = engine.start(engine.create(world.spec("one"))).runtime_id
    engine.remove(runtime_id)
    assert engine.find("one") is None
    assert engine.inspect(runtime_id) is None


def test_containers_are_found_by_name_and_by_label(world: World, engine: ContainerEngine) -> None:
    created, running = engine.create(world.spec("one")), engine.create(world.spec("two"))
    engine.start(running)
    found = engine.find("two")
    assert found is not None
    assert found.runtime_id == running
    listed = {one.runtime_id: one for one in engine.list_labelled(*_LABELS[0])}
    assert {one: found.status for one, found in listed.items()} == {
        created: EngineStatus.CREATED,
        running: EngineStatus.RUNNING,
    }
    assert listed[running].pid == found.pid
    assert listed[running].labels == found.labels
    assert engine.list_labelled("edge.device", "test/other") == ()


def test_a_list_says_how_a_container_ended(world: World, engine: ContainerEngine) -> None:
    spec = world.spec("one")
    container = engine.start(engine.create(spec))
    ended = threading.Event()
    engine.watch_exit(container, lambda _: ended.set())
    world.end(spec, 4)
    assert ended.wait(_PATIENCE_SECONDS)
    (found,) = engine.list_labelled(*_LABELS[0])
    assert (found.status, found.exit_code) == (EngineStatus.EXITED, 4)


def test_a_taken_port_is_told_as_such(world: World, engine: ContainerEngine) -> None:
    ports = (PortMapping(80, free_port()),)
    engine.start(engine.create(world.spec("one", network_mode="bridge", ports=ports)))
    second = engine.create(world.spec("two", network_mode="bridge", ports=ports))
    with pytest.raises(PortInUseError):
        engine.start(second)


def test_the_end_of_a_container_is_told_once_and_at_once_when_it_is_past(world: World, engine: ContainerEngine) -> None:
    told: list[str] = []
    ended = threading.Event()

    def exited(runtime_id: str) -> None:
        told.append(runtime_id)
        ended.set()

    container = engine.start(engine.create(world.spec("one")))
    engine.watch_exit(container, exited)
    engine.stop(container.runtime_id, 0)
    assert ended.wait(_PATIENCE_SECONDS)
    ended.clear()
    engine.watch_exit(container, exited)
    assert ended.wait(_PATIENCE_SECONDS)
    assert told == [container.runtime_id] * 2


def test_an_engine_that_is_away_says_nothing_about_its_containers(world: World, engine: ContainerEngine) -> None:
    spec = world.spec("one")
    container = engine.start(engine.create(spec))
    ended = threading.Event()
    engine.watch_exit(container, lambda _: ended.set())
    world.engine_away()
    calls = (
        lambda: engine.inspect(container.runtime_id),
        lambda: engine.find("one"),
        lambda: engine.list_labelled(*_LABELS[0]),
        lambda: engine.create(spec),
        lambda: engine.start(container.runtime_id),
        lambda: engine.stop(container.runtime_id, 0),
        lambda: engine.remove(container.runtime_id),
        lambda: engine.image(IMAGE),
        lambda: engine.pull("registry/one:1", host_architecture()),
        lambda: engine.create_volume(VolumeSpec("edge-test")),
        lambda: engine.remove_volume("edge-test"),
        lambda: next(engine.logs(container.runtime_id, tail=None, follow=False)),
        engine.version,
    )
    for call in calls:
        with pytest.raises(EngineUnavailableError):
            call()
    world.engine_back()
    assert engine.start(container.runtime_id) == container, "it ran on"
    world.end(spec, 5)
    assert ended.wait(_PATIENCE_SECONDS)
    found = engine.inspect(container.runtime_id)
    assert found is not None
    assert found.exit_code == 5


# --- volumes


def test_volumes_are_made_and_removed_any_number_of_times(engine: ContainerEngine) -> None:
    for _ in range(2):
        engine.create_volume(VolumeSpec("edge-test", labels=_LABELS))
    for _ in range(2):
        engine.remove_volume("edge-test")


# --- images


def test_an_image_is_pulled_by_tag_and_by_digest(world: World, engine: ContainerEngine) -> None:
    reference = world.publish("app", host_architecture())
    assert engine.image(reference) is None
    pulled = engine.pull(reference, host_architecture())
    assert pulled.architecture == host_architecture()
    assert pulled.digest.startswith("sha256:")
    assert engine.image(reference) == pulled
    by_digest = f"{reference.removesuffix(':1')}@{pulled.digest}"
    assert engine.pull(by_digest, host_architecture()).image_id == pulled.image_id


def test_an_image_that_does_not_exist_is_the_askers_fault(world: World, engine: ContainerEngine) -> None:
    reference = world.publish("app", host_architecture()).replace("app", "nothing")
    with pytest.raises(ImagePullError, match="manifest unknown") as caught:
        engine.pull(reference, host_architecture())
    assert caught.value.reason == "CannotPullContainerError"


def test_an_image_for_another_machine_is_refused(world: World, engine: ContainerEngine) -> None:
    reference = world.publish("app", host_architecture())
    with pytest.raises(ImagePullError):
        engine.pull(reference, "s390x")


def test_a_registry_that_is_away_is_waited_for_but_not_for_what_is_here(world: World, engine: ContainerEngine) -> None:
    reference = world.publish("app", host_architecture())
    pulled = engine.pull(reference, host_architecture())
    by_digest = f"{reference.removesuffix(':1')}@{pulled.digest}"
    assert engine.pull(by_digest, host_architecture()) == pulled
    world.registry_away()
    with pytest.raises(RegistryUnavailableError) as caught:
        engine.pull(reference, host_architecture())
    assert caught.value.reason == "CannotPullContainerError"
    assert engine.pull(by_digest, host_architecture()) == pulled
    assert engine.image(reference) == pulled, "a tag that cannot be asked for keeps what it had"


# --- logs


def texts(engine: ContainerEngine, runtime_id: str, tail: int | None = None) -> list[str]:
    return [line.text for line in engine.logs(runtime_id, tail=tail, follow=False)]


def test_lines_are_read_back_with_their_stream(world: World, engine: ContainerEngine) -> None:
    spec = world.spec("one")
    container = engine.start(engine.create(spec))
    follow = engine.logs(container.runtime_id, tail=None, follow=True)
    lines = []
    for number in range(5):
        world.say(spec, f"line {number} ünd", "stderr" if number % 2 else "stdout")
        lines.append(next(follow))
    world.end(spec, 0)
    assert list(follow) == [], "it ends with its container"
    assert [line.stream for line in lines] == ["stdout", "stderr", "stdout", "stderr", "stdout"]
    everything = [f"line {number} ünd" for number in range(5)]
    assert [line.text for line in lines] == everything
    assert sorted(line.time for line in lines) == [line.time for line in lines]
    assert texts(engine, container.runtime_id) == everything
    assert texts(engine, container.runtime_id, tail=2) == everything[-2:]
    assert texts(engine, container.runtime_id, tail=0) == []
    assert texts(engine, container.runtime_id, tail=99) == everything


def test_a_log_is_followed_from_now_on(world: World, engine: ContainerEngine) -> None:
    spec = world.spec("one")
    container = engine.start(engine.create(spec))
    before = engine.logs(container.runtime_id, tail=None, follow=True)
    world.say(spec, "old")
    assert next(before).text == "old"
    follow = engine.logs(container.runtime_id, tail=0, follow=True)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.extend(line.text for line in follow))
    reader.start()
    while not got and reader.is_alive():
        world.say(spec, "new")
        reader.join(0.2)
    world.end(spec, 0)
    reader.join(_PATIENCE_SECONDS)
    assert set(got) == {"new"}
    before.close()  # type: ignore[attr-defined]


def test_a_silent_log_can_be_closed_from_another_thread(world: World, engine: ContainerEngine) -> None:
    lines = engine.logs(engine.start(engine.create(world.spec("one"))).runtime_id, tail=None, follow=True)
    reader = threading.Thread(target=list, args=(lines,))
    reader.start()
    reader.join(0.2)
    lines.close()  # type: ignore[attr-defined]
    reader.join(_PATIENCE_SECONDS)
    assert not reader.is_alive()


def test_a_log_that_is_not_kept_cannot_be_read(world: World, engine: ContainerEngine) -> None:
    runtime_id = engine.start(engine.create(world.spec("one", log=LogSettings("none")))).runtime_id
    with pytest.raises(EngineError, match="none"):
        next(engine.logs(runtime_id, tail=None, follow=False))


def test_the_log_of_a_container_that_is_gone_is_gone(engine: ContainerEngine) -> None:
    with pytest.raises(NoSuchContainerError):
        next(engine.logs(_ABSENT, tail=None, follow=False))


def test_a_container_starts_only_while_its_secret_stands_in_its_file(world: World) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = Path(folder) / "0123456789abcdef0123456789abcdef"
        container = world.spec("sealed", secrets=(("PW", str(file)),))
        container = replace(container, labels=(*container.labels, (LABEL_SECRETS, "PW")))
        runtime_id = world.engine.create(container)
        with pytest.raises(EngineError):
            world.engine.start(runtime_id)
        found = world.engine.inspect(runtime_id)
        assert found is not None
        assert found.status is not EngineStatus.RUNNING
        for value in ("one", "two\nlines"):
            file.write_text(value)
            assert world.engine.start(runtime_id).status is EngineStatus.RUNNING
            file.unlink()
            world.engine.stop(runtime_id, 0)
        world.engine.remove(runtime_id)
        world.engine.forget_secrets([str(file)])
        world.engine.forget_secrets([str(file)])
