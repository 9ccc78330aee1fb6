"""Where the parts of BPF programs run: each at a hook of its own, or one behind another at the hook of that.

The kernel takes more for a second program at a tracepoint than many a program does there. So a program may have a map
`follower` for one more, to which it jumps at its end. Source: bpf-helpers(7) (bpf_tail_call), kernel/bpf/arraymap.c.
"""

import ctypes
from collections.abc import Callable, Iterable

from producers.bpf.libbpf import Libbpf


def attach(libbpf: Libbpf, program: str, part: int) -> int:
    """Let the loaded `part` of `program` run; return the link by which it does.

    Raises:
        AccessError: the kernel has not got what it attaches to.
    """
    link = libbpf.bpf_program__attach(part)
    if not link:
        name = libbpf.bpf_program__name(part).decode()
        raise libbpf.refusal(f"BPF program {program} cannot be attached ({name})")
    return int(link)


class Room:
    """The place behind `parts` of one program, which jump to what is in its map `follower_fd`; it has room for one."""

    def __init__(self, libbpf: Libbpf, follower_fd: int, parts: Iterable[int]) -> None:
        self._libbpf = libbpf
        self._fd = follower_fd
        self._hooks = {libbpf.bpf_program__section_name(part) for part in parts}
        self._go_alone: Callable[[], None] | None = None

    def enter(self, part: int, go_alone: Callable[[], None]) -> bool:
        """Let `part` run here from now on, and return whether it does: if it has the same hook, and the room is free.

        `go_alone` is called when the room closes.
        """
        if self._go_alone is not None or self._libbpf.bpf_program__section_name(part) not in self._hooks:
            return False
        key, fd = ctypes.c_uint32(0), ctypes.c_uint32(self._libbpf.bpf_program__fd(part))
        if self._libbpf.bpf_map_update_elem(self._fd, ctypes.byref(key), ctypes.byref(fd), 0):
            return False
        self._go_alone = go_alone
        return True

    def leave(self) -> None:
        """Let what runs here do so no more."""
        self._go_alone = None
        key = ctypes.c_uint32(0)
        self._libbpf.bpf_map_delete_elem(self._fd, ctypes.byref(key))

    def close(self) -> None:
        """Let what runs here go on alone, less a moment between; idempotent.

        Raises:
            AccessError: it cannot.
        """
        go_alone = self._go_alone
        if go_alone is not None:
            self.leave()
            go_alone()


class Hook:
    """A loaded `part` of `program` that runs until `close`: in `room` if that takes it, else alone.

    Raises:
        AccessError: the kernel has not got what it attaches to.
    """

    def __init__(self, libbpf: Libbpf, program: str, part: int, room: Room | None) -> None:
        self._libbpf = libbpf
        self._program, self._part = program, part
        self._link = 0
        self._room = room if room is not None and room.enter(part, self._go_alone) else None
        if self._room is None:
            self._go_alone()

    def close(self) -> None:
        """Let it run no more, apart from runs that are under way on other CPUs; idempotent."""
        room, self._room = self._room, None
        link, self._link = self._link, 0
        if room is not None:
            room.leave()
        if link:
            self._libbpf.bpf_link__destroy(link)

    def _go_alone(self) -> None:
        self._room = None
        self._link = attach(self._libbpf, self._program, self._part)
