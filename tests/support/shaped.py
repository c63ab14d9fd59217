"""A slow link to a real registry: a network namespace behind a veth pair, with its rate shaped by the kernel.

The rate is a token bucket on the registry's end (tc-tbf(8)). Latency is added in user space, since not every kernel has
netem: a process beside the registry holds back what a client sends by one round trip, and a new connection's first
bytes by another, as its handshake would have cost. Both are exact for protocols that ask and wait for the answer.
"""

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.mosquitto import free_port
from tests.support.registry import Registry

_MEGABIT = 125_000
_PIECE = 256 * 1024


class ShapedRegistry:
    """`with ShapedRegistry(folder) as slow:`; `slow.registry` answers on a namespace's address.

    Pushing to it is not shaped; what it sends is, once `shape` was called.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"edge{secrets.token_hex(3)}"
        net = f"10.{secrets.randbelow(50) + 100}.{secrets.randbelow(256)}"
        self._near, self.host = f"{net}.1", f"{net}.2"
        self._inside = ("ip", "netns", "exec", self.name)
        self.registry = Registry(folder, free_port(), host=self.host, inside=self._inside)
        self.registries_conf = folder / "registries.conf"
        self.registries_conf.write_text(f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n')
        self._delayed: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}

    def shape(self, megabits: float) -> None:
        """Let it send so many megabits in a second, whatever it was before."""
        rate = int(megabits * _MEGABIT)
        # A bucket of 2 ms: short enough that no request is answered from what was saved up. A queue of 50 ms.
        burst = max(rate // 500, 8_000)
        self._tc("replace", "rate", f"{rate}bps", "burst", str(burst), "latency", "50ms")

    def address(self, round_trip_ms: int = 0) -> str:
        """`HOST:PORT` to ask it at, with this latency."""
        if not round_trip_ms:
            return self.registry.address
        if round_trip_ms not in self._delayed:
            port = free_port()
            command = (sys.executable, "-m", "tests.support.shaped", self.host, str(port), str(self.registry.port))
            process = subprocess.Popen((*self._inside, *command, str(round_trip_ms)), cwd=Path(__file__).parents[2])
            self._delayed[round_trip_ms] = (f"{self.host}:{port}", process)
            _wait_for(self.host, port)
        return self._delayed[round_trip_ms][0]

    def sent_bytes(self) -> int:
        """What it has sent through the link so far, headers included."""
        told = subprocess.run(
            ("ip", "-s", "link", "show", self.name), check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"RX:.*\n\s*(\d+)", told)
        assert found is not None, told
        return int(found[1])

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "far", "netns", self.name)
        _ip("address", "add", f"{self._near}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        for command in (
            ("address", "add", f"{self.host}/24", "dev", "far"),
            ("link", "set", "far", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *command)
        self.registry.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._delayed.values():
            process.kill()
            process.wait()
        self.registry.kill()
        _ip("link", "delete", self.name)
        _ip("netns", "delete", self.name)

    def _tc(self, verb: str, *shape: str) -> None:
        command = ("tc", "qdisc", verb, "dev", "far", "root", "tbf", *shape)
        subprocess.run((*self._inside, *command), check=True, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(("ip", *arguments), check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def _delay(host: str, port: int, target: int, seconds: float) -> None:
    """Forward connections to a port on loopback or this host, each client's bytes late."""
    listener = socket.create_server((host, port), backlog=64)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((host, target))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_forward, args=(near, far, seconds), daemon=True).start()
        threading.Thread(target=_forward, args=(far, near, 0.0), daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, seconds: float) -> None:
    wait = 2 * seconds
    try:
        while data := source.recv(_PIECE):
            if seconds:
                time.sleep(wait)
                wait = seconds
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


if __name__ == "__main__":
    os.setpgid(0, 0)
    _delay(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) / 1000)
