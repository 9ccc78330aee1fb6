"""One failure is one incident, from whatever lines and in whatever order they came."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.incidents import codec
from consumers.incidents.assembly import IncidentAssembler, Limits
from consumers.incidents.incident import Source, State
from consumers.incidents.progress import Progress
from consumers.reports.report import Kind, Line, Report, Seconds
from tests.consumers.incidents._reports import SOURCE, S, hung, play, rcu, report, soft, stack


def kinds(assembler):
    return [[each.kind for each in incident.start_lines] for incident in assembler.incidents]


def test_an_old_kernel_says_22_seconds_again_and_again_and_it_is_one_lockup_of_78():
    (incident,) = play(soft(1, 100, 22), soft(1, 128, 22), soft(1, 156, 22)).incidents
    assert (incident.duration, incident.duration_from) == (Seconds(78, 78), "span")
    assert incident.lengths["printed"] == Seconds(22, 22)
    assert len(incident.start_lines) == 3 and incident.since_ns == 78 * S


def test_a_new_kernel_says_how_long_it_is_and_that_is_the_length():
    (incident,) = play(soft(1, 100, 22), soft(1, 126.4, 48)).incidents
    assert (incident.duration, incident.duration_from) == (Seconds(48, 48), "printed")


def test_a_lockup_after_a_long_time_of_health_is_another():
    assert kinds(play(soft(1, 100, 22), soft(1, 200, 22))) == [["soft_lockup"], ["soft_lockup"]]


def test_a_length_that_reaches_back_over_lines_that_were_lost_is_the_same_stall():
    assert len(play(soft(1, 100, 22), soft(1, 300, 222)).incidents) == 1


def test_a_victim_that_waits_for_another_cpu_joins_it_and_is_not_the_root():
    victim = soft(0, 14.47, 8, "insmod", 138, lines=stack("smp_call_function_many_cond", "on_each_cpu_cond_mask"))
    (incident,) = play(victim, soft(1, 20.4, 14, "sh", 137)).incidents
    assert incident.first_kind == incident.kind == "soft_lockup"
    assert (incident.root.cpus, incident.pid, incident.victims) == ((1,), 137, ("insmod:138",))
    assert incident.cpus == (0, 1)


def test_four_detectors_of_one_pause_are_one_incident_whose_root_began_first():
    found = play(
        rcu(7, 100, 30, 0, 1),
        soft(0, 100.2, 31),
        hung(9, 100.3, 33, "io_schedule"),
        report("workqueue_lockup", 101, 34),
    ).incidents
    assert len(found) == 1
    assert found[0].kind == "workqueue_lockup" or found[0].since_ns == 67 * S
    assert found[0].first_kind == "rcu_stall"


def test_a_new_grace_period_on_the_same_cpu_soon_is_the_same_incident_but_not_long_after():
    assert len(play(rcu(7, 100, 21, 1), rcu(8, 150, 21, 1)).incidents) == 1
    assert len(play(rcu(7, 100, 21, 1), rcu(8, 150, 21, 2)).incidents) == 2
    assert len(play(rcu(7, 100, 21, 1), rcu(9, 400, 21, 1)).incidents) == 2


def test_hung_tasks_of_one_lock_or_of_one_storage_are_one_incident_with_victims():
    holder = hung(137, 11.39, 5, "schedule", "msleep", "hyplab_hold", module="hyplab")
    waiter = hung(138, 11.4, 5, "__mutex_lock", "hyplab_wait", module="hyplab")
    (incident,) = play(holder, waiter).incidents
    assert incident.victims == ("t138:138",)
    one, other = hung(1, 200, 122, "io_schedule", "ext4_sync_file"), hung(2, 200.1, 122, "jbd2_log_wait_commit")
    assert len(play(one, other).incidents) == 1


def test_hung_tasks_that_wait_for_different_things_part_once_that_is_known_and_stay_apart():
    assembler = IncidentAssembler(SOURCE)
    one, other = hung(1, 200, 122, "fuse_wait_answer"), hung(2, 200.1, 122, "nfs_wait_client_init")
    assembler.apply([("opened", one), ("closed", one)], one.ts_ns)
    changed = assembler.apply([("opened", other)], other.ts_ns)
    assert [each.id for each in changed] == [assembler.incidents[0].id], "a storm pages once"
    changed = assembler.apply([("closed", other)], other.ts_ns)
    assert len(changed) == 2 and kinds(assembler) == [["hung_task"], ["hung_task"]]
    play(hung(1, 322, 244, "fuse_wait_answer"), hung(2, 322.1, 244, "nfs_wait_client_init"), assembler=assembler)
    assert [[line.place for line in each.start_lines] for each in assembler.incidents] == [[2000, 3220], [2001, 3221]]


def test_what_had_ended_and_lost_what_was_not_its_own_is_over_by_the_same():
    assembler = play(soft(1, 100, 5))
    assembler.progress(Progress(101 * S, cpu=1))
    late = rcu(7, 108, None, 1)
    (own,) = assembler.apply([("opened", late)], late.ts_ns)
    assert own.state is State.OPEN  # by its start line alone it may have begun 21 s ago
    late.duration = Seconds(5.0, 5.0)
    old, new = assembler.apply([("closed", late)], late.ts_ns)
    assert (old.state, old.ended_by, new.state) == (State.ENDED, "progress", State.OPEN)


def test_a_task_that_waits_for_a_lock_joins_the_holder_that_its_line_names():
    holder = hung(1, 200, 122, "fuse_wait_answer")
    assert len(play(holder, hung(2, 200.1, 122, "my_ioctl", holder="t1:1")).incidents) == 1


def test_a_report_whose_tail_says_that_it_is_older_joins_what_was_open_all_that_time():
    assembler = play(soft(1, 100, 22))
    late = rcu(7, 190, None, 1)
    (own,) = assembler.apply([("opened", late)], late.ts_ns)
    late.duration = Seconds(111.0, 111.0)
    joined, older = assembler.apply([("closed", late)], late.ts_ns)
    assert joined.id == own.id and (joined.state, joined.ended_by, joined.joined) == ("ended", "joined", older.id)
    assert kinds(assembler) == [["soft_lockup", "rcu_stall"]]


def test_a_panic_joins_what_is_open_and_the_reboot_ends_it():
    assembler = play(soft(1, 100, 22), report("panic", 100.1))
    (incident,) = assembler.rebooted()
    assert (incident.panicked, incident.state, incident.ended_by) == (True, State.ENDED, "reboot")
    assert incident.kind == "soft_lockup" and assembler.state() == {}


def test_a_panic_that_nothing_foretold_is_an_incident_that_only_a_reboot_ends():
    assembler = play(report("panic", 100.1, cpus=(2,)))
    assert assembler.progress(Progress(101 * S, cpu=2)) == []
    (incident,) = assembler.rebooted()
    assert (incident.kind, incident.panicked, incident.ended_by) == ("panic", True, "reboot")


@pytest.mark.parametrize(
    ("why", "after_s", "found"),
    [
        ("hung_task: blocked tasks", 60, 1),
        ("sysrq triggered crash", 60, 1),
        ("", 60, 1),
        ("Fatal exception", 5, 1),
        ("Fatal exception", 60, 2),
        ("Attempted to kill init! exitcode=0x0000000b", 60, 2),
    ],
)
def test_a_panic_of_another_reason_is_no_part_of_what_was_open_long_before(why, after_s, found):
    notes = (f"Kernel panic - not syncing: {why}",) if why else ()
    assert len(play(hung(7, 100, 120), report("panic", 100 + after_s, notes=notes)).incidents) == found


def test_who_found_that_all_is_over_is_no_victim_and_its_cpu_not_accused():
    over = {"notes": ("Kernel panic - not syncing: hung_task: blocked tasks",), "task": "khungtaskd", "pid": 30}
    (incident,) = play(hung(7, 100, 120), report("panic", 100, cpus=(1,), **over)).incidents
    assert (incident.task, incident.victims, incident.cpus) == ("t7", (), ())
    (alone,) = play(report("panic", 100, cpus=(1,), **over)).incidents
    assert (alone.task, alone.cpus) == ("khungtaskd", (1,))


def test_no_kernel_dies_of_a_clock():
    clock, panic = play(report("clocksource_unstable", 1.1, cpus=(1,)), report("panic", 3.1)).incidents
    assert (clock.kind, clock.panicked, panic.kind) == ("clocksource_unstable", False, "panic")


def test_what_begins_behind_a_panic_comes_of_it():
    (incident,) = play(report("panic", 100), soft(1, 130, 22), rcu(7, 125, 21, 1)).incidents
    assert (incident.kind, incident.root.kind, len(incident.reports)) == ("panic", "panic", 3)
    # What only was printed behind it had begun before.
    (incident,) = play(report("panic", 100), hung(7, 105, 120, "io_schedule")).incidents
    assert (incident.kind, incident.panicked) == ("hung_task", True)
    assert len(play(report("panic", 100), soft(1, 300, 22)).incidents) == 2


def test_hard_lockups_of_several_cpus_within_two_thresholds_are_one():
    one, other = (report("hard_lockup", at_s, cpus=(cpu,)) for cpu, at_s in ((1, 100), (3, 119)))
    (incident,) = play(one, other).incidents
    assert incident.cpus == (1, 3)


def test_silence_makes_stale_and_never_ends():
    assembler = play(soft(1, 100, 22))
    assert assembler.tick(185 * S) == []
    (incident,) = assembler.tick(200 * S)
    assert (incident.state, incident.ended_by) == (State.STALE, "")
    assert play(soft(1, 230, 152), assembler=assembler).incidents[0].state is State.OPEN


def test_a_beat_of_the_cpu_ends_it_but_not_one_from_before_nor_of_another():
    assembler = play(soft(1, 100, 22))
    assert assembler.progress(Progress(99 * S, cpu=1)) == []
    assert assembler.progress(Progress(101 * S, cpu=0)) == []
    (incident,) = assembler.progress(Progress(102 * S, cpu=1))
    assert (incident.state, incident.ended_by) == (State.ENDED, "progress")
    assert len(play(soft(1, 130, 22), assembler=assembler).incidents) == 2


@pytest.mark.parametrize(
    ("stall", "proof"),
    [
        (rcu(7, 100, 21), Progress(101 * S, flavor="rcu_sched", gp=7)),
        (hung(5, 100, 122), Progress(101 * S, pid=5)),
        (report("workqueue_lockup", 100, 31, cpus=(2,)), Progress(161 * S, cpu=2)),
    ],
)
def test_each_kind_has_its_own_sign_of_life(stall, proof):
    assert play(stall).progress(proof)[0].ended_by == "progress"


def test_every_part_must_move_before_it_is_over():
    assembler = play(soft(1, 100, 22), hung(5, 101, 122))
    assert assembler.progress(Progress(102 * S, cpu=1)) == []
    assert len(assembler.progress(Progress(103 * S, pid=5))) == 1


def test_an_end_line_ends_it_for_the_reports_before_too():
    last = rcu(7, 163, 84, 1, ended=True)
    (incident,) = play(rcu(7, 100, 21, 1), last).incidents
    assert (incident.state, incident.ended_by) == (State.ENDED, "end-line")


def test_what_others_measured_is_carried_and_used_if_it_is_longest():
    assembler = play(soft(1, 100, 22))
    (incident,) = assembler.measured(assembler.incidents[0].id, "heartbeat", Seconds(25.5, 25.7))
    assert (incident.duration, incident.duration_from) == (Seconds(25.5, 25.7), "heartbeat")
    assert assembler.measured(incident.id, "heartbeat", Seconds(25.5, 25.7)) == []


def test_without_times_neighbours_are_one_and_far_away_is_another():
    lines = [soft(1, None, 22, place=10), soft(1, None, 22, place=60), soft(2, None, 22, place=5000)]
    assert [len(each) for each in kinds(play(*lines))] == [2, 1]


def test_the_identity_depends_on_the_source_and_the_first_line_alone():
    first = play(soft(1, 100, 22)).incidents[0].id
    assert play(soft(1, 100, 22), soft(2, 101, 22)).incidents[0].id == first
    other = IncidentAssembler(Source("n", "b", "guest-kernel"))
    assert play(soft(1, 100, 22), assembler=other).incidents[0].id != first
    assert play(soft(2, 100, 22)).incidents[0].id != first


def test_a_version_is_only_counted_when_there_is_news():
    assembler = play(soft(1, 100, 22))
    (incident,) = assembler.incidents
    grown = incident.reports[0]
    assert incident.version == 1
    assert assembler.apply([("updated", grown)], grown.ts_ns) == []
    assert assembler.apply([], 101 * S) == []


def test_storms_stay_within_bounds_and_what_is_dropped_is_counted():
    many = [soft(i % 64, 100 + i / 10, 22, pid=i) for i in range(1000)]
    (incident,) = play(*many).incidents
    assert len(incident.reports) + incident.dropped_reports == 1000
    assert len(incident.start_lines) + incident.dropped_start_lines == 1000
    assert len(incident.reports) <= Limits().reports_max and len(incident.victims) <= 32
    assert incident.cpus == tuple(range(64))


# The longest texts that a report can have, in characters that JSON writes as six.
def _fat(pid, at_s):
    lines = [Line(i, 1 << 60, "C1", "\x01" * 5000, True) for i in range(200)]
    words = dict.fromkeys(("task", "taint", "release", "hardware"), "\ufffd" * 3000)
    frames = tuple(f"f{pid}" + "\x02" * 300 for _ in range(100))
    notes = tuple("\x03" * 500 for _ in range(50))
    cpus = tuple(range(1000, 2024))
    return report("hung_task", at_s, 3000, pid=pid, cpus=cpus, lines=lines, frames=frames, notes=notes, **words)


def test_the_state_of_a_machine_has_a_bound_and_is_nothing_when_quiet():
    assembler = IncidentAssembler(SOURCE)
    assert len(json.dumps(assembler.state())) <= 1024
    for i in range(200):
        play(_fat(i % 6, 5000 + i), assembler=assembler)
    assert len(assembler.incidents) > 1
    assert len(json.dumps(assembler.state())) <= 256 * 1024
    assembler.tick(100_000 * S)
    assembler.tick(200_000 * S)
    assert assembler.state() == {}


def test_more_failures_than_there_is_room_for_are_the_newests_and_nothing_that_is_open_goes():
    limits = Limits(open_max=2)
    assembler = play(soft(1, 100, 22), soft(2, 140, 5), limits=limits)
    third = soft(3, 185, 5)
    (newest,) = assembler.apply([("opened", third)], third.ts_ns)
    assert [each.cpus for each in assembler.incidents] == [(1,), (2, 3)]
    assert assembler.apply([("closed", third)], third.ts_ns) == []
    assert [each.state for each in assembler.incidents] == [State.OPEN, State.OPEN]
    assert assembler.progress(Progress(186 * S, cpu=2)) == []
    assert [each.id for each in assembler.progress(Progress(186 * S, cpu=3))] == [newest.id]


def test_what_has_ended_makes_room_first_and_then_what_is_stale():
    limits = Limits(open_max=3)
    assembler = play(soft(1, 100, 22), limits=limits)
    assembler.tick(210 * S)
    play(soft(2, 211, 5), soft(3, 240, 5), assembler=assembler)
    assembler.progress(Progress(241 * S, cpu=3))
    assert [each.state for each in assembler.incidents] == [State.STALE, State.OPEN, State.ENDED]
    play(soft(4, 260, 5), assembler=assembler)
    assert [each.cpus for each in assembler.incidents] == [(1,), (2,), (4,)]
    play(soft(5, 281, 5), assembler=assembler)
    assert [each.cpus for each in assembler.incidents] == [(2,), (4,), (5,)]


def _again(assembler):
    return IncidentAssembler.restore(SOURCE, json.loads(json.dumps(assembler.state())))


@pytest.mark.parametrize("tasks", [6, 7, 8, 30])
def test_tasks_that_hang_in_as_many_drivers_are_told_a_few_times_and_each_until_it_goes_on(tasks):
    assembler, told = IncidentAssembler(SOURCE), {}

    def note(changed):
        told.update({each.id: (each.state, each.ended_by) for each in changed if not each.joined})

    for turn in range(6):
        for pid in range(1, tasks + 1):
            each = hung(pid, 1000 + 120 * turn + pid / 10, 122 + 120 * turn, f"drv{pid}_ioctl", place=100 * turn + pid)
            note(assembler.apply([("opened", each)], each.ts_ns))
            note(assembler.apply([("closed", each)], each.ts_ns))
        assembler = _again(assembler)
    assert (len(told), set(told.values())) == (min(tasks, Limits().open_max), {(State.OPEN, "")})
    for pid in range(tasks, 0, -1):
        note(assembler.progress(Progress(1700 * S, pid=pid)))
        assembler = _again(assembler)
        assert (State.OPEN, "") in told.values() or pid == 1
    assert set(told.values()) == {(State.ENDED, "progress")}


def test_of_a_storm_every_cpu_must_go_on_also_those_whose_reports_are_gone():
    cpus = range(4 * Limits().reports_max)
    assembler = _again(play(*(soft(cpu, 100 + cpu / 100, 22) for cpu in cpus)))
    gone = min(set(cpus) - {cpu for report in assembler.incidents[0].reports for cpu in report.cpus})
    for cpu in {*cpus} - {gone}:
        assert assembler.progress(Progress(130 * S, cpu=cpu)) == []
    assert [each.state for each in assembler.progress(Progress(130 * S, cpu=gone))] == [State.ENDED]


def test_what_an_older_program_stored_has_nothing_of_reports_that_are_gone():
    value = play(soft(1, 100, 22)).state()
    for held in value["held"]:
        del held["folded"]["standing"]
    (ended,) = IncidentAssembler.restore(SOURCE, value).progress(Progress(130 * S, cpu=1))
    assert ended.state is State.ENDED


steps = st.lists(
    st.tuples(
        st.sampled_from(["soft", "hung", "rcu", "panic", "beat", "tick"]),
        st.integers(0, 200),
        st.integers(0, 3),
        st.integers(1, 130),
    ),
    max_size=25,
)


def _run(steps, *, restarts):
    assembler, at_s, told = IncidentAssembler(SOURCE), 1000, []
    for place, (what, gap_s, which, length_s) in enumerate(steps):
        at_s += gap_s
        if what == "beat":
            told += map(codec.encode, assembler.progress(Progress(at_s * S, cpu=which)))
        elif what == "tick":
            told += map(codec.encode, assembler.tick(at_s * S))
        else:
            made = {
                "soft": soft(which, at_s, length_s, place=place),
                "hung": hung(
                    which, at_s, length_s, ("fuse_wait", "nfs_wait", "io_schedule", "x_wait")[which], place=place
                ),
                "rcu": rcu(which, at_s, length_s, which % 2, place=place),
                "panic": report("panic", at_s, place=place),
            }[what]
            told += map(codec.encode, assembler.apply([("opened", made)], made.ts_ns))
            if restarts:
                assembler = IncidentAssembler.restore(SOURCE, json.loads(json.dumps(assembler.state())))
            told += map(codec.encode, assembler.apply([("closed", made)], made.ts_ns))
        if restarts:
            assembler = IncidentAssembler.restore(SOURCE, json.loads(json.dumps(assembler.state())))
    return told


@settings(max_examples=200)
@given(steps)
def test_a_restart_at_any_point_goes_on_byte_for_byte(steps):
    assert _run(steps, restarts=True) == _run(steps, restarts=False)


@given(steps)
def test_every_start_line_is_in_exactly_one_incident(steps):
    final = {}
    for text in _run(steps, restarts=False):
        incident = codec.decode(text)
        final[incident.id] = incident
    places = [line.place for each in final.values() if each.ended_by != "joined" for line in each.start_lines]
    want = [i for i, step in enumerate(steps) if step[0] not in ("beat", "tick")]
    assert sorted(places) == want


def test_a_report_may_lack_everything():
    for kind in Kind:
        assert len(play(Report(kind, 1, None, structured=False)).incidents) == 1
