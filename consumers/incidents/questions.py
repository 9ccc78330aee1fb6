"""The seven questions that a reader asks of a record, answered for one incident from what is stored, never canned.

Which layer emitted it; which resource failed; on which clock; what was lost around it; would it have survived; what did
the instrumentation change; what would prove it wrong. What nobody measured is said to be so.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from consumers.coverage import Answer
from consumers.incidents import wording
from consumers.incidents.around import Around, Watch
from consumers.incidents.joining import resources
from consumers.incidents.page import anchor
from consumers.incidents.page_timeline import Told
from consumers.incidents.stored import Stored
from consumers.incidents.utc import Utc
from consumers.render import utc
from consumers.timeline.entries import Kind
from consumers.timeline.shown import seconds
from consumers.verdict.text import Symptom, symptom
from consumers.verdict.verdict import Owner
from schemas.stream import Layer

_S: Final = 1_000_000_000
_LISTED_MAX: Final = 8
_GUEST_LAYERS: Final = frozenset({Layer.GUEST_KERNEL, Layer.GUEST_USERSPACE})
_GUEST_SIDE: Final = frozenset({Owner.GUEST_KERNEL, Owner.GUEST_DRIVER, Owner.GUEST_USERSPACE, Owner.GUEST_POLICY})
_BELOW: Final = frozenset(Owner) - _GUEST_SIDE - {Owner.CONFIG_THRESHOLD, Owner.INJECTED, Owner.UNDETERMINED}
_DEFAULTS: Final = {"watchdog_thresh_s": 10, "rcu_stall_timeout_s": 21, "hung_task_timeout_s": 120}


class About(NamedTuple):
    """All that is asked; `names` has what stands for a machine."""

    stored: Stored
    around: Around
    told: Told
    names: dict[str, str]

    def name(self, machine: str) -> str:
        """Return what stands for a machine."""
        return self.names.get(machine, machine)

    def short(self, text: str) -> str:
        """Return `text` with what stands for machines and boots in their place."""
        for name, short in self.names.items():
            text = text.replace(name, short)
        return text


class Answered(NamedTuple):
    """A question and what the lake says to it."""

    question: str
    lines: tuple[str, ...]


def ask(about: About) -> list[Answered]:
    """Return the seven questions with their answers."""
    return [Answered(question, tuple(answer(about))) for question, answer in _QUESTIONS]


def _layer(about: About) -> Iterator[str]:
    incident, root = about.stored.incident, about.stored.incident.root
    source, whose = incident.source, about.stored.whose
    vm = f", VM {whose.vm}" if whose.vm else ""
    host = f" on host {about.name(whose.host)}" if whose.host else ""
    release = f" ({root.release})" if root.release else ""
    if incident.vm:
        where = f"positions {incident.first_place} to {incident.last_place} of qmp/{incident.vm}"
        yield f"{source.layer}: QEMU's monitor of VM {incident.vm}, on host {about.name(source.machine)}, {where}"
        yield "its layer is the host's own word: nothing in the guest can write these records"
        return
    yield (
        f"{source.layer}: the kernel{release} of machine {about.name(source.machine)}{vm}{host}, "
        f"boot {source.boot_id}, in its log from seq {incident.first_place} to {incident.last_place}"
    )
    if incident.structured:
        yield "every line is a record of facility 0, which only the kernel can write; programs of the guest cannot"
    else:
        yield "some of its lines are free text, which any program of the guest can write"
    who = [f"CPU {root.by} said it of CPU {_listed(root.cpus)}"] if root.by is not None and root.cpus else []
    caller = next((line.caller for line in root.lines if line.place == root.place and line.caller), "")
    who += [f"it was printed by {'CPU' if caller[0] == 'C' else 'thread'} {caller[1:]}"] if caller else []
    yield from who
    owner = Owner.UNDETERMINED if about.stored.verdict is None else about.stored.verdict.owner
    if owner in _GUEST_SIDE or owner in _BELOW:
        side = "this layer itself" if (owner in _GUEST_SIDE) == (source.layer in _GUEST_LAYERS) else "another layer"
        yield f"the verdict is that {side} failed: {owner}"


def _resource(about: About) -> Iterator[str]:
    stored = about.stored
    incident, root, verdict = stored.incident, stored.incident.root, stored.verdict
    owner = Owner.UNDETERMINED if verdict is None else verdict.owner
    if verdict is None or owner is Owner.UNDETERMINED:
        yield "not known below what the lines accuse"
    else:
        sure = f"{verdict.confidence} confidence"
        yield f"{wording.RESOURCES[owner]} ({owner}, {sure})"
        for other in (verdict.shared, *verdict.beside):
            if other is not None:
                yield f"and as well: {wording.RESOURCES[other]} ({other})"
    threads = {each.cpu: each.tid for each in about.around.vcpus}
    if incident.cpus:
        mapped = [f"CPU {cpu} is thread {threads[cpu]} of the host" for cpu in incident.cpus if cpu in threads]
        told = ", ".join(mapped[:_LISTED_MAX]) or "which threads of a host run these is not known"
        where = f" ({told})" if symptom(incident) is Symptom.CPU else ""
        yield f"the lines accuse CPU {_listed(incident.cpus)} of the machine{where}"
    if root.task is not None:
        yield f"the task named is {root.task} (pid {root.pid})" + (
            f", whose lock {root.holder} holds" if root.holder else ""
        )
    waits = sorted(each for each in resources(root) if not each.startswith("at "))
    if waits and symptom(incident) is Symptom.TASK:
        yield f"its stack waits for: {', '.join(waits)}"
    if anchor(incident):
        yield f"the stack's own frame is {anchor(incident)}" + (f" of module {root.module}" if root.module else "")


def _clock(about: About) -> Iterator[str]:
    around, incident = about.around, about.stored.incident
    if around.at is None:
        yield "its lines have no time; only when they came to the log is known"
    else:
        since, until = map(seconds, around.at)
        clock = "CLOCK_BOOTTIME" if incident.vm else "printk"
        yield f"{clock} of {about.name(incident.source.machine)}: {since} to {until} s since its boot"
        yield _in_utc(about)
        if around.host_at is not None and not incident.vm:
            since, until = map(seconds, around.host_at)
            bound = shown_ns(around.host_error_ns)
            yield f"CLOCK_BOOTTIME of host {about.name(around.host)}: {since} to {until} s, each within {bound}"
        elif not incident.vm:
            yield f"not comparable with a host: {about.short(around.host_why)}"
    yield f"its first line came to the log at {shown_utc(about.stored.opened_ns)} by the log's clock"


def _in_utc(about: About) -> str:
    since, until = about.around.since, about.around.until
    if isinstance(since, Utc) and isinstance(until, Utc):
        bound = shown_ns(max(since.bound_ns, until.bound_ns))
        times = f"{shown_utc(since.ns)} to {shown_utc(until.ns)}"
        return f"UTC by the clock of {about.name(since.machine)}: {times}, each within {bound}"
    return f"not comparable with UTC: {about.short(str(since if isinstance(since, str) else until))}"


def _lost(about: About) -> Iterator[str]:
    incident, timeline = about.stored.incident, about.told.timeline
    if timeline is None:
        yield "losses in that time cannot be told: there is no timeline of it"
    else:
        gone = [entry for entry in timeline.entries if entry.kind in (Kind.LOSS, Kind.DEAD_LETTER)]
        for entry in gone[:_LISTED_MAX]:
            yield f"{_stream(about, entry.stream.surface, entry.stream.instance, entry.stream.machine)}: {entry.text}"
        if len(gone) > _LISTED_MAX:
            yield f"and {len(gone) - _LISTED_MAX} losses more"
        if not gone and not timeline.left_out:
            yield "no stream lost a record that the lake knows of, from 5 s before to 5 s behind"
        elif not gone:
            yield "no stream lost a record among the rows that were read; there are more"
    cut = sum(report.dropped_lines for report in incident.reports)
    if cut or incident.dropped_reports:
        gone_here = [f"{many} {what}" for many, what in ((cut, "lines"), (incident.dropped_reports, "reports")) if many]
        yield f"of the incident {' and '.join(gone_here)} are not kept with it; the table kmsg has them"
    if incident.corrupted:
        yield "lines of its reports are damaged or missing"
    if incident.skipped:
        skipped = f"{incident.skipped:,} records were left out while it was open"
        yield f"{skipped}: its machine printed more than is read of one; the table kmsg has them"
    yield from _coverage(about)


def _coverage(about: About) -> Iterator[str]:
    watches = about.around.watches
    if not watches:
        yield "no stream of this machine or its host is known to the lake"
    for answer in (Answer.YES, Answer.PARTLY, Answer.NO, None):
        mine = [each for each in watches if each.answer is answer]
        if mine:
            title = {Answer.YES: "yes", Answer.PARTLY: "partly", Answer.NO: "no"}.get(answer or Answer.NO, "no")
            title = "not comparable" if answer is None else title
            yield f"watched: {title}: {', '.join(_grouped(about, mine))}"
    if any(each.answer is not Answer.YES for each in watches):
        yield "where nobody watched, silence proves nothing"


# The CPUs of one ring are one.
def _grouped(about: About, watches: list[Watch]) -> Iterator[str]:
    found: Counter[tuple[str, str, str]] = Counter()
    blind: Counter[tuple[str, str, str]] = Counter()
    for each in watches:
        stream = each.stream
        instance = stream.instance.partition("/")[0] if stream.surface == "ftrace" else stream.instance
        key = (stream.surface, instance, stream.machine)
        found[key] += 1
        blind[key] = max(blind[key], each.blind_ns)
    for key, count in found.items():
        partly = watches[0].answer is Answer.PARTLY
        away = f" (not for {blind[key] / _S:.1f} s)" if partly else f" ({count} rings)" if count > 1 else ""
        yield _stream(about, *key) + away


def _survived(about: About) -> Iterator[str]:
    around, incident = about.around, about.stored.incident
    if not around.arrivals:
        table = "of its monitor" if incident.vm else "kmsg"
        yield f"its records are not in the table {table}: the collector has not stored them yet, or lost them"
    for each in around.arrivals:
        what = (
            "first" if each.seq == incident.first_place else "newest" if each.seq == incident.last_place else "root's"
        )
        if each.printed is None:
            after = f"{_away(each.arrival_ns - each.captured_ns)} its agent had it"
            after += "; when it was printed does not compare"
        else:
            delay = _away(each.arrival_ns - each.printed.ns)
            after = f"{delay} it was printed, within {shown_ns(each.printed.bound_ns)}"
        yield f"the {what} line (seq {each.seq}) was durable in the log at {shown_utc(each.arrival_ns)}, {after}"
    late = max((each.arrival_ns - each.printed.ns for each in around.arrivals if each.printed is not None), default=0)
    if late > 0:
        yield f"had the machine died within {late / _S:.1f} s of a line, that line could be gone"
    if around.behind is not None and around.behind[0] > incident.last_place:
        more = around.behind[0] - incident.last_place
        many = f"{more:,} record{'' if more == 1 else 's'}"
        yield f"this boot went on: its log has {many} behind the incident's, to {seconds(around.behind[1])} s"
    elif around.behind is not None:
        yield f"nothing of this boot's log came behind it (the newest record is seq {around.behind[0]})"
    kept = [each.stream for each in around.watches if each.stream.surface == "pstore"]
    if kept:
        yield f"the lake has {len(kept)} stream{'' if len(kept) == 1 else 's'} of pstore"
    else:
        lacks = "; what the kernel printed last, in its panic, may be there alone" if incident.panicked else ""
        yield f"the lake has no stream of pstore: there is no second copy{lacks}"


def _changed(about: About) -> Iterator[str]:
    around, incident = about.around, about.stored.incident
    for cost in around.costs:
        where = f"BPF program {cost.program} on {about.name(cost.machine)}"
        if cost.run_ns is None or not cost.over_ns:
            yield f"{where}: not measured (kernel.bpf_stats_enabled was 0, or one sample)"
        else:
            share = 100 * cost.run_ns / cost.over_ns
            took = f"{cost.run_ns / 1e6:.1f} ms of {cost.over_ns / _S:.1f} s"
            yield f"{where}: {cost.runs or 0:,} runs took {took}, {share:.2f} % of one CPU"
    if not around.costs:
        lacks = _lacks(about, around.unplaced.mono, "the lake has no counts of any in that time")
        yield f"BPF programs: not measured, {lacks}"
    for machine in dict.fromkeys(machine for machine, *_ in around.read):
        rows = [row for row in around.read if row[0] == machine]
        told = ", ".join(f"{records:,} of {surface}" for _, surface, records, _ in rows if records)
        yield f"the agent of {about.name(machine)} read {told or 'no record'} in that time; its CPU time: not measured"
    if not around.read:
        lacks = _lacks(about, around.unplaced.boot, "no heartbeat lies in that time")
        yield f"the agents' own load: not measured, {lacks}"
    for each in around.thresholds:
        usual = _DEFAULTS[each.name]
        was = f", {each.first} when it was first read" if each.first != each.last else ""
        if each.last != usual or was:
            yield f"threshold {each.name} was {each.last} (kernels come with {usual}{was}); hypocenter sets none"
    if around.thresholds and all(each.last == each.first == _DEFAULTS[each.name] for each in around.thresholds):
        usual_ones = ", ".join(f"{each.name} {each.last}" for each in around.thresholds)
        yield f"thresholds were the kernel's usual ones: {usual_ones}"
    if not around.thresholds:
        # They are of this kernel, whatever is known of its host's clocks.
        mine = [name for name in around.unplaced.boot if name == incident.source.machine]
        lacks = _lacks(about, mine, "nobody read those of this kernel (surface procfs)")
        yield f"thresholds: not measured, {lacks}"


# Where the time in question is not known on a clock, no row was looked for by it.
def _lacks(about: About, unplaced: Iterable[str], nothing: str) -> str:
    names = ", ".join(map(about.name, unplaced))
    return f"when that was on the clock of these on {names} is not known" if names else nothing


def _wrong(about: About) -> Iterator[str]:
    incident, verdict = about.stored.incident, about.stored.verdict
    lines = f"its lines (seq {incident.root.place} to {max(incident.root.place, incident.root.last_place)})"
    if verdict is None:
        yield "nothing yet: no verdict was given that could be wrong"
        return
    if verdict.owner is Owner.UNDETERMINED:
        yield "that it is undetermined: one of these, whichever is seen first"
    yield from wording.contradictions(verdict, lines)
    for found in verdict.evidence:
        if found.against:
            yield f"already speaks against it: {found.text}"
    others = wording.open_rows(incident, verdict)
    if others and verdict.owner is not Owner.UNDETERMINED:
        yield "nothing rules these out, alone or as well:"
    for owner, asks in others:
        yield f"it is {owner} if {asks}"


_QUESTIONS: Final[tuple[tuple[str, Callable[[About], Iterator[str]]], ...]] = (
    ("Which layer emitted it?", _layer),
    ("Which resource failed?", _resource),
    ("On which clock?", _clock),
    ("What was lost around it?", _lost),
    ("Would it have survived?", _survived),
    ("What did the instrumentation change?", _changed),
    ("What would prove it wrong?", _wrong),
)


def _stream(about: About, surface: str, instance: str, machine: str) -> str:
    return f"{'/'.join(part for part in (surface, instance) if part)} of {about.name(machine)}"


def shown_utc(ns: int) -> str:
    """Return CLOCK_REALTIME `ns` as UTC, to the ms."""
    return f"{utc(ns)}.{ns % _S // 1_000_000:03d}"


def _away(ns: int) -> str:
    return f"{ns / _S:.3f} s after" if ns >= 0 else f"{-ns / _S:.3f} s before (the clocks differ)"


def shown_ns(ns: int) -> str:
    """Return a length with its unit, rounded up."""
    size, unit = next((each for each in ((_S, "s"), (1_000_000, "ms"), (1_000, "us")) if ns >= each[0]), (1, "ns"))
    return f"{-(-ns * 10 // size) / 10:g} {unit}"


def _listed(values: tuple[int, ...]) -> str:
    more = len(values) - _LISTED_MAX
    return ", ".join(map(str, values[:_LISTED_MAX])) + (f" and {more} more" if more > 0 else "")
