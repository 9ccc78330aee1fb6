"""The compiled loops, beside a plain writer of the same messages: every value at every length of a varint."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import FtraceEvent, FtraceEventBundle

from consumers.export import perfetto_loops as loops

EDGES = sorted(
    {0, 1, -1, *((1 << bits) + more for bits in range(0, 63, 7) for more in (-1, 0)), (1 << 63) - 1, -(1 << 63)}
)
# sched_switch: prev_comm 1, prev_state 4; sys_enter: id 1, args 2.
SWITCH, ENTER = 4, 329


def plan(event, sorts, prefixes, head=b"", wrapped=False):
    ends = np.cumsum([0, *map(len, prefixes)], dtype=np.int64)
    joined = np.frombuffer(b"".join(prefixes) + head, np.uint8)
    key = np.array([event << 3 | 2, ends[-1], len(joined)], np.int64)
    return np.array(sorts), np.full(len(sorts), int(wrapped)), ends, joined, key


def encode(ts, pids, flags, plan_, columns):
    rows = len(ts)
    lengths = columns[1]
    size = rows * 200 + len(columns[3]) + int(lengths.sum()) * 60
    out, starts = np.full(size, 0xAA, np.uint8), np.empty(rows, np.int64)
    total = loops.encode(*(np.array(each, np.int64) for each in (ts, pids, flags)), plan_, columns, out, starts)
    assert (out[total:] == 0xAA).all()
    return out[:total].tobytes(), starts


def table(*rows):
    return np.array(rows, np.int64)


NO_OCTETS, NO_NUMBERS = np.zeros(0, np.uint8), np.zeros(0, np.int64)


def test_numbers_of_every_length_are_what_protobuf_reads():
    rows = len(EDGES)
    values = table(EDGES)
    columns = values, np.zeros((1, rows), np.int64), np.ones((1, rows), np.uint8), NO_OCTETS, NO_NUMBERS
    flags = [-1 if i % 2 else 200 for i in range(rows)]
    data, starts = encode(
        [each % (1 << 63) for each in EDGES],
        [each & 0xFFFFFFFF for each in EDGES],
        flags,
        plan(SWITCH, [loops.NUMBER], [b"\x20"]),
        columns,
    )
    events = FtraceEventBundle.FromString(data).event
    assert [event.sched_switch.prev_state for event in events] == EDGES
    assert [event.timestamp for event in events] == [each % (1 << 63) for each in EDGES]
    assert [event.pid for event in events] == [each & 0xFFFFFFFF for each in EDGES]
    assert [event.common_flags if event.HasField("common_flags") else -1 for event in events] == flags
    again = FtraceEventBundle()
    for event in events:
        again.event.append(event)
    # Not byte for byte: the flags are behind the event. But as short.
    assert len(again.SerializeToString()) == len(data)
    assert [data[at] for at in starts] == [0x12] * rows


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384])
def test_texts_of_every_length_are_there(length):
    octets = np.frombuffer(b"x" + b"a" * length + b"y", np.uint8)
    columns = table([1]), table([length]), np.ones((1, 1), np.uint8), octets, NO_NUMBERS
    data, _ = encode([5], [1], [0], plan(SWITCH, [loops.SLICE], [b"\x0a"]), columns)
    assert FtraceEventBundle.FromString(data).event[0].sched_switch.prev_comm == "a" * length


def test_lists_are_written_one_by_one_and_what_is_missing_not_at_all():
    numbers = np.array(EDGES, np.int64)
    columns = table([0, 2, 7, 7]), table([2, 5, 0, 9]), np.array([[1, 1, 1, 0]], np.uint8), NO_OCTETS, numbers
    data, _ = encode([1] * 4, [1] * 4, [0] * 4, plan(ENTER, [loops.NUMBERS], [b"\x10"]), columns)
    found = [list(event.sys_enter.args) for event in FtraceEventBundle.FromString(data).event]
    assert found == [[each % (1 << 64) for each in EDGES[first:end]] for first, end in ((0, 2), (2, 7), (7, 7), (0, 0))]


def test_wrapped_values_are_fields_of_a_generic_event():
    head, name = b"\x0a\x04tick", b"\x0a\x01v"
    columns = (
        table([5, -1], [0, 3]),
        table([0, 0], [3, 0]),
        np.array([[1, 1], [1, 0]], np.uint8),
        np.frombuffer(b"abc", np.uint8),
        NO_NUMBERS,
    )
    made = plan(327, [loops.NUMBER, loops.SLICE], [name + b"\x20", name + b"\x1a"], head, wrapped=True)
    events = FtraceEventBundle.FromString(encode([1, 2], [1, 1], [0, 0], made, columns)[0]).event
    assert [event.generic.event_name for event in events] == ["tick"] * 2
    assert [[(field.name, field.int_value, field.str_value) for field in event.generic.field] for event in events] == [
        [("v", 5, ""), ("v", 0, "abc")],
        [("v", -1, "")],
    ]


def test_slices_are_gathered_in_the_order_asked_for():
    rng = random.Random(3)
    octets = np.frombuffer(rng.randbytes(1000), np.uint8)
    starts = np.array([rng.randrange(900) for _ in range(50)])
    lengths = np.array([rng.randrange(100) for _ in range(50)])
    order = np.array([rng.randrange(50) for _ in range(80)])
    out = np.empty(int(lengths[order].sum()), np.uint8)
    loops.gather(octets, starts, lengths, order, out)
    assert out.tobytes() == b"".join(octets[starts[i] : starts[i] + lengths[i]].tobytes() for i in order)


def test_an_event_without_fields_is_one():
    columns = np.zeros((0, 1), np.int64), np.zeros((0, 1), np.int64), np.zeros((0, 1), np.uint8), NO_OCTETS, NO_NUMBERS
    data, _ = encode([1], [0], [-1], plan(SWITCH, np.zeros(0, np.int64), []), columns)
    assert FtraceEventBundle.FromString(data).event[0] == FtraceEvent(timestamp=1, pid=0, sched_switch={})


def test_nothing_is_read_or_written_outside_an_array(tmp_path):
    bounds = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    tests = [Path(__file__).with_name(name) for name in ("test_perfetto.py", "test_perfetto_loops.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *tests,
        "-k",
        "every_event or length or lists or wrapped or gathered or without_fields",
    ]
    done = subprocess.run(command, env={**os.environ, **bounds}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.startswith("." * 12)
