"""The agent's configuration: one TOML file, every key checked, unknown ones refused with the nearest known name."""

import difflib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.agent.image_rules import read_image_rules
from edge.errors import InvalidInputError
from edge.model.device_policy import DevicePolicy
from edge.model.identifiers import NAME_PATTERN
from edge.model.task_definition_rules import CAPABILITIES

CONFIG_VERSION: Final = 1
DEFAULT_PODMAN_SOCKET: Final = "/run/podman/podman.sock"


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is collected.

    Attributes:
        containers_seconds, device_seconds: Between two measurements; 0 for none.
        keep_unsubscribed: Records wait while nobody has subscribed to them at the broker.
        readings: Whether containers get a socket to publish through.
        readings_per_second: What the containers of one task may publish.
        logs: Whose logs leave the device: of containers that ask for it, of all, of none.
        log_lines_per_second, log_bytes_per_second: What is shipped of one container's log.
    """

    containers_seconds: int = 30
    device_seconds: int = 60
    keep_unsubscribed: bool = True
    readings: bool = True
    readings_per_second: int = 100
    logs: str = "asked"
    log_lines_per_second: int = 100
    log_bytes_per_second: int = 32768


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Where the agent finds everything; paths are absolute.

    Attributes:
        images_socket: Where the image service is, if the device has one.
        keepalive_seconds: MQTT keep-alive, and so the longest a dead link goes unnoticed (times 1.5).
        trust_bundle: The signed trust bundle: whose desired states this device obeys.
        local_group: Whose members may ask the agent at the device itself, besides root; empty for nobody.
        policy: What a task definition may ask for, whoever signed it.
        task_cleanup_wait_seconds: How long a stopped task's containers are kept to be looked at.
    """

    path: Path
    cluster: str
    device: str
    broker_host: str
    broker_port: int
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None
    trust_bundle: Path
    state_dir: Path
    podman_socket: Path
    images_socket: Path
    keepalive_seconds: int = 60
    policy: DevicePolicy = field(default_factory=DevicePolicy)
    task_cleanup_wait_seconds: float = 3 * 3600.0
    log_level: str = "INFO"
    local_group: str = ""
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def local_socket(self) -> Path:
        """Where the agent listens to whoever stands at the device."""
        return self.state_dir / "run" / "agent.sock"

    @property
    def database(self) -> Path:
        """The state store's file."""
        return self.state_dir / "state.db"

    @property
    def secrets_key(self) -> Path:
        """The X25519 key to which this device's secrets are sealed."""
        return self.state_dir / "secrets.key"

    @property
    def identity_key(self) -> Path:
        """What containers show when they ask who they are is made from it."""
        return self.state_dir / "task-identity.key"

    @property
    def pid_file(self) -> Path:
        """Holds the running agent's process id, and its lock."""
        return self.state_dir / "agent.pid"

    @property
    def status_file(self) -> Path:
        """What the running agent says about its connection, for `edge agent status`."""
        return self.state_dir / "agent.json"


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may be; `least` and `most` bound numbers, `choices` and `pattern` texts and those of a list.

    A list of `tables` is judged by who reads it.
    """

    kind: type
    required: bool = False
    default: Any = None
    pattern: str = ""
    least: float = 0
    most: float = 2**31
    choices: tuple[str, ...] = field(default=())
    tables: bool = False


KEYS: Final[dict[str, Key]] = {
    "version": Key(int, required=True, least=CONFIG_VERSION, most=CONFIG_VERSION),
    "device.cluster": Key(str, required=True, pattern=NAME_PATTERN),
    "device.id": Key(str, required=True, pattern=NAME_PATTERN),
    "broker.host": Key(str, required=True, pattern=r"^[^\s/]+$"),
    "broker.port": Key(int, default=8883, least=1, most=65535),
    "broker.ca_file": Key(str),
    "broker.cert_file": Key(str),
    "broker.key_file": Key(str),
    "broker.keepalive_seconds": Key(int, default=60, least=5, most=3600),
    "trust.bundle": Key(str, required=True),
    "storage.state_dir": Key(str, required=True),
    "podman.socket": Key(str, default=DEFAULT_PODMAN_SOCKET),
    "images.socket": Key(str),
    "policy.allow_privileged": Key(bool, default=False),
    "policy.allow_host_network": Key(bool, default=False),
    "policy.allow_new_privileges": Key(bool, default=False),
    "policy.host_paths": Key(list, default=(), pattern=r"/|(/[^/\x00]+)+(:ro)?"),
    "policy.devices": Key(list, default=(), pattern=r"(/[^/\x00*]+)+\*?"),
    "policy.capabilities": Key(list, default=(), pattern="|".join(sorted(CAPABILITIES))),
    "policy.registries": Key(list, default=("*",), pattern=r"\*|[^\s/@]+(/[^\s/@]+)*/?"),
    "policy.images": Key(list, default=(), tables=True),
    "policy.pids_limit": Key(int, default=2048, least=16, most=4194304),
    "local.group": Key(str, pattern=r"^[a-z_][a-z0-9_-]{0,31}$"),
    "tasks.cleanup_wait_seconds": Key(int, default=10800, least=60, most=7 * 86400),
    "telemetry.containers_seconds": Key(int, default=30, least=0, most=86400),
    "telemetry.device_seconds": Key(int, default=60, least=0, most=86400),
    "telemetry.keep_unsubscribed": Key(bool, default=True),
    "telemetry.readings": Key(bool, default=True),
    "telemetry.readings_per_second": Key(int, default=100, least=1, most=100000),
    "telemetry.logs": Key(str, default="asked", choices=("asked", "all", "none")),
    "telemetry.log_lines_per_second": Key(int, default=100, least=1, most=100000),
    "telemetry.log_bytes_per_second": Key(int, default=32768, least=1024, most=104857600),
    "log.level": Key(str, default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")),
}
"""Every key there is; `docs/configuration.md` has the table, and a test holds the two together."""

_MAXIMUM_BYTES: Final = 64 * 1024


def load_config(path: Path) -> AgentConfig:
    """Read and check a configuration file; relative paths in it are relative to its folder.

    Raises:
        InvalidInputError: It cannot be read, is not TOML, or says something wrong; `problems` has every key.
    """
    values = _flatten(_read(path))
    problems = [(key, _unknown(key)) for key in values if key not in KEYS]
    checked: dict[str, Any] = {}
    for name, key in KEYS.items():
        problem = _problem(key, values.get(name))
        if problem:
            problems.append((name, problem))
        checked[name] = values.get(name, key.default)
    if (checked["broker.cert_file"] is None) != (checked["broker.key_file"] is None):
        problems.append(("broker.cert_file", "cert_file and key_file go together"))
    checked["policy.images"] = read_image_rules(checked["policy.images"], path.absolute().parent, problems)
    if problems:
        raise InvalidInputError(
            f"{path} is not a configuration of the agent",
            hint="The keys are explained in docs/configuration.md.",
            problems=tuple(problems),
        )
    return _config(path.absolute(), checked)


def _config(path: Path, checked: dict[str, Any]) -> AgentConfig:
    def resolved(name: str) -> Path | None:
        return None if checked[name] is None else path.parent / checked[name]

    return AgentConfig(
        path=path,
        cluster=checked["device.cluster"],
        device=checked["device.id"],
        broker_host=checked["broker.host"],
        broker_port=checked["broker.port"],
        ca_file=resolved("broker.ca_file"),
        cert_file=resolved("broker.cert_file"),
        key_file=resolved("broker.key_file"),
        keepalive_seconds=checked["broker.keepalive_seconds"],
        trust_bundle=path.parent / checked["trust.bundle"],
        state_dir=path.parent / checked["storage.state_dir"],
        podman_socket=path.parent / checked["podman.socket"],
        images_socket=path.parent / (checked["images.socket"] or f"{checked['storage.state_dir']}/run/images.sock"),
        policy=DevicePolicy(**_section("policy", checked)),
        task_cleanup_wait_seconds=float(checked["tasks.cleanup_wait_seconds"]),
        log_level=checked["log.level"],
        local_group=checked["local.group"] or "",
        telemetry=TelemetrySettings(**_section("telemetry", checked)),
    )


def _section(name: str, checked: dict[str, Any]) -> dict[str, Any]:
    inside = {key.partition(".")[2]: value for key, value in checked.items() if key.startswith(f"{name}.")}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in inside.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {path}: {error.strerror}",
            hint="Give the file that `edge fleet device add` wrote, with --config.",
        ) from error
    if len(data) > _MAXIMUM_BYTES:
        raise InvalidInputError(f"{path} is larger than {_MAXIMUM_BYTES} bytes: it is not a configuration")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not TOML: {error}", hint="Mend the line that is named.") from error


def _flatten(document: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[name] = value
    return flat


def _problem(key: Key, value: Any) -> str:
    if value is None:
        return "is missing" if key.required else ""
    if type(value) is not key.kind:
        return f"must be {_KIND_NAMES[key.kind]}, not {value!r}"
    if isinstance(value, list) and not key.tables:
        wrong = [one for one in value if not isinstance(one, str) or not re.fullmatch(key.pattern, one)]
        return f"{wrong[0]!r} cannot stand in this list (docs/configuration.md)" if wrong else ""
    if isinstance(value, int) and not isinstance(value, bool) and not key.least <= value <= key.most:
        return f"must be {key.least}" if key.least == key.most else f"must be from {key.least} to {key.most}"
    return "" if key.tables else _text_problem(key, str(value))


def _text_problem(key: Key, value: str) -> str:
    if key.pattern and not re.fullmatch(key.pattern, value):
        return f"{value!r} is not allowed here (it must match {key.pattern})"
    if key.choices and value not in key.choices:
        return f"must be one of {', '.join(key.choices)}"
    return ""


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, KEYS, n=1)
    return "there is no such key" + (f"; did you mean {near[0]}?" if near else "")


_KIND_NAMES: Final = {int: "a whole number", str: "a text in quotes", bool: "true or false", list: "a list"}
