"""A bare Debian for a virtual machine: what is on a fresh card after its first boot, and nothing of ours.

Made once for each suite and architecture by mmdebstrap and kept in a cache; every machine has a layer of its own above.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("EDGE_VM_CACHE", "/var/tmp/edge-vm"))
_VERSION: Final = "2"
"""Of what `build` puts into an image; another number makes them anew."""
_DISK: Final = "6G"
_PACKAGES: Final = (
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "openssh-server", "python3", "iproute2", "netbase",
    "ca-certificates", "initramfs-tools", "zstd",
)  # fmt: skip
"""A Raspberry Pi OS Lite has these and many more; Ansible needs SSH and Python."""
_KERNELS: Final = {"amd64": "linux-image-cloud-amd64", "arm64": "linux-image-cloud-arm64"}
_NOT_IN_TESTS: Final = (
    "systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service e2scrub_all.timer"
)
"""What asks the network or looks for LVM at each start: minutes, when emulated."""
_NETWORK: Final = "[Match]\nName=en*\n[Network]\nDHCP=yes\n[DHCPv4]\nUseDNS=no\n"


@dataclass(frozen=True, slots=True)
class Image:
    """A machine's first disk.

    Attributes:
        disk: A raw ext4 file system, never written to.
        kernel, initrd: What QEMU loads by itself, so that no boot loader is needed.
        ssh_key: The private key of who may log in as root.
    """

    architecture: str
    disk: Path
    kernel: Path
    initrd: Path
    ssh_key: Path


def image(architecture: str, suite: str) -> Image:
    """Return the cached image, made now if it is not there. Needs root."""
    folder = CACHE / f"{suite}-{architecture}-{_VERSION}"
    if not folder.is_dir():
        sys.stderr.write(f"making a Debian {suite} for {architecture} (once, kept in {folder})\n")
        making = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        _build(making, architecture, suite)
        making.rename(folder)
    return Image(architecture, folder / "disk.img", folder / "vmlinuz", folder / "initrd", folder / "key")


def _build(folder: Path, architecture: str, suite: str) -> None:
    root = folder / "root"
    key = folder / "key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    network = folder / "80-dhcp.network"
    network.write_text(_NETWORK)
    hooks = (
        "mkdir -p $1/root/.ssh && chmod 700 $1/root/.ssh",
        f"cp {key}.pub $1/root/.ssh/authorized_keys",
        f"cp {network} $1/etc/systemd/network/80-dhcp.network",
        "chroot $1 systemctl enable --quiet systemd-networkd ssh",
        f"chroot $1 systemctl mask --quiet {_NOT_IN_TESTS}",
        "echo vm >$1/etc/hostname",
        "printf '127.0.0.1 localhost\\n127.0.1.1 vm\\n' >$1/etc/hosts",
        "printf '/dev/vda / ext4 rw,relatime 0 1\\n' >$1/etc/fstab",
        # Made at the first boot of each machine.
        "rm -f $1/etc/machine-id && touch $1/etc/machine-id",
    )
    _run(
        "nice", "-n", "10", "mmdebstrap", "--quiet", "--variant=minbase", f"--architectures={architecture}",
        f"--include={','.join((*_PACKAGES, _KERNELS[architecture]))}",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        *(f"--customize-hook={hook}" for hook in hooks),
        suite, str(root),
    )  # fmt: skip
    # qemu's `-kernel` wants a file that is not compressed on arm64, which Debian's is not.
    shutil.copy(_inside(root, "vmlinuz"), folder / "vmlinuz")
    shutil.copy(_inside(root, "initrd.img"), folder / "initrd")
    _run("nice", "-n", "10", "mke2fs", "-q", "-t", "ext4", "-d", str(root), str(folder / "disk.img"), _DISK)
    shutil.rmtree(root)


def _inside(root: Path, name: str) -> Path:
    """Follow a link as it is seen from inside the root."""
    return root / str((root / name).readlink()).lstrip("/")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
