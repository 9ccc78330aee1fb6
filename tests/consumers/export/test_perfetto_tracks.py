import contextlib
import os
import re
import time

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from consumers.export import perfetto, perfetto_tracks, scope
from consumers.export.perfetto_tracks import Loss
from consumers.views import connect
from schemas import kmsg
from schemas.frame import Frame
from schemas.surfaces import TOPIC_LOG
from tests.consumers import _pages
from tests.consumers.decode.ftrace_kernel import instance
from tests.consumers.export import _trace
from tests.consumers.export._lake import beat, build

KMSG = _pages.SET._replace(surface="kmsg", instance="", clock="printk")
REAL = 10**18
T = _pages.T


def lake(path, clock="mono", beats=(), captured=REAL):
    """Events at T + 1, T + 5001 and T + 10001; records of printk's times T - 1000, T + 1000, T + 5000 and T + 20000."""
    streams = [each._replace(clock=clock) for each in (_pages.SET, _pages.CPU)]
    body = _pages.formats(clock=clock)
    pages = [_pages.FORM.page(T + at, _pages.tick(1)) for at in (0, 5000, 10_000)]
    frames = [_pages.described(body=body, stream=streams[0]), _pages.paged(0, pages, stream=streams[1], body=body)]
    frames += [each._replace(stream=streams[1]) if clock != "mono" else each for each in beats]
    storage = build(path, frames)
    records = [f"{pri},{seq},{(T + at) // 1000},-{extra};{text}\n".encode() for seq, (at, pri, extra, text) in enumerate([
        (-1000, 6, "", "before"), (1000, 3, ",caller=T7", "an error\\x0aof two lines"), (5000, 6, "", "\\xff\\x1b[31m"), (20_000, 6, "", "after")])]  # fmt: skip
    where = KMSG, "r", 0, 0, 4, 4
    build(path, [Frame(*where, "kmsg", 1, kmsg.pack(records), [], realtime_ns=captured)], TOPIC_LOG)
    return storage


def exported(storage, path):
    with connect(storage) as connection:
        report = perfetto.write(connection, scope.find(connection, scope.Choice()), path)
    return _trace.read(path), report


def records(trace):
    return [mark for mark in _trace.marks(trace) if mark[0].startswith("Kernel log")]


@pytest.mark.parametrize("clock", ["global", "perf"])
def test_with_printks_own_clock_records_stand_at_their_own_time(tmp_path, clock):
    trace, report = exported(lake(tmp_path / "lake", clock), tmp_path / "out")
    found = records(trace)
    assert [(track, at, name) for track, at, _, name, _ in found] == [
        ("Kernel log", T + 1000, "an error\nof two lines"),
        ("Kernel log", T + 5000, "\ufffd\x1b[31m"),
    ]
    assert found[0][-1] == {"seq": 1, "level": 3, "facility": 0, "printk_ns": T + 1000, "caller": "T7"}
    assert {kind for _, _, kind, *_ in found} == {proto.TrackEvent.TYPE_INSTANT}
    assert report.records == 2
    assert not any("printk" in note for note in report.notes)


def test_with_mono_records_stand_where_they_were_read(tmp_path):
    beats = [beat(_pages.CPU, 2, 1, T, T, REAL)]
    trace, report = exported(lake(tmp_path / "lake", beats=beats, captured=REAL + 7000), tmp_path / "out")
    found = records(trace)
    assert {(track, at) for track, at, *_ in found} == {("Kernel log, when the agent had read it", T + 7000)}
    assert [mark[-1]["printk_ns"] for mark in found] == [T - 1000, T + 1000, T + 5000, T + 20_000]
    assert any("records stand where the agent had read them" in note for note in report.notes)
    assert {packet.timestamp_clock_id for packet in trace.packet if packet.HasField("track_event")} == {3}


def test_what_was_read_at_another_time_is_not_of_the_trace(tmp_path):
    beats = [beat(_pages.CPU, 2, 1, T, T, REAL)]
    trace, report = exported(lake(tmp_path / "lake", beats=beats, captured=REAL + 10_002), tmp_path / "out")
    assert (records(trace), report.records, report.notes) == ([], 0, [])


@pytest.mark.parametrize("clock", ["local", "mono_raw", "mono"])
def test_where_no_time_compares_the_records_are_left_out_and_that_is_said(tmp_path, clock):
    trace, report = exported(lake(tmp_path / "lake", clock), tmp_path / "out")
    assert (records(trace), report.records) == ([], 0)
    said = f"the 4 kernel log records of this boot are left out: printk's clock does not compare with {clock}"
    assert said in report.notes


def test_no_more_records_than_a_file_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(perfetto_tracks, "RECORDS_MAX", 1)
    trace, report = exported(lake(tmp_path / "lake", "global"), tmp_path / "out")
    assert len(records(trace)) == report.records == 1
    assert "1 kernel log records are left out: a file takes 1" in report.notes


@pytest.mark.parametrize(
    ("kind", "count", "unit", "title"),
    [
        ("overwrite", 1, "event", "1 event lost"),
        ("overwrite", 1_906_895, "event", "1,906,895 events lost"),
        ("overwrite", None, "event", "unknown number of events lost"),
        ("drop", 2, "position", "2 pages lost"),
        ("reset", 0, "position", "reset"),
    ],
)
def test_a_loss_is_called_by_what_it_took(kind, count, unit, title):
    assert Loss(0, kind, 0, count, unit, "r", "agent").title == title


@pytest.mark.kernel
@pytest.mark.parametrize("clock", sorted(perfetto_tracks._PRINTK))
def test_the_kernel_stamps_its_log_and_these_traces_by_one_clock(clock):
    with instance([], clock=clock) as path:
        marker = os.open(path / "trace_marker", os.O_WRONLY)
        log = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        try:
            os.lseek(log, 0, os.SEEK_END)
            text = f"between two marks {time.monotonic_ns()}"
            os.write(marker, b"before\n")
            os.write(log, f"<14>{text}\n".encode())
            os.write(marker, b"after\n")
            found = None
            while found is None:
                # Others may overwrite the ring meanwhile.
                with contextlib.suppress(BrokenPipeError):
                    record = os.read(log, 8192)
                    found = int(record.split(b",")[2]) if text.encode() in record else None
        finally:
            os.close(marker)
            os.close(log)
        before, after = (
            float(at) * 1e6 for at in re.findall(r" (\d+\.\d+): tracing_mark_write", (path / "trace").read_text())
        )
    # Both are cut to microseconds.
    assert before - 1 <= found <= after + 1
