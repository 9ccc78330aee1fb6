"""Frames of BPF records to tables: the form of a frame, cuts at every position, and what stands in for a decode that fails."""

import dataclasses
import random
from collections import Counter

import pyarrow as pa
import pytest

from consumers.decode import bpf, bpf_types
from consumers.decode.base import FrameIn
from consumers.decode.registry import spec_of
from consumers.transport.base import Partition
from schemas import bpf as wire
from schemas.errors import BadInputError
from schemas.frame import decode as golden
from tests.consumers import _records
from tests.consumers._records import RING, TYPES, Gone, delay, recorded, ring, types
from tests.consumers.decode.bpf_structs import Struct
from tests.schemas.golden import vectors

KNOWN = {wire.descriptor(TYPES): TYPES}


def item(frame, offset=3):
    return FrameIn(frame, 900 + offset, Partition("t", 0), offset)


def decode(*frames, bodies=(TYPES,)):
    found = bpf.decode_many(
        [item(each, i) for i, each in enumerate(frames)], {wire.descriptor(each): each for each in bodies}
    )
    for table in found.tables.values():
        table.validate(full=True)
    return found


def test_a_frame_becomes_rows_with_its_streams_tags():
    found = decode(recorded(10, [delay(0, b"a"), Gone(b"x" * 9), delay(1, b"\xffb", state=7)]))
    rows = found.tables["bpf_sched_delay"].to_pylist()
    front = {**RING._asdict(), "arrival_ns": 900}
    first = {
        "position": 10, "ring_position": 4096, "ts_ns": _records.T, "cpu": 0, "flags": 0, "cpu_seq": 0, "comm": "a",
        "state": 1, "state_name": "SLEEPS", "wait_us": 9, "surplus": None,
    }  # fmt: skip
    second = first | {"position": 11, "ring_position": 4096 + 56 + 24, "ts_ns": _records.T + 1, "cpu": 1, "comm": "\ufffdb", "state": 7, "state_name": None}  # fmt: skip
    assert rows == [front | first, front | second]
    assert (found.bad, found.rows) == ([], {RING: 2})
    names = found.tables["bpf_sched_delay"].column_names
    assert names[:10] == [*RING._fields, "position", "ring_position", "ts_ns", "arrival_ns"]


def test_frames_of_several_streams_are_rows_in_the_order_of_stream_and_position():
    other = RING._replace(machine="a")
    found = decode(recorded(5, [delay(5)]), recorded(0, [delay(0), delay(1)]), recorded(3, [delay(3)], stream=other))
    table = found.tables["bpf_sched_delay"]
    assert list(zip(table["machine"].to_pylist(), table["position"].to_pylist(), strict=True)) == [("a", 3), ("m", 0), ("m", 1), ("m", 5)]  # fmt: skip
    assert table["arrival_ns"].to_pylist() == [902, 901, 901, 900]
    assert found.rows == {RING: 3, other: 1}


@pytest.mark.parametrize(
    ("instance", "table"), [("irq-off", "bpf_irq_off"), ("pinned/My.ring é", "bpf_pinned_my_ring__")]
)
def test_a_table_has_the_name_of_its_program(instance, table):
    body = types(program=instance)
    found = decode(recorded(0, [delay(0)], stream=RING._replace(instance=instance), body=body), bodies=[body])
    assert list(found.tables) == [table]
    assert bpf.owns(table)


def test_samples_of_counts_are_no_records_of_a_program():
    assert not bpf.owns("bpf_counts")
    assert not bpf.owns("bpf_histograms")
    assert spec_of("bpf_counts", None).name == "bpf_counts"


def test_records_without_a_type_are_raw():
    body = types(b"", type_="", program="pinned/x", source="pinned")
    frame = recorded(7, [b"", b"abc", Gone(b"no"), b"12345678"], stream=RING._replace(instance="pinned/x"), body=body)
    found = decode(frame, bodies=[body])
    table = found.tables["bpf_pinned_x"]
    assert table.select(["position", "ring_position", "ts_ns", "data"]).to_pylist() == [
        {"position": 7, "ring_position": 4096, "ts_ns": None, "data": b""},
        {"position": 8, "ring_position": 4104, "ts_ns": None, "data": b"abc"},
        {"position": 9, "ring_position": 4136, "ts_ns": None, "data": b"12345678"},
    ]
    assert (found.bad, found.rows) == ([], {frame.stream: 3})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type_": "other"}, "no struct 'other'"),
        ({"btf": b"no"}, "btf: 2 bytes"),
        ({"btf": _records.sched_delay(big=True)}, "records are little endian and their types are not"),
    ],
)
def test_a_type_that_cannot_be_read_costs_no_record_and_says_so_once(changes, said):
    body = types(**changes)
    found = decode(recorded(0, [delay(0)], body=body), recorded(1, [delay(1)], 1, body=body), bodies=[body])
    assert found.tables["bpf_sched_delay"]["data"].to_pylist() == [delay(0), delay(1)]
    (bad,) = found.bad
    assert (bad.reason, bad.position, bad.positions, bad.data) == ("type", 0, 0, b"")
    assert said in bad.detail
    assert found.rows == {RING: 2}


