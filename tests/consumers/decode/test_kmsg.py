import os
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.decode import kmsg as decoder
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.stream import Stream
from tests.consumers.decode import reference

STREAM = Stream("m", "b" * 32, "host", "kmsg", "", "printk")
PARTITION = Partition("hypocenter.log", 3)
OWN = [name for name in decoder.SCHEMA.names if name not in (*Stream._fields, "captured_ns", "arrival_ns")]
SAMPLES = [
    b"6,7,12345678,-;usb 1-1: new device\n SUBSYSTEM=usb\n DEVICE=c189:0\n",
    b"4,8,123456789012,-,caller=T1;plain text, with commas; and more\n",
    b"30,9,99,c,caller=C3,new=1,other;\\xc3\\xa4\\x0asecond \\x5c line\n A\\x3d=b\\x09\n",
    b"0,10,0,+;\n",
    b"262143,11,9223372036854775,-;no newline \\x4",
    b"6,12,5,-;\\q \\xff\x00\xc3\x28\n",
    b"6,1234567890123456789,5,-;long\n",
    b"14,579140,5442798860,-;record of about ninety-five bytes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 12345\n",
]


def frame_of(records: list[bytes], first: int, **changes) -> Frame:
    values = {"stream": STREAM, "run": "r", "number": 1, "first": first, "next": first + len(records)}
    values |= {"count": len(records), "encoding": "kmsg", "encoding_version": 1, "body": kmsg.pack(records)}
    return Frame(**(values | {"realtime_ns": 77} | changes))


def agree(frames: list[tuple[int, list[bytes]]]) -> None:
    decoded = decoder.decode_many(
        [FrameIn(frame_of(records, first), 1000 + i, PARTITION, i) for i, (first, records) in enumerate(frames)]
    )
    table = decoded.tables["kmsg"]
    table.validate(full=True)
    rows, bad = [], []
    for i, (first, records) in enumerate(frames):
        for position, record in enumerate(records, first):
            row = reference.parse(record, position)
            if isinstance(row, str):
                bad.append((position, row, record, i, 1000 + i, 1))
            else:
                rows.append(row)
    assert table.select(OWN).to_pylist() == rows
    assert [(b.position, b.reason, b.data, b.offset, b.arrival_ns, b.positions) for b in decoded.bad] == bad


def seq_of(record: bytes) -> int:
    try:
        return kmsg.header_seq(record)
    except BadInputError:
        return 0


def mutate(rng: random.Random, record: bytes) -> bytes:
    data = bytearray(record)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, min(len(data), 60) if rng.random() < 0.6 else len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at:at] = rng.choice(
                [
                    b",",
                    b";",
                    b"\n",
                    b"\\x",
                    b"\\x41",
                    b"caller=",
                    b",caller=T9",
                    b"1",
                    b"\xe4",
                    b" ",
                    b"\n X=",
                    b"=",
                    b"\x00",
                ]
            )
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at : at + 1] = bytes([rng.randrange(256)])
        else:
            del data[rng.randint(0, len(data)) :]
    return bytes(data)


def test_samples_are_what_the_reference_says():
    agree([(seq_of(record), [record]) for record in SAMPLES])


def test_a_row_in_full():
    decoded = decoder.decode_many([FrameIn(frame_of([SAMPLES[0]], 7), 99, PARTITION, 5)])
    assert decoded.tables["kmsg"].schema == decoder.SCHEMA
    assert decoded.tables["kmsg"].to_pylist() == [
        {
            **STREAM._asdict(),
            "seq": 7,
            "ts_ns": 12345678000,
            "facility": 0,
            "level": 6,
            "flags": "-",
            "caller": None,
            "message": "usb 1-1: new device",
            "fields": [("SUBSYSTEM", "usb"), ("DEVICE", "c189:0")],
            "extra": None,
            "message_raw": None,
            "captured_ns": 77,
            "arrival_ns": 99,
        }
    ]


def test_nothing_gives_an_empty_table():
    assert decoder.decode_many([]).tables["kmsg"].schema == decoder.SCHEMA
    agree([(5, []), (7, [])])


def test_bad_records_leave_their_neighbours():
    agree([(7, [SAMPLES[0], b"garbage\n", b"6,99,5,-;other number\n", b"6,10,5,-;good\n", b""])])


def test_a_record_sees_nothing_of_the_next_one():
    agree(
        [
            (
                1,
                [
                    b"6,1,2",
                    b",-;x\n",
                    b"6,3,1,-",
                    b";6,4,1,-;\n",
                    b"6,5,1,-;\\x4",
                    b"1,6,1,-;\n",
                    b"6,7,1,-;\\",
                    b"x41,8",
                ],
            )
        ]
    )


