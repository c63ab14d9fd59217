"""Is a configuration one an agent would start with? Everything it names is opened, nothing is connected to."""

import ssl
from pathlib import Path

from edge.agent.config import AgentConfig, load_config
from edge.agent.trust_file import load_trust
from edge.errors import InvalidInputError


def check_config(path: Path) -> AgentConfig:
    """Return the configuration if an agent can start with it.

    Raises:
        InvalidInputError: Something in it is wrong; `problems` names the keys.
        TrustError: The trust bundle is not one.
    """
    config = load_config(path)
    _check_tls(config)
    load_trust(config.trust_bundle)
    return config


def _check_tls(config: AgentConfig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if config.ca_file is not None:
        try:
            context.load_verify_locations(config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(config, "broker.ca_file", config.ca_file, error) from error
    if config.cert_file is not None and config.key_file is not None:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(config, "broker.cert_file", config.cert_file, error) from error


def _unusable(config: AgentConfig, key: str, path: Path, error: OSError) -> InvalidInputError:
    what = error.strerror or error.args[-1]
    return InvalidInputError(
        f"{config.path}: {key} cannot be used", problems=((key, f"{path}: {what}"),), hint="Write the files anew."
    )
