"""Trace events on the real kernel: every event is in a page, counted as lost in front of one, or in the kernel's counters."""

import dataclasses
import fcntl
import itertools
import os
import time
from collections import defaultdict
from pathlib import Path

import pytest

from producers.ftrace import source as source_module
from producers.registry import Identity, Known, Opening
from producers.source import Leaving
from schemas import ftrace, heartbeat
from schemas.config import Config, FtraceConfig, TraceSet
from schemas.errors import UnavailableError, UsageError
from schemas.frame import decode
from schemas.loss import Loss
from schemas.stream import Stream
from tests._logs import read_all
from tests.producers.ftrace._ftrace import TRACEFS, AgentProcess, busy, events_in, instances, register, settings, stats

pytestmark = pytest.mark.kernel
ME = Identity("m", "65e71522-0000-0000-0000-000000000000", "guest-kernel")
SCHED = ("sched:sched_switch", "sched:sched_waking")


@pytest.fixture(autouse=True)
def machine():
    if os.geteuid() != 0 or not (TRACEFS / "instances").is_dir():
        pytest.skip("needs root and tracefs")
    # One test at a time on this machine: an agent takes what another one left.
    lock = os.open(TRACEFS / "instances", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = settings()
        yield
        assert settings() == before
    finally:
        os.close(lock)


@pytest.fixture
def opened(tmp_path):
    made = []

    def opened(*sets, known=None, state_dir=tmp_path):
        config = Config(ftrace=FtraceConfig(sets=sets))
        sources = source_module.open_sources(Opening(ME, known or {}, config, state_dir))
        made.extend(sources)
        return sources

    yield opened
    for source in made:
        source.close()


@pytest.fixture
def agent(tmp_path):
    made = []

    def agent(*flags, log="log"):
        made.append(AgentProcess(tmp_path / log, *flags, err=tmp_path / f"{len(made)}.err"))
        return made[-1].started()

    yield agent
    for each in made:
        each.close()
    for source in source_module.open_sources(Opening(ME, {}, Config(ftrace=FtraceConfig((TraceSet(events=SCHED),))))):
        source.drain()
        source.close()
    assert instances() == []


def by_instance(sources):
    return {source.stream.instance: source for source in sources}


def finish(sources):
    """Stop recording, drain and cut; return the batches of each stream by its instance."""
    for source in sources:
        source.stop()
    batches = {}
    for source in sources:
        batches[source.stream.instance] = source.cut()
        while source.drain():
            batches[source.stream.instance] += source.cut()
        source.give_up()
        source.counters()
        batches[source.stream.instance] += source.cut()
    return batches


def leave(sources):
    """Close them as an agent does that does not know what is in the log; as far as the kernel sees, it was killed."""
    for source in sources:
        if isinstance(source, Leaving):
            source.leave()
    for source in sources:
        source.close()


def pages_of(batch):
    pages = ftrace.unpack(batch.body)
    assert pages.count == batch.count == batch.next - batch.first
    return [bytes(pages.data[at : at + pages.page_bytes]) for at in range(0, len(pages.data), pages.page_bytes)]


def events_of(batches):
    return sum(events_in(page) for batch in batches if batch.body for page in pages_of(batch))


def losses_of(batches):
    return [loss for batch in batches for loss in batch.losses]


def assert_contiguous(batches, first=0):
    for batch in batches:
        assert batch.first == first
        first = batch.next


def assert_books_close(batches, counters):
    """Written = in pages + overwritten, as the kernel counts; and what the headers say is what it counts."""
    lost = [loss for loss in losses_of(batches) if loss.reason == "ring-overrun"]
    assert events_of(batches) == counters["read_events"]
    assert counters["entries"] == counters["dropped_events"] == counters["commit_overrun"] == 0
    known = sum(loss.count for loss in lost if loss.count is not None)
    assert known == counters["lost_events"]
    if all(loss.count is not None for loss in lost):
        assert known == counters["overrun"]
    else:
        assert known < counters["overrun"]


# Pages and losses


def test_every_event_is_in_a_page(opened):
    sources = opened(TraceSet(events=SCHED, buffer_kib_per_cpu=16384))
    busy(20_000)
    counters = {source.stream.instance: source for source in sources}
    batches = finish(sources)
    for cpu in ("default/cpu0", "default/cpu1"):
        found = counters[cpu].counters()
        assert found["overrun"] == 0
        assert found["final"] == 1
        assert found["read_events"] > 40_000
        assert found["records"] == sum(batch.count for batch in batches[cpu])
        assert_contiguous(batches[cpu])
        assert_books_close(batches[cpu], found)
        times = [(batch.ts_first_ns, batch.ts_last_ns) for batch in batches[cpu]]
        assert all(first <= last for first, last in times)
        assert time.monotonic_ns() - 60e9 < times[0][0] < time.monotonic_ns()


@pytest.mark.parametrize("subbuf_kib", [None, 64])
def test_a_reader_that_is_far_too_slow_counts_every_overwritten_event(opened, subbuf_kib):
    sources = opened(TraceSet(events=SCHED, buffer_kib_per_cpu=512, subbuf_kib=subbuf_kib))
    batches = defaultdict(list)
    overrun = 0
    while overrun < 1_200_000:
        busy(60_000)
        for source in sources:  # one read of a ring that went round several times
            source.drain()
            batches[source.stream.instance] += source.cut()
        overrun = sum(source.counters().get("overrun", 0) for source in sources)
    for instance, rest in finish(sources).items():
        batches[instance] += rest
    for instance, source in by_instance(sources).items():
        if "/" in instance:
            assert_contiguous(batches[instance])
            assert_books_close(batches[instance], source.counters())
            lost = losses_of(batches[instance])
            assert {(loss.kind, loss.reason, loss.found_by, loss.unit) for loss in lost} == {
                ("overwrite", "ring-overrun", "agent", "event")
            }
    assert sum(source.counters().get("overrun", 0) for source in sources) > 1_000_000


def test_a_loss_names_the_page_that_it_precedes(opened):
    sources = opened(TraceSet(events=SCHED, buffer_kib_per_cpu=64))
    busy(5_000)
    for instance, batches in finish(sources).items():
        if "/" not in instance:
            continue
        flagged = {}
        for batch in batches:
            for at, page in enumerate(pages_of(batch)):
                commit = int.from_bytes(page[8:16], "little")
                if commit & 1 << 31:
                    end = 16 + (commit & (1 << 27) - 1)
                    flagged[batch.first + at] = (
                        int.from_bytes(page[end : end + 8], "little") if commit & 1 << 30 else None
                    )
        assert {loss.first_position: loss.count for loss in losses_of(batches)} == flagged
        assert flagged


def test_sub_buffers_of_64_kib_travel_whole(opened):
    sources = opened(TraceSet(events=SCHED, buffer_kib_per_cpu=4096, subbuf_kib=64))
    busy(10_000)
    batches = finish(sources)["default/cpu0"]
    assert {len(page) for batch in batches for page in pages_of(batch)} == {65536}
    assert max(events_in(page) for batch in batches for page in pages_of(batch)) > 600


def test_what_nobody_will_read_is_a_drop_with_its_count(opened):
    sources = opened(TraceSet(events=SCHED))
    busy(5_000)
    for source in sources:
        source.stop()
        source.give_up()
    cpu0 = by_instance(sources)["default/cpu0"]
    (batch,) = cpu0.cut()
    assert (batch.body, batch.first, batch.next) == (b"", 0, 0)
    assert batch.losses == [Loss("drop", 0, cpu0.counters()["entries"], "stopped-before-read", "agent", "event")]
    assert batch.losses[0].count > 5_000


# Descriptions


def test_the_description_comes_first_and_pages_name_it(opened):
    sources = opened(TraceSet(events=("sched:*", "irq:*"), clock="boot"))
    (batch,) = sources[0].cut()
    assert sources[0].stream == Stream(*ME, "ftrace", "default", "boot")
    assert (sources[0].encoding, batch.first, batch.next, batch.count) == ("ftrace-formats", 0, 1, 1)
    formats = ftrace.unpack_formats(batch.body)
    assert (formats.clock, formats.page_bytes, formats.byteorder, formats.word_bytes) == ("boot", 4096, "little", 8)
    for event in ("sched:sched_switch", "irq:irq_handler_entry", "ftrace:print"):
        assert formats.events[event] == (TRACEFS / "events" / event.replace(":", "/") / "format").read_text()
    assert sum(event.startswith("sched:") for event in formats.events) == len(
        list(TRACEFS.glob("events/sched/*/format"))
    )
    busy(2_000)
    pages = finish(sources)["default/cpu0"]
    assert {page.descriptor for page in pages} == {ftrace.descriptor(batch.body)}


def test_a_description_that_did_not_change_is_not_sent_again(opened):
    sources = opened(TraceSet(events=("irq:*",)))
    assert len(sources[0].cut()) == 1
    sources[0].drain()
    assert sources[0].cut() == []
    assert sources[0].counters() == {"records": 1, "changes": 0}


@pytest.fixture
def probe():
    """Call with a field to have the one event of a group of its own, with None to have it no more: as a module's."""
    path, group = TRACEFS / "uprobe_events", f"hypocenter_{os.getpid()}"
    before = path.read_text()

    def command(text):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)  # with O_TRUNC it would lose those of others
        try:
            os.write(fd, text.encode() + b"\n")
        finally:
            os.close(fd)

    def probe(field):
        command(f"p:{group}/probe /bin/true:0x1000 {field}" if field else f"-:{group}/probe")
        return group

    try:
        probe("flags=%dx:u32")
    except OSError as e:
        pytest.skip(f"this kernel takes no uprobe: {e}")
    yield probe
    if path.read_text() != before:
        probe(None)
    assert path.read_text() == before


