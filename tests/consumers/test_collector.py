"""One partition from messages to rows: what is stored, what is lost, what is buried, and that the books agree."""

import dataclasses
import struct
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from consumers import collector, kinds, stored
from consumers.collector import Cut, PartitionCollector
from consumers.decode import bpf_rows
from consumers.lake import chain
from consumers.lake.audit import audit
from consumers.lake.chain import Chain
from consumers.lake.compact import compact, expire
from consumers.lake.damage import note
from consumers.lake.layout import open_lake
from consumers.lake.retire import Retention, retire
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import MemoryStorage
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from consumers.views import run_query
from schemas.errors import StorageError
from schemas.frame import encode
from schemas.loss import Loss, LossKind, LossUnit
from tests.consumers import _pages, _records
from tests.consumers._frames import STREAM, frame, heartbeat, message_bytes, record
from tests.consumers._pages import CPU, SET, described, page, paged
from tests.consumers._records import Gone, delay, recorded
from tests.consumers.decode.btf_writer import Types

PARTITION = Partition("hypocenter.log", 0)
NEVER = Cut(1 << 60, 1 << 60, 1 << 60)


class Lake:
    """A lake in memory, its collector, and questions about it."""

    def __init__(self):
        self.storage = MemoryStorage()
        self.collector = self.new_collector()

    def new_collector(self, cut=NEVER):
        chain = Chain(self.storage, *PARTITION, log_id="l", topic_id="t", first_offset=0)
        return PartitionCollector(PARTITION, chain, CommitWriter(self.storage), cut)

    def collect(self, *values, at=None, collector=None):
        """Enter `values` as the next messages, commit, and prove that the books close."""
        collector = collector or self.collector
        at = collector.position if at is None else at
        collector.add([Message(at + i, 1000 + i, value) for i, value in enumerate(values)], 0)
        assert collector.commit()
        report = audit(self.storage, deep=True)
        assert report.closes, (report.problems, report.books)
        return report

    def query(self, sql):
        return run_query(self.storage, sql)[1]

    def seqs(self):
        return [seq for (seq,) in self.query("select seq from kmsg order by seq")]


@pytest.fixture
def lake():
    made = Lake()
    yield made
    made.storage.close()


def test_records_become_rows_in_order_with_their_tags(lake):
    lake.collect(message_bytes(3, 6, 0), message_bytes(6, 7, 1))
    rows = lake.query(
        "select machine, boot_id, layer, surface, instance, clock, seq, ts_ns, message, captured_ns from kmsg"
    )
    assert rows[0] == (*STREAM, 3, 30_000, "text 3", 77)
    assert [row[6] for row in rows] == [3, 4, 5, 6]


def test_a_restarted_collector_goes_on_where_the_chain_ends(lake):
    lake.collect(message_bytes(0, 3, 0))
    again = lake.new_collector()
    assert again.position == 1
    report = lake.collect(message_bytes(0, 3, 0), message_bytes(3, 5, 1), at=0, collector=again)
    assert lake.seqs() == [0, 1, 2, 3, 4]
    assert report.books[0].duplicates == 0


def test_what_a_commit_held_is_told_and_nothing_counted_twice(lake):
    told, collecting = [], lake.new_collector()
    collecting._on_commit = told.append
    for message in (message_bytes(0, 4, 0), message_bytes(0, 4, 0), message_bytes(2, 6, 0, run="other", text="other")):
        lake.collect(message, collector=collecting)
    assert [(each.offsets, each.rows.get("kmsg", 0), each.duplicates, each.dead) for each in told] == [
        (1, 4, 0, []),
        (1, 0, 4, []),
        (1, 2, 0, ["content-differs"]),
    ]


def test_a_frame_sent_again_under_a_new_offset_is_a_duplicate_and_no_loss(lake):
    lake.collect(message_bytes(0, 3, 0))
    report = lake.collect(message_bytes(0, 3, 0), message_bytes(3, 4, 1), collector=lake.new_collector())
    assert (report.books[0].stored, report.books[0].duplicates) == (4, 3)
    assert lake.query("select * from losses") == []
    assert lake.seqs() == [0, 1, 2, 3]


@pytest.mark.parametrize("overlap", [False, True])
def test_only_a_frame_that_was_stored_whole_is_known_again_without_a_look_into_the_lake(lake, overlap, monkeypatch):
    first = [message_bytes(0, 2, 0, run="other")] if overlap else []
    lake.collect(*first, message_bytes(0, 3, 0))
    looked = []
    monkeypatch.setattr(collector, "differing", lambda suspects, *_: looked.extend(suspects) or [])
    report = lake.collect(message_bytes(0, 3, 0))
    assert report.books[0].duplicates == (5 if overlap else 3)
    assert len(looked) == (1 if overlap else 0)


