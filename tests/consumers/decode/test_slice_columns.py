"""Slices of a buffer of bytes as numbers: two ways to the same ones."""

import numpy as np
import pytest

from consumers.decode import slice_columns, slice_loops


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


@pytest.mark.parametrize("numbers", [[0, 1, 2], [2, 0, 1], [5, -1, 5]])
def test_codes_get_their_numbers(numbers):
    codes = np.array([2, 0, 1, 0, 2], np.int32)
    slice_columns.renumber(codes, np.array(numbers, np.int32))
    assert codes.tolist() == [numbers[code] for code in (2, 0, 1, 0, 2)]


def test_what_is_among_codes_was_seen():
    assert slice_columns.seen(np.array([3, 0, 3], np.int32), 5) == [True, False, False, True, False]


# Whichever bytes of a text differ: where some never came into the hash, all texts lay in one chain, and 30,000 of them
# took seconds to be numbered.
@pytest.mark.parametrize("at", range(0, 15, 2))
def test_texts_that_differ_anywhere_lie_apart(at):
    count = 1 << 14
    texts = np.zeros((count, 16), np.uint8)
    texts[:, at : at + 2] = np.arange(count, dtype="<u2").view(np.uint8).reshape(-1, 2)
    words = texts.reshape(-1).view(np.uint64).reshape(-1, 2)
    slots = [slice_loops.pair_slot(*pair, slice_columns.SEEDS, 1 << 16) for pair in words]
    assert len(set(slots)) > count // 2
    octets, length = texts.reshape(-1), np.int64(16)
    hashes = [
        slice_loops._hash(octets, words_of(octets), start, length, slice_columns.SEEDS)
        for start in range(0, 16 * count, 16)
    ]
    assert len(set(hashes)) > count - 100


def words_of(octets):
    return slice_columns.from_each_byte(octets, np.uint64)
