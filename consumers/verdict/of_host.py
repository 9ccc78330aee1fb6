"""What the host says beside its vCPUs: its own kernel log, pressure on its memory, requests to its disks, its monitor.

Tables: kmsg, procfs_pressure, bpf_hang, bpf_block_io, qmp_events, qmp_status, qmp_blocks, incidents,
trace_kvm_write_tsc_offset.
"""

import re
from dataclasses import replace
from typing import Any, Final

from consumers.clocks.graph import MONO, PRINTK
from consumers.coverage import Answer, Span, merged
from consumers.export.scope import literal
from consumers.reports.assembler import ReportAssembler
from consumers.reports.report import Kind, Line, Report
from consumers.timeline.scope import Scope
from consumers.verdict import of_limits, of_monitor
from consumers.verdict.facts import Fact, Facts, known, unknown
from consumers.verdict.hardware import serious
from consumers.verdict.look import Look, S, There, of_rows, record
from consumers.verdict.of_vcpus import Thread
from consumers.verdict.text import SHORT_S
from consumers.verdict.verdict import Evidence
from schemas.stream import Stream

#: Of the time in question, so much full pressure on memory convicts it.
PRESSURE_MIN: Final = 0.2
#: So much of it one of the VM's requests must have been open, to be slow over it.
SLOW_MIN: Final = 0.5
#: So much of it a CPU of the host must have stood, to be why a vCPU did.
LOCKED_MIN: Final = 0.5
#: What a report of a lockup tells of began this long before it, at most.
_REPORTS_PAD_NS: Final = 120 * S
#: A hard lockup prints no length: its detector waits so long (watchdog_thresh, kernel/watchdog.c).
_LENGTH_S: Final = 10.0
#: Reports of what befell several guests at once come within this.
_TOGETHER_NS: Final = 10 * S
_LINES_MAX: Final = 20_000
_NAMED_CHARS_MAX: Final = 160
_STOOD: Final = frozenset({Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.RCU_STALL, Kind.RCU_EXP_STALL, Kind.CSD_STALL})
_CPU: Final = re.compile(r"\bCPU[ #:]*(\d+)")
# drivers/nvme/host/pci.c, drivers/scsi/scsi_error.c, block/blk-core.c
_TIMEOUT: Final = re.compile(
    r"nvme\S*: I/O (?:tag )?\d+.* timeout|nvme\S*: queue \d+: timeout|timing out command, waited|task abort|"
    r"\btimeout error, dev |rejecting I/O to offline device"
)
# As these lines name a disk: an nvme's controller, `[sda]`, or `dev sda`.
_TIMED_OUT: Final = re.compile(r"\b(nvme\d+)|\[(sd[a-z]+)\]|\bdev (\w+),")
_VCPUS: Final = "run the agent on the host with the surfaces topology and vcpu-time, which name the VM's threads"
_DISK: Final = "run the BPF program block-io on the host, which sees where the VM's requests go"
_SUSPENDED: Final = re.compile(r"PM: suspend (?:entry|exit)|PM: hibernation: ")
_BROKEN: Final = ("failed", "nospace")


def add(look: Look, facts: Facts, threads: list[Thread], *, calm: bool = False) -> Facts:
    """Return `facts` with what the host's own streams say; `calm`: no thread of the VMM waited for them."""
    if look.there is None or look.scope is None:
        return facts
    facts = _with_log(look, facts, look.there, threads)
    slow, requests = _slow(look, look.there, look.scope, calm=calm)
    error, limited = _monitored(look, look.there, look.scope)
    panics = of_monitor.panics(look, look.there, look.scope.names)
    tasks = _tasks(look.scope, threads)
    memory, killed = _memory(look, look.there, tasks)
    found = (*requests, *killed, *of_limits.evidence(limited), *_unanswered(look, look.there, look.scope), *panics)
    return replace(
        facts, memory=memory, io_slow=slow, io_error=error,
        io_limited=of_limits.held_back(look, limited), tsc_write=_tsc_write(look, look.there, tasks),
        many_vms=_many(look, look.there), found=(*facts.found, *found),
    )  # fmt: skip


