"""The kernel's count of what was read of a ring, against the rows: only where both are whole is a difference said."""

import pytest

from consumers.collector import Cut, PartitionCollector
from consumers.lake.audit import audit
from consumers.lake.chain import Chain
from consumers.lake.retire import Retention, retire
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from schemas import heartbeat
from schemas.frame import Frame, encode
from schemas.heartbeat import Heartbeat
from schemas.loss import Loss
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION
from tests.consumers import _pages
from tests.consumers._pages import CPU, described, page, paged

PARTITION = Partition("hypocenter.trace", 0)
NEVER = Cut(1 << 60, 1 << 60, 1 << 60)
SECOND_NS = 10**9


class Agents:
    """Runs of an agent: each adds pages of events and ends with what the kernel counted."""

    def __init__(self, storage):
        self.storage = storage
        self.messages = [encode(described())]
        self.page = self.number = 0

    def run(self, name, events, *, read, final=1, left_over=None, losses=()):
        pages = [page(*range(events))] if events else []
        if pages or losses:
            self.messages.append(encode(paged(self.page, pages, self.number, run=name, losses=losses)))
            self.page += len(pages)
            self.number += 1
        counters = {"records": len(pages), "read_events": read, "entries": 0, "overrun": 0, "final": final}
        if left_over is not None:
            counters["left_over_read_events"] = left_over
        beat = heartbeat.pack(Heartbeat(0, 1, self.page, 1, 1, 1, 1, counters))
        where = (CPU, name, self.number, self.page, self.page, 0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, beat, [])
        self.messages.append(encode(Frame(*where)))
        self.number += 1

    def problems(self, *, deep=True):
        chain = Chain(self.storage, *PARTITION, log_id="l", topic_id="t", first_offset=0)
        collector = PartitionCollector(PARTITION, chain, CommitWriter(self.storage), NEVER)
        at = collector.position
        messages = enumerate(self.messages[at:], at)
        collector.add([Message(offset, (1 + offset) * SECOND_NS, value) for offset, value in messages], 0)
        assert collector.commit()
        return audit(self.storage, deep=deep).problems


@pytest.fixture
def agents(memory):
    return Agents(memory)


def test_as_many_rows_as_the_kernel_counted_close(agents):
    agents.run("a", 3, read=3)
    agents.run("b", 4, read=4)
    assert agents.problems() == []


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (5, "3 events are here, the kernel counted 5 as read: somebody else has read the ring"),
        (2, "3 events are here, the kernel counted 2 as read: the ring was emptied, with what was in it"),
    ],
)
def test_another_number_is_a_problem(agents, read, what):
    agents.run("a", 3, read=read)
    assert agents.problems() == [f"m/b/guest-kernel/ftrace/set/cpu0/mono: {what}"]
    assert audit(agents.storage).problems == []


def test_what_a_killed_run_had_read_is_counted_with_the_ring_that_it_left(agents):
    agents.run("a", 3, read=3, final=0)
    agents.run("b", 4, read=2, left_over=5)
    assert agents.problems() == []
    agents.run("c", 1, read=1)
    assert agents.problems() == []
    agents.run("d", 1, read=2)
    assert len(agents.problems()) == 1


@pytest.mark.parametrize("runs", ["goes on", "left by one that ended", "killed, and nobody read what it left"])
def test_where_the_count_is_not_plain_nothing_is_said(agents, runs):
    agents.run("a", 3, read=9, final=int(runs == "left by one that ended"))
    if runs == "left by one that ended":
        agents.run("b", 1, read=1, left_over=9)
    elif runs != "goes on":
        agents.run("b", 1, read=1)
    assert agents.problems() == []


def test_whoever_says_that_something_is_missing_has_said_it(agents):
    agents.run("a", 3, read=9, losses=[Loss("reset", 0, None, "ring-emptied", "agent", "event")])
    assert agents.problems() == []


def test_a_number_that_no_header_held_is_of_events_that_were_not_read(agents):
    agents.run("a", 3, read=9, losses=[Loss("overwrite", 0, None, "ring-overrun", "agent", "event")])
    assert len(agents.problems()) == 1


def test_pages_that_are_damaged_or_lost_are_no_difference(agents):
    agents.messages.append(encode(paged(0, [_pages.FORM.page(_pages.T, _pages.tick(2), bytes(16))], 0, run="a")))
    agents.page = agents.number = 1
    agents.run("a", 3, read=9)
    assert agents.problems() == []


def test_lost_pages_are_no_difference(agents):
    agents.page = 2
    agents.run("a", 1, read=1)
    agents.page = 5
    agents.run("b", 1, read=9)
    assert agents.problems() == []


def test_where_heartbeats_have_left_the_lake_nothing_is_said(agents):
    agents.run("a", 3, read=9)
    assert len(agents.problems()) == 1
    assert retire(agents.storage, 10**15, Retention(hours=1)).manifest == 1
    assert audit(agents.storage, deep=True).problems == []
