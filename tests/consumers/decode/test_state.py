import pyarrow as pa
import pytest

from consumers.decode.base import FrameIn
from consumers.decode.state import State, table
from consumers.lake.tables import WORD
from consumers.transport.base import Partition
from schemas import state
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.state import Record
from schemas.stream import Stream

STREAM = Stream("m", "b" * 32, "host", "weather", "", "mono")
WEATHER = table(
    "weather", degrees=pa.int32(), place=WORD, hours=pa.map_(pa.string(), pa.int64()), tags=pa.list_(pa.int64())
)
STATE = State(WEATHER, table("wind", knots=pa.float64()))


def frame_of(records, first=5, **changes):
    count = len(records)
    values = {"stream": STREAM, "run": "r", "number": 4, "first": first, "next": first + count, "count": count}
    return Frame(**(values | {"encoding": "weather", "encoding_version": 1, "body": state.pack(records)} | changes))


def decoded(*frames):
    return STATE.decode_many([FrameIn(frame, 99, Partition("hypocenter.state", 0), 6) for frame in frames], {})


def test_records_are_rows_of_the_tables_that_their_kinds_name():
    found = decoded(
        frame_of(
            [
                Record("weather", 10, {"degrees": -3, "place": "Oslo", "hours": {"sun": 2}, "tags": [1, 2]}),
                Record("wind", 11, {"knots": 4.5}),
                Record("weather", 12, {}),
            ]
        )
    )
    assert found.bad == []
    assert found.rows == {STREAM: 3}
    front = {**STREAM._asdict(), "arrival_ns": 99, "other": None}
    assert found.tables["weather"].schema == WEATHER.schema
    assert found.tables["weather"].to_pylist() == [
        front | {"position": 5, "ts_ns": 10, "degrees": -3, "place": "Oslo", "hours": [("sun", 2)], "tags": [1, 2]},
        front | {"position": 7, "ts_ns": 12, "degrees": None, "place": None, "hours": None, "tags": None},
    ]
    assert found.tables["wind"].to_pylist() == [front | {"position": 6, "ts_ns": 11, "knots": 4.5}]


def test_what_no_column_takes_is_kept_beside_the_columns():
    fields = {"degrees": 1 << 40, "colour": "grey", "place": b"\xff", "position": 1, "tags": {"a": 1}}
    (row,) = decoded(frame_of([Record("weather", 10, fields)])).tables["weather"].to_pylist()
    assert row["degrees"] is None
    assert row["position"] == 5
    assert (
        row["other"] == '{"degrees": 1099511627776, "colour": "grey", "place": "ff", "position": 1, "tags": {"a": 1}}'
    )


def test_a_kind_without_a_table_is_one_bad_record():
    found = decoded(frame_of([Record("wind", 1, {}), Record("tide", 2, {"m": 1})]))
    (bad,) = found.bad
    assert (bad.position, bad.reason, bad.positions) == (6, "kind", 1)
    assert state.unpack(bad.data) == [Record("tide", 2, {"m": 1})]
    assert found.rows == {STREAM: 1}


@pytest.mark.parametrize("changes", [{"count": 1}, {"next": 9}, {"body": b"\xc1"}])
def test_a_frame_whose_body_is_another_is_bad_as_a_whole(changes):
    frame = frame_of([Record("wind", 1, {}), Record("wind", 2, {})], **changes)
    with pytest.raises(BadInputError):
        STATE.check(frame)
    (bad,) = decoded(frame).bad
    assert bad.positions == frame.next - frame.first


def test_frames_are_cut_by_position():
    frame = frame_of([Record("wind", i, {}) for i in range(4)])
    assert [record.ts_ns for record in state.unpack(STATE.head(frame, 7).body)] == [0, 1]
    trimmed = STATE.trim(frame, 8)
    assert (trimmed.first, trimmed.next, trimmed.count) == (8, 9, 1)
    assert STATE.trim(frame, 3) is frame


def test_lines_are_by_time_and_cannot_move_a_cursor():
    found = decoded(frame_of([Record("wind", 2_000_000, {"knots": 1.0}), Record("weather", 1, {"place": "a\x1bb"})]))
    assert list(STATE.text_lines(found)) == ["0.000000 weather: place=a?b", "0.002000 wind: knots=1.0"]