def test_a_record_shorter_than_its_struct_is_a_dead_letter_and_a_longer_one_keeps_its_surplus():
    found = decode(recorded(5, [delay(0), delay(1)[:-1], delay(2) + b"more", b""]), recorded(9, [b"x", delay(3)], 1))
    table = found.tables["bpf_sched_delay"]
    assert table.select(["position", "cpu_seq", "surplus"]).to_pylist() == [
        {"position": 5, "cpu_seq": 0, "surplus": None},
        {"position": 7, "cpu_seq": 1, "surplus": b"more"},
        {"position": 10, "cpu_seq": 1, "surplus": None},
    ]
    assert [(each.position, each.positions, each.offset, each.reason, each.data) for each in found.bad] == [
        (6, 1, 0, "record", delay(1)[:-1]), (8, 1, 0, "record", b""), (9, 1, 1, "record", b"x")
    ]  # fmt: skip
    assert found.bad[0].detail == "47 bytes are fewer than its struct has"
    assert found.rows == {RING: 3}


def test_a_frame_of_short_records_alone_gives_no_table():
    found = decode(recorded(0, [b"x"]))
    assert (found.tables, found.rows, len(found.bad)) == ({}, {}, 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("at", range(10, 15))
def test_a_frame_is_cut_at_any_position(at, order):
    body = types(byteorder="big" if order == ">" else "little")
    records = [Gone(b"a"), delay(0, order=order), Gone(b"b" * 20), delay(1, order=order) + b"12345", delay(2, order=order), delay(3, order=order), Gone(b"c")]  # fmt: skip
    whole = recorded(10, records, body=body, order=order)
    head, tail = bpf.head(whole, at), bpf.trim(whole, at)
    assert (head.first, head.next, head.count) == (10, at, at - 10)
    assert (tail.first, tail.next, tail.count) == (at, 14, 14 - at)
    found = []
    for each in (head, tail):
        bpf.check(each)
        found += [table for table in decode(each, bodies=[body]).tables.values() if table.num_rows]
    (want,) = decode(whole, bodies=[body]).tables.values()
    assert pa.concat_tables(found).to_pylist() == want.to_pylist()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"body": b"abc"}, "hold no record count"),
        ({"count": 3}, "2 records in the body, 3 stated"),
        ({"next": 5}, r"2 records in the body, 2 stated, for \[0, 5\)"),
        ({"descriptor": None}, "PROGRAM or pinned/NAME, and a descriptor"),
        ({"stream": RING._replace(instance="")}, "PROGRAM or pinned/NAME"),
        ({"stream": RING._replace(instance="a/types")}, "PROGRAM or pinned/NAME"),
        ({"stream": RING._replace(instance="a" * 129)}, "PROGRAM or pinned/NAME"),
        ({"body": wire.pack(2, 0, ring(b"1", Gone(b"2")))}, "record 1 of 2: there are more or fewer"),
        ({"body": wire.pack(2, 0, ring(b"1", b"2", b"3"))}, "record 2 of 2: there are more or fewer"),
        ({"body": wire.pack(2, 0, ring(b"1", b"2")[:-8])}, "byte 16 of the ring, record 1 of 2: it reaches beyond"),
        ({"body": wire.pack(2, 0, ring(b"1") + b"\1\0\0\x80" + bytes(12))}, "record 1 of 2: it was not committed"),
    ],
)
def test_a_frame_of_another_form_is_refused_and_by_many_it_is_one_bad_record(changes, said):
    bad = dataclasses.replace(recorded(0, [delay(1), delay(2)]), **changes)
    with pytest.raises(BadInputError, match=said):
        bpf.check(bad)
    with pytest.raises(BadInputError, match=said):
        bpf.trim(bad, 1)
    found = decode(bad, recorded(0, [delay(3)], stream=RING._replace(machine="n")))
    assert [(each.reason, each.position, each.positions) for each in found.bad] == [("body", 0, bad.next)]
    assert found.tables["bpf_sched_delay"]["machine"].to_pylist() == ["n"]


@pytest.mark.parametrize(
    ("bodies", "body", "said"),
    [
        ([], TYPES, "nobody has sent the types"),
        ([b"\xc0"], b"\xc0", "body: byte 1"),
        ([types(program="vcpu")], types(program="vcpu"), "records of 'sched-delay' name the types of 'vcpu'"),
    ],
    ids=["absent", "no description", "of another program"],
)
def test_a_frame_that_cannot_be_described_is_one_bad_record_with_all_its_positions(bodies, body, said):
    found = decode(recorded(7, [delay(1), delay(2)], body=body), bodies=bodies)
    (bad,) = found.bad
    assert (bad.reason, bad.position, bad.positions, bad.offset) == ("descriptor", 7, 2, 0)
    assert said in bad.detail
    assert (found.tables, found.rows) == ({}, {})


