"""What a host says of other guests and of other guests' TSC, over rows that are written here."""

import duckdb
import pytest

from consumers.clocks.graph import BOOT, Graph, Node
from consumers.coverage import Span
from consumers.timeline.scope import Scope
from consumers.verdict.facts import holds
from consumers.verdict.look import Look, There
from consumers.verdict.of_host import _many, _tsc_write
from tests.consumers.verdict import _cases

S = 10**9


@pytest.mark.parametrize(
    ("machine", "host", "opened_s", "so"),
    [
        ("other", "host", 101, True),
        ("other", "host", 130, True),
        ("other", "host", 140, None),  # later than the length and ten seconds: none is no no
        ("other", "elsewhere", 101, None),
        ("guest", "host", 101, None),
    ],
)
def test_other_vms_of_the_host_count_when_theirs_opened_within_the_length(machine, host, opened_s, so):
    connection = duckdb.connect()
    connection.execute("create table incidents (incident_id varchar, machine varchar, host varchar, opened_ns bigint)")
    connection.execute("insert into incidents values ('a1', 'guest', 'host', ?)", [100 * S])
    connection.execute("insert into incidents values ('b2', ?, ?, ?)", [machine, host, opened_s * S])
    there = There(Node("host", "hb", BOOT), Span(0, 22 * S), 0)
    scope = Scope("VM", frozenset({"guest"}), frozenset({"host"}), ("web",), (), (), ())
    look = Look(
        connection, _cases.incident(), scope, Graph(), there.window, there, "", (), frozenset({"incidents"})
    )  # fmt: skip
    assert holds(_many(look, there)) is so


class _OneClock(Look):
    __slots__ = ()

    def on_clock(self, clock):
        return self.there.node._replace(clock=clock), 0  # all clocks of the host are one here


@pytest.mark.parametrize(
    ("pid", "at_s", "previous", "so"),
    [
        (4104, 5, 100, True),
        (4099, 5, 100, True),
        (7777, 5, 100, None),  # of another VM
        (4104, 30, 100, None),
        (4104, 5, 123456, None),  # written, and the same
        (4104, 5, 0, None),  # a vCPU that was made
    ],
    ids=["vCPU", "process", "another's", "later", "same", "new"],
)
def test_a_tsc_was_moved_where_a_thread_of_this_vm_had_it_moved(pid, at_s, previous, so):
    columns = "machine varchar, boot_id varchar, layer varchar, surface varchar, instance varchar, clock varchar"
    connection = duckdb.connect()
    connection.execute(
        f"create table trace_kvm_write_tsc_offset ({columns}, page bigint, ts_ns bigint, pid int, vcpu_id int, "
        "previous_tsc_offset ubigint, next_tsc_offset ubigint)"
    )
    connection.execute(
        "insert into trace_kvm_write_tsc_offset values ('host', 'hb', 'host', 'ftrace', 'x', 'boot', 1, ?, ?, 0, ?, ?)",
        [at_s * S, pid, previous, 123456],
    )
    there = There(Node("host", "hb", BOOT), Span(0, 22 * S), 0)
    scope = Scope("VM", frozenset({"guest"}), frozenset({"host"}), ("web",), (4099,), (), ())
    tables = frozenset({"trace_kvm_write_tsc_offset"})
    look = _OneClock(connection, _cases.incident(), scope, Graph(), there.window, there, "", (), tables)
    fact = _tsc_write(look, there, frozenset({4099, 4103, 4104}))
    assert holds(fact) is so
    assert bool(fact.why) is (pid == 7777)
