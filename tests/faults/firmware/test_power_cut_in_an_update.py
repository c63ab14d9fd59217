"""The power goes before any change that an update makes to the disk, and then once more before any of the next start.

What must be left: at each moment `current` leads to a whole version; at the end a good version runs and is the good
one, a bad one does not, and what was asked for has an answer.
"""

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.model.runtime_update import Outcome
from tests.firmware.bundles import NEW, OLD, PlayedDevice, make_runtime_bundle

_CHANGES = {"os.rename", "os.remove", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate"}
_MOST_CUTS = 200


class PowerCutError(BaseException):
    """Nothing after this is done; not an Exception, so that nobody handles it."""


class _Fuse:
    """Counts changes below a folder, and blows before one of them. An audit hook stays for ever, so it is one."""

    folder = ""
    left = -1

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left < 0 or not self.folder:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3
        if (event in _CHANGES or writes) and self.folder in str(arguments[0]) + str(arguments[1:2]):
            self.left -= 1
            if self.left < 0:
                raise PowerCutError


_FUSE = _Fuse()
sys.addaudithook(_FUSE)


@contextmanager
def power_for(changes: int, folder: Path) -> Iterator[None]:
    """Let so many changes happen."""
    _FUSE.folder, _FUSE.left = str(folder), changes
    try:
        yield
    finally:
        _FUSE.folder, _FUSE.left = "", -1


def carry_on(device: PlayedDevice, changes: int) -> bool:
    """Return whether it came to its end before the power went; the device boots then."""
    try:
        with power_for(changes, device.folder):
            device.updater().carry_on()
    except PowerCutError:
        assert device.runtimes.is_whole(device.runtimes.current())
        assert (device.runtimes.path(device.runtimes.current()) / "bin").is_dir()
        device.boot()
        return False
    return True


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut does to what was not synced is shown for `edge.files`; here the order of changes counts."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("bad", [False, True], ids=["good version", "bad version"])
def test_whenever_the_power_goes_the_next_start_takes_the_update_to_its_end(tmp_path: Path, *, bad: bool) -> None:
    bundle = make_runtime_bundle(tmp_path)
    cuts = 0
    for first in range(_MOST_CUTS):
        device = PlayedDevice(tmp_path / f"{first}", unwell=frozenset({NEW} if bad else {}))
        device.ask(bundle)
        if carry_on(device, first):
            break
        # A power cut in the recovery from a power cut.
        carry_on(device, first % 7)
        assert device.updater().carry_on() is not None
        cuts += 1
        _check(device, bad=bad, when=first)
    assert 15 < cuts < _MOST_CUTS - 1


def _check(device: PlayedDevice, *, bad: bool, when: int) -> None:
    result = device.spool.result()
    assert result is not None
    wanted = (Outcome.RETURNED, OLD) if bad else (Outcome.INSTALLED, NEW)
    found = (result.outcome, device.runtimes.current())
    assert found == wanted, f"cut before change {when}: {result.reason}"
    assert device.runtimes.good() == device.runtimes.current() == device.running
    assert (device.spool.trial(), device.spool.request()) == (None, None)
    assert device.spool.floor() == ("0.0.0" if bad else NEW)
    assert OLD in device.versions()


def test_a_version_that_takes_the_whole_machine_down_is_left_behind(tmp_path: Path) -> None:
    """It never comes to a verdict: each trial ends in a reboot."""
    device = PlayedDevice(tmp_path / "device")
    device.ask(make_runtime_bundle(tmp_path))

    def sleep(_: float) -> None:
        raise PowerCutError

    device._sleep = sleep  # type: ignore[method-assign, assignment]
    for attempt in itertools.count(1):
        assert attempt < 10
        try:
            device.updater().carry_on()
        except PowerCutError:
            device.boot()
            continue
        break
    result = device.spool.result()
    assert result is not None
    assert (attempt, result.outcome, device.running) == (4, Outcome.RETURNED, OLD)
