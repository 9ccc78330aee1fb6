"""A lake of two guests' genuine kernel logs, the same at every run: with losses, a dead letter, and a blind agent."""

from pathlib import Path

from consumers.alerts.commits import Committer
from consumers.alerts.partition import PartitionAlerter
from consumers.alerts.payload import Whose
from consumers.archives.kmsg_splitter import DumpSplitter
from consumers.collector import Cut, PartitionCollector
from consumers.lake.chain import Chain
from consumers.lake.layout import ALERTS, open_lake
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from consumers.verdict.facts import Facts
from consumers.verdict.judge import judge
from producers.log import LogWriter
from schemas import heartbeat, kmsg
from schemas.frame import Frame, decode, encode
from schemas.loss import Loss
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, TOPIC_LOG, TOPIC_STATE, TOPIC_TRACE
from tests.consumers import _sample_bpf, _sample_clocks, _sample_hosts, _sample_relay, _sample_trace

DUMPS = Path(__file__).parent / "dumps"
START_NS = 1_772_442_000 * 10**9  # 2026-03-02 09:00:00 UTC
HUNG = Stream(
    "5f0c2a9be1d84c0c8a7d3b6f91e24d70", "c1f6a0de-3b52-4d0e-9c11-7be2a04f5d38", "guest-kernel", "kmsg", "", "printk"
)
LOCKED = Stream(
    "b83e17d2409f4f6fa5c06d1e7a925c3b", "0d9e47b2-88a1-4c6f-b3f5-52c18e9a7d04", "guest-kernel", "kmsg", "", "printk"
)
_S = 10**9
_FRAME_RECORDS = 64


