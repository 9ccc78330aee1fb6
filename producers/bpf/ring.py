"""A BPF ring buffer, mapped and read in whole stretches by a helper in C: `bpf_programs/ring.c` says why, and how.

The consumer's page is mapped to write its position, the producer's page and the data (twice, so that a stretch that
wraps is one piece) to read. Source: Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c (ringbuf_map_mmap).
"""

import contextlib
import ctypes
import functools
import mmap
import os
from enum import IntEnum
from typing import Final

from producers import native
from producers.bpf import libbpf as bpf_libbpf
from schemas.errors import AccessError, BadInputError, UsageError

#: How often the header of a record that is not committed is looked at again: some tens of us, a commit takes one.
SPINS_MAX: Final = 1000
_MAP_TYPE_RING: Final = 27
#: BPF_F_RB_OVERWRITE: the oldest records vanish under the reader, by other rules than those here.
_OVERWRITES: Final = 1 << 19
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class Status(IntEnum):
    """Why a read ended: `enum status` of ring.c."""

    EMPTY = 0
    BOUND = 1
    STILL_BUSY = 2
    BAD_POSITION = 3
    BAD_LENGTH = 4
    TOO_LONG = 5


class Taken(ctypes.Structure):
    """What one read took: `struct taken` of ring.c."""

    _fields_ = (
        ("next", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("records", ctypes.c_uint64),
        ("discarded", ctypes.c_uint64),
        ("first_at", ctypes.c_uint64),
        ("last_at", ctypes.c_uint64),
        ("last_bytes", ctypes.c_uint64),
    )


class _Pointers(ctypes.Structure):
    _fields_ = (
        ("consumer", ctypes.c_void_p),
        ("producer", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
    )


class MapInfo(ctypes.Structure):
    """The beginning of struct bpf_map_info."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("type", "id", "key", "value", "max_entries", "map_flags"))


class Ring:
    """A ring of `ring_bytes` whose positions and data lie at these addresses; `taken` is about the newest read.

    `position` is the ring's byte up to which it was read; what was read stays in the ring until `release`.
    """

    def __init__(self, consumer: int, producer: int, data: int, ring_bytes: int) -> None:
        self._helper = load_helper()
        self._pointers = _Pointers(consumer, producer, data, ring_bytes)
        self._ring = ctypes.byref(self._pointers)
        self.taken = Taken()
        self._taken = ctypes.byref(self.taken)
        self.ring_bytes = ring_bytes
        self.position = int(self._helper.ring_consumed(self._ring))

    def read(self, address: int, room_bytes: int, records_max: int) -> Status:
        """Copy whole records to `address` until the ring is empty or a bound ends it; `taken` says what came.

        Raises:
            BadInputError: `reason` is `ring`: what the ring says of itself cannot be; nothing that follows can be read.
        """
        status = Status(
            self._helper.ring_read(self._ring, self.position, address, room_bytes, records_max, SPINS_MAX, self._taken)
        )
        self.position = self.taken.next
        if status is Status.BAD_POSITION:
            consumed, produced = self._helper.ring_consumed(self._ring), self._helper.ring_produced(self._ring)
            raise BadInputError(
                "ring",
                f"its writer stands at byte {produced} and its reader at {consumed}, read up to {self.position}: "
                f"not possible in {self.ring_bytes} bytes",
            )
        if status is Status.BAD_LENGTH and not self.taken.bytes:
            raise BadInputError(
                "ring", f"the record at byte {self.position} claims {self.taken.last_bytes} bytes, more than are there"
            )
        return status

    def release(self) -> None:
        """Give the room of everything that was read back to the writers."""
        self._helper.ring_release(self._ring, self.position)

    def consumed(self) -> int:
        """Return the byte up to which the writers have room."""
        return int(self._helper.ring_consumed(self._ring))

    def produced(self) -> int:
        """Return the byte at which the writers stand."""
        return int(self._helper.ring_produced(self._ring))

    def is_read(self) -> bool:
        """Return whether all that the writers began was read."""
        return self.produced() == self.position

    def close(self) -> None:
        """Do nothing: the memory is somebody else's."""


class MappedRing(Ring):
    """The ring of the map `fd`, mapped by this object.

    Raises:
        UsageError: the map is no ring, or one of a kind that cannot be read exactly.
        AccessError: it cannot be mapped, or the helper is missing.
    """

    def __init__(self, fd: int) -> None:
        ring_bytes = ring_bytes_of(fd)
        libc = _libc()
        page_bytes = mmap.PAGESIZE
        self._mapped: list[tuple[int, int]] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            consumer = self._map(libc, fd, page_bytes, mmap.PROT_READ | mmap.PROT_WRITE, 0)
            producer = self._map(libc, fd, page_bytes + 2 * ring_bytes, mmap.PROT_READ, page_bytes)
            super().__init__(consumer, producer, producer + page_bytes, ring_bytes)
            undo.pop_all()

    def close(self) -> None:
        """Unmap it; idempotent. Nothing may be read after it."""
        mapped, self._mapped = self._mapped, []
        for at, size_bytes in mapped:
            _libc().munmap(at, size_bytes)

    def _map(self, libc: ctypes.CDLL, fd: int, size_bytes: int, protection: int, offset: int) -> int:
        at = libc.mmap(None, size_bytes, protection, mmap.MAP_SHARED, fd, offset)
        if at == _MAP_FAILED:
            raise AccessError(f"a BPF ring cannot be mapped: {os.strerror(ctypes.get_errno())}")
        self._mapped.append((at, size_bytes))
        return int(at)


class SoleRing(MappedRing):
    """The ring of a map that others can have too, to be read by this object alone: it notices when another one reads.

    `released` is the byte up to which room was given back.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.released = self.position

    def read(self, address: int, room_bytes: int, records_max: int) -> Status:
        """Read as any ring.

        Raises:
            BadInputError: as of any ring; or `reason` is `reader`: another one reads it, and what was copied may be
                anything.
        """
        self._check()
        status = super().read(address, room_bytes, records_max)
        self._check()
        return status

    def release_until(self, position: int) -> None:
        """Give the room up to byte `position` back to the writers.

        Raises:
            BadInputError: `reason` is `reader`: another one reads it, and nothing was given back.
        """
        if not self._helper.ring_release_from(self._ring, self.released, position):
            self._check()
        self.released = position

    def _check(self) -> None:
        consumed = self.consumed()
        if consumed != self.released:
            where = f"its reader's position was left at {self.released} and is {consumed}"
            raise BadInputError("reader", f"another process reads it too: {where}")


def ring_bytes_of(fd: int) -> int:
    """Return the size of the ring whose map is `fd`.

    Raises:
        UsageError: it is no ring, or one whose writers overwrite what was not read.
    """
    info = map_info(fd)
    return check_kind(info.type, info.map_flags, info.max_entries)


def map_info(fd: int) -> MapInfo:
    """Return what the kernel says of the map `fd`.

    Raises:
        AccessError: it says nothing.
    """
    info = MapInfo()
    size_bytes = ctypes.c_uint32(ctypes.sizeof(info))
    libbpf = bpf_libbpf.load()
    if libbpf.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size_bytes)):
        raise libbpf.refusal("a BPF ring cannot be looked at")
    return info


def check_kind(map_type: int, map_flags: int, max_entries: int) -> int:
    """Return the size in bytes of a map with these properties, if it is a ring that can be read exactly.

    Raises:
        UsageError: it is none.
    """
    if map_type != _MAP_TYPE_RING:
        raise UsageError(f"a BPF map of type {map_type} is no ring buffer (type {_MAP_TYPE_RING})")
    if map_flags & _OVERWRITES:
        raise UsageError("a BPF ring made with BPF_F_RB_OVERWRITE drops its oldest records uncounted, and is not read")
    return max_entries


@functools.cache
def load_helper() -> ctypes.CDLL:
    """Return the helper for this machine.

    Raises:
        AccessError: it was not built, or the machine is of another kind.
    """
    try:
        helper = native.load("ring")
    except OSError as e:
        raise AccessError(
            f"the reader of BPF rings cannot be loaded: run `make bpf` in the source tree (clang and lld); {e}"
        ) from None
    pointer, word = ctypes.c_void_p, ctypes.c_uint64
    helper.ring_read.argtypes = [pointer, word, pointer, word, word, ctypes.c_uint32, pointer]
    helper.ring_release.argtypes = [pointer, word]
    helper.ring_release.restype = None
    helper.ring_release_from.argtypes = [pointer, word, word]
    for function in (helper.ring_consumed, helper.ring_produced):
        function.argtypes, function.restype = [pointer], word
    return helper


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_longlong,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
