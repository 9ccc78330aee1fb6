"""Threads beside the vCPUs, and how far requests came, over rows that are written here (constructed: ten seconds)."""

from dataclasses import replace

import duckdb
import pytest

from consumers.clocks.graph import BOOT, Graph, Node
from consumers.coverage import Span
from consumers.reports.report import Kind
from consumers.timeline.scope import Scope
from consumers.verdict import of_threads
from consumers.verdict.facts import Facts, holds, known, unknown
from consumers.verdict.judge import judge
from consumers.verdict.look import Look, There
from consumers.verdict.of_vcpus import Thread
from consumers.verdict.stays import Sample
from consumers.verdict.verdict import Confidence, Owner
from schemas.stream import Stream
from tests.consumers.verdict._cases import facts, incident, report

S = 10**9
HOST = Stream("host", "hb", "host", "vcpu-time", "", "boot")
QMP = Stream("host", "hb", "virtual-platform", "qmp", "web", "boot")
GUEST = Stream("guest", "boot", "guest-kernel", "procfs", "", "boot")
_STREAM = "machine varchar, boot_id varchar, layer varchar, surface varchar, instance varchar, clock varchar"
_TIMES = "state varchar, frozen boolean, run_ns bigint, wait_ns bigint, timeslices bigint"
_COUNTS = ", ".join(f"{name} bigint" for name in of_threads._ENDED)
WINDOW = Span(10 * S, 20 * S)
ASLEEP = {"state": "S"}
FAST = known(False, "no request to a disk of the host was slow")
DISK = ("io_schedule", "folio_wait_bit_common")


class Lake:
    """The tables; `thread` and `answer` add what a host saw, `disk` what the guest did."""

    def __init__(self):
        self.connection = duckdb.connect()
        for table, columns in (
            ("vmm_thread_time", f"vm varchar, role varchar, name varchar, tid int, start_ns bigint, {_TIMES}"),
            ("qmp_blockstats", f"vm varchar, device varchar, qdev varchar, node varchar, {_COUNTS}"),
            (
                "procfs_disk",
                "device varchar, reads bigint, writes bigint, discards bigint, flushes bigint, in_flight bigint",
            ),
        ):
            self.connection.execute(f"create table {table} ({_STREAM}, position bigint, ts_ns bigint, {columns})")
        self._position = 0

    def _add(self, table, stream, at_s, **fields):
        self._position += 1
        row = {**stream._asdict(), "position": self._position, "ts_ns": int(at_s * S), **fields}
        self.connection.execute(
            f"insert into {table} by name select {', '.join(f'? as {name}' for name in row)}", [*row.values()]
        )

    def thread(self, role, name="t", tid=7, seconds=range(5, 26), ran=0.0, waited=0.0, slices=0, **seen):
        """A thread that is like that each second from 10 s to 20 s, and asleep before and behind it."""
        run = wait = 0.0
        count = 0
        for at in seconds:
            inside = 10 <= at < 20
            fields = {"state": "S", "frozen": False} | (seen if 10 <= at <= 20 else {})
            times = {"run_ns": int(run * S), "wait_ns": int(wait * S), "timeslices": count}
            self._add(
                "vmm_thread_time", HOST, at, vm="web", role=role, name=name, tid=tid, start_ns=1, **fields, **times
            )
            run, wait, count = run + ran * inside, wait + waited * inside, count + slices * inside
        return self

    def answers(self, ended, device="d0", since_s=5, step_s=1):
        """One answer each second: how much had ended."""
        for n, count in enumerate(ended):
            counts = dict.fromkeys(of_threads._ENDED, 0) | {"wr_operations": count}
            self._add(
                "qmp_blockstats", QMP, since_s + n * step_s, vm="web", device=device, qdev="q", node="n", **counts
            )
        return self

    def disk(self, ended, waiting, since_s=10.5):
        """One reading of the guest each second."""
        for n, (count, wait) in enumerate(zip(ended, waiting, strict=True)):
            self._add(
                "procfs_disk",
                GUEST,
                since_s + n,
                device="vda",
                reads=0,
                writes=count,
                discards=0,
                flushes=None,
                in_flight=wait,
            )
        return self

    def look(self, frames=DISK):
        there = There(Node("host", "hb", BOOT), WINDOW, 0)
        scope = Scope("VM", frozenset({"guest"}), frozenset({"host"}), ("web",), (4099,), (), ())
        tables = frozenset(("vmm_thread_time", "qmp_blockstats", "procfs_disk"))
        hung = incident(report(Kind.HUNG_TASK, frames=frames))
        return _Look(self.connection, hung, scope, _Same(), WINDOW, there, "", (HOST, QMP), tables)

    def facts(self, slow=FAST, **more):
        look = self.look(**more)
        return of_threads.add(look, Facts(10.0, io_slow=slow), of_threads.threads(look))


