"""What `ftrace_cut.cut` must give of some events, by NumPy's slowest and plainest means."""

import numpy as np

from consumers.decode.ftrace_cut import TEXT_BYTES, Wanted, cut

NUMBERS = (1, 2, 4, 8)


def bytes_at(octets, starts, offset, size):
    return octets[starts[:, None] + offset + np.arange(size)]


def some_wanted(random_, least):
    """Return something that may be wanted of events of at least that many bytes."""

    def places(sizes, most):
        fitting = [size for size in sizes if size <= least]
        chosen = [random_.choice(fitting) for _ in range(random_.randrange(most) if fitting else 0)]
        return [(random_.randrange(least - size + 1), size) for size in chosen]

    texts = {f"text{i}": place for i, place in enumerate(places(TEXT_BYTES, 4))}
    numbers = tuple(dict.fromkeys(places(NUMBERS, 8)))
    return Wanted(least, numbers, texts, random_.randrange(3), random_.random() < 0.5)


def check_cut(random_, octets, found):
    """Hold the cut of some kinds out of the walked events against the plain way."""
    ids = sorted(set(random_.sample(range(1 << 16), 3)) | set(found.event_id.tolist()[:: random_.randrange(1, 9)]))
    wanted = {number: some_wanted(random_, random_.randrange(2, 25)) for number in ids}
    by_page = (np.arange(len(found.events)) + 7, np.arange(len(found.events)) * -3)
    check_against_plain(octets, found, wanted, by_page, {}, pages=random_.random() < 0.5)


def check_against_plain(octets, found, wanted, by_page, texts, *, pages):
    """Cut, and hold the result against the plain way; the texts go on in `texts`."""
    result = cut(octets, found, wanted, by_page, texts, pages=pages)
    taken = np.zeros(len(found.ts), np.bool_)
    present = []
    for number, each in wanted.items():
        rows = np.flatnonzero((found.event_id == number) & (found.length >= each.least_bytes))
        taken[rows] = True
        if len(rows):
            present.append(number)
            check_part(result.parts[number], octets, found, rows, each, by_page, pages)
    assert sorted(result.parts) == sorted(present)
    assert result.others.tolist() == np.flatnonzero(~taken).tolist()


def check_part(part, octets, found, rows, wanted, by_page, pages):
    page, starts = found.page[rows], found.start[rows]
    assert (part.number == by_page[0][page]).all() and (part.arrival_ns == by_page[1][page]).all()
    assert (part.position == found.position[rows]).all() and (part.ts == found.ts[rows]).all()
    for (offset, size), numbers in part.numbers.items():
        assert numbers.tobytes() == bytes_at(octets, starts, offset, size).tobytes(), (offset, size)
    assert set(part.numbers) == set(wanted.numbers) and set(part.texts) == set(wanted.texts)
    for name, (codes, text) in part.texts.items():
        offset, size = wanted.texts[name]
        all_texts = []
        assert text.numbers(lambda data, seen=all_texts: seen.append(data) or len(seen) - 1)[-1] == text.count - 1
        got = [all_texts[code] for code in codes.tolist()]
        assert got == [row.tobytes() for row in bytes_at(octets, starts, offset, size)], name
        assert len(set(all_texts)) == len(all_texts)
    assert [len(room) for room in part.rooms] == [len(rows)] * wanted.rooms
    assert (part.page is not None) == pages and (part.start is not None) == wanted.payloads
    assert part.page is None or (part.page == page).all()
    assert part.start is None or ((part.start == starts).all() and (part.length == found.length[rows]).all())
