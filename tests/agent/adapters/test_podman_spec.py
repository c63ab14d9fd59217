"""A `ContainerSpec` as SpecGenerator, without a Podman: what is said even when it is nothing, and what is left out."""

from typing import Any

import pytest

from edge.agent.adapters.podman.log_frames import parse_line
from edge.agent.adapters.podman.spec import render_spec
from edge.agent.engine.ports import LogLine
from edge.model.container_spec import ContainerSpec, LogSettings, Ulimit

_LIMITS = {"nofile": 20_000, "nproc": 30_000}


def render(**fields: Any) -> dict[str, Any]:
    return render_spec(ContainerSpec("one", "a" * 64, (("edge.task-id", "t"),), **fields), _LIMITS)


def test_podmans_own_health_checks_and_restarts_are_off() -> None:
    rendered = render()
    assert rendered["healthconfig"] == {"Test": ["NONE"]}
    assert rendered["restart_policy"] == "no"
    assert rendered["read_write_tmpfs"] is False


def test_what_was_not_asked_for_is_left_to_the_image() -> None:
    rendered = render()
    assert not {"command", "entrypoint", "work_dir", "user", "env", "hostname"} & rendered.keys()
    assert render(command=())["command"] == []
    assert render(entrypoint=("/x",), command=("-v",))["entrypoint"] == ["/x"]


def test_capabilities_are_the_whole_set_except_for_a_privileged_container() -> None:
    rendered = render(capabilities=("CHOWN",))
    assert (rendered["cap_drop"], rendered["cap_add"]) == (["ALL"], ["CAP_CHOWN"])
    assert not {"cap_drop", "cap_add"} & render(privileged=True).keys()


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (None, (20_000, 20_000)),
        (Ulimit("nofile", 10, 100), (10, 100)),
        (Ulimit("nofile", 10, 1_000_000), (10, 20_000)),
        (Ulimit("nofile", 500_000, 1_000_000), (20_000, 20_000)),
        (Ulimit("nofile", -1, -1), (20_000, 20_000)),
        (Ulimit("nofile", 5, -1), (5, 20_000)),
    ],
)
def test_a_limit_the_host_cannot_grant_becomes_the_highest_it_can(
    wanted: Ulimit | None, given: tuple[int, int]
) -> None:
    limits = {
        one["type"]: (one["soft"], one["hard"]) for one in render(ulimits=(wanted,) if wanted else ())["r_limits"]
    }
    assert limits == {"nofile": given, "nproc": (30_000, 30_000)}


def test_a_limit_the_host_says_nothing_of_is_passed_on() -> None:
    assert {"type": "core", "soft": 0, "hard": 7} in render(ulimits=(Ulimit("core", 0, 7),))["r_limits"]


def test_log_drivers() -> None:
    assert render(log=LogSettings("json-file", 7, path="/p"))["log_configuration"] == {
        "driver": "k8s-file",
        "size": 7,
        "path": "/p",
    }
    assert render(log=LogSettings("json-file", 1000))["log_configuration"] == {"driver": "k8s-file", "size": 1000}
    tagged = render(log=LogSettings("journald", tag="shop"))["log_configuration"]
    assert tagged == {"driver": "journald", "options": {"tag": "shop"}}
    assert render(log=LogSettings("none"))["log_configuration"] == {"driver": "none"}


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (b"2026-11-23T18:10:35Z a b\n", LogLine("2026-11-23T18:10:35Z", "stdout", "a b")),
        (b"2026-11-23T18:10:35Z \r\n", LogLine("2026-11-23T18:10:35Z", "stdout", "")),
        (b"2026-11-23T18:10:35Z \xff\n", LogLine("2026-11-23T18:10:35Z", "stdout", "\ufffd")),
        (b"", LogLine("", "stdout", "")),
    ],
)
def test_a_log_frame_is_a_time_and_a_text(frame: bytes, line: LogLine) -> None:
    assert parse_line(1, frame) == line
    assert parse_line(2, frame).stream == "stderr"
