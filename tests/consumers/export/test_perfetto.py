import errno
import os
import random

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from consumers.export import perfetto, perfetto_clocks, perfetto_tracks, scope
from consumers.views import connect
from schemas.errors import StorageError, UsageError
from schemas.frame import Frame
from schemas.loss import Loss
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION
from tests.consumers import _pages, _sample
from tests.consumers.export import _trace
from tests.consumers.export._lake import beat, build, ring

SWITCH = _pages.event_text(
    "sched_switch", 9, ("char prev_comm[16]", 16, 0), ("pid_t prev_pid", 4, 1), ("int prev_prio", 4, 1), ("long prev_state", 8, 1),
    ("char next_comm[16]", 16, 0), ("pid_t next_pid", 4, 1), ("int next_prio", 4, 1),
)  # fmt: skip
WAKING = _pages.event_text(
    "sched_waking", 10, ("char comm[16]", 16, 0), ("pid_t pid", 4, 1), ("int prio", 4, 1), ("int target_cpu", 4, 1)
)
ENTER = _pages.event_text("sys_enter", 11, ("long id", 8, 1), ("unsigned long args[6]", 48, 0))
ISSUE = _pages.event_text("block_rq_issue", 12, ("dev_t dev", 4, 0), ("sector_t sector", 8, 0), ("char rwbs[8]", 8, 0))
#: Kinds of Perfetto whose fields do not fit: a text for a number, and numbers that are too great.
EXIT = _pages.event_text("irq_handler_exit", 13, ("char irq[8]", 8, 0), ("int ret", 4, 1))
ENTRY = _pages.event_text("softirq_entry", 14, ("unsigned long vec", 8, 0))
#: And one whose great numbers never come.
RAISE = _pages.event_text("softirq_raise", 15, ("unsigned long vec", 8, 0))
ALL = _pages.event_text(
    "all", 16, ("u8 a", 1, 0), ("s8 b", 1, 1), ("u64 c", 8, 0), ("s64 d", 8, 1), ("bool e", 1, 0), ("u8 f[3]", 3, 0),
    ("s16 g[3]", 6, 1), ("char h[5]", 5, 0), ("void * cpu", 8, 0), ("u16 i[1]", 2, 0),
)  # fmt: skip
EVENTS = {
    "sched:sched_switch": SWITCH, "sched:sched_waking": WAKING, "raw_syscalls:sys_enter": ENTER, "block:block_rq_issue": ISSUE,
    "irq:irq_handler_exit": EXIT, "irq:softirq_entry": ENTRY, "irq:softirq_raise": RAISE, "mine:all": ALL,
}  # fmt: skip
GENERIC = ("irq_handler_exit", "softirq_entry", "all", "unknown")
HOSTILE = [b"", b"\xff\xfe\xfd", b"a\0b\xff", "ü→".encode(), b"\x1b[31m", b'"\\', b"0123456789abcdef", b"\xc3"]


def number(value, size):
    return (value % (1 << 8 * size)).to_bytes(size, "little")


def any_event(rng, delta):
    text = rng.choice(HOSTILE).ljust(16, b"\0")[:16]
    other = rng.choice(HOSTILE).ljust(16, b"\0")[:16]
    small = number(rng.choice((0, 1, -1, 127, 128, -(1 << 31), (1 << 31) - 1, rng.getrandbits(32))), 4)
    great = number(rng.choice((0, 127, 128, -1, 1 << 63, (1 << 63) - 1, rng.getrandbits(64))), 8)
    kind = rng.randrange(9, 18)
    data = {
        9: text + small + number(120, 4) + great + other + small + number(120, 4),
        10: text + small + number(100, 4) + number(1, 4),
        11: great + b"".join(number(rng.getrandbits(rng.choice((1, 7, 8, 64))), 8) for _ in range(6)),
        12: number(rng.choice((8 << 20 | 1, 259 << 20 | 0x12345, 0)), 4) + great + b"WS\0\xffgarb",
        13: b"irq\xff\0abc" + small,
        14: number(rng.choice((3, 1 << 40)), 8),
        15: number(rng.choice((3, (1 << 32) - 1)), 8),
        16: small[:1]
        + small[:1]
        + great
        + great
        + small[:1]
        + b"\0\xff\x80"
        + great[:6]
        + text[:5]
        + great
        + small[:2],
        17: text,
    }[kind]
    return _pages.FORM.event(
        delta, _pages.payload(kind, data, pid=rng.choice((0, 1, 70_000)), flags=rng.choice((0, 9, 255)))
    )


