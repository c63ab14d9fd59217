"""What a container is told of telemetry, and where its log goes."""

from typing import Any, Final

import pytest

from edge.model.container_spec import LogSettings, Mount
from edge.model.container_spec_builder import DEFAULT_LOG_BYTES, SpecContext, build_container_spec
from edge.model.task_definition import parse_task_definition

URI: Final = "http+unix://%2Frun%2Fedge%2Ftelemetry.sock"
MIB: Final = 1024 * 1024


def built(context: dict[str, str] | None = None, **fields: Any) -> Any:
    container = {"name": "web", "image": "x", "memory": 32, **fields}
    volumes = [{"name": "v", "host": {"sourcePath": "/srv"}}]
    definition = parse_task_definition({"family": "app", "containerDefinitions": [container], "volumes": volumes})
    given = SpecContext("c", "d", "t1", "sha", "a" * 64, **(context or {}))  # type: ignore[arg-type]
    return build_container_spec(definition, "web", given)


def test_a_container_finds_the_socket_by_its_environment() -> None:
    spec = built({"telemetry_folder": "/state/readings/t1/web"}, environment=[{"name": "A", "value": "1"}])
    environment = {"EDGE_TELEMETRY_URI": URI, "EDGE_TELEMETRY_SOCKET": "/run/edge/telemetry.sock", "A": "1"}
    assert dict(spec.environment) == environment
    assert spec.mounts == (Mount("bind", "/state/readings/t1/web", "/run/edge", read_only=True),)


def test_what_the_definition_says_of_it_is_kept() -> None:
    said = [{"name": "EDGE_TELEMETRY_URI", "value": "http://elsewhere"}]
    spec = built({"telemetry_folder": "/state/x"}, environment=said)
    assert dict(spec.environment)["EDGE_TELEMETRY_URI"] == "http://elsewhere"
    mounted = [{"sourceVolume": "v", "containerPath": "/run/edge/"}]
    spec = built({"telemetry_folder": "/state/x"}, mountPoints=mounted)
    assert (spec.mounts, spec.environment) == ((Mount("bind", "/srv", "/run/edge/"),), ())


def test_without_a_folder_nothing_is_told() -> None:
    assert (built().mounts, built().environment) == ((), ())


@pytest.mark.parametrize(
    ("configuration", "settings"),
    [
        (None, LogSettings("json-file", DEFAULT_LOG_BYTES, path="/p")),
        ({"logDriver": "json-file", "options": {"max-size": "1m"}}, LogSettings("json-file", MIB, path="/p")),
        ({"logDriver": "journald", "options": {"tag": "x"}}, LogSettings("journald", tag="x")),
        ({"logDriver": "none"}, LogSettings("none")),
        (
            {"logDriver": "awslogs", "options": {"awslogs-group": "g"}},
            LogSettings("json-file", DEFAULT_LOG_BYTES, path="/p"),
        ),
        (
            {
                "logDriver": "awslogs",
                "options": {"awslogs-group": "g", "mode": "non-blocking", "max-buffer-size": "25m"},
            },
            LogSettings("json-file", 25 * MIB, path="/p"),
        ),
    ],
)
def test_a_log_goes_where_its_driver_says(configuration: dict[str, Any] | None, settings: LogSettings) -> None:
    fields = {"logConfiguration": configuration} if configuration else {}
    assert built({"log_path": "/p"}, **fields).log == settings
