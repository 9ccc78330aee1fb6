"""Kernel-like records of /dev/kmsg: from recorded files where given, else from templates; every number is varied."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas import kmsg
from schemas.frame import Frame
from schemas.stream import Stream

_TEMPLATES: Final = rb"""
6;usb 1-4.2: new high-speed USB device number 17 using xhci_hcd
6;usb 1-4.2: New USB device found, idVendor=0781, idProduct=5581, bcdDevice= 1.00
6;scsi host6: usb-storage 1-4.2:1.0
5;sd 6:0:0:0: [sdc] 120164352 512-byte logical blocks: (61.5 GB/57.3 GiB)
6;IPv6: ADDRCONF(NETDEV_CHANGE): veth3ab12f9: link becomes ready
6;br-4c1f2a9d88e0: port 3(veth3ab12f9) entered forwarding state
6;device veth3ab12f9 entered promiscuous mode
4;TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:8443. Sending cookies.
6;EXT4-fs (dm-4): mounted filesystem 3f0ac0e2-5c7f-49d7-a6e4-6c5a1d2b8f10 r/w with ordered data mode. Quota mode: none.
4;EXT4-fs warning (device sda2): ext4_dx_add_entry:2461: Directory (ino: 1835009) index full, reach max htree level :2
3;blk_update_request: I/O error, dev sdb, sector 2345678912 op 0x0:(READ) flags 0x80700 phys_seg 4 prio class 2
3;Buffer I/O error on dev sdb1, logical block 293209480, async page read
4;ata3.00: exception Emask 0x10 SAct 0x40000 SErr 0x400100 action 0x6 frozen
4;ata3.00: cmd 61/08:90:80:1e:a4/00:00:3a:00:00/40 tag 18 ncq dma 4096 out
6;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=pod7c1,mems_allowed=0,task=java,pid=48121,uid=1000
3;Memory cgroup out of memory: Killed process 48121 (java) total-vm:8123456kB, anon-rss:4123456kB, file-rss:1024kB
0;watchdog: BUG: soft lockup - CPU#13 stuck for 26s! [kworker/13:2:19312]
4;Call Trace:
4; <TASK>
4; ? __schedule+0x2d1/0x8a0
4; io_schedule+0x46/0x80
4; bit_wait_io+0x11/0x70
4; ext4_sync_file+0x15a/0x390
4; do_syscall_64+0x5c/0x90
4; entry_SYSCALL_64_after_hwframe+0x72/0xdc
4;RIP: 0033:0x7f1c2a31b4f7
4;RAX: ffffffffffffffda RBX: 000055d0c1a2b3c0 RCX: 00007f1c2a31b4f7
4;RDX: 0000000000000000 RSI: 0000000000001000 RDI: 0000000000000003
6;nvme nvme0: I/O 182 (I/O Cmd) QID 5 timeout, aborting
6;audit: type=1400 audit(1764021234.123:48211): apparmor="DENIED" operation="open" pid=48121 comm="cupsd"
6;[UFW BLOCK] IN=eth0 OUT= MAC=52:54:00:a1:b2:c3 SRC=10.42.7.118 DST=10.42.0.15 LEN=60 TTL=63 PROTO=TCP SPT=44512
4;perf: interrupt took too long (3134 > 3126), lowering kernel.perf_event_max_sample_rate to 63750
6;mlx5_core 0000:41:00.0 ens1f0np0: Link up
3;nfs: server 10.42.3.7 not responding, still trying
"""
_NUMBER: Final = re.compile(rb"(?<![A-Za-z_])(?:0x)?[0-9][0-9a-f]*(?![A-Za-z_])")
_HEADER: Final = re.compile(rb"([0-9]+),[0-9]+,[0-9]+,([^;]*);")
_GAP_US: Final = 50


def templates(captures: Path | None) -> list[tuple[int, bytes]]:
    """Return priorities and texts, dictionary lines included, in the order in which a kernel said them."""
    if captures is None:
        lines = _TEMPLATES.strip().splitlines()
        return [(int(prio), text + b"\n") for prio, _, text in (line.partition(b";") for line in lines)]
    found: list[tuple[int, bytes]] = []
    for path in sorted(captures.glob("*.kmsg")):
        for line in path.read_bytes().splitlines(keepends=True):
            header = _HEADER.match(line)
            if header:
                found.append((int(header[1]), line[header.end() :]))
            elif found and line.startswith(b" "):
                found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def records(count: int, captures: Path | None = None, *, first: int = 1_000_000, seed: int = 1) -> Iterator[bytes]:
    """Yield `count` records as read(2) gives them, 20,000 a second by their own timestamps."""
    rng = random.Random(seed)
    digits = rng.randbytes(1 << 16).hex().encode()
    ts_us = 864_000_000_000
    source = _runs(templates(captures), rng)
    for seq in range(first, first + count):
        prio, text = next(source)
        ts_us += int(rng.expovariate(1 / _GAP_US))
        yield b"%d,%d,%d,-;%b" % (prio, seq, ts_us, _vary(text, digits, rng))


# Some lines in their order, then others: neither one line at random nor the same page over and over.
def _runs(found: list[tuple[int, bytes]], rng: random.Random) -> Iterator[tuple[int, bytes]]:
    while True:
        start = rng.randrange(len(found))
        yield from found[start : start + rng.randint(1, 12)]


# Every number gets other digits of its own kind and the same length; one of a single digit stays.
def _vary(text: bytes, digits: bytes, rng: random.Random) -> bytes:
    def other(match: re.Match[bytes]) -> bytes:
        old = match[0]
        if len(old) < 2:
            return old
        if old.isdigit():
            return b"%0*d" % (len(old), rng.randrange(10 ** min(len(old), 18)))
        prefix = 2 if old.startswith(b"0x") else 0
        at = rng.randrange(len(digits) - len(old))
        return old[:prefix] + digits[at : at + len(old) - prefix]

    return _NUMBER.sub(other, text)


def stream(machine: int) -> Stream:
    """Return the kernel log's stream of a machine."""
    return Stream(f"{machine:032x}", f"{machine:08x}-2f4e-4c1b-9d3a-5f1e2d3c4b5a", "guest-kernel", "kmsg", "", "printk")


def frames(found: list[bytes], machine: int, per_frame: int, *, first: int = 1_000_000) -> Iterator[Frame]:
    """Yield the frames that an agent would make of `found`."""
    for number, start in enumerate(range(0, len(found), per_frame)):
        chunk = found[start : start + per_frame]
        yield Frame(
            stream=stream(machine),
            run="5f1e2d3c-2f4e-4c1b-9d3a-5f1e2d3c4b5a",
            number=number,
            first=first + start,
            next=first + start + len(chunk),
            count=len(chunk),
            encoding="kmsg",
            encoding_version=1,
            body=kmsg.pack(chunk),
            realtime_ns=1_764_000_000_000_000_000 + (start + len(chunk)) * _GAP_US * 1000,
            snapshot="5f1e2d3c-2f4e-4c1b-9d3a-5f1e2d3c4b5a/12",
        )
