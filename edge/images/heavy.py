"""What takes memory for a moment, in a process of its own: the service stays small, and a killed child harms nothing.

`python -m edge.images.heavy` takes JSON lines on stdin, `{"work": …, arguments}`, one by one, and for each writes
JSON lines to stdout: `{"bytes": n}` while it goes on, and at the end `{"result": …}` or
`{"error": {"kind", "message", "hint"}}`.
"""

import hashlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from edge import errors
from edge.errors import EdgeError, EngineError, InvalidInputError, StoreError
from edge.files import write_atomically
from edge.images.delta.laying_out import lay_out
from edge.images.delta.rebuilding import rebuild
from edge.images.kept_index import OWN_SPAN_SIZE, keep_index
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor
from edge.images.oci.layout import OciLayout
from edge.images.oci.references import parse_reference
from edge.images.oci.registries import Registries
from edge.images.soci.builder import LayerIndexer
from edge.images.soci.checkpoints import span_table
from edge.images.soci.values import Compression, FileType, Ztoc
from edge.images.soci.ztoc import read_ztoc
from edge.images.span_file import write_span_file
from edge.images.starts.pieces import Claims, load
from edge.images.tree import write_tree
from edge.images.unpack import DamagedLayerError, FalseIndexError, unpack

_NICE: Final = 10
_PIECE: Final = 512 * 1024


class Child:
    """A process that is ready to work: its start costs more than many a piece of work. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", "edge.images.heavy"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, work: str, arguments: Mapping[str, Any], progress: Callable[[int], None] = lambda _: None) -> Any:
        """Do a piece of work, and return its result.

        Raises:
            EdgeError: What the child raised, or that it died.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"work": work, **arguments}) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            told = json.loads(line)
            if "bytes" in told:
                progress(told["bytes"])
            elif "error" in told:
                raise _error(told["error"])
            else:
                return told["result"]
        code = self._process.wait()
        raise StoreError(f"the process for {work} ended with {code}", hint="Is there enough memory?")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.__exit__(kind, error, trace)


def _error(told: Mapping[str, str]) -> EdgeError:
    own: dict[str, type[EdgeError]] = {"DamagedLayerError": DamagedLayerError, "FalseIndexError": FalseIndexError}
    found = own.get(told["kind"]) or getattr(errors, told["kind"], None)
    kind = found if isinstance(found, type) and issubclass(found, EdgeError) else EdgeError
    made = kind(told["message"], hint=told["hint"])
    if isinstance(made, EngineError):
        made.reason = "CannotPullContainerError"
    return made


# --- in the child


def _index(arguments: Mapping[str, Any]) -> dict[str, int]:
    """A zTOC that was fetched becomes a tree and a table of spans."""
    folder = Path(arguments["folder"])
    if "bundle" in arguments:
        with Path(arguments["bundle"]).open("rb") as file:
            file.seek(arguments["offset"])
            ztoc = read_ztoc(file.read(arguments["length"]))
    else:
        ztoc = read_ztoc((folder / "ztoc").read_bytes())
    if ztoc.compressed_size != arguments["size"]:
        raise InvalidInputError(f"the zTOC is for a layer of {ztoc.compressed_size} bytes, not {arguments['size']}")
    result = _keep(folder, ztoc)
    (folder / "ztoc").unlink(missing_ok=True)
    return result


