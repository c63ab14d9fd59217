"""What collecting needs from the world, and what it hands its records to, as contracts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge.model.records import Block


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """A container of a task, from the moment its process runs until it is told to have ended.

    Attributes:
        runtime_id: The engine's id, 64 hexadecimal digits.
        pid: Its first process; another one after each restart.
        task_id: The task it is of.
        name: Its name in the task definition.
        restarts: How often it was started again since this agent began to look.
    """

    runtime_id: str
    pid: int
    task_id: str
    name: str
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """A container's counters at one moment; None is what this host does not tell.

    Attributes:
        since_ms: When its process began, in milliseconds of the boot; another one after each restart.
        cpu_ns: Nanoseconds of processor time used.
        memory_bytes: What is charged to it, page cache included.
        working_set_bytes: The same without the page cache that can be dropped at once.
        memory_limit_bytes: Its own hard limit.
        oom_kills: Processes of it that were killed for want of memory.
        net_errors: Receive and transmit errors and drops, together.
    """

    since_ms: int
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    working_set_bytes: int | None = None
    memory_limit_bytes: int | None = None
    oom_kills: int | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    rx_packets: int | None = None
    tx_packets: int | None = None
    net_errors: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


class ContainerMeter(Protocol):
    """Reads what the kernel counts for containers."""

    def read(self, containers: Sequence[RunningContainer]) -> Mapping[str, ContainerSample]:
        """Return the samples by runtime id, in one pass; a container whose process is gone is left out."""
        ...


class DeviceMeter(Protocol):
    """Reads how the device is."""

    def read(self) -> Mapping[str, Any]:
        """Return the fields of a device record (`docs/telemetry.md`); what cannot be read is not among them."""
        ...


class StreamState(Protocol):
    """How one of the outbox's streams stands."""

    @property
    def stream(self) -> str:
        """Its name."""
        ...

    @property
    def problem(self) -> str:
        """Why the disk takes nothing of it at present; empty when it does."""
        ...


class Records(Protocol):
    """The outbox, as far as whoever writes to it needs it. May be called from any thread."""

    def put(self, stream: str, records: Sequence[bytes]) -> None:
        """Take records, each one JSON object without a newline, at most 64 KiB.

        For a critical stream they are on disk when this returns, or `facts` says why not. Never waits for the
        network.

        Raises:
            InvalidInputError: A record is not one, or is too large.
            StoreError: Nothing is taken any more.
        """
        ...

    def put_latest(self, stream: str, key: str, record: bytes) -> None:
        """Take the newest state of `key`; an older one that was not sent yet is forgotten."""
        ...

    def facts(self) -> Sequence[StreamState]:
        """Return how each stream stands."""
        ...

    def flush(self) -> None:
        """Put on the disk what waits in memory."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a container is made with, so that it can be heard.

    Attributes:
        readings_folder: The host's folder with the socket for its readings; empty for none.
        log_path: Where the engine must write its log; empty for the engine's own place.
    """

    readings_folder: str = ""
    log_path: str = ""


class Workloads(Protocol):
    """Told by the engine what it does with containers. Nothing here may fail: no container waits for telemetry."""

    def prepare(self, task_id: str, container: str, log_driver: str, log_options: Mapping[str, str]) -> Prepared:
        """Be ready for a container that is about to be made; told again for one that was prepared, it is the same."""
        ...

    def runs(self, container: RunningContainer) -> None:
        """The container's process runs."""
        ...

    def ended(self, runtime_id: str) -> None:
        """The container's process is gone."""
        ...

    def release(self, task_id: str) -> None:
        """The task's containers are gone, for good."""
        ...


class Unobserved:
    """`Workloads` of an agent that collects nothing."""

    def prepare(self, task_id: str, container: str, log_driver: str, log_options: Mapping[str, str]) -> Prepared:
        """See `Workloads`."""
        del task_id, container, log_driver, log_options
        return Prepared()

    def runs(self, container: RunningContainer) -> None:
        """See `Workloads`."""

    def ended(self, runtime_id: str) -> None:
        """See `Workloads`."""

    def release(self, task_id: str) -> None:
        """See `Workloads`."""


class WallClock(Protocol):
    """The clocks of this boot."""

    def wall_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970; it may be wrong."""
        ...

    def monotonic(self) -> float:
        """Return seconds of this boot."""
        ...

    def is_synchronized(self) -> bool:
        """Say whether the wall clock is known good."""
        ...


class Waiting(Protocol):
    """The outbox, as far as whoever sends from it needs it. May be called from any thread."""

    def next_live(self) -> Block | None:
        """Return a block of what is new, each once; None when nothing is due."""
        ...

    def next_backlog(self) -> Block | None:
        """Return the oldest block on the disk that was not handed out; None when there is none."""
        ...

    def acknowledged(self, block: Block) -> None:
        """The broker has it: forget it."""
        ...

    def returned(self, block: Block) -> None:
        """It was not delivered: hand it out again."""
        ...

    def returned_all(self) -> None:
        """Nothing that was handed out was delivered."""
        ...

    def next_due(self) -> float | None:
        """Return the monotonic time at which there may be something to send, by time alone."""
        ...
