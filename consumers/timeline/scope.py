"""Whose timeline: a VM with its guest's streams and what its hosts say of it, or one machine with all of its own."""

import difflib
from dataclasses import dataclass
from typing import Final

import duckdb

from consumers.clocks.graph import MONO, REALTIME, Graph, Node
from schemas.errors import UsageError
from schemas.stream import Stream

#: The tables that say who is who.
TABLES: Final = "topology_vm, topology_vcpu, relay_guests, clock_pings"
_NAMED_MAX: Final = 8
_OF_HOSTS: Final = frozenset({"kmsg", "procfs", "topology", "vcpu-time"})
#: Of these the streams of one VM are called as the VM.
_BY_NAME: Final = frozenset({"qmp", "relay"})
#: (name, uuid, the guest's name in its streams, its host)
VMS: Final = """
select distinct vm, nullif(uuid, '') as uuid, guest_machine as guest, machine as host from topology_vm
union select distinct vm, nullif(uuid, ''), coalesce(nullif(uuid, ''), vm), host_machine from relay_guests
union select distinct vm, null, machine, host_machine from clock_pings where vm is not null
"""
_THREADS: Final = "select distinct pid from topology_vm where list_contains(?, vm) and list_contains(?, machine)"


@dataclass(frozen=True, slots=True)
class Scope:
    """`machines` are told whole; of `hosts` only what concerns the VM of these `names`, whose processes are `pids`.

    `reference` are the machines whose clock orders the rows, the preferred first; `streams` all there are of both.
    """

    title: str
    machines: frozenset[str]
    hosts: frozenset[str]
    names: tuple[str, ...]
    pids: tuple[int, ...]
    reference: tuple[str, ...]
    streams: tuple[Stream, ...]

    def boots(self, machine: str) -> tuple[str, ...]:
        """Return the boots of a machine that have streams."""
        return tuple(sorted({stream.boot_id for stream in self.streams if stream.machine == machine}))


def of_vm(connection: duckdb.DuckDBPyConnection, name: str, streams: list[Stream]) -> Scope:
    """Return the scope of the VM that a host calls `name`, or that has this uuid.

    Raises:
        UsageError: no host, relay or exchange of times names such a VM, or several have the name.
    """
    rows = connection.execute(VMS).fetchall()
    mine = [row for row in rows if name in row[:2]]
    if not mine:
        raise UsageError(_unknown("VM", name, sorted({row[0] for row in rows})))
    uuids = {row[1] for row in mine if row[1]}
    if len(uuids) > 1:
        raise UsageError(f"{len(uuids)} VMs are called {name}: give the uuid, one of {_listed(sorted(uuids))}")
    names = {row[0] for row in mine}
    # What is only known by a name belongs to the uuid that has the name.
    mine += [row for row in rows if (row[1] and row[1] in uuids) or (row[0] in names and row[1] is None)]
    names |= {row[0] for row in mine}
    guests = {row[2] for row in mine if row[2]}
    # systemd takes the uuid of a VM for its machine id at the first boot (machine-id(5)).
    guests |= {guest.replace("-", "") for guest in guests if len(guest) == 36}
    hosts = {row[3] for row in mine if row[3]} - guests
    pids = [pid for (pid,) in connection.execute(_THREADS, [sorted(names), sorted(hosts)]).fetchall()]
    return Scope(
        title=f"VM {name}" + "".join(f", uuid {uuid}" for uuid in uuids if uuid != name),
        machines=frozenset(guests),
        hosts=frozenset(hosts),
        names=tuple(sorted(names)),
        pids=tuple(sorted(pids)),
        reference=(*sorted(hosts), *sorted(guests)),
        streams=tuple(each for each in streams if each.machine in guests | hosts),
    )


def of_machine(name: str, streams: list[Stream]) -> Scope:
    """Return the scope of the machine whose id begins with `name`.

    Raises:
        UsageError: there is none, or there are several.
    """
    known = sorted({stream.machine for stream in streams})
    mine = [machine for machine in known if machine == name] or [each for each in known if each.startswith(name)]
    if not mine:
        raise UsageError(_unknown("machine", name, known))
    if len(mine) > 1:
        raise UsageError(f"{len(mine)} machines begin with {name}: {_listed(mine)}")
    machines = frozenset(mine)
    own = tuple(each for each in streams if each.machine in machines)
    return Scope(f"machine {mine[0]}", machines, frozenset(), (), (), tuple(mine), own)


def told(stream: Stream, scope: Scope) -> bool:
    """Return whether losses and blind spans of `stream` belong to the timeline; of a host's not all do."""
    if stream.machine in scope.machines or stream.surface in _OF_HOSTS:
        return True
    if stream.surface == "bpf":
        return stream.instance in ("vcpu", "hang")
    whole = stream.surface == "relay" and not stream.instance  # accounts of all guests
    return whole or (stream.surface in _BY_NAME and stream.instance in scope.names)


def clocks(graph: Graph, machine: str, clock: str) -> list[Node]:
    """Return the nodes of one clock of a machine, the boot whose clocks were read last behind the others."""
    edges = graph.edges()
    found = {node for pair in edges for node in pair if node.machine == machine and node.clock == clock}

    def last_ns(node: Node) -> int:
        edge = edges.get((node._replace(clock=MONO), node._replace(clock=REALTIME)))
        return 0 if edge is None else int(edge.readings.x0_ns[-1] + edge.readings.lo_ns[-1])

    return sorted(found, key=lambda node: (last_ns(node), node))


def _unknown(what: str, name: str, known: list[str]) -> str:
    if not known:
        return f"the lake has no {what}, so none is called {name}"
    near = difflib.get_close_matches(name, known, n=_NAMED_MAX)
    return f"the lake has no {what} {name}; " + (
        f"did you mean {_listed(near)}?" if near else f"there is {_listed(known)}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED_MAX]) + (", ..." if len(names) > _NAMED_MAX else "")
