"""The updater on the real folders and links, with a played agent; what must be left, however an update ends."""

from pathlib import Path

import pytest

from edge.errors import TransientError
from edge.model.runtime_update import Outcome, Phase, Trial, UpdateRequest
from tests.firmware.bundles import NEW, OLD, PlayedDevice, make_runtime_bundle
from tests.model.signers import MemorySigner


@pytest.fixture
def device(tmp_path: Path) -> PlayedDevice:
    return PlayedDevice(tmp_path / "device")


def state(device: PlayedDevice) -> tuple[str, str, str]:
    """What runs, what is good, what the agent is."""
    return device.runtimes.current(), device.runtimes.good(), device.running


def test_a_good_version_takes_over_and_becomes_the_floor(device: PlayedDevice, tmp_path: Path) -> None:
    result = device.update(make_runtime_bundle(tmp_path))
    assert (result.outcome, result.version, result.previous) == (Outcome.INSTALLED, NEW, OLD)
    assert state(device) == (NEW, NEW, NEW)
    assert device.spool.floor() == NEW
    assert device.versions() == [OLD, NEW], "the one before stays"
    assert (device.spool.request(), device.spool.trial()) == (None, None)
    assert device.restarts == 1


def test_a_version_that_never_gets_ready_goes_back(device: PlayedDevice, tmp_path: Path) -> None:
    device.unwell = frozenset({NEW})
    result = device.update(make_runtime_bundle(tmp_path))
    assert result.outcome is Outcome.RETURNED
    assert "has not found its containers after 60 s" in result.reason
    assert state(device) == (OLD, OLD, OLD)
    assert device.spool.floor() == "0.0.0"
    assert device.versions() == [OLD], "what was not well does not stay"


def test_a_version_that_does_not_find_the_broker_goes_back_only_if_the_old_one_had_it(tmp_path: Path) -> None:
    bundle = make_runtime_bundle(tmp_path)
    result = PlayedDevice(tmp_path / "online", deaf=frozenset({NEW})).update(bundle)
    assert result.outcome is Outcome.RETURNED
    assert "does not reach the broker" in result.reason
    offline = PlayedDevice(tmp_path / "offline", connected=False)
    assert offline.update(bundle).outcome is Outcome.INSTALLED


def test_an_agent_that_starts_again_and_again_is_not_well(device: PlayedDevice, tmp_path: Path) -> None:
    look = device.look
    looks = 0

    def flapping() -> object:
        nonlocal looks
        looks += 1
        if looks % 5 == 0 and device.running == NEW:
            device._pid += 1
        return look()

    device.look = flapping  # type: ignore[method-assign, assignment]
    result = device.update(make_runtime_bundle(tmp_path))
    assert result.outcome is Outcome.RETURNED
    assert "it started" in result.reason


def test_no_agent_means_no_trial(device: PlayedDevice, tmp_path: Path) -> None:
    device.stopped = True
    result = device.update(make_runtime_bundle(tmp_path))
    assert (result.outcome, state(device)[:2]) == (Outcome.REFUSED, (OLD, OLD))
    assert "could not prove itself" in result.reason


def test_an_older_version_is_refused_after_a_newer_one_proved_itself(device: PlayedDevice, tmp_path: Path) -> None:
    device.update(make_runtime_bundle(tmp_path, "0.3.0"))
    older = make_runtime_bundle(tmp_path, NEW)
    result = device.update(older, id="two")
    assert (result.outcome, state(device)) == (Outcome.REFUSED, ("0.3.0", "0.3.0", "0.3.0"))
    assert "older than 0.3.0" in result.reason
    assert device.update(older, id="three", allow_downgrade=True).outcome is Outcome.INSTALLED
    assert (state(device), device.spool.floor()) == ((NEW, NEW, NEW), "0.3.0")
    again = device.update(make_runtime_bundle(tmp_path, "0.2.5"), id="four")
    assert again.outcome is Outcome.REFUSED, "the floor stays where it was"


