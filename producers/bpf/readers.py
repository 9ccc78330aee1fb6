"""Which other processes read a BPF ring, as far as /proc shows it.

A reader has mapped the producer's page and the data behind it, and nothing else of a map looks like that: from the
second page on, a page and twice the ring. The mapping does not say of which map it is; the descriptors beside it do.
Source: proc_pid_maps(5), proc_pid_fdinfo(5), kernel/bpf/ringbuf.c (ringbuf_map_mmap).
"""

import contextlib
import mmap
import os
import re
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_MAPPING: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +anon_inode:bpf-map$", re.MULTILINE)
_MAP_LINK: Final = "anon_inode:bpf-map"
_FIELD: Final = re.compile(r"^(map_id|max_entries):\s+(\d+)$", re.MULTILINE)


def others(ring_id: int, ring_bytes: int) -> list[int]:
    """Return the ids of other processes that have mapped the ring with this map id and size as its reader does.

    A process that has mapped fewer rings of this size than it holds may mean another one, and is not among them;
    neither is one that this process may not look into.
    """
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            mappings = _mappings(folder, ring_bytes)
            held = _rings_held(folder, ring_bytes) if mappings else set()
            if ring_id in held and mappings >= len(held):
                found.append(int(folder.name))
    return sorted(found)


def named(pids: list[int]) -> str:
    """Return these processes in words: `process 12 (bpftool)`."""
    words = []
    for pid in pids:
        name = "gone"
        with contextlib.suppress(OSError):
            name = (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        words.append(f"process {pid} ({name})")
    return ", ".join(words)


def _mappings(folder: Path, ring_bytes: int) -> int:
    text = (folder / "maps").read_text(encoding="utf-8", errors="replace")
    wanted = (mmap.PAGESIZE, mmap.PAGESIZE + 2 * ring_bytes)
    return sum((int(at, 16), int(end, 16) - int(begin, 16)) == wanted for begin, end, at in _MAPPING.findall(text))


# The ids of the maps that have as many entries as the ring has bytes.
def _rings_held(folder: Path, ring_bytes: int) -> set[int]:
    found = set()
    for each in (folder / "fd").iterdir():
        with contextlib.suppress(OSError):
            if str(each.readlink()) == _MAP_LINK:
                fields = dict(_FIELD.findall((folder / "fdinfo" / each.name).read_text(encoding="ascii")))
                if int(fields.get("max_entries", 0)) == ring_bytes:
                    found.add(int(fields["map_id"]))
    return found
