"""Lakes with incidents: frames in a log directory, which the collector and the alerter read to its end, as in real life.

The story of a guest and its host is that of `tests/consumers/verdict/_lake.py`, moved to a minute before now: the log's
own clock says when frames came.
"""

import re
import time
from unittest import mock

from consumers.archives.kmsg_splitter import DumpSplitter
from consumers.cli import main
from producers.log import LogWriter
from schemas import kmsg, state
from schemas.frame import decode
from schemas.state import Record
from schemas.surfaces import TOPIC_LOG, TOPIC_STATE
from tests.consumers._sample import HUNG
from tests.consumers.timeline import _story
from tests.consumers.verdict import _captures, _lake

S = 10**9


def log_frames(records, *, beats=True):
    """Return the frames of the guest's kernel log, with heartbeats or without."""
    found = [_story.frame(HUNG, 0, len(records), "kmsg", kmsg.pack(records), _lake.END_S - 1)]
    return [*found, _story.beat(HUNG, len(records), 0, _lake.END_S, 0)] if beats else found


def capture(name):
    """Return the records of an excerpt of a genuine kernel log, in the order of time and numbered anew."""
    splitter = DumpSplitter()
    found = splitter.feed((_captures.LOGS / f"{name}.kmsg").read_bytes()) + splitter.close()
    found = sorted(set(found), key=lambda record: int(record.split(b",", 2)[1]))
    return [re.sub(rb"^(\d+),\d+,", rb"\g<1>,%d," % seq, record) for seq, record in enumerate(found)]


def run(path, frames):
    """Write (topic, frame) into a log directory, collect and alert to its end; returns the lake's directory."""
    writer = LogWriter(path / "log", retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 24)
    for topic, frame in frames:
        writer.append(topic, decode(frame))
    writer.sync()
    writer.close()
    for verb in ("collect", "alert"):
        assert main([verb, "--log", str(path / "log"), "--lake", str(path / "lake"), "--until-end"]) == 0
    return path / "lake"


def moved(make):
    """Call `make` with the story a minute before now."""
    start_ns = time.time_ns() - (_lake.END_S + 1) * S
    with mock.patch.object(_lake, "START_NS", start_ns), mock.patch.object(_story, "START_NS", start_ns):
        return list(make())


def with_host(path, scenario):
    """Make a lake of a guest whose host was watched, by a BPF program that costs 10 us of each ms too."""
    logs = moved(lambda: _lake._logs(scenario))
    states = moved(lambda: [*_lake._states(scenario), _counts()])
    return run(path, [*((TOPIC_LOG, each) for each in logs), *((TOPIC_STATE, each) for each in states)])


def _counts():
    about = {"program": "vcpu", "loaded_ns": _story.AHEAD_NS, "cpu": None, "attempts": 0}
    times = [_story.AHEAD_NS + at_s * S for at_s in range(2, 62, 10)]
    found = [
        Record("bpf_counts", at_ns, about | {"runs": i * 10_000, "run_ns": i * 100_000_000, "recursion_misses": 0})
        for i, at_ns in enumerate(times)
    ]
    where = _story.HOST._replace(surface="bpf-counts", clock="mono")
    return _story.frame(where, 0, len(found), "bpf-counts", state.pack(found), _lake.END_S - 1)


def later(path, scenario):
    """Make a lake whose alerter knew nothing of the host at first, and all of it when a heartbeat came."""
    # The collector brought the rows before the second run of the alerter.
    made = moved(lambda: [*_lake._logs(scenario), None, *_lake._states(scenario)])
    at = made.index(None)
    logs, states = made[:at], made[at + 1 :]
    run(path, [*((TOPIC_LOG, each) for each in logs[:2])])
    return run(path, [*((TOPIC_STATE, each) for each in states), *((TOPIC_LOG, each) for each in logs[2:])])


def alone(path, name, *, clocks=True):
    """Make a lake of one genuine kernel log and nothing of its host; without `clocks` nobody read any."""
    logs = moved(lambda: log_frames(capture(name), beats=clocks))
    states = moved(lambda: [_story._guest_clocks()]) if clocks else []
    return run(path, [*((TOPIC_LOG, each) for each in logs), *((TOPIC_STATE, each) for each in states)])
