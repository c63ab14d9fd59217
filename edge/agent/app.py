"""The one place where an agent is wired: configuration in, a running engine out."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge import __version__, locks, memory
from edge.agent.adapters.clock import FlooredClock, SystemClock
from edge.agent.adapters.host import LinuxHost
from edge.agent.adapters.identity_server import TaskIdentities
from edge.agent.adapters.image_proofs import ImageProofs
from edge.agent.adapters.lazy_images import LazyImages
from edge.agent.adapters.local_socket import LocalSocket
from edge.agent.adapters.podman import PodmanEngine
from edge.agent.adapters.runtime_updates import RuntimeUpdates
from edge.agent.adapters.vault import MemoryVault
from edge.agent.config import AgentConfig
from edge.agent.engine.clock_floor import CLOCK_FLOOR
from edge.agent.engine.engine import Engine
from edge.agent.engine.events import BirthChanged, ImagesSeen, ProfilesSeen, StopRequested, Witnessed
from edge.agent.engine.hands import WorkerHands
from edge.agent.engine.image_gate import ImageGate
from edge.agent.engine.inbox import Inbox
from edge.agent.engine.intake import Judge
from edge.agent.engine.log_streams import LogStreams
from edge.agent.engine.parts import Parts
from edge.agent.engine.ports import Clock, ContainerEngine, Host
from edge.agent.engine.reports import Reporter
from edge.agent.engine.steps import Identity
from edge.agent.identity_file import identity_file
from edge.agent.key_telling import KeyTelling
from edge.agent.renewal import Renewal
from edge.agent.sending import Sending
from edge.agent.store.state import StateStore
from edge.agent.trust_file import load_trust
from edge.errors import RefusedError, StoreFullError
from edge.files import make_folder
from edge.model.trust import TrustedSet
from edge.mqtt.broker import BrokerSettings
from edge.mqtt.paho_broker import PahoBroker
from edge.process_memory import keep_to_oneself
from edge.sd_notify import ServiceManager
from edge.stop_signals import stopped_by_signals

_log = logging.getLogger(__name__)

_OCI_ARCHITECTURES: Final = {"X86_64": "amd64", "ARM64": "arm64"}


def run(  # noqa: PLR0913 - what a test puts in the place of each part
    config: AgentConfig,
    *,
    make_engine: Callable[[Path, LazyImages], ContainerEngine] = PodmanEngine,
    make_store: Callable[[Path], StateStore] = StateStore,
    make_host: Callable[[], Host] = LinuxHost,
    make_clock: Callable[[], SystemClock] = SystemClock,
    manager: ServiceManager | None = None,
) -> None:
    """Run an agent until SIGTERM or SIGINT; containers go on when it ends.

    Args:
        config: Where everything is.
        make_engine: Makes the container engine from its socket and the image service.
        make_store: Opens the state file.
        make_host: Looks at the machine.
        make_clock: Makes the machine's clock.
        manager: Who is told that the agent is ready, alive, at its end; nobody when left out.

    Raises:
        RefusedError: Another agent works on the same state directory.
        InvalidInputError, TrustError: The trust bundle cannot be used.
        StoreError: The state file cannot be used.
    """
    keep_to_oneself()
    manager = manager or ServiceManager({}, 0)
    with _only_one(config):
        trust = load_trust(config.trust_bundle)
        store = make_store(config.database)
        if store.set_aside is not None:
            _log.error("%s was damaged: put aside as %s, beginning anew", config.database, store.set_aside.name)
        machine_clock, host = make_clock(), make_host()
        clock = FlooredClock(machine_clock, (store.meta(CLOCK_FLOOR) or b"").decode())
        facts = host.facts()
        architecture = _OCI_ARCHITECTURES[facts.architecture]
        identity = Identity(config.cluster, config.device, architecture, config.policy)
        inbox = Inbox()
        images = LazyImages(
            config.images_socket,
            lambda arrivals: inbox.put(ImagesSeen(arrivals)),
            lambda profiles: inbox.put(ProfilesSeen(profiles)),
        )
        containers = make_engine(config.podman_socket, images)
        broker = PahoBroker(replace(broker_settings(config), least_time=clock.least))
        streams = LogStreams(containers, broker, clock)
        image_keys = _ImageKeys()
        proofs = ImageProofs(config.state_dir / "image-trust")
        gate = ImageGate(containers, config.policy.images, proofs, image_keys.now)
        sending = Sending(config, facts.boot_id, machine_clock, broker)
        renewal = Renewal(
            config,
            broker,
            clock,
            lambda outcome, reason: inbox.put(Witnessed("certificate", {"outcome": outcome, "reason": reason})),
        )
        status = _StatusFile(config.status_file, facts.boot_id, clock)
        updates = RuntimeUpdates(config.path, config.state_dir)
        telling = KeyTelling(config, lambda: inbox.put(BirthChanged()))
        vault = MemoryVault(config.secrets_key, config.cluster, config.device, owner=str(config.state_dir))
        identities = TaskIdentities(
            config.cluster, config.device, config.identity_key, lambda: identity_file(config), clock.now
        )
        parts = Parts(
            store=store,
            broker=broker,
            clock=clock,
            judge=Judge(trust, config.cluster, config.device, config.policy),
            reporter=Reporter(identity, facts, clock, __version__, secrets_key=telling.describe),
            hands=WorkerHands(
                containers,
                host,
                identity,
                streams,
                inbox.put,
                vault=vault,
                telemetry=sending.collecting,
                identities=identities,
                gate=gate,
                updates=updates,
            ),
            streams=streams,
            connection_changed=status.connection_changed,
            containers_found=status.containers_found,
            idle=memory.release,
            cleanup_seconds=config.task_cleanup_wait_seconds,
            heard=lambda event: renewal.hear(event) or sending.hear(event),
            telemetry=sending.describe,
            time_passed=clock.raise_to,
            audit=sending.audit,
            trusts=image_keys.take,
            alive=manager.alive,
            alive_seconds=manager.alive_seconds,
        )
        engine = Engine(parts, inbox)
        _log.info("agent %s of %s/%s, process %d", __version__, config.cluster, config.device, os.getpid())
        local = LocalSocket(config.local_socket, config.local_group, inbox.put, containers)
        with stopped_by_signals(lambda: inbox.put(StopRequested())):
            try:
                renewal.start()
                # Ready without a broker and without Podman: the agent is there for the times when they are not.
                manager.ready()
                engine.run()
            finally:
                manager.stopping()
                local.close()
                renewal.close()
                identities.close()
                sending.close()
                containers.close()
                store.close()


def broker_settings(config: AgentConfig) -> BrokerSettings:
    """Return where the broker is and who we are to it; the client id is the device id."""
    identity = identity_file(config)
    return BrokerSettings(
        host=config.broker_host,
        port=config.broker_port,
        client_id=config.device,
        ca_file=config.ca_file,
        cert_file=identity,
        key_file=identity,
        keepalive_seconds=config.keepalive_seconds,
    )


class _ImageKeys:
    """The trust bundle's keys for images, from the engine's thread to the workers."""

    def __init__(self) -> None:
        self._trusted: TrustedSet | None = None

    def take(self, trusted: TrustedSet) -> None:
        """These are in force."""
        self._trusted = trusted

    def now(self) -> tuple[bytes, ...]:
        """In PEM."""
        return self._trusted.image_keys() if self._trusted is not None else ()


class _StatusFile:
    """What `edge agent status` and an update read: who runs, whether it is ready, and whether the broker is there."""

    def __init__(self, path: Path, boot_id: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._fixed = {"pid": os.getpid(), "bootId": boot_id, "version": __version__, "startedAt": clock.now()}
        self._last: str | None = None
        self._ready = False
        self._connection: dict[str, Any] = {}
        self.connection_changed("not connected yet")

    def connection_changed(self, problem: str) -> None:
        """Note a change of the connection; the same again is not written again."""
        if problem == self._last:
            return
        self._last = problem
        self._connection = {"connected": not problem, "since": self._clock.now(), "reason": problem}
        self._write()

    def containers_found(self) -> None:
        """Note that the agent has taken up what runs, and works from now on."""
        if not self._ready:
            self._ready = True
            self._write()

    def _write(self) -> None:
        document: dict[str, Any] = {**self._fixed, "ready": self._ready, "connection": self._connection}
        try:
            # Not synced: it is true only as long as this process runs.
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(document))
            temporary.replace(self._path)
        except OSError as error:
            _log.warning("cannot write %s: %s", self._path, error.strerror)


@contextmanager
def _only_one(config: AgentConfig) -> Iterator[None]:
    """Hold the state directory: two agents on one would start every task twice."""
    try:
        make_folder(config.state_dir)
        file = config.pid_file.open("a+")
    except OSError as error:
        raise StoreFullError(
            f"cannot use the state directory {config.state_dir}: {error.strerror}",
            hint="Look at the folder's owner, mode and file system.",
        ) from error
    with file:
        if not locks.take(file):
            file.seek(0)
            raise RefusedError(
                f"an agent works on {config.state_dir} already (process {file.read().strip() or 'unknown'})",
                hint="Stop that one first, or give this one a state directory of its own.",
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
