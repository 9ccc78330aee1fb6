"""Frames in, changed incidents out: the log alone decides, whatever it is cut into and wherever it is taken up again."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.alerts.budget import INCIDENT_LINES, LINES_BURST_MAX, LINES_PER_S_MAX
from consumers.alerts.machine import HISTORIES_MAX, Machine
from consumers.alerts.signs import Sign
from consumers.incidents.incident import State
from consumers.reports.report import Kind
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import decode, encode
from tests.consumers.alerts._floods import flood
from tests.consumers.alerts._stalls import HEALTHY, SOFT, Kernel, S


def taken(machine, message):
    frame = decode(message)
    return machine.feed(frame, frame.realtime_ns)


def fed(machine, *frames):
    """Return the newest of each incident that `frames` changed."""
    found = {}
    for frame in frames:
        found |= {each.id: each for each in taken(machine, frame)}
    return list(found.values())


def machine():
    return Machine("m1", "guest-kernel")


def test_a_start_line_is_an_incident_at_once():
    (found,) = taken(machine(), Kernel().stalls(cpu=3))
    assert (found.kind, found.cpus, found.task, found.state) == (Kind.SOFT_LOCKUP, (3,), "stress", State.OPEN)
    assert found.source == ("m1", "b1", "guest-kernel")


def test_a_panic_that_nothing_foretold_is_an_incident_with_what_the_kernel_died_of():
    each, kernel = machine(), Kernel()
    oops = (
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "CPU: 1 PID: 77 Comm: sh Not tainted 6.1.0 #1",
        "RIP: 0010:hyplab_crash+0x12/0x20 [hyplab]",
    )
    assert fed(each, kernel.says(*oops)) == []
    # Two frames, and a takeover between them.
    each = Machine.restore("m1", "guest-kernel", json.loads(json.dumps(each.state())))
    (found,) = fed(each, kernel.says("Kernel panic - not syncing: Fatal exception", after_s=0.001))
    assert (found.kind, found.cpus, found.task, found.state) == (Kind.PANIC, (1,), "sh", State.OPEN)
    assert (found.root.frames, found.root.module) == (("hyplab_crash",), "hyplab")
    (ended,) = fed(each, Kernel(boot="b2").says(HEALTHY))
    assert (ended.id, ended.ended_by) == (found.id, "reboot")
    # Of an oops that the kernel lives on after, nothing remains.
    assert fed(each, kernel.says(*oops), kernel.says(HEALTHY, after_s=10)) == []


def test_healthy_records_are_not_parsed():
    each, kernel = machine(), Kernel()
    assert fed(each, *(kernel.says(*[HEALTHY] * 50) for _ in range(20))) == []
    assert each.parsed == 0
    assert len(json.dumps(each.state())) < 1024


def test_while_a_report_is_open_every_line_may_be_its_own_and_afterwards_none():
    each, kernel = machine(), Kernel()
    fed(each, kernel.stalls(), kernel.says(" spin_forever+0x10/0x20 [bad_module]", after_s=0.001))
    assert each.parsed == 3
    fed(each, kernel.says(HEALTHY, after_s=100), kernel.says(HEALTHY, HEALTHY, after_s=1))
    assert each.parsed == 4


DELAY = "Calibrating delay loop (skipped), value calculated using timer frequency.. 5192.30 BogoMIPS (lpj=10384608)"
STALL = "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"
TAIL = "rcu: \\x09(detected by 0, t=1256 jiffies, g=3953, q=2031 ncpus=2)"


@pytest.mark.parametrize("restored", [False, True])
def test_what_the_kernel_says_of_its_ticks_when_it_boots_counts_a_day_later(restored):
    each, kernel = machine(), Kernel()
    fed(each, kernel.says(DELAY), kernel.says(HEALTHY, after_s=86_400))
    if restored:
        each = Machine.restore("m1", "guest-kernel", json.loads(json.dumps(each.state())))
    (found,) = fed(each, kernel.says(STALL), kernel.says(TAIL, after_s=0.001), kernel.says(HEALTHY, after_s=40))
    assert found.duration == (5.024, 5.024)


def test_what_programs_write_into_the_kernels_log_is_no_incident():
    each, kernel = machine(), Kernel()
    assert fed(each, kernel.says(SOFT.format(cpu=1, s=22), prio=12)) == []


def test_an_identity_in_a_text_is_nobodys():
    each, kernel = machine(), Kernel()
    forged = "machine=victim boot_id=other watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:1]"
    assert fed(each, kernel.says(forged)) == []
    (found,) = fed(each, kernel.says(SOFT.format(cpu=1, s=22) + "\\x0amachine=victim"))
    assert found.source.machine == "m1"


CSD = "smp: csd: Detected non-responsive CSD lock (#1) on CPU#0, waiting 5000000123 ns for CPU#01 do_nothing+0x0/0x10(0x0)."
UNSTUCK = "csd: CSD lock (#1) got unstuck on CPU#00, CPU#01 released the lock."


# What the kernel says of a mount with an option that it does not know, which needs no privilege.
def quoting(text):
    return f"tmpfs: Unknown parameter 'x\\x0a{text}\\x0ay'"


@pytest.mark.parametrize("text", [SOFT.format(cpu=1, s=22), "INFO: task kswapd0:55 blocked for more than 999 seconds."])
def test_what_a_record_of_the_kernel_quotes_opens_nothing(text):
    each, kernel = machine(), Kernel()
    assert fed(each, kernel.says(quoting(text), prio=3)) == []


def test_what_a_record_of_the_kernel_quotes_ends_nothing():
    each, kernel = machine(), Kernel()
    (opened,) = fed(each, kernel.says(CSD))
    fed(each, kernel.says(quoting(UNSTUCK), prio=3, after_s=40))
    assert opened.state is State.OPEN
    (ended,) = fed(each, kernel.says(UNSTUCK))
    assert (ended.id, ended.state, ended.ended_by) == (opened.id, State.ENDED, "end-line")


def test_a_near_miss_is_counted_and_no_incident():
    each, kernel = machine(), Kernel()
    assert fed(each, kernel.says("watchdog: CPU#1 soft lockup detected of a new sort")) == []
    assert each.near_misses == 1


def test_frames_that_come_again_change_nothing():
    each, kernel = machine(), Kernel()
    frames = [kernel.says(HEALTHY), kernel.stalls()]
    assert len(fed(each, *frames)) == 1
    assert fed(each, *frames) == []


def test_of_a_frame_that_overlaps_only_what_is_new_counts():
    each, kernel = machine(), Kernel()
    first = kernel.stalls()
    (opened,) = fed(each, first)
    both = decode(first)
    later = Kernel()
    later.seq, later.ts_us = kernel.seq, kernel.ts_us
    new = decode(later.stalls(cpu=1, s=48, after_s=26))
    parts = [kmsg.unpack(each.body) for each in (both, new)]
    records = []
    for lengths, data in parts:
        at = 0
        for length in lengths:
            records.append(bytes(data[at : at + length]))
            at += length
    both.body, both.next, both.count, both.number = kmsg.pack(records), new.next, len(records), 9
    (found,) = fed(each, encode(both))
    assert found.id == opened.id
    assert len(found.start_lines) == 2


def test_another_boot_ends_what_was_open():
    each = machine()
    (opened,) = fed(each, Kernel().stalls())
    (ended,) = fed(each, Kernel(boot="b2").says(HEALTHY))
    assert (ended.id, ended.state, ended.ended_by) == (opened.id, State.ENDED, "reboot")


def test_an_older_boot_that_speaks_again_is_no_reboot():
    each, old, new = machine(), Kernel(), Kernel(boot="b2")
    fed(each, old.says(HEALTHY), new.says(HEALTHY))
    (opened,) = fed(each, new.stalls())
    assert fed(each, old.says(HEALTHY)) == []
    assert opened.state is State.OPEN


def test_boots_that_are_remembered_have_a_bound():
    each = machine()
    for number in range(3 * HISTORIES_MAX):
        fed(each, Kernel(boot=f"b{number}").stalls())
    assert len(each.state()["histories"]) == HISTORIES_MAX


def test_silence_makes_it_stale_and_never_ends_it():
    each, kernel = machine(), Kernel()
    fed(each, kernel.stalls())
    changed = fed(each, *(kernel.beats() for _ in range(30)))
    assert [found.state for found in changed] == [State.STALE]


def leapt(kernel, ahead_s):
    """Let printk's clock leap, or fall, while time goes on."""
    kernel.ts_us += ahead_s * 10**6
    kernel.start_ns -= ahead_s * S


