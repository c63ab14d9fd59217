"""The scripts of the OS image, on files: first boot, slots of a Raspberry Pi, is a slot good, is a bundle older."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIB = ROOT / "firmware" / "image" / "lib"
SCRIPTS = [ROOT / "firmware" / "build.sh", *sorted(LIB.iterdir())]


def run(script: str, *arguments: str, **environment: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (str(LIB / script), *arguments),
        env={"PATH": os.environ["PATH"], **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_clean(script: Path) -> None:
    done = subprocess.run(("shellcheck", "--shell=sh", str(script)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


class Pi:
    """The first partition of a Pi, and which slot was booted."""

    def __init__(self, folder: Path) -> None:
        self.boot = folder / "boot"
        self.boot.mkdir()
        (self.boot / "autoboot.txt").write_text((LIB.parent / "boot-pi" / "autoboot.txt").read_text())
        self.cmdline = folder / "cmdline"
        self.power_cycle()

    def rauc(self, *arguments: str) -> str:
        done = run("rauc-tryboot", *arguments, EDGE_BOOT=self.boot, EDGE_CMDLINE=self.cmdline)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def power_cycle(self) -> None:
        """A boot without the flag, as after a power cut."""
        self._boot(self._partition("all"))

    def reboot_into_new(self) -> None:
        """`reboot '0 tryboot'`."""
        self._boot(self._partition("tryboot"))

    @property
    def booted(self) -> str:
        return self.cmdline.read_text().split("rauc.slot=")[1][0]

    def _partition(self, section: str) -> str:
        text = (self.boot / "autoboot.txt").read_text()
        return text.split(f"[{section}]")[1].split("boot_partition=")[1][0]

    def _boot(self, partition: str) -> None:
        self.cmdline.write_text(f"root=… rauc.slot={ {'2': 'A', '3': 'B'}[partition] } panic=10")


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


def test_a_new_slot_that_proves_itself_is_the_one_of_every_later_boot(pi: Pi) -> None:
    assert (pi.rauc("get-primary"), pi.booted) == ("A", "A")
    pi.rauc("set-state", "B", "bad")
    pi.rauc("set-state", "B", "good")
    pi.rauc("set-primary", "B")
    assert pi.rauc("get-primary") == "B"
    pi.reboot_into_new()
    assert (pi.booted, pi.rauc("get-current")) == ("B", "B")
    pi.rauc("set-state", "B", "good")
    pi.power_cycle()
    assert (pi.booted, pi.rauc("get-primary")) == ("B", "B")
    pi.rauc("set-primary", "A")
    pi.reboot_into_new()
    assert pi.booted == "A", "and back the same way"


def test_after_a_power_cut_at_its_first_boot_the_old_slot_boots(pi: Pi) -> None:
    pi.rauc("set-primary", "B")
    pi.reboot_into_new()
    pi.power_cycle()
    assert pi.booted == "A"
    # The old slot proves itself again: nobody is sent to the new one any more.
    pi.rauc("set-state", "A", "good")
    assert pi.rauc("get-primary") == "A"


def test_a_new_slot_that_is_marked_bad_is_left(pi: Pi) -> None:
    pi.rauc("set-primary", "B")
    pi.reboot_into_new()
    pi.rauc("set-state", "B", "bad")
    assert (pi.rauc("get-primary"), pi.rauc("get-state", "B"), pi.rauc("get-state", "A")) == ("A", "bad", "good")
    pi.power_cycle()
    assert pi.booted == "A"


def test_a_power_cut_while_a_slot_is_written_leaves_the_old_one(pi: Pi) -> None:
    """RAUC marks the slot bad, writes, marks it good and only then names it."""
    pi.rauc("set-state", "B", "bad")
    pi.power_cycle()
    assert (pi.booted, pi.rauc("get-primary")) == ("A", "A")


def test_nonsense_is_refused(pi: Pi) -> None:
    for arguments in ((), ("set-state", "C", "good"), ("reboot",)):
        done = run("rauc-tryboot", *arguments, EDGE_BOOT=pi.boot, EDGE_CMDLINE=pi.cmdline)
        assert done.returncode == 2, arguments
    assert pi.rauc("get-primary") == "A"


class FirstBoot:
    def __init__(self, folder: Path) -> None:
        self.boot, self.etc, self.called = folder / "boot", folder / "etc", folder / "called"
        for one in (self.boot, self.etc):
            one.mkdir()
        enrolled = f"echo 'state_dir = \"state\"' >{self.etc}/agent.toml"
        self.edge = program(
            folder / "edge",
            f'echo "$@" >>{self.called}; [ ! -e {folder}/fails ] || exit 1; [ "$2" != enroll ] || {enrolled}',
        )
        self.fails = folder / "fails"

    def run(self) -> "subprocess.CompletedProcess[str]":
        return run(
            "first-boot", EDGE_BOOT_FOLDER=self.boot, EDGE_ETC=self.etc, EDGE_PROGRAM=self.edge, EDGE_SYSTEMCTL="true"
        )

    def calls(self) -> str:
        return self.called.read_text() if self.called.exists() else ""


@pytest.fixture
def first(tmp_path: Path) -> FirstBoot:
    return FirstBoot(tmp_path)


def make_identity(first: FirstBoot) -> None:
    identity = first.boot / "identity"
    identity.mkdir()
    (identity / "agent.toml").write_text('version = 1\n[storage]\nstate_dir = "state"\n')
    (identity / "device.key").write_text("secret")


def test_an_identity_is_moved_and_nothing_of_it_stays_on_the_boot_partition(first: FirstBoot) -> None:
    make_identity(first)
    assert first.run().returncode == 0
    assert sorted(one.name for one in first.etc.iterdir()) == ["agent.toml", "device.key"]
    assert 'state_dir = "/var/lib/edge"' in (first.etc / "agent.toml").read_text()
    assert {oct(one.stat().st_mode & 0o777) for one in first.etc.iterdir()} == {"0o600"}
    assert not (first.boot / "identity").exists()


def test_an_identity_that_is_wrong_stays_where_it_is(first: FirstBoot) -> None:
    make_identity(first)
    first.fails.touch()
    assert first.run().returncode != 0
    assert list(first.etc.iterdir()) == []
    assert (first.boot / "identity" / "device.key").exists()


def test_an_activation_enrolls_and_its_code_goes(first: FirstBoot) -> None:
    (first.boot / "activation.conf").write_text("BROKER=broker.example:8883\nACTIVATION_ID=abc123\nDEVICE=pi-1\n")
    (first.boot / "activation-code").write_text("code")
    (first.boot / "ca.crt").write_text("ca")
    first.fails.touch()
    assert first.run().returncode != 0, "the broker is not there yet"
    assert (first.boot / "activation-code").exists()
    first.fails.unlink()
    assert first.run().returncode == 0
    wanted = (
        f"agent enroll --activation-id abc123 --activation-code-file {first.boot}/activation-code "
        f"--broker broker.example:8883 --ca {first.boot}/ca.crt --device pi-1 {first.etc}\n"
    )
    assert first.calls() == wanted * 2
    assert not (first.boot / "activation-code").exists()
    assert (first.etc / "agent.toml").read_text() == 'state_dir = "/var/lib/edge"\n'


def test_words_of_a_file_do_not_become_commands(first: FirstBoot, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    (first.boot / "request.conf").write_text(f"DEVICE=$(touch {evil})\n")
    assert first.run().returncode != 0
    assert not evil.exists()
    assert first.calls() == ""


def test_a_request_is_left_to_be_signed(first: FirstBoot) -> None:
    (first.boot / "request.conf").write_text("DEVICE=pi-1\r\n")
    (first.etc / "device.csr").write_text("request")
    assert first.run().returncode == 0
    assert first.calls() == f"agent request --device pi-1 {first.etc}\n"
    assert (first.boot / "device.csr").read_text() == "request"


def test_nobody_has_said_who_it_is(first: FirstBoot) -> None:
    done = first.run()
    assert (done.returncode, first.calls()) == (0, "")
    assert "README.txt" in done.stdout


@pytest.mark.parametrize(
    ("offered", "taken"),
    [("1.2.0", True), ("1.10.0", True), ("1.1.9", False), ("1.2.0-rc1", True), ("0.9.0", False), ("", False)],
)
def test_an_older_image_is_not_written(tmp_path: Path, offered: str, *, taken: bool) -> None:
    (tmp_path / "manifest.raucm").write_text(f"[update]\ncompatible=edge-vm-amd64\nversion={offered}\n")
    here = tmp_path / "here"
    here.write_text("1.2.0\n")
    script = tmp_path / "pre-install"
    text = (LIB / "pre-install").read_text()
    assert "/usr/lib/edge/image-version" in text
    program(script, text.replace("/usr/lib/edge/image-version", str(here)).removeprefix("#!/bin/sh\n"))
    done = subprocess.run(
        (str(script),),
        env={**os.environ, "RAUC_BUNDLE_MOUNT_POINT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == taken, done.stderr


class SlotCheck:
    """A slot with programs that do as they are told; what was called is written down."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.called = folder, folder / "called"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "version").write_text("1.1.0\n")
        (folder / "cmdline").write_text("rauc.slot=B panic=10")
        (folder / "agent.toml").touch()
        for name in ("rauc", "systemctl", "sleep"):
            program(self.bin / name, f'echo {name} "$@" >>{self.called}')
        program(self.bin / "sync", "")
        program(self.bin / "podman", f"[ ! -e {folder}/no-podman ]")
        program(
            self.bin / "edge", f'[ "$1" = --version ] || {{ [ -e {folder}/not-ready ] || echo \'"ready": true\'; }}'
        )
        text = (LIB / "slot-check").read_text().replace("/usr/lib/edge/image-version", str(folder / "version"))
        text = text.replace("/usr/lib/edge/bad-on-purpose", str(folder / "bad"))
        program(folder / "slot-check", text.removeprefix("#!/bin/sh\n"))

    def run(self) -> int:
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "EDGE_PROGRAM": str(self.bin / "edge"),
            "EDGE_CONFIG": str(self.folder / "agent.toml"),
            "EDGE_SLOT_NOTES": str(self.folder / "notes"),
            "EDGE_CMDLINE": str(self.folder / "cmdline"),
            "EDGE_SLOT_SECONDS": "10",
        }
        return subprocess.run(
            (str(self.folder / "slot-check"),), env=environment, check=False, capture_output=True
        ).returncode

    def calls(self) -> list[str]:
        return [line for line in self.called.read_text().splitlines() if not line.startswith("sleep")]


@pytest.fixture
def slot(tmp_path: Path) -> SlotCheck:
    return SlotCheck(tmp_path)


def test_a_slot_that_does_what_it_is_for_is_marked_good(slot: SlotCheck) -> None:
    assert slot.run() == 0
    assert slot.calls() == ["rauc status mark-good"]
    assert (slot.folder / "notes" / "good").read_text() == "B 1.1.0\n"


@pytest.mark.parametrize("lack", ["no-podman", "not-ready", "bad"])
def test_a_new_slot_that_does_not_is_left(slot: SlotCheck, lack: str) -> None:
    (slot.folder / lack).touch()
    assert slot.run() == 0
    assert slot.calls() == ["rauc status mark-bad booted", "systemctl reboot"]
    assert (slot.folder / "notes" / "last-bad").read_text().startswith("B 1.1.0: ")


def test_a_slot_that_was_good_stays_on_a_bad_day(slot: SlotCheck) -> None:
    slot.run()
    slot.called.unlink()
    (slot.folder / "not-ready").touch()
    assert slot.run() == 1
    assert slot.calls() == []
