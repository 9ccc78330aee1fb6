"""Each type of record from a writer, then mutated pages against a plain reader.

A million mutated pages: HYPOCENTER_FUZZ_PAGES=1000000 python -m pytest -k mutated tests/consumers/decode
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consumers.decode import ftrace_format, ftrace_loops, slice_columns
from consumers.decode.ftrace_pages import IDS, Fault, read_heads, walk
from tests.consumers.decode.ftrace_plain_cut import check_cut
from tests.consumers.decode.ftrace_writer import Form, read_page

FORMS = [
    Form(big, long_bytes, page_bytes) for big in (False, True) for long_bytes in (4, 8) for page_bytes in (4096, 16384)
]
FUZZ_PAGES = int(os.environ.get("HYPOCENTER_FUZZ_PAGES", "100000"))
T = 1_000_000_000_000


@pytest.fixture(params=FORMS, ids=lambda form: f"{'big' if form.big else 'little'}-{form.long_bytes}-{form.page_bytes}")
def form(request):
    return request.param


def walked(form, *pages):
    header = ftrace_format.parse_header(form.header_text, big_endian=form.big)
    data = b"".join(pages)
    found = walk(data, header, form.page_bytes)
    # The headers alone say the same losses as the walk behind them.
    heads = read_heads(data, header, form.page_bytes)
    want = [(i, lost if lost > 0 else None) for i, lost in enumerate(found.lost.tolist()) if lost]
    assert heads.lost == want
    order = "big" if form.big else "little"
    stamps = [int.from_bytes(page[:8], order, signed=True) for page in (pages[0], pages[-1])]
    assert [heads.ts_first_ns, heads.ts_last_ns] == stamps
    return found


def events(found):
    return list(zip(found.ts.tolist(), found.event_id.tolist(), strict=True))


def check(form, *pages):
    """The walk gives what the plain reader says; returned for further questions."""
    found = walked(form, *pages)
    row = 0
    for i, page in enumerate(pages):
        want = read_page(page, form)
        end = row + len(want.events)
        got = zip(
            found.position[row:end].tolist(),
            found.ts[row:end].tolist(),
            found.event_id[row:end].tolist(),
            (found.start[row:end] - i * form.page_bytes).tolist(),
            found.length[row:end].tolist(),
            strict=True,
        )
        assert list(got) == want.events
        assert (found.page[row:end] == i).all()
        by_page = (found.events[i], found.lost[i], found.fault[i], found.fault_at[i])
        assert by_page == (len(want.events), want.lost, want.fault, want.at)
        row = end
    assert row == len(found.ts)
    return found


def test_the_codes_of_the_loop_are_those_of_the_enumeration():
    for fault in Fault:
        if fault not in (Fault.NONE, Fault.TRUNCATED):
            assert getattr(ftrace_loops, f"FAULT_{fault.name}") == fault


def test_an_empty_page(form):
    found = check(form, form.page(T))
    assert events(found) == []
    assert (found.events[0], found.lost[0], found.fault[0]) == (0, 0, 0)


@pytest.mark.parametrize("length", [4, 8, 64, 28 * 4, 29 * 4, 400])
def test_events_of_every_length(form, length):
    payload = form.payload(0x1234, bytes(length - 2))
    found = check(form, form.page(T, form.event(5, payload), form.event(7, payload)))
    assert events(found) == [(T + 5, 0x1234), (T + 12, 0x1234)]
    assert found.length.tolist() == [length] * 2
    assert found.position.tolist() == [0, 1]


def test_an_odd_length_word_is_rounded_up(form):
    odd = form.head(0, 1) + form.words(4 + 5) + form.payload(7, b"abc")[:5] + bytes(3)
    found = check(form, form.page(T, odd, form.event(1, form.payload(8))))
    assert events(found) == [(T + 1, 7), (T + 2, 8)]
    assert found.length.tolist() == [5, 4]


def test_time_extend(form):
    far = (1 << 40) + 12345
    found = check(form, form.page(T, form.extend(far), form.event(0, form.payload(7)), form.event(3, form.payload(8))))
    assert events(found) == [(T + far, 7), (T + far + 3, 8)]


def test_an_absolute_time_has_its_top_bits_restored(form):
    top, low = 0x18 << 56, (1 << 59) - 3
    found = check(
        form,
        form.page(T, form.stamp(T + 99), form.event(1, form.payload(1))),
        form.page(top | low, form.stamp(low + 1), form.event(1, form.payload(2))),
        # Went over the 59 bits since the time before it.
        form.page(top | low, form.stamp(5), form.event(1, form.payload(3))),
    )
    assert found.ts.tolist() == [T + 100, (top | low) + 2, top + (1 << 59) + 6]


def test_a_discarded_event_passes_time_unless_its_delta_was_none(form):
    gone, kept = form.payload(9, bytes(30)), form.event(2, form.payload(7))
    assert events(check(form, form.page(T, form.discarded(50, gone), kept))) == [(T + 52, 7)]
    assert events(check(form, form.page(T, form.discarded(0, gone), kept))) == [(T + 2, 7)]


@pytest.mark.parametrize("count", [1, 77, (1 << 31) - 1])
def test_lost_events_with_a_count(form, count):
    found = check(form, form.page(T, form.event(1, form.payload(7)), missed=count), form.page(T))
    assert found.lost.tolist() == [count, 0]
    assert events(found) == [(T + 1, 7)]


def test_lost_events_without_a_count_stay_unknown(form):
    full = [form.event(1, form.payload(7))] * ((form.page_bytes - form.data_at) // 8)
    no_room = form.page(T, *full, missed=5, stored=False)
    # The flag says that a count is stored, and the page has no room for one.
    lying = bytearray(no_room)
    lying[8 + (form.long_bytes - 4 if form.big else 3)] |= 0xC0
    found = check(form, form.page(T, missed=5, stored=False), no_room, bytes(lying), form.page(T, missed=0))
    assert found.lost.tolist() == [-1] * 4


def faulty(form, fault, *records, commit=None, kept=1):
    found = check(
        form,
        form.page(T, form.event(1, form.payload(7)), *records, commit=commit),
        form.page(T, form.event(2, form.payload(8))),
    )
    assert found.fault.tolist() == [fault, Fault.NONE]
    assert events(found) == [(T + 1, 7)] * kept + [(T + 2, 8)]
    return int(found.fault_at[0])


def test_a_wrong_page_gives_what_is_right_before_the_fault_and_the_next_goes_on(form):
    behind = form.data_at + 8
    assert faulty(form, Fault.ZEROED, bytes(64)) == behind
    assert faulty(form, Fault.LENGTH, form.head(0, 1), form.words(3), bytes(8)) == behind
    assert faulty(form, Fault.LENGTH, form.head(0, 1), form.words(5), bytes(8)) == behind
    assert faulty(form, Fault.LENGTH, form.head(29, 2), form.words(3), bytes(8)) == behind
    assert faulty(form, Fault.BEYOND, form.head(0, 1), form.words(99), bytes(8)) == behind
    assert faulty(form, Fault.BEYOND, form.head(0, 1), form.words(0xFFFFFFFF), bytes(8)) == behind
    assert faulty(form, Fault.BEYOND, form.head(29, 2), form.words(0xFFFFFFFF), bytes(8)) == behind
    assert faulty(form, Fault.BEYOND, form.head(28, 1), bytes(4)) == behind
    assert faulty(form, Fault.PADDING, form.head(29, 0), form.words(8), bytes(8)) == behind
    for cut in range(1, 8):
        faulty(form, Fault.BEYOND, form.extend(5)[:cut])
    assert faulty(form, Fault.COMMIT, commit=form.page_bytes, kept=0) == form.data_at
    assert faulty(form, Fault.COMMIT, commit=(1 << 27) - 1, kept=0) == form.data_at


def test_every_commit_of_a_page_gives_the_events_that_are_whole(form):
    page = form.page(T, *[form.event(i, form.payload(i, bytes(6))) for i in range(1, 20)])
    pages = []
    for size in range(19 * 12 + 1):
        short = bytearray(page)
        short[8 : form.data_at] = form.long(size)
        pages.append(bytes(short))
    found = check(form, *pages)
    assert found.events.tolist() == [size // 12 for size in range(19 * 12 + 1)]


def some_page(random_, form):
    records = []
    room = form.page_bytes - form.data_at - 8
    while True:
        payload = form.payload(
            random_.randrange(1, 500), random_.randbytes(random_.choice((2, 6, 14, 62, 110, 114, 200)))
        )
        record = random_.choice((form.event,) * 6 + (form.discarded, form.long_event))(random_.randrange(99), payload)
        record = (
            random_.choice((b"",) * 8 + (form.extend(random_.randrange(1 << 50)), form.stamp(random_.getrandbits(59))))
            + record
        )
        if sum(map(len, records)) + len(record) > min(room, random_.choice((200, 1000, 1 << 16))):
            missed = random_.choice((None, None, 7))
            return form.page(
                random_.getrandbits(random_.choice((40, 64))), *records, missed=missed, stored=random_.random() < 0.5
            )
        records.append(record)


def mutated(random_, page, form):
    page = bytearray(page)
    for _ in range(random_.choice((1, 1, 2, 5))):
        at = random_.choice((random_.randrange(8, form.data_at), random_.randrange(len(page)), random_.randrange(200)))
        how = random_.randrange(4)
        if how == 0:
            page[at] ^= 1 << random_.randrange(8)
        elif how == 1:
            page[at] = random_.choice((0, 1, 0xFF, 0x80, 0xE0, 29, 30, 31))
        elif how == 2:
            page[at : at + 4] = random_.choice(
                (form.words(0), form.words(0xFFFFFFFF), form.head(random_.randrange(32), 0))
            )[: len(page) - at]
        else:
            page[at:] = bytes(len(page) - at)
    return bytes(page[: form.page_bytes])


def fuzz(pages, seed, compare_every):
    random_ = random.Random(seed)
    faults = np.zeros(len(Fault), np.int64)
    done = 0
    while done < pages:
        form = random_.choice(FORMS)
        base = [some_page(random_, form) for _ in range(20)]
        batch = [mutated(random_, random_.choice(base), form) for _ in range(1000)]
        found = walked(form, *batch)
        for number in range(0, len(batch), compare_every):
            check(form, batch[number])
        # Nothing leaves its page, and nothing else is left out.
        inside = found.start - found.page * form.page_bytes
        assert (inside >= form.data_at + 4).all()
        assert (inside + found.length <= form.page_bytes).all()
        assert found.events.sum() == len(found.ts)
        assert (found.counts == np.bincount(found.event_id, minlength=IDS)).all()
        octets = np.frombuffer(b"".join(batch), np.uint8)
        check_gather(octets, found)
        check_cut(random_, octets, found)
        faults += np.bincount(found.fault, minlength=len(Fault))
        done += len(batch)
    return faults


# Of a size with and without a rest behind its words of eight bytes; the payload may end where the buffer does.
def check_gather(octets, found):
    for size in (6, 8, 19):
        starts = found.start[found.length >= size]
        rows = slice_columns.gathered(octets, starts, size).reshape(-1, size)
        assert (rows == octets[starts[:, None] + np.arange(size)]).all()


def test_mutated_pages():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    faults = fuzz(FUZZ_PAGES, seed, compare_every=100)
    assert (faults[: Fault.TRUNCATED] > 0).all()


def test_mutated_pages_with_every_index_checked(tmp_path):
    code = "from tests.consumers.decode.test_ftrace_pages import fuzz; fuzz(5000, 1, 50)"
    bounds = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, **bounds})


def test_nothing_is_compiled_before_a_page_is_read():
    code = "import sys, consumers.decode.ftrace_events; print('numba' in sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout == "False\n"
