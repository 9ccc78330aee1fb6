"""Messages in, cases out, and commits from which anybody goes on."""

import pytest

from consumers.alerts.budget import LINES_BURST_MAX, LINES_PER_S_MAX
from consumers.alerts.commits import Committer
from consumers.alerts.partition import DISPLACED, MACHINE_CASES_MAX, PartitionAlerter
from consumers.alerts.payload import Whose
from consumers.incidents.assembly import Limits
from consumers.incidents.incident import State
from consumers.lake.audit import audit
from consumers.lake.chain import CHECKPOINT_COMMITS, Chain
from consumers.lake.compact import compact, expire
from consumers.lake.layout import ALERTS, HOUR_NS
from consumers.lake.storage import MemoryStorage
from consumers.lake.tip import all_streams, tips
from consumers.transport.base import Message
from consumers.views import run_query
from tests.consumers.alerts._floods import flood
from tests.consumers.alerts._stalls import HEALTHY, LOG, STATE, Kernel, reading

NOW_NS = 500_000 * HOUR_NS


@pytest.fixture
def storage():
    made = MemoryStorage()
    yield made
    made.close()


def alerter(storage, whose=lambda _machine: Whose()):
    chain = Chain(storage, ALERTS + LOG.topic, 0, log_id="l", topic_id="t", first_offset=0)
    return PartitionAlerter(LOG, chain, whose)


def messages(*frames, first=0, ts_ns=NOW_NS):
    return [Message(first + n, ts_ns + n, frame) for n, frame in enumerate(frames)]


def committed(each, storage):
    committer = Committer(storage, None)
    committer.begin(each)
    outcome = committer.wait(LOG)
    committer.close()
    return outcome


def test_a_case_is_known_by_the_messages_alone(storage):
    each, kernel = alerter(storage), Kernel()
    (case,) = each.add(messages(kernel.says(HEALTHY), kernel.stalls()))
    assert (case.opened_ns, case.changed_ns, case.incident.source.machine) == (NOW_NS + 1, NOW_NS + 1, "m1")
    assert each.urgent
    assert each.position == 2


def test_its_host_is_who_it_was_when_it_opened(storage):
    known = {"m1": Whose("vm", "h1")}
    each, kernel = alerter(storage, lambda machine: known.get(machine, Whose())), Kernel()
    (case,) = each.add(messages(kernel.stalls()))
    known["m1"] = Whose("vm", "h2")
    (again,) = each.add(messages(kernel.stalls(s=48, after_s=26), first=1))
    assert again is case
    assert again.whose.host == "h1"


def test_what_is_no_frame_or_another_surfaces_is_passed_over(storage):
    each, kernel = alerter(storage), Kernel()
    cases = each.add(messages(b"damage", reading(kernel, 0), kernel.stalls()))
    assert len(cases) == 1
    assert each.counts.unreadable == 1
    assert each.position == 3


def test_messages_that_come_again_count_once(storage):
    each, kernel = alerter(storage), Kernel()
    found = messages(kernel.stalls())
    each.add(found)
    assert each.add(found) == []
    assert each.counts.messages == 1


def test_a_takeover_goes_on_with_the_same_incident_and_the_next_version(storage):
    kernel = Kernel()
    first = alerter(storage)
    (opened,) = first.add(messages(kernel.stalls()))
    assert committed(first, storage).won
    second = alerter(storage)
    assert second.position == 1
    assert second.cases[opened.incident.id] == opened
    (case,) = second.add(messages(kernel.stalls(s=48, after_s=26), first=1))
    assert case.incident.id == opened.incident.id
    assert committed(second, storage).won
    rows = run_query(storage, "select version, opened_ns from incidents order by version")[1]
    assert rows == [(1, NOW_NS), (2, NOW_NS)]


def test_of_two_at_one_offset_one_wins_and_the_other_may_begin_anew(storage):
    one, two, kernel = alerter(storage), alerter(storage), Kernel()
    found = messages(kernel.stalls())
    one.add(found)
    two.add(found)
    assert committed(one, storage).won
    assert not committed(two, storage).won
    two.reload()
    assert two.position == 1
    assert run_query(storage, "select count(*) from incidents")[1] == [(1,)]


def test_a_commit_that_failed_is_made_again_with_what_came_since(storage):
    each, kernel = alerter(storage), Kernel()
    each.add(messages(kernel.stalls()))
    batch = each.batch()
    each.add(messages(Kernel(machine="m2").stalls(), first=1))
    each.failed(batch)
    assert committed(each, storage).won
    assert sorted(run_query(storage, "select machine, version from incidents")[1]) == [("m1", 2), ("m2", 1)]


def test_where_the_log_did_not_go_on_what_changed_waits(storage):
    each, kernel = alerter(storage), Kernel()
    each.add(messages(kernel.stalls()))
    committed(each, storage)
    each.told(next(iter(each.cases)), "am", ended=False)
    assert each.batch() is None
    assert each.urgent
    each.add(messages(kernel.beats(), first=1))
    assert committed(each, storage).won
    assert next(iter(alerter(storage).cases.values())).opened_by == {"am"}


def test_a_case_closes_only_when_nothing_more_can_come_of_it(storage):
    each, kernel = alerter(storage), Kernel()
    (case,) = each.add(messages(kernel.stalls()))
    key = case.incident.id
    assert not each.close(key)
    each.add(messages(Kernel(boot="b2").says(HEALTHY), first=1))
    assert case.incident.state is State.ENDED
    assert not each.close(key), "its last version is not committed"
    committed(each, storage)
    assert each.close(key)
    assert each.cases == {}


