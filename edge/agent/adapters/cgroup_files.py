"""What stands in the kernel's files about a process and its control group: pure, text in, numbers out.

Formats: cgroups(7), `Documentation/admin-guide/cgroup-v1/` (cpuacct, memory, blkio-controller), `cgroup-v2.rst`,
proc_pid_stat(5), and `/proc/PID/net/dev` (proc_pid_net(5)).
"""

from typing import Final, NamedTuple

UNIFIED: Final = ""
"""The name under which `parse_groups` lists the cgroup v2 hierarchy."""
_NO_LIMIT: Final = 1 << 60
"""cgroup v1 writes "no limit" as the largest multiple of the page size; no machine has that much."""
_START_FIELD: Final = 22 - 3
"""starttime is field 22 of /proc/PID/stat, and the fields behind the name begin with the third."""


class Group(NamedTuple):
    """A process's place in one hierarchy, which may carry several controllers (`cpu,cpuacct`)."""

    hierarchy: str
    path: str


class NetCounters(NamedTuple):
    """All interfaces but the loopback, added up; `errors` are those and drops of both directions."""

    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int
    errors: int


def parse_groups(text: str) -> dict[str, Group]:
    """Return the group of each controller from `/proc/PID/cgroup`."""
    groups = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        hierarchy, _, path = rest.partition(":")
        groups.update(dict.fromkeys(hierarchy.split(","), Group(hierarchy, path)))
    return groups


def container_group(path: str, runtime_id: str) -> str | None:
    """Return the control group of the whole container, or None when the path is not of that container.

    A process may be in a group below it: crun makes one, and so does an init inside.
    """
    parts = path.split("/")
    for index, part in enumerate(parts):
        if runtime_id in part:
            return "/".join(parts[: index + 1])
    return None


def parse_keyed(text: str) -> dict[str, int]:
    """Return a flat keyed file (`cpu.stat`, `memory.stat`, `memory.events`, v1's `memory.oom_control`)."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            found[key] = int(value)
    return found


def parse_limit(text: str) -> int | None:
    """Return the bytes of `memory.max` or `memory.limit_in_bytes`, or None for no limit."""
    value = text.strip()
    return int(value) if value.isdecimal() and int(value) < _NO_LIMIT else None


def parse_io_stat(text: str) -> tuple[int, int]:
    """Return bytes read and written over all devices, from v2's `io.stat`."""
    read = written = 0
    for line in text.splitlines():
        for part in line.split()[1:]:
            key, _, value = part.partition("=")
            if key == "rbytes" and value.isdecimal():
                read += int(value)
            elif key == "wbytes" and value.isdecimal():
                written += int(value)
    return read, written


def parse_blkio(text: str) -> tuple[int, int]:
    """Return bytes read and written over all devices, from v1's `blkio.throttle.io_service_bytes`."""
    totals = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1] in totals and parts[2].isdecimal():  # noqa: PLR2004 - device, kind, bytes
            totals[parts[1]] += int(parts[2])
    return totals["Read"], totals["Write"]


def parse_net_dev(text: str) -> NetCounters:
    """Add up `/proc/PID/net/dev`."""
    rx_bytes = rx_packets = tx_bytes = tx_packets = errors = 0
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = rest.split()
        if name.strip() == "lo" or len(values) < 12 or not all(v.isdecimal() for v in values[:12]):  # noqa: PLR2004
            continue
        numbers = [int(value) for value in values[:12]]
        rx_bytes += numbers[0]
        rx_packets += numbers[1]
        errors += numbers[2] + numbers[3] + numbers[10] + numbers[11]
        tx_bytes += numbers[8]
        tx_packets += numbers[9]
    return NetCounters(rx_bytes, rx_packets, tx_bytes, tx_packets, errors)


def parse_start_ticks(text: str) -> int | None:
    """Return when a process began, in clock ticks of the boot, from `/proc/PID/stat`; None when it is no such file."""
    # The name in brackets may hold anything, brackets among it.
    fields = text.rpartition(")")[2].split()
    return int(fields[_START_FIELD]) if len(fields) > _START_FIELD and fields[_START_FIELD].isdecimal() else None