WHERE = ("CPU: 1 PID: 77 Comm: stress Not tainted 6.1.0 #1", "RIP: 0010:spin_forever+0x10/0x20 [bad_module]")
AHEAD = "tsc: Marking TSC unstable due to check_tsc_sync_source failed"


def repeated(each, kernel, times=4):
    """Return what is told of a lockup that is said again and again, each time its stack in a frame of its own."""
    found = []
    for n in range(times):
        frames = kernel.says(SOFT.format(cpu=1, s=22 + 24 * n), after_s=24), kernel.says(*WHERE, after_s=0.03)
        found += [(one.id, one.state) for frame in (*frames, kernel.beats()) for one in taken(each, frame)]
        assert each.incident(found[-1][0]).reports[-1].frames == ("spin_forever",)
    return set(found)


def restart(each):
    return Machine.restore("m1", "guest-kernel", json.loads(json.dumps(each.state())))


@pytest.mark.parametrize("back_s", [0, 7, 60, 1000, 4000])
@pytest.mark.parametrize("restarted", [False, True])
def test_where_printks_clock_falls_a_lockup_is_one_incident_with_its_stack(back_s, restarted):
    each, kernel = machine(), Kernel()
    kernel.ts_us = 7200 * 10**6
    fed(each, kernel.says("watchdog: Watchdog detected nothing, stuck for 1"))
    leapt(kernel, -back_s)
    found = repeated(restart(each) if restarted else each, kernel)
    assert [state for _, state in found] == [State.OPEN]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_record_that_is_stamped_far_ahead_makes_nothing_stale(restarted):
    each, kernel = machine(), Kernel()
    (opened,) = fed(each, kernel.stalls())
    fed(each, kernel.says(HEALTHY, after_s=5))
    leapt(kernel, 9000)
    fed(each, kernel.says(AHEAD))
    each = restart(each) if restarted else each
    fed(each, kernel.beats(after_s=1))
    leapt(kernel, -9000)
    assert repeated(each, kernel) == {(opened.id, State.OPEN)}