def test_an_event_that_comes_again_is_traced_again_and_described(probe, opened):
    group = probe(None)
    probe("flags=%dx:u32")
    sources = opened(TraceSet(name="again", events=(f"{group}:probe", "irq:*")))
    (first,) = sources[0].cut()
    enable = TRACEFS / "instances" / instances()[0] / "events" / group / "probe" / "enable"
    enable.write_text("0")  # what is in use cannot be taken away
    probe(None)
    sources[0].drain()
    assert sources[0].cut() == []  # pages that hold it may still come
    probe("dfd=%di:s32")
    sources[0].drain()
    (second,) = sources[0].cut()
    assert enable.read_text() == "1\n"
    assert (second.first, second.next) == (1, 2)
    old, new = (ftrace.unpack_formats(each.body).events[f"{group}:probe"] for each in (first, second))
    assert "flags" in old
    assert "dfd" in new
    for source in sources:
        source.close()


def test_a_ring_that_was_left_by_a_set_of_another_name_is_read_to_its_end_and_goes(opened):
    one = opened(TraceSet(name="one", events=SCHED))
    busy(500)
    leave(one)
    assert [name.rsplit("-", 1)[0] for name in instances()] == ["hypocenter-one"]
    sources = opened(TraceSet(name="two", events=SCHED))
    busy(500)
    for source in sources:
        source.cut()
        while source.drain():
            source.cut()
    for source in sources:
        source.drain()
        source.counters()
    assert [name.rsplit("-", 1)[0] for name in instances()] == ["hypocenter-two"]
    batches = finish(sources)
    assert set(batches) == {source.stream.instance for source in sources}
    assert {name.replace("two", "one") for name in batches if name.startswith("two")} <= set(batches)


