"""Secrets of containers, kept out of what Podman writes to the disk.

What Podman does with a secret that becomes an environment variable (`secret_env`), measured on 4.3.1: it is read at
each start of the container; the default driver keeps its value base64-encoded in `secrets/filedriver`; and each start
writes it in clear into `config.json` in the container's folder, from where `podman inspect` shows it.

So each secret is of the `shell` driver, whose look-up reads the file where the value stands while the container starts,
and once it runs its variables are taken out of `config.json`. The runtime has read that before; Podman makes it anew at
the next start.
"""

import json
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edge.agent.adapters.podman.api import PodmanApi
from edge.agent.adapters.podman.spec import secret_name
from edge.agent.engine.ports import FoundContainer
from edge.errors import EngineError, EngineUnavailableError
from edge.model.container_spec import LABEL_SECRETS

_log = logging.getLogger(__name__)
_KNOWN: Final = 256
_MAXIMUM_CONFIG: Final = 16 * 1024 * 1024


class SecretPlaces:
    """Podman's secrets, and what it writes of them; usable from any thread."""

    def __init__(self, api: PodmanApi) -> None:
        self._api = api
        self._covered: dict[tuple[str, str], None] = {}

    def remember(self, files: Sequence[str]) -> None:
        """Tell Podman where values will stand."""
        for file in files:
            self._remove(file)
            # The names of the files are ours, without anything a shell would take for its own.
            driver = {"list": "true", "lookup": f"cat {file}", "store": "cat >/dev/null", "delete": "true"}
            self._api.call(
                "POST",
                "/secrets/create",
                parameters={"name": secret_name(file), "driver": "shell", "driveropts": json.dumps(driver)},
                document={},
                reason="ResourceInitializationError",
            )

    def forget(self, files: Sequence[str]) -> None:
        """Forget where they stood."""
        for file in files:
            self._remove(file)

    def _remove(self, file: str) -> None:
        self._api.call("DELETE", f"/secrets/{secret_name(file)}", reason="ResourceInitializationError")

    def cover_if_possible(self, container: FoundContainer) -> None:
        """As `cover`, for a container that was found: what cannot be done is said in the log."""
        try:
            self.cover(container)
        except EngineUnavailableError:
            raise
        except EngineError as error:
            _log.error("%s", error)

    def cover(self, container: FoundContainer) -> None:
        """Take the values of a container's secrets, once its start is over, out of its `config.json`.

        Raises:
            EngineError: It cannot be done, and they stay readable: the container should not go on.
        """
        variables = container.labels.get(LABEL_SECRETS, "")
        run = (container.runtime_id, f"{container.pid} {container.started_at}")
        if not variables or run in self._covered:
            return
        answer = self._api.call("GET", f"/containers/{container.runtime_id}/json")
        path = str(answer.json().get("OCIConfigPath") or "") if answer.status == 200 else ""  # noqa: PLR2004
        if path:
            try:
                take_out(Path(path), frozenset(variables.split(",")))
            except FileNotFoundError:
                pass  # it was removed meanwhile
            except (OSError, ValueError) as error:
                raise EngineError(
                    f"unable to take secrets out of {path}: {error}",
                    reason="ResourceInitializationError",
                    hint="The agent must be able to write there, as Podman does.",
                ) from error
        while len(self._covered) >= _KNOWN:
            self._covered.pop(next(iter(self._covered)), None)
        self._covered[run] = None


def take_out(path: Path, variables: frozenset[str]) -> None:
    """Take variables out of an OCI configuration; what it was is overwritten where it stands.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: It is no OCI configuration.
    """
    with path.open("r+b") as old:
        document: Any = json.loads(old.read(_MAXIMUM_CONFIG))
        process = document.get("process") if isinstance(document, dict) else None
        if not isinstance(process, dict) or not isinstance(process.get("env"), list):
            raise ValueError("it is no configuration of a process")  # noqa: TRY004 - as what is no JSON
        left = [one for one in process["env"] if one.partition("=")[0] not in variables]
        if len(left) == len(process["env"]):
            return
        process["env"] = left
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            temporary.write_bytes(json.dumps(document).encode())
            temporary.chmod(path.stat().st_mode & 0o777)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        # Most likely the disk never had it: the kernel writes what is new after seconds. If it had, zeros follow.
        old.seek(0)
        old.write(bytes(os.fstat(old.fileno()).st_size))
        old.flush()
        os.fsync(old.fileno())
