from producers.state_source import StateSource
from schemas import limits, state
from schemas.state import Record
from schemas.stream import Stream

STREAM = Stream("m", "b" * 32, "host", "weather", "", "mono")


def source_of(*samples, **options):
    given = iter(samples)
    return StateSource(STREAM, 7, lambda: next(given, []), interval_s=1.0, **options)


def test_samples_become_records_numbered_over_runs():
    source = source_of([Record("wind", 1, {"knots": 2})], [Record("wind", 2, {}), Record("wind", 3, {})])
    assert source.cut() == []
    source.drain()
    source.drain()
    assert source.pending_bytes() > 0
    (batch,) = source.cut()
    assert (batch.first, batch.next, batch.count, batch.ts_first_ns, batch.ts_last_ns) == (7, 10, 3, 1, 3)
    assert [record.ts_ns for record in state.unpack(batch.body)] == [1, 2, 3]
    assert (source.next_position(), source.pending_bytes(), source.counters()) == (10, 0, {"records": 3, "refused": 0})
    assert (source.encoding, source.encoding_version) == ("weather", 1)


def test_records_that_no_body_holds_are_counted_and_others_are_split():
    big = [Record("text", i, {"text": "x" * 200_000}) for i in range(8)]
    source = source_of([Record("text", 0, {"text": "x" * limits.BODY_BYTES_MAX}), *big])
    source.drain()
    batches = source.cut()
    assert sum(batch.count for batch in batches) == 8
    assert len(batches) > 1
    assert all(len(batch.body) <= limits.BODY_BYTES_MAX for batch in batches)
    assert [batch.first for batch in batches[1:]] == [batch.next for batch in batches[:-1]]
    assert source.counters()["refused"] == 1


def test_the_last_sample_is_taken_at_the_stop_and_what_it_needs_is_released_once():
    closed = []
    source = source_of([Record("wind", 1, {})], [Record("wind", 2, {})], on_close=lambda: closed.append(1))
    source.stop()
    source.drain()
    source.close()
    source.close()
    assert source.cut()[0].count == 1
    assert closed == [1]
