"""Which tar members may be served: the same rule for an index that is built and for one that is read."""

from edge.images.soci.values import FileType


def problem_with(name: bytes, kind: FileType, linkname: bytes) -> str:
    """Say why a member cannot be served; empty if it can.

    A symbolic link may point anywhere: it is followed inside the container.
    """
    if wrong := _path_problem(name):
        return f"its name {wrong}"
    if kind is FileType.HARDLINK and (wrong := _path_problem(linkname)):
        return f"it is a hard link to {linkname[:200]!r}, which {wrong}"
    if b"\0" in linkname:
        return "its target has a NUL"
    return ""


def _path_problem(path: bytes) -> str:
    if not path:
        return "is empty"
    if path.startswith(b"/"):
        return "is absolute"
    if b"\0" in path:
        return "has a NUL"
    if b".." in path and b".." in path.split(b"/"):
        return "leads out of the layer"
    return ""
