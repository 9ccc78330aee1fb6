"""What pages cannot be decoded without: descriptor bodies by their hash, as they came or as the lake keeps them."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from consumers.held import Held
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import Storage
from schemas.errors import StorageError
from schemas.frame import Frame
from schemas.surfaces import DESCRIPTOR_ENCODINGS

Begins = npt.NDArray[np.uint64]
#: As much as one cut of frames, so that a descriptor and its pages in one commit find each other.
_SENT_BYTES_MAX: Final = 64 << 20
#: Of what the lake keeps; the rest is read again.
_LOADED_BYTES_MAX: Final = 16 << 20
_HASH_BYTES: Final = hashlib.sha256().digest_size
# Whoever names what nobody has costs one look at the lake's files in a second, not one for each name.
_LOOK_S: Final = 1.0


class Descriptors(Mapping[bytes, bytes]):
    """The descriptors of one partition by their hash; `in` and `[]` also find what the lake's table `artifacts` has.

    Raises:
        StorageError: from `[]`: the lake cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._sent: Held[bytes] = Held(_SENT_BYTES_MAX)
        self._loaded: Held[bytes] = Held(_LOADED_BYTES_MAX)
        self._index = _Index()
        self._looked_s = -_LOOK_S

    def note(self, frame: Frame) -> None:
        """Remember `frame` if it is a descriptor."""
        if frame.encoding in DESCRIPTOR_ENCODINGS:
            self._sent.put(hashlib.sha256(frame.body).digest(), frame.body, len(frame.body))

    def __getitem__(self, name: bytes) -> bytes:
        """Return the descriptor whose SHA-256 is `name`; KeyError when nobody has sent it."""
        body = self._sent.get(name)
        if body is None:
            body = self._loaded.get(name)
        if body is None:
            body = self._load(name)
            self._loaded.put(name, body, len(body))
        return body

    def __iter__(self) -> Iterator[bytes]:
        """Yield the hashes of those in memory."""
        return iter({*self._sent, *self._loaded})

    def __len__(self) -> int:
        """Return how many are in memory."""
        return len(list(iter(self)))

    def _load(self, name: bytes) -> bytes:
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._look()
        key = self._index.file_of(name)
        if key is None:
            raise KeyError(name)
        found = self._read(key, "body", name)
        if not len(found):
            raise KeyError(name)
        return bytes(found[0].as_py())

    def _look(self) -> None:
        keys = [entry.key for entry in snapshot(self._storage).files.get("artifacts", [])]
        self._index.update(keys, lambda key: self._read(key, "sha256"))
        self._looked_s = time.monotonic()

    def _read(self, key: str, column: str, name: bytes | None = None) -> pa.ChunkedArray:
        filters = None if name is None else [("sha256", "=", name)]
        path = self._storage.local_path(key)
        try:
            return pq.read_table(path, columns=[column], filters=filters, partitioning=None)[column]
        except (OSError, pa.ArrowException) as e:
            raise StorageError(f"{key}: {e}") from e


class _Index:
    """In which file of the lake a descriptor lies, by the first eight bytes of its hash: 12 bytes for each there is."""

    def __init__(self) -> None:
        self._files: dict[str, Begins] = {}
        self._keys: list[str] = []
        self._begins: Begins = np.empty(0, np.uint64)
        self._file: npt.NDArray[np.int32] = np.empty(0, np.int32)

    def update(self, keys: list[str], hashes: Callable[[str], pa.ChunkedArray]) -> None:
        """Know the files `keys` and no others; of such that are new `hashes` gives the column."""
        if self._files.keys() == set(keys):
            return
        self._files = {key: self._files[key] if key in self._files else _begins(hashes(key)) for key in keys}
        self._keys = list(self._files)
        begins = np.concatenate([*self._files.values(), np.empty(0, np.uint64)])
        order = np.argsort(begins, kind="stable")
        self._begins = begins[order]
        rows = [len(each) for each in self._files.values()]
        self._file = np.repeat(np.arange(len(keys), dtype=np.int32), rows)[order]

    def file_of(self, name: bytes) -> str | None:
        """Return the key of the file that has the descriptor `name`, if any has it."""
        if len(name) != _HASH_BYTES:  # a frame may say anything
            return None
        begin = np.frombuffer(name[:8], np.uint64)[0]
        at = int(np.searchsorted(self._begins, begin))
        return self._keys[self._file[at]] if at < len(self._begins) and self._begins[at] == begin else None


def _begins(hashes: pa.ChunkedArray) -> Begins:
    return np.frombuffer(b"".join(each[:8] for each in hashes.to_pylist() if len(each) == _HASH_BYTES), np.uint64)