def test_a_lake_with_an_alerters_chain_is_whole_and_says_so(storage):
    each = alerter(storage)
    for number in range(CHECKPOINT_COMMITS + 5):
        frame = Kernel(machine=f"m{number % 7}", boot=f"b{number}").stalls()
        each.add(messages(frame, first=number))
        assert committed(each, storage).won
    assert audit(storage, deep=True).problems == []
    assert all_streams(storage) == []
    (tip,) = tips(storage)
    assert (tip.topic, tip.frontier) == ("alerts.hypocenter.log", CHECKPOINT_COMMITS + 5)
    before = run_query(storage, "select * from incidents order by incident_id, version")[1]
    assert compact(storage, NOW_NS + 2 * HOUR_NS).files_out >= 1
    expire(storage, NOW_NS + 100 * HOUR_NS, grace_ms=0)
    assert run_query(storage, "select * from incidents order by incident_id, version")[1] == before
    assert audit(storage, deep=True).problems == []
    again = alerter(storage)
    assert again.position == each.position
    assert again.cases == each.cases


def test_what_was_silent_until_it_was_forgotten_ends_with_the_boot_all_the_same(storage):
    each, kernel = alerter(storage), Kernel()
    (case,) = each.add(messages(kernel.stalls()))
    each.add(messages(*(kernel.beats(after_s=600) for _ in range(12)), first=1))
    machine = each._machines["m1", "guest-kernel", ""]
    assert (case.incident.state, machine.holds(case.incident.id)) == (State.STALE, False)
    committed(each, storage)
    again = alerter(storage)
    (ended,) = again.add(messages(Kernel(boot="b2").says(HEALTHY), first=13))
    assert (ended.incident.id, ended.incident.state, ended.incident.ended_by) == (case.incident.id, "ended", "reboot")


def test_machines_have_a_bound(storage, monkeypatch, caplog):
    monkeypatch.setattr("consumers.alerts.partition.MACHINES_MAX", 3)
    each = alerter(storage)
    each.add(messages(*(Kernel(machine=f"m{number}").stalls() for number in range(5))))
    assert len(each.cases) == 3
    assert each.counts.left_out == 2
    assert len([record for record in caplog.records if "not followed" in record.message]) == 1


def test_only_machines_with_an_open_incident_are_watched(storage):
    each = alerter(storage)
    each.add(messages(Kernel().says(HEALTHY), Kernel(machine="m2").stalls()))
    assert each.watched == {("m2", "guest-kernel")}
    assert STATE.number == LOG.number


def test_a_machine_that_floods_costs_its_neighbour_no_page(storage, caplog):
    each, hostile, good = alerter(storage), Kernel("hostile"), Kernel("good")
    frames = [*flood(hostile, 50_000), good.stalls(cpu=5), *flood(hostile, 50_000)]
    opened = {}
    for offset, frame in enumerate(frames):
        for case in each.add([Message(offset, NOW_NS + offset * 10_000_000, frame)]):
            opened.setdefault(case.incident.source.machine, offset)
    took_s = len(frames) * 0.01
    assert opened["good"] == 100
    assert each.counts.parsed <= LINES_BURST_MAX + LINES_PER_S_MAX * took_s
    assert each.counts.skipped > 70_000
    assert [record.args[1] for record in caplog.records] == ["hostile"]
    (case,) = [case for case in each.cases.values() if case.incident.source.machine == "good"]
    assert (case.incident.cpus, case.incident.corrupted, case.incident.skipped) == ((5,), False, 0)


def test_of_many_failures_at_once_none_is_told_as_over_while_the_kernel_says_it_again(storage):
    each, kernel, offset, seen = alerter(storage), Kernel(), 0, {}
    for turn in range(5):
        for pid in range(100, 109):
            hung = f"INFO: task svc:{pid} blocked for more than {122 + 120 * turn} seconds."
            stack = (" __schedule+0x1/0x2", " __mutex_lock+0x1/0x2", f" drv{pid}_ioctl+0x1/0x2", f" drv{pid}+0x1/0x2")
            frame = kernel.says(hung, "Call Trace:", *stack, after_s=0.01)
            for case in each.add(messages(frame, first=offset, ts_ns=NOW_NS + turn * 120 * 10**9)):
                seen[case.incident.id] = case.incident.state, case.ended_ns
            offset += 1
        each.add(messages(*(kernel.beats() for _ in range(12)), first=offset, ts_ns=NOW_NS + turn * 120 * 10**9))
        offset += 12
    assert 1 < len(seen) <= Limits().open_max
    assert set(seen.values()) == {(State.OPEN, None)}


def test_a_machine_has_so_many_cases_and_the_oldest_makes_room(storage):
    each, kernel = alerter(storage), Kernel()
    ended = []
    for n in range(3 * MACHINE_CASES_MAX):
        cases = each.add(messages(kernel.stalls(cpu=n, after_s=4000), first=n, ts_ns=NOW_NS + n * 100 * 10**9))
        ended += [case for case in cases if case.incident.ended_by == DISPLACED]
    assert len(each.cases) <= 2 * MACHINE_CASES_MAX
    assert [case.incident.cpus for case in ended] == [(n,) for n in range(len(ended))]
    assert len(ended) == 3 * MACHINE_CASES_MAX - MACHINE_CASES_MAX
    assert all(case.ended_ns is not None for case in ended)
