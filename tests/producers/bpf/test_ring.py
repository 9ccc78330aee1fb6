"""The reader of rings against memory that the test writes: every byte outside of the ring is fenced off."""

import ctypes
import mmap
import os
import struct
import threading
import time

import pytest

from producers import native
from producers.bpf import ring
from producers.bpf.ring import Ring, Status
from schemas.errors import AccessError, BadInputError, UsageError

BYTES = 4096
BUSY, DISCARDED = 1 << 31, 1 << 30
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 4, ctypes.c_size_t]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@pytest.fixture(autouse=True)
def built():
    try:
        ring.load_helper()
    except AccessError as e:
        pytest.skip(str(e))


class Memory:
    """A ring as the kernel maps it: two positions, the data twice; in front and behind lie pages that nobody may touch."""

    def __init__(self):
        file = os.memfd_create("ring")
        os.ftruncate(file, BYTES)
        page = mmap.PAGESIZE
        self._all = 4 * page + 2 * BYTES
        base = LIBC.mmap(None, self._all, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 2**64 - 1, 0)
        self.data_at = base + 2 * page
        LIBC.mprotect(base + page, page, mmap.PROT_READ | mmap.PROT_WRITE)
        fixed = 0x10
        for copy in (0, 1):
            at = self.data_at + copy * BYTES
            assert LIBC.mmap(at, BYTES, 3, mmap.MAP_SHARED | fixed, file, 0) == at
        os.close(file)
        self.positions = (ctypes.c_uint64 * 2).from_address(base + page)
        self._base = base
        self.ring = Ring(base + page, base + page + 8, self.data_at, BYTES)
        self._into = ctypes.create_string_buffer(2 * BYTES)

    def start(self, position):
        self.positions[0] = self.positions[1] = position
        self.ring.position = position

    def put(self, data, flags=0, *, length=None):
        """Write a record where the producer stands, and move it on; return where its header is."""
        at = self.positions[1]
        record = struct.pack("=2I", (len(data) if length is None else length) | flags, 0) + data
        record += bytes(-len(record) % 8)
        ctypes.memmove(self.data_at + at % BYTES, record, len(record))
        self.positions[1] = at + len(record)
        return self.data_at + at % BYTES

    def read(self, room=BYTES, records=1000):
        self._into.raw = b"\xee" * len(self._into)
        status = self.ring.read(ctypes.addressof(self._into), room, records)
        assert self._into.raw[self.ring.taken.bytes :].strip(b"\xee") == b""
        return status, self._into.raw[: self.ring.taken.bytes]

    def close(self):
        LIBC.munmap(ctypes.c_void_p(self._base), ctypes.c_size_t(self._all))


@pytest.fixture
def memory():
    made = Memory()
    yield made
    made.close()


def record(data, flags=0):
    return struct.pack("=2I", len(data) | flags, 0) + data + bytes(-len(data) % 8)


def test_an_empty_ring_gives_nothing(memory):
    assert memory.read() == (Status.EMPTY, b"")
    assert memory.ring.taken.records == 0


def test_records_come_as_they_lie_and_their_room_is_given_back_on_release(memory):
    memory.put(b"one")
    memory.put(b"discarded", DISCARDED)
    memory.put(b"the third")
    status, data = memory.read()
    assert (status, data) == (Status.EMPTY, record(b"one") + record(b"discarded", DISCARDED) + record(b"the third"))
    taken = memory.ring.taken
    assert (taken.records, taken.discarded, taken.last_bytes) == (2, 1, 9)
    assert data[taken.first_at :].startswith(b"one")
    assert data[taken.last_at :].startswith(b"the third")
    assert memory.positions[0] == 0
    memory.ring.release()
    assert memory.positions[0] == memory.positions[1] == memory.ring.position == len(data)


@pytest.mark.parametrize("start", [0, BYTES - 16])
def test_it_is_read_until_a_writer_begins_the_next_record(memory, start):
    memory.start(start)
    assert memory.ring.is_read()
    memory.put(b"one", BUSY)
    memory.read()
    assert not memory.ring.is_read()
    ctypes.memset(memory.data_at + start % BYTES + 3, 0, 1)
    memory.read()
    assert memory.ring.is_read()


@pytest.mark.parametrize("start", [BYTES - 8, BYTES - 16, BYTES - 24, 7 * BYTES - 8, (1 << 62) + BYTES - 16])
def test_a_stretch_that_wraps_is_one_piece(memory, start):
    memory.start(start)
    memory.put(b"begins before the end and goes on at the start")
    memory.put(b"behind it")
    assert memory.read()[1] == record(b"begins before the end and goes on at the start") + record(b"behind it")