def test_a_ring_whose_sub_buffers_somebody_makes_shorter_says_so_once_and_what_it_lost(opened):
    sources = opened(TraceSet(events=SCHED, subbuf_kib=8))
    busy(2_000)
    (TRACEFS / "instances" / instances()[0] / "buffer_subbuf_size_kb").write_text("4")
    busy(2_000)
    told = 0
    for source in sources[1:]:
        if source._rings[0].stats()["entries"]:
            with pytest.raises(UnavailableError, match="its sub-buffers are no longer of 8192 bytes"):
                source.drain()
            told += 1
    assert told >= 1
    lost = losses_of(each for batches in finish(sources).values() for each in batches)
    assert [loss.reason for loss in lost if loss.kind == "reset"] == ["ring-emptied"] * told
    assert all(loss.count is None for loss in lost if loss.kind == "reset")


def test_pages_of_another_clock_are_no_pages_of_this_stream_and_the_next_agent_has_them(opened):
    first = opened(TraceSet(events=SCHED))
    busy(500)
    by_instance(first)["default/cpu0"].drain()
    before = [batch for source in first for batch in source.cut()]
    ring = TRACEFS / "instances" / instances()[0]
    (ring / "trace_clock").write_text("counter")
    busy(2_000)
    lost = []
    for source in first[1:]:
        if source._rings[0].stats()["entries"] < 200:
            continue
        with pytest.raises(UnavailableError, match="its clock is no longer mono, somebody set it to counter"):
            source.drain()
        batches = source.cut()
        assert sum(batch.count for batch in batches) == 0
        lost.append([(loss.kind, loss.reason, loss.count is None) for loss in losses_of(batches)])
    assert lost
    assert all(each == [("drop", "clock-changed", False), ("reset", "ring-emptied", True)] for each in lost)
    assert any(batch.count for batch in before)
    leave(first)
    second = opened(TraceSet(events=SCHED))
    assert {source.stream.clock for source in second} == {"counter", "mono"}
    batches = [
        batch for source in second if source.stream.clock == "counter" for batch in (drained(source), source.cut())[1]
    ]
    assert any(batch.count for batch in batches)
    finish(second)


