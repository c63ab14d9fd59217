"""Versions in their folder: what is left of an installation that does not come to its end."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.errors import EdgeError, NotFoundError, StoreError, StoreFullError
from edge.firmware.bundle_file import opened_bundle
from edge.firmware.runtimes import Runtimes
from tests.firmware.bundles import NEW, OLD, make_runtime_bundle, trusting


@pytest.fixture
def runtimes(tmp_path: Path) -> Runtimes:
    made = Runtimes(tmp_path / "opt")
    made.path(OLD).mkdir(parents=True)
    made.switch(OLD)
    return made


def left(runtimes: Runtimes) -> list[str]:
    return sorted(path.name for path in (runtimes.base / "versions").iterdir())


@pytest.mark.timeout(600)
def test_wheels_that_cannot_be_installed_leave_nothing(runtimes: Runtimes, tmp_path: Path) -> None:
    with (
        opened_bundle(make_runtime_bundle(tmp_path), trusting()) as bundle,
        pytest.raises(EdgeError, match="could not install the wheels"),
    ):
        runtimes.install(bundle)
    assert (left(runtimes), runtimes.current(), runtimes.is_whole(NEW)) == ([OLD], OLD, False)


def test_no_space_is_said_before_anything_is_written(
    runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with (
        opened_bundle(make_runtime_bundle(tmp_path), trusting()) as bundle,
        pytest.raises(StoreFullError, match="1 MiB free"),
    ):
        runtimes.install(bundle)
    assert left(runtimes) == [OLD]


def test_what_runs_and_what_is_good_cannot_be_removed(runtimes: Runtimes) -> None:
    runtimes.path(NEW).mkdir()
    runtimes.switch(NEW)
    assert (runtimes.current(), runtimes.good()) == (NEW, NEW), "without a note, what runs is the good one"
    runtimes.mark_good(OLD)
    assert (runtimes.current(), runtimes.good()) == (NEW, OLD)
    for version in (OLD, NEW):
        with pytest.raises(StoreError, match="in use"):
            runtimes.remove(version)
    runtimes.prune([])
    assert left(runtimes) == [OLD, NEW]


def test_a_link_of_a_set_up_by_hand_may_be_absolute(runtimes: Runtimes) -> None:
    (runtimes.base / "current").unlink()
    (runtimes.base / "current").symlink_to(runtimes.path(OLD))
    assert runtimes.current() == OLD


def test_a_folder_without_versions_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no versions"):
        Runtimes(tmp_path).current()
