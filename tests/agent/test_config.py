from pathlib import Path

import pytest

from edge.agent.config import TelemetrySettings, load_config
from edge.errors import InvalidInputError

GOOD = """
version = 1
[device]
cluster = "shop"
id = "pi-1"
[broker]
host = "broker.example"
ca_file = "ca.crt"
[trust]
bundle = "trust.json"
[storage]
state_dir = "state"
"""


def problems(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load_config(path)
    return dict(caught.value.problems)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    config = load_config(path)
    assert config.state_dir == tmp_path / "state"
    assert config.ca_file == tmp_path / "ca.crt"
    assert config.podman_socket == Path("/run/podman/podman.sock")
    assert (config.cluster, config.device, config.broker_port) == ("shop", "pi-1", 8883)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('"pi-1"', '"Pi/1"').replace("[storage]", "[storage]\nstatedir = 1").replace("version = 1", "")
    found = problems(tmp_path, text)
    assert found.keys() == {"version", "device.id", "storage.statedir"}
    assert "did you mean storage.state_dir" in found["storage.statedir"]


def test_what_is_collected_is_a_table_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    assert load_config(path).telemetry == TelemetrySettings()
    path.write_text(GOOD + '[telemetry]\nreadings = false\nlogs = "all"\ncontainers_seconds = 0\n')
    assert load_config(path).telemetry == TelemetrySettings(readings=False, logs="all", containers_seconds=0)
    found = problems(tmp_path, GOOD + '[telemetry]\nlogs = "some"\nlog_lines_per_second = 0\n')
    assert found.keys() == {"telemetry.logs", "telemetry.log_lines_per_second"}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("port = 70000", "broker.port"),
        ("port = true", "broker.port"),
        ('cert_file = "device.crt"', "broker.cert_file"),
        ("keepalive_seconds = 0", "broker.keepalive_seconds"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, line: str, key: str) -> None:
    assert problems(tmp_path, GOOD.replace("[trust]", f"{line}\n[trust]")).keys() == {key}


@pytest.mark.parametrize("text", ["= 1", "a = [[[[", "\x00", "x" * 100_000])
def test_what_is_not_toml_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"agent\.toml"):
        load_config(path)


def test_a_file_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_config(tmp_path / "none.toml")
    assert "--config" in caught.value.hint
