"""What a bundle of `edge` itself says, and whether a device may take it: values and rules, no files.

A bundle carries wheels and a manifest; the manifest is signed (`Role.FIRMWARE`) and names every wheel by its digest.
The rules are those that keep a device from a malicious or an older program (docs/updates.md).
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from edge.errors import InvalidInputError, RefusedError, SupersededError
from edge.model.document import Document

MAXIMUM_FILES: Final = 64
MAXIMUM_BUNDLE_BYTES: Final = 512 * 1024 * 1024
"""All wheels together; those of `edge` and what it needs are 8 MB."""

VersionText = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$")]
"""Three numbers. Releases have no other form, so that there is one order and no dispute about it."""


class _Strict(Document):
    """Signed and short: what this reader does not know may narrow what is allowed, and is refused."""

    model_config = ConfigDict(extra="forbid")


class BundleFile(_Strict):
    """One wheel; `size` in bytes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\.whl$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=MAXIMUM_BUNDLE_BYTES, strict=True)]


class RuntimeManifest(_Strict):
    """The signed payload of a bundle.

    Attributes:
        version: Of `edge`.
        minimum_version: The oldest version that may go to this one in one step.
        architecture: As OCI names it: `amd64`, `arm64`.
        python: The interpreter's `major.minor`; wheels with compiled parts fit one only.
        boards: Device-tree names (`raspberrypi,4-model-b`) it is for; empty for any.
        issued_at: RFC 3339; for people.
        files: The wheels, in the order in which they lie in the bundle.
    """

    schema_version: Literal[1] = 1
    version: VersionText
    minimum_version: VersionText = "0.0.0"
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")]
    python: Annotated[str, Field(pattern=r"^3\.\d{1,3}$")]
    boards: Annotated[list[Annotated[str, Field(pattern=r"^[\w,.+-]{1,64}$")]], Field(max_length=16)] = Field(
        default_factory=list
    )
    issued_at: Annotated[str, Field(max_length=64)]
    files: Annotated[list[BundleFile], Field(min_length=1, max_length=MAXIMUM_FILES)]


@dataclass(frozen=True, slots=True)
class Place:
    """What a bundle must fit.

    Attributes:
        version: Of `edge` that runs here.
        floor: The newest version that ever proved itself here; nothing older comes back by itself.
        boards: What the device tree says this board is; empty where there is none.
    """

    version: str
    floor: str
    architecture: str
    python: str
    boards: tuple[str, ...] = ()


def version_key(version: str) -> tuple[int, ...]:
    """Return what orders versions.

    >>> version_key("0.10.0") > version_key("0.9.1")
    True

    Raises:
        InvalidInputError: It is not three numbers.
    """
    if not re.fullmatch(r"\d{1,6}\.\d{1,6}\.\d{1,6}", version, re.ASCII):
        raise InvalidInputError(f"{version!r} is no version: three numbers, such as 0.2.0")
    return tuple(int(part) for part in version.split("."))


def read_manifest(payload: bytes) -> RuntimeManifest:
    """Read a verified payload.

    Raises:
        InvalidInputError: It does not say what it must; `problems` names the fields.
    """
    try:
        manifest = RuntimeManifest.model_validate_json(payload)
    except ValidationError as error:
        problems = tuple(
            (".".join(str(part) for part in problem["loc"]), problem["msg"])
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise InvalidInputError(
            f"the bundle's manifest is wrong: {problems[0][0]}: {problems[0][1]}",
            hint="It may be of a newer edge: update in smaller steps.",
            problems=problems,
        ) from error
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names):
        raise InvalidInputError("the bundle's manifest names a file twice")
    if sum(file.size for file in manifest.files) > MAXIMUM_BUNDLE_BYTES:
        raise InvalidInputError(f"the bundle is larger than {MAXIMUM_BUNDLE_BYTES} bytes")
    return manifest


def judge_fit(manifest: RuntimeManifest, place: Place, *, allow_downgrade: bool = False) -> None:
    """Say whether a device may take a bundle that is signed by whom it must be.

    Raises:
        SupersededError: It is what runs, or older than what has proved itself here.
        RefusedError: It is for another kind of device, or the step is too large.
    """
    problems = []
    if manifest.architecture != place.architecture:
        problems.append(("architecture", f"the bundle is for {manifest.architecture}, this is {place.architecture}"))
    if manifest.python != place.python:
        problems.append(("python", f"the bundle is for Python {manifest.python}, this device has {place.python}"))
    if manifest.boards and not set(manifest.boards) & set(place.boards):
        here = ", ".join(place.boards) or "no board that says what it is"
        problems.append(("boards", f"the bundle is for {', '.join(manifest.boards)}; this is {here}"))
    if problems:
        raise RefusedError(
            f"the bundle of edge {manifest.version} is not for this device: {problems[0][1]}",
            hint="Make one for this device: `edge firmware bundle` has --arch, --python and --board.",
        )
    if manifest.version == place.version:
        raise SupersededError(f"edge {manifest.version} runs here already")
    if version_key(manifest.version) < version_key(place.floor) and not allow_downgrade:
        raise SupersededError(
            f"edge {manifest.version} is older than {place.floor}, which has proved itself here",
            hint="Root may take it at the device itself: `edge firmware install FILE --allow-downgrade`.",
        )
    if version_key(place.version) < version_key(manifest.minimum_version):
        raise RefusedError(
            f"edge {manifest.version} can follow {manifest.minimum_version} or newer, and {place.version} runs here",
            hint=f"Update to {manifest.minimum_version} first.",
        )
