"""Whose timeline: names that hosts, relays and exchanges of times give, and what belongs to a VM."""

import duckdb
import pytest

from consumers.timeline import scope
from schemas.errors import UsageError
from schemas.stream import Stream

A, B = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def connection():
    found = duckdb.connect()
    found.execute("create table topology_vm (vm text, uuid text, guest_machine text, machine text, pid int)")
    found.execute("create table relay_guests (vm text, uuid text, host_machine text)")
    found.execute("create table clock_pings (vm text, machine text, host_machine text)")
    yield found
    found.close()


def stream(machine, surface="kmsg", instance=""):
    return Stream(machine, "b", "host", surface, instance, "boot")


def test_a_vm_is_what_host_relay_and_pings_say_together(connection):
    connection.execute("insert into topology_vm values ('web', ?, ?, 'h1', 10), ('db', ?, ?, 'h1', 11)", [A, A, B, B])
    connection.execute("insert into relay_guests values ('web', ?, 'h1')", [A])
    connection.execute("insert into clock_pings values ('web', ?, 'h1')", [A])
    streams = [stream(A), stream(A.replace("-", "")), stream(B), stream("h1"), stream("h2")]
    for name in ("web", A):
        found = scope.of_vm(connection, name, streams)
        assert (found.names, found.pids, found.hosts) == (("web",), (10,), {"h1"})
        assert found.machines == {A, A.replace("-", "")}
        assert {each.machine for each in found.streams} == {A, A.replace("-", ""), "h1"}
        assert found.reference[0] == "h1"


def test_a_vm_without_a_uuid_goes_by_its_name(connection):
    connection.execute("insert into relay_guests values ('web', '', 'h1')")
    found = scope.of_vm(connection, "web", [stream("web"), stream("h1")])
    assert (found.machines, found.hosts, found.pids) == ({"web"}, {"h1"}, ())


def test_one_that_moved_has_both_hosts(connection):
    connection.execute("insert into topology_vm values ('web', ?, ?, 'h1', 10), ('web', ?, ?, 'h2', 77)", [A] * 4)
    found = scope.of_vm(connection, "web", [])
    assert (found.hosts, found.pids) == ({"h1", "h2"}, (10, 77))


def test_two_vms_of_one_name_take_the_uuid(connection):
    connection.execute("insert into topology_vm values ('web', ?, ?, 'h1', 10), ('web', ?, ?, 'h2', 77)", [A, A, B, B])
    with pytest.raises(UsageError, match=f"2 VMs are called web: give the uuid, one of {A}, {B}"):
        scope.of_vm(connection, "web", [])
    assert scope.of_vm(connection, B, []).machines == {B, B.replace("-", "")}


def test_the_beginning_of_an_id_must_be_of_one_machine():
    streams = [stream("abc1"), stream("abd2"), stream("ab")]
    assert scope.of_machine("abc", streams).machines == {"abc1"}
    assert scope.of_machine("ab", streams).machines == {"ab"}
    with pytest.raises(UsageError, match="2 machines begin with a"):
        scope.of_machine("a", streams[:2])
    with pytest.raises(UsageError, match=r"did you mean .*abc1"):
        scope.of_machine("abc2", streams)


def test_of_a_host_only_what_concerns_the_vm_is_told(connection):
    connection.execute("insert into topology_vm values ('web', ?, ?, 'h1', 10)", [A, A])
    found = scope.of_vm(connection, "web", [])
    told = [("kmsg", ""), ("qmp", "web"), ("vcpu-time", ""), ("bpf", "vcpu"), ("bpf", "hang")]
    told += [("relay", ""), ("relay", "web")]
    other = [("qmp", "db"), ("relay", "db"), ("ftrace", "sched/cpu0"), ("bpf", "block-io"), ("clocks", "")]
    assert all(scope.told(stream("h1", *each), found) for each in told)
    assert not any(scope.told(stream("h1", *each), found) for each in other)
    assert all(scope.told(stream(A, *each), found) for each in other)
