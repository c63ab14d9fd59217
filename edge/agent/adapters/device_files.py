"""What stands in the kernel's files about the machine: pure, text in, numbers out; None is "it does not say".

Formats: proc_loadavg(5), proc_meminfo(5), proc_stat(5), `Documentation/admin-guide/iostats.rst`,
`Documentation/driver-api/mmc/mmc-dev-attrs.rst`, wireless(7), and for the Raspberry Pi's firmware its documentation of
`vcgencmd get_throttled`.
"""

import re
from typing import Any, Final, NamedTuple

_SECTOR_BYTES: Final = 512
"""The unit of /sys/block/*/stat, whatever the device's own."""
_WRITTEN_SECTORS: Final = 6
_UNDER_VOLTAGE: Final = 1 << 0
_FREQUENCY_CAPPED: Final = 1 << 1
_THROTTLED: Final = 1 << 2
_SOFT_LIMIT: Final = 1 << 3
_SINCE_BOOT: Final = 16
"""The same bits that much higher: it happened since the boot."""


class CpuTimes(NamedTuple):
    """Clock ticks of all cores since the boot."""

    busy: int
    total: int


def parse_load(text: str) -> tuple[float, float, float] | None:
    """Return the load averages over 1, 5 and 15 minutes."""
    match = re.match(r"(\d+\.\d+) (\d+\.\d+) (\d+\.\d+) ", text)
    return (float(match[1]), float(match[2]), float(match[3])) if match else None


def parse_meminfo(text: str) -> dict[str, int]:
    """Return `/proc/meminfo` in bytes."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def parse_cpu_times(text: str) -> CpuTimes | None:
    """Return the first line of `/proc/stat`; waiting for I/O is not work."""
    match = re.match(r"cpu +((?:\d+ ?)+)", text)
    # user nice system idle iowait irq softirq steal; guest times are in user already.
    times = [int(value) for value in match[1].split()[:8]] if match else []
    if len(times) < 5:  # noqa: PLR2004
        return None
    return CpuTimes(busy=sum(times) - times[3] - times[4], total=sum(times))


def parse_temperature(text: str) -> float | None:
    """Return degrees Celsius from a thermal zone's millidegrees."""
    match = re.fullmatch(r"(-?\d+)\n?", text)
    return round(int(match[1]) / 1000, 1) if match else None


def parse_throttled(text: str) -> dict[str, bool]:
    """Return what the Raspberry Pi's firmware says of power and heat; empty when it is no such word."""
    match = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,8})\n?", text)
    if not match:
        return {}
    word = int(match[1], 16)
    slowed = _FREQUENCY_CAPPED | _THROTTLED | _SOFT_LIMIT
    return {
        "underVoltage": bool(word & _UNDER_VOLTAGE),
        "throttled": bool(word & slowed),
        "underVoltageSeen": bool(word >> _SINCE_BOOT & _UNDER_VOLTAGE),
        "throttledSeen": bool(word >> _SINCE_BOOT & slowed),
    }


def parse_life_time(text: str) -> int | None:
    """Return an eMMC's used life in tenths, the worse of its two kinds of memory: 1 to 10, 11 is beyond it."""
    values = [int(value, 16) for value in re.findall(r"0x[0-9a-fA-F]{2}\b", text)]
    # 0 is "not defined".
    return max(values) or None if values else None


def parse_pre_eol(text: str) -> int | None:
    """Return an eMMC's reserved blocks: 1 normal, 2 over 80 % used, 3 over 90 %; 0 is "not defined"."""
    match = re.fullmatch(r"0x([0-9a-fA-F]{2})\n?", text)
    return int(match[1], 16) or None if match else None


def parse_written_bytes(text: str) -> int | None:
    """Return bytes written since the boot, from `/sys/block/*/stat`."""
    fields = text.split()
    return int(fields[_WRITTEN_SECTORS]) * _SECTOR_BYTES if len(fields) > _WRITTEN_SECTORS else None


def parse_signals(text: str) -> dict[str, int]:
    """Return each wireless interface's signal in dBm, from `/proc/net/wireless`."""
    rows = re.findall(r"^\s*([^\s:]+):\s+\w+\s+-?\d+\.?\s+(-?\d+)\.?\s", text, re.MULTILINE)
    # Drivers without dBm write a positive figure of their own scale.
    return {name: int(level) for name, level in rows if int(level) < 0}


def link_state(name: str, state: str, speed: str, signal: int | None) -> dict[str, Any] | None:
    """Return one interface of the record, from `operstate` and `speed` (Mbit/s); None when it says nothing."""
    if not state.strip():
        return None
    link: dict[str, Any] = {"name": name, "up": state.strip() == "up"}
    if speed.strip().isdecimal():
        link["mbits"] = int(speed)
    if signal is not None:
        link["dbm"] = signal
    return link
