"""Records as lines for people."""

from consumers.decode import bpf
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import bpf as wire
from tests.consumers._records import RING, TYPES, delay, recorded, types

PINNED = types(b"", type_="", program="pinned/x", source="pinned")


def test_lines_are_by_time_over_all_rings():
    records = recorded(0, [delay(9, b"b\x1b[2J"), delay(3_000, b"a", state=9)])
    raw = recorded(0, [b"\1\2"], stream=RING._replace(instance="pinned/x"), body=PINNED)
    known = {wire.descriptor(each): each for each in (TYPES, PINNED)}
    earlier = recorded(0, [delay(2, b"c") + b"!"], stream=RING._replace(machine="n"))
    items = [FrameIn(each, 0, Partition("t", 0), 0) for each in (records, raw, earlier)]
    assert list(bpf.text_lines(bpf.decode_many(items, known))) == [
        "[---]            -: pinned/x: data=0102",
        "[000]     5.000000: sched-delay: flags=0 cpu_seq=1 comm=c state=SLEEPS wait_us=9 surplus=21",
        "[001]     5.000000: sched-delay: flags=0 cpu_seq=4 comm=b?[2J state=SLEEPS wait_us=9",
        "[000]     5.000003: sched-delay: flags=0 cpu_seq=1500 comm=a state=9 wait_us=9",
    ]
