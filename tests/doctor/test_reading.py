"""Made-up /proc, /sys and /boot for the doctor, and this very host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.doctor.findings import Fix
from edge.doctor.fixing import mend, with_memory_cgroup
from edge.doctor.reading import Device
from edge.errors import EdgeError
from edge.podman_host import CgroupMode

ROOT = Path(__file__).resolve().parents[2]


def made_up(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


PI = {
    "proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    "proc/sys/kernel/osrelease": "6.12.20+rpt-rpi-v8\n",
    "proc/filesystems": "nodev\toverlay\n\text4\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n",
    "boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=1-02 rootwait\n",
    "run/systemd/system/x": "",
    "sys/class/mmc_host/mmc0/mmc0:0001/life_time": "0x09 0x02\n",
    "sys/class/mmc_host/mmc0/mmc0:0001/pre_eol_info": "0x01\n",
    "sys/fs/ext4/mmcblk0p2/errors_count": "4\n",
    "sys/fs/ext4/mmcblk0p3/errors_count": "0\n",
}


def test_a_pi_without_memory_controller_and_fuse_and_with_a_worn_storage(tmp_path: Path) -> None:
    device = Device(tmp_path / "agent.toml", made_up(tmp_path, PI))
    kernel, wear = device.kernel(), device.wear()
    assert (kernel.cgroup_mode, kernel.memory_controller, kernel.systemd) == (CgroupMode.UNIFIED, False, True)
    assert kernel.filesystems == {"overlay", "ext4"}
    assert not kernel.fuse_device
    assert (wear.life_tenths, wear.reserve, wear.filesystem_errors) == (9, 1, (("mmcblk0p2", 4),))


def test_a_machine_that_tells_nothing_has_no_wear_and_no_command_line(tmp_path: Path) -> None:
    device = Device(tmp_path / "agent.toml", tmp_path)
    assert device.wear().life_tenths is None
    assert device.kernel().cmdline_file is None


def test_the_stores_podman_reads_are_those_of_its_configuration(tmp_path: Path) -> None:
    text = '[storage]\ndriver = "overlay"\n[storage.options]\nadditionalimagestores = ["/var/lib/edge/images/store"]\n'
    made_up(tmp_path, {"etc/containers/storage.conf": text})
    found = Device(tmp_path / "agent.toml", tmp_path).podman(tmp_path / "none.sock")
    assert found.image_stores == ("/var/lib/edge/images/store",)
    assert "none.sock" in found.problem


def test_a_broken_storage_conf_is_no_end(tmp_path: Path) -> None:
    made_up(tmp_path, {"etc/containers/storage.conf": "[storage\n"})
    assert Device(tmp_path / "agent.toml", tmp_path).podman(tmp_path / "none.sock").driver == ""


def test_the_memory_controller_is_switched_on_in_one_line_and_once(tmp_path: Path) -> None:
    made_up(tmp_path, PI)
    path = tmp_path / "boot/firmware/cmdline.txt"
    before = path.stat().st_mode
    for _ in range(2):
        assert "restart" in mend(Fix.ENABLE_MEMORY_CGROUP, path)
    words = "console=tty1 root=PARTUUID=1-02 rootwait cgroup_enable=memory cgroup_memory=1\n"
    assert (path.read_text(), path.stat().st_mode) == (words, before)


def test_an_empty_command_line_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cmdline.txt"
    path.write_text("\n")
    with pytest.raises(EdgeError, match="empty"):
        mend(Fix.ENABLE_MEMORY_CGROUP, path)
    assert path.read_text() == "\n"
    assert with_memory_cgroup("a cgroup_enable=memory b\n") == "a cgroup_enable=memory b\n"


def test_on_this_host_without_an_agent_it_says_what_is_missing_and_ends_with_1(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "edge", "doctor", "--output", "json", "--config", str(tmp_path / "agent.toml"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    told = json.loads(done.stdout)
    by_name = {one["about"]: one for one in told["findings"]}
    assert done.returncode == 1
    assert by_name["identity"]["severity"] == by_name["agent"]["severity"] == "problem"
    assert by_name["kernel"]["told"] == f"Linux {os.uname().release}"
    assert by_name["overlay"]["severity"] == "good"
    assert list(tmp_path.iterdir()) == []
