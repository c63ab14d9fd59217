"""Which host port a container port gets: chosen here, kept across restarts, never one that is in use."""

import random
from collections.abc import Collection, Iterable, Sequence

from edge.errors import PortInUseError
from edge.model.task import HostPort

Wanted = tuple[int, str, int]
"""`(container port, protocol, host port)`, the host port being 0 when any will do."""


def assign_ports(
    wanted: Iterable[Wanted],
    *,
    kept: Sequence[HostPort],
    taken: Collection[tuple[str, int]],
    ports: range,
    source: random.Random,
) -> tuple[HostPort, ...]:
    """Return a host port for each wanted one.

    Args:
        wanted: What the task definition says.
        kept: What was chosen before; it stays.
        taken: `(protocol, port)` that nobody may choose: of other tasks, and listened on by others.
        ports: From which free ones are chosen, at random: a port just given up is likely remembered by clients.
        source: Of randomness.

    Raises:
        PortInUseError: Every port of the range is taken.
    """
    before = {(port.container_port, port.protocol): port for port in kept}
    used = {*taken, *((port.protocol, port.host_port) for port in kept)}
    chosen: list[HostPort] = []
    for inside, protocol, host in wanted:
        port = before.get((inside, protocol))
        if port is None or (host and port.host_port != host):
            port = HostPort(inside, host or _free(protocol, used, ports, source), protocol)
        used.add((protocol, port.host_port))
        chosen.append(port)
    return tuple(chosen)


def _free(protocol: str, used: Collection[tuple[str, int]], ports: range, source: random.Random) -> int:
    start = source.randrange(len(ports))
    for offset in range(len(ports)):
        port = ports[(start + offset) % len(ports)]
        if (protocol, port) not in used:
            return port
    raise PortInUseError(
        f"no free {protocol} port from {ports[0]} to {ports[-1]}",
        reason="CannotStartContainerError",
        hint="Stop tasks that publish ports, or widen net.ipv4.ip_local_port_range.",
    )