def test_what_a_damaged_file_had_is_a_duplicate_as_soon_as_somebody_has_noted_the_damage(tmp_path):
    lake = Lake()
    lake.storage.close()
    lake.storage = open_lake(tmp_path / "lake", create=True)
    lake.collect(message_bytes(0, 3, 0), collector=lake.new_collector())
    (entry,) = snapshot(lake.storage).files["kmsg"]
    file = Path(lake.storage.local_path(entry.key))
    file.write_bytes(file.read_bytes()[:-9])
    collecting = lake.new_collector()
    collecting.add([Message(1, 1001, message_bytes(0, 5, 0, run="other"))], 0)
    with pytest.raises(StorageError, match="cannot compare with what is stored"):
        collecting.commit()
    note(lake.storage, [entry], 1)
    assert collecting.commit()
    (book,) = audit(lake.storage).books
    assert (book.stored, book.duplicates, book.contradicted) == (5, 3, 0)
    assert lake.seqs() == [3, 4]


def test_an_overlap_is_trimmed_and_only_new_positions_are_stored(lake):
    lake.collect(message_bytes(0, 4, 0))
    report = lake.collect(message_bytes(2, 7, 0, run="other"))
    assert (report.books[0].stored, report.books[0].duplicates) == (7, 2)
    assert lake.seqs() == list(range(7))


@pytest.mark.parametrize("restarted", [False, True], ids=["buffered", "in the lake"])
def test_other_content_at_a_known_position_is_an_overwrite_and_a_dead_letter(lake, restarted):
    first, second = message_bytes(0, 4, 0), message_bytes(2, 6, 0, run="other", text="forged")
    if restarted:
        lake.collect(first)
        report = lake.collect(second, collector=lake.new_collector())
    else:
        report = lake.collect(first, second)
    book = report.books[0]
    assert (book.stored, book.duplicates, book.contradicted, book.emitted) == (6, 0, 2, 8)
    assert lake.query("select kind, first_position, count, reason from losses") == [
        ("overwrite", 2, 2, "content-differs")
    ]
    assert lake.query("select reason, position, machine from dead_letters") == [("content-differs", 2, "m")]
    assert lake.query("select message from kmsg where seq = 2") == [("text 2",)]


def test_the_same_positions_differing_only_in_when_they_were_captured_are_duplicates(lake):
    lake.collect(message_bytes(0, 4, 0))
    again = frame(0, 4, 0, run="other")
    again.realtime_ns = 99
    report = lake.collect(encode(again))
    assert (report.books[0].duplicates, report.books[0].contradicted) == (4, 0)


def test_losses_of_the_producer_and_gaps_are_rows(lake):
    overwrite = Loss("overwrite", 4, 2, "ring-overwritten", "agent")
    report = lake.collect(message_bytes(0, 4, 0), message_bytes(8, 9, 1, losses=[overwrite]))
    assert lake.query("select kind, first_position, count, found_by from losses order by first_position") == [
        ("overwrite", 4, 2, "agent"),
        ("gap", 6, 2, "collector"),
    ]
    assert report.books[0].lost == {"overwrite": 2, "gap": 2}


def test_a_loss_without_a_count_is_null_and_not_zero(lake):
    lake.collect(encode(heartbeat(0, 0, losses=[Loss("drop", 0, None, "unknown", "shipper")])))
    assert lake.query("select count from losses") == [(None,)]


def test_offsets_that_are_missing_are_a_loss_and_explain_the_streams_gap(lake):
    lake.collect(message_bytes(0, 2, 0))
    lake.collector.overtaken(5, 123)
    lake.collect(message_bytes(9, 10, 4), at=5)
    rows = lake.query("select kind, machine, first_position, count, reason from losses order by machine")
    assert rows == [
        ("retention", "", 1, 4, "offsets-deleted-unread"),
        ("retention", "m", 2, 7, "log-retention"),
    ]


def test_retention_alone_is_committed_so_that_it_is_never_forgotten(lake):
    lake.collector.overtaken(5, 123)
    assert lake.collector.due(0)
    assert lake.collector.commit()
    assert lake.new_collector().position == 5
    assert lake.query("select count from losses") == [(5,)]


def test_a_jump_of_offsets_inside_the_log_is_a_loss_too(lake):
    lake.collect(message_bytes(0, 2, 0))
    lake.collect(message_bytes(2, 3, 1), at=4)
    assert lake.query("select kind, first_position, count, reason from losses") == [("gap", 1, 3, "offsets-missing")]


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x00" * 100_000, message_bytes(0, 1, 0)[:-1], b"x" * (3 << 20)])
def test_garbage_is_a_dead_letter_with_its_place_and_first_bytes(lake, garbage):
    lake.collect(message_bytes(0, 2, 0), garbage, message_bytes(2, 3, 1))
    ((topic, partition, offset, size, head),) = lake.query(
        'select topic, partition, "offset", size_bytes, head from dead_letters'
    )
    assert (topic, partition, offset, size) == (*PARTITION, 1, len(garbage))
    assert head == garbage[:256]
    assert lake.seqs() == [0, 1, 2]
    assert lake.query("select * from losses") == []


def test_what_an_unreadable_message_held_is_called_so_when_its_stream_goes_on(lake):
    lake.collect(message_bytes(0, 2, 0), message_bytes(2, 5, 1)[:-3], message_bytes(5, 6, 2))
    assert lake.query("select kind, first_position, count from losses") == [("dead-letter", 2, 3)]