def test_a_ring_of_the_other_byte_order_than_its_description_says_is_one_bad_record():
    found = decode(recorded(0, [delay(1, order=">")], order=">"))
    assert [(each.reason, each.positions) for each in found.bad] == [("body", 1)]


def test_programs_of_two_versions_share_a_table():
    newer = types(_records.sched_delay(more=1))
    frames = (
        recorded(0, [delay(0)]),
        recorded(0, [delay(1) + b"\5\0\0\0"], stream=RING._replace(machine="n"), body=newer),
    )
    table = decode(*frames, bodies=[TYPES, newer]).tables["bpf_sched_delay"]
    assert {row["machine"]: row["more"] for row in table.to_pylist()} == {"m": None, "n": 5}
    raw = types(b"", type_="")
    mixed = decode(frames[0], recorded(0, [b"abc"], stream=RING._replace(machine="r"), body=raw), bodies=[TYPES, raw])
    assert {row["machine"]: (row["cpu"], row["data"]) for row in mixed.tables["bpf_sched_delay"].to_pylist()} == {
        "m": (0, None), "r": (None, b"abc")
    }  # fmt: skip


def test_a_big_endian_machine():
    body = types(byteorder="big")
    found = decode(recorded(0, [delay(3, b"task", order=">")], body=body, order=">"), bodies=[body])
    (row,) = found.tables["bpf_sched_delay"].to_pylist()
    assert (row["ts_ns"], row["cpu"], row["cpu_seq"], row["comm"], row["state_name"]) == (_records.T + 3, 1, 1, "task", "SLEEPS")  # fmt: skip


def mutated(random_, data, times):
    data = bytearray(data)
    for _ in range(times if data else 0):
        data[random_.randrange(len(data))] = random_.choice((0, 1, 8, 0x40, 0x80, 0xFF))
    return bytes(data)


def test_every_position_is_a_row_or_a_dead_letter_whatever_the_bytes():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_, outcomes = random.Random(seed), Counter()
    for _ in range(2000):
        made = Struct(random_, big=random_.random() < 0.3)
        order = "big" if made.order == ">" else "little"
        body = types(mutated(random_, made.blob(), random_.choice((0, 0, 1))), type_="top", byteorder=order)
        records = [made.some() + bytes(random_.choice((0, 0, 4))) for _ in range(random_.randrange(1, 6))]
        frame = recorded(3, [each[: random_.choice((999, 999, 5))] for each in records], body=body, order=made.order)
        frame = dataclasses.replace(frame, body=mutated(random_, frame.body, random_.choice((0, 0, 1, 2))))
        found = decode(frame, recorded(9, [b""], 1), bodies=[body, TYPES])
        dead = sum(bad.positions for bad in found.bad if bad.position < 9)
        rows = found.rows.get(RING, 0)
        assert rows + dead == len(records)
        assert rows == sum(table.num_rows for table in found.tables.values())
        outcomes += Counter(bad.reason for bad in found.bad if bad.position < 9) + Counter(rows=rows)
    assert set(outcomes) == {"rows", "body", "type", "record"}


def test_the_golden_frames_are_the_rows_that_they_were():
    types_, records = (golden(vectors.stored(name)) for name in ("bpf-types", "bpf"))
    bpf_types.check(types_)
    assert wire.pack_types(wire.unpack_types(types_.body)) == types_.body
    rows = decode(records, bodies=[types_.body]).tables["bpf_sched_delay"].to_pylist()
    own = ("position", "ring_position", "ts_ns", "cpu", "state", "state_name", "cpu_seq", "comm", "pair", "surplus")
    assert [tuple(row[name] for name in own) for row in rows] == [
        (17, 1 << 33, 7_000_000_000, 3, 1, "SLEEPS", 41, "sh", [-1, 2], None),
        (18, (1 << 33) + 48 + 16, 6_999_999_000, 1, 9, None, 0, "b\ufffdd", [0, 0], b"extra"),
    ]


def test_the_layout_of_a_table_names_columns_that_it_has():
    table = decode(recorded(0, [delay(1)])).tables["bpf_sched_delay"]
    spec = bpf.spec("bpf_sched_delay", table.schema)
    assert spec.sort_keys == (*RING._fields, "position")
    assert set(spec.dictionary_columns) == {*RING._fields, "comm", "state", "state_name"}
    assert spec.split_columns == ("cpu", "flags", "cpu_seq", "wait_us")
    assert spec.delta_columns == ("position", "ring_position", "ts_ns", "arrival_ns")
