"""One thread of another process that stands still, as a vCPU does whose host is busy elsewhere. Source: ptrace(2)."""

import contextlib
import ctypes
import os
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@contextlib.contextmanager
def frozen(process, name):
    """Stop the thread called `name` of a process; it goes on at the end. Both by the same thread of ours."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    (thread,) = [int(path.name) for path in threads if (path / "comm").read_text().strip() == name]
    _ptrace(_SEIZE, thread)
    try:
        _ptrace(_INTERRUPT, thread)
        stopped, status = os.waitpid(thread, _WALL)
        assert (stopped, os.WIFSTOPPED(status)) == (thread, True)
        yield
    finally:
        _ptrace(_DETACH, thread)


def _ptrace(request, thread):
    if _libc.ptrace(request, thread, None, None):
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request:#x} of thread {thread}: {os.strerror(code)}")