class _Look(Look):
    __slots__ = ()

    def guest(self, clock):
        return WINDOW  # the guest's clock is the host's here


class _Same(Graph):
    def convert(self, ts_ns, a, b, at_most_ns=0):
        return super().convert(ts_ns, b, b)


def judged(found):
    hung = incident(report(Kind.HUNG_TASK, frames=DISK, length_s=10.0))
    host = facts()
    whole = replace(found, host=host.host, mapped=host.mapped, lost=host.lost, clock_error_s=host.clock_error_s)
    return judge(hung, whole)


@pytest.mark.parametrize(
    ("seen", "letters", "owner"),
    [
        ({"state": "D", "frozen": True}, "T", Owner.VMM_PAUSE),
        ({"state": "t"}, "T", Owner.VMM_PAUSE),
        ({"state": "R", "waited": 0.98, "ran": 0.01, "slices": 3}, "W", Owner.HOST_CPU),
        ({"state": "D"}, "S", Owner.UNDETERMINED),  # it may wait for what the block layer does not see
        ({"state": "R", "ran": 0.99, "slices": 3}, "X", Owner.UNDETERMINED),  # and what did the VMM end?
        ({"state": "S"}, "SH", Owner.UNDETERMINED),
    ],
    ids=["frozen", "traced", "starved", "blocked", "busy", "idle"],
)
def test_a_disk_s_thread_is_judged_by_what_it_was(seen, letters, owner):
    found = Lake().thread("iothread", "io0", **seen).facts()
    assert found.iothread.value.at_least(letters) >= 0.85
    assert found.iothread.text.startswith("io0; each sum within")
    assert {each.table for each in found.iothread.records} == {"vmm_thread_time"}
    assert judged(found).owner is owner
    # Where disks have no thread of their own, the main loop serves them.
    found = Lake().thread("main", **seen).facts()
    assert found.main_loop.value.at_least(letters) >= 0.85
    assert judged(found).owner is owner


def test_a_thread_that_only_sleeps_is_never_taken_for_stuck():
    shares = Lake().thread("iothread", **ASLEEP).facts().iothread.value
    assert shares.at_least("WST") < 0.05
    assert shares.at_most("S") > 0.95  # it may wait for a lock
    assert shares.at_most("WT") < 0.15


def test_who_has_a_thread_for_its_disks_is_not_judged_by_its_main_loop():
    lake = Lake().thread("iothread", "io0", **ASLEEP).thread("main", "qemu", 8, state="D", frozen=True)
    found = lake.facts()
    assert holds(found.io_seen) is None
    assert judged(found).owner is Owner.UNDETERMINED
    # But where the monitor says that nothing at all ended.
    assert judged(lake.answers([4] * 20).facts()).owner is Owner.VMM_PAUSE


def test_of_several_threads_the_one_that_was_away_is_told_and_none_where_one_was_not_sampled():
    lake = Lake().thread("iothread", "io0", 7, **ASLEEP).thread("iothread", "io1", 8, state="D", frozen=True)
    fact = lake.facts().iothread
    assert fact.text.startswith("io1, of 2 the one that was away longest")
    assert fact.value.at_least("T") > 0.85
    blind = Lake().thread("iothread", "io0", 7, **ASLEEP).thread("iothread", "io1", 8, seconds=(5, 6), **ASLEEP)
    assert blind.facts().iothread.why == "of 2 such threads not all were sampled over the time"


def test_nobody_who_was_not_sampled_is_known():
    found = Lake().facts()
    assert {fact.value for fact in (found.iothread, found.main_loop, found.vhost)} == {None}
    assert holds(found.io_seen) is holds(found.io_done) is None


@pytest.mark.parametrize(
    ("ended", "slow", "so"),
    [
        ([4] * 20, FAST, False),
        ([4] * 8 + [5] * 12, FAST, False),  # for more than half of the time nothing did
        (range(20), FAST, None),
        ([4] * 20, replace(FAST, complete=False), None),
        ([4] * 20, unknown("nobody watched disks"), None),
        ([4] * 20, known(True, "slow"), True),
        ([], FAST, None),
    ],
    ids=["nothing ended", "nothing for long", "requests end", "watched in part", "not watched", "slow", "no monitor"],
)
def test_a_request_came_no_further_where_nothing_was_slow_and_nothing_ended(ended, slow, so):
    assert holds(Lake().thread("iothread", **ASLEEP).answers(ended).facts(slow).io_seen) is so


def test_a_busy_thread_is_the_owner_only_where_nothing_ended():
    lake = Lake().thread("iothread", state="R", ran=0.99, slices=3)
    verdict = judged(lake.answers([4] * 20).facts())
    assert (verdict.row, verdict.owner, verdict.confidence) == ("S3", Owner.VMM_BUG, Confidence.MEDIUM)