def test_where_printks_clock_leaps_for_good_silence_is_counted_from_there():
    each, kernel = machine(), Kernel()
    fed(each, kernel.says(HEALTHY, AHEAD))
    leapt(kernel, 9000)
    assert [state for _, state in repeated(each, kernel)] == [State.OPEN]
    assert [one.state for one in fed(each, *(kernel.beats() for _ in range(60)))] == [State.STALE]


def test_a_clock_that_an_older_program_set_too_far_ahead_is_set_right():
    each, kernel = machine(), Kernel()
    fed(each, kernel.says(HEALTHY))
    value = each.state()
    (history,) = value["histories"]
    history.pop("told_ns", None)
    history["kernel_ns"] += 9000 * S
    found = repeated(Machine.restore("m1", "guest-kernel", value), kernel)
    assert [state for _, state in found] == [State.OPEN]


def sign(kernel, busy=(), idle=(), after_s=30):
    since_ns = kernel.start_ns + kernel.ts_us * 1000 + int(after_s * S)
    return Sign("m1", "guest-kernel", kernel.stream.boot_id, since_ns, busy, idle, since_ns)


@pytest.mark.parametrize("how", ["busy", "idle"])
def test_a_locked_up_cpu_that_goes_on_ends_it(how):
    each, kernel = machine(), Kernel()
    (opened,) = fed(each, kernel.stalls(cpu=3))
    assert each.alive(sign(kernel, **{how: (0, 1, 2)})) == []
    (ended,) = each.alive(sign(kernel, **{how: (3,)}))
    assert (ended.id, ended.state, ended.ended_by) == (opened.id, State.ENDED, "progress")


HUNG = "INFO: task dd:{pid} blocked for more than 120 seconds."


def woken(kernel, *pids, after_s=5):
    found = sign(kernel, after_s=after_s)
    return found._replace(at_ns=found.since_ns, awake=tuple((pid, 40 + i) for i, pid in enumerate(pids)))


def test_a_hung_task_ends_when_it_is_seen_not_to_be_blocked_any_more():
    each, kernel = machine(), Kernel()
    (opened,) = fed(each, kernel.says(HUNG.format(pid=77)))
    assert each.alive(woken(kernel, 78)) == []
    assert each.alive(woken(kernel, 77, after_s=-5)) == []
    (ended,) = each.alive(woken(kernel, 78, 77))
    assert (ended.id, ended.ended_by, ended.proof) == (opened.id, "progress", "procfs_blocked 41")


def test_of_several_hung_tasks_all_must_have_woken():
    each, kernel = machine(), Kernel()
    fed(each, kernel.says(HUNG.format(pid=77)), kernel.says(HUNG.format(pid=78)))
    assert each.alive(woken(kernel, 78)) == []
    assert [found.state for found in each.alive(woken(kernel, 77))] == [State.ENDED]
    (again,) = fed(each, kernel.says(HUNG.format(pid=77), after_s=3))
    assert (again.ended_by, again.proof) == ("", "")


def test_a_cpu_that_may_sleep_for_ever_is_not_alive_because_it_sleeps():
    each, kernel = machine(), Kernel()
    rcu = (
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: \t1-....: (5250 ticks this GP) idle=0eb/1/0x1 softirq=1/1 fqs=2625",
    )
    fed(each, kernel.says(*rcu))
    assert each.alive(sign(kernel, idle=(1,))) == []
    assert [found.state for found in each.alive(sign(kernel, busy=(1,)))] == [State.ENDED]