def any_pages(rng, count, at_ns=_pages.T):
    found = []
    for _ in range(count):
        records = [any_event(rng, rng.choice((0, 1, 1000))) for _ in range(rng.randrange(1, 30))]
        found.append(_pages.FORM.page(at_ns, *records))
        at_ns += 50_000
    return found


BODY = _pages.formats(EVENTS)


@pytest.fixture
def written(tmp_path):
    """Call with a storage and what is asked for; returns the trace and the report."""

    def call(storage, path=tmp_path / "out.pftrace", **asked):
        with connect(storage) as connection:
            report = perfetto.write(connection, scope.find(connection, scope.Choice(**asked)), path)
        assert report.size_bytes == path.stat().st_size
        return _trace.read(path), report

    return call


@pytest.fixture
def random_lake(tmp_path):
    rng = random.Random(7)
    frames = [_pages.described(body=BODY)]
    frames += [_pages.paged(0, any_pages(rng, 60), stream=ring(cpu), body=BODY) for cpu in (0, 1, 5)]
    return build(tmp_path / "lake", frames)


def test_every_event_and_field_of_every_cpu_is_there_in_its_order(random_lake, written):
    trace, report = written(random_lake)
    found = _trace.events(trace)
    assert found == _trace.rows(random_lake, GENERIC)
    assert set(found) == {0, 1, 5}
    assert report.events == sum(map(len, found.values())) > 1000
    assert set(report.generic) == set(GENERIC)
    names = {event.name for each in found.values() for event in each}
    assert names == {
        "sched_switch",
        "sched_waking",
        "sys_enter",
        "block_rq_issue",
        "softirq_raise",
        *(f"generic {each}" for each in GENERIC),
    }


def test_small_windows_and_bundles_give_the_same_events(random_lake, written, monkeypatch):
    trace, _ = written(random_lake)
    real = scope.windows
    monkeypatch.setattr(perfetto, "windows", lambda *args: real(*args, events_max=50))
    monkeypatch.setattr(perfetto, "BUNDLE_EVENTS", 7)
    other, _ = written(random_lake)
    assert _trace.events(other) == _trace.events(trace)
    sizes = [len(bundle.event) for bundle in _trace.bundles(other)]
    assert max(sizes) == 7
    assert len(sizes) > len(_trace.bundles(trace))


def test_a_clock_that_jumps_keeps_the_order_of_a_window(tmp_path, written):
    pages = [_pages.page(1), _pages.FORM.page(_pages.T - 1000, _pages.tick(2)), _pages.page(3)]
    storage = build(tmp_path / "lake", [_pages.described(), _pages.paged(0, pages)])
    trace, _ = written(storage)
    assert [event.fields["value"] for event in _trace.events(trace)[0]] == [1, 2, 3]


@pytest.fixture
def lossy_lake(tmp_path):
    """Pages 0 to 9 with 4 and 5 missing, and an event each; what came before 2, 4 and 8 is lost."""
    losses = [Loss("overwrite", 2, 37, "ring-overrun", "agent", "event"), Loss("drop", 4, 2, "agent-died", "agent")]
    later = [Loss("overwrite", 8, None, "ring-overrun", "agent", "event")]
    pages = [_pages.FORM.page(_pages.T + 1000 * at, _pages.tick(at)) for at in range(10)]
    after = [Loss("drop", 10, 5, "stopped-before-read", "agent", "event")]
    frames = [
        _pages.described(),
        _pages.paged(0, pages[:2]),
        _pages.paged(2, pages[2:4], 1, losses=losses[:1]),
        _pages.paged(6, pages[6:8], 2, losses=losses[1:]),
        _pages.paged(8, pages[8:], 3, losses=later),
        Frame(_pages.CPU, "r", 4, 10, 10, 0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, b"", after),
        Frame(
            ring(3),
            "r",
            0,
            0,
            0,
            0,
            HEARTBEAT_ENCODING,
            HEARTBEAT_VERSION,
            b"",
            [Loss("drop", 0, 9, "dropped-events", "agent", "event")],
        ),
    ]
    return build(tmp_path / "lake", frames)