def test_a_frame_of_a_newer_encoding_is_dead_but_counted_at_its_positions(lake):
    newer = frame(2, 5, 1)
    newer.encoding_version = 99
    report = lake.collect(message_bytes(0, 2, 0), encode(newer), message_bytes(5, 6, 2))
    assert (report.books[0].stored, report.books[0].dead) == (3, 3)
    assert lake.query("select reason, position from dead_letters") == [("encoding", 2)]
    assert lake.query("select * from losses") == []


def test_a_body_that_does_not_hold_its_records_is_dead_as_a_whole(lake):
    lying = frame(2, 5, 1)
    lying.body = lying.body[:-1]
    report = lake.collect(message_bytes(0, 2, 0), encode(lying), message_bytes(5, 6, 2))
    assert (report.books[0].stored, report.books[0].dead) == (3, 3)


def test_a_record_that_cannot_be_read_is_dead_and_its_neighbours_are_stored(lake):
    report = lake.collect(encode(frame(0, 3, 0, records=[record(0), b"torn", record(2)])))
    assert (report.books[0].stored, report.books[0].dead) == (2, 1)
    assert lake.query("select position, reason, head from dead_letters") == [(1, "record", b"torn")]
    assert lake.seqs() == [0, 2]


def test_of_two_collectors_the_slower_follows_the_faster_and_nothing_is_twice(lake):
    slow, fast = lake.new_collector(), lake.new_collector()
    values = [message_bytes(i * 2, i * 2 + 2, i) for i in range(4)]
    slow.add([Message(i, 0, value) for i, value in enumerate(values)], 0)
    lake.collect(*values[:3], collector=fast)
    assert not slow.commit()
    assert slow.position == 3
    lake.collect(*values, at=0, collector=slow)
    assert lake.seqs() == list(range(8))


@pytest.mark.parametrize(
    ("cut", "due"),
    [
        (Cut(1 << 30, 5, 1 << 60), True),
        (Cut(10, 1 << 30, 1 << 60), True),
        (Cut(1 << 30, 1 << 30, 100), True),
        (Cut(1 << 30, 1 << 30, 101), False),
    ],
    ids=["rows", "bytes", "age", "none"],
)
def test_a_commit_is_due_by_rows_bytes_or_age(lake, cut, due):
    collector = lake.new_collector(cut)
    assert not collector.due(0)
    collector.add([Message(0, 0, message_bytes(0, 6, 0))], 1000)
    assert collector.due(1100) is due


def test_it_says_how_long_its_buffer_may_wait(lake):
    collector = lake.new_collector(Cut(1 << 30, 1 << 30, 50_000_000))
    assert collector.due_in_ms(0) is None
    collector.add([Message(0, 0, message_bytes(0, 1, 0))], 1_000_000)
    assert [collector.due_in_ms(now_ns) for now_ns in (1_000_000, 41_000_000, 99_000_000)] == [50, 10, 0]


def test_a_flood_of_garbage_is_cut_like_rows(lake):
    collector = lake.new_collector(Cut(1 << 30, 100, 1 << 60))
    collector.add([Message(i, 0, b"x") for i in range(100)], 0)
    assert collector.due(0)


def test_a_flood_of_losses_is_cut_by_what_they_take_of_memory(lake):
    flooded = lake.new_collector(Cut(1 << 20, 1 << 60, 1 << 60))
    values = [encode(heartbeat(0, i, losses=[Loss("drop", 0, 1, "r", "agent", "event")] * 500)) for i in range(5)]
    taken = flooded.add([Message(i, 1000 + i, value) for i, value in enumerate(values)], 0)
    assert (taken, flooded.due(0)) == (3, True)
    assert flooded.buffered_bytes >= 1500 << 10


def test_streams_beyond_the_limit_are_buried_and_known_ones_go_on(lake, monkeypatch):
    monkeypatch.setattr("consumers.collector.STREAMS_MAX", 1)
    other = STREAM._replace(machine="invented")
    lake.collect(message_bytes(0, 1, 0), message_bytes(0, 1, 0, stream=other), message_bytes(1, 2, 1))
    assert lake.query("select reason from dead_letters") == [("too-many-streams",)]
    assert lake.seqs() == [0, 1]


DAY_NS = 24 * 3_600_000_000_000


def invented_streams(lake, machine, count, at_ns, collector):
    values = [message_bytes(0, 1, 0, stream=STREAM._replace(machine=machine, boot_id=f"b{i}")) for i in range(count)]
    collector.add([Message(collector.position + i, at_ns + i, value) for i, value in enumerate(values)], 0)
    assert collector.commit()
    report = audit(lake.storage, deep=True)
    assert report.closes, report.problems
    return report


def test_a_machine_that_invents_streams_takes_no_room_from_others(lake, monkeypatch):
    monkeypatch.setattr("consumers.collector.STREAMS_MAX", 16)
    monkeypatch.setattr("consumers.collector.STREAMS_OF_MACHINE_MAX", 8)
    invented_streams(lake, "evil", 20, DAY_NS, lake.collector)
    invented_streams(lake, "good", 3, DAY_NS, lake.collector)
    assert lake.query("select machine, count(*) from kmsg group by all order by all") == [("evil", 8), ("good", 3)]
    assert lake.query("select distinct machine, reason from dead_letters") == [(None, "too-many-streams")]


