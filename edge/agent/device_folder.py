"""A device's identity as files: `device.key`, `device.crt`, `ca.crt`, `trust.json`, `agent.toml`.

An identity that has come is first written whole beside its key, then put in place file by file, the certificate last: a
run that breaks off in between is taken up by the next one, with or without a network.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edge.agent.config import AgentConfig, load_config
from edge.agent.device_key import check_issued, validity
from edge.agent.identity_file import certificate_in_use
from edge.errors import EdgeError, RefusedError, StoreError, TrustError
from edge.files import store_error, write_atomically
from edge.model.agent_toml import agent_configuration
from edge.model.enrollment import DeviceIdentity
from edge.model.trust import TrustedSet

_ARRIVED: Final = "identity.json"
_NAMES: Final = ("agent.toml", "device.key", "ca.crt", "trust.json", "device.crt")
_MAXIMUM_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """Who this device is; `ends` is the end of the certificate that it uses."""

    cluster: str
    device: str
    ends: datetime


class DeviceFolder:
    """The folder; `agent.toml` in it, where there is one, says where the other files are.

    Raises:
        InvalidInputError: There is an `agent.toml`, and it is none.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        toml = folder / "agent.toml"
        self.config: AgentConfig | None = load_config(toml) if toml.exists() else None

    @property
    def waiting(self) -> Path:
        """Where the key of an identity that has not come yet is, and the identity until it is in place."""
        return self.path / "enrolling"

    def check(self) -> None:
        """Look before anything is asked for: can what comes be put in place?

        Raises:
            RefusedError: The `agent.toml` that is here does not say where.
        """
        config = self.config
        if config is not None and None in (config.cert_file, config.key_file, config.ca_file):
            raise RefusedError(
                f"{config.path} names no certificate, key and CA", hint="Put it aside, and one that does is written."
            )

    def held(self) -> Held | None:
        """Return the identity that is in place and whole; None when something of it is missing.

        The certificate in use, whose end is told, may be one that the device has renewed.
        """
        config = self.config
        if config is None or config.cert_file is None or config.key_file is None or config.ca_file is None:
            return None
        needed = (config.cert_file, config.key_file, config.ca_file, config.trust_bundle)
        if not all(path.is_file() for path in needed):
            return None
        try:
            check_issued(_read(config.cert_file), config.key_file, config.device, _read(config.ca_file))
            ends = validity(certificate_in_use(config))[1]
        except (EdgeError, OSError):
            return None
        return Held(config.cluster, config.device, ends)

    def keep(self, identity: DeviceIdentity) -> None:
        """Note an identity that came, after holding it against the key that waits for it.

        Raises:
            TrustError: It is not for this device and its key, or not whole.
            RefusedError: The configuration that is here is another device's.
            StoreError: It cannot be written.
        """
        self._check(identity)
        write_atomically(self.waiting / _ARRIVED, identity.model_dump_json(by_alias=True).encode())

    def arrived(self) -> DeviceIdentity | None:
        """Return the identity that has come and is not yet in place, if there is one.

        Raises:
            StoreError: It cannot be read.
        """
        path = self.waiting / _ARRIVED
        if not path.is_file():
            return None
        try:
            return DeviceIdentity.model_validate_json(_read(path))
        except ValidationError as error:
            raise StoreError(f"{path} is damaged", hint="Remove it, and enrol again.") from error

    def put_in_place(self, identity: DeviceIdentity) -> None:
        """Write what arrived where it is used, then forget that it waited. What was done before is done again.

        Raises:
            TrustError, RefusedError, StoreError: As `keep`.
        """
        key = self._check(identity)
        if self.config is None:
            text = agent_configuration(identity.cluster, identity.device, identity.broker_host, identity.broker_port)
            write_atomically(self.path / "agent.toml", text, 0o644)
            self.config = load_config(self.path / "agent.toml")
        config = self.config
        self.check()
        # An agent that starts in between goes on with the former identity: its certificate is replaced last.
        for path, data, mode in (
            (config.key_file, key, 0o600),
            (config.ca_file, identity.authority.encode(), 0o644),
            (config.trust_bundle, identity.trust.encode(), 0o644),
            (config.cert_file, identity.certificate.encode(), 0o644),
        ):
            if path is not None:  # checked above
                write_atomically(path, data, mode)
        self.forget()

    def forget(self) -> None:
        """Remove what waited: first what came, so that it cannot be put in place without its key.

        Runs that were cut off may have left unfinished files, of keys too; these go as well.
        """
        (self.waiting / _ARRIVED).unlink(missing_ok=True)
        shutil.rmtree(self.waiting, ignore_errors=True)
        for name in _NAMES:
            for unfinished in self.path.glob(f".{name}.*.tmp"):
                unfinished.unlink(missing_ok=True)

    def _check(self, identity: DeviceIdentity) -> bytes:
        config = self.config
        if config is not None and (config.cluster, config.device) != (identity.cluster, identity.device):
            raise RefusedError(
                f"{config.path} is the configuration of {config.cluster}/{config.device}, "
                f"and the identity is for {identity.cluster}/{identity.device}",
                hint="Put it aside, or name another folder.",
            )
        trusted = TrustedSet.from_bundle(identity.trust.encode())
        if identity.cluster not in trusted.clusters:
            raise TrustError(f"the trust bundle is not for cluster {identity.cluster}")
        return check_issued(
            identity.certificate.encode(), self.waiting / "device.key", identity.device, identity.authority.encode()
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAXIMUM_BYTES)
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
