"""The threads beside its vCPUs that a guest waits for: which there are, and what each is for, by their names.

A VMM's first thread is its main loop, which serves the disks and networks that have no thread of their own. QEMU
names its I/O threads `IO NAME` and those of its pool `worker` (iothread.c, util/thread-pool.c; `debug-threads=on`); the
kernel names workers of io_uring `iou-wrk-PID` (io_uring/io-wq.c) and those of vhost `vhost-PID`, by who opened the
device (drivers/vhost/vhost.c): kernel threads up to Linux 6.3, then threads of the VMM. virtiofsd is another process.
"""

import itertools
import re
from typing import Final, NamedTuple

#: What a thread is for.
MAIN, IOTHREAD, WORKER, VHOST, DAEMON = ROLES = ("main", "iothread", "worker", "vhost", "daemon")
#: More of them than this in all are not followed, and counted; of one VM, those that come first in `ROLES`.
THREADS_MAX: Final = 4096
VM_THREADS_MAX: Final = 96
#: The name of the daemon's processes that is looked for.
DAEMON_NAME: Final = b"virtiofsd"
#: QEMU's thread of monitors is one too, and serves no guest (monitor/monitor.c).
_IOTHREAD: Final = re.compile(rb"IO (?!mon_iothread$)(.+)")
_WORKER: Final = re.compile(rb"worker|iou-wrk-\d+")
_VHOST: Final = re.compile(rb"vhost-(\d+)")
_SOCKET: Final = re.compile(rb"(?:^|\0)--socket-path[=\0]([^\0]+)")


class Role(NamedTuple):
    """What a thread is for, and its name: QEMU's own of an I/O thread, else the kernel's."""

    role: str
    name: str


def role_of(name: bytes, process: bytes, *, first: bool) -> Role | None:
    """Return the role of a VMM's thread by its name, None where it has none; `first`: it is the one it began with.

    A thread that is called as the `process` was given no name: it may be one of a pool.
    """
    text = name.decode("utf-8", "replace")
    if first:
        return Role(MAIN, text)
    if match := _IOTHREAD.fullmatch(name):
        return Role(IOTHREAD, match[1].decode("utf-8", "replace"))
    if _WORKER.fullmatch(name) or name == process:
        return Role(WORKER, text)
    return Role(VHOST, text) if _VHOST.fullmatch(name) else None


def vhost_owner(name: bytes) -> int | None:
    """Return the thread that a kernel thread of this name works for; None where it is not vhost's."""
    match = _VHOST.fullmatch(name)
    return int(match[1]) if match else None


def daemon_socket(command: bytes) -> bytes | None:
    """Return the socket that a virtiofsd listens on, by its command line; None where it was given a descriptor."""
    match = _SOCKET.search(command)
    return match[1] if match else None


def names_socket(command: bytes, socket: bytes) -> bool:
    """Return whether a VMM's command line names this socket."""
    return re.search(rb"(?:path|socket)=" + re.escape(socket) + rb"(?:[,\0]|$)", command) is not None


def in_order(role: str) -> int:
    """Return where threads of `role` come, when not all are followed."""
    return ROLES.index(role)


def total(counts: list[int], most: int) -> list[int]:
    """Return of these counts, in order, as much as is `most` in all."""
    sums = [0, *itertools.accumulate(counts)]
    return [max(0, min(count, most - before)) for count, before in zip(counts, sums, strict=False)]