def test_streams_that_are_long_silent_make_room_for_new_ones_and_may_come_again(lake, monkeypatch, caplog):
    monkeypatch.setattr("consumers.collector.STREAMS_MAX", 8)
    monkeypatch.setattr("consumers.collector.STREAMS_OF_MACHINE_MAX", 8)
    for number in range(5):
        report = invented_streams(lake, f"guest{number}", 3, (1 + 2 * number) * DAY_NS, lake.new_collector())
    assert lake.query("select count(*), count(distinct machine) from kmsg") == [(15, 5)]
    assert lake.query("select count(*) from dead_letters") == [(0,)]
    assert len(report.books) <= 8
    assert "of those silent for a day 1 have no book from now on" in caplog.text
    # One of them goes on after all: in a book of its own, with its rows of before beside.
    value = message_bytes(1, 3, 1, stream=STREAM._replace(machine="guest0", boot_id="b0"))
    lake.collector.reload()
    lake.collector.add([Message(lake.collector.position, 12 * DAY_NS, value)], 0)
    assert lake.collector.commit()
    report = audit(lake.storage, deep=True)
    assert report.closes, report.problems
    assert lake.query("select seq from kmsg where machine = 'guest0' and boot_id = 'b0' order by seq") == [
        (0,),
        (1,),
        (2,),
    ]


def test_pages_that_come_again_cost_a_read_of_the_files_that_have_them(lake, monkeypatch):
    lake.collect(encode(described()))
    for i in range(5):
        lake.collect(encode(paged(i, [page(i)], number=i)))
    opened = []
    read = pq.read_table
    monkeypatch.setattr(stored.pq, "read_table", lambda path, **how: opened.append(path) or read(path, **how))
    lake.collector = lake.new_collector()
    report = lake.collect(*[encode(paged(2, [page(2)], number=9 + i)) for i in range(4)])
    assert report.closes
    assert len(opened) == 4
    assert len(set(opened)) == 1
    assert lake.query("select count(*) from dead_letters") == [(0,)]
    lake.collect(encode(paged(3, [page(77)], number=20)))
    assert lake.query("select reason from dead_letters") == [("content-differs",)]


@pytest.mark.parametrize("surface", ["ftrace", "kmsh", "bpf-counts"])
def test_records_of_another_surface_than_the_streams_are_buried_and_every_book_closes(lake, surface):
    other = STREAM._replace(surface=surface)
    lake.collect(message_bytes(0, 2, 0), message_bytes(0, 3, 0, stream=other))
    assert lake.query("select reason, detail from dead_letters") == [
        ("encoding", f"kmsg in a stream of the surface '{surface}'")
    ]
    assert lake.seqs() == [0, 1]


def test_counts_that_no_number_of_64_bits_holds_add_up(lake):
    lost = [Loss(LossKind.DROP, 2, (1 << 63) - 1, "x", "agent", LossUnit.EVENT) for _ in range(3)]
    lake.collect(message_bytes(0, 2, 0, losses=lost))
    assert lake.query("select sum(count) from losses") == [(3 * ((1 << 63) - 1),)]


def values(lake):
    return [value for (value,) in lake.query("select value from trace_tick order by instance, page, position")]


def book(report, stream):
    return next(each for each in report.books if each.name == "/".join(stream))


def test_pages_behind_their_description_are_rows(lake):
    report = lake.collect(*_pages.encoded(described(), paged(0, [page(1), page(2, 3)]), paged(2, [page(4)], 1)))
    assert values(lake) == [1, 2, 3, 4]
    pages, descriptions = book(report, CPU), book(report, SET)
    assert (pages.stored, pages.rows, descriptions.stored, descriptions.rows) == (3, 4, 1, 0)
    assert report.rows == {"trace_tick": 4, "artifacts": 1}


def test_pages_whose_description_nobody_sent_are_dead_as_a_whole(lake):
    report = lake.collect(*_pages.encoded(paged(0, [page(1), page(2)]), described(), paged(2, [page(3)], 1)))
    # In one commit the order does not matter: it is there.
    assert values(lake) == [1, 2, 3]
    other = _pages.formats({})
    report = lake.collect(*_pages.encoded(paged(3, [page(4), page(5)], 2, body=other), paged(5, [page(6)], 3)))
    assert values(lake) == [1, 2, 3, 6]
    assert (book(report, CPU).stored, book(report, CPU).dead, book(report, CPU).rows) == (4, 2, 4)
    assert lake.query("select reason, position, instance from dead_letters") == [("descriptor", 3, "set/cpu0")]


@pytest.mark.parametrize("again", [False, True], ids=["pages alone", "the description again"])
def test_a_restarted_collector_finds_the_description_in_the_lake(lake, again):
    lake.collect(*_pages.encoded(described(), paged(0, [page(1)])))
    frames = [*([described()] if again else []), paged(1, [page(2)], 1)]
    report = lake.collect(*_pages.encoded(*frames), collector=lake.new_collector())
    assert values(lake) == [1, 2]
    assert book(report, SET).duplicates == int(again)
    assert lake.query("select count(*) from losses, dead_letters") == [(0,)]