def test_a_loss_is_a_slice_over_the_time_in_which_it_was(lossy_lake, written):
    trace, report = written(lossy_lake)
    at = [_pages.T + 1000 * page + 1 for page in range(10)]
    begin, end, instant = (
        proto.TrackEvent.TYPE_SLICE_BEGIN,
        proto.TrackEvent.TYPE_SLICE_END,
        proto.TrackEvent.TYPE_INSTANT,
    )
    found = [(when, kind, name) for _, when, kind, name, _ in _trace.marks(trace)]
    assert found == [
        (at[1], begin, "37 events lost"), (at[2], end, ""),
        (at[3], begin, "2 pages lost"), (at[6], end, ""),
        (at[7], begin, "unknown number of events lost"), (at[8], end, ""),
        (at[9], instant, "5 events lost"),
    ]  # fmt: skip
    assert {track for track, *_ in _trace.marks(trace)} == {"Lost, CPU 0 (set/cpu0)"}
    notes = _trace.marks(trace)[4][-1]
    assert notes == {
        "kind": "overwrite",
        "reason": "ring-overrun",
        "count": "unknown",
        "unit": "event",
        "first_position": 8,
        "found_by": "agent",
    }
    firsts = {bundle.event[0].generic.field[0].int_value: bundle.lost_events for bundle in _trace.bundles(trace)}
    assert firsts == {0: False, 2: True, 6: True, 8: True}
    assert report.losses == 4


def test_losses_outside_the_range_are_not_of_it(lossy_lake, written):
    since, until = (scope.When("ts_ns", _pages.T + 1000 * page) for page in (2, 8))
    trace, report = written(lossy_lake, since=since, until=until)
    assert [name for *_, name, _ in _trace.marks(trace)] == ["37 events lost", "2 pages lost", ""]
    assert [bundle.lost_events for bundle in _trace.bundles(trace)] == [True, True]
    trace, report = written(lossy_lake, since=scope.When("ts_ns", _pages.T + 3000), until=until)
    assert report.losses == 1


def test_windows_do_not_lose_what_was_lost_between_them(lossy_lake, written, monkeypatch):
    trace, _ = written(lossy_lake)
    real = scope.windows
    monkeypatch.setattr(perfetto, "windows", lambda *args: real(*args, events_max=1))
    other, _ = written(lossy_lake)
    assert len(_trace.bundles(other)) == 8
    assert _trace.marks(other) == _trace.marks(trace)


def test_no_more_losses_are_marked_than_a_file_takes(lossy_lake, written, monkeypatch):
    monkeypatch.setattr(perfetto_tracks, "LOSSES_MAX", 2)
    monkeypatch.setattr(perfetto, "LOSSES_MAX", 2)
    trace, report = written(lossy_lake)
    assert len([kind for _, _, kind, *_ in _trace.marks(trace) if kind == proto.TrackEvent.TYPE_SLICE_BEGIN]) == 2
    assert any("only 2 losses are marked" in note for note in report.notes)
    assert sum(bundle.lost_events for bundle in _trace.bundles(trace)) == 3


# Asleep for a day between the second reading and the third.
SLEPT = [
    beat(_pages.CPU, 2, 1, _pages.T, _pages.T + 7_000_000_000, 10**18),
    beat(_pages.CPU, 3, 1, _pages.T + 2000, _pages.T + 7_000_002_300, 10**18 + 2100, 90),
    beat(_pages.CPU, 4, 1, _pages.T + 10_000_004_000, _pages.T + 86_417_000_004_000, 10**18 + 86_410_000_004_000),
]


