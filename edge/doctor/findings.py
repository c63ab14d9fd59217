"""What a doctor says."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    """Tasks run; something is about to go wrong, or does less than it could."""
    PROBLEM = "problem"
    """Tasks do not run, or not as they were told to."""


class Fix(StrEnum):
    """What `--fix` may do: nothing that ends a container or loses a byte, and each harmless when repeated."""

    LOAD_FUSE = "modprobe fuse"
    LOAD_OVERLAY = "modprobe overlay"
    ENABLE_MEMORY_CGROUP = "add cgroup_enable=memory to cmdline.txt"
    START_PODMAN_SOCKET = "systemctl enable --now podman.socket"
    START_IMAGES = "systemctl enable --now edge-images.service"
    START_AGENT = "systemctl enable --now edge-agent.service"
    SET_CLOCK = "systemctl enable --now systemd-timesyncd.service"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: Which, in a few words, the same each time: programs look for it.
        told: What was found.
        advice: What to do; empty when it is good.
        fix: What `--fix` would do; None where a person must decide.
    """

    about: str
    severity: Severity
    told: str
    advice: str = ""
    fix: Fix | None = None


def good(about: str, told: str) -> Finding:
    """Nothing to do."""
    return Finding(about, Severity.GOOD, told)


def warning(about: str, told: str, advice: str, fix: Fix | None = None) -> Finding:
    """Something to look after."""
    return Finding(about, Severity.WARNING, told, advice, fix)


def problem(about: str, told: str, advice: str, fix: Fix | None = None) -> Finding:
    """Something to mend."""
    return Finding(about, Severity.PROBLEM, told, advice, fix)
