"""Memory that is used again: fresh pages of the system's cost more than what is written there."""

import sys
import threading
from typing import Final

import numpy as np

from consumers.decode.slices import Bytes

#: A block is of so many bytes times a whole number, and all of them together have at most so many.
BLOCK_BYTES: Final = 1 << 20
HELD_BYTES_MAX: Final = 160 << 20
# What refers to a block that nobody uses: the list, the loop over it, and the question.
_UNUSED: Final = 3


class Memory:
    """Blocks that are handed out anew as soon as no array or Arrow column refers to them any more; for all threads."""

    def __init__(self, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._held_bytes_max = held_bytes_max
        self._blocks: list[Bytes] = []
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> Bytes:
        """Return that many bytes, of any content: of the smallest unused block, or of a new one.

        A new one takes the place of unused ones, and is not kept where those in use leave no room.
        """
        with self._lock:
            unused = [block for block in self._blocks if sys.getrefcount(block) == _UNUSED]
            fitting = [block for block in unused if len(block) >= size_bytes]
            if fitting:
                return min(fitting, key=len)[:size_bytes]
            block: Bytes = np.empty(-(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES, np.uint8)
            room = self._held_bytes_max - sum(map(len, self._blocks))
            for each in sorted(unused, key=len):
                if len(block) <= room:
                    break
                self._blocks = [kept for kept in self._blocks if kept is not each]
                room += len(each)
            if len(block) <= room:
                self._blocks.append(block)
            return block[:size_bytes]


_memory: Final = Memory()


def taken(size_bytes: int) -> Bytes:
    """Return that many bytes of any content, of the memory that all threads share."""
    return _memory.take(size_bytes)