def drained(source):
    while source.drain():
        pass


def test_a_ring_that_somebody_empties_says_so(opened, monkeypatch):
    monkeypatch.setattr(source_module, "_LOOK_S", 0.0)
    sources = opened(TraceSet(events=SCHED))
    busy(2_000)
    for source in sources:
        source.drain()
        source.drain()
    (TRACEFS / "instances" / instances()[0] / "trace").write_text("")
    busy(100)
    for source in sources:
        source.drain()
    batches = finish(sources)
    for name in ("default/cpu0", "default/cpu1"):
        assert [loss.reason for loss in losses_of(batches[name])] == ["ring-emptied"]


def test_counters_that_cannot_be_read_are_what_they_were(opened, monkeypatch):
    sources = opened(TraceSet(events=SCHED))
    busy(500)
    ring = sources[1]._rings[0]
    before = ring.stats()
    assert before["entries"] > 0
    with monkeypatch.context() as patched:
        patched.setattr(ring, "_stats", -1)
        assert ring.stats() == before


def test_what_was_in_a_ring_that_somebody_else_took_is_an_unknown_loss_until_that_is_in_the_log(
    opened, tmp_path, monkeypatch
):
    pids = itertools.count(4_000_001)  # of agents that follow one another
    monkeypatch.setattr(os, "getpid", lambda: next(pids))
    first = opened(TraceSet(events=SCHED))
    busy(2_000)
    for source in first:
        source.drain()
        source.cut()
    read = {source.stream.instance: source.next_position() for source in first}
    leave(first)
    (tmp_path / "another").mkdir()
    other = opened(TraceSet(events=SCHED), state_dir=tmp_path / "another")
    finish(other)
    for source in other:
        source.close()
    second = opened(TraceSet(events=SCHED))
    by_cpu = {source.stream.instance: source for source in second if "/cpu" in source.stream.instance}
    batches = finish(second)
    for name, source in by_cpu.items():
        told = [(loss.count, loss.first_position) for loss in losses_of(batches[name]) if loss.reason == "agent-died"]
        assert told == [(read[name], 0), (None, read[name])]
        assert source.next_position() >= read[name] > 0
    leave(second)

    def told_by_another(known):
        sources = opened(TraceSet(events=SCHED), known=known)
        found = [loss.count for source in sources for loss in losses_of(source.cut()) if loss.reason == "agent-died"]
        leave(sources)
        return found.count(None)

    assert told_by_another({}) == len(by_cpu)  # what the second one told did not come to the log
    assert told_by_another({source.stream: Known(read[name], 0) for name, source in by_cpu.items()}) == 0
    assert told_by_another({source.stream: Known(read[name], 0) for name, source in by_cpu.items()}) == 0
    last = opened(TraceSet(events=SCHED))
    finish(last)


# Sets


def test_two_sets_have_a_ring_and_a_filter_each(opened):
    sources = opened(
        TraceSet(name="switches", events=SCHED[:1], filters=("sched:sched_switch=prev_pid > 0 && next_pid > 0",)),
        TraceSet(name="all", events=("sched:*", "irq:*", "timer:*"), clock="local", buffer_kib_per_cpu=4096),
    )
    assert [name.rsplit("-", 1)[0] for name in instances()] == ["hypocenter-all", "hypocenter-switches"]
    streams = [(source.stream.instance, source.stream.clock) for source in sources]
    assert streams[:3] == [("switches", "mono"), ("switches/cpu0", "mono"), ("switches/cpu1", "mono")]
    assert streams[3:] == [("all", "local"), ("all/cpu0", "local"), ("all/cpu1", "local")]
    busy(5_000)
    batches = finish(sources)
    assert 5_000 < events_of(batches["switches/cpu0"]) < events_of(batches["all/cpu0"])
    for instance, source in by_instance(sources).items():
        if "/" in instance:
            assert_books_close(batches[instance], source.counters())


