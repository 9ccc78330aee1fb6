"""A lake of one failure: a guest's genuine kernel log and clocks, and what its host saw of it, all on known clocks.

The guest booted at START_NS, when its host was up for HOST_AHEAD_NS; so the time of the guest in seconds is that of the
story. vCPU 1 does not run from 3 s to 11 s; nobody watched the monitor from 8 s to 12 s.
"""

from consumers.lake.layout import open_lake
from schemas import heartbeat, kmsg, state
from schemas.frame import Frame, encode
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, TOPIC_LOG, TOPIC_STATE, TOPIC_TRACE
from tests.consumers import _sample, _sample_bpf, _sample_clocks, _sample_hosts, _sample_trace
from tests.consumers._sample import HUNG, START_NS

S, MS = 10**9, 10**6
VM, UUID = "web-7", _sample_hosts.VM["uuid"]
AHEAD_NS = _sample_clocks.HOST_AHEAD_NS
HOST = Stream(*_sample_clocks.HOST, "host", "", "", "boot")
#: (surface, from, to) in seconds of the story, as heartbeats close them.
WATCHED = (("kmsg", 0, 60), ("topology", 0, 60), ("vcpu-time", 0, 60), ("qmp", 0, 8), ("qmp", 12, 60))


def stream(surface):
    """Return the host's stream of one surface."""
    if surface == "qmp":
        return HOST._replace(surface=surface, layer="virtual-platform", instance=VM)
    return HOST._replace(surface=surface, clock="printk" if surface == "kmsg" else "boot")


def frame(where, first, count, encoding, body, at_s, run="run-9"):
    """Return the bytes of one frame that was cut at a time of the story."""
    version = HEARTBEAT_VERSION if encoding == HEARTBEAT_ENCODING else 1
    realtime_ns, number = START_NS + int(at_s * S), int(at_s)
    return encode(
        Frame(where, run, number, first, first + count, count, encoding, version, body, [], realtime_ns=realtime_ns)
    )


def beat(where, position, since_s, until_s, ahead_ns, run="run-9"):
    """Return a heartbeat's frame of a machine whose CLOCK_MONOTONIC is so far ahead of the story's time."""
    at_ns = until_s * S
    span = START_NS + since_s * S, START_NS + at_ns
    clocks = START_NS + at_ns, at_ns + ahead_ns, at_ns + ahead_ns, 400
    body = heartbeat.pack(heartbeat.Heartbeat(*span, position, *clocks, {}))
    return frame(where, position, 0, HEARTBEAT_ENCODING, body, until_s, run)


def _moved(records):
    # Records of the sample's host, which was up for 90000 s, on the clock of this one.
    return [each._replace(ts_ns=each.ts_ns - 90_000 * S + AHEAD_NS) for each in records]


def _clocks(where, machine_ahead_ns):
    found = []
    for at_ns in range(2 * S, 63 * S, 10 * S):
        own = at_ns + machine_ahead_ns
        fields = {"realtime_ns": START_NS + at_ns, "monotonic_ns": own, "monotonic_raw_ns": own, "boottime_ns": own}
        fields |= {"tai_ns": START_NS + at_ns + 37 * S, "bracket_ns": 800, "slew_ppb": 0, "printk_ns": own + 70_000}
        fields |= {"printk_monotonic_ns": own, "printk_bracket_ns": 2_000, "how": "perf-event"}
        found.append(state.Record("clock_readings", own, fields))
    return frame(where, 0, len(found), "clocks", state.pack(found), 63)


def _guest_clocks(until_s=63):
    found = []
    for at_ns in range(2 * S, until_s * S, 10 * S):
        pings = [_sample_clocks._ping(at_ns + i * 400_000) for i in range(3)]
        found += [
            _sample_clocks._reading(START_NS, at_ns),
            *(each._replace(fields=each.fields | {"vm": VM}) for each in pings),
        ]
    where = HUNG._replace(surface="clocks", clock="boot")
    return frame(where, 0, len(found), "clocks", state.pack(found), 63)


def state_frames():
    """Yield (second of arrival, frame) of the topic of states."""
    yield 63, _guest_clocks()
    yield 63, _clocks(HOST._replace(surface="clocks"), AHEAD_NS)
    surfaces = {
        "topology": _sample_hosts._topology(),
        "vcpu-time": _sample_hosts._vcpu_time(),
        "qmp": _sample_hosts._qmp(START_NS),
    }
    for surface, records in surfaces.items():
        found = _moved(records)
        yield 30, frame(stream(surface), 0, len(found), surface, state.pack(found), 30)
    for surface, since_s, until_s in WATCHED:
        if surface != "kmsg":
            # The records came at 30 s, in one frame.
            last = {"topology": 3, "vcpu-time": 28, "qmp": 5}[surface] if until_s > 30 else 0
            yield until_s, beat(stream(surface), last, since_s, until_s, AHEAD_NS)


def log_frames():
    """Yield (second of arrival, frame) of the topic of kernel logs: the guest's, and two lines of the host's."""
    for at_ns, each in _sample._hung():
        yield (at_ns - START_NS) / S, each
    lines = [
        f"{level},{n},{(AHEAD_NS + at_ns + 70_000) // 1000},-;{text}\n".encode()
        for n, (level, at_ns, text) in enumerate(HOST_LINES)
    ]
    yield 4, frame(stream("kmsg"), 0, len(lines), "kmsg", kmsg.pack(lines), 4)
    yield 60, beat(stream("kmsg"), len(lines), 0, 60, AHEAD_NS)


#: (level, ns of the story, text) of the host's kernel log.
HOST_LINES = (
    (3, 3 * S + 191 * MS, "blk_update_request: I/O error, dev sda"),
    (6, 3 * S + 500 * MS, "<script>alert('host')</script>"),
)


def build(path):
    """Make the lake in the directory `path`, and return its storage."""
    storage = open_lake(path, create=True)
    for topic, found in ((TOPIC_LOG, log_frames()), (TOPIC_STATE, state_frames())):
        ordered = sorted(found, key=lambda each: each[0])
        _sample._collect(storage, topic, [(START_NS + int(at_s * S) + MS, each) for at_s, each in ordered], 2)
    at_ns = START_NS + 6 * S
    found = [*_sample_trace.frames(HUNG, at_ns), *_sample_bpf.frames(HUNG, at_ns)]
    _sample._collect(storage, TOPIC_TRACE, [(at_ns + MS, each) for each in found], 1)
    return storage
