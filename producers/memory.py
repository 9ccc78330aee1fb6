"""Memory that the agent uses over and over, kept by the process, so that it is not cleared anew for each frame.

Bodies are a few hundred KiB. By default glibc gives such a block back at once and asks for it again: 64 page faults for
each, a fifth of what a page of trace events costs on its way into the log. Source: mallopt(3).
"""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Smaller blocks come from the heap, and so much of its free end stays.
_FROM_HEAP_BYTES: Final = 8 << 20
_KEPT_BYTES: Final = 32 << 20


def keep() -> bool:
    """Let this process keep freed blocks; return whether its C library knows how."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    mapped = libc.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES)
    return bool(mapped and libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