def test_a_full_ring_is_read_whole(memory):
    memory.start(1000)
    for number in range(BYTES // 64):
        memory.put(bytes([number]) * 56)
    status, data = memory.read()
    assert (status, len(data), memory.ring.taken.records) == (Status.EMPTY, BYTES, 64)


@pytest.mark.parametrize(("room", "records"), [(64, 1000), (64 + 8 + 55, 1000), (BYTES, 1)])
def test_a_bound_ends_between_two_records(memory, room, records):
    for number in range(3):
        memory.put(bytes([number]) * 50)
    found = [memory.read(room, records) for _ in range(3)]
    assert [status for status, _ in found] == [Status.BOUND, Status.BOUND, Status.EMPTY]
    assert b"".join(data for _, data in found) == b"".join(record(bytes([number]) * 50) for number in range(3))


def test_a_record_that_fits_into_no_room_is_told_and_not_taken(memory):
    memory.put(bytes(100))
    assert memory.read(room=64) == (Status.TOO_LONG, b"")
    assert (memory.ring.taken.last_bytes, memory.ring.position) == (100, 0)


def test_a_busy_record_holds_up_what_is_behind_it_and_is_never_skipped(memory):
    memory.put(b"first")
    head = memory.put(b"busy", BUSY)
    memory.put(b"behind")
    assert memory.read() == (Status.STILL_BUSY, record(b"first"))
    before = time.monotonic()
    assert memory.read() == (Status.STILL_BUSY, b"")
    assert time.monotonic() - before < 1
    ctypes.c_uint32.from_address(head).value = 4
    assert memory.read() == (Status.EMPTY, record(b"busy") + record(b"behind"))


def test_a_record_that_is_committed_while_it_is_looked_at_is_taken(memory, monkeypatch):
    head = memory.put(b"busy", BUSY)
    monkeypatch.setattr(ring, "SPINS_MAX", (1 << 32) - 1)

    def commit():
        time.sleep(0.05)
        ctypes.c_uint32.from_address(head).value = 4

    thread = threading.Thread(target=commit)
    thread.start()
    assert memory.read() == (Status.EMPTY, record(b"busy"))
    thread.join()


# Rings that lie. A read outside of the ring would end the process: the pages around it cannot be touched.


@pytest.mark.parametrize("length", [17, 4089, 4096, DISCARDED - 1, DISCARDED | (DISCARDED - 1), DISCARDED | 17])
@pytest.mark.parametrize("start", [0, BYTES - 16])
def test_a_record_longer_than_what_is_there_is_refused_behind_what_is_sound(memory, start, length):
    memory.start(start)
    memory.put(b"sound")
    memory.put(bytes(16), length=length)
    assert memory.read() == (Status.BAD_LENGTH, record(b"sound"))
    with pytest.raises(BadInputError, match=f"at byte {start + 16} claims {length & (DISCARDED - 1)} bytes, more than"):
        memory.read()


@pytest.mark.parametrize(
    ("consumed", "produced"),
    [
        (0, BYTES + 8),
        (0, (1 << 64) - 8),
        (8, 16),
        (0, 4),
        ((1 << 64) - 8, 0),
    ],
)
def test_positions_that_contradict_each_other_are_refused(memory, consumed, produced):
    memory.positions[0], memory.positions[1] = consumed, produced
    with pytest.raises(BadInputError, match=f"writer stands at byte {produced} and its reader at {consumed}"):
        memory.read()


def test_a_writer_that_goes_back_is_refused(memory):
    memory.put(b"sound")
    memory.read()
    memory.positions[1] = 8
    with pytest.raises(BadInputError, match="writer stands at byte 8"):
        memory.read()


# What kind of map


def test_a_ring_that_overwrites_is_refused_by_name():
    assert ring.check_kind(27, 0, 8192) == 8192
    with pytest.raises(UsageError, match="BPF_F_RB_OVERWRITE"):
        ring.check_kind(27, 1 << 19, 8192)
    with pytest.raises(UsageError, match="a BPF map of type 2 is no ring buffer"):
        ring.check_kind(2, 0, 8192)


def test_a_helper_that_was_not_built_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    native.load.cache_clear()
    with pytest.raises(AccessError, match="run `make bpf`"):
        ring.load_helper.__wrapped__()