class _Run:
    """One run of an agent that watched its guest from `since_s` on; the guest booted at `boot_ns`."""

    def __init__(self, stream, name, boot_ns, since_s, position):
        self._stream, self._name, self._boot_ns = stream, name, boot_ns
        self._number, self._position, self._watched = 0, position, (since_s, position)

    def messages(self, chunks, beats_s):
        """Yield (append time, message): `chunks` of (first, records, losses) when they were read, and the heartbeats."""
        frames = [(max(map(_ts_ns, chunk)) + 3_000_000, (first, chunk, losses)) for first, chunk, losses in chunks]
        beats = [(at_s * _S, ()) for at_s in beats_s]
        for at_ns, frame in sorted(frames + beats, key=lambda event: event[0]):
            yield self._boot_ns + at_ns + 1_000_000, self._frame(at_ns, *frame) if frame else self._beat(at_ns)

    def _frame(self, at_ns, first, records, losses):
        self._position = first + len(records)
        return self._encoded(at_ns, first, len(records), "kmsg", 1, kmsg.pack(records), losses)

    def _beat(self, at_ns):
        (since_s, first), self._watched = self._watched, (at_ns // _S, self._position)
        span_ns = self._boot_ns + since_s * _S, self._boot_ns + at_ns
        clocks = self._boot_ns + at_ns, at_ns, at_ns, 400
        body = heartbeat.pack(heartbeat.Heartbeat(*span_ns, first, *clocks, {"records": self._position - first}))
        return self._encoded(at_ns, self._position, 0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, body, [])

    def _encoded(self, at_ns, first, count, encoding, version, body, losses):
        number, self._number = self._number, self._number + 1
        where = self._stream, self._name, number, first, first + count, count
        return encode(Frame(*where, encoding, version, body, losses, realtime_ns=self._boot_ns + at_ns))


def _ts_ns(record):
    try:
        return int(record.split(b",", 3)[2]) * 1000
    except ValueError:
        return 0  # torn


def records(name):
    """Return the records of one dump."""
    splitter = DumpSplitter()
    return splitter.feed((DUMPS / f"{name}.kmsg").read_bytes()) + splitter.close()


# As an agent cuts them: what came within a tenth of a second, at most so many.
def _chunks(found, start, end, losses=()):
    at = start
    while at < end:
        until = next(
            (
                i
                for i in range(at + 1, end)
                if i - at == _FRAME_RECORDS or _ts_ns(found[i]) > _ts_ns(found[at]) + _S // 10
            ),
            end,
        )
        yield at, found[at:until], list(losses) if at == start else []
        at = until


# Came when 50 records were overwritten already, and once was too slow for 60 more; watched its guest all the time.
def _hung():
    found = records("hung-task")
    before = Loss("overwrite", 0, 50, "before-first-read", "agent")
    slow = Loss("overwrite", 200, 60, "ring-overwritten", "agent")
    chunks = [*_chunks(found, 50, 200, [before]), *_chunks(found, 260, 357, [slow]), *_chunks(found, 357, 422)]
    return _Run(HUNG, "run-1", START_NS, 0, 0).messages(chunks, range(2, 64, 2))


# Its agent was stopped 9 s after the boot and came back 20 s later; one record arrived torn.
def _locked():
    found, boot_ns = records("soft-lockup"), START_NS + 40 * _S
    found[100] = b"6,100,\n"
    yield from _Run(LOCKED, "run-2", boot_ns, 0, 0).messages(_chunks(found, 0, 356), range(1, 10))
    yield from _Run(LOCKED, "run-3", boot_ns, 29, 356).messages(_chunks(found, 356, 369), range(30, 64, 2))


def messages():
    """Return (append time, frame's bytes) of both guests in the order of the log."""
    return sorted([*_hung(), *_locked()], key=lambda message: message[0])


def build(path, commits=1, *, trace=False, calls=False):
    """Make the lake in the directory `path`, in so many commits, and return its storage.

    `trace` adds trace events, BPF records, readings of the clocks, what the host saw of the first guest, and what its
    relay says of it; `calls` adds system calls to these.
    """
    storage = open_lake(path, create=True)
    _collect(storage, TOPIC_LOG, messages(), commits)
    if trace:
        at_ns = START_NS + 6 * _S
        found = [*_sample_trace.frames(HUNG, at_ns), *_sample_bpf.frames(HUNG, at_ns)]
        found += _sample_trace.call_frames(HUNG, at_ns) if calls else []
        _collect(storage, TOPIC_TRACE, [(at_ns + 1_000_000, each) for each in found], commits)
        states = [(at_ns, each) for each in _sample_clocks.frames(HUNG, START_NS)]
        states += [(at_ns + 1_000_000, each) for each in _sample_hosts.frames(HUNG, at_ns)]
        states += [(at_ns + 1_000_000, each) for each in _sample_bpf.state_frames(HUNG, at_ns)]
        states += [(at_ns + 2_000_000, each) for each in _sample_relay.frames(HUNG, at_ns)]
        _collect(storage, TOPIC_STATE, states, commits)
        _alert(storage)
    return storage


def _alert(storage):
    partition = Partition(TOPIC_LOG, 0)
    chain = Chain(storage, ALERTS + TOPIC_LOG, 0, log_id="sample", topic_id="sample", first_offset=0)
    alerter, committer = PartitionAlerter(partition, chain, lambda _machine: Whose()), Committer(storage, None)
    for case in alerter.add([Message(offset, *message) for offset, message in enumerate(messages())]):
        alerter.judged(case.incident.id, judge(case.incident, Facts.none()))
    committer.begin(alerter)
    assert committer.wait(partition).won
    committer.close()


def _collect(storage, topic, found, commits):
    partition = Partition(topic, 0)
    chain = Chain(storage, *partition, log_id="sample", topic_id="sample", first_offset=0)
    collector = PartitionCollector(partition, chain, CommitWriter(storage), Cut(1 << 60, 1 << 60, 1 << 60))
    found = [Message(offset, *message) for offset, message in enumerate(found)]
    size = -(-len(found) // commits)
    for at in range(0, len(found), size):
        collector.add(found[at : at + size], 0)
        assert collector.commit()


def write_log(path):
    """Make an embedded log of the same frames in the directory `path`."""
    writer = LogWriter(path, retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)
    for _, frame in messages():
        writer.append(TOPIC_LOG, decode(frame))
    writer.sync()
    writer.close()
    return path
