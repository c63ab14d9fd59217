"""Who a task is, to those who ask: the words of its token, and where its containers ask for it.

The token is a JWT (RFC 7519) signed with ES256 by the key of the device's certificate, which stands in its head (`x5c`,
RFC 7515 §4.1.6): whoever knows the fleet's CA can verify it, without asking anybody.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

ADDRESS: Final = ("127.0.0.1", 51679)
"""Inside the container's own network; the port is that of the ECS agent's credentials endpoint."""
CREDENTIALS_PATH: Final = "/v2/credentials"
METADATA_PATH: Final = "/v4/"
LIFETIME_SECONDS: Final = 3600
DEFAULT_AUDIENCE: Final = "edge"
MAXIMUM_AUDIENCE: Final = 128
TOKEN_TYPE: Final = "edge-task+jwt"  # noqa: S105 - a media type (RFC 8725 §3.11: each kind of JWT has its own)
_ARN: Final = "arn:edge:iam:::role/"


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """A container of a task with a role.

    Attributes:
        definition: `family:revision`.
        role: As `taskRoleArn` has it.
    """

    cluster: str
    device: str
    task_id: str
    container: str
    definition: str
    role: str

    @property
    def role_name(self) -> str:
        """The role without what stands before its name."""
        return self.role.rpartition("/")[2]

    @property
    def role_arn(self) -> str:
        """The role as an ARN."""
        return self.role if self.role.startswith("arn:") else f"{_ARN}{self.role}"

    def claims(self, audience: str, now: int) -> dict[str, Any]:
        """Return what a token says; `now` in seconds since 1970."""
        family, _, revision = self.definition.rpartition(":")
        return {
            "iss": f"edge:{self.cluster}/{self.device}",
            "sub": f"task/{self.cluster}/{self.task_id}",
            "aud": audience,
            "iat": now,
            "nbf": now - 60,
            "exp": now + LIFETIME_SECONDS,
            "cluster": self.cluster,
            "device": self.device,
            "task": self.task_id,
            "container": self.container,
            "family": family,
            "revision": int(revision),
            "role": self.role_name,
        }


def pass_for(key: bytes, task_id: str, container: str) -> str:
    """Return what a container shows when it asks (`AWS_CONTAINER_AUTHORIZATION_TOKEN`), 64 hexadecimal digits.

    It keeps a request that somebody tricked a server inside the container into from being answered. It outlives a
    restart of the agent, because it is made from a key of the device's and stands nowhere.
    """
    return hmac.new(key, f"edge task pass v1|{task_id}|{container}".encode(), hashlib.sha256).hexdigest()


def environment(shown: str) -> dict[str, str]:
    """Return the variables by which AWS's SDKs, and others, find the endpoint."""
    host, port = ADDRESS
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{host}:{port}{CREDENTIALS_PATH}",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": shown,
        "ECS_CONTAINER_METADATA_URI_V4": f"http://{host}:{port}{METADATA_PATH}{shown}",
    }
