"""A real Podman with a store of its own in a temporary folder; never the host's."""

import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from edge.podman_host import choose_podman_flags, choose_ulimits, read_facts

IMAGE = "localhost/edge-test/busybox:1"
START_SECONDS = 30.0


class PodmanService:
    """`podman system service` on a socket in `folder`; killed and started again as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "podman.sock"
        self._process: subprocess.Popen[bytes] | None = None
        root, runroot, temporary = folder / "root", folder / "run", folder / "tmp"
        store = ("--root", str(root), "--runroot", str(runroot), "--tmpdir", str(temporary))
        self.flags = (*store, *choose_podman_flags(read_facts()))
        registries = folder / "registries.conf"
        registries.write_text(
            'unqualified-search-registries = []\n[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
        )
        self.environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(registries)}
        self.environment.pop("CONTAINERS_STORAGE_CONF", None)

    def allow_insecure(self, registry: str) -> None:
        """Let this Podman talk plain HTTP to a registry on loopback."""
        with (self.folder / "registries.conf").open("a") as file:
            file.write(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the service and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        command = ["podman", *self.flags, "system", "service", "--time", "0", f"unix://{self.socket}"]
        with (self.folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"podman's service did not start: {(self.folder / 'service.log').read_text()}")
            time.sleep(0.02)

    def died(self) -> bool:
        """Whether the service was running and was killed by somebody else; it may be started again then."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is None

    def kill(self) -> None:
        """SIGKILL the service; containers go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End the service, remove every container and all it mounted."""
        if self._process is None:
            self.start()
        self.run_cli("rm", "--all", "--force", "--time", "0", check=False)
        self.run_cli("volume", "rm", "--all", "--force", check=False)
        self.kill()
        for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)

    def run_cli(self, *arguments: str, check: bool = True, data: bytes | None = None) -> str:
        """Run `podman` on the same store and return what it printed."""
        done = subprocess.run(
            ["podman", *self.flags, *arguments], check=False, capture_output=True, input=data, env=self.environment
        )
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def ulimit_flags(self) -> tuple[str, ...]:
        """What `podman run` needs on a host that may not raise its limits."""
        return tuple(
            part for name, most in choose_ulimits(read_facts()) for part in ("--ulimit", f"{name}={most}:{most}")
        )

    def load_busybox(self, reference: str = IMAGE) -> str:
        """Put a one-layer busybox image into the store and return its id."""
        return self.run_cli("import", "--change", 'CMD ["sleep","1000"]', "-", reference, data=busybox_tar())

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                probe.connect(str(self.socket))
                probe.sendall(b"GET /v4.0.0/libpod/_ping HTTP/1.0\r\nHost: d\r\n\r\n")
                return b"200" in probe.recv(64)
        except OSError:
            return False


@contextmanager
def podman_service(folder: Path) -> Iterator[PodmanService]:
    """Run a service in `folder`, with the test image loaded."""
    assert shutil.which("podman"), "podman is not installed: ./dev test installs it"
    service = PodmanService(folder)
    service.start()
    try:
        service.load_busybox()
        yield service
    finally:
        service.stop()


def busybox_tar() -> bytes:
    """A root file system of one static busybox with its usual names."""
    binary = Path("/bin/busybox").read_bytes()
    names = (
        "sh", "sleep", "echo", "cat", "ls", "id", "true", "false", "mount", "hostname", "httpd", "wget", "date",
        "touch", "grep", "stat", "df", "env", "pwd", "printf", "seq", "kill",
    )  # fmt: skip
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "data", "var", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, BytesIO(binary))
        for name in names:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        passwd = b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, BytesIO(passwd))
    return out.getvalue()