def _with_log(look: Look, facts: Facts, there: There, threads: list[Thread]) -> Facts:
    streams, clock = look.of_host("kmsg"), look.on_clock(PRINTK)
    if not streams or clock is None:
        return facts
    stream, (_, ahead_ns) = streams[0], clock
    window = Span(there.window.since_ns + ahead_ns, there.window.until_ns + ahead_ns)
    rows = look.rows(
        "kmsg",
        "select seq, ts_ns, coalesce(caller, '') as caller, message from kmsg where machine = ? and boot_id = ? "
        "and instance = ? and facility = 0 and ts_ns between ? and ? order by seq limit ?",
        *stream[:2], stream.instance, window.since_ns - S, window.until_ns + _REPORTS_PAD_NS, _LINES_MAX,
    )  # fmt: skip
    lost = look.lost(stream, rows[0]["seq"], rows[-1]["seq"]) if rows else 0
    whole = look.watched(stream, there.window) is Answer.YES and not lost and len(rows) < _LINES_MAX
    inside = [row for row in rows if window.since_ns <= row["ts_ns"] <= window.until_ns + S]
    cpus = frozenset(cpu for thread in threads for cpu in thread.last_cpus)
    stood = [report for report in _reports(rows) if report.kind in _STOOD and _overlaps(report, window)]
    locked_ns = int(LOCKED_MIN * there.length_ns)
    timeout, foreign = _timed_out(stream, inside, _disks(look, there), whole=whole)
    lockup, shorter = _lockup(stream, stood, cpus, window, locked_ns, whole=whole)
    return replace(
        facts,
        found=(*facts.found, *shorter, *foreign),
        host_lockup=lockup,
        host_hardware=_hardware(stream, inside, cpus, whole=whole),
        io_timeout=timeout,
        host_suspend=_said(stream, inside, _SUSPENDED, "the host was suspended", whole=whole),
    )


def _reports(rows: list[dict[str, Any]]) -> list[Report]:
    lines = [Line(row["seq"], row["ts_ns"], row["caller"], row["message"], structured=True) for row in rows]
    assembler = ReportAssembler()
    changes = [*assembler.feed(lines), *assembler.close()]
    return list({id(report): report for _, report in changes}.values())


def _overlaps(report: Report, window: Span) -> bool:
    ts_ns = report.ts_ns or 0
    began_ns = ts_ns - int((report.duration.high if report.duration else _LENGTH_S) * S)
    return began_ns <= window.until_ns and ts_ns >= window.since_ns


# How long of the time these CPUs stood at least. A wait that is no failure of its own is none of theirs.
def _stood_ns(reports: list[Report], window: Span) -> int:
    found = []
    for report in reports:
        length_s = report.duration.low if report.duration else _LENGTH_S
        ts_ns = report.ts_ns or 0
        span = Span(max(ts_ns - int(length_s * S), window.since_ns), min(ts_ns, window.until_ns))
        if length_s >= SHORT_S and span.since_ns < span.until_ns:
            found.append(span)
    return sum(span.until_ns - span.since_ns for span in merged(found))


def _lockup(
    stream: Stream, stood: list[Report], cpus: frozenset[int], window: Span, locked_ns: int, *, whole: bool
) -> tuple[Fact[bool], list[Evidence]]:
    below = [report for report in stood if cpus & set(report.cpus)]
    if below:
        stood_ns = _stood_ns(below, window)
        cpu = min(cpus & set(below[0].cpus))
        text = f"the host reported {below[0].kind} of its CPU {cpu}, which carried a vCPU, for {stood_ns / S:.1f} s"
        text += " of the time at least"
        records = record("kmsg", stream, (report.place for report in below))
        if stood_ns >= locked_ns:
            return known(True, text, records), []
        return unknown(text), [Evidence("H5", text, records)]
    if stood and not cpus:
        return unknown("which of the host's CPUs carried the vCPU is not known"), []
    return known(False, "the host's log has no lockup of a CPU that carried a vCPU", complete=whole), []


