"""Mosquitto's configuration and access list for a fleet.

Two TLS listeners, both with client certificates and nothing else. On the devices' one the certificate's CN becomes
user name *and* client id, so that a device cannot take another one's session over by its client id. On the
operators' one the client id is free (each `edge` command is a client of its own).

The access list has one `user` block for each device with its exact cluster, written anew and reloaded with SIGHUP
whenever a device comes or goes, and no `pattern` line. Mosquitto's patterns know the user name (`%u`) and not the
certificate's organization: with `edge/v1/+/%u/…` a device could publish into any cluster under its own name, and two
devices of one name in two clusters would be one. It also means that a certificate of the fleet's CA alone opens
nothing: a device that was removed keeps none of its rights.

A third listener is for devices that have no certificate yet, where it is asked for. There an activation's user name and
password are enough, and for nothing but its own two topics. The client id is the user name here too: a free one could
take over a device's session. Devices that enrol by one activation at the same moment so interrupt one another; they try
again.

Mosquitto grants every SUBSCRIBE; what counts is that nothing is delivered. Every option here exists in Mosquitto
2.0.11 (Debian 12) and later 2.0 releases: https://mosquitto.org/man/mosquitto-conf-5.html.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError
from edge.model.enrollment import ActivationId
from edge.model.identifiers import check_name
from edge.model.topics import EVENT_KINDS, ROOT, Topics

OPERATOR: Final = "operator"
"""The CN of an operator's certificate, hence the operators' user name. No device may be called that."""
_DEVICE_READS: Final = ("desired", "trust", "head", "cert", "cmd/#", "stream/+/in")
_DEVICE_WRITES: Final = (
    "desired/ack",
    "reported",
    "status",
    "birth",
    "profiles",
    "head/ask",
    "cert/ask",
    "res/+/+",
    *(f"evt/{kind}" for kind in EVENT_KINDS),
    "tel/+",
    "stream/+/out",
)
_MOST_ENROLLING: Final = 100
"""Connections at once to the listener that everybody can reach."""
_PLAIN: Final = re.compile(r"^[^\x00-\x1f\x7f]+$")


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What a fleet's Mosquitto is told; file names should be absolute.

    Attributes:
        address: The address both listeners are bound to; empty for all.
        persistence_dir: Where sessions and retained messages are kept; None for in memory only (they are lost at a
            restart: devices then publish anew, and desired states must be published again by the operator).
        crl_file: Revoked certificates; read again at SIGHUP.
        max_packet_size: Bytes; clients are told, and refuse to send more.
        max_inflight_messages: For each client.
        max_queued_messages, max_queued_bytes: Likewise. Beyond, Mosquitto drops the newest, though it has acknowledged
            them: this is for the minute in which the collector's session outlives its connection.
        enrollment_port: Of the listener for devices that have no certificate yet; None for none.
        password_file: Of the activations, with that listener.
        user: The account Mosquitto changes to when started as root.
    """

    ca_file: Path
    cert_file: Path
    key_file: Path
    acl_file: Path
    device_port: int = 8883
    operator_port: int = 8884
    enrollment_port: int | None = None
    password_file: Path | None = None
    address: str = ""
    persistence_dir: Path | None = None
    crl_file: Path | None = None
    log_file: Path | None = None
    max_packet_size: int = 512 * 1024
    max_inflight_messages: int = 20
    max_queued_messages: int = 100_000
    max_queued_bytes: int = 128 * 1024 * 1024
    autosave_interval_seconds: int = 60
    user: str = "mosquitto"


