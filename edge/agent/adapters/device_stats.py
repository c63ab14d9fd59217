"""`DeviceMeter` fulfilled by /proc and /sys: what is not readable is left out, and never an error."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edge.agent.adapters.device_files import (
    CpuTimes,
    link_state,
    parse_cpu_times,
    parse_life_time,
    parse_load,
    parse_meminfo,
    parse_pre_eol,
    parse_signals,
    parse_temperature,
    parse_throttled,
    parse_written_bytes,
)

_MOST_LINKS: Final = 8
"""Interfaces in a record: those of a device, not of whoever plugs in many."""


class LinuxDeviceMeter:
    """How the machine is. For one thread."""

    def __init__(
        self,
        state_dir: Path,
        clock_is_synchronized: Callable[[], bool],
        *,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        root: Path = Path("/"),
    ) -> None:
        self._state_dir = state_dir
        self._root = root
        self._synchronized = clock_is_synchronized
        self._proc = proc
        self._sys = sys
        self._cpu: CpuTimes | None = None
        # Pi 3 and 4 name the bus `soc`, Pi 5 `soc@107c000000`.
        self._throttled = next(iter(sys.glob("devices/platform/soc*/*firmware/get_throttled")), None)
        self._voltage = next(
            (name.parent for name in sys.glob("class/hwmon/hwmon*/name") if _read(name).strip() == "rpi_volt"), None
        )

    def read(self) -> Mapping[str, Any]:
        """See `DeviceMeter`."""
        fields: dict[str, Any] = {}
        for part in (self._load, self._memory, self._heat_and_power, self._space, self._wear, self._link):
            fields.update(part())
        fields["clock"] = self._synchronized()
        return {name: value for name, value in fields.items() if value is not None}

    def _load(self) -> Mapping[str, Any]:
        load = parse_load(_read(self._proc / "loadavg"))
        fields: dict[str, Any] = {}
        if load is not None:
            fields.update(zip(("load1", "load5", "load15"), load, strict=True))
        before, self._cpu = self._cpu, parse_cpu_times(_read(self._proc / "stat"))
        if before is not None and self._cpu is not None and self._cpu.total > before.total:
            share = (self._cpu.busy - before.busy) / (self._cpu.total - before.total)
            # Steal and idle may go back by a tick on virtual machines.
            fields["cpu"] = round(100 * min(1.0, max(0.0, share)), 1)
        return fields

    def _memory(self) -> Mapping[str, Any]:
        found = parse_meminfo(_read(self._proc / "meminfo"))
        swap_used = found["SwapTotal"] - found["SwapFree"] if {"SwapTotal", "SwapFree"} <= found.keys() else None
        return {
            "mem": found.get("MemTotal"),
            "memAvailable": found.get("MemAvailable"),
            "swap": swap_used,
        }

    def _heat_and_power(self) -> Mapping[str, Any]:
        zones = self._sys.glob("class/thermal/thermal_zone*/temp")
        temperatures = [t for zone in zones if (t := parse_temperature(_read(zone))) is not None]
        fields: dict[str, Any] = {"temp": max(temperatures, default=None)}
        if self._throttled is not None:
            fields.update(parse_throttled(_read(self._throttled)))
        elif self._voltage is not None and (alarm := _read(self._voltage / "in0_lcrit_alarm").strip()):
            fields["underVoltage"] = alarm != "0"
        return fields

    def _space(self) -> Mapping[str, Any]:
        fields: dict[str, Any] = {}
        for name, folder in (("state", self._state_dir), ("root", self._root)):
            try:
                found = os.statvfs(folder)
            except OSError:
                continue
            fields[f"{name}Free"] = found.f_bavail * found.f_frsize
            fields[f"{name}Size"] = found.f_blocks * found.f_frsize
        return fields

    def _wear(self) -> Mapping[str, Any]:
        lives = [parse_life_time(_read(path)) for path in self._sys.glob("class/mmc_host/*/*/life_time")]
        blocks = [parse_pre_eol(_read(path)) for path in self._sys.glob("class/mmc_host/*/*/pre_eol_info")]
        # Only real disks have a device behind them: a loop or a mapped volume would count the same bytes again.
        disks = [path.parent for path in self._sys.glob("block/*/device")]
        written = [parse_written_bytes(_read(disk / "stat")) for disk in disks]
        return {
            "emmcLife": max((life for life in lives if life is not None), default=None),
            "emmcReserve": max((block for block in blocks if block is not None), default=None),
            "diskWritten": sum(n for n in written if n is not None) if any(written) else None,
        }

    def _link(self) -> Mapping[str, Any]:
        signals = parse_signals(_read(self._proc / "net/wireless"))
        links, received, sent = [], 0, 0
        for folder in sorted(self._interfaces())[:_MOST_LINKS]:
            signal = signals.get(folder.name)
            link = link_state(folder.name, _read(folder / "operstate"), _read(folder / "speed"), signal)
            if link is not None:
                links.append(link)
                received += _number(folder / "statistics/rx_bytes")
                sent += _number(folder / "statistics/tx_bytes")
        return {"links": links, "rx": received, "tx": sent} if links else {}

    def _interfaces(self) -> Iterator[Path]:
        """Those with hardware behind them: containers' and bridges' are not the device's link."""
        for device in self._sys.glob("class/net/*/device"):
            yield device.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else 0