def test_a_lost_floor_is_at_least_what_runs(device: PlayedDevice, tmp_path: Path) -> None:
    device.update(make_runtime_bundle(tmp_path, "0.3.0"))
    (device.spool.folder / "floor").write_text("nonsense")
    assert device.update(make_runtime_bundle(tmp_path, NEW), id="two").outcome is Outcome.REFUSED


def test_a_bundle_of_a_stranger_or_for_another_board_changes_nothing(device: PlayedDevice, tmp_path: Path) -> None:
    result = device.update(make_runtime_bundle(tmp_path, signers=[MemorySigner()]))
    assert (result.outcome, result.version) == (Outcome.REFUSED, "")
    result = device.update(make_runtime_bundle(tmp_path, boards=["raspberrypi,5-model-b"]), id="two")
    assert (result.outcome, result.version) == (Outcome.REFUSED, NEW)
    assert (state(device), device.versions(), device.restarts) == ((OLD, OLD, OLD), [OLD], 0)


def test_a_bundle_that_cannot_be_had_fails_and_leaves_room_for_the_next(device: PlayedDevice, tmp_path: Path) -> None:
    assert device.update(tmp_path / "missing").outcome is Outcome.FAILED
    ref = {"url": "registry.example/edge", "digest": f"sha256:{'ab' * 32}", "size": 10}
    device.spool.ask(UpdateRequest.model_validate({"id": "two", "ref": ref}))
    result = device.updater().carry_on()
    assert result is not None
    assert (result.id, result.outcome) == ("two", Outcome.FAILED)
    assert device.update(make_runtime_bundle(tmp_path), id="three").outcome is Outcome.INSTALLED


def test_services_that_cannot_be_restarted_are_no_reason_to_lose_the_trial(
    device: PlayedDevice, tmp_path: Path
) -> None:
    def restart() -> None:
        raise TransientError("systemd is busy")

    device.restart = restart  # type: ignore[method-assign]
    result = device.update(make_runtime_bundle(tmp_path))
    assert result.outcome is Outcome.RETURNED
    assert "still version 0.1.0" in result.reason
    assert state(device) == (OLD, OLD, OLD)


def test_a_trial_cut_off_too_often_ends_without_another_attempt(device: PlayedDevice, tmp_path: Path) -> None:
    device.ask(make_runtime_bundle(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        _cut_in_trial(device)
    for _ in range(2):
        device.boot()
        with pytest.raises(KeyboardInterrupt):
            _cut_in_trial(device)
    device.boot()
    result = device.updater().carry_on()
    assert result is not None
    assert (result.outcome, state(device)) == (Outcome.RETURNED, (OLD, OLD, OLD))
    assert "cut off 3 times" in result.reason


def _cut_in_trial(device: PlayedDevice) -> None:
    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    real = device._sleep
    device._sleep = sleep  # type: ignore[method-assign, assignment]
    try:
        device.updater().carry_on()
    finally:
        device._sleep = real  # type: ignore[method-assign]


def test_a_version_nobody_vouches_for_goes_back(device: PlayedDevice, tmp_path: Path) -> None:
    """The links say that a trial is on, and its note is lost or damaged."""
    device.ask(make_runtime_bundle(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        _cut_in_trial(device)
    (device.spool.folder / "trial.json").write_bytes(b"\0" * 100)
    device.boot()
    device.updater().carry_on()
    assert state(device) == (OLD, OLD, OLD)


def test_a_version_half_installed_is_not_tried(device: PlayedDevice) -> None:
    device.runtimes.path(NEW).mkdir()
    device.spool.folder.mkdir(parents=True)
    trial = Trial(id="one", version=NEW, previous=OLD, must_connect=False, window_seconds=60, phase=Phase.TRYING)
    device.spool.note_trial(trial)
    result = device.updater().carry_on()
    assert result is not None
    assert "its installation is damaged" in result.reason
    assert state(device) == (OLD, OLD, OLD)


def test_nothing_to_do_is_no_update(device: PlayedDevice) -> None:
    assert device.updater().carry_on() is None
    assert device.restarts == 0
