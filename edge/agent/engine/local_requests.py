"""What may be asked at the device itself, and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from edge.errors import InvalidInputError

Prefix = Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}$")]


class _Request(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True, extra="forbid")


class Run(_Request):
    """Start tasks, of a definition the device has or of one that is given."""

    op: Literal["run"]
    task_definition: Annotated[str, Field(max_length=300)] = ""
    definition: dict[str, Any] = Field(default_factory=dict)
    count: Annotated[int, Field(ge=1, le=10)] = 1


class Stop(_Request):
    """Stop a task, whoever began it."""

    op: Literal["stop"]
    task_id: Prefix
    reason: Annotated[str, Field(max_length=200)] = ""


class Ls(_Request):
    """List what there is."""

    op: Literal["ls"]


class Describe(_Request):
    """Tell everything about one task."""

    op: Literal["describe"]
    task_id: Prefix


LocalRequest = Run | Stop | Ls | Describe
_REQUESTS: Final[TypeAdapter[LocalRequest]] = TypeAdapter(Annotated[LocalRequest, Field(discriminator="op")])


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says."""

    uid: int
    pid: int
    name: str

    @property
    def started_by(self) -> str:
        """For `startedBy`."""
        return f"local/{self.name}"


def parse_request(data: Mapping[str, Any]) -> LocalRequest:
    """Return what is asked.

    Raises:
        InvalidInputError: It is nothing known.
    """
    try:
        return _REQUESTS.validate_python(data)
    except ValidationError as error:
        problems = tuple((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_input=False))
        raise InvalidInputError("the agent knows no such request", problems=problems) from error
