"""Every error this project raises: whose fault it is, and whether the same call may succeed later.

Two questions decide the class. *Whose fault?* chooses the family (input, trust, engine, broker, store, fleet).
*Does a retry help?* is answered by `TransientError`, which a class inherits beside its family. A library's own
exceptions never leave the adapter that calls it: they become one of these, with the cause kept (`raise … from`).

`exit_code` is what the `edge` command returns for it; the table in `docs/cli.md` is written from these.
"""

from typing import ClassVar


class EdgeError(Exception):
    """Something this project cannot do, told to a person.

    Attributes:
        hint: What to do about it, one sentence; empty when the message says it already.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TransientError(EdgeError):
    """The same call may succeed later."""

    exit_code = 4


class InvalidInputError(EdgeError):
    """What was given is wrong; giving it again changes nothing.

    Attributes:
        problems: `(path, message)` pairs, one for each thing wrong, path in the document's own words
            (`containerDefinitions[0].image`). Never empty when a document was judged.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class NotFoundError(EdgeError):
    """What was named does not exist."""

    exit_code = 3


class RefusedError(EdgeError):
    """A rule forbids it: a signature, a policy, an access list."""

    exit_code = 5


class TrustError(RefusedError):
    """A signed document is malformed, not signed by who must sign it, or not meant for this device."""


class SupersededError(RefusedError):
    """A signed document is older than, or the same as, the one in force."""


class DeadlineError(TransientError):
    """What was waited for did not come in time."""

    exit_code = 6


class EngineError(EdgeError):
    """The container engine refused; the message is its own.

    Attributes:
        reason: The reason name ECS uses, such as `CannotCreateContainerError`; shown before the message.
    """

    def __init__(self, message: str, *, reason: str = "CannotCreateContainerError", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class EngineUnavailableError(EngineError, TransientError):
    """The container engine cannot be reached, or broke off in the middle of an answer."""

    def __init__(self, message: str, *, reason: str = "DockerTimeoutError", hint: str = "") -> None:
        super().__init__(message, reason=reason, hint=hint)


class EngineFullError(EngineError, TransientError):
    """The container engine has no space left for what was asked; nothing of it remains."""


class NoSuchContainerError(EngineError, NotFoundError):
    """The container is not there (any more)."""


class NoSuchImageError(EngineError, NotFoundError):
    """The image is not in the local store."""


class SecretUnavailableError(EngineError, TransientError):
    """A secret that a container needs is not here, or does not open; it may come with the next desired state."""

    def __init__(self, message: str, *, reason: str = "ResourceInitializationError", hint: str = "") -> None:
        super().__init__(message, reason=reason, hint=hint)


class NameInUseError(EngineError):
    """A container of that name is there already; look at it before deciding."""


class PortInUseError(EngineError, TransientError):
    """A host port of the container is taken by somebody else."""


class ImagePullError(EngineError):
    """The registry answered, and the image cannot be had: unknown, denied, wrong platform."""


class ImageTrustError(ImagePullError, RefusedError):
    """The image is not signed by whom the device's owner demands, or is not the one that is signed."""

    exit_code = 5

    def __init__(self, message: str, *, reason: str = "ImageTrustError", hint: str = "") -> None:
        super().__init__(message, reason=reason, hint=hint)


class RegistryUnavailableError(EngineError, TransientError):
    """The registry did not answer, or broke off."""


class BrokerError(EdgeError):
    """The MQTT broker refused."""


class BrokerUnavailableError(BrokerError, TransientError):
    """The MQTT broker cannot be reached."""


class StoreError(EdgeError):
    """The agent's or the fleet's own database cannot be read or written as it should."""


class StoreFullError(StoreError, TransientError):
    """The disk is full or read-only; what was stored before is intact."""
