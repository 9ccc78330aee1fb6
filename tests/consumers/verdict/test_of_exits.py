"""Entries to and exits from the guest, as a trace of KVM has them, tell the guest from its VMM; so do jumps of counts."""

import duckdb
import pytest

from consumers.clocks.graph import BOOT, Graph, Node
from consumers.coverage import Span
from consumers.timeline.scope import Scope
from consumers.verdict import of_exits
from consumers.verdict.facts import Facts, holds, known
from consumers.verdict.look import Look, There
from consumers.verdict.of_vcpus import Thread
from consumers.verdict.shares import Shares
from schemas.stream import Stream
from tests.consumers.verdict import _cases

S = 10**9
RING = Stream("host", "hb", "host", "ftrace", "kvm/cpu1", "boot")
_SPAN = "run varchar, number bigint, since_realtime_ns bigint, until_realtime_ns bigint, boottime_ns bigint"
_STREAM = "machine varchar, boot_id varchar, layer varchar, surface varchar, instance varchar, clock varchar"


def traced(events, lost=0, watched_s=(0, 60)):
    """Return facts of a vCPU that ran all of 10 s to 20 s; `events` are (second, name) of its thread."""
    connection = duckdb.connect()
    for name in ("kvm_entry", "kvm_exit", "kvm_userspace_exit"):
        connection.execute(f"create table trace_{name} ({_STREAM}, page bigint, ts_ns bigint, pid integer)")
    for at_s, name in events:
        connection.execute(f"insert into trace_{name} values (?, ?, ?, ?, ?, ?, 0, ?, 4104)", [*RING, int(at_s * S)])
    connection.execute(f"create table coverage ({_STREAM}, {_SPAN})")
    since, until = watched_s
    connection.execute(
        "insert into coverage values (?, ?, ?, ?, ?, ?, 'r', 1, ?, ?, ?)", [*RING, since * S, until * S, until * S]
    )
    connection.execute(f"create table losses ({_STREAM}, first_position bigint, count bigint)")
    if lost:
        connection.execute("insert into losses values (?, ?, ?, ?, ?, ?, 0, ?)", [*RING, lost])
    there = There(Node("host", "hb", BOOT), Span(10 * S, 20 * S), 0)
    scope = Scope("VM", frozenset({"guest"}), frozenset({"host"}), ("web",), (4099,), (), (RING,))
    tables = frozenset(("trace_kvm_entry", "trace_kvm_exit", "trace_kvm_userspace_exit", "coverage", "losses"))
    look = Look(connection, _cases.incident(), scope, Graph(), there.window, there, "", (RING,), tables)
    facts = Facts(10.0, {1: known(Shares({"GX": 1.0}), "sampled")})
    thread = Thread(1, 4104, (), (), frozenset({1}))
    return of_exits.add(look, facts, [thread])


POLLS = [(at / 10, name) for at in range(90, 210) for name in ("kvm_entry",)] + [
    (at / 10 + 0.02, "kvm_exit") for at in range(90, 210)
]
VMM = [(at + 0.001, "kvm_userspace_exit") for at, name in POLLS if name == "kvm_exit"]


def test_a_guest_that_runs_and_exits_seldom_is_the_guest():
    found = traced([(9, "kvm_entry"), (15, "kvm_exit"), (15.1, "kvm_entry"), (21, "kvm_exit")])
    assert found.vcpus[1].value.masses == pytest.approx({"G": 0.99, "X": 0.01})
    assert found.exits.value == "kernel"


def test_exits_that_the_vmm_handles_are_the_vmm_s_time():
    found = traced(POLLS + VMM)
    assert found.vcpus[1].value.masses == pytest.approx({"G": 0.2, "X": 0.8}, abs=0.01)
    assert found.exits.value == "userspace"
    assert found.exits.text == "of its time outside the guest 99% was in userspace"


@pytest.mark.parametrize(
    "lacking", [{"lost": 3}, {"watched_s": (0, 15)}, {"events": [(12, "kvm_entry"), (21, "kvm_exit")]}, {"events": []}]
)
def test_what_was_lost_not_watched_or_begins_later_tells_nothing(lacking):
    found = traced(**{"events": POLLS} | lacking)
    assert found.vcpus[1].value.masses == {"GX": 1.0}
    assert found.exits.value is None