def _fetch(arguments: Mapping[str, Any]) -> dict[str, int]:
    """A layer without an index is fetched whole, in order, and indexed on the way; what is there is kept."""
    folder, size = Path(arguments["folder"]), int(arguments["size"])
    reference = parse_reference(arguments["source"])
    blob = Descriptor("", arguments["digest"], size)
    compression = Compression.GZIP if arguments["compression"] else Compression.UNCOMPRESSED
    path = folder / "blob"
    source: RegistryClient | OciLayout = (
        OciLayout.at(Path(arguments["layout"]))
        if arguments["layout"]
        else RegistryClient(Registries.of_host(os.environ), os.environ)
    )
    try:
        with path.open("ab+") as file, LayerIndexer(compression, span_size=OWN_SPAN_SIZE) as indexer:
            done = told = _feed_again(file, indexer)
            for piece in source.chunks(reference, blob, done, size - done):
                file.write(piece)
                indexer.feed(piece)
                done += len(piece)
                if done - told >= _PIECE:
                    told = done
                    _say({"bytes": done})
            found = indexer.finish()
    except InvalidInputError:
        _check_digest(
            path, source.chunks(reference, blob, path.stat().st_size, size - path.stat().st_size), blob.digest
        )
        raise
    if found.layer_digest != blob.digest or found.diff_id != arguments["diff_id"]:
        path.unlink()
        raise DamagedLayerError(f"other bytes came for {blob.digest}")
    result = _keep(folder, found.ztoc)
    write_atomically(folder / "blob.map", b"\x01" * len(found.ztoc.span_digests))
    return result


def _check_digest(path: Path, rest: Iterator[bytes], digest: str) -> None:
    """Tell a layer that came damaged from one that cannot be served; what is here of it goes in any case."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
    path.unlink()
    for piece in rest:
        whole.update(piece)
    if f"sha256:{whole.hexdigest()}" != digest:
        raise DamagedLayerError(f"other bytes came for {digest}")


def _feed_again(file: Any, indexer: LayerIndexer) -> int:
    file.seek(0)
    done = 0
    while piece := file.read(_PIECE):
        indexer.feed(piece)
        done += len(piece)
    return done


def _keep(folder: Path, ztoc: Ztoc) -> dict[str, int]:
    # Beside each other: zlib lets other threads run.
    with ThreadPoolExecutor(1) as beside:
        spans = beside.submit(lambda: write_span_file(folder / "spans", span_table(ztoc)))
        write_tree(folder / "tree", ztoc.files)
        spans.result()
    return {"content": sum(entry.size for entry in ztoc.files if entry.type is FileType.REGULAR)}


def _unpack(arguments: Mapping[str, Any]) -> dict[str, int]:
    os.nice(_NICE)
    folder = Path(arguments["folder"])
    files = unpack(
        folder / "blob",
        folder / "tree",
        Path(arguments["target"]),
        digest=arguments["digest"],
        diff_id=arguments["diff_id"],
        gzip=bool(arguments["compression"]),
        claims=_claims(arguments),
    )
    if arguments["own"]:
        keep_index(folder, files)
    return {}


def _claims(arguments: Mapping[str, Any]) -> Claims | None:
    try:
        pieces = load(Path(arguments["claims"])) if arguments["claims"] else {}
    except StoreError:
        # Damaged since: then nothing of it is shown any more.
        return None
    found = pieces.get(Path(arguments["folder"]).name)
    return Claims(found) if found is not None else None


def _recipe(arguments: Mapping[str, Any]) -> dict[str, int]:
    """A recipe that was fetched becomes a tree, a table of chunks and the beginning of a tar."""
    return lay_out(Path(arguments["folder"]), arguments["size"], gzip=bool(arguments["compression"]))


def _rebuild(arguments: Mapping[str, Any]) -> dict[str, int]:
    os.nice(_NICE)
    rebuild(Path(arguments["folder"]), Path(arguments["target"]), arguments["diff_id"])
    return {}


_WORK: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, int]]]] = {
    "index": _index,
    "fetch": _fetch,
    "unpack": _unpack,
    "recipe": _recipe,
    "rebuild": _rebuild,
}


def _say(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the lines say, until there are no more."""
    # When whoever asked is gone, nobody needs the work.
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            _say({"result": _WORK[arguments["work"]](arguments)})
        except EdgeError as error:
            _say({"error": {"kind": type(error).__name__, "message": str(error), "hint": error.hint}})
        except MemoryError:
            _say({"error": {"kind": "StoreError", "message": "there is not enough memory", "hint": ""}})


def _watch(parent: int) -> None:
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(parent)], [], [])
    os._exit(1)


if __name__ == "__main__":
    main()