def test_mutated_records():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    mutated = [mutate(rng, rng.choice(SAMPLES)) for _ in range(100_000)]
    # Each in its own frame half of the time, so that a mutated number is no mismatch; else after a good neighbour.
    for start in range(0, len(mutated), 5000):
        agree([(min(seq_of(record), (1 << 63) - 2), [record]) for record in mutated[start : start + 2500]])
        agree([(7, mutated[start + 2500 : start + 5000])])


@given(st.lists(st.binary(max_size=80), max_size=8), st.integers(0, 50))
def test_any_bytes(records, first):
    agree([(first, records)])


@given(
    st.lists(st.tuples(st.integers(0, 99), st.text(max_size=30), st.sampled_from(["-", "c", "+", "zz"])), max_size=20)
)
def test_well_formed_texts_come_back(rows):
    def escape(text: str) -> bytes:
        return b"".join(bytes([c]) if 0x20 <= c < 0x7F and c != 0x5C else b"\\x%02x" % c for c in text.encode())

    records = [b"%d,%d,%d,%s;%s\n" % (p, i, p, f.encode(), escape(t)) for i, (p, t, f) in enumerate(rows)]
    table = decoder.decode_many([FrameIn(frame_of(records, 0), 0, PARTITION, 0)]).tables["kmsg"]
    assert table["message"].to_pylist() == [text for _, text, _ in rows]
    assert table["message_raw"].null_count == len(rows)
    agree([(0, records)])


def test_several_streams_keep_their_order_and_tags():
    other = STREAM._replace(machine="n", layer="guest-kernel")
    frames = [frame_of([b"6,1,1,-;a\n"], 1), frame_of([b"6,5,1,-;b\n"], 5, stream=other), frame_of([b"6,2,1,-;c\n"], 2)]
    table = decoder.decode_many([FrameIn(frame, i, PARTITION, i) for i, frame in enumerate(frames)]).tables["kmsg"]
    assert table.select(["machine", "layer", "message"]).to_pydict() == {
        "machine": ["m", "n", "m"],
        "layer": ["host", "guest-kernel", "host"],
        "message": ["a", "b", "c"],
    }


def test_many_groups_share_one_dictionary():
    record = b"6,%d,1,-;" + b"x" * 8000 + b"\n"
    frames = [frame_of([record % (i * 100 + k) for k in range(100)], i * 100) for i in range(12)]
    table = decoder.decode_many([FrameIn(frame, 0, PARTITION, 0) for frame in frames]).tables["kmsg"]
    assert table["machine"].num_chunks > 1
    assert table["seq"].to_pylist() == list(range(1200))
    assert {chunk.dictionary.to_pylist()[0] for chunk in table["machine"].chunks} == {"m"}


def test_head_and_trim_cut_between_records():
    frame = frame_of([b"6,%d,1,-;%d\n" % (i, i) for i in range(5, 9)], 5)
    head, tail = decoder.head(frame, 7), decoder.trim(frame, 7)
    assert (head.first, head.next, head.count, tail.first, tail.next, tail.count) == (5, 7, 2, 7, 9, 2)
    table = decoder.decode_many([FrameIn(part, 0, PARTITION, 0) for part in (head, tail)]).tables["kmsg"]
    assert table["message"].to_pylist() == ["5", "6", "7", "8"]


@pytest.mark.parametrize("changes", [{"count": 2}, {"next": 9}, {"body": b"\x01"}])
def test_a_body_that_is_not_the_frames_is_one_bad_record(changes):
    frame = frame_of([b"6,7,1,-;x\n"], 7, **changes)
    with pytest.raises(BadInputError) as caught:
        decoder.check(frame)
    assert caught.value.reason == "body"
    decoded = decoder.decode_many([FrameIn(frame, 4, PARTITION, 6)])
    assert decoded.tables["kmsg"].num_rows == 0
    assert [(b.position, b.positions, b.reason, b.offset) for b in decoded.bad] == [(7, frame.next - 7, "body", 6)]


@pytest.mark.kernel
def test_the_live_kernel_log():
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as e:
        pytest.skip(f"/dev/kmsg: {e.strerror}")
    records = []
    try:
        while True:
            records.append(os.read(fd, 8192))
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    agree([(seq_of(record), [record]) for record in records])
    agree([(seq_of(records[0]), records)] if records else [])


def test_types_are_the_declared_ones():
    assert decoder.SCHEMA.field("machine").type == pa.dictionary(pa.int32(), pa.string())
    assert set(decoder.SPEC.dictionary_columns) | set(decoder.SPEC.delta_columns) <= set(decoder.SCHEMA.names)