@pytest.mark.parametrize("restarted", [False, True], ids=["buffered", "in the lake"])
def test_pages_that_come_again_are_duplicates(lake, restarted):
    first = _pages.encoded(described(), paged(0, [page(1), page(2)]))
    again = _pages.encoded(paged(1, [page(2), page(3)], 0, run="other"))
    if restarted:
        lake.collect(*first)
        report = lake.collect(*again, collector=lake.new_collector())
    else:
        report = lake.collect(*first, *again)
    assert values(lake) == [1, 2, 3]
    assert (book(report, CPU).stored, book(report, CPU).duplicates, book(report, CPU).contradicted) == (3, 1, 0)


@pytest.mark.parametrize("restarted", [False, True], ids=["buffered", "in the lake"])
def test_pages_of_an_agent_whose_spool_was_deleted_are_stored_behind_those_it_had_sent(lake, restarted):
    def cut(frame, at_ns):
        return dataclasses.replace(frame, realtime_ns=at_ns)

    first = _pages.encoded(cut(described(), 1), cut(paged(0, [page(1), page(2)]), 2))
    anew = (described(run="new"), paged(0, [page(3)], 0, run="new"), paged(1, [page(4)], 1, run="new"))
    second = _pages.encoded(*(cut(each, 3 + i) for i, each in enumerate(anew)))
    if restarted:
        lake.collect(*first)
        report = lake.collect(*second, collector=lake.new_collector())
    else:
        report = lake.collect(*first, *second)
    assert lake.query("select value, page from trace_tick order by page") == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert lake.query("select instance, kind, first_position, count, reason from losses order by 1") == [
        ("set", "reset", 1, None, "numbered-anew"),
        ("set/cpu0", "reset", 2, None, "numbered-anew"),
    ]
    assert lake.query("select count(*) from dead_letters") == [(0,)]
    assert (book(report, CPU).stored, book(report, CPU).unknown_losses) == (4, 1)


@pytest.mark.parametrize("restarted", [False, True], ids=["buffered", "in the lake"])
@pytest.mark.parametrize(
    "other",
    [page(9), page(2, 9), page(), _pages.FORM.page(_pages.T, _pages.tick(2), _pages.tock(b"more"))],
    ids=["another value", "an event more", "no event", "an event of another kind"],
)
def test_other_pages_at_a_known_position_are_an_overwrite_and_a_dead_letter(lake, restarted, other):
    first = _pages.encoded(described(), paged(0, [page(1), page(2)]))
    again = _pages.encoded(paged(1, [other, page(3)], 0, run="other"))
    if restarted:
        lake.collect(*first)
        report = lake.collect(*again, collector=lake.new_collector())
    else:
        report = lake.collect(*first, *again)
    assert values(lake) == [1, 2, 3]
    assert (book(report, CPU).stored, book(report, CPU).duplicates, book(report, CPU).contradicted) == (3, 0, 1)
    assert lake.query("select kind, first_position, count, unit, reason from losses") == [
        ("overwrite", 1, 1, "position", "content-differs")
    ]
    assert lake.query("select reason, position from dead_letters") == [("content-differs", 1)]


def test_a_duplicate_is_known_also_where_another_kernel_widened_the_stored_columns(lake):
    wide = _pages.formats({"sys:tick": _pages.event_text("tick", 7, ("unsigned long value", 8, 0), ("int more", 4, 1))})
    newer = _pages.FORM.page(
        _pages.T, _pages.FORM.event(1, _pages.payload(7, (2**63).to_bytes(8, "little") + bytes(4)))
    )
    machine = [each._replace(machine="n") for each in (SET, CPU)]
    frames = [described(), paged(0, [page(-1)]), described(body=wide, stream=machine[0])]
    lake.collect(*_pages.encoded(*frames, paged(0, [newer], body=wide, stream=machine[1])))
    assert [int(value) for value in values(lake)] == [-1, 2**63]
    report = lake.collect(*_pages.encoded(paged(0, [page(-1), page(5)], run="x")), collector=lake.new_collector())
    assert (book(report, CPU).duplicates, book(report, CPU).contradicted) == (1, 0)


def test_a_page_with_a_fault_is_a_dead_letter_beside_its_rows_and_keeps_its_position(lake):
    faulty = _pages.FORM.page(_pages.T, _pages.tick(2), bytes(16))
    report = lake.collect(*_pages.encoded(described(), paged(0, [page(1), faulty, page(3)])))
    assert values(lake) == [1, 2, 3]
    assert (book(report, CPU).stored, book(report, CPU).dead, book(report, CPU).rows) == (3, 0, 3)
    assert lake.query("select reason, position, size_bytes from dead_letters") == [("page", 1, 4096 - 32)]


def test_lost_events_have_a_sum_of_their_own_and_take_no_position(lake):
    losses = [
        Loss("overwrite", 1, 40, "ring-overrun", "agent", "event"),
        Loss("overwrite", 2, None, "ring-overrun", "agent", "event"),
    ]
    pages = [page(1), page(2, missed=40), page(3, missed=1, stored=False)]
    lake.collect(*_pages.encoded(described(), paged(0, pages, losses=losses)))
    report = lake.collect(*_pages.encoded(paged(5, [page(6)], 1)))
    pages = book(report, CPU)
    assert (pages.stored, pages.lost, pages.lost_events, pages.unknown_losses) == (4, {"gap": 2}, 40, 1)
    assert lake.query("select first_position, count, unit from losses order by all") == [
        (1, 40, "event"),
        (2, None, "event"),
        (3, 2, "position"),
    ]


