"""The device's word on its key for secrets, ready for its `birth`; made anew when its certificate is another one."""

import hashlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from edge.agent.config import AgentConfig
from edge.agent.identity_file import identity_file
from edge.errors import EdgeError

_log = logging.getLogger(__name__)
_SECONDS = 60.0
"""Reading a certificate takes a second on a slow device."""


class KeyTelling:
    """Asked on the engine's thread, which never waits for it.

    Args:
        changed: Called, on another thread, when there is something new to tell.
    """

    def __init__(self, config: AgentConfig, changed: Callable[[], None]) -> None:
        self._config = config
        self._changed = changed
        self._lock = threading.Lock()
        self._of = b""
        self._told: Mapping[str, Any] = {}
        self._thread: threading.Thread | None = None

    def describe(self) -> Mapping[str, Any]:
        """Return the word; empty when there is no certificate, or while it is being made."""
        try:
            identity = identity_file(self._config)
            if identity is None:
                return {}
            digest = hashlib.sha256(identity.read_bytes()).digest()
        except (EdgeError, OSError) as error:
            _log.warning("the key for secrets cannot be told: %s", error)
            return {}
        with self._lock:
            if digest == self._of:
                return self._told
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._make, args=(digest, str(identity)), name="key", daemon=True
                )
                self._thread.start()
        return {}

    def _make(self, digest: bytes, identity: str) -> None:
        config = self._config
        command = (
            sys.executable, "-m", "edge.agent.secrets_key", config.cluster, config.device, str(config.secrets_key),
            identity,
        )  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)  # noqa: S603 - our own
            told = json.loads(done.stdout)
        except subprocess.CalledProcessError as error:
            _log.warning("the key for secrets cannot be told: %s", error.stderr.decode(errors="replace").strip())
            return
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            _log.warning("the key for secrets cannot be told: %s", error)
            return
        with self._lock:
            self._of, self._told = digest, told
        self._changed()
