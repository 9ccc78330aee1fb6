"""A descriptor that says when CLOCK_REALTIME was set: timerfd_create(2), TFD_TIMER_CANCEL_ON_SET; fs/timerfd.c.

The timer itself is not to expire. When somebody sets the clock, or the machine wakes from a suspend, it becomes
readable, read(2) fails once with ECANCELED, and it goes on watching.
"""

import ctypes
import errno
import os
import time
from typing import Final

_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
#: Before the time that the kernel's own type for times ends at (the year 2262).
_NEVER_S: Final = 9_000_000_000


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class ClockSteps:
    """Watches CLOCK_REALTIME from now on.

    Raises:
        OSError: the kernel has no such timer, or lets us have none.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        never = _Itimerspec(value_s=_NEVER_S)
        if libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET, ctypes.byref(never), None):
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, "timerfd_settime")

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; -1 when closed."""
        return self._fd

    def stepped(self) -> bool:
        """Return whether the clock was set since the last call."""
        try:
            os.read(self._fd, 8)
        except OSError as e:
            if e.errno == errno.ECANCELED:
                return True
            if e.errno == errno.EAGAIN:
                return False
            raise
        # It expired: somebody has set the clock to that far a time.
        return True

    def close(self) -> None:
        """Stop watching; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
