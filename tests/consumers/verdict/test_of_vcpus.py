"""Entries to and exits from the guest, as a trace of KVM has them, tell the guest from its VMM; a ring that lost none."""

import duckdb
import pytest

from consumers.clocks.graph import BOOT, Graph, Node
from consumers.coverage import Span
from consumers.timeline.scope import Scope
from consumers.verdict import of_vcpus
from consumers.verdict.facts import Facts, known
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
    return of_vcpus._with_exits(look, facts, there, [thread])


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
