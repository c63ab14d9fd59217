"""`Vault` that opens everything: the value of a secret is what its `sealed` says, in base64."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge.model.secrets import DesiredSecret


class FakeVault:
    """Keeps values in a folder while they are open.

    Attributes:
        opened_names: Every secret that was opened, in order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opened_names: list[str] = []

    def files(self, task_id: str, container: str, variables: Sequence[str]) -> tuple[tuple[str, str], ...]:
        return tuple((one, str(self._folder / f"{task_id[:8]}-{container}-{one}")) for one in variables)

    @contextmanager
    def opened(self, secrets: Sequence[tuple[str, DesiredSecret]]) -> Iterator[None]:
        for file, secret in secrets:
            Path(file).write_bytes(base64.b64decode(secret.sealed))
            self.opened_names.append(secret.name)
        try:
            yield
        finally:
            for file, _ in secrets:
                Path(file).unlink()
