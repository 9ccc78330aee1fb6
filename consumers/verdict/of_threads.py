"""What the host says of the threads beside the vCPUs: where their time went, and how far a disk's request came by them.

Tables: vmm_thread_time and qmp_blockstats of the host, procfs_disk of the guest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

from consumers.clocks.graph import BOOT, Converted, Node
from consumers.coverage import Span
from consumers.export.scope import literal
from consumers.verdict import of_vcpus
from consumers.verdict.facts import Fact, Facts, holds, known, unknown
from consumers.verdict.look import CUT_NS, Look, S, There, of_rows, record
from consumers.verdict.shares import LETTERS, Shares, added
from consumers.verdict.stays import Monitor, Sample, account
from consumers.verdict.text import asks_virtiofsd, asks_vmm
from consumers.verdict.verdict import Record
from schemas.stream import Stream

#: So much of the time a thread must have stood, or nothing have ended, for a request to have come no further.
STOOD_MIN: Final = 0.5
#: And so much of a thread's time must be known before it is taken for the one that was away longest.
_KNOWN_MIN: Final = 0.5
_WHOLE_MIN: Final = 0.95
_PAD_NS: Final = 60 * S
#: The agent follows no more of one VM at a time.
_THREADS_MAX: Final = 96
_ENDED: Final = tuple(
    f"{failed}{kind}_operations" for failed in ("", "failed_") for kind in ("rd", "wr", "flush", "unmap")
)


class Helper(NamedTuple):
    """One thread: what it is for, its name, its samples, and where its time went."""

    role: str
    name: str
    samples: tuple[Sample, ...]
    shares: Shares
    records: tuple[Record, ...]

    @property
    def stood(self) -> bool:
        """Return whether it could do nothing for as long as convicts it, whatever it wanted."""
        return self.shares.at_least("WT") >= STOOD_MIN


class _Reading(NamedTuple):
    """How much each disk had ended, and how many wait, at a time."""

    ts_ns: int
    ended: dict[str, int]
    waiting: int
    rows: list[dict[str, Any]]


def threads(look: Look) -> list[Helper]:
    """Return the threads that were sampled near the time in question."""
    there, scope = look.there, look.scope
    if there is None or scope is None:
        return []
    rows = look.rows(
        "vmm_thread_time",
        "select * from vmm_thread_time where machine = ? and boot_id = ? "  # noqa: S608
        f"and vm in ({', '.join(map(literal, scope.names))}) and ts_ns between ? and ? "
        "order by role, name, tid, start_ns, ts_ns",
        *there.node[:2], there.window.since_ns - _PAD_NS, there.window.until_ns + _PAD_NS,
    )  # fmt: skip
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["tid"], row["start_ns"]), []).append(row)
    return [_helper(mine, there) for mine in list(found.values())[:_THREADS_MAX]]


# Of what it does in the VMM a thread's time on a CPU is X, and its sleep may be for want of work.
def _helper(rows: list[dict[str, Any]], there: There) -> Helper:
    samples = of_vcpus.samples_of(rows)
    always = Monitor(running=(Span(there.window.since_ns - 2 * _PAD_NS, there.window.until_ns + 2 * _PAD_NS),))
    shares = account(samples, (), always, there.window, there.error_ns)
    masses = ((key if key == LETTERS else key.replace("G", ""), mass) for key, mass in shares.masses.items())
    inside = [row for row in rows if there.window.since_ns - S <= row["ts_ns"] <= there.window.until_ns + S]
    stream = Stream(*(rows[0][name] for name in Stream._fields))
    records = record("vmm_thread_time", stream, (row["position"] for row in inside))
    return Helper(rows[0]["role"], rows[0]["name"], samples, added(masses, shares.error), records)


def none_blocked(look: Look, helpers: list[Helper], vcpus: list[of_vcpus.Thread]) -> bool:
    """Return whether no thread of the VM's QEMU was found blocked in the host's kernel, and all were looked at."""
    there, scope = look.there, look.scope
    main = [each for each in helpers if each.role == "main"]
    if there is None or scope is None or not main or main[0].shares.known < _WHOLE_MIN:
        return False
    if len(helpers) >= _THREADS_MAX:
        return False
    # Of another VMM not all threads that do its I/O are known by name.
    if not any(look.of_host("qmp", name) for name in scope.names):
        return False
    taken = [*(each.samples for each in helpers), *(each.samples for each in vcpus)]
    inside = [one for samples in taken for one in samples if _inside(one.ts_ns, there.window)]
    return not any(one.state == "D" and not one.frozen for one in inside)


def add(look: Look, facts: Facts, helpers: list[Helper]) -> Facts:
    """Return `facts` with where the time of the threads went, and whether the request reached the disk and ended."""
    there = look.there
    if there is None or look.scope is None:
        return facts
    readings = _of_vmm(look, there)
    still = _still(readings, there)
    return replace(
        facts, iothread=_accused(helpers, "iothread"), main_loop=_accused(helpers, "main"),
        vhost=_accused(helpers, "vhost"), io_seen=_seen(facts, there, helpers, still),
        io_done=_done(look, there, readings, still), daemon_stuck=_daemon(look, helpers),
    )  # fmt: skip


# Of several threads the one that was away longest: the request that is waited for names none.
def _accused(helpers: list[Helper], role: str) -> Fact[Shares]:
    mine = [each for each in helpers if each.role == role]
    if not mine:
        return unknown("no such thread of the VM was sampled")
    away = max(mine, key=lambda each: each.shares.at_least("WST"))
    if away.shares.at_least("WST") < STOOD_MIN and any(each.shares.known < _KNOWN_MIN for each in mine):
        return unknown(f"of {len(mine)} such threads not all were sampled over the time")
    which = f", of {len(mine)} the one that was away longest" if len(mine) > 1 else ""
    return known(away.shares, f"{away.name}{which}; each sum within {away.shares.error:.3f}", away.records)


# Where nothing of it was slow at the disk, it ended at once or never came: never, if nothing ended or nobody could pass
# it on. A thread that sleeps in the host's kernel may wait for what the block layer does not see.
def _seen(facts: Facts, there: There, helpers: list[Helper], still: tuple[int, list[dict[str, Any]]]) -> Fact[bool]:
    slow = holds(facts.io_slow)
    if slow:
        return replace(facts.io_slow, text=f"it reached the disk: {facts.io_slow.text}")
    if slow is None:
        return unknown(facts.io_slow.why or "the host's disks were not watched over the whole time")
    serving = [each for each in helpers if each.role == "iothread"] or [each for each in helpers if each.role == "main"]
    stood = [each for each in serving if each.stood]
    still_ns, rows = still
    if stood:
        text = f"the VMM's thread {stood[0].name} could pass nothing on, and nothing was slow at a disk of the host"
        return known(False, text, stood[0].records)
    if still_ns >= STOOD_MIN * there.length_ns:
        text = (
            f"no request of the VM ended in its VMM for {still_ns / S:.1f} s, and none was slow at a disk of the host"
        )
        return known(False, text, of_rows("qmp_blockstats", rows))
    return unknown("the VMM may have ended requests, and its threads did not stand")


# The guest saw nothing end, and had something wait all along; within that time the VMM ended something.
def _done(look: Look, there: There, readings: list[_Reading], still: tuple[int, list[dict[str, Any]]]) -> Fact[bool]:
    if not readings:
        return Fact()
    stood = _stood_in_guest(look, there)
    if stood is not None:
        span, rows = stood
        # The answer before is older than the question of the next.
        inside = [two for one, two in pairwise(readings) if one.ts_ns >= span.since_ns and two.ts_ns <= span.until_ns]
        for one, two in pairwise(inside):
            more = {disk: two.ended[disk] - one.ended.get(disk, 0) for disk in two.ended if disk in one.ended}
            if any(count > 0 for count in more.values()):
                text = f"the VMM ended {sum(more.values())} requests while the guest saw none end and had some wait"
                records = (*of_rows("qmp_blockstats", [*one.rows, *two.rows]), *of_rows("procfs_disk", rows))
                return known(True, text, records)
    still_ns, counted = still
    inside = [each for each in readings if _inside(each.ts_ns, there.window)]
    if still_ns >= STOOD_MIN * there.length_ns and len(_runs(inside)) == 1:
        text = f"no request of the VM ended in its VMM for {still_ns / S:.1f} s"
        return known(False, text, of_rows("qmp_blockstats", counted))
    return unknown("that the guest waited for what had ended is not shown")


def _of_vmm(look: Look, there: There) -> list[_Reading]:
    assert look.scope is not None
    rows = look.rows(
        "qmp_blockstats",
        "select * from qmp_blockstats where machine = ? and boot_id = ? "  # noqa: S608
        f"and vm in ({', '.join(map(literal, look.scope.names))}) and ts_ns between ? and ? order by ts_ns, position",
        *there.node[:2], there.window.since_ns - _PAD_NS, there.window.until_ns + _PAD_NS,
    )  # fmt: skip
    return _readings(
        (row, f"{row['device']} {row['qdev']} {row['node']}", sum(row[name] or 0 for name in _ENDED), 0)
        for row in rows
        if row["rd_operations"] is not None
    )


# Of each row the disk, how many of its requests had ended, and how many had not.
def _readings(rows: Iterable[tuple[dict[str, Any], str, int, int]]) -> list[_Reading]:
    found: dict[int, _Reading] = {}
    for row, disk, ended, waiting in rows:
        one = found.setdefault(row["ts_ns"], _Reading(row["ts_ns"], {}, 0, []))
        one.ended[disk] = ended
        one.rows.append(row)
        found[row["ts_ns"]] = one._replace(waiting=one.waiting + waiting)
    return [found[ts_ns] for ts_ns in sorted(found)]


# For how long of the time nothing ended, and the rows that say so. What an answer says was so when its question had
# come, which is behind the answer before.
def _still(readings: Sequence[_Reading], there: There) -> tuple[int, list[dict[str, Any]]]:
    best: tuple[int, list[dict[str, Any]]] = (0, [])
    for run in _runs(readings):
        since_ns, until_ns = run[0].ts_ns, run[-2].ts_ns if len(run) > 1 else run[0].ts_ns
        took_ns = min(until_ns, there.window.until_ns) - max(since_ns, there.window.since_ns)
        if took_ns > best[0]:
            best = took_ns, [*run[0].rows, *run[-1].rows]
    return best


def _runs(readings: Sequence[_Reading]) -> list[list[_Reading]]:
    found: list[list[_Reading]] = []
    for each in readings:
        if found and found[-1][-1].ended == each.ended:
            found[-1].append(each)
        else:
            found.append([each])
    return found


# The longest time, on the host's clock, in which the guest saw nothing end and had something wait at each look.
def _stood_in_guest(look: Look, there: There) -> tuple[Span, list[dict[str, Any]]] | None:
    window = look.guest(BOOT)
    if window is None:
        return None
    source = look.incident.source
    rows = look.rows(
        "procfs_disk",
        "select * from procfs_disk where machine = ? and boot_id = ? and ts_ns between ? and ? order by ts_ns, device",
        *source[:2], *window,
    )  # fmt: skip
    kinds = ("reads", "writes", "discards", "flushes")
    readings = _readings(
        (row, row["device"], sum(row[kind] or 0 for kind in kinds), row["in_flight"] or 0) for row in rows
    )
    node, best = Node(source.machine, source.boot_id, BOOT), None
    for run in _runs(readings):
        ends = [look.graph.convert(each.ts_ns, node, there.node, CUT_NS) for each in (run[0], run[-1])]
        sure = [end for end in ends if isinstance(end, Converted)]
        if len(sure) < len(ends) or not all(each.waiting for each in run):
            continue
        span = Span(sure[0].ts_ns + sure[0].bound_ns, sure[1].ts_ns - sure[1].bound_ns)
        if best is None or span.until_ns - span.since_ns > best[0].until_ns - best[0].since_ns:
            best = span, [*run[0].rows, *run[-1].rows]
    return best


# 9p is served by QEMU itself, virtio-fs by a daemon; where the guest waits for a daemon of its own, no host knows.
def _daemon(look: Look, helpers: list[Helper]) -> Fact[bool]:
    report = look.incident.root
    roles = ("main", "iothread") if asks_vmm(report) else ("daemon",) if asks_virtiofsd(report) else ()
    mine = [each for each in helpers if each.role in roles]
    if not mine:
        return Fact()
    stuck = [each for each in mine if each.shares.at_least("ST") >= STOOD_MIN]
    if stuck:
        return known(True, f"the thread {stuck[0].name} stood in the host", stuck[0].records)
    if all(each.shares.at_most("ST") < STOOD_MIN for each in mine):
        records = tuple(each for one in mine for each in one.records)
        return known(False, "none of its threads stood in the host", records)
    return unknown("its threads slept, which may be for want of work")


def _inside(ts_ns: int, window: Span) -> bool:
    return window.since_ns <= ts_ns <= window.until_ns
