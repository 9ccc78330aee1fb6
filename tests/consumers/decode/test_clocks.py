from consumers.decode import clocks
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas.frame import decode
from schemas.stream import Stream
from tests.consumers import _sample_clocks


def test_readings_and_pings_are_rows_with_nothing_left_over():
    stream = Stream("m", "b" * 32, "guest-kernel", "kmsg", "", "printk")
    (frame,) = map(decode, _sample_clocks.frames(stream, 10**18))
    found = clocks.decode_many([FrameIn(frame, 1, Partition("hypocenter.state", 0), 0)], {})
    assert found.bad == []
    assert {name: table.num_rows for name, table in found.tables.items()} == {"clock_readings": 7, "clock_pings": 21}
    for table in found.tables.values():
        assert table["other"].null_count == table.num_rows
        assert [name for name in table.column_names if table[name].null_count == table.num_rows] in (
            ["tsc", "other"],
            ["other"],
        )