def test_the_audit_tells_when_the_rows_say_another_number_of_lost_events(lake):
    lost = Loss("overwrite", 0, 40, "ring-overrun", "agent", "event")
    lake.collect(*_pages.encoded(described(), paged(0, [page(1)], losses=[lost])))
    lake.collector._books.streams[CPU].lost_events += 1
    lake.collector.add([Message(lake.collector.position, 0, encode(paged(1, [page(2)], 1)))], 0)
    assert lake.collector.commit()
    assert audit(lake.storage).problems == [
        "m/b/guest-kernel/ftrace/set/cpu0/mono: 41 events lost in the books, 40 in its rows"
    ]


def test_an_event_of_an_unknown_kind_is_counted_with_its_stream(lake):
    odd = _pages.FORM.page(_pages.T, _pages.tick(1), _pages.FORM.event(1, _pages.payload(99, b"abcd")))
    report = lake.collect(*_pages.encoded(described(), paged(0, [odd])))
    assert book(report, CPU).rows == 2
    assert lake.query("select event_id, reason from trace_unknown") == [(99, "unknown id")]


def invented(i, own=7):
    """Return a description with one event of its own, and a page of its records beside those of `tick`."""
    event = _pages.event_text(f"e{i}", 100 + i, ("int own", 4, 1))
    body = _pages.formats({"sys:tick": _pages.TICK, f"sys:e{i}": event})
    return body, _pages.FORM.page(_pages.T, _pages.tick(i), _pages.tick(own, number=100 + i))


def test_a_machine_makes_so_many_tables_and_what_is_over_is_raw_told_and_in_the_books(lake, monkeypatch):
    monkeypatch.setattr(kinds, "OF_MACHINE_MAX", 3)
    sent = [invented(i) for i in range(5)]
    for i, (body, one) in enumerate(sent):
        report = lake.collect(
            *_pages.encoded(described(i, i, body), paged(i, [one], i, body=body)), collector=lake.new_collector()
        )
    assert report.rows == {"trace_tick": 5, "trace_e0": 1, "trace_e1": 1, "trace_unknown": 3, "artifacts": 5, "dead_letters": 3}  # fmt: skip
    assert (book(report, CPU).stored, book(report, CPU).rows, book(report, CPU).dead) == (5, 10, 0)
    assert values(lake) == list(range(5))
    raw = lake.query("select page, event_id, reason, data from trace_unknown order by page")
    assert raw == [(i, 100 + i, "too many", _pages.payload(100 + i, (7).to_bytes(4, "little"))) for i in (2, 3, 4)]
    told = lake.query("select reason, machine, position, size_bytes, detail from dead_letters order by position")
    assert told[0] == ("too-many-kinds", "m", 2, 0, "1 events of 1 kinds, as trace_e2, are rows of trace_unknown")
    # What comes again is compared with what is stored, here as rows and there raw.
    again = _pages.encoded(*(paged(i, [one], i, run="x", body=body) for i, (body, one) in enumerate(sent)))
    report = lake.collect(*again, collector=lake.new_collector())
    assert (book(report, CPU).duplicates, book(report, CPU).contradicted) == (5, 0)
    # Another machine has room of its own, and then it is there for all.
    body, one = sent[4]
    theirs = [each._replace(machine="other") for each in (SET, CPU)]
    new = lake.new_collector()
    frames = [described(0, 0, body, stream=theirs[0]), paged(0, [one], stream=theirs[1], body=body)]
    lake.collect(*_pages.encoded(*frames), collector=new)
    lake.collect(*_pages.encoded(paged(5, [one], 5, body=body)), collector=new)
    assert lake.query("select machine, own from trace_e4 order by machine") == [("m", 7), ("other", 7)]


def test_what_was_brought_is_known_behind_a_checkpoint(lake, monkeypatch):
    monkeypatch.setattr(kinds, "OF_MACHINE_MAX", 3)
    monkeypatch.setattr(chain, "CHECKPOINT_COMMITS", 2)
    for i in range(5):
        body, one = invented(i)
        lake.collect(*_pages.encoded(described(i, i, body), paged(i, [one], i, body=body)))
    assert expire(lake.storage, 10**18, grace_ms=0).commits == 0
    body, one = invented(5)
    again = lake.new_collector()
    report = lake.collect(*_pages.encoded(described(5, 5, body), paged(5, [one], 5, body=body)), collector=again)
    assert report.rows["trace_unknown"] == 4


def test_columns_of_a_known_table_are_bounded_too(lake, monkeypatch):
    monkeypatch.setattr(kinds, "OF_TABLE_AND_MACHINE_MAX", 2)
    for i in range(4):
        event = _pages.event_text("tick", 7, ("int value", 4, 1), (f"int junk{i}", 4, 1))
        body = _pages.formats({"sys:tick": event})
        one = _pages.FORM.page(_pages.T, _pages.FORM.event(1, _pages.payload(7, bytes(8))))
        report = lake.collect(*_pages.encoded(described(i, i, body), paged(i, [one], i, body=body)))
    assert (report.rows["trace_tick"], report.rows["trace_unknown"]) == (2, 2)
    columns = [name for name, *_ in lake.query("describe trace_tick")]
    assert [name for name in columns if name.startswith("junk")] == ["junk0", "junk1"]


