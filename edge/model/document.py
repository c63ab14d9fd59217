"""What all documents on the wire have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Document(BaseModel):
    """A frozen value with camelCase names on the wire; unknown fields are kept."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True, extra="allow"
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


TaskDefinitionKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}:[1-9][0-9]{0,8}$")]
"""`family:revision`."""
