"""Records of procfs: each text a row, and each known line of it."""

from consumers.decode import procfs
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import state
from schemas.frame import Frame
from schemas.state import Record
from schemas.stream import Stream

STREAM = Stream("m", "b" * 32, "guest-kernel", "procfs", "", "boot")


def decoded(*records):
    body = state.pack(list(records))
    frame = Frame(STREAM, "r", 4, 5, 5 + len(records), len(records), "procfs", 1, body)
    return procfs.decode_many([FrameIn(frame, 99, Partition("hypocenter.state", 0), 6)], {})


def text(path, content):
    return Record("procfs_text", 10, {"path": path, "text": content, "truncated": False})


def test_a_text_is_a_row_and_its_lines_are_rows_at_its_position():
    found = decoded(
        text("/proc/interrupts", "..."),
        text("/proc/stat", "cpu 1 2\ncpu0 1 2\n"),
        Record("procfs_hangs", 11, {"oopses": 3}),
    )
    assert {name: table.num_rows for name, table in found.tables.items()} == {
        "procfs_text": 2,
        "procfs_cpu": 2,
        "procfs_hangs": 1,
    }
    assert found.rows == {STREAM: 5}
    rows = found.tables["procfs_cpu"].to_pylist()
    assert [(row["position"], row["ts_ns"], row["cpu"], row["nice_ns"]) for row in rows] == [
        (6, 10, None, 20_000_000),
        (6, 10, 0, 20_000_000),
    ]
    assert rows[0].items() >= (STREAM._asdict() | {"arrival_ns": 99, "steal_ns": None, "other": None}).items()
    assert found.tables["procfs_hangs"].to_pylist()[0]["oopses"] == 3


def test_a_text_that_is_none_is_kept_and_read_no_further():
    found = decoded(Record("procfs_text", 1, {"path": 7, "text": b"\xff"}), text("/proc/stat", "cpu x\n"))
    assert set(found.tables) == {"procfs_text"}
    assert found.tables["procfs_text"].to_pylist()[0]["other"] == '{"path": 7, "text": "ff"}'
    assert found.rows == {STREAM: 2}


def test_a_record_cannot_name_a_table_that_only_texts_fill():
    (bad,) = decoded(Record("procfs_cpu", 1, {"cpu": 1})).bad
    assert bad.reason == "kind"
