"""A virtual machine with UEFI and a disk of its own, spoken to over its serial console; `cut` is a power cut.

Emulated (`-accel tcg`), so that it runs where a machine in a machine may not. No network.
"""

import itertools
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, Self

_BOOT_SECONDS: Final = 3600.0
_FIRMWARE: Final = Path("/usr/share/OVMF")
_PROMPT: Final = re.compile(rb"root@edge:[^\r\n]*# ")


class SerialMachine:
    """One machine; its disk is a layer above the image, and what is on it outlives `cut`.

    Attributes:
        seen: Everything the console said.
    """

    def __init__(self, disk: Path, folder: Path, *, more: Path | None = None, memory_mib: int = 1536) -> None:
        """Prepare it; `more` is a second disk, read-only."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._disk, self._vars, self._socket = folder / "disk.qcow2", folder / "vars.fd", folder / "serial"
        self._more, self._memory = more, memory_mib
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._numbers = itertools.count(1)
        self.seen = b""
        shutil.copy(_FIRMWARE / "OVMF_VARS_4M.fd", self._vars)
        _qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk.absolute()), str(self._disk))

    def power_on(self) -> None:
        """Start it."""
        assert self._process is None
        code, console = _FIRMWARE / "OVMF_CODE_4M.fd", self.folder / "console.log"
        arguments = [
            "qemu-system-x86_64", "-machine", "q35", "-cpu", "max,la57=off", "-accel", "tcg,thread=multi",
            "-smp", "2", "-m", str(self._memory),
            "-drive", f"if=pflash,format=raw,readonly=on,file={code}",
            "-drive", f"if=pflash,format=raw,file={self._vars}",
            # What the guest flushed is on the disk; the rest is lost with the process.
            "-drive", f"file={self._disk},if=virtio,format=qcow2,cache=writeback",
            "-chardev", f"socket,id=serial,path={self._socket},server=on,wait=off,logfile={console},logappend=on",
            "-serial", "chardev:serial", "-device", "virtio-rng-pci",
            "-nic", "none", "-display", "none", "-monitor", "none",
        ]  # fmt: skip
        if self._more is not None:
            arguments += ["-drive", f"file={self._more},if=virtio,format=raw,readonly=on"]
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._line = self._connect()

    def cut(self) -> None:
        """Cut the power."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def until_login(self, seconds: float = _BOOT_SECONDS) -> float:
        """Wait for a root shell, after this call; returns the seconds it took."""
        began = time.monotonic()
        self.until(_PROMPT, seconds)
        # No echo, so that what comes is what was printed; wide, so that no line is broken.
        self._send(" stty -echo cols 1000; PS1=; export TERM=dumb SYSTEMD_PAGER=; set +m\n")
        assert self.run("true")[0] == 0
        return time.monotonic() - began

    def run(self, command: str, seconds: float = 300.0) -> tuple[int, str]:
        """Run a shell command; its exit code and what it printed."""
        number = next(self._numbers)
        start = len(self.seen)
        self._send(f" {command}\n printf 'E%s-{number}:%d\\n' ND $?\n")
        found = self.until(re.compile(rb"END-%d:(\d+)" % number), seconds, since=start)
        return int(found[1]), self.seen[start : found.start()].decode(errors="replace").replace("\r", "").strip()

    def ask(self, command: str, seconds: float = 300.0) -> str:
        """Run a shell command that must succeed."""
        code, text = self.run(command, seconds)
        assert code == 0, f"{command}: exit {code}\n{text}"
        return text

    def begin(self, command: str) -> None:
        """Start a command and do not wait."""
        self._send(f" {command}\n")

    def until(self, pattern: "re.Pattern[bytes]", seconds: float, since: int | None = None) -> "re.Match[bytes]":
        """Wait until the console says something, from now on or from a place in `seen` on."""
        start = len(self.seen) if since is None else since
        end = time.monotonic() + seconds
        while (found := pattern.search(self.seen, start)) is None:
            left = end - time.monotonic()
            assert left > 0, f"waited {seconds:.0f} s for {pattern.pattern!r}; the console's last words:\n{self.tail()}"
            self._read(left)
        return found

    def tail(self) -> str:
        """The console's last words."""
        return self.seen[-3000:].decode(errors="replace")

    def _read(self, seconds: float) -> None:
        assert self._line is not None
        assert self._process is not None
        assert self._process.poll() is None, f"qemu ended with {self._process.returncode}"
        self._line.settimeout(min(seconds, 5.0))
        try:
            self.seen += self._line.recv(65536)
        except TimeoutError:
            return

    def _send(self, text: str) -> None:
        assert self._line is not None
        self._line.sendall(text.encode())

    def _connect(self) -> socket.socket:
        end = time.monotonic() + 60
        while True:
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                line.close()
                assert time.monotonic() < end, "qemu did not start"
                time.sleep(0.1)
            else:
                return line


def _qemu_img(*arguments: str) -> None:
    subprocess.run(("qemu-img", *arguments), check=True)