def _hardware(stream: Stream, inside: list[dict[str, Any]], cpus: frozenset[int], *, whole: bool) -> Fact[bool]:
    errors = [row for row in inside if serious(row["message"])]
    below = [row for row in errors if cpus & {int(cpu) for cpu in _CPU.findall(row["message"])}]
    if below:
        text = f"the host's log says: {below[0]['message'][:_NAMED_CHARS_MAX]}"
        return known(True, text, record("kmsg", stream, (row["seq"] for row in below)))
    if errors:
        return unknown("the host's log has errors of hardware that name none of the CPUs which carried a vCPU")
    return known(False, "the host's log has no error of hardware", complete=whole)


def _said(
    stream: Stream, rows: list[dict[str, Any]], pattern: re.Pattern[str], what: str, *, whole: bool
) -> Fact[bool]:
    mine = [row for row in rows if pattern.search(row["message"])]
    if mine:
        text = f"{what}: {mine[0]['message'][:_NAMED_CHARS_MAX]}"
        return known(True, text, record("kmsg", stream, (row["seq"] for row in mine)))
    return known(False, f"nothing in the host's log says that {what}", complete=whole)


# A disk of the host need not be the VM's.
def _timed_out(
    stream: Stream, rows: list[dict[str, Any]], disks: frozenset[str], *, whole: bool
) -> tuple[Fact[bool], list[Evidence]]:
    told = [row for row in rows if _TIMEOUT.search(row["message"])]
    mine = [row for row in told if any(_is_on(disk, row["message"]) for disk in disks)]
    if mine:
        return _said(stream, mine, _TIMEOUT, "a disk of the VM timed out on the host", whole=whole), []
    if told:
        text = "a disk of the host timed out, and nothing says that the VM's requests go there: "
        text += told[0]["message"][:_NAMED_CHARS_MAX]
        return unknown(text, _DISK), [Evidence("H5", text, record("kmsg", stream, (row["seq"] for row in told)))]
    return _said(stream, [], _TIMEOUT, "a disk of the host timed out", whole=whole), []


# Where requests of the VM's process went, and devices that are its disks as a whole.
def _disks(look: Look, there: There) -> frozenset[str]:
    scope = look.scope
    if scope is None or not scope.names:
        return frozenset()
    requests = look.rows(
        "bpf_block_io",
        "select distinct disk as name from bpf_block_io where machine = ? and boot_id = ? and list_contains(?, tgid)",
        *there.node[:2], list(scope.pids),
    )  # fmt: skip
    devices = look.rows(
        "qmp_blocks",
        "select distinct file[6:] as name from qmp_blocks where machine = ? and boot_id = ? "  # noqa: S608
        f"and {_of_vm(scope)} and starts_with(file, '/dev/')",
        *there.node[:2],
    )  # fmt: skip
    return frozenset(row["name"] for row in (*requests, *devices))


# A disk, its partitions, and of an nvme's controller the namespaces and the paths to them.
def _is_on(disk: str, message: str) -> bool:
    named = _TIMED_OUT.search(message)
    name = next(filter(None, named.groups()), "") if named else ""
    return bool(name) and re.fullmatch(rf"{re.escape(name)}(?:(?:c\d+)?n\d+)?(?:p?\d+)?", disk) is not None


# The VM's own processes and threads: by these a trace says whom it is of.
def _tasks(scope: Scope, threads: list[Thread]) -> frozenset[int]:
    return frozenset((*scope.pids, *(thread.tid for thread in threads)))


# A process of others is killed at its own cgroup's limit as well: that alone says nothing of the host's memory.
def _memory(look: Look, there: There, tasks: frozenset[int]) -> tuple[Fact[bool], list[Evidence]]:
    killed = _killed(look, there)
    mine = of_rows("bpf_hang", [row for row in killed if tasks & {row["pid"], row["tgid"]}])
    if mine:
        return known(True, "the host killed the VM's own process for want of memory", mine), []
    text = "the host killed a process that is not the VM's, for want of memory or at a limit of its own"
    others = [Evidence("H3", text, of_rows("bpf_hang", killed))] if killed else []
    return _pressure(look, there), others


