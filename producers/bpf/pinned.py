"""Rings that others pinned to a BPF filesystem: who filled them, what a record is, and that nobody else reads them.

Source: bpf(2) (BPF_OBJ_GET, BPF_PROG_GET_NEXT_ID), include/uapi/linux/bpf.h (struct bpf_prog_info).
"""

import contextlib
import ctypes
import errno
import logging
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from producers.bpf import anchors as bpf_anchors
from producers.bpf import libbpf as bpf_libbpf
from producers.bpf import readers
from producers.bpf import ring as bpf_ring
from producers.bpf.btf import Btf
from producers.bpf.held import HeldSource
from producers.bpf.ring import SoleRing
from producers.bpf.subset import subset
from producers.bpf.types import TypesSource
from producers.registry import Opening
from producers.source import Source
from schemas import bpf, limits
from schemas.config import PINS, BpfPinned
from schemas.errors import AccessError, BadInputError, UsageError
from schemas.loss import Loss, LossKind, LossUnit
from schemas.stream import Stream

log = logging.getLogger(__name__)
SURFACE: Final = "bpf"
CLOCK: Final = "mono"
KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_BPF_FS_MAGIC: Final = 0xCAFE4A11
_MAP_LINK: Final = "anon_inode:bpf-map"
_WORD_BYTES: Final = struct.calcsize("P")
_MAPS_MAX: Final = 64  # of one program: the kernel's own limit


class _ProgramInfo(ctypes.Structure):
    """The beginning of struct bpf_prog_info."""

    _fields_ = (
        ("front", ctypes.c_uint32 * 13),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("middle", ctypes.c_uint32 * 16),
        ("btf_id", ctypes.c_uint32),
    )


def open_pinned(
    opening: Opening, wanted: BpfPinned, undo: contextlib.ExitStack, rings: dict[int, Path]
) -> list[Source]:
    """Return the sources of one pinned ring: its description, then its records; `undo` lets go of it again.

    `rings` are the pins opened before by the ids of their maps; this one comes to them.

    Raises:
        UsageError: no ring is pinned there, somebody else reads it, or there is no such struct.
        AccessError: it may not be opened.
        StorageError: what must be kept of it cannot be.
    """
    fd = _get(wanted.pin)
    undo.callback(os.close, fd)
    try:
        ring = SoleRing(fd)
    except (UsageError, AccessError) as e:
        raise type(e)(f"{wanted.pin}: {e}") from None
    undo.callback(ring.close)
    ring_id = int(bpf_ring.map_info(fd).id)
    if ring_id in rings:
        raise UsageError(f"{wanted.pin} and {rings[ring_id]} are one ring")
    rings[ring_id] = wanted.pin
    _refuse_if_read(wanted.pin, ring, ring_id)
    instance = f"pinned/{wanted.named}"
    types = bpf.pack_types(
        bpf.Types(
            program=instance,
            type=wanted.struct or "",
            byteorder=sys.byteorder,
            word_bytes=_WORD_BYTES,
            btf=_describe(wanted, ring_id) if wanted.struct else b"",
            source=bpf.PINNED,
            ring_bytes=ring.ring_bytes,
        )
    )
    return _sources(opening, wanted, Stream(*opening.identity, SURFACE, instance, CLOCK), fd, ring_id, ring, types)


def _sources(
    opening: Opening, wanted: BpfPinned, stream: Stream, fd: int, ring_id: int, ring: SoleRing, types: bytes
) -> list[Source]:
    assert opening.state_dir is not None, "a log has a directory"
    described = stream._replace(instance=f"{stream.instance}/types")
    sent, known = opening.known.get(described), opening.known.get(stream)
    name = f"pinned.{wanted.named}"  # no program has a dot in its name
    anchors = bpf_anchors.of_ring(opening.state_dir / SURFACE, name, opening.identity.boot_id, ring_id)
    position, skip, losses = anchors.begin(ring.released, known.next if known else 0)
    if skip:
        with _refused(stream):
            _skip(stream, ring, skip)
            anchors.note(bpf_anchors.Anchor(ring.position, position))
            ring.release_until(ring.position)
    # Never without it: that nothing is told of what the ring refused does not mean that there was nothing.
    losses.append(Loss(LossKind.DROP, position, None, "refused-uncounted", "agent", LossUnit.EVENT))
    tick_s = opening.config.bpf.tick_ms / 1000
    records = HeldSource(stream, fd, ring_id, ring, bpf.descriptor(types), position, losses, tick_s, anchors)
    return [TypesSource(described, types, sent.next if sent else 0), records]


