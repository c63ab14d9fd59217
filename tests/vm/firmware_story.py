"""The life of a device's two slots in a booted machine: what must be left after each fault."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vm.firmware_images import Images
from tests.vm.firmware_machine import SerialMachine

Told = Callable[[str, float], None]


class Story:
    """Each step says how long it took."""

    def __init__(self, images: Images, folder: Path, told: Told) -> None:
        self.machine = SerialMachine(images.disk, folder, more=images.bundles)
        self._told = told

    def run(self) -> None:
        """All of it."""
        with self.machine:
            self._step("boot of 1.0.0", lambda: self._booted("A", "1.0.0"))
            self._step("1.0.0 proves itself", lambda: self._good("A"))
            self._step("refused: stranger, other board, older", self._refused)
            self._step("power cut in an install", self._cut_in_install)
            self._step("install of 1.1.0", lambda: self._install("1.1.0.raucb"))
            self._step("boot of 1.1.0", lambda: self._reboot("B", "1.1.0"))
            self._step("1.1.0 proves itself", lambda: self._good("B"))
            self._step("install of a bad 1.2.0", lambda: self._install("1.2.0-bad.raucb"))
            self._step("power cut at its first boot", self._cut_in_first_boot)
            self._step("install of a bad 1.2.0 again", lambda: self._install("1.2.0-bad.raucb"))
            self._step("1.2.0 does not prove itself, 1.1.0 comes back", self._comes_back)

    def _step(self, what: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        self._told(what, time.monotonic() - began)

    def _booted(self, slot: str, version: str) -> None:
        self.machine.until_login()
        assert f"rauc.slot={slot}" in self.machine.ask("cat /proc/cmdline")
        assert self.machine.ask("cat /usr/lib/edge/image-version") == version
        self.machine.ask("mkdir -p /mnt/bundles && mount -o ro /dev/vdb /mnt/bundles")

    def _good(self, slot: str) -> None:
        state = "$(systemctl show -P ActiveState edge-slot-check)"
        self.machine.ask(f"while [ {state} = activating ]; do sleep 1; done", 1200)
        told = self.machine.ask("systemctl status --no-pager edge-slot-check; cat /data/firmware/good")
        assert re.search(rf"^{slot} [0-9.]+$", told, re.MULTILINE), told
        assert self._slot(slot)["boot_status"] == "good"

    def _slot(self, name: str) -> dict[str, Any]:
        status = json.loads(self.machine.ask("edge firmware status --output json"))["image"]
        return next(slot for one in status["slots"] for slot in one.values() if slot.get("bootname") == name)

    def _refused(self) -> None:
        for name, words in (("stranger", "signature|verif"), ("other-board", "compatible"), ("older", "older than")):
            code, text = self.machine.run(f"edge firmware install /mnt/bundles/{name}.raucb")
            assert code == 5, f"{name}: exit {code}\n{text}"
            assert re.search(words, text, re.IGNORECASE), text
        assert self._slot("A")["boot_status"] == "good"

    def _install(self, name: str) -> None:
        self.machine.ask(f"edge firmware install /mnt/bundles/{name}", 2400)

    def _reboot(self, slot: str, version: str) -> None:
        self.machine.begin("systemctl reboot")
        self._booted(slot, version)

    def _cut_in_install(self) -> None:
        # Sectors written to slot B: Documentation/block/stat.rst, the seventh field.
        written = "awk '{print $7}' /sys/class/block/vda3/stat"
        enough = int(self.machine.ask(written)) + 100_000
        self.machine.begin("edge firmware install /mnt/bundles/1.1.0.raucb >/dev/null 2>&1 &")
        self.machine.ask(f"until [ $({written}) -gt {enough} ]; do sleep 0.2; done", 1200)
        self.machine.cut()
        self.machine.power_on()
        self._booted("A", "1.0.0")
        self._good("A")

    def _cut_in_first_boot(self) -> None:
        start = len(self.machine.seen)
        self.machine.begin("systemctl reboot")
        self.machine.until(re.compile(rb"booting slot A"), 1200, since=start)
        # While the kernel or systemd starts.
        time.sleep(5)
        self.machine.cut()
        self.machine.power_on()
        self._booted("B", "1.1.0")

    def _comes_back(self) -> None:
        start = len(self.machine.seen)
        self.machine.begin("systemctl reboot")
        self.machine.until(re.compile(rb"booting slot A"), 1200, since=start)
        self.machine.until(re.compile(rb"booting slot B"), 1200)
        self._booted("B", "1.1.0")
        assert "1.2.0: the image says that it is bad" in self.machine.ask("cat /data/firmware/last-bad")
        self._good("B")
