import pytest

from consumers.decode import heartbeat as decoder
from consumers.decode import kmsg, registry
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import heartbeat
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, SURFACES

STREAM = Stream("m", "b" * 32, "host", "kmsg", "", "printk")
PARTITION = Partition("hypocenter.log", 3)
BEAT = heartbeat.Heartbeat(10, 20, 5, 21, 22, 23, 2, {"records": 8, "epipe": 0})


def frame_of(body: bytes, **changes) -> Frame:
    values = {"stream": STREAM, "run": "r", "number": 4, "first": 9, "next": 9, "count": 0}
    return Frame(**(values | {"encoding": "heartbeat", "encoding_version": 1, "body": body} | changes))


def test_a_heartbeat_is_one_row_of_coverage():
    decoded = decoder.decode_many([FrameIn(frame_of(heartbeat.pack(BEAT)), 99, PARTITION, 6)])
    assert decoded.bad == []
    assert decoded.tables["coverage"].schema == decoder.SPEC.schema
    assert decoded.tables["coverage"].to_pylist() == [
        {
            **STREAM._asdict(),
            "run": "r",
            "number": 4,
            "since_realtime_ns": 10,
            "until_realtime_ns": 20,
            "first_position": 5,
            "next_position": 9,
            "realtime_ns": 21,
            "monotonic_ns": 22,
            "boottime_ns": 23,
            "bracket_ns": 2,
            "counters": [("records", 8), ("epipe", 0)],
            "arrival_ns": 99,
            "topic": "hypocenter.log",
            "partition": 3,
            "offset": 6,
        }
    ]


def test_an_empty_body_is_no_row():
    decoded = decoder.decode_many([FrameIn(frame_of(b""), 99, PARTITION, 6)])
    assert decoded.tables["coverage"].num_rows == 0
    assert decoded.bad == []


@pytest.mark.parametrize("changes", [{"body": b"\x01"}, {"next": 12}, {"count": 1}])
def test_what_is_no_heartbeat_is_one_bad_record(changes):
    frame = frame_of(**({"body": heartbeat.pack(BEAT)} | changes))
    with pytest.raises(BadInputError):
        decoder.check(frame)
    good = FrameIn(frame_of(heartbeat.pack(BEAT)), 1, PARTITION, 7)
    decoded = decoder.decode_many([FrameIn(frame, 99, PARTITION, 6), good])
    assert decoded.tables["coverage"].num_rows == 1
    assert [(b.reason, b.position, b.positions, b.offset) for b in decoded.bad] == [("body", 9, frame.next - 9, 6)]


def test_nothing_of_a_heartbeat_can_be_cut_off():
    frame = frame_of(heartbeat.pack(BEAT))
    assert decoder.head(frame, 3) == decoder.trim(frame, 30) == frame


def test_every_surface_has_its_decoder():
    for row in SURFACES.values():
        found = registry.decoder_for(row.encoding, row.encoding_version)
        assert found.__name__.endswith(f".{row.name.replace('-', '_')}")
        # What programs there are, only their records say.
        assert found.TABLES or found.owns(f"{row.name}_x")
    assert registry.decoder_for(HEARTBEAT_ENCODING, HEARTBEAT_VERSION) is decoder
    assert registry.decoder_for("kmsg", 1) is kmsg
    assert {spec.name for spec in registry.tables()} >= {"kmsg", "coverage"}


@pytest.mark.parametrize(
    ("encoding", "version"), [("kmsg", 2), ("kmsg", 0), ("base", 1), ("", 1), ("../x", 1), ("os", 1)]
)
def test_no_other_encoding_is_known(encoding, version):
    with pytest.raises(BadInputError) as caught:
        registry.decoder_for(encoding, version)
    assert caught.value.reason == "encoding"
