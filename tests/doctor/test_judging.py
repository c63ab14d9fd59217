"""Every illness a device can have, made up as values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.doctor.facts import (
    DeviceFacts,
    DiskFacts,
    IdentityFacts,
    KernelFacts,
    PodmanFacts,
    ServiceFacts,
    WearFacts,
)
from edge.doctor.findings import Finding, Fix, Severity
from edge.doctor.judging import judge
from edge.podman_host import CgroupMode

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
GIB = 1 << 30
HEALTHY = DeviceFacts(
    now=NOW,
    clock_synchronized=True,
    kernel=KernelFacts(
        "6.12.20+rpt-rpi-v8",
        CgroupMode.UNIFIED,
        memory_controller=True,
        cmdline_file=Path("/boot/firmware/cmdline.txt"),
        filesystems=frozenset({"ext4", "fuse", "overlay"}),
        fuse_device=True,
        systemd=True,
    ),
    podman=PodmanFacts("5.4.2", ("crun",), "", ("/var/lib/edge/images/store",), "overlay"),
    identity=IdentityFacts(
        enrolled=True,
        config_problem="",
        broker="broker.example:8883",
        valid_from=NOW - timedelta(days=10),
        valid_until=NOW + timedelta(days=355),
    ),
    disks=(DiskFacts("system", Path("/"), 30 * GIB, 20 * GIB, 0.9, read_only=False),),
    wear=WearFacts(life_tenths=1, reserve=1),
    services=ServiceFacts(agent_running=True, store="/var/lib/edge/images/store", store_mounted=True),
)


def changed(part: str, **fields: Any) -> DeviceFacts:
    if part == "disks":
        return replace(HEALTHY, disks=(replace(HEALTHY.disks[0], **fields),))
    return replace(HEALTHY, **({part: replace(getattr(HEALTHY, part), **fields)} if part else fields))


def ills(facts: DeviceFacts) -> list[Finding]:
    return [one for one in judge(facts) if one.severity is not Severity.GOOD]


def test_a_healthy_device_has_nothing() -> None:
    assert ills(HEALTHY) == []


@pytest.mark.parametrize(
    ("facts", "about", "severity", "fix"),
    [
        (changed("kernel", release="5.4.0-1"), "kernel", "problem", None),
        (changed("kernel", cgroup_mode=CgroupMode.LEGACY), "cgroups", "warning", None),
        (changed("kernel", memory_controller=False), "memory limits", "problem", Fix.ENABLE_MEMORY_CGROUP),
        (changed("kernel", memory_controller=False, cmdline_file=None), "memory limits", "problem", None),
        (changed("kernel", fuse_device=False), "fuse", "warning", Fix.LOAD_FUSE),
        (changed("kernel", filesystems=frozenset({"fuse"})), "overlay", "problem", Fix.LOAD_OVERLAY),
        (changed("", clock_synchronized=False), "clock", "warning", Fix.SET_CLOCK),
        (changed("disks", free=100 << 20), "disk, system", "problem", None),
        (changed("disks", free=900 << 20), "disk, system", "warning", None),
        (changed("disks", inodes_free=0.01), "disk, system", "warning", None),
        (changed("disks", read_only=True), "disk, system", "problem", None),
        (changed("wear", filesystem_errors=(("mmcblk0p2", 3),)), "file system, mmcblk0p2", "problem", None),
        (changed("wear", life_tenths=9), "wear", "warning", None),
        (changed("wear", life_tenths=None, reserve=2), "wear", "warning", None),
        (changed("podman", version=""), "podman", "problem", None),
        (changed("podman", version="4.2.0"), "podman", "problem", None),
        (changed("podman", runtimes=()), "runtime", "problem", None),
        (changed("podman", problem="nobody answers"), "podman's service", "problem", Fix.START_PODMAN_SOCKET),
        (changed("podman", driver="vfs"), "podman's store", "warning", None),
        (changed("podman", image_stores=()), "podman's store", "warning", None),
        (changed("services", images_problem="nobody is there"), "image service", "warning", Fix.START_IMAGES),
        (changed("services", store_mounted=False), "image service", "problem", None),
        (changed("services", image_problems=(("app:1", "no registry"),)), "image app:1", "warning", None),
        (changed("services", agent_running=False), "agent", "problem", Fix.START_AGENT),
        (changed("services", agent_link="refused"), "agent", "warning", None),
        (changed("identity", config_problem="broker.host: missing"), "configuration", "problem", None),
        (changed("identity", broker_problem="no route"), "broker", "problem", None),
        (changed("identity", valid_until=NOW), "certificate", "problem", None),
        (changed("identity", valid_from=NOW + timedelta(days=1)), "certificate", "problem", None),
        (changed("identity", valid_until=NOW + timedelta(days=1)), "certificate", "warning", None),
    ],
)
def test_one_illness_is_one_finding_with_its_advice(
    facts: DeviceFacts, about: str, severity: str, fix: Fix | None
) -> None:
    (found,) = ills(facts)
    assert (found.about, found.severity.value, found.fix) == (about, severity, fix)
    assert found.advice


def test_a_device_that_is_not_enrolled_is_told_so_and_no_agent_is_started() -> None:
    facts = replace(HEALTHY, identity=IdentityFacts(enrolled=False, config_problem="no such file"))
    facts = replace(facts, services=ServiceFacts(agent_running=False, images_problem="nobody is there"))
    assert {one.about: one.fix for one in ills(facts)} == {
        "image service": Fix.START_IMAGES,
        "identity": None,
        "agent": None,
    }


def test_hybrid_groups_need_runc() -> None:
    found = ills(changed("kernel", cgroup_mode=CgroupMode.HYBRID))
    assert [(one.about, one.severity.value) for one in found] == [("cgroups", "warning"), ("runtime", "problem")]


def test_without_systemd_nothing_is_started_by_it() -> None:
    facts = changed("kernel", systemd=False)
    facts = replace(
        facts, services=ServiceFacts(agent_running=False, images_problem="nobody"), clock_synchronized=False
    )
    assert {one.fix for one in ills(facts)} == {None}


def test_an_old_kernel_is_told_what_it_lacks() -> None:
    (told,) = [one.told for one in judge(changed("kernel", release="6.6.31")) if one.about == "fuse"]
    assert "6.9" in told