_COUNTS = "exits bigint, io_exits bigint, mmio_exits bigint, mmio_exit_user bigint"
MONITOR = Stream("host", "hb", "virtual-platform", "qmp", "web", "boot")


WINDOW = Span(600 * S, 622 * S)


def counted(rates, table="qmp_exits", vcpu=1, step_s=10, error_s=0.0, window=WINDOW):
    """Return whether exits stormed from 600 s to 622 s; `rates` are (from second, exits a second, of these io)."""
    connection = duckdb.connect()
    for name in ("qmp_exits", "vcpu_exits"):
        connection.execute(
            f"create table {name} ({_STREAM}, position bigint, ts_ns bigint, vm varchar, vcpu int, {_COUNTS})"
        )
    exits = io = 0
    for number, at_s in enumerate(range(0, 700, step_s)):
        connection.execute(
            f"insert into {table} values (?, ?, ?, ?, ?, ?, ?, ?, 'web', ?, ?, ?, 0, null)",
            [*MONITOR, number, at_s * S, vcpu, exits, io],
        )
        for since_s, per_s, of_io in rates:
            if since_s == at_s and per_s < 0:
                exits = io = 0
            elif since_s <= at_s:
                rate, part = per_s, of_io
        exits, io = exits + rate * step_s, io + int(rate * step_s * part)
    there = There(Node("host", "hb", BOOT), window, int(error_s * S))
    scope = Scope("VM", frozenset({"guest"}), frozenset({"host"}), ("web",), (4099,), (), ())
    tables = frozenset(("qmp_exits", "vcpu_exits"))
    look = Look(connection, _cases.incident(), scope, Graph(), window, there, "", (MONITOR,), tables)
    return of_exits.add(look, Facts(22.0), []).exit_storm


QUIET, STORM = (0, 300, 0.1), (600, 60_000, 0.97)


@pytest.mark.parametrize("table", ["qmp_exits", "vcpu_exits"])
def test_exits_that_jump_and_go_to_the_vmm_are_a_storm(table):
    found = counted([QUIET, STORM], table)
    assert found.value is True
    who = "vCPU 1" if table == "qmp_exits" else "all vCPUs"
    # What is counted from 600 s to 630 s stormed all along.
    assert found.text == (
        f"KVM left the guest on {who} 60000 times a second, 300 in the 600 s before it; 97% of that for the VMM"
    )
    assert [(each.first, each.last) for each in found.records] == [(0, 63)]


@pytest.mark.parametrize(
    "rates",
    [
        [QUIET],
        [QUIET, (600, 60_000, 0.4)],  # most of them KVM handles itself
        [(0, 9000, 0.9), (600, 60_000, 0.9)],  # it has always had many
        [(0, 3, 0.9), (600, 400, 0.9)],  # an idle guest that wakes up
        [(0, 0, 0.0), (600, 0, 0.0)],
    ],
)
def test_what_is_usual_or_for_kvm_is_none(rates):
    assert holds(counted(rates)) is False


@pytest.mark.parametrize(
    ("rates", "more"),
    [
        ([QUIET, STORM], {"vcpu": 0}),  # of another vCPU
        ([QUIET, STORM], {"step_s": 100}),  # too seldom
        ([QUIET, STORM], {"window": Span(20 * S, 42 * S)}),  # not long enough before
        ([QUIET, STORM], {"window": Span(672 * S, 694 * S)}),  # nothing behind it
        ([QUIET, STORM, (610, -1, 0)], {}),  # begun anew in the middle
        ([QUIET, STORM], {"error_s": 80.0}),
    ],
)
def test_what_was_not_counted_around_it_tells_nothing(rates, more):
    found = counted(rates, **more)
    assert found.value is None
    assert "counted" in found.why


def test_a_vm_that_begins_anew_behind_it_has_stormed_all_the_same():
    assert counted([QUIET, STORM, (650, -1, 0)]).value is True