@pytest.mark.parametrize("together", [True, False], ids=["one commit", "commits of their own"])
def test_a_machine_that_calls_a_number_text_makes_no_text_of_that_of_others(lake, together):
    usual, odd = _pages.FORMATS, _pages.formats(
        {"sys:tick": _pages.event_text("tick", 7, ("char value[4]", 4, 0)).replace(
            "unsigned char common_flags;", "char common_flags[1];"
        )}
    )  # fmt: skip
    sent = []
    for machine, body, what in (("odd", odd, b"abc\0"), *((f"m{i}", usual, bytes((i, 0, 0, 0))) for i in (1, 2))):
        streams = [each._replace(machine=machine) for each in (SET, CPU)]
        one = _pages.FORM.page(_pages.T, _pages.FORM.event(1, _pages.payload(7, what)))
        sent.append([described(0, 0, body, stream=streams[0]), paged(0, [one], stream=streams[1], body=body)])
    first, *others = (_pages.encoded(*frames) for frames in sent)
    for messages in [[*first, *others[0], *others[1]]] if together else [first, [*others[0], *others[1]]]:
        report = lake.collect(*messages)
    assert (report.rows["trace_tick"], report.rows.get("dead_letters")) == (3, None)
    sql = "select machine, value, value_text, irqs_off, flags from trace_tick order by machine"
    rows = [("m1", 1, None, False, 0), ("m2", 2, None, False, 0), ("odd", None, "abc", None, None)]
    for _ in range(2):
        assert lake.query("select sum(value) from trace_tick where value > 0") == [(3,)]
        assert lake.query(sql) == rows
        compact(lake.storage, 10**16)
    # What comes again is the same as what is stored, also beside the others of a merged file.
    again = _pages.encoded(*(dataclasses.replace(frames[1], run="again") for frames in sent))
    report = lake.collect(*again, collector=lake.new_collector())
    assert "losses" not in report.rows and {each.contradicted for each in report.books} == {0}


# Records of BPF rings


def delays(lake):
    return lake.query("select position, wait_us, state_name from bpf_sched_delay order by position")


def test_records_behind_their_types_are_rows_and_their_losses_have_a_sum(lake):
    lost = Loss("drop", 2, 7, "ring-full-cpu0", "agent", "event")
    frames = [_records.described(), recorded(0, [delay(0), Gone(b""), delay(1, state=5)]), recorded(2, [delay(2)], 1, losses=[lost])]  # fmt: skip
    report = lake.collect(*map(encode, frames))
    assert delays(lake) == [(0, 9, "SLEEPS"), (1, 9, None), (2, 9, "SLEEPS")]
    records, described_ = (book(report, frames[i].stream) for i in (1, 0))
    assert (records.stored, records.rows, records.lost_events, described_.stored) == (3, 3, 7, 1)
    assert report.rows == {"bpf_sched_delay": 3, "artifacts": 1, "losses": 1}


def test_a_restarted_collector_finds_the_types_in_the_lake(lake):
    lake.collect(*map(encode, [_records.described(), recorded(0, [delay(0)])]))
    lake.collect(encode(recorded(1, [delay(1)], 1)), collector=lake.new_collector())
    assert [position for position, _, _ in delays(lake)] == [0, 1]
    assert lake.query("select count(*) from losses, dead_letters") == [(0,)]


def test_a_short_record_takes_its_position_with_it(lake):
    report = lake.collect(*map(encode, [_records.described(), recorded(0, [delay(0), b"short", delay(2)])]))
    assert [position for position, _, _ in delays(lake)] == [0, 2]
    records = book(report, _records.RING)
    assert (records.stored, records.dead, records.rows) == (2, 1, 2)
    assert lake.query("select reason, position, head from dead_letters") == [("record", 1, b"short")]
    assert audit(lake.storage, deep=True).problems == []


def test_a_program_without_room_for_its_columns_is_raw_and_without_any_dead(lake, monkeypatch):
    monkeypatch.setattr(kinds, "OF_TABLE_AND_MACHINE_MAX", 2)
    bodies = [_records.TYPES, *(_records.types(_records.sched_delay(**{f"more{i}": 4})) for i in range(2))]
    more = [delay(i) + bytes(4) * (i > 0) for i in range(3)]
    for i, (body, data) in enumerate(zip(bodies, more, strict=True)):
        if i == 2:
            # Of its two sorts of columns one is left for raw rows.
            monkeypatch.setattr(kinds, "OF_TABLE_AND_MACHINE_MAX", 3)
            monkeypatch.setattr(kinds, "OF_MACHINE_MAX", 2)
        frames = [_records.described(i, i, body=body), recorded(i, [data], i, body=body)]
        report = lake.collect(*map(encode, frames))
    assert (book(report, _records.RING).stored, book(report, _records.RING).dead) == (2, 1)
    told = lake.query("select reason, position, size_bytes > 0 from dead_letters order by size_bytes")
    assert told == [("too-many-kinds", 2, False), ("too-many-kinds", 2, True)]