# Passes over `count` records that the log already holds: their room was not given back when their agent died.
def _skip(stream: Stream, ring: SoleRing, count: int) -> None:
    room = ctypes.create_string_buffer(bpf.DATA_BYTES_MAX)
    while count:
        ring.read(ctypes.addressof(room), len(room), count)
        count -= ring.taken.records
        if not ring.taken.bytes:
            break
    if count:
        log.error("bpf %s: the log holds %d records more than its ring ever held", stream.instance, count)


@contextlib.contextmanager
def _refused(stream: Stream) -> Iterator[None]:
    try:
        yield
    except BadInputError as e:
        raise UsageError(f"bpf {stream.instance}: {e.detail}") from None


def _get(path: Path) -> int:
    libbpf = bpf_libbpf.load()
    fd = int(libbpf.bpf_obj_get(os.fsencode(path)))
    if fd < 0:
        number = ctypes.get_errno()
        if not _in_bpf_fs(path):
            raise UsageError(f"{path} lies in no BPF filesystem: one is mounted by `mount -t bpf bpf {PINS}`")
        if number == errno.ENOENT:
            raise UsageError(f"nothing is pinned at {path}")
        if number in (errno.EPERM, errno.EACCES):
            raise AccessError(f"{path} may not be opened: it takes CAP_BPF and the right to write to it, or root")
        raise AccessError(f"{path} cannot be opened: {os.strerror(number)}")
    what = str(Path(f"/proc/self/fd/{fd}").readlink())
    if what != _MAP_LINK:
        os.close(fd)
        raise UsageError(f"{path} is no BPF map but {what.removeprefix('anon_inode:')}")
    return fd


# The nearest folder that is there decides: bpf_obj_get says the same of a plain file as of a pin without a right.
def _in_bpf_fs(path: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    found = ctypes.create_string_buffer(256)  # struct statfs begins with its type, a long
    for each in (path, *path.parents):
        if not libc.statfs(os.fsencode(each), found):
            return int.from_bytes(found.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) == _BPF_FS_MAGIC
        if ctypes.get_errno() in (errno.EPERM, errno.EACCES):
            break  # that it may not be looked at says nothing of what it is
    return True


def _refuse_if_read(path: Path, ring: SoleRing, ring_id: int) -> None:
    pids = readers.others(ring_id, ring.ring_bytes)
    if pids:
        raise UsageError(
            f"{path} is read by {readers.named(pids)}: a record goes to one reader alone, so end that one first"
        )
    if ring.consumed() != ring.released:
        raise UsageError(f"{path} is read by another process, which cannot be seen from here: end that one first")


# The BTF of the struct: of the newest program that uses the ring and has it, else of the kernel.
def _describe(wanted: BpfPinned, ring_id: int) -> bytes:
    assert wanted.struct is not None
    looked_at, refused = 0, ""
    found = None
    try:
        for btf in _program_btfs(ring_id):
            looked_at += 1
            found = subset(btf, wanted.struct) or found
    except AccessError as e:
        refused = f" ({e})"
    if found is None and KERNEL_BTF.exists():
        found = subset(KERNEL_BTF.read_bytes(), wanted.struct)
    if found is None:
        raise UsageError(
            f"{wanted.pin}: there is no struct {wanted.struct} in the kernel's BTF, "
            f"nor in that of the {looked_at} programs that use the ring{refused}"
        )
    if len(found) > limits.BPF_BTF_BYTES_MAX:
        raise UsageError(f"{wanted.pin}: struct {wanted.struct} takes {len(found)} bytes of BTF to describe")
    return found


# The BTF of each loaded program that uses the map, the newest last.
def _program_btfs(map_id: int) -> Iterator[bytes]:
    libbpf = bpf_libbpf.load()
    number = ctypes.c_uint32(0)
    seen: set[int] = set()
    while not libbpf.bpf_prog_get_next_id(number, ctypes.byref(number)):
        info, maps = _ProgramInfo(), (ctypes.c_uint32 * _MAPS_MAX)()
        info.nr_map_ids, info.map_ids = _MAPS_MAX, ctypes.addressof(maps)
        fd = int(libbpf.bpf_prog_get_fd_by_id(number))
        if fd < 0:
            continue  # it was unloaded just now
        try:
            size_bytes = ctypes.c_uint32(ctypes.sizeof(info))
            failed = libbpf.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size_bytes))
        finally:
            os.close(fd)
        if failed or map_id not in list(maps[: info.nr_map_ids]) or not info.btf_id or info.btf_id in seen:
            continue
        seen.add(info.btf_id)
        handle = libbpf.btf__load_from_kernel_by_id(info.btf_id)
        if handle:
            try:
                yield Btf(libbpf, handle).raw()
            finally:
                libbpf.btf__free(handle)
    if ctypes.get_errno() in (errno.EPERM, errno.EACCES):
        raise AccessError("to look at programs takes CAP_SYS_ADMIN")
