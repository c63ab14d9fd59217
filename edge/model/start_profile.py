"""A start profile: which bytes of which files an image's start reads, in order.

By path and place in the file, not by layer and span: so it fits every index of the image, and says something of the
next version too, whose files lie elsewhere. It is a hint everywhere: a wrong one costs time, never a wrong byte.
"""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edge.errors import InvalidInputError

MAX_RANGES: Final = 16_384
MAX_START_BYTES: Final = 512 << 20
"""Of one start; what is read beyond is not needed to be ready, or the image is not one that lazy starts help."""
MAX_PROFILE_BYTES: Final = 4 << 20
"""Encoded."""
MAX_AGE: Final = 3
"""A range that this many starts in a row did not read is forgotten."""
_MAX_PATH: Final = 4096
_MAX_TEXT: Final = 1024
_QUORUM: Final = 4
"""Of several devices' profiles, what at least one in four reads is kept."""
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes `start` to before `end` of a file.

    Attributes:
        path: From the image's root on, without a leading slash; bytes that are no UTF-8 as `surrogateescape`.
        age: How many starts in a row have not read them.
    """

    path: str
    start: int
    end: int
    age: int = 0


@dataclass(frozen=True, slots=True)
class StartProfile:
    """What an image's start reads.

    Attributes:
        image: `registry/repository`: what another version of the image has in common with it.
        image_id: Hexadecimal digest of the image's configuration.
        digest: `sha256:…` of its manifest.
        platform: `os/architecture`.
        starts: How many starts it was learnt from.
        ranges: In the order in which they were first read; they do not overlap.
    """

    image: str
    image_id: str
    digest: str
    platform: str
    starts: int
    ranges: tuple[FileRange, ...]

    @property
    def size(self) -> int:
        """Bytes of all ranges."""
        return sum(one.end - one.start for one in self.ranges)

    def is_of(self, image_id: str, platform: str) -> bool:
        """Say whether it was recorded of this very image."""
        return (self.image_id, self.platform) == (image_id, platform)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; `read_profile` reads it."""
        return {
            "schemaVersion": _SCHEMA,
            "image": self.image,
            "imageId": self.image_id,
            "digest": self.digest,
            "platform": self.platform,
            "starts": self.starts,
            "ranges": [[one.path, one.start, one.end, one.age] for one in self.ranges],
        }

    def encode(self) -> bytes:
        """Return it as a file has it."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode() + b"\n"


class Gaps:
    """What is not covered yet, of one thing's bytes."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cover a range, and return the parts of it that were not covered before, in order."""
        first = bisect_left(self._ends, start)
        last, position = first, start
        new: list[tuple[int, int]] = []
        while last < len(self._starts) and self._starts[last] <= end:
            if position < self._starts[last]:
                new.append((position, self._starts[last]))
            position = max(position, self._ends[last])
            last += 1
        if position < end:
            new.append((position, end))
        if last > first:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        return new


def without_overlaps(ranges: Iterable[FileRange]) -> tuple[FileRange, ...]:
    """Return the ranges with each byte where it comes first, within the bounds of a profile."""
    covered: defaultdict[str, Gaps] = defaultdict(Gaps)
    found: list[FileRange] = []
    size = 0
    for one in ranges:
        for start, end in covered[one.path].add(one.start, one.end):
            before = found[-1] if found else None
            size += end - start
            if size > MAX_START_BYTES or len(found) >= MAX_RANGES:
                return tuple(found)
            if before is not None and (before.path, before.end, before.age) == (one.path, start, one.age):
                found[-1] = replace(before, end=end)
            else:
                found.append(replace(one, start=start, end=end))
    return tuple(found)


def refined(former: StartProfile, newer: StartProfile, *, ageing: bool) -> StartProfile:
    """Return what is known after one more start.

    Args:
        former: Of this image, or of another version of it.
        newer: What that start read.
        ageing: It was a start of which every read was seen, so that what it did not read counts as not needed.
    """
    read: defaultdict[str, Gaps] = defaultdict(Gaps)
    for one in newer.ranges:
        read[one.path].add(one.start, one.end)
    rest: list[FileRange] = []
    for one in former.ranges:
        for start, end in read[one.path].add(one.start, one.end):
            age = one.age + 1 if ageing else one.age
            if age <= MAX_AGE:
                rest.append(FileRange(one.path, start, end, age))
    return replace(newer, starts=former.starts + newer.starts, ranges=without_overlaps((*newer.ranges, *rest)))


def merged(profiles: Sequence[StartProfile]) -> StartProfile:
    """Return what the starts of one image on several devices have in common.

    In the order of the profile that was learnt from most starts; what only others read follows.

    Raises:
        InvalidInputError: There are none, or they are of different images.
    """
    if not profiles or len({(one.image_id, one.platform) for one in profiles}) != 1:
        raise InvalidInputError("profiles of one image on one platform can be merged, and no others")
    ordered = sorted(profiles, key=lambda one: one.starts, reverse=True)
    votes: defaultdict[str, int] = defaultdict(int)
    for profile in ordered:
        for path in {one.path for one in profile.ranges}:
            votes[path] += 1
    wanted = (one for profile in ordered for one in profile.ranges if votes[one.path] * _QUORUM >= len(ordered))
    young = (replace(one, age=0) for one in wanted)
    return replace(ordered[0], starts=sum(one.starts for one in ordered), ranges=without_overlaps(young))


def read_profile(data: bytes) -> StartProfile:
    """Decode a profile.

    Raises:
        InvalidInputError: It is none, or larger than allowed.
    """
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidInputError(f"the start profile has {len(data)} bytes; {MAX_PROFILE_BYTES} are the most")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the start profile is not JSON: {error}") from error
    return profile_of(document)


def profile_of(document: object) -> StartProfile:
    """Take a profile from parsed JSON; raises as `read_profile`."""
    if not isinstance(document, Mapping) or document.get("schemaVersion") != _SCHEMA:
        raise InvalidInputError("it is no start profile, or of a newer version")
    image, image_id, digest, platform = (document.get(key) for key in ("image", "imageId", "digest", "platform"))
    if not all(isinstance(one, str) and len(one) <= _MAX_TEXT for one in (image, image_id, digest, platform)):
        raise InvalidInputError("the start profile does not say of which image it is")
    starts, ranges = document.get("starts"), document.get("ranges")
    if not _is_count(starts) or not isinstance(ranges, list) or len(ranges) > MAX_RANGES:
        raise InvalidInputError(f"the start profile has no list of up to {MAX_RANGES} ranges")
    found = tuple(_range(number, one) for number, one in enumerate(ranges))
    names = (str(image), str(image_id), str(digest), str(platform))
    return StartProfile(*names, int(str(starts)), without_overlaps(found))


def _range(number: int, found: object) -> FileRange:
    entry = found if isinstance(found, list) else []
    path, numbers = entry[0] if entry else None, entry[1:]
    good = (
        isinstance(path, str)
        and 0 < len(path) <= _MAX_PATH
        and "\0" not in path
        and ".." not in path.split("/")
        and len(numbers) == 3  # noqa: PLR2004 - start, end, age
        and all(map(_is_count, numbers))
        and numbers[0] < numbers[1] < 1 << 50
    )
    if not good:
        raise InvalidInputError(f"ranges[{number}] of the start profile is not [path, start, end, age]")
    return FileRange(str(path), *numbers)


def _is_count(found: object) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0
