"""Memory that is used again: fresh pages of the system's cost more than what is written there."""

import ctypes
import threading
import weakref
from typing import Final

import numpy as np

from consumers.decode.slices import Bytes

#: A block is of so many bytes times a whole number, and all of them together have at most so many.
BLOCK_BYTES: Final = 1 << 20
HELD_BYTES_MAX: Final = 96 << 20


class Memory:
    """Blocks that are handed out anew as soon as no array or Arrow column refers to them any more; for all threads.

    Whatever refers to a block's bytes keeps the object alive that exports them (the buffer protocol); when that object
    is gone, the block comes back.
    """

    def __init__(self, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._held_bytes_max = held_bytes_max
        self._held_bytes = 0
        self._unused: dict[int, Bytes] = {}
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> Bytes:
        """Return that many bytes, of any content: of the smallest unused block, or of a new one.

        A new one takes the place of unused ones, and is not kept where those in use leave no room.
        """
        with self._lock:
            # Others come back meanwhile, by whichever thread lets go of them.
            unused = sorted(self._unused.values(), key=len)
            for block in unused:
                if len(block) >= size_bytes:
                    del self._unused[id(block)]
                    return self._lent(block, size_bytes)
            block = np.empty(max(1, -(-size_bytes // BLOCK_BYTES)) * BLOCK_BYTES, np.uint8)
            if self._held_bytes - sum(map(len, unused)) + len(block) > self._held_bytes_max:
                return block[:size_bytes]
            for each in unused:
                if self._held_bytes + len(block) <= self._held_bytes_max:
                    break
                del self._unused[id(each)]
                self._held_bytes -= len(each)
            self._held_bytes += len(block)
            return self._lent(block, size_bytes)

    def _lent(self, block: Bytes, size_bytes: int) -> Bytes:
        exporter = (ctypes.c_uint8 * len(block)).from_buffer(block.data)
        # No lock: it may run anywhere, also within `take`.
        weakref.finalize(exporter, self._unused.__setitem__, id(block), block).atexit = False
        return np.frombuffer(memoryview(exporter), np.uint8)[:size_bytes]


_memory: Final = Memory()


def taken(size_bytes: int) -> Bytes:
    """Return that many bytes of any content, of the memory that all threads share."""
    return _memory.take(size_bytes)
