"""Lakes of one failure each: a guest's genuine kernel log, its clocks, and what its host saw, written by the collector.

The guest booted at START_NS, when its host was up for AHEAD_NS. `stuck` is the time of the story in which CPU 1 stood.
"""

from typing import NamedTuple

from consumers.alerts.commits import Committer
from consumers.alerts.partition import PartitionAlerter
from consumers.alerts.payload import Whose
from consumers.archives.kmsg_splitter import DumpSplitter
from consumers.incidents.incident import Source
from consumers.incidents.log import LogIncidents
from consumers.lake.chain import Chain
from consumers.lake.layout import ALERTS, open_lake
from consumers.reports.kmsg_record import kmsg_line
from consumers.transport.base import Message, Partition
from consumers.verdict.facts import Facts
from consumers.verdict.judge import judge
from schemas import kmsg, state
from schemas.frame import Frame, encode
from schemas.state import Record
from schemas.surfaces import TOPIC_LOG, TOPIC_STATE, TOPIC_TRACE
from tests.consumers import _sample
from tests.consumers._sample import HUNG, START_NS
from tests.consumers.timeline import _story
from tests.consumers.timeline._story import AHEAD_NS, HOST, MS, UUID, VM, S, beat, frame
from tests.consumers.verdict import _captures

END_S = 62
THREADS = ((0, 4103), (1, 4104))
SOURCE = Source(HUNG.machine, HUNG.boot_id, "guest-kernel")


class Scenario(NamedTuple):
    """What is written; of the guest no clock from `heard_s` on. `second` gives state, frozen, and time run and waited (s) of vCPU 1 in a second of the story."""

    dump: str
    second: object
    stuck: tuple[float, float]
    qmp: tuple = ()
    host_lines: tuple = ()
    pressure_ms: int = 0
    trace: tuple = ()
    lost: tuple = ()
    guest: tuple = ()
    disks: tuple = ()
    threads: tuple = ()
    heard_s: int = 63
    watched: tuple = ("kmsg", "topology", "vcpu-time", "qmp", "procfs")


def _held(state, frozen, ran, waited):
    return lambda since, until: (
        lambda at: (state, frozen, ran, waited) if since <= at < until else ("R", False, 0.97, 0.02)
    )


FREEZE, SPIN = (11.06, 34.06), (6.55, 14.55)
SCENARIOS = {
    "frozen": Scenario("host-freeze-default", _held("D", True, 0, 0)(10, 35), FREEZE),
    "starved": Scenario("host-freeze-default", _held("R", False, 0.1, 0.9)(10, 35), FREEZE),
    "paused": Scenario(
        "host-freeze-default", _held("S", False, 0, 0)(11, 35), FREEZE, (("STOP", 11_000), ("RESUME", 34_200))
    ),
    "spin": Scenario("guest-spin", _held("R", False, 0.98, 0.01)(0, 62), SPIN),
}


def log(name):
    """Return the records of a genuine kernel log, from where on none is cut out, and the number of the first."""
    splitter = DumpSplitter()
    found = splitter.feed((_captures.LOGS / f"softlockup-{name}.kmsg").read_bytes()) + splitter.close()
    numbers = [int(each.split(b",", 2)[1]) for each in found]
    at = max(i for i, number in enumerate(numbers) if not i or number != numbers[i - 1] + 1)
    return numbers[at], found[at:]


def incident(name):
    """Return the incident of that log."""
    lines = [line for line in map(kmsg_line, log(name)[1]) if line is not None]
    found = LogIncidents(SOURCE)
    changed = [*found.feed(lines), *found.close()]
    (only,) = {each.id: each for each in changed}.values()
    return only


def _topology():
    valid = {"valid_from_ns": AHEAD_NS - 60 * S, "valid_until_ns": None}
    about = {"vm": VM, "pid": 4099, "start_ns": AHEAD_NS - 60 * S}
    own = {"uuid": UUID, "guest_machine": UUID, "vmm": "qemu", "cgroup": "0::/web-7.scope", "vcpus": 2}
    yield Record("topology_vm", AHEAD_NS, about | own | valid)
    for vcpu, tid in THREADS:
        yield Record(
            "topology_vcpu",
            AHEAD_NS,
            about | {"vcpu": vcpu, "tid": tid, "cpus_allowed": "0-3", "last_cpu": vcpu} | valid,
        )