def test_what_ended_between_two_answers_is_not_taken_for_still():
    # At 15 s one ended, and of the answer of 15 s nobody knows whether it was given before.
    found = Lake().answers([4, 4, 4, 5, 5], since_s=10, step_s=2.5).facts()
    assert holds(found.io_done) is None
    assert holds(Lake().answers([4] * 5, since_s=10, step_s=2.5).facts().io_done) is False


@pytest.mark.parametrize(
    ("ended", "waiting", "vmm", "so"),
    [
        ([7] * 9, [1] * 9, [4] * 8 + [5] * 12, True),
        ([7] * 9, [1] * 9, [4] * 20, False),
        ([7] * 4 + [8] * 5, [1] * 9, [4] * 9 + [5] * 11, None),  # the guest took it, at once for all anybody knows
        ([7] * 9, [0] * 9, [4] * 8 + [5] * 12, None),
        ([7] * 9, [1] * 9, [4] * 5 + [5] * 15, False),  # it ended before the guest had anything wait
    ],
    ids=["not taken", "not ended", "taken", "nothing waits", "before"],
)
def test_the_vmm_had_ended_what_the_guest_still_waits_for(ended, waiting, vmm, so):
    found = Lake().answers(vmm).disk(ended, waiting).facts()
    assert holds(found.io_done) is so
    if so:
        assert {each.table for each in found.io_done.records} == {"qmp_blockstats", "procfs_disk"}
        verdict = judged(found)
        assert (verdict.row, verdict.owner) == ("S2", Owner.GUEST_KERNEL)


@pytest.mark.parametrize(
    ("role", "seen", "owner"),
    [
        ("vhost", {"state": "R", "waited": 0.98, "ran": 0.01, "slices": 3}, Owner.HOST_CPU),
        ("vhost", {"state": "D", "frozen": True}, Owner.VMM_PAUSE),
        ("vhost", {"state": "D"}, Owner.VMM_BUG),
        ("main", {"state": "T"}, Owner.VMM_PAUSE),
        ("vhost", {"state": "S"}, Owner.UNDETERMINED),
    ],
)
def test_a_network_that_sends_nothing_is_judged_by_who_serves_it(role, seen, owner):
    found = Lake().thread(role, "vhost-4099", **seen).facts()
    host = facts()
    whole = replace(found, host=host.host, mapped=host.mapped, lost=host.lost, clock_error_s=host.clock_error_s)
    assert judge(incident(notes=("NETDEV WATCHDOG: eth0 (virtio_net)",)), whole).owner is owner


@pytest.mark.parametrize(
    ("frames", "role", "seen", "so"),
    [
        (("p9_client_rpc", "v9fs_file_read"), "main", {"state": "T"}, True),
        (("p9_client_rpc",), "main", {"state": "R", "ran": 0.98, "slices": 2}, False),
        (("p9_client_rpc",), "main", {"state": "S"}, None),
        (("p9_client_rpc",), "daemon", {"state": "T"}, None),
        (("virtio_fs_enqueue_req", "fuse_simple_request"), "daemon", {"state": "D"}, True),
        (("fuse_simple_request",), "daemon", {"state": "D"}, None),  # by its text it is a daemon of the guest
    ],
)
def test_a_daemon_of_the_host_is_stuck_where_it_is_the_one_that_is_waited_for(frames, role, seen, so):
    found = Lake().thread(role, **seen).facts(frames=frames)
    assert holds(found.daemon_stuck) is so
    if so:
        host = facts()
        whole = replace(found, host=host.host, mapped=host.mapped, lost=host.lost, clock_error_s=host.clock_error_s)
        verdict = judge(incident(report(Kind.HUNG_TASK, frames=frames)), whole)
        assert (verdict.row, verdict.owner) == ("S5", Owner.VMM_BUG)


def test_nobody_is_blocked_only_where_all_of_a_qemu_was_looked_at(monkeypatch):
    def calmed(lake, vcpus=(), streams=(HOST, QMP)):
        look = replace(lake.look(), streams=streams)
        return of_threads.none_blocked(look, of_threads.threads(look), list(vcpus))

    calm = Lake().thread("main", **ASLEEP).thread("worker", "worker", 8, **ASLEEP)
    assert calmed(calm)
    assert not calmed(calm, streams=(HOST,))
    assert not calmed(Lake().thread("worker", **ASLEEP))
    assert not calmed(Lake().thread("main", seconds=range(5, 15), **ASLEEP))
    assert not calmed(Lake().thread("main", **ASLEEP).thread("worker", "worker", 8, state="D"))
    assert calmed(Lake().thread("main", **ASLEEP).thread("iothread", "io0", 8, state="D", frozen=True))
    monkeypatch.setattr(of_threads, "_THREADS_MAX", 2)
    assert not calmed(calm)
    monkeypatch.undo()
    waits = Thread(0, 9, (Sample(15 * S, "D", frozen=False, run_ns=0, wait_ns=0),), (), frozenset())
    assert not calmed(calm, (waits,))