def mosquitto_conf(config: BrokerConfig) -> str:
    """Return the text of `mosquitto.conf`.

    Raises:
        InvalidInputError: A file name or address has a line break or another control character in it.
    """
    lines = [
        "# Written by edge; changes are lost.",
        # Which certificate may do what is the same question on both listeners: one access list.
        "per_listener_settings false",
        "allow_anonymous false",
        f"acl_file {config.acl_file}",
        *([] if config.password_file is None else [f"password_file {config.password_file}"]),
        f"user {config.user}",
        f"max_packet_size {config.max_packet_size}",
        f"max_inflight_messages {config.max_inflight_messages}",
        f"max_queued_messages {config.max_queued_messages}",
        f"max_queued_bytes {config.max_queued_bytes}",
        "max_keepalive 600",
        # A retained message of a device whose rights are gone is not given out any more.
        "check_retain_source true",
        "persistent_client_expiration 30d",
        "set_tcp_nodelay true",
        "connection_messages true",
        *_persistence(config),
        f"log_dest {'stderr' if config.log_file is None else f'file {config.log_file}'}",
        *(f"log_type {kind}" for kind in ("error", "warning", "notice", "information")),
        *_listener(config, config.device_port),
        "use_username_as_clientid true",
        *_listener(config, config.operator_port),
        *_enrollment_listener(config),
    ]
    for line in lines:
        if not _PLAIN.fullmatch(line):
            raise InvalidInputError(f"this cannot stand in a Mosquitto configuration: {line!r}")
    return "\n".join(lines) + "\n"


def _persistence(config: BrokerConfig) -> list[str]:
    if config.persistence_dir is None:
        return ["persistence false"]
    return [
        "persistence true",
        f"persistence_location {config.persistence_dir}/",
        f"autosave_interval {config.autosave_interval_seconds}",
    ]


def _listener(config: BrokerConfig, port: int) -> list[str]:
    return [
        *_tls_listener(config, port),
        *([] if config.crl_file is None else [f"crlfile {config.crl_file}"]),
        "require_certificate true",
        "use_identity_as_username true",
    ]


def _enrollment_listener(config: BrokerConfig) -> list[str]:
    if config.enrollment_port is None or config.password_file is None:
        return []
    return [
        *_tls_listener(config, config.enrollment_port),
        "require_certificate false",
        "use_username_as_clientid true",
        f"max_connections {_MOST_ENROLLING}",
    ]


def _tls_listener(config: BrokerConfig, port: int) -> list[str]:
    return [
        f"listener {port} {config.address}".rstrip(),
        "protocol mqtt",
        # No tls_version: TLS 1.2 and newer.
        f"cafile {config.ca_file}",
        f"certfile {config.cert_file}",
        f"keyfile {config.key_file}",
        "max_qos 1",
    ]


def acl_file(devices: Iterable[tuple[str, str]], activations: Iterable[ActivationId] = ()) -> str:
    """Return the access list for `(cluster, device)` pairs, and for activations.

    Never empty and never without a `user` line, so that nobody gets a right that is not written here.

    Raises:
        InvalidInputError: A name is none, two devices have the same name, or one is called as the operators are.
    """
    blocks = [f"# Written by edge; changes are lost.\nuser {OPERATOR}\ntopic readwrite {ROOT}/#\ntopic read $SYS/#\n"]
    seen: dict[str, str] = {}
    for cluster, device in sorted(devices, key=lambda pair: (pair[1], pair[0])):
        if check_name("device", device) == OPERATOR:
            raise InvalidInputError(f"a device cannot be called {OPERATOR!r}", hint="Choose another device id.")
        if device in seen:
            raise InvalidInputError(
                f"device {device!r} is in cluster {seen[device]!r} and in cluster {cluster!r}",
                hint="Device ids are unique in a fleet: the id is the certificate's name and the MQTT client id.",
            )
        seen[device] = cluster
        blocks.append(_device_block(Topics(cluster, device)))
    blocks += [_activation_block(activation) for activation in activations]
    return "\n".join(blocks)


def _device_block(topics: Topics) -> str:
    branch = f"{ROOT}/{topics.cluster}/{topics.device}"
    reads = [f"topic read {branch}/{channel}" for channel in _DEVICE_READS]
    writes = [f"topic write {branch}/{channel}" for channel in _DEVICE_WRITES]
    return "\n".join([f"user {topics.device}", *reads, *writes]) + "\n"


def _activation_block(activation: ActivationId) -> str:
    topics = activation.topics
    return f"user {activation.user}\ntopic write {topics.request}\ntopic read {topics.answer}\n"
