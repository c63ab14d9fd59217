"""A device's first `agent.toml`; every key that it may have is in docs/configuration.md."""

import json


def agent_configuration(cluster: str, device: str, host: str, port: int) -> bytes:
    """Write a device's `agent.toml`; its relative paths are relative to the file."""
    return f"""\
version = 1

[device]
cluster = {json.dumps(cluster)}
id = {json.dumps(device)}

[broker]
host = {json.dumps(host)}
port = {port}
ca_file = "ca.crt"
cert_file = "device.crt"
key_file = "device.key"
keepalive_seconds = 60

[trust]
bundle = "trust.json"

[storage]
state_dir = "state"

[podman]
socket = "/run/podman/podman.sock"

[policy]
allow_privileged = false
""".encode()