# Between readings inside of the time it was so much at least, between those around it so much at most.
def _pressure(look: Look, there: There) -> Fact[bool]:
    window, length_ns = there.window, there.length_ns
    rows = look.rows(
        "procfs_pressure",
        "select * from procfs_pressure where machine = ? and boot_id = ? and layer = 'host' and resource = 'memory' "
        "and stalled = 'full' and ts_ns between ? and ? order by ts_ns",
        *there.node[:2], window.since_ns - 60 * S, window.until_ns + 60 * S,
    )  # fmt: skip
    inside = [row for row in rows if window.since_ns <= row["ts_ns"] <= window.until_ns]
    before = [row for row in rows if row["ts_ns"] <= window.since_ns][-1:]
    behind = [row for row in rows if row["ts_ns"] >= window.until_ns][:1]
    least_ns = inside[-1]["total_ns"] - inside[0]["total_ns"] if len(inside) > 1 else 0
    records = of_rows("procfs_pressure", [*before, *inside, *behind])
    if least_ns >= PRESSURE_MIN * length_ns:
        text = f"all tasks of the host waited for memory for {least_ns / S:.1f} s"
        return known(True, text, records)
    if not before or not behind:
        return unknown("no two readings of /proc/pressure/memory of the host lie around the time")
    most_ns = behind[0]["total_ns"] - before[0]["total_ns"]
    if most_ns < PRESSURE_MIN * length_ns:
        return known(False, f"all tasks of the host waited for memory for at most {most_ns / S:.1f} s", records)
    return unknown("the readings of /proc/pressure/memory are too far apart")


def _killed(look: Look, there: There) -> list[dict[str, Any]]:
    clock = look.on_clock(MONO)
    if clock is None:
        return []
    return look.rows(
        "bpf_hang",
        "select * from bpf_hang where machine = ? and boot_id = ? and layer = 'host' and kind_name = 'HANG_OOM_VICTIM' "
        "and ts_ns between ? and ? order by ts_ns",
        *clock[0][:2], there.window.since_ns + clock[1], there.window.until_ns + clock[1],
    )  # fmt: skip


# Requests of the VM's own process. What the host writes behind its back is of other threads, and proves nothing of it.
def _slow(look: Look, there: There, scope: Scope, *, calm: bool) -> tuple[Fact[bool], list[Evidence]]:
    streams, clock = look.of_host("bpf", "block-io"), look.on_clock(MONO)
    if not streams or clock is None:
        return Fact(), []
    since_ns, until_ns = there.window.since_ns + clock[1], there.window.until_ns + clock[1]
    rows = look.rows(
        "bpf_block_io",
        "select *, ts_ns - queued_ns::bigint - service_ns::bigint as begun_ns from bpf_block_io where machine = ? "
        "and boot_id = ? and ts_ns >= ? and ts_ns - queued_ns::bigint - service_ns::bigint <= ? order by begun_ns",
        *clock[0][:2], since_ns, until_ns,
    )  # fmt: skip
    pids = set(scope.pids)
    mine = [row for row in rows if row["tgid"] in pids]
    spans = merged(Span(max(row["begun_ns"], since_ns), min(row["ts_ns"], until_ns)) for row in mine)
    slow_ns = sum(span.until_ns - span.since_ns for span in spans)
    text = f"requests of the VM's process to {', '.join(sorted({row['disk'] for row in mine}))} were slow or open for "
    text += f"{slow_ns / S:.1f} s"
    if slow_ns >= SLOW_MIN * there.length_ns:
        return known(True, text, of_rows("bpf_block_io", mine)), []
    others = [row for row in rows if row["tgid"] not in pids]
    if others and not calm:
        about = f"{len(others):,} slow requests of other processes of the host, which need not be for the VM"
        return unknown(about), [Evidence("H6", about, of_rows("bpf_block_io", others))]
    whole = look.watched(streams[0], there.window) is Answer.YES and not look.lost(streams[0], 0, 1 << 62)
    if not mine:
        text = "no thread of the VMM waited for the" if others else "no"
        text += " slow requests of other processes" if others else " request to a disk of the host was slow"
    return known(False, text, complete=whole), []


