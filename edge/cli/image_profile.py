"""What the commands `edge image profile …` and `edge image bundle …` share: where a profile comes from."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import InvalidInputError, NotFoundError
from edge.files import store_error

if TYPE_CHECKING:
    from edge.cli.image_index import Source
    from edge.model.start_profile import StartProfile

COLUMNS = ("IMAGE", "ID", "PLATFORM", "STARTS", "RANGES", "BYTES")


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare where the profile is taken from."""
    from edge.cli.image_socket import add_socket  # noqa: PLC0415 - imported when it is used

    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--profile", type=Path, metavar="FILE", help="a file that `edge image profile export` wrote (default: ask)"
    )
    source.add_argument("--from-fleet", action="store_true", help="what all devices of the fleet have reported, merged")
    add_socket(parser)


def profile_for(args: argparse.Namespace, source: "Source") -> "StartProfile":
    """Return the profile of `args.image`, which `source` has, that the arguments mean; without any, this device's own.

    The image's own profile comes before that of another version of it.

    Raises:
        NotFoundError: There is none.
        InvalidInputError: The file is none.
    """
    if args.profile is not None:
        return read_profile_file(args.profile)
    if args.from_fleet:
        return _from_fleet(args, _image_ids(source))
    return own_profile(args, _image_ids(source))


def _image_ids(source: "Source") -> frozenset[str]:
    from edge.images.indexing.platforms import platform_images  # noqa: PLC0415 - imported when it runs

    return frozenset(one.configuration.image_id for one in platform_images(source.reader, source.reference))


def read_profile_file(path: Path) -> "StartProfile":
    """Read a profile from a file; raises as `profile_for`."""
    from edge.model.start_profile import MAX_PROFILE_BYTES, read_profile  # noqa: PLC0415 - imported when it runs

    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"cannot read {path}: No such file") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    return read_profile(data)


def own_profile(args: argparse.Namespace, image_ids: frozenset[str] = frozenset()) -> "StartProfile":
    """Return what this device's image service knows of `args.image`, of these ids rather; raises as `profile_for`."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs
    from edge.model.start_profile import profile_of  # noqa: PLC0415

    profiles = [profile_of(one) for one in ask(args.socket, op="profiles")]
    return _chosen(args.image, profiles, "this device has", image_ids)


def _from_fleet(args: argparse.Namespace, image_ids: frozenset[str]) -> "StartProfile":
    from edge.cli.session import connected, opened  # noqa: PLC0415 - imported when it runs
    from edge.fleet.observing import reported_profiles  # noqa: PLC0415
    from edge.model.start_profile import merged  # noqa: PLC0415

    with opened(args) as fleet, connected(args, fleet) as link:
        profiles = reported_profiles(link, fleet)
    best = _chosen(args.image, profiles, "the fleet's devices have told", image_ids)
    return merged([one for one in profiles if (one.image_id, one.platform) == (best.image_id, best.platform)])


def _chosen(image: str, profiles: "list[StartProfile]", whose: str, image_ids: frozenset[str]) -> "StartProfile":
    """The image's own profile, or the one of another version that was learnt from most starts."""
    names = {image, _repository(image)}
    fitting = [
        one
        for one in profiles
        if one.image_id in image_ids or names & {one.image, one.image_id, one.image_id[:12], one.digest}
    ]
    if not fitting:
        raise NotFoundError(
            f"{whose} no start profile of {image}",
            hint="It is recorded at an image's first start on a device, while the image arrives.",
        )
    return max(fitting, key=lambda one: (one.image_id in image_ids, one.starts))


def _repository(image: str) -> str:
    from edge.images.oci.references import parse_reference  # noqa: PLC0415 - imported when it runs

    try:
        return parse_reference(image).name
    except InvalidInputError:
        return image


def row(profile: "StartProfile") -> tuple[str, ...]:
    """Return a profile's line in a table."""
    from edge.cli.image_socket import size_text  # noqa: PLC0415 - imported when it runs

    return (
        profile.image,
        profile.image_id[:12],
        profile.platform,
        str(profile.starts),
        str(len(profile.ranges)),
        size_text(profile.size),
    )