def _vcpu_time(scenario):
    run, wait, slices = [0.0, 0.0], [0.0, 0.0], [0, 0]
    for at in range(END_S):
        for vcpu, tid in THREADS:
            found = scenario.second(at) if vcpu else ("S", False, 0.02, 0.0)
            state_, frozen, ran, waited = found
            fields = {"vm": VM, "vcpu": vcpu, "pid": 4099, "tid": tid, "start_ns": AHEAD_NS - 60 * S, "state": state_}
            fields |= {"frozen": frozen, "run_ns": int(run[vcpu] * S), "wait_ns": int(wait[vcpu] * S), "last_cpu": vcpu}
            yield Record("vcpu_time", AHEAD_NS + at * S + tid, fields | {"timeslices": slices[vcpu]})
            run[vcpu], wait[vcpu], slices[vcpu] = run[vcpu] + ran, wait[vcpu] + waited, slices[vcpu] + (ran > 0)
    yield from scenario.threads


def _qmp(scenario):
    running = {
        "vm": VM,
        "connected": True,
        "status": "running",
        "running": True,
        "version": "7.2.22 Debian",
        "answer_ns": 1,
    }
    yield Record("qmp_status", AHEAD_NS + S, running)
    yield from scenario.disks
    for event, at_ms in scenario.qmp:
        fields = {"vm": VM, "event": event, "realtime_ns": START_NS + at_ms * MS, "data": None}
        yield Record("qmp_events", AHEAD_NS + at_ms * MS + 300_000, fields)


# Of the host: pressure on its memory, which grows by so many ms each second.
def _procfs(scenario):
    for at in range(0, END_S, 5) if scenario.pressure_ms else ():
        text = f"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={at * scenario.pressure_ms * 1000}\n"
        fields = {"path": "/proc/pressure/memory", "text": text, "truncated": False}
        yield Record("procfs_text", AHEAD_NS + at * S, fields)


def _states(scenario):
    if scenario.guest:
        records, where = list(scenario.guest), HUNG._replace(surface="procfs", clock="boot")
        yield frame(where, 0, len(records), "procfs", state.pack(records), END_S - 1)
    yield _story._guest_clocks(scenario.heard_s)
    yield _story._clocks(HOST._replace(surface="clocks"), AHEAD_NS)
    surfaces = {
        "topology": _topology(),
        "vcpu-time": _vcpu_time(scenario),
        "qmp": _qmp(scenario),
        "procfs": _procfs(scenario),
    }
    for surface, records in surfaces.items():
        where, found = _story.stream(surface), list(records)
        if found:
            yield _framed(where, surface, found, [loss for name, loss in scenario.lost if name == surface])
        if surface in scenario.watched and found:
            yield beat(where, len(found), 0, END_S, AHEAD_NS)


def _framed(where, surface, found, losses):
    return encode(
        Frame(
            where,
            "run-9",
            END_S - 1,
            0,
            len(found),
            len(found),
            surface,
            1,
            state.pack(found),
            losses,
            realtime_ns=START_NS,
        )
    )


def host_records(lines):
    """Return records of the host's kernel log: level, second of the story and text of each."""
    return [
        f"{level},{n},{(AHEAD_NS + int(at_s * S)) // 1000},-;{text}\n".encode()
        for n, (level, at_s, text) in enumerate(lines)
    ]


def _logs(scenario):
    first, records = log(scenario.dump)
    yield beat(HUNG, first, 0, 20, 0)
    yield frame(HUNG, first, len(records), "kmsg", kmsg.pack(records), END_S - 1)
    yield beat(HUNG, first + len(records), 20, END_S, 0)
    where, lines = _story.stream("kmsg"), host_records(scenario.host_lines or ((6, 1, "host is up"),))
    yield frame(where, 0, len(lines), "kmsg", kmsg.pack(lines), END_S - 1)
    if "kmsg" in scenario.watched:
        yield beat(where, len(lines), 0, END_S, AHEAD_NS)


def alert(storage, scenario):
    """Store the incidents of the guest's log, as the alerter does without the host."""
    partition = Partition(TOPIC_LOG, 0)
    chain = Chain(storage, ALERTS + TOPIC_LOG, 0, log_id="sample", topic_id="sample", first_offset=0)
    alerter, committer = PartitionAlerter(partition, chain, lambda _machine: Whose()), Committer(storage, None)
    messages = [Message(offset, START_NS + END_S * S, each) for offset, each in enumerate(_logs(scenario))]
    for case in alerter.add(messages):
        alerter.judged(case.incident.id, judge(case.incident, Facts.none()))
    committer.begin(alerter)
    assert committer.wait(partition).won
    committer.close()


def build(path, scenario):
    """Make the lake in the directory `path`, and return its storage."""
    storage = open_lake(path, create=True)
    for topic, frames in ((TOPIC_LOG, _logs(scenario)), (TOPIC_STATE, _states(scenario))):
        _sample._collect(storage, topic, [(START_NS + END_S * S, each) for each in frames], 1)
    if scenario.trace:
        _sample._collect(storage, TOPIC_TRACE, [(START_NS + END_S * S, each) for each in scenario.trace], 1)
    return storage
