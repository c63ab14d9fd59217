"""A start bundle on its way: its head first, then its payload, on a thread of its own, while the container starts."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge.errors import EdgeError, InvalidInputError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Manifest
from edge.images.oci.references import ImageReference
from edge.images.pulse import Pulse
from edge.images.starts.bundle import MAX_UNPACKED_HEAD_BYTES, BundleEntry, BundleHead, read_head
from edge.images.starts.pieces import Bundles, Payload
from edge.images.starts.zstd import Unpacker

_log = logging.getLogger(__name__)


class ArrivingBundle:
    """A bundle whose head has come.

    Attributes:
        head: What it says it holds.
        head_file: Its head, unpacked; `close` removes it.
    """

    def __init__(
        self, client: RegistryClient, reference: ImageReference, manifest: Manifest, entry: BundleEntry, file: Path
    ) -> None:
        """Fetch the head.

        Raises:
            InvalidInputError: It is of another image, damaged, or says what cannot be.
            EdgeError: It cannot be had, or the registry does not serve parts.
        """
        self._entry = entry
        self.head_file = file
        # One byte less than there are: a part, so that a registry that serves none says so now.
        self._chunks = client.chunks(reference, entry.blob, 0, entry.blob.size - 1)
        self._rest = b""
        try:
            self.head = self._read_head()
            self.head.check(manifest)
        except BaseException:
            self.close()
            raise

    def _read_head(self) -> BundleHead:
        entry, found, left = self._entry, hashlib.sha256(), self._entry.head_size
        packed = bytearray()
        for chunk in self._chunks:
            packed += chunk
            if len(packed) >= left:
                break
        self._rest = bytes(packed[left:])
        del packed[left:]
        found.update(packed)
        if f"sha256:{found.hexdigest()}" != entry.head_digest:
            raise InvalidInputError("its head has another digest than the list of referrers says")
        with Unpacker(MAX_UNPACKED_HEAD_BYTES) as unpacker, self.head_file.open("wb") as file:
            for piece in unpacker.feed(bytes(packed)):
                file.write(piece)
            unpacker.finish()
        return read_head(self.head_file)

    def start(
        self, image_id: str, layer_ids: Sequence[str], bundles: Bundles, pulse: Pulse, told: Callable[[str], None]
    ) -> Payload:
        """Let the payload arrive, for these layers.

        Raises:
            StoreError: There is no space.
        """
        payload = bundles.begin(image_id, layer_ids, self.head.ranges, self.head.digests)
        threading.Thread(target=self._arrive, args=(payload, pulse, told), name="bundle", daemon=True).start()
        return payload

    def _arrive(self, payload: Payload, pulse: Pulse, told: Callable[[str], None]) -> None:
        try:
            # Somebody waits for it: nothing that nobody waits for goes over the link meanwhile.
            with pulse.expecting(), Unpacker(self.head.size) as unpacker:
                for chunk in self._all():
                    if payload.unwanted:
                        return
                    for piece in unpacker.feed(chunk):
                        payload.take(piece)
                unpacker.finish()
                payload.check_whole()
        except EdgeError as error:
            told(f"the rest of the start bundle {self._entry.digest[:19]} is not used: {error}")
        except Exception as error:  # noqa: BLE001 - whoever waits for it must be told that no more comes
            _log.exception("a start bundle cannot be read")
            told(f"the rest of the start bundle {self._entry.digest[:19]} is not used: {error}")
        finally:
            payload.end()

    def _all(self) -> Iterator[bytes]:
        if self._rest:
            yield self._rest
        yield from self._chunks

    def close(self) -> None:
        """Let the unpacked head go; the payload goes on arriving."""
        self.head_file.unlink(missing_ok=True)
