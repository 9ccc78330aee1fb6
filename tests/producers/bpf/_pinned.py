"""A ring that somebody else pinned: its program (pinned.bpf.c), a BPF filesystem for its pin, a reader of its records."""

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from producers.bpf import libbpf
from producers.bpf.ring import MappedRing
from producers.bpf.source import open_sources
from producers.registry import Identity, Opening
from schemas.config import BpfConfig, BpfPinned, Config
from schemas.stream import Stream
from tests.producers.bpf._bpf import records_of, skip_unless_loadable

_OBJECT = Path(__file__).with_name("pinned.bpf.o")
_ROOT = Path(__file__).resolve().parents[3]
_ITEM = struct.Struct("=QIHH16sQ")
ITEM_BYTES = _ITEM.size
#: In the ring, with its header.
SLOT_BYTES = 8 + ITEM_BYTES


class Item(NamedTuple):
    """`struct shop_item`."""

    number: int
    kind: int
    weight: int
    tare: int
    name: bytes
    next: int


class Run(ctypes.Structure):
    """`struct run`."""

    _fields_ = (
        ("first", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("discard_each", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("written", "refused", "discarded")),
    )


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts of bpf/bpf.h, up to ctx_size_out."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data", ctypes.c_void_p * 2),
        ("data_sizes", ctypes.c_uint32 * 2),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("rest", ctypes.c_uint64 * 4),
    )


class Owner:
    """The loaded program, its ring of `ring_bytes` pinned at `pin`; sums of all that it did."""

    def __init__(self, pin, ring_bytes=1 << 20, pin_of="shop"):
        self.pin = pin
        self._lib = libbpf.load()
        raw = ctypes.CDLL("libbpf.so.1", use_errno=True)
        self._object = self._lib.bpf_object__open_file(os.fsencode(_OBJECT), None)
        assert self._object
        self._ring = self._map("shop")
        self._lib.bpf_map__set_max_entries(self._ring, ring_bytes)
        assert self._lib.bpf_object__load(self._object) == 0
        self._program = self._lib.bpf_object__next_program(self._object, None)
        self.attempts = self.written = self.refused = self.discarded = 0
        raw.bpf_obj_pin.argtypes = [ctypes.c_int, ctypes.c_char_p]
        fd = self._lib.bpf_map__fd(self._map(pin_of)) if pin_of else self._lib.bpf_program__fd(self._program)
        assert raw.bpf_obj_pin(fd, os.fsencode(pin)) == 0, os.strerror(ctypes.get_errno())

    def write(self, count, discard_each=0):
        """Let it attempt `count` records; return how many of them found no room."""
        run = Run(self.attempts, count, discard_each)
        told = _TestRun(sz=ctypes.sizeof(_TestRun))
        told.ctx_in, told.ctx_size_in = ctypes.addressof(run), ctypes.sizeof(run)
        assert not self._lib.bpf_prog_test_run_opts(self._lib.bpf_program__fd(self._program), ctypes.byref(told))
        self.attempts += count
        self.written += run.written
        self.refused += run.refused
        self.discarded += run.discarded
        return run.refused

    def close(self):
        """Unload it; the pin keeps the ring alive. Idempotent."""
        loaded, self._object = self._object, None
        if loaded:
            self._lib.bpf_object__close(loaded)

    def open(self):
        """Return a new descriptor of the ring."""
        return self._lib.bpf_obj_get(os.fsencode(self.pin))

    def waiting_bytes(self):
        """Return how much of the ring nobody gave room back for."""
        ring = MappedRing(self._lib.bpf_map__fd(self._ring))
        try:
            return ring.produced() - ring.consumed()
        finally:
            ring.close()

    def _map(self, name):
        return self._lib.bpf_object__find_map_by_name(self._object, name.encode())


class Filesystem:
    """A BPF filesystem of the test's own, and what is pinned there."""

    def __init__(self, path):
        self.path = path
        skip_unless_loadable()
        if not _OBJECT.exists():
            pytest.skip("run `make bpf`: the tests' own program is not built")
        self._owners = []
        path.mkdir()
        done = subprocess.run(["mount", "-t", "bpf", "bpf", path], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs root to mount a BPF filesystem: {done.stderr.strip()}")

    def owner(self, name="shop", **settings):
        self._owners.append(Owner(self.path / name, **settings))
        return self._owners[-1]

    def close(self):
        for each in self._owners:
            each.close()
        subprocess.run(["umount", "--lazy", self.path], check=True)


def items_of(batches):
    """Return the records in batches, or frames, that have any."""
    found = [Item._make(_ITEM.unpack(each)) for batch in batches if batch.count for each in records_of(batch)]
    return [each._replace(name=each.name.rstrip(b"\0")) for each in found]


_READER = """
import os, sys
from producers.bpf import libbpf
from producers.bpf.ring import SoleRing
get = libbpf.load().bpf_obj_get
held = [get(os.fsencode(path)) for path in sys.argv[2:]]
if sys.argv[1] == "map":
    ring = SoleRing(held[0])
print("ready", flush=True)
for line in sys.stdin:
    ring.release_until(ring.released + int(line))
    print("moved", flush=True)
"""


@contextlib.contextmanager
def reading(pin, *, map_it=True, holds=None):
    """Run another process that has the ring at `pin` mapped, and holds a descriptor of the one at `holds`."""
    command = [sys.executable, "-c", _READER, "map" if map_it else "hold", str(pin), *([str(holds)] if holds else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=_ROOT, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def read_by(process, size_bytes):
    """Let that process give room of so many bytes back."""
    print(size_bytes, file=process.stdin, flush=True)
    assert process.stdout.readline() == "moved\n"


ME = Identity("m", "65e71522-0000-0000-0000-000000000000", "guest-kernel")
STREAM = Stream(*ME, "bpf", "pinned/shop", "mono")


class Pinned:
    """One ring pinned in `bpf_fs`, and the sources that a test opens of it one after another."""

    def __init__(self, bpf_fs, state_dir):
        self._bpf_fs = bpf_fs
        self.path = bpf_fs.path / "shop"
        self.owners = []
        self._state_dir = state_dir
        self._sources = []
        state_dir.mkdir()

    def owner(self, **settings):
        self.owners.append(self._bpf_fs.owner(**settings))
        return self.owners[-1]

    def open(self, known=None, struct="shop_item"):
        """Return the source of the records, the log standing where `known` says."""
        return self.open_all(BpfPinned(str(self.path), struct=struct), known=known)[1]

    def open_all(self, *wanted, known=None):
        opening = Opening(ME, {STREAM: known} if known else {}, Config(bpf=BpfConfig(pinned=wanted)), self._state_dir)
        sources = open_sources(opening)
        self._sources += sources
        return sources

    def close(self):
        for each in self._sources:
            each.close()
