"""Programs on the real kernel: every record that one attempted is in a batch or a counted loss, CPU by CPU."""

import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from producers import journal
from producers.bpf import program
from producers.bpf import records as bpf_records
from producers.bpf import source as source_module
from producers.registry import Identity, Known, Opening
from schemas import bpf, heartbeat
from schemas.config import BpfConfig, BpfProgram, Config
from schemas.errors import AccessError, BadInputError, UsageError
from schemas.frame import decode
from schemas.loss import Loss
from schemas.stream import Stream
from schemas.surfaces import SURFACES
from tests._logs import read_all
from tests.producers.bpf._bpf import by_cpu, delays_of, hog, refused_by_cpu, skip_unless_loadable, traced_waits
from tests.producers.ftrace._ftrace import AgentProcess, busy

pytestmark = pytest.mark.kernel
BOOT = "65e71522-0000-0000-0000-000000000000"
ME = Identity("m", BOOT, "guest-kernel")
STREAM = Stream(*ME, "bpf", "sched-delay", "mono")
#: Each switch to a task is a record.
ALL = BpfProgram("sched-delay", threshold_us=0, ring_kib=32768)
SMALL = BpfProgram("sched-delay", threshold_us=0, ring_kib=4)


@pytest.fixture(autouse=True)
def machine():
    skip_unless_loadable()
    yield
    assert kept_by_the_kernel() == []