def back(trace, boottime_ns):
    """Return CLOCK_MONOTONIC at `boottime_ns`, as a reader of the trace finds it: by the newest snapshot before."""
    pairs = []
    for packet in trace.packet:
        if packet.HasField("clock_snapshot"):
            values = {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
            pairs.append((values[proto.BUILTIN_CLOCK_BOOTTIME], values[proto.BUILTIN_CLOCK_MONOTONIC]))
    boot, mono = max([pair for pair in pairs if pair[0] <= boottime_ns] or pairs[:1])
    return boottime_ns - boot + mono


def test_mono_is_written_as_boottime_and_comes_back_exactly(tmp_path, written):
    times = [
        _pages.T - 10,
        _pages.T + 1000,
        _pages.T + 9_000_000_000,
        _pages.T + 10_000_004_000,
        _pages.T + 10_000_009_000,
    ]
    pages = [_pages.FORM.page(at, _pages.tick(1, delta=0)) for at in times]
    storage = build(tmp_path / "lake", [_pages.described(), _pages.paged(0, pages), *SLEPT])
    trace, report = written(storage)
    found = [event.ts_ns for event in _trace.events(trace)[0]]
    assert [back(trace, at) for at in found] == times
    assert [at - mono for at, mono in zip(found, times, strict=True)] == [7_000_000_300] * 3 + [86_407_000_000_000] * 2
    snapshots = [packet.clock_snapshot for packet in trace.packet if packet.HasField("clock_snapshot")]
    assert [each.primary_trace_clock for each in snapshots] == [proto.BUILTIN_CLOCK_MONOTONIC] * 2
    assert snapshots[1].clocks[0].clock_id == proto.BUILTIN_CLOCK_REALTIME
    assert not any(bundle.HasField("ftrace_clock") for bundle in _trace.bundles(trace))
    assert not any("clock" in note for note in report.notes)


@pytest.mark.parametrize(
    ("clock", "named", "primary", "pair"),
    [
        ("boot", None, proto.BUILTIN_CLOCK_BOOTTIME, False),
        ("mono", None, proto.BUILTIN_CLOCK_MONOTONIC, False),
        ("mono_raw", proto.FTRACE_CLOCK_MONO_RAW, proto.BUILTIN_CLOCK_MONOTONIC_RAW, False),
        ("local", proto.FTRACE_CLOCK_LOCAL, None, True),
        ("global", proto.FTRACE_CLOCK_GLOBAL, None, True),
        ("x86-tsc", None, None, False),
    ],
)
def test_every_clock_is_said_as_it_is(tmp_path, written, clock, named, primary, pair):
    streams = [each._replace(clock=clock) for each in (_pages.SET, _pages.CPU)]
    body = _pages.formats(clock=clock)
    lost = [Loss("overwrite", 1, 1, "ring-overrun", "agent", "event")]
    pages = [_pages.page(1), _pages.FORM.page(_pages.T + 9, _pages.tick(2))]
    frames = [
        _pages.described(body=body, stream=streams[0]),
        _pages.paged(0, pages, stream=streams[1], body=body, losses=lost),
    ]
    trace, report = written(build(tmp_path / "lake", frames))
    assert [event.ts_ns for event in _trace.events(trace)[0]] == [_pages.T + 1, _pages.T + 10]
    for bundle in _trace.bundles(trace):
        assert (bundle.ftrace_clock if bundle.HasField("ftrace_clock") else None) == named
        assert bundle.HasField("ftrace_timestamp") == bundle.HasField("boot_timestamp") == pair
        assert bundle.ftrace_timestamp == bundle.boot_timestamp
    snapshots = [packet.clock_snapshot for packet in trace.packet if packet.HasField("clock_snapshot")]
    assert [each.primary_trace_clock for each in snapshots] == ([primary] if primary else [])
    marked = {packet.timestamp_clock_id for packet in trace.packet if packet.HasField("track_event")}
    assert marked == {primary or proto.BUILTIN_CLOCK_BOOTTIME}
    assert len(report.notes) == 1
    assert report.notes[0].startswith(f"nothing in the lake relates the clock {clock}") == (
        clock not in ("mono", "boot")
    )


def test_packets_have_sequences_and_begin_their_state(lossy_lake, written):
    trace, _ = written(lossy_lake)
    assert {packet.trusted_packet_sequence_id for packet in trace.packet} == {1, 2}
    assert {packet.trusted_packet_sequence_id for packet in trace.packet if packet.HasField("ftrace_events")} == {1}
    tracks = [packet for packet in trace.packet if packet.trusted_packet_sequence_id == 2]
    cleared = proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    assert [packet.sequence_flags for packet in tracks] == [cleared] + [0] * (len(tracks) - 1)


def test_the_kernels_release_is_told_where_something_says_it(tmp_path, written):
    storage = _sample.build(tmp_path / "lake", trace=True)
    trace, _ = written(storage)
    release = [packet.system_info.utsname.release for packet in trace.packet if packet.HasField("system_info")]
    assert release == ["4.14.0 or later, as its sched_switch says"]


def test_the_sample_has_everything(tmp_path, written):
    storage = _sample.build(tmp_path / "lake", trace=True)
    trace, report = written(storage)
    assert _trace.events(trace) == _trace.rows(storage, ("unknown",))
    assert (report.events, report.losses, report.kinds) == (12, 1, 3)


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(random_lake, tmp_path, written, monkeypatch):
    path = tmp_path / "sub" / "out.pftrace"
    path.parent.mkdir()
    path.write_bytes(b"before")

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"out\.pftrace: No space left on device"):
        written(random_lake, path=path)
    assert [each.name for each in path.parent.iterdir()] == ["out.pftrace"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("where", ["none/out", "file/out"])
def test_a_wrong_directory_is_the_callers_error(random_lake, tmp_path, written, where):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=where):
        written(random_lake, path=tmp_path / where)


