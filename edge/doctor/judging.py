"""From facts to findings: pure, so that every illness can be made up."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from edge.doctor.facts import (
    DeviceFacts,
    DiskFacts,
    IdentityFacts,
    KernelFacts,
    PodmanFacts,
    ServiceFacts,
    WearFacts,
)
from edge.doctor.findings import Finding, Fix, good, problem, warning
from edge.podman_host import CgroupMode

_OLDEST_KERNEL: Final = (5, 9)
"""pidfds as the agent uses them, `close_range`: docs/hosts.md."""
_RESEND_KERNEL: Final = (6, 9)
"""`FUSE_NOTIFY_RESEND`."""
_OLDEST_PODMAN: Final = (4, 3, 1)
_MIB: Final = 1024 * 1024
_LITTLE_FREE, _TOO_LITTLE_FREE = 1024 * _MIB, 200 * _MIB
_FEW_INODES: Final = 0.05
_LIFE_LEFT: Final = 0.2
"""A certificate is renewed when a third of its life is left; less than this means that it was not."""
_WORN: Final = 8


def judge(facts: DeviceFacts) -> tuple[Finding, ...]:
    """Say what is good, what is not, and what to do, in the order in which one would mend it."""
    return (
        *_kernel(facts.kernel),
        _clock(facts),
        *map(_disk, facts.disks),
        *_wear(facts.wear),
        *_podman(facts.podman, facts.services, facts.kernel),
        *_image_service(facts.services, facts.kernel),
        *_identity(facts.identity, facts.now),
        _agent(facts.services, facts.identity, facts.kernel),
    )


def _kernel(kernel: KernelFacts) -> Iterator[Finding]:
    about = "kernel"
    if _version(kernel.release) < _OLDEST_KERNEL:
        yield problem(about, f"Linux {kernel.release} is older than 5.9", "Update the operating system.")
    else:
        yield good(about, f"Linux {kernel.release}")
    about = "cgroups"
    if kernel.cgroup_mode is not CgroupMode.UNIFIED:
        yield warning(
            about,
            f"control groups are mounted in {kernel.cgroup_mode.value} mode",
            "Boot with systemd.unified_cgroup_hierarchy=1; until then containers need runc.",
        )
    else:
        yield good(about, "control groups v2")
    about = "memory limits"
    if kernel.memory_controller:
        yield good(about, "the kernel limits memory")
    elif kernel.cmdline_file is not None:
        yield problem(
            about,
            "the memory controller is off: tasks' memory limits have no effect",
            f"Add cgroup_enable=memory to the line in {kernel.cmdline_file}, and restart the device.",
            Fix.ENABLE_MEMORY_CGROUP,
        )
    else:
        yield problem(
            about,
            "the memory controller is off: tasks' memory limits have no effect",
            "Boot with cgroup_enable=memory (old kernels: cgroup_memory=1).",
        )
    yield _fuse(kernel)
    if "overlay" in kernel.filesystems:
        yield good("overlay", "there")
    else:
        yield problem(
            "overlay", "the kernel has no overlay file system loaded", "Run modprobe overlay.", Fix.LOAD_OVERLAY
        )


def _fuse(kernel: KernelFacts) -> Finding:
    about = "fuse"
    if not kernel.fuse_device or "fuse" not in kernel.filesystems:
        return warning(
            about,
            "there is no FUSE: images are pulled whole before they start",
            "Run modprobe fuse; if the module is not there, install the kernel's full module package.",
            Fix.LOAD_FUSE,
        )
    if _version(kernel.release) < _RESEND_KERNEL:
        return good(about, "there; before Linux 6.9 a read that a dying image service had begun fails once")
    return good(about, "there, with resend")


def _clock(facts: DeviceFacts) -> Finding:
    told = facts.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if facts.clock_synchronized:
        return good("clock", f"synchronized, {told}")
    return warning(
        "clock",
        f"nobody has set it since the start: {told}",
        "Let the device reach a time server (systemd-timesyncd); commands that expire wait until then.",
        Fix.SET_CLOCK if facts.kernel.systemd else None,
    )


def _disk(disk: DiskFacts) -> Finding:
    about = f"disk, {disk.where}"
    told = f"{disk.free // _MIB} MiB of {disk.size // _MIB} free on {disk.path}"
    room = (
        "Remove images no task needs (edge image prune), old logs (journalctl --vacuum-size=50M), or use a larger card."
    )
    if disk.read_only:
        return problem(
            about,
            f"{disk.path} is read-only",
            "After an error the kernel protects a failing card: look at `dmesg`, copy the data, replace the card.",
        )
    if disk.free < _TOO_LITTLE_FREE:
        return problem(about, told, room)
    if disk.inodes_free is not None and disk.inodes_free < _FEW_INODES:
        return warning(about, f"{disk.inodes_free:.0%} of the inodes are free on {disk.path}", room)
    if disk.free < _LITTLE_FREE:
        return warning(about, told, room)
    return good(about, told)


def _wear(wear: WearFacts) -> Iterator[Finding]:
    for device, errors in wear.filesystem_errors:
        yield problem(
            f"file system, {device}",
            f"ext4 counted {errors} errors",
            "Check it from another system (fsck), and replace the card if more come.",
        )
    if wear.life_tenths is not None and wear.life_tenths >= _WORN:
        yield warning(
            "wear", f"{wear.life_tenths * 10} % of the storage's life is used", "Plan to replace it; keep a copy."
        )
    elif wear.reserve is not None and wear.reserve > 1:
        yield warning("wear", "the storage has few spare blocks left", "Replace it; keep a copy.")
    elif wear.life_tenths is not None:
        yield good("wear", f"at most {wear.life_tenths * 10} % of the storage's life is used")
    else:
        yield good("wear", "the storage does not tell (SD cards do not)")


def _podman(podman: PodmanFacts, services: ServiceFacts, kernel: KernelFacts) -> Iterator[Finding]:
    about = "podman"
    if not podman.version:
        yield problem(about, "Podman is not installed", "apt install podman crun")
        return
    if _version(podman.version) < _OLDEST_PODMAN:
        yield problem(about, f"Podman {podman.version} is older than 4.3.1", "Use Debian 12 or newer.")
    else:
        yield good(about, f"Podman {podman.version}, {' and '.join(podman.runtimes) or 'no runtime'}")
    wanted = "runc" if kernel.cgroup_mode is CgroupMode.HYBRID else "crun"
    if not podman.runtimes or (wanted == "runc" and wanted not in podman.runtimes):
        yield problem("runtime", f"{wanted} is not installed", f"apt install {wanted}")
    if podman.problem:
        yield problem(
            "podman's service",
            podman.problem,
            "Run systemctl enable --now podman.socket; without systemd, `edge up`.",
            Fix.START_PODMAN_SOCKET if kernel.systemd else None,
        )
    else:
        yield good("podman's service", "answers")
    about = "podman's store"
    if podman.driver not in ("", "overlay"):
        yield warning(
            about, f"its driver is {podman.driver}", 'Set driver = "overlay" in /etc/containers/storage.conf.'
        )
    elif services.store and services.store not in podman.image_stores and kernel.systemd:
        yield warning(
            about,
            f"Podman does not read {services.store}: images are pulled whole",
            f'Add additionalimagestores = ["{services.store}"] to [storage.options] of /etc/containers/storage.conf.',
        )
    else:
        yield good(about, "overlay")


def _image_service(services: ServiceFacts, kernel: KernelFacts) -> Iterator[Finding]:
    about = "image service"
    if services.images_problem:
        yield warning(
            about,
            services.images_problem,
            "Run systemctl enable --now edge-images.service; until then images are pulled whole.",
            Fix.START_IMAGES if kernel.systemd else None,
        )
        return
    if services.store_mounted:
        yield good(about, f"answers, {services.store} is mounted")
    else:
        yield problem(
            about, f"it answers, and nothing is mounted in {services.store}", "systemctl restart edge-images.service"
        )
    for name, why in services.image_problems:
        yield warning(f"image {name}", why, "It is tried again; see `edge image log`.")


def _identity(identity: IdentityFacts, now: datetime) -> Iterator[Finding]:
    if not identity.enrolled:
        yield problem(
            "identity",
            "this device is not enrolled: there is no agent.toml",
            "Make its identity: edge device add NAME on the operator's machine, or ansible/playbooks/enroll.yml.",
        )
        return
    if identity.config_problem:
        yield problem("configuration", identity.config_problem, "Mend agent.toml: docs/configuration.md.")
        return
    yield good("configuration", "an agent starts with it")
    if identity.valid_from is not None and identity.valid_until is not None:
        yield _certificate(identity.valid_from, identity.valid_until, now)
    if identity.broker_problem:
        yield problem(
            "broker",
            f"{identity.broker}: {identity.broker_problem}",
            "Is the network there, does the name resolve, does a firewall let it through? What runs goes on meanwhile.",
        )
    else:
        yield good("broker", f"{identity.broker} lets this device's certificate in")


def _certificate(begins: datetime, ends: datetime, now: datetime) -> Finding:
    about = "certificate"
    day = ends.strftime("%Y-%m-%d")
    if now < begins:
        return problem(about, "it is not valid yet by this clock", "Set the clock.")
    if now >= ends:
        return problem(
            about, f"it ended on {day}", "Issue another: edge device add NAME --csr FILE --force, and copy it here."
        )
    if (ends - now) / (ends - begins) < _LIFE_LEFT:
        return warning(
            about, f"it ends on {day} and was not renewed", "Does `edge controller run` run? It renews certificates."
        )
    return good(about, f"valid until {day}")


def _agent(services: ServiceFacts, identity: IdentityFacts, kernel: KernelFacts) -> Finding:
    about = "agent"
    if not services.agent_running:
        startable = kernel.systemd and identity.enrolled and not identity.config_problem
        return problem(
            about,
            "it does not run",
            "Run systemctl enable --now edge-agent.service; its reasons are in journalctl -u edge-agent.",
            Fix.START_AGENT if startable else None,
        )
    if services.agent_link:
        return warning(about, f"it runs, without the broker: {services.agent_link}", "See the broker, above.")
    return good(about, "it runs, and the broker has it")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.split("-", maxsplit=1)[0])[:3])