def test_rows_of_a_program_without_room_for_its_columns_alone_are_raw(lake, monkeypatch):
    real = kinds.Kinds.admit
    raw = bpf_rows.columns(None)
    monkeypatch.setattr(
        kinds.Kinds, "admit", lambda self, who, table, name: name == raw and real(self, who, table, raw)
    )
    report = lake.collect(*map(encode, [_records.described(), recorded(0, [delay(0)])]))
    assert (book(report, _records.RING).stored, book(report, _records.RING).dead) == (1, 0)
    assert lake.query("select position, data from bpf_sched_delay") == [(0, delay(0))]
    assert lake.query("select reason, position from dead_letters") == [("too-many-kinds", 0)]


@pytest.mark.parametrize("restarted", [False, True], ids=["buffered", "in the lake"])
@pytest.mark.parametrize(("other", "outcome"), [(delay(1), (1, 0)), (delay(1, wait_us=8), (0, 1))], ids=["the same", "others"])  # fmt: skip
def test_records_that_come_again_are_compared(lake, restarted, other, outcome):
    first = [encode(_records.described()), encode(recorded(0, [delay(0), delay(1)]))]
    # The ring's byte counter of the record that comes again is what it was.
    again = [encode(recorded(1, [other, delay(2)], 0, run="other", at=4096 + 56))]
    if restarted:
        lake.collect(*first)
        report = lake.collect(*again, collector=lake.new_collector())
    else:
        report = lake.collect(*first, *again)
    assert delays(lake) == [(i, 9, "SLEEPS") for i in range(3)]
    records = book(report, _records.RING)
    assert (records.stored, records.duplicates, records.contradicted) == (3, *outcome)


def test_lists_and_lists_of_lists_are_stored_compared_and_merged(lake):
    types = Types()
    enum, u16 = types.enum("e", A=1), types.integer("u16", 2)
    char, s64 = types.integer("char", 1, 1), types.integer("s64", 8, 1)
    inner = types.struct("inner", 4, ("x", u16, 0), ("s", types.array(char, 2), 16))
    members = [("grid", types.array(types.array(s64, 2), 2), 0), ("in", types.array(inner, 2), 256), ("e", types.array(enum, 2), 320)]  # fmt: skip
    types.struct("sched_delay", 48, *members)
    body = _records.types(types.blob())
    data = [struct.pack("<4q H2sH2s 2I", -1, 2, 3, 4, 5, b"a", 6, b"\xff", 1, i) for i in range(4)]
    sent = [_records.described(body=body), recorded(0, data[:2], body=body), recorded(2, data[2:], 1, body=body, at=4096 + 112)]  # fmt: skip
    for each in sent:
        lake.collect(encode(each))
    report = lake.collect(encode(dataclasses.replace(sent[1], run="x")), collector=lake.new_collector())
    assert (book(report, _records.RING).duplicates, book(report, _records.RING).contradicted) == (2, 0)
    columns = "grid, in_x, in_s, e, e_name"
    rows = [([[-1, 2], [3, 4]], [5, 6], ["a", "\ufffd"], [1, i], ["A", "A" if i == 1 else None]) for i in range(4)]
    assert lake.query(f"select {columns} from bpf_sched_delay order by position") == rows
    assert compact(lake.storage, now_ns=2 * 3600 * 10**9).files_in == 2
    assert lake.query(f"select {columns} from bpf_sched_delay order by position") == rows


HOUR_NS = 3_600_000_000_000


def test_books_of_boots_that_are_long_over_are_closed_and_the_audit_still_adds_up(lake, monkeypatch):
    monkeypatch.setattr(collector, "_FORGET_COMMITS", 1)
    old = message_bytes(0, 5, 0)
    lake.collector.add([Message(0, 1000, old)], 0)
    assert lake.collector.commit()
    now_ns = 100 * HOUR_NS
    assert retire(lake.storage, now_ns, Retention(hours=24)).manifest == 1
    new = message_bytes(0, 5, 0, stream=STREAM._replace(boot_id="another"))
    lake.collector.add([Message(1, now_ns, new)], 0)
    assert lake.collector.commit()
    report = audit(lake.storage, deep=True)
    assert report.closes, report.problems
    assert [book.name for book in report.books] == ["/".join(filter(None, STREAM._replace(boot_id="another")))]
    assert (report.rows, report.retired) == ({"kmsg": 5}, {"kmsg": 5})
    again = lake.new_collector()
    assert not again.unbalanced
    # A stream that has no book any more, and comes after all, begins a new one.
    again.add([Message(2, now_ns + 1, message_bytes(5, 8, 1))], 0)
    assert again.commit()
    report = audit(lake.storage, deep=True)
    assert report.closes, report.problems
    assert {book.first for book in report.books} == {0, 5}
    # What leaves of it then has nothing to do with what left before.
    assert retire(lake.storage, 200 * HOUR_NS, Retention(hours=24)).rows == 8
    report = audit(lake.storage, deep=True)
    assert report.closes, report.problems