def test_a_directory_is_not_replaced(random_lake, tmp_path, written):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="directory"):
        written(random_lake, path=tmp_path / "folder")
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_no_clocks_are_mixed_up_by_a_reading_that_took_long(tmp_path, written):
    slow = beat(_pages.CPU, 2, 1, _pages.T, _pages.T + 50, 10**18, bracket_ns=perfetto_clocks._TOLERANCE_NS + 1)
    _, report = written(build(tmp_path / "lake", [_pages.described(), _pages.paged(0, [_pages.page(1)]), slow]))
    assert "takes CLOCK_BOOTTIME for the same as CLOCK_MONOTONIC" in report.notes[0]


def test_a_window_with_too_many_bytes_is_split(random_lake, written, monkeypatch):
    trace, _ = written(random_lake)
    monkeypatch.setattr(perfetto, "WINDOW_BYTES", 5000)
    monkeypatch.setattr(perfetto, "BUNDLE_BYTES", 700)
    other, report = written(random_lake)
    assert _trace.events(other) == _trace.events(trace)
    sizes = [
        sum(event.ByteSize() + (2 if event.ByteSize() < 128 else 3) for event in bundle.event)
        for bundle in _trace.bundles(other)
    ]
    assert max(sizes) <= 700
    assert report.events == sum(map(len, _trace.events(trace).values()))


def test_an_event_larger_than_a_bundle_has_one_of_its_own(random_lake, written, monkeypatch):
    monkeypatch.setattr(perfetto, "BUNDLE_BYTES", 1)
    trace, _ = written(random_lake)
    assert {len(bundle.event) for bundle in _trace.bundles(trace)} == {1}
    assert _trace.events(trace) == _trace.rows(random_lake, GENERIC)


def test_a_cpu_that_no_reader_takes_is_refused(tmp_path, written):
    frames = [
        _pages.described(),
        _pages.paged(0, [_pages.page(1)]),
        _pages.paged(0, [_pages.page(1)], stream=ring(1024)),
    ]
    storage = build(tmp_path / "lake", frames)
    with pytest.raises(UsageError, match="Perfetto takes CPUs below 1024: there is set/cpu1024"):
        written(storage)
    trace, _ = written(storage, instance="set/cpu0")
    assert set(_trace.events(trace)) == {0}


