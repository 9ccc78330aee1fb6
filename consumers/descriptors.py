"""What pages cannot be decoded without: descriptor bodies by their hash, as they came or as the lake keeps them."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.decode.base import FrameIn
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.frame import Frame
from schemas.surfaces import DESCRIPTOR_ENCODINGS

#: As much as one cut of frames, so that a descriptor and its pages in one commit find each other.
_HELD_BYTES_MAX: Final = 64 << 20


class Descriptors:
    """The descriptors of one partition, the newest in memory; the lake's table `artifacts` has all of them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._held: OrderedDict[bytes, bytes] = OrderedDict()
        self._held_bytes = 0

    def note(self, frame: Frame) -> None:
        """Remember `frame` if it is a descriptor."""
        if frame.encoding in DESCRIPTOR_ENCODINGS:
            self._hold(hashlib.sha256(frame.body).digest(), frame.body)

    def named_by(self, frames: Iterable[FrameIn]) -> dict[bytes, bytes]:
        """Return the descriptors that `frames` name; those that nobody has are left out.

        Raises:
            StorageError: the lake cannot be read.
        """
        names = {item.frame.descriptor for item in frames if item.frame.descriptor is not None}
        # What is loaded for one may push another out of memory, but not out of the answer.
        found = {name: self._held[name] for name in names if name in self._held}
        for name in names - found.keys():
            body = self._load(name)
            if body is not None:
                found[name] = body
                self._hold(name, body)
        return found

    def _hold(self, name: bytes, body: bytes) -> None:
        self._held_bytes += len(body) - len(self._held.get(name, b""))
        self._held[name] = body
        self._held.move_to_end(name)
        while self._held_bytes > _HELD_BYTES_MAX:
            self._held_bytes -= len(self._held.popitem(last=False)[1])

    def _load(self, name: bytes) -> bytes | None:
        for entry in snapshot(self._storage).files.get("artifacts", []):
            try:
                found = pq.read_table(
                    self._storage.local_path(entry.key),
                    columns=["body"],
                    filters=[("sha256", "=", name)],
                    partitioning=None,
                )
            except (OSError, pa.ArrowException) as e:
                raise StorageError(f"{entry.key}: {e}") from e
            if found.num_rows:
                return bytes(found["body"][0].as_py())
        return None
