"""Codec 1, zstd (RFC 8878), where its library is there: an agent without it sends bodies as they are."""

import threading
from typing import Any, Final

from schemas.errors import AccessError, BadInputError

zstandard: Any
try:
    import zstandard
except ImportError:
    zstandard = None


class _Pair:
    # One for each thread: they let go of the interpreter lock while they work, and are not made to be shared.
    def __init__(self) -> None:
        self.compressor: Final = zstandard.ZstdCompressor(level=1, write_content_size=True)
        self.decompressor: Final = zstandard.ZstdDecompressor()


_threads: Final = threading.local()


def compress(data: bytes) -> bytes:
    """Return `data` as one zstd frame that states its size; `data` itself where there is no library."""
    if zstandard is None:
        return data
    packed: bytes = _pair().compressor.compress(data)
    return packed


def decompress(data: bytes, size_bytes: int) -> bytes:
    """Return the content of the zstd frame in `data`, which must state that it has `size_bytes`, above 0.

    Raises:
        BadInputError: `reason` is `codec`: it is no such frame.
        AccessError: there is no library, so nobody knows; what was not read must not pass for damaged.
    """
    if zstandard is None:
        raise AccessError("the frame's body is compressed, and the Python package zstandard is not installed")
    try:
        # The size in the zstd header is what the library allocates, so it must be the one just checked.
        if size_bytes == 0 or zstandard.frame_content_size(data) != size_bytes:
            raise BadInputError("codec", "the stated body size is not the compressed frame's")
        body: bytes = _pair().decompressor.decompress(data, max_output_size=size_bytes, allow_extra_data=False)
    except zstandard.ZstdError as e:
        raise BadInputError("codec", f"zstd: {e}") from None
    return body


def _pair() -> _Pair:
    try:
        found: _Pair = _threads.pair
    except AttributeError:
        found = _threads.pair = _Pair()
    return found
