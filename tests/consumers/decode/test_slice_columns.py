"""Columns out of a buffer of bytes: what is kept for the next time is bounded, and what was handed out stays."""

import numpy as np
import pytest

from consumers.decode import slice_columns

OCTETS = np.arange(4000, dtype=np.uint64).view(np.uint8)
STARTS = np.arange(0, 16_000, 24, dtype=np.int64)


@pytest.fixture(autouse=True)
def nothing_kept():
    slice_columns._threads.passing = None


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_more_than_is_usual_is_not_kept(most, monkeypatch):
    monkeypatch.setattr(slice_columns, "_PASSING_WORDS_MAX", most)
    _, (first, last) = slice_columns.cut(OCTETS, STARTS, [], [0, 8])
    assert (first == STARTS // 8).all() and (last == STARTS // 8 + 1).all()
    assert (slice_columns._threads.passing is not None) == bool(most)


def test_numbers_outlive_the_next_cut_and_words_do_not():
    (numbers,), (words,) = slice_columns.cut(OCTETS, STARTS, [(0, 4)], [0])
    slice_columns.cut(OCTETS, STARTS + 8, [(0, 4)], [0])
    assert (numbers == STARTS // 8).all()
    assert (words == STARTS // 8 + 1).all()


@pytest.mark.parametrize("different", [1, 127, 128, 129, 5000])
def test_pairs_and_slices_are_numbered_alike_however_many_there_are(different):
    values = np.random.default_rng(different).integers(0, different, 20_000).astype(np.uint64)
    values[:different] = np.arange(different)
    octets = np.stack([values, ~values], axis=1).reshape(-1).view(np.uint8)
    starts = np.arange(0, len(octets), 16, dtype=np.int64)
    slices = slice_columns.Slices(octets, starts, np.full(len(starts), 16, np.int64))
    codes, texts = slice_columns.interned(slices)
    pairs, halves = slice_columns.interned_pairs(values, ~values, 16)
    assert texts == halves and len(texts) == different
    assert (codes == pairs).all() and (codes == values).all()


@pytest.mark.parametrize("size", range(8, 17))
def test_a_text_of_a_pair_is_as_long_as_it_was(size):
    text = bytes(range(1, size + 1))
    first, last = (np.frombuffer(part, np.uint64) for part in (text[:8], text[-8:]))
    assert slice_columns.interned_pairs(first, last, size)[1] == [text]