def kept_by_the_kernel():
    """Return what this process still holds of maps, programs and links."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(each.readlink())
            if target.startswith("anon_inode:bpf"):
                found.append(target)
    return found


@pytest.fixture
def opened(tmp_path):
    made = []

    def opened(*programs, known=None, state_dir=tmp_path, tick_ms=250, snapshot_s=0):
        config = Config(bpf=BpfConfig(programs, tick_ms, snapshot_s=snapshot_s))
        sources = source_module.open_sources(Opening(ME, known or {}, config, state_dir))
        made.extend(sources)
        return sources

    yield opened
    for source in made:
        source.close()


def finish(source):
    """Let the program end, drain and cut; return the batches."""
    source.stop()
    batches = source.cut()
    while source.drain():
        batches += source.cut()
    source.give_up()
    source.counters()
    return batches + source.cut()


def losses_of(batches):
    return [loss for batch in batches for loss in batch.losses]


def assert_contiguous(batches, first=0):
    """Positions, and the bytes of the ring."""
    at = None
    for batch in batches:
        assert batch.first == first
        first = batch.next
        if batch.count:
            found = bpf.unpack(batch.body)
            assert at in (None, found.ring_position)
            at = found.ring_position + len(found.data)


def assert_books_close(batches, counts):
    """On each CPU: attempts = delivered + refused, and the gaps in its numbers are as many as it counted."""
    delays, refused = by_cpu(delays_of(batches)), refused_by_cpu(losses_of(batches))
    assert sum(each.attempts for each in counts) > 0
    for cpu, each in enumerate(counts):
        numbers = [delay.cpu_seq for delay in delays[cpu]]
        assert numbers == sorted(set(numbers))
        assert each.attempts == len(numbers) + each.ring_full + each.ring_busy
        assert refused[cpu] == each.ring_full + each.ring_busy
        gaps = sum(after - before - 1 for before, after in zip([-1, *numbers], [*numbers, each.attempts], strict=True))
        assert gaps == refused[cpu]


def counts_of(source):
    return source._program.counts()


# Records and losses


def test_every_record_is_delivered_where_the_ring_has_room(opened):
    _, records = opened(ALL)
    busy(10_000)
    batches = finish(records)
    assert_contiguous(batches)
    assert_books_close(batches, counts_of(records))
    assert losses_of(batches) == []
    counters = records.counters()
    assert counters["attempts"] == counters["records"] == len(delays_of(batches)) > 30_000
    assert counters["final"] == 1
    assert counters["ring_bytes_read"] == 88 * counters["records"]
    for batch in batches:
        times = [each.ts_ns for each in delays_of([batch])]
        assert (batch.ts_first_ns, batch.ts_last_ns) == (times[0], times[-1])
        assert time.monotonic_ns() - 60e9 < times[0] < time.monotonic_ns()


def test_a_reader_that_never_comes_counts_every_record_that_found_no_room(opened):
    _, records = opened(SMALL)
    busy(10_000)
    batches = finish(records)
    assert_contiguous(batches)
    assert_books_close(batches, counts_of(records))
    assert 0 < len(delays_of(batches)) <= 4096 // 88
    assert sum(refused_by_cpu(losses_of(batches)).values()) > 30_000
    assert {loss.kind for loss in losses_of(batches)} == {"drop"}
    assert {loss.unit for loss in losses_of(batches)} == {"event"}


def test_a_ring_that_goes_round_many_times_is_read_in_one_piece(opened):
    _, records = opened(SMALL)
    batches, done = [], threading.Event()

    def load():
        busy(20_000)
        done.set()

    thread = threading.Thread(target=load)
    thread.start()
    while not done.is_set():
        records.drain()
        if records.pending_bytes() > 10_000:
            batches += records.cut()
    thread.join()
    batches += finish(records)
    assert_contiguous(batches)
    assert_books_close(batches, counts_of(records))
    assert bpf.unpack(batches[-1].body or batches[-2].body).ring_position > 50 * 4096


def test_what_is_known_before_a_cut_is_told_in_it(opened):
    _, records = opened(SMALL)
    busy(1_000)
    records.drain()
    (batch,) = records.cut()
    told = sum(loss.count for loss in batch.losses)
    assert told > 1_000
    assert {loss.first_position for loss in batch.losses} == {batch.next}
    # The counters are those of the losses at the newest cut.
    batches = [batch, *finish(records)]
    assert_books_close(batches, counts_of(records))
    counters = records.counters()
    assert sum(loss.count for loss in losses_of(batches)) == counters["ring_full"] + counters["ring_busy"]


def test_what_an_agent_cannot_read_before_its_end_is_counted(opened):
    _, records = opened(ALL)
    busy(1_000)
    records.stop()
    time.sleep(0.05)
    records.give_up()
    (batch,) = records.cut()
    attempts = records.counters()["attempts"]
    assert batch.losses == [Loss("drop", 0, attempts, "stopped-before-read", "agent", "event")]


def test_the_waits_are_those_that_trace_events_tell_and_the_scheduler_counts(opened):
    _, records = opened(ALL)
    hogs = [hog(0), hog(0)]
    try:
        # Where a task stands still no wait of it is under way.
        signal_all(hogs, signal.SIGSTOP)
        before = {each.pid: schedstat(each.pid) for each in hogs}
        from_ns = time.monotonic_ns()
        with traced_waits() as traced:
            signal_all(hogs, signal.SIGCONT)
            time.sleep(1)
            signal_all(hogs, signal.SIGSTOP)
        after = {each.pid: schedstat(each.pid) for each in hogs}
    finally:
        for each in hogs:
            each.kill()
            each.wait()
    batches = finish(records)
    assert losses_of(batches) == []
    for each in hogs:
        mine = [delay for delay in delays_of(batches) if delay.pid == each.pid and delay.ts_ns >= from_ns]
        # The last is that of the kill.
        waits_ns = [delay.wait_ns for delay in mine][: len(traced[each.pid])]
        assert len(waits_ns) > 10
        # Two readings of the clock at one event lie apart: some us, under emulation half a ms.
        assert waits_ns == pytest.approx(traced[each.pid], abs=1_000_000)
        # The scheduler reads its clock as a switch begins, some 10 us before the event.
        assert sum(waits_ns) == pytest.approx(sum(traced[each.pid]), rel=0.02)
        counted_ns, arrivals = (now - then for now, then in zip(after[each.pid], before[each.pid], strict=True))
        if arrivals == len(waits_ns):
            assert sum(waits_ns) == counted_ns
        else:
            # Arrivals that this kernel told neither trace nor program of; what was waited for them is in no record.
            assert len(waits_ns) < arrivals
            assert counted_ns / 2 < sum(waits_ns) <= counted_ns
        assert {(delay.tgid, delay.comm[:6], delay.cpu) for delay in mine} == {(each.pid, b"python", 0)}
        other = next(other.pid for other in hogs if other is not each)
        assert other in {delay.prev_pid for delay in mine}


def signal_all(processes, number):
    for each in processes:
        each.send_signal(number)
    stopped = number == signal.SIGSTOP
    deadline = time.monotonic() + 20
    while any((state(each.pid) == "T") != stopped for each in processes):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    # One that is to stand still may have been put off its CPU right before, and has yet to get there.
    time.sleep(0.2 if stopped else 0)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def schedstat(pid):
    """Return what a thread has waited in ns, and how often it was given a CPU."""
    return tuple(map(int, Path(f"/proc/{pid}/schedstat").read_text().split()[1:]))


def test_only_waits_above_the_threshold_are_records(opened):
    _, records = opened(BpfProgram("sched-delay", threshold_us=1_000))
    hogs = [hog(0), hog(0)]
    time.sleep(1)
    for each in hogs:
        each.kill()
        each.wait()
    waits = [each.wait_ns for each in delays_of(finish(records))]
    assert len(waits) > 20
    assert min(waits) >= 1_000_000


def test_a_ring_that_lies_is_left_and_the_agent_lives_on(opened, monkeypatch, caplog):
    _, records = opened(ALL)
    busy(500)
    records.drain()

    def refuse(*args):
        raise BadInputError("ring", "the record at byte 8 claims too much")

    busy(10)
    monkeypatch.setattr(records._ring, "read", refuse)
    read = records._stretches.read
    assert not records.drain()
    assert records.fileno() == -1
    batches = records.cut()
    assert not records.alive()
    assert [loss for loss in losses_of(batches) if loss.reason == "ring-broken"] == [
        Loss("drop", read, None, "ring-broken", "agent", "event")
    ]
    assert "sched-delay: its ring is read no more: the record at byte 8 claims too much" in caplog.text


def test_a_ring_without_anything_new_is_not_read(opened, monkeypatch):
    _, records = opened(BpfProgram("sched-delay", threshold_us=1_000_000_000))
    reads = []
    monkeypatch.setattr(records._ring, "read", reads.append)
    busy(10)
    assert not records.drain()
    assert reads == []
    assert records.fileno() >= 0


def test_a_record_that_is_not_committed_is_waited_for_by_the_tick_alone(opened, monkeypatch):
    _, records = opened(ALL)
    busy(100)
    real = records._ring.read

    def busy_ring(*args):
        real(*args)
        return bpf_records.Status.STILL_BUSY

    monkeypatch.setattr(records._ring, "read", busy_ring)
    assert not records.drain()
    assert records.fileno() == -1
    assert records.counters()["busy"] == 1
    monkeypatch.undo()
    records.drain()
    assert records.fileno() >= 0


def test_what_a_program_costs_is_told_where_the_kernel_measures_it(opened):
    stats = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = stats.read_text()
    _, records = opened(ALL)
    try:
        stats.write_text("0")
        assert (records.counters()["runs"], records.counters()["run_ns"]) == (0, 0)
        stats.write_text("1")
        busy(2_000)
    finally:
        stats.write_text(before)
    finish(records)
    counters = records.counters()
    assert counters["runs"] > counters["attempts"] / 2 > 3_000
    assert 5 < counters["run_ns"] / counters["runs"] < 50_000
    assert counters["recursion_misses"] == 0


def test_without_records_a_program_measures_and_its_stream_is_not_watched(opened):
    (source,) = opened(BpfProgram("sched-delay", threshold_us=0, records=False))
    busy(1_000)
    source.drain()
    assert not source.alive()
    assert finish(source) == []
    assert source.counters()["attempts"] == 0
    measured = source._program.measures()["wait_ns"]
    assert sum(measured) > 3_000


# The description


def test_the_description_comes_first_and_is_named_by_every_batch(opened):
    types, records = opened(ALL)
    assert types.pending_bytes() > 0
    (batch,) = types.cut()
    assert types.cut() == []
    assert (types.stream.instance, batch.first, batch.next, types.next_position()) == ("sched-delay/types", 0, 1, 1)
    said = bpf.unpack_types(batch.body)
    assert (said.program, said.type, said.source, said.ring_bytes) == ("sched-delay", "sched_delay", "own", 32768 << 10)
    assert said.btf[:2] in (b"\x9f\xeb", b"\xeb\x9f")
    assert b"\0sched_delay\0" in said.btf
    busy(100)
    assert {each.descriptor for each in finish(records)} == {bpf.descriptor(batch.body)} == {batch.descriptor}


def test_a_later_run_goes_on_with_the_number_of_descriptions(opened):
    types, _ = opened(ALL, known={STREAM._replace(instance="sched-delay/types"): Known(3, 7)})
    (batch,) = types.cut()
    assert (batch.first, batch.next) == (3, 4)


# One agent after another


def test_a_run_after_a_clean_end_goes_on_without_a_loss(opened):
    _, first = opened(ALL)
    busy(500)
    batches = finish(first)
    first.close()
    _, second = opened(ALL, known={STREAM: Known(batches[-1].next, 9)})
    assert second.next_position() == batches[-1].next > 0
    busy(500)
    more = finish(second)
    assert_contiguous(more, batches[-1].next)
    assert losses_of(more) == []


def test_what_a_killed_agent_had_read_is_counted_and_what_its_ring_held_is_unknown(opened, tmp_path):
    if (child := os.fork()) == 0:
        _, records = opened(ALL)
        busy(500)
        records.drain()
        (tmp_path / "read").write_text(str(records._stretches.read))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    read = int((tmp_path / "read").read_text())
    assert read > 1000
    _, second = opened(ALL, known={STREAM: Known(400, 9)})
    batches = finish(second)
    assert losses_of(batches)[:2] == [
        Loss("drop", 400, read - 400, "agent-died", "agent"),
        Loss("drop", read, None, "agent-died", "agent", "event"),
    ]
    assert_contiguous(batches, read)


def test_a_killed_agent_without_a_journal_is_an_unknown_loss(opened, tmp_path, caplog):
    (tmp_path / "bpf").write_text("in the way")
    _, records = opened(ALL, known={STREAM: Known(400, 9)})
    assert "what a killed agent had read will be an unknown loss" in caplog.text
    batches = finish(records)
    assert losses_of(batches)[0] == Loss("drop", 400, None, "agent-died", "agent", "event")


def frames_of(log):
    found = [decode(payload) for _, _, payload in read_all(log, SURFACES["bpf"].topic)]
    return [frame for frame in found if frame.stream.instance == "sched-delay"]


def test_an_agent_killed_in_mid_stream_and_started_again(tmp_path):
    log = tmp_path / "log"
    config = tmp_path / "c.toml"
    config.write_text('[[bpf.programs]]\nname = "sched-delay"\nthreshold_us = 0\nring_kib = 64\n')
    flags = ("--config", str(config), "--linger-ms", "5", "--heartbeat-s", "0.2")
    first = AgentProcess(log, *flags, err=tmp_path / "1.err", surface="bpf").started()
    second = None
    try:
        busy(10_000)
        first.kill()
        second = AgentProcess(log, *flags, err=tmp_path / "2.err", surface="bpf").started()
        busy(10_000)
        second.stop()
    finally:
        for each in (first, second):
            if each is not None:
                each.close()
    found = frames_of(log)
    runs = list(dict.fromkeys(frame.run for frame in found))
    assert len(runs) == 2
    before, after = ([frame for frame in found if frame.run == run] for run in runs)
    positions = [loss for frame in after for loss in frame.losses if loss.unit == "position"]
    assert [loss.reason for loss in positions] in ([], ["agent-died"])
    assert before[-1].next + sum(loss.count for loss in positions) == after[0].first
    unknown = [loss for frame in after for loss in frame.losses if loss.count is None]
    assert unknown == [Loss("drop", after[0].first, None, "agent-died", "agent", "event")]
    last = heartbeat.unpack([frame for frame in after if frame.encoding == "heartbeat" and frame.body][-1].body)
    refused = sum(refused_by_cpu([loss for frame in after for loss in frame.losses]).values())
    assert refused == last.counters["ring_full"] + last.counters["ring_busy"]
    records = [frame for frame in after if frame.encoding == "bpf"]
    assert_contiguous(records, after[0].first)
    assert last.counters["attempts"] == len(delays_of(records)) + refused
    assert last.counters["final"] == 1


def recorded(log):
    """Return the records of each of the two CPUs that the log has by now."""
    found = by_cpu(delays_of([each for each in frames_of(log) if each.encoding == "bpf"]))
    return [found[cpu] for cpu in (0, 1)]


def test_an_agent_that_stands_still_counts_on_each_cpu_what_its_ring_refused(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[[bpf.programs]]\nname = "sched-delay"\nthreshold_us = 0\nring_kib = 64\n')
    agent = AgentProcess(tmp_path / "log", "--config", str(config), err=tmp_path / "err", surface="bpf").started()
    try:
        agent.process.send_signal(signal.SIGSTOP)
        busy(10_000)
        agent.process.send_signal(signal.SIGCONT)
        # A CPU shows its gap only by a record behind it: until the agent has made room, its records are refused too.
        deadline = time.monotonic() + 30
        while not all(each and each[-1].cpu_seq > 10_000 for each in recorded(tmp_path / "log")):
            assert time.monotonic() < deadline
            busy(100)
        agent.stop()
    finally:
        agent.close()
    found = frames_of(tmp_path / "log")
    delays, refused = (
        by_cpu(delays_of([each for each in found if each.encoding == "bpf"])),
        refused_by_cpu(losses_of(found)),
    )
    assert sum(refused.values()) > 30_000
    last = heartbeat.unpack([each for each in found if each.encoding == "heartbeat" and each.body][-1].body).counters
    assert sum(refused.values()) == last["ring_full"] + last["ring_busy"]
    assert last["attempts"] == last["records"] + sum(refused.values())
    for cpu in (0, 1):
        numbers = [each.cpu_seq for each in delays[cpu]]
        # Refused after the last record of a CPU: only the counters know.
        gaps = sum(after - before - 1 for before, after in zip([-1, *numbers], numbers, strict=False))
        assert refused[cpu] >= gaps > 10_000
    behind = last["attempts"] - sum(each[-1].cpu_seq + 1 for each in delays.values())
    assert sum(refused.values()) == behind + sum(each[-1].cpu_seq + 1 - len(each) for each in delays.values())


# What is refused


def test_a_user_without_the_capabilities_is_told_which():
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            program.Program("sched-delay", 4096, {})
        except AccessError as e:
            os.write(tell, str(e).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(tell)
    said = os.read(told, 4096)
    os.close(told)
    assert said.startswith(b"BPF program sched-delay cannot be loaded: it takes CAP_BPF and CAP_PERFMON, or root")


@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ((), "which programs"),
        ((BpfProgram("sched-dely"),), "there is no BPF program sched-dely: the nearest is sched-delay"),
        ((BpfProgram("sched-delay", look_ms=100),), "BPF program sched-delay has no look_ms$"),
        ((BpfProgram("irq-off", pids=(1,)),), "BPF program irq-off has no pids$"),
    ],
)
def test_what_is_not_there_is_said(opened, programs, said):
    with pytest.raises(UsageError, match=said):
        opened(*programs)


def test_programs_that_were_not_built_are_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "FOLDER", tmp_path)
    with pytest.raises(AccessError, match="run `make bpf`"):
        source_module.check()
    with pytest.raises(AccessError, match="run `make bpf`"):
        program.Program("sched-delay", 4096, {})


def test_check_says_what_the_kernel_takes():
    said = source_module.check()
    assert re.fullmatch(r"the kernel takes .*sched-delay.* \(libbpf v[0-9.]+\)", said)
    assert all(name in said for name in program.names())


def test_a_program_that_the_kernel_refuses_costs_none_of_the_others(monkeypatch):
    made = source_module.Program

    def refused(name, *settings):
        if name in refusing:
            raise AccessError(f"BPF program {name} cannot be loaded: no such map")
        return made(name, *settings)

    monkeypatch.setattr(source_module, "Program", refused)
    refusing = {"block-io"}
    said = source_module.check()
    assert said.startswith("the kernel takes hang")
    assert said.endswith("); BPF program block-io cannot be loaded: no such map")
    refusing = set(program.names())
    with pytest.raises(AccessError, match=f"^BPF program {min(refusing)} cannot be loaded: no such map$"):
        source_module.check()


def test_optional_parts_are_told_at_the_start_and_in_each_heartbeat(opened, caplog):
    with caplog.at_level("INFO"):
        _, records = opened(BpfProgram("hang"))
    counters = records.counters()
    told = {name.removeprefix("has_"): there for name, there in counters.items() if name.startswith("has_")}
    assert (told["sched_process_hang"], told["rcu_stall_warning"], told["mark_victim"]) == (1, 1, 1)
    # What this kernel has not got is 0 there, and named in the message.
    missing = sorted(name for name, there in told.items() if not there)
    said = [each.getMessage() for each in caplog.records if "without" in each.getMessage()]
    assert said == ([f"bpf hang: without {', '.join(missing)}, which this kernel has not got"] if missing else [])


def test_a_journal_says_how_a_run_ended(opened, tmp_path):
    _, records = opened(ALL)
    noted = journal.find(tmp_path / "bpf", "sched-delay", BOOT, bpf_records.SLOTS)
    assert noted.noted(bpf_records.ENDED) == (0, 0)
    finish(records)
    records.close()
    assert noted.noted(bpf_records.ENDED) == (1, 1)
