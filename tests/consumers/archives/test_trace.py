"""Pieces of rings to frames: full bodies whatever the pieces are, and losses in their place."""

import pytest

from consumers.archives.base import Tags
from consumers.archives.trace import BODY_BYTES, Buffer, Piece, Ring, SavedTrace, frames
from consumers.decode.ftrace_format import parse_header
from schemas import ftrace, limits
from schemas.frame import encode
from tests.consumers.archives._trace_dat import TICK, page
from tests.consumers.decode.ftrace_writer import Form

FORM = Form()
PAGES = [page(FORM, i) for i in range(300)]


def made(pieces, form=FORM, dropped=None):
    header = parse_header(form.header_text)
    ring = Ring(3, lambda: iter(pieces), dropped or {})
    saved = SavedTrace(
        form.header_text, header, {"sys:tick": TICK}, [Buffer("set", "mono", form.page_bytes, [ring])], 1000
    )
    told = []
    found = list(frames(saved, Tags("m", "b", "host", "r"), 5, lambda done, total: told.append((done, total))))
    for each in found:
        encode(each)
    done = [sum(each.archive_bytes for each in pieces[: i + 1]) for i in range(len(pieces))]
    assert told == [*((each, 1000) for each in done), (1000, 1000)]
    return found[1:]


def whole(pages):
    return Piece(b"".join(pages), 1)


@pytest.mark.parametrize("step", [1, 7, 64, 300])
def test_pages_fill_bodies_whatever_the_pieces_are(step):
    found = made([whole(PAGES[at : at + step]) for at in range(0, 300, step)])
    full = BODY_BYTES // 4096
    assert [each.count for each in found] == [full] * 4 + [300 - 4 * full]
    assert [each.first for each in found] == [0, full, 2 * full, 3 * full, 4 * full]
    assert [each.number for each in found] == list(range(5))
    assert b"".join(bytes(ftrace.unpack(each.body).data) for each in found) == b"".join(PAGES)
    assert (found[0].ts_first_ns, found[0].realtime_ns) == (5_000_000_000, 5)


def test_the_largest_pages_are_one_a_body():
    form = Form(page_bytes=limits.TRACE_PAGE_BYTES_MAX)
    found = made([Piece(page(form, 1) * 2, 1)], form)
    assert [(each.first, each.count, len(each.body)) for each in found] == [
        (0, 1, 8 + (1 << 19)),
        (1, 1, 8 + (1 << 19)),
    ]


def test_what_is_missing_is_one_loss_in_front_of_what_follows():
    first = Piece(PAGES[0] + PAGES[1][:100], 1, 3, "archive-cut-off")
    second = Piece(b"", 1, 2, "archive-cut-off")
    found = made(
        [first, second, whole(PAGES[2:4]), Piece(b"", 1, None, "archive-cut-off")], dropped={"dropped-events": 6}
    )
    assert [(each.first, each.next, each.count) for each in found] == [(0, 1, 1), (1, 2, 1), (7, 9, 2), (9, 9, 0)]
    losses = [[(loss.kind, loss.first_position, loss.count, loss.unit) for loss in each.losses] for each in found]
    unknown, drop = ("gap", 9, None, "position"), ("drop", 9, 6, "event")
    assert losses == [[], [], [("gap", 2, 5, "position")], [unknown, drop]]


def test_a_ring_of_nothing_is_no_frame():
    assert made([]) == made([Piece(b"", 0)]) == []
