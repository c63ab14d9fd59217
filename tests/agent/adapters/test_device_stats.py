"""Samples written after the documented formats; a Raspberry Pi 4 with a wireless link, and machines that say less."""

from pathlib import Path
from typing import Final

import pytest

from edge.agent.adapters.device_files import (
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
from edge.agent.adapters.device_stats import LinuxDeviceMeter

WIRELESS: Final = """\
Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
 wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0
"""
PI: Final = {
    "proc/loadavg": "0.42 0.30 0.25 2/321 4711\n",
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4\n",
    "proc/meminfo": "MemTotal:  3884312 kB\nMemFree: 10 kB\nMemAvailable:  3000000 kB\n"
    "SwapTotal: 102396 kB\nSwapFree: 102396 kB\n",
    "proc/net/wireless": WIRELESS,
    "sys/class/thermal/thermal_zone0/temp": "48686\n",
    "sys/class/thermal/thermal_zone1/temp": "51200\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50001\n",
    "sys/class/mmc_host/mmc0/mmc0:0001/life_time": "0x01 0x02\n",
    "sys/class/mmc_host/mmc0/mmc0:0001/pre_eol_info": "0x01\n",
    "sys/block/mmcblk0/device/type": "MMC\n",
    "sys/block/mmcblk0/stat": "  9000 10 500000 4000 7000 20 2048 9000 0 8000 13000 0 0 0 0\n",
    "sys/block/loop0/stat": "  9000 10 500000 4000 7000 20 9999 9000 0 8000 13000 0 0 0 0\n",
    "sys/class/net/eth0/device/x": "",
    "sys/class/net/eth0/operstate": "down\n",
    "sys/class/net/eth0/speed": "-1\n",
    "sys/class/net/wlan0/device/x": "",
    "sys/class/net/wlan0/operstate": "up\n",
    "sys/class/net/wlan0/statistics/rx_bytes": "1000\n",
    "sys/class/net/wlan0/statistics/tx_bytes": "200\n",
    "sys/class/net/veth0/operstate": "up\n",
}


def machine(folder: Path, files: dict[str, str]) -> LinuxDeviceMeter:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return LinuxDeviceMeter(folder, lambda: True, proc=folder / "proc", sys=folder / "sys", root=folder / "none")


def test_a_raspberry_pi_tells_everything(tmp_path: Path) -> None:
    meter = machine(tmp_path, PI)
    first = dict(meter.read())
    assert "cpu" not in first
    (tmp_path / "proc/stat").write_text("cpu  150 0 150 1300 200 0 0 0 0 0\n")
    fields = dict(meter.read())
    assert fields.pop("stateFree") <= fields.pop("stateSize")
    assert fields == {
        "load1": 0.42,
        "load5": 0.3,
        "load15": 0.25,
        "cpu": 12.5,
        "mem": 3_884_312 * 1024,
        "memAvailable": 3_000_000 * 1024,
        "swap": 0,
        "temp": 51.2,
        "underVoltage": True,
        "throttled": False,
        "underVoltageSeen": True,
        "throttledSeen": True,
        "emmcLife": 2,
        "emmcReserve": 1,
        "diskWritten": 2048 * 512,
        "links": [{"name": "eth0", "up": False}, {"name": "wlan0", "up": True, "dbm": -56}],
        "rx": 1000,
        "tx": 200,
        "clock": True,
    }


def test_what_a_machine_does_not_tell_is_left_out_and_not_zero(tmp_path: Path) -> None:
    fields = dict(machine(tmp_path, {}).read())
    assert set(fields) == {"stateFree", "stateSize", "clock"}


def test_the_voltage_sensor_serves_where_the_firmware_s_word_is_not(tmp_path: Path) -> None:
    files = {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"}
    fields = machine(tmp_path, {"sys/class/hwmon/hwmon0/name": "cpu_thermal\n", **files}).read()
    assert fields["underVoltage"] is True
    assert "throttled" not in fields


def test_this_machine_is_read_without_an_error(tmp_path: Path) -> None:
    meter = LinuxDeviceMeter(tmp_path, lambda: False)
    meter.read()
    fields = meter.read()
    assert fields["mem"] > fields["memAvailable"] > 0
    assert fields["rootSize"] > 0
    assert fields["clock"] is False


@pytest.mark.parametrize("text", ["", "garbage", "0x", "-", "cpu  x", "a: b c d", "1 2 3"])
def test_what_is_no_such_file_gives_nothing_and_no_error(text: str) -> None:
    parsers = (parse_load, parse_cpu_times, parse_temperature, parse_life_time, parse_pre_eol, parse_written_bytes)
    assert [parse(text) for parse in parsers] == [None] * len(parsers)
    assert (parse_meminfo(text), parse_throttled(text), parse_signals(text)) == ({}, {}, {})


@pytest.mark.parametrize(("text", "life"), [("0x00 0x00\n", None), ("0x0b 0x01\n", 11), ("0x03 0x0a\n", 10)])
def test_the_worse_kind_of_memory_decides(text: str, life: int | None) -> None:
    assert parse_life_time(text) == life


def test_a_signal_of_a_scale_of_the_driver_s_own_is_left_out() -> None:
    assert parse_signals(WIRELESS.replace("-56.", "70. ")) == {}


def test_a_link_without_a_state_is_none() -> None:
    assert link_state("eth0", "", "1000\n", None) is None
    assert link_state("eth0", "up\n", "1000\n", None) == {"name": "eth0", "up": True, "mbits": 1000}
