"""Where tracefs is, or a mount of our own that nobody else sees and that ends with this process.

Source: Documentation/trace/ftrace.rst, fsopen(2), fsmount(2).
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from schemas.errors import AccessError

_USUAL: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_MOUNTS: Final = Path("/proc/self/mountinfo")
# include/uapi/asm-generic/unistd.h; the numbers are the same on every architecture but alpha.
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_CLOEXEC: Final = 1
_CMD_CREATE: Final = 6
_ATTR_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8


class Tracefs:
    """The file system at `path`; `close` ends a mount of our own."""

    def __init__(self, path: Path, fd: int = -1) -> None:
        self.path = path
        self._fd = fd

    def close(self) -> None:
        """Let go of the file system; everything is as it was found."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def attach() -> Tracefs:
    """Return tracefs as it is mounted, else mounted for this process alone, without a place in the file tree.

    Raises:
        AccessError: not there, or not for us; the message names the remedy.
    """
    path = mounted()
    found = Tracefs(path) if path else _mount()
    if not os.access(found.path / "instances", os.W_OK | os.X_OK, effective_ids=True):
        found.close()
        raise AccessError(
            f"no instance can be made in {found.path}: run as root; where it is mounted read-only, mount it anew"
        )
    return found


def mounted() -> Path | None:
    """Return where tracefs is mounted, None where it is not."""
    fields = [line.split() for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    # The type follows the one "-" behind the optional fields; a path's spaces are escaped.
    places = [Path(each[4]) for each in fields if each[each.index("-") + 1] == "tracefs" and each[3] == "/"]
    return min(places, key=lambda path: _USUAL.index(path) if path in _USUAL else len(_USUAL), default=None)


# A mount that is attached nowhere is reached through its descriptor alone, and goes when that is closed.
def _mount() -> Tracefs:
    context = -1
    try:
        context = _syscall(_SYS_FSOPEN, b"tracefs", _CLOEXEC)
        _syscall(_SYS_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        fd = _syscall(_SYS_FSMOUNT, context, _CLOEXEC, _ATTR_NOSUID_NODEV_NOEXEC)
    except OSError as e:
        raise AccessError(
            f"tracefs is not mounted, and cannot be here ({e.strerror}): "
            "mount -t tracefs nodev /sys/kernel/tracing, or run as root"
        ) from None
    finally:
        if context >= 0:
            os.close(context)
    return Tracefs(Path(f"/proc/self/fd/{fd}"), fd)


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