def test_positions_go_on_where_the_log_ends(opened):
    cpu = Stream(*ME, "ftrace", "default/cpu0", "mono")
    sources = opened(TraceSet(events=SCHED), known={cpu: Known(70, 9), cpu._replace(instance="default"): Known(3, 3)})
    assert [source.next_position() for source in sources] == [3, 70, 0]
    busy(2_000)
    batches = finish(sources)
    assert_contiguous(batches["default/cpu0"], 70)
    assert losses_of(batches["default/cpu0"]) == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"events": ("sched:sched_swich",)}, "there is no event sched:sched_swich: the nearest is sched:sched_switch"),
        ({"events": ("shced:*",)}, "there is no event shced:*: the nearest is sched:*"),
        (
            {"events": SCHED, "filters": ("sched:sched_switch=prev_pd != 0",)},
            "event filter parse error: error: Field not found, at '!= 0'; there is no field prev_pd, the nearest is prev_pid",
        ),
        ({"events": SCHED, "filters": ("sched:sched_switch=prev_pid == (",)}, "Too many '('"),
        ({"events": SCHED, "filters": ("sched:sched_switch=0",)}, "the kernel takes that for no filter at all"),
        ({"events": SCHED, "filters": ("irq:*=irq == 1",)}, "the set has no event irq:*, the nearest is sched:"),
        ({"events": SCHED, "clock": "momo"}, "no clock 'momo'; the nearest is mono"),
        (
            {"events": SCHED, "buffer_kib_per_cpu": 1 << 24},
            "buffer_kib_per_cpu = 16777216: 32768 MiB for all CPUs are too much",
        ),
        ({"events": ("*:*",)}, "share them out"),
    ],
)
def test_what_the_kernel_refuses_is_said_in_its_words_and_leaves_nothing(opened, wanted, said):
    with pytest.raises(UsageError) as caught:
        opened(TraceSet(name="other", events=("irq:*",)), TraceSet(**wanted))
    assert str(caught.value).startswith("ftrace set default: ")
    assert said in str(caught.value)
    assert instances() == []


def test_no_set_is_a_usage_error(opened):
    with pytest.raises(UsageError, match="which events"):
        opened()


def test_a_cpu_that_goes_and_comes_is_read_on(opened):
    online = Path("/sys/devices/system/cpu/cpu1/online")
    try:
        online.write_text("0")
    except OSError as e:
        pytest.skip(f"this machine keeps its CPUs: {e}")
    try:
        sources = opened(TraceSet(events=SCHED))
        cpu1 = by_instance(sources)["default/cpu1"]
        cpu1.drain()
        never_there = not cpu1.alive()
        assert cpu1.fileno() == -1 or not never_there
        online.write_text("1")
        busy(2_000)
        cpu1.drain()
        assert cpu1.alive()
        online.write_text("0")
        cpu1.drain()
        busy(1_000, cpus=(0,))
        online.write_text("1")
        busy(2_000)
        batches = finish(sources)
        assert_books_close(cpu1.cut() + batches["default/cpu1"], cpu1.counters())
    finally:
        online.write_text("1")


def test_check_says_what_there_is():
    said = source_module.check()
    assert said.startswith(f"{TRACEFS} offers ")
    assert " mono," in said


# A left-over instance


def frames(log):
    found = defaultdict(list)
    for _, _, payload in read_all(log, ROW_TOPIC):
        frame = decode(payload)
        found[frame.stream.instance].append(frame)
    return found


ROW_TOPIC = register().topic


def last_counters(found):
    beats = [heartbeat.unpack(frame.body) for frame in found if frame.encoding == "heartbeat" and frame.body]
    return beats[-1].counters


def test_an_agent_puts_everything_into_its_log_and_leaves_nothing(agent, tmp_path):
    running = agent("--events", "sched:sched_switch,sched:sched_waking", "--events", "irq:*", "--buffer-kib", "16384")
    busy(20_000)
    running.stop()
    found = frames(tmp_path / "log")
    assert set(found) == {"default", "default/cpu0", "default/cpu1"}
    for cpu in ("default/cpu0", "default/cpu1"):
        pages = [frame for frame in found[cpu] if frame.encoding == "ftrace"]
        assert_contiguous(pages)
        counters = last_counters(found[cpu])
        assert counters["read_events"] > 40_000
        assert counters["final"] == 1
        assert_books_close(pages, counters)
        assert [frame.number for frame in found[cpu]] == list(range(len(found[cpu])))
    assert list((tmp_path / "log" / "ftrace").iterdir()) == []