def two_kernels(tmp_path, event, texts, datas):
    """Make a lake of one boot whose description of `event` changed: an event of each of `datas` under each of `texts`."""
    frames = []
    for at, (text, several) in enumerate(zip(texts, datas, strict=True)):
        body = _pages.formats({event: text})
        records = [_pages.FORM.event(1, _pages.payload(20, data)) for data in several]
        frames.append(_pages.described(at, at, body=body))
        frames.append(_pages.paged(at, [_pages.FORM.page(_pages.T + 1000 * at, *records)], at, body=body))
    return build(tmp_path / "lake", frames)


@pytest.mark.parametrize(
    ("event", "values", "expected"),
    [
        # What 64 bits hold with or without a sign goes as a number, what neither does as text.
        ("mine:wide", (-5, 5), [{"v": -5}, {"v": 5}]),
        ("mine:wide", (7, (1 << 64) - 1), [{"v": 7}, {"v": (1 << 64) - 1}]),
        ("mine:wide", (-5, (1 << 64) - 1), [{"v": "-5"}, {"v": "18446744073709551615"}]),
    ],
)
def test_a_number_of_another_width_in_another_description_is_exact(tmp_path, written, event, values, expected):
    texts = [_pages.event_text("wide", 20, (kind, 8, signed)) for kind, signed in (("s64 v", 1), ("u64 v", 0))]
    trace, _ = written(two_kernels(tmp_path, event, texts, [[number(value, 8)] for value in values]))
    assert [each.fields for each in _trace.events(trace)[0]] == expected


@pytest.mark.parametrize("event", ["mine:two", "irq:irq_handler_entry"])
def test_a_field_that_a_description_lacks_is_not_there(tmp_path, written, event):
    name = event.partition(":")[2]
    first, second = ("int irq", 4, 1), ("char name[4]", 4, 0)
    texts = [_pages.event_text(name, 20, first), _pages.event_text(name, 20, first, second)]
    trace, _ = written(two_kernels(tmp_path, event, texts, [[number(3, 4)], [number(4, 4) + b"eth0"]]))
    assert [each.fields for each in _trace.events(trace)[0]] == [{"irq": 3}, {"irq": 4, "name": "eth0"}]


def test_a_kind_is_perfettos_by_its_fields_and_not_by_its_name_alone(tmp_path, written):
    texts = [_pages.event_text("sched_wakeup", 20, ("int other", 4, 1))]
    trace, report = written(two_kernels(tmp_path, "mine:sched_wakeup", texts, [[number(3, 4)]]))
    assert _trace.events(trace)[0][0].name == "generic sched_wakeup"
    assert report.generic == ["sched_wakeup"]


def test_a_kind_without_fields_is_perfettos(tmp_path, written):
    trace, report = written(
        two_kernels(tmp_path, "sched:sched_wakeup", [_pages.event_text("sched_wakeup", 20)], [[b""]])
    )
    assert [each[3:] for each in _trace.events(trace)[0]] == [("sched_wakeup", {})]
    assert report.generic == []


def test_fields_without_a_place_are_left_out_and_told(tmp_path, written):
    text = _pages.event_text("softirq_raise", 20, ("int vec", 4, 0), ("int more", 4, 1))
    trace, report = written(two_kernels(tmp_path, "irq:softirq_raise", [text], [[number(3, 4) + number(9, 4)]]))
    assert _trace.events(trace)[0][0].fields == {"vec": 3}
    assert "Perfetto has no place for these fields, they are left out: softirq_raise.more" in report.notes


def test_a_range_that_begins_inside_a_page_has_not_what_was_lost_before_the_page(tmp_path, written):
    lost = [Loss("overwrite", 1, 7, "ring-overrun", "agent", "event")]
    pages = [_pages.page(1), _pages.FORM.page(_pages.T + 100, _pages.tick(1), _pages.tick(2))]
    storage = build(tmp_path / "lake", [_pages.described(), _pages.paged(0, pages, losses=lost)])
    assert written(storage, since=scope.When("ts_ns", _pages.T + 101))[1].losses == 1
    assert written(storage, since=scope.When("ts_ns", _pages.T + 102))[1].losses == 0