def _monitored(look: Look, there: There, scope: Scope) -> tuple[Fact[bool], list[dict[str, Any]]]:
    where = f"machine = ? and boot_id = ? and {_of_vm(scope)} and ts_ns between ? and ?"
    params = (*there.node[:2], there.window.since_ns - S, there.window.until_ns + S)
    failed = look.rows(
        "qmp_events",
        f"select * from qmp_events where event = 'BLOCK_IO_ERROR' and {where}",  # noqa: S608
        *params,
    )
    stopped = look.rows("qmp_status", f"select * from qmp_status where status = 'io-error' and {where}", *params)  # noqa: S608
    blocks = look.rows("qmp_blocks", f"select * from qmp_blocks where {where} order by position", *params)  # noqa: S608
    broken = [row for row in blocks if row["io_status"] in _BROKEN]
    limited = [row for row in blocks if row["bps"] or row["iops"]]
    records = (
        *of_rows("qmp_events", failed), *of_rows("qmp_status", stopped), *of_rows("qmp_blocks", broken)
    )  # fmt: skip
    if records:
        return known(True, "QEMU had an error of I/O", records), limited
    streams = [each for name in scope.names for each in look.of_host("qmp", name)]
    if not streams:
        return Fact(), limited
    whole = all(look.watched(each, there.window) is Answer.YES for each in streams)
    return known(False, "QEMU told no error of I/O", complete=whole), limited


# A monitor is served by the VMM's main loop.
def _unanswered(look: Look, there: There, scope: Scope) -> list[Evidence]:
    where = "connected and status is null and ts_ns - answer_ns <= ? and ts_ns >= ? order by answer_ns desc limit 1"
    rows = look.rows(
        "qmp_status",
        f"select * from qmp_status where machine = ? and boot_id = ? and {_of_vm(scope)} and {where}",  # noqa: S608
        *there.node[:2], there.window.until_ns, there.window.since_ns,
    )  # fmt: skip
    text = "QEMU's monitor, which its main loop serves, gave no answer for at least"
    return [Evidence("H4", f"{text} {row['answer_ns'] / S:.1f} s", of_rows("qmp_status", [row])) for row in rows]


def _of_vm(scope: Scope) -> str:
    return f"vm in ({', '.join(map(literal, scope.names))})"


# Incidents of other guests of the same host that opened within the length of this one. None is no no: who says so?
def _many(look: Look, there: There) -> Fact[bool]:
    span_ns = there.window.until_ns - there.window.since_ns + _TOGETHER_NS
    rows = look.rows(
        "incidents",
        "with mine as (select min(opened_ns) as at_ns from incidents where incident_id = ?) "
        "select distinct machine from incidents, mine where host = ? and machine <> ? and abs(opened_ns - at_ns) <= ? "
        "order by all",
        look.incident.id, there.node.machine, look.incident.source.machine, span_ns,
    )  # fmt: skip
    return known(True, f"{len(rows):,} other VMs of the host had an incident at that time") if rows else Fact()


# KVM writes the TSC of every guest, and that of a vCPU which is made: this guest's was moved where one of its own
# threads had another offset written than there was.
def _tsc_write(look: Look, there: There, tasks: frozenset[int]) -> Fact[bool]:
    rows = look.rows(
        "trace_kvm_write_tsc_offset",
        "select * from trace_kvm_write_tsc_offset where machine = ? and boot_id = ? "
        "and previous_tsc_offset not in (0, next_tsc_offset) order by ts_ns",
        *there.node[:2],
    )
    others = False
    for row in rows:
        clock = look.on_clock(row["clock"])
        if clock and there.window.since_ns <= row["ts_ns"] - clock[1] <= there.window.until_ns:
            if row["pid"] in tasks:
                stream = Stream(*(row[name] for name in Stream._fields))
                text = f"KVM wrote the TSC of the guest's vCPU {row['vcpu_id']}"
                return known(True, text, record("trace_kvm_write_tsc_offset", stream, [row["page"]]))
            others = True
    if others:
        return unknown("KVM wrote a guest's TSC, and no thread that is known to be this VM's had it written", _VCPUS)
    return Fact()
