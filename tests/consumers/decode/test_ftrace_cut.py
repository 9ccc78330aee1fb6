"""Columns out of the pages of many kinds of events; mutated pages are cut by `test_ftrace_pages`."""

import random

import numpy as np
import pytest

from consumers.decode import ftrace_cut, ftrace_cut_loops, ftrace_format
from consumers.decode.ftrace_cut import Wanted, cut
from consumers.decode.ftrace_pages import _PASSING_WORDS_MAX, IDS, Space, walk
from tests.consumers.decode.ftrace_plain_cut import check_against_plain, some_wanted
from tests.consumers.decode.ftrace_writer import Form

FORM = Form()
HEADER = ftrace_format.parse_header(FORM.header_text)
# Enough for several blocks of the loop, the last of which is not whole.
EVENTS = 3 * ftrace_cut_loops._BLOCK_EVENTS // 2


def pages_of(payloads):
    """Return whole pages with these payloads in order."""
    pages, events, room = [], [], 0
    for payload in payloads:
        event = FORM.event(1, payload)
        if len(event) > room:
            pages.append(events)
            events, room = [], 4096 - FORM.data_at
        events.append(event)
        room -= len(event)
    pages.append(events)
    return b"".join(FORM.page(i, *events) for i, events in enumerate(pages[1:]))


def walked(data):
    octets = np.frombuffer(data, np.uint8)
    found = walk(octets, HEADER, 4096)
    return octets, found, (np.arange(len(found.events)), np.zeros(len(found.events), np.int64))


def payload(number, data):
    return FORM.payload(number, data)


@pytest.mark.parametrize("kinds", [1, 3, 300])
def test_kinds_in_any_order_over_many_blocks(kinds):
    random_ = random.Random(kinds)
    data = pages_of(
        payload(random_.randrange(kinds), random_.randbytes(random_.randrange(4, 40))) for _ in range(EVENTS)
    )
    octets, found, by_page = walked(data)
    wanted = {number: some_wanted(random_, random_.randrange(2, 30)) for number in range(0, kinds, 2)}
    check_against_plain(octets, found, wanted, by_page, {}, pages=True)


@pytest.mark.parametrize("different", [1, 127, 128, 129, 513, 5000])
def test_texts_are_numbered_as_they_first_come_however_many_there_are(different):
    order = [*range(different), *random.Random(different).choices(range(different), k=EVENTS)]
    octets, found, by_page = walked(pages_of(payload(5, f"{i:<14}".encode()) for i in order))
    wanted = {5: Wanted(16, (), {"name": (2, 14)}, 0, payloads=False)}
    texts = {}
    codes, text = cut(octets, found, wanted, by_page, texts).parts[5].texts["name"]
    assert codes.tolist() == order
    assert text.numbers(lambda data: int(data) * 2).tolist() == [2 * i for i in range(different)]
    # They go on where they were, and only what is new is asked for.
    octets, found, by_page = walked(pages_of(payload(5, f"{i:<14}".encode()) for i in (different, 0, different + 1)))
    codes, text = cut(octets, found, wanted, by_page, texts).parts[5].texts["name"]
    assert codes.tolist() == [different, 0, different + 1]
    assert text.numbers(lambda data: -int(data)).tolist()[different - 1 :] == [
        2 * different - 2,
        -different,
        -different - 1,
    ]


@pytest.mark.parametrize("size", range(8, 17))
def test_a_text_is_as_long_as_it_was(size):
    data = bytes(range(1, size + 1))
    octets, found, by_page = walked(pages_of([payload(5, data)]))
    _, text = (
        cut(octets, found, {5: Wanted(2 + size, (), {"t": (2, size)}, 0, payloads=False)}, by_page, {})
        .parts[5]
        .texts["t"]
    )
    seen = []
    text.numbers(lambda each: seen.append(each) or 0)
    assert seen == [data]


def test_columns_outlive_the_next_cut_and_what_is_for_a_while_does_not():
    space = Space()
    wanted = {5: Wanted(10, ((2, 8),), {}, 0, payloads=True)}
    found = []
    for data in ([payload(5, bytes([i]) * 8) for i in range(9)], [payload(5, bytes(8)), payload(6, bytes(40))] * 5):
        octets, events, by_page = walked(pages_of(data))
        found.append(cut(octets, events, wanted, by_page, {}, space).parts[5])
    first, second = found
    assert first.numbers[2, 8].tobytes() == b"".join(bytes([i]) * 8 for i in range(9))
    assert first.start[:5].tolist() == second.start.tolist()


def test_nothing_is_reserved_for_events_that_are_too_short(monkeypatch):
    taken = []
    monkeypatch.setattr(ftrace_cut, "taken", lambda size: taken.append(size) or np.empty(size, np.uint8))
    octets, _, by_page = walked(pages_of([payload(5, bytes(6))] * 500 + [payload(5, bytes(90))]))
    told = walk(octets, HEADER, 4096, least_bytes=np.full(IDS, 80, np.int32))
    wanted = {5: Wanted(80, tuple((8 * i, 8) for i in range(10)), {}, 0, payloads=False)}
    result = cut(octets, told, wanted, by_page, {})
    assert (len(result.parts[5].ts), len(result.others)) == (1, 500)
    assert taken[0] < 1000
    # Whoever needs fewer bytes than the walk was told would get more events than were counted.
    with pytest.raises(AssertionError):
        cut(octets, told, {5: wanted[5]._replace(least_bytes=79, numbers=())}, by_page, {})


def test_a_great_deal_for_a_while_is_not_kept():
    space = Space()
    small, large = space.passing(1000), space.passing(_PASSING_WORDS_MAX + 1)
    assert len(large) == _PASSING_WORDS_MAX + 1
    assert space.passing(1000) is small


def test_nothing_wanted_leaves_all_to_others():
    octets, found, by_page = walked(pages_of([payload(5, bytes(8))] * 3))
    result = cut(octets, found, {}, by_page, {})
    assert (result.parts, result.others.tolist()) == ({}, [0, 1, 2])


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(8, ((5, 4),), {}, 0, payloads=False),
        Wanted(8, ((0, 3),), {}, 0, payloads=False),
        Wanted(10, (), {"t": (3, 8)}, 0, payloads=False),
        Wanted(40, (), {"t": (3, 17)}, 0, payloads=False),
        Wanted(10, (), {"t": (-1, 8)}, 0, payloads=False),
    ],
    ids=["beyond the least", "no number", "text beyond", "long text", "before"],
)
def test_what_could_lie_outside_of_an_event_is_refused(wanted):
    octets, found, by_page = walked(pages_of([payload(5, bytes(50))]))
    with pytest.raises(AssertionError):
        cut(octets, found, {5: wanted}, by_page, {})
