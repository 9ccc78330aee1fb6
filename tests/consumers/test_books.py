"""The books close whatever happens to the frames of a stream on the way."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from consumers.books import Books
from schemas import heartbeat, limits
from schemas.frame import Frame
from schemas.heartbeat import Heartbeat
from schemas.loss import Loss
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION

STREAM = Stream("m", "b", "guest-kernel", "kmsg", "", "printk")


def frame(first, next_, number, losses=(), run="r", stream=STREAM):
    return Frame(stream, run, number, first, next_, next_ - first, "kmsg", 1, b"", list(losses))


def test_contiguous_frames_are_stored_whole():
    books = Books()
    assert books.offer(frame(5, 9, 0)).store_from == 5
    assert books.offer(frame(9, 12, 1)) == (9, False, [])
    assert (books.streams[STREAM].first, books.streams[STREAM].next) == (5, 12)


def test_a_loss_named_by_the_producer_is_the_loss_recorded():
    books = Books()
    books.offer(frame(0, 4, 0))
    loss = Loss("overwrite", 4, 6, "ring-overwritten", "agent")
    assert books.offer(frame(10, 12, 1, [loss])).losses == [loss]
    assert books.streams[STREAM].lost == {"overwrite": 6}


def test_what_the_producer_does_not_explain_is_a_gap():
    books = Books()
    books.offer(frame(0, 4, 0))
    loss = Loss("overwrite", 6, 2, "ring-overwritten", "agent")
    found = books.offer(frame(10, 12, 1, [loss])).losses
    assert found == [
        Loss("gap", 4, 2, "unexplained", "collector"),
        loss,
        Loss("gap", 8, 2, "unexplained", "collector"),
    ]


def test_a_heartbeat_finds_the_loss_at_the_tail():
    books = Books()
    books.offer(frame(0, 4, 0))
    assert books.offer(frame(9, 9, 1)).losses == [Loss("gap", 4, 5, "unexplained", "collector")]


def test_a_gap_after_retention_is_called_retention_once():
    books = Books()
    books.offer(frame(0, 4, 0))
    books.retentions += 1
    assert books.offer(frame(6, 7, 5)).losses[0].kind == "retention"
    assert books.offer(frame(9, 10, 6)).losses[0].kind == "gap"


def test_a_gap_after_an_unreadable_message_is_called_dead_letter():
    books = Books()
    books.offer(frame(0, 4, 0))
    books.unreadable += 1
    assert books.offer(frame(6, 7, 5)).losses[0].kind == "dead-letter"


def test_a_frame_sent_again_is_a_duplicate_with_its_losses():
    books = Books()
    loss = Loss("overwrite", 0, 3, "before-first-read", "agent")
    books.offer(frame(3, 6, 0, [loss]))
    again = books.offer(frame(3, 6, 0, [loss]))
    assert again.duplicate and not again.losses
    book = books.streams[STREAM]
    assert (book.first, book.duplicates, book.lost) == (0, 3, {"overwrite": 3})


def test_a_heartbeat_sent_again_is_a_duplicate_although_it_holds_no_position():
    books = Books()
    books.offer(frame(3, 6, 0))
    assert not books.offer(frame(6, 6, 1)).duplicate
    assert books.offer(frame(6, 6, 1)).duplicate


def test_an_overlap_from_another_run_is_trimmed():
    books = Books()
    books.offer(frame(0, 6, 0))
    decision = books.offer(frame(4, 9, 0, run="s"))
    assert (decision.store_from, decision.duplicate) == (6, False)
    assert books.streams[STREAM].duplicates == 2


def test_an_unknown_count_is_not_zero():
    books = Books()
    books.offer(frame(0, 6, 0, [Loss("overwrite", 0, None, "unknown", "agent")]))
    assert books.streams[STREAM].unknown_losses == 1


def test_kinds_from_the_wire_cannot_grow_the_book():
    books = Books()
    for i in range(100):
        books.offer(frame(2 * i + 1, 2 * i + 2, i, [Loss(f"kind{i}", 2 * i, 1, "", "")]))
    assert books.streams[STREAM].lost == {"other": 100}


FRAMES = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.integers(0, 10),
        st.lists(st.tuples(st.integers(0, 60), st.none() | st.integers(0, 20)), max_size=3),
    ),
    max_size=30,
)


@given(FRAMES)
def test_every_history_closes_and_survives_json(history):
    books = Books()
    for number, (first, length, losses) in enumerate(history):
        offered = frame(first, first + length, number, [Loss("overwrite", a, n, "x", "agent") for a, n in losses])
        decision = books.offer(offered)
        books.stored(STREAM, offered.next - decision.store_from, offered.next - decision.store_from)
        assert books.streams[STREAM].closes()
        books = Books.from_json(books.take_changed(), books.partition_json())


DAY_NS = 24 * 3_600_000_000_000


def test_a_stream_that_was_silent_for_a_day_and_has_no_rows_left_has_no_book_any_more():
    other = Stream("m", "c", "guest-kernel", "kmsg", "", "printk")
    books = Books()
    books.offer(frame(0, 4, 0), DAY_NS)
    books.stored(STREAM, 4, 4)
    books.offer(frame(0, 4, 0, stream=other), 3 * DAY_NS)
    books.take_changed()
    books.forget(DAY_NS)
    assert set(books.streams) == {STREAM, other}
    assert books.take_changed() == {}
    books.forget(DAY_NS + 1)
    assert set(books.streams) == {other}
    assert books.take_changed() == {STREAM: None}
    assert books.partition_json()["forgotten.kmsg"] == 4
    again = Books.from_json({}, books.partition_json())
    assert again.partition_json() == books.partition_json()


def test_of_a_machine_without_a_stream_not_even_the_name_is_kept():
    books = Books()
    for i, day in enumerate((1, 1, 3)):
        books.offer(frame(0, 0, 0, stream=STREAM._replace(machine=f"m{i}")), day * DAY_NS)
    books.take_changed()
    books.forget(DAY_NS + 1)
    assert dict(books.machines) == {"m2": 1}


def test_whoever_reads_what_is_old_forgets_no_stream_that_goes_on_there():
    books = Books()
    books.offer(frame(0, 4, 0), DAY_NS)
    books.forget(100 * DAY_NS)
    assert set(books.streams) == {STREAM}


def test_a_book_of_an_earlier_version_stays():
    books = Books()
    books.offer(frame(0, 4, 0), DAY_NS)
    values = {**books.take_changed()[STREAM]}
    del values["seen_ns"]
    again = Books.from_json({STREAM: values}, {})
    again.offer(frame(0, 4, 0, stream=STREAM._replace(boot_id="c")), 9 * DAY_NS)
    again.forget(9 * DAY_NS)
    assert STREAM in again.streams


PAGES = Stream("m", "b", "guest-kernel", "ftrace", "set/cpu0", "mono")


def pages(first, next_, number, *, run, at_ns, losses=(), stream=PAGES):
    made = frame(first, next_, number, losses, run=run, stream=stream)
    return replace(made, realtime_ns=at_ns)


def enter(books, given):
    placed = books.placed(given)
    return placed, books.offer(placed)


def test_a_producer_that_numbers_anew_goes_on_behind_what_is_known():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    placed, decision = enter(books, pages(0, 4, 0, run="b", at_ns=2))
    assert (placed.first, placed.next) == (10, 14)
    assert decision == (10, False, [Loss("reset", 10, None, "numbered-anew", "collector")])
    own = Loss("drop", 4, 2, "agent-died", "agent")
    placed, decision = enter(books, pages(6, 7, 1, run="b", at_ns=3, losses=[own]))
    assert (placed.first, decision.losses) == (16, [own._replace(first_position=14)])
    # So does its next run, whose numbers follow, and what its own log lost in between is told at its place.
    placed, decision = enter(books, pages(9, 12, 2, run="c", at_ns=4))
    assert (placed.first, decision.losses) == (19, [Loss("gap", 17, 2, "unexplained", "collector")])
    book = books.streams[PAGES]
    assert (book.first, book.next, book.unknown_losses) == (0, 22, 1)


def test_what_is_sent_again_is_known_in_both_numberings():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    enter(books, pages(0, 4, 0, run="b", at_ns=2))
    for again in (pages(0, 10, 0, run="a", at_ns=1), pages(0, 4, 0, run="b", at_ns=2)):
        _, decision = enter(books, again)
        assert decision.duplicate
        assert decision.losses == []
    assert books.streams[PAGES].next == 14


def test_a_run_that_goes_on_beside_one_that_numbers_anew_keeps_its_positions():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    enter(books, pages(0, 4, 0, run="b", at_ns=2))
    placed, _ = enter(books, pages(10, 12, 1, run="a", at_ns=3))
    assert placed.first == 10


def test_of_runs_that_are_forgotten_no_numbering_is_remembered():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    for i in range(8):
        enter(books, pages(i, i + 1, i, run=f"run {i}", at_ns=10 + i))
    book = books.streams[PAGES]
    assert book.bases == dict.fromkeys(book.runs, 10)


def test_a_clock_that_is_set_back_makes_no_numbering_anew_of_what_was_cut_before():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=5))
    enter(books, pages(10, 12, 1, run="a", at_ns=3))
    placed, decision = enter(books, pages(0, 4, 0, run="b", at_ns=4))
    assert (placed.first, decision.losses) == (0, [])


def test_a_frame_of_a_run_that_is_long_over_does_not_number_anew():
    books = Books()
    for i in range(6):
        enter(books, pages(i, i + 1, i, run=f"run {i}", at_ns=10 + i))
    placed, decision = enter(books, pages(0, 1, 0, run="run 0", at_ns=10))
    assert (placed.first, decision.duplicate) == (0, True)


def test_losses_in_front_of_the_first_frame_lie_behind_what_is_known():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    full = Loss("drop", 0, 5, "spool-full", "shipper")
    placed, decision = enter(books, pages(5, 6, 3, run="b", at_ns=2, losses=[full]))
    assert placed.first == 15
    assert full._replace(first_position=10) in decision.losses
    assert books.streams[PAGES].lost == {"drop": 5}


def test_a_loss_that_names_what_had_come_is_no_sign_of_another_log():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    full = Loss("drop", 8, 12, "spool-full", "shipper")
    placed, decision = enter(books, pages(20, 21, 1, run="b", at_ns=2, losses=[full]))
    assert (placed.first, decision.losses) == (20, [full._replace(first_position=10, count=10)])
    assert books.streams[PAGES].unknown_losses == 0


def test_the_kernels_own_numbers_never_begin_anew():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1, stream=STREAM))
    again = pages(4, 12, 0, run="b", at_ns=2, stream=STREAM)
    placed, decision = enter(books, again)
    assert placed is again
    assert decision.store_from == 10


def test_where_a_numbering_began_is_remembered():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    enter(books, pages(0, 4, 0, run="b", at_ns=2))
    again = Books.from_json({PAGES: json.loads(json.dumps(books.take_changed()[PAGES]))}, {})
    placed, decision = enter(again, pages(4, 5, 1, run="b", at_ns=3))
    assert (placed.first, decision.losses) == (14, [])


def test_a_heartbeat_that_is_moved_says_where_its_span_began():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    enter(books, pages(0, 4, 0, run="b", at_ns=2))
    beat = heartbeat.pack(Heartbeat(1, 2, 3, 4, 5, 6, 7))
    made = Frame(PAGES, "b", 1, 4, 4, 0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, beat, [], realtime_ns=3)
    placed, _ = enter(books, made)
    assert (placed.next, heartbeat.unpack(placed.body).first_position) == (14, 13)
    last = heartbeat.pack(replace(heartbeat.unpack(beat), first_position=limits.INT64_MAX))
    placed, _ = enter(books, replace(made, number=2, body=last))
    assert heartbeat.unpack(placed.body).first_position == limits.INT64_MAX
    for body in (b"", b"none"):
        assert enter(books, replace(made, number=made.number + 1, body=body))[0].body == body


def test_positions_that_no_number_holds_are_not_moved():
    books = Books()
    enter(books, pages(0, 10, 0, run="a", at_ns=1))
    last = limits.INT64_MAX
    enter(books, pages(0, 4, 0, run="b", at_ns=2))
    placed, _ = enter(books, pages(last - 1, last, 1, run="b", at_ns=3))
    assert placed.next == last
    # Nor are losses that lie so far.
    placed, _ = enter(books, pages(4, 5, 2, run="b", at_ns=4, losses=[Loss("drop", last, None, "x", "agent")]))
    assert placed.losses[0].first_position == last


def test_books_that_go_on_in_another_chain_count_anew_and_know_what_the_one_before_knew():
    books = Books()
    books.offer(replace(frame(0, 10, 0, [Loss("drop", 0, None, "x", "agent")]), realtime_ns=7), 5)
    books.stored(STREAM, 10, 10)
    ended = books.take_changed()
    again = Books()
    again.reopen(ended)
    book = again.streams[STREAM]
    assert (book.first, book.next, book.stored, book.rows, book.unknown_losses) == (10, 10, 0, 0, 0)
    assert (book.closes(), book.opened_ns, book.seen_ns, book.cut_ns) == (True, 5, 5, 7)
    assert set(again.take_changed()) == {STREAM}
    assert again.offer(frame(0, 10, 0)).duplicate
    assert again.offer(frame(10, 12, 1)) == (10, False, [])
