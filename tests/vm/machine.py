"""A virtual machine with its own disk, reached over SSH on loopback; `cut` is a power cut.

Emulated (`-accel tcg`), so that it runs where a machine in a machine may not; the guest has no way out but the host's
loopback, which it sees as 10.0.2.2 (`-netdev user,restrict=…` would close that, too).
"""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from tests.support.mosquitto import free_port
from tests.vm.image import Image

HOST: Final = "10.0.2.2"
"""The host's loopback, as the guest sees it: QEMU's user network."""
_BOOT_SECONDS: Final = 900.0
_MACHINES: Final = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35", "-cpu", "max,la57=off"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72"),
}
# Quiet: each line on the console costs the emulated machine milliseconds. No mitigations: it runs nothing of strangers,
# and emulates them dearly.
_KERNEL_WORDS: Final = "rw panic=5 loglevel=4 systemd.show_status=0 mitigations=off audit=0 no_timer_check"
_CONSOLES: Final = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


class Machine:
    """One machine; its disk is a layer above the image and is gone with its folder."""

    def __init__(self, image: Image, folder: Path, *, memory_mib: int = 1536, cpus: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.image = image
        self.port = free_port()
        self.console = folder / "console.log"
        self._known_hosts = folder / "known_hosts"
        self._disk = folder / "disk.qcow2"
        self._memory, self._cpus = memory_mib, cpus
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(self._disk)], check=True
        )

    def power_on(self) -> None:
        """Start it; `until_ssh` waits for it."""
        assert self._process is None
        arguments = [
            *_MACHINES[self.image.architecture], "-accel", "tcg,thread=multi",
            "-smp", str(self._cpus), "-m", str(self._memory),
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", f"root=/dev/vda console={_CONSOLES[self.image.architecture]} {_KERNEL_WORDS}",
            "-drive", f"file={self._disk},if=virtio,format=qcow2,cache=writeback",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22", "-device", "virtio-net-pci,netdev=net",
            "-device", "virtio-rng-pci",
            "-display", "none", "-monitor", "none", "-serial", f"file:{self.console}.{time.monotonic_ns()}",
        ]  # fmt: skip
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def cut(self) -> None:
        """Cut the power: what was not flushed to the disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    # --- inside

    def ssh_options(self) -> tuple[str, ...]:
        """For `ssh`, and for Ansible's `ansible_ssh_common_args`."""
        options = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={self._known_hosts}", "LogLevel=ERROR",
                   "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=8", "BatchMode=yes")  # fmt: skip
        return tuple(word for option in options for word in ("-o", option))

    def run(self, command: str, *, seconds: float = 300.0) -> str:
        """Run a shell command as root; what it printed.

        Raises:
            AssertionError: It failed.
        """
        done = self.try_run(command, seconds=seconds)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def try_run(self, command: str, *, seconds: float = 300.0) -> "subprocess.CompletedProcess[str]":
        """Run a shell command as root, whatever comes of it."""
        return subprocess.run(
            [*self.ssh_command(), command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip

    def ssh_command(self) -> Sequence[str]:
        """`ssh` as root, up to the command."""
        ssh = shutil.which("ssh")
        assert ssh is not None, "ssh is not installed (apt-get install openssh-client)"
        return (ssh, "-i", str(self.image.ssh_key), "-p", str(self.port), *self.ssh_options(), "root@127.0.0.1")

    def until_ssh(self, *, other_than: str = "", seconds: float = _BOOT_SECONDS) -> str:
        """Wait until it can be logged in to; its boot id, which is `other_than` the former."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process is not None
            assert self._process.poll() is None, "qemu ended"
            try:
                done = self.try_run("cat /proc/sys/kernel/random/boot_id", seconds=60)
            except subprocess.TimeoutExpired:
                continue
            if done.returncode == 0 and done.stdout.strip() != other_than:
                return done.stdout.strip()
            time.sleep(1)
        raise AssertionError(f"no SSH after {seconds:.0f} s; see {self.console}*")

    def reboot(self) -> str:
        """Reboot in order; the new boot id once SSH is back."""
        before = self.run("cat /proc/sys/kernel/random/boot_id").strip()
        self.try_run("systemctl reboot")
        return self.until_ssh(other_than=before)

    def until(self, command: str, what: str, *, seconds: float = 300.0, every: float = 1.0) -> str:
        """Wait until a command succeeds; what it printed."""
        end = time.monotonic() + seconds
        last = None
        while time.monotonic() < end:
            try:
                last = self.try_run(command, seconds=120)
            except subprocess.TimeoutExpired:
                continue
            if last.returncode == 0:
                return last.stdout
            time.sleep(every)
        told = "" if last is None else last.stdout + last.stderr
        raise AssertionError(f"{what}: not after {seconds:.0f} s\n{told}\n{self.journal()}")

    def journal(self) -> str:
        """What our units said last."""
        units = "-u edge-agent -u edge-images -u podman"
        return self.try_run(f"journalctl -b --no-pager -n 60 {units}; systemctl --failed --no-pager").stdout