@pytest.mark.parametrize("events", [SCHED, ("irq:*",)], ids=["same events", "other events"])
def test_what_a_killed_agent_left_is_read_to_its_end_and_removed(agent, tmp_path, events):
    first = agent("--events", ",".join(SCHED))
    busy(10_000)
    time.sleep(0.5)
    first.kill()
    (name,) = instances()
    busy(10_000)
    left = {cpu: stats(TRACEFS / "instances" / name / "per_cpu" / f"cpu{cpu}" / "stats") for cpu in (0, 1)}
    second = agent("--events", ",".join(events))
    time.sleep(0.5)
    assert name not in instances()
    assert len(instances()) == 1
    second.stop()
    found = frames(tmp_path / "log")
    descriptors = {frame.descriptor for frame in found["default"] if frame.encoding == "ftrace-formats"}
    for cpu in (0, 1):
        pages = [frame for frame in found[f"default/cpu{cpu}"] if frame.encoding == "ftrace"]
        assert {page.descriptor for page in pages} <= descriptors
        counters = last_counters(found[f"default/cpu{cpu}"])
        assert counters["left_over_entries"] == 0
        assert counters["left_over_read_events"] >= left[cpu]["entries"] + left[cpu]["read events"]
        dropped = [loss for loss in losses_of(pages) if loss.reason == "agent-died"]
        written = counters["left_over_read_events"] + counters["left_over_overrun"] + counters["read_events"]
        if not dropped:
            assert_contiguous(pages)
            assert events_of(pages) == written - counters["left_over_overrun"] - counters["overrun"]
        assert len({frame.run for frame in pages}) == 2


def test_pages_that_died_with_the_agent_are_counted(opened, tmp_path):
    first = opened(TraceSet(events=SCHED))
    busy(3_000)
    cpu0 = by_instance(first)["default/cpu0"]
    cpu0.drain()
    batch = cpu0.cut()[-1]  # which never came into a log
    unread = cpu0.counters()["read_events"]
    die(first)
    busy(3_000)
    known = {cpu0.stream: Known(2, 0)}  # of the pages, two did
    second = opened(TraceSet(events=SCHED), known=known)
    batches = finish(second)["default/cpu0"]
    assert batches[0].first == batch.next
    assert batches[0].losses == [Loss("drop", 2, batch.next - 2, "agent-died", "agent")]
    counters = by_instance(second)["default/cpu0"].counters()
    assert counters["left_over_read_events"] + counters["read_events"] == unread + events_of(batches)


def test_without_a_journal_what_died_is_an_unknown_loss(opened, tmp_path):
    first = opened(TraceSet(events=SCHED), state_dir=None)
    busy(3_000)
    for source in first:
        source.drain()
    die(first)
    batches = finish(opened(TraceSet(events=SCHED)))["default/cpu0"]
    assert batches[0].losses[0] == Loss("drop", 0, None, "agent-died", "agent", "event")


def test_a_left_over_set_that_nobody_wants_any_more_is_drained_too(opened):
    first = opened(TraceSet(name="old", events=SCHED, clock="local"))
    busy(3_000)
    die(first)
    second = opened(TraceSet(events=("irq:*",)))
    assert [name.rsplit("-", 1)[0] for name in instances()] == ["hypocenter-default", "hypocenter-old"]
    streams = by_instance(second)
    assert streams["old/cpu0"].stream.clock == "local"
    assert streams["old/cpu0"].alive()
    batches = finish(second)
    assert [name.rsplit("-", 1)[0] for name in instances()] == ["hypocenter-default"]
    assert events_of(batches["old/cpu0"]) == streams["old/cpu0"].counters()["left_over_read_events"] > 3_000
    assert sorted(ftrace.unpack_formats(batches["old"][0].body).events.keys() & set(SCHED)) == sorted(SCHED)


def test_an_instance_whose_agent_lives_is_left_alone(agent, opened):
    agent("--events", "irq:*")
    (name,) = instances()
    sources = opened(TraceSet(events=("irq:*",)))
    assert name in instances()
    assert len(instances()) == 2
    assert len(sources) == 3
    assert (TRACEFS / "instances" / name / "tracing_on").read_text() == "1\n"


def die(sources):
    """Leave everything as SIGKILL does: the files of a process are closed, nothing else."""
    session = sources[0]._session
    for source in sources:
        for ring in getattr(source, "_rings", []):
            ring.close()
    for instance in session._own.values():
        instance.let_go()
    session._own = {}


def test_dataclass_defaults_are_those_of_the_flags():
    assert dataclasses.asdict(TraceSet(events=SCHED)) == {
        "name": "default",
        "events": SCHED,
        "filters": (),
        "buffer_kib_per_cpu": 8192,
        "subbuf_kib": None,
        "clock": "mono",
    }