def test_a_sign_from_before_the_last_line_or_of_another_boot_proves_nothing():
    each, kernel = machine(), Kernel()
    fed(each, kernel.stalls(cpu=3))
    assert each.alive(sign(kernel, busy=(3,), after_s=-5)) == []
    assert each.alive(sign(kernel, busy=(3,))._replace(boot_id="b0")) == []


def test_a_body_that_is_none_is_an_error_and_changes_nothing():
    each, kernel = machine(), Kernel()
    frame = decode(kernel.stalls())
    frame.body = frame.body[:-1]
    with pytest.raises(BadInputError):
        each.feed(frame, 1)
    assert each.state() == {"histories": []}


def story():
    """Two boots: a stall that grows and is heard no more, then another with its reboot."""
    one, two = Kernel(), Kernel(boot="b2")
    frames = [
        one.says(HEALTHY),
        one.stalls(),
        one.says(" rcu_do_batch+0x1/0x2", after_s=0.001),
        one.stalls(s=48, after_s=26),
    ]
    frames += [one.beats(), one.says(HEALTHY), two.says(HEALTHY), two.stalls(cpu=0), two.beats(), two.says(HEALTHY)]
    return frames


def told(frames, cuts):
    """Return every change, the machine being stored and restored in front of the frames `cuts`."""
    each, found = machine(), []
    for number, frame in enumerate(frames):
        if number in cuts:
            each = Machine.restore("m1", "guest-kernel", json.loads(json.dumps(each.state())))
        # With all that it says of its reports, which is in the table: lines, stacks, CPUs.
        found += [(number, repr(change)) for change in taken(each, frame)]
    return found


@pytest.mark.parametrize("restored", [False, True])
def test_what_ends_right_behind_a_restart_has_its_lines(restored):
    each, kernel = machine(), Kernel()
    fed(each, kernel.stalls(), kernel.says(" spin_forever+0x10/0x20 [bad_module]", after_s=0.001))
    if restored:
        each = Machine.restore("m1", "guest-kernel", json.loads(json.dumps(each.state())))
    (ended,) = fed(each, Kernel(boot="b2").says(HEALTHY))
    assert (len(ended.root.lines), ended.root.cpus) == (3, (1,))


@settings(max_examples=40)
@given(st.sets(st.integers(0, 9)))
def test_taken_up_again_anywhere_it_says_the_same(cuts):
    frames = story()
    assert [each[1:] for each in told(frames, cuts)] == [each[1:] for each in told(frames, set())]


def test_of_a_flood_so_much_is_parsed_and_the_rest_is_counted():
    each, kernel = machine(), Kernel()
    for frame in flood(kernel, 100_000):
        fed(each, frame)
    took_s = 200 * 0.015
    assert 0 < each.parsed <= LINES_BURST_MAX + LINES_PER_S_MAX * took_s
    assert each.skipped == 100_000 - each.parsed
    assert each.exceeded


def test_what_was_left_out_while_it_was_open_is_noted_on_an_incident():
    each, kernel = machine(), Kernel()
    found = {}
    for frame in flood(kernel, 40_000):
        found |= {one.id: one for one in fed(each, frame)}
    marked = [one for one in found.values() if one.skipped]
    assert marked
    assert all(one.corrupted for one in marked)
    assert sum(each.skipped for each in marked) >= each.skipped


def test_an_incident_that_opens_later_lacks_nothing():
    each, kernel = machine(), Kernel()
    fed(each, *flood(kernel, 40_000))
    (found,) = [one for one in fed(each, kernel.stalls(cpu=9, after_s=4000)) if one.cpus == (9,)]
    assert (found.skipped, found.corrupted, each.exceeded) == (0, False, False)


def test_incidents_cost_more_than_their_lines():
    each, kernel = machine(), Kernel()
    frames = [kernel.stalls(cpu=cpu, after_s=1000) for cpu in range(100)]
    at_ns = decode(frames[0]).realtime_ns
    found = {one.id for frame in frames for one in each.feed(decode(frame), at_ns)}
    assert len(found) == LINES_BURST_MAX // INCIDENT_LINES


def test_what_a_flood_left_is_the_same_wherever_it_is_taken_up_again():
    frames = list(flood(Kernel(realtime_ns=10**18), 30_000))
    whole, parts = machine(), machine()
    for frame in frames:
        one = fed(whole, frame)
        other = fed(parts, frame)
        assert [repr(each) for each in one] == [repr(each) for each in other]
        parts = Machine.restore("m1", "guest-kernel", json.loads(json.dumps(parts.state())))
    assert json.dumps(whole.state()) == json.dumps(parts.state())
