"""Which rows a page in text shows of a timeline: what was wrong, near the incident, in order; and what it leaves out."""

from consumers.incidents.page_timeline import shown
from consumers.timeline.entries import Entry, Kind
from schemas.stream import Stream
from tests.consumers._sample import START_NS
from tests.consumers.incidents._reports import SOURCE, play, soft
from tests.consumers.timeline.test_page import made

S = 10**9
GUEST = Stream(*SOURCE, "kmsg", "", "printk")
HOST = Stream("h", "hb", "host", "kmsg", "", "printk")


def entry(stream, at_s, text, *, kind=Kind.RECORD, level=6, position=-1, until_s=None):
    at_ns = START_NS + int(at_s * S)
    until = None if until_s is None else START_NS + int(until_s * S)
    return Entry(kind, stream, "printk", at_ns, at_ns, text, None, level, position, at_ns, 5, until)


def picked(entries, limit):
    (incident,) = play(soft(1, 100, 22, place=50)).incidents
    incident.last_place = 60
    found = made(["x"])._replace(entries=entries, left_out=0)
    rows, more = shown(found, incident, limit)
    return [row.text for row in rows], more


def test_what_was_wrong_goes_before_what_is_near_and_the_order_stays():
    rows = [
        entry(GUEST, 0.1, "far", position=1),
        entry(HOST, 0.2, "an error of the host", level=3),
        entry(GUEST, 0.3, "a loss", kind=Kind.LOSS, level=4),
        entry(GUEST, 0.9, "near", position=49),
        entry(GUEST, 1.0, "the start line", level=0, position=50),
    ]
    assert picked(rows, 3) == (["an error of the host", "a loss", "the start line"], 2)
    assert picked(rows, 4) == (["an error of the host", "a loss", "near", "the start line"], 1)


def test_the_report_s_own_lines_are_left_to_it():
    rows = [entry(GUEST, 1 + n / 10, f"line {n}", level=0, position=50 + n) for n in range(11)]
    rows.append(entry(GUEST, 1.95, "behind it", position=61))
    assert picked(rows, 40) == (["line 0", "behind it"], 10)


def test_a_stream_that_nobody_watched_at_all_is_the_last_to_be_told():
    whole = entry(HOST, 0, "never watched", kind=Kind.BLIND, level=4, until_s=2)
    part = entry(HOST, 0.5, "watched in part", kind=Kind.BLIND, level=4, until_s=1)
    info = entry(GUEST, 0.6, "a line", position=3)
    assert picked([whole, part, info], 2) == (["watched in part", "a line"], 1)
