"""The append format: round trips, every cut, every flipped byte, and the limits before any allocation."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import limits, segment
from schemas.errors import BadInputError
from schemas.segment import End, StreamPosition
from schemas.stream import Stream

STREAM = Stream("m", "b", "host", "kmsg", "", "printk")
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
POSITION = st.integers(0, limits.INT64_MAX)
PAYLOADS = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8)


def joined(payloads, base=7):
    return b"".join(segment.encode_entry(base + i, 1000 + i, payload) for i, payload in enumerate(payloads))


def test_the_bytes_are_pinned():
    # Written out by hand from the table in the module's docstring; the checksums are zlib's of the bytes they cover.
    assert segment.encode_entry(5, 6, b"payload") == bytes.fromhex(
        "00000007 11d645be 0000000000000005 0000000000000006 7061796c6f6164"
    )
    assert segment.encode_end(End(3, 2, 99)) == bytes.fromhex(
        "4859504f454e440a 0000000000000003 0000000000000002 0000000000000063 187290d3"
    )
    assert segment.encode_header(9, 8, {STREAM: StreamPosition(7, 1)}) == bytes.fromhex(
        "4859504f5345470a 00000001 0000001a 0000000000000009 0000000000000008"
        "91 98 a16d a162 a4686f7374 a46b6d7367 a0 a67072696e746b 07 01 a995c5a0"
    )


@given(PAYLOADS, POSITION.filter(lambda n: n < limits.INT64_MAX - 8), st.integers(0, 600))
def test_entries_cut_anywhere_are_the_whole_ones_before_the_cut(payloads, base, cut):
    data = joined(payloads, base)
    cut = min(cut, len(data))
    found = segment.split(data[:cut], base)
    whole = [(base + i, 1000 + i, payload) for i, payload in enumerate(payloads)]
    assert found.entries == whole[: len(found.entries)]
    assert found.consumed == len(joined([payload for _, _, payload in found.entries], base)) <= cut
    assert not found.damaged
    if len(found.entries) < len(whole):
        rest = cut - found.consumed
        size_bytes = segment.ENTRY_PREFIX_BYTES + len(whole[len(found.entries)][2])
        known = rest >= segment.ENTRY_PREFIX_BYTES
        assert rest < found.needed_bytes == (size_bytes if known else segment.ENTRY_PREFIX_BYTES)


def test_a_flipped_byte_never_passes_for_an_entry():
    payloads = [b"first payload", b"second", b"third one"]
    data = joined(payloads)
    bounds = [len(joined(payloads[:n])) for n in range(4)]
    for at in range(len(data)):
        for bit in range(8):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            found = segment.split(bytes(bad), 7)
            hit = next(n for n in range(3) if at < bounds[n + 1])
            assert [payload for _, _, payload in found.entries] == payloads[:hit]
            assert found.consumed == bounds[hit]
            # A length that grew may look like an entry that is not all here yet: its checksum decides when it is.
            assert found.damaged or (at - bounds[hit] < 4 and found.needed_bytes > len(data) - found.consumed)


def test_another_offset_than_the_next_is_damage():
    assert segment.split(segment.encode_entry(6, 0, b"x"), 7).damaged
    assert segment.split(joined([b"a", b"b"]) + segment.encode_entry(8, 0, b"x"), 7).consumed == len(
        joined([b"a", b"b"])
    )


@pytest.mark.parametrize("length", [0, limits.FRAME_BYTES_MAX + 1, 0xFFFFFFFF])
def test_a_length_beyond_its_limits_is_damage_at_sight(length):
    assert segment.split(struct.pack(">IIQq", length, 0, 7, 0), 7).damaged


def test_the_longest_entry_passes():
    data = segment.encode_entry(7, 0, b"x" * limits.FRAME_BYTES_MAX)
    assert segment.split(data, 7).entries == [(7, 0, b"x" * limits.FRAME_BYTES_MAX)]


@given(st.binary(max_size=200), PAYLOADS, st.integers(0, 2**40))
def test_candidates_miss_no_entry_whatever_lies_before_it(junk, payloads, base):
    data = junk + joined(payloads, base)
    found = {(at, offset) for at, _, offset in segment.candidates(data, base, base + len(payloads))}
    at = len(junk)
    for i, payload in enumerate(payloads):
        assert (at, base + i) in found
        at += segment.ENTRY_PREFIX_BYTES + len(payload)


def test_candidates_lie_within_the_range_asked_for():
    data = joined([b"a", b"b", b"c", b"d"])
    assert [offset for _, _, offset in segment.candidates(data, 8, 10)] == [8, 9]
    assert not list(segment.candidates(bytes(10_000), 0, 10))


STREAMS = st.dictionaries(st.builds(Stream, *[TEXT] * 6), st.builds(StreamPosition, POSITION, POSITION), max_size=5)


@given(POSITION, st.integers(-(2**63), 2**63 - 1), STREAMS)
def test_a_header_comes_back_and_its_streams_in_order(base, floor_ns, streams):
    data = segment.encode_header(base, floor_ns, streams)
    assert segment.header_bytes(data[: segment.HEADER_PREFIX_BYTES]) == len(data)
    header = segment.decode_header(data)
    assert header == (base, floor_ns, streams, len(data))
    assert list(header.streams) == list(streams)


def test_a_header_cut_or_changed_anywhere_is_refused():
    data = segment.encode_header(9, 8, {STREAM: StreamPosition(7, 1)})
    for cut in range(len(data)):
        with pytest.raises(BadInputError):
            segment.decode_header(data[:cut])
    for at in range(len(data)):
        with pytest.raises(BadInputError):
            segment.decode_header(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_header_states_no_more_than_may_be_allocated():
    prefix = bytearray(segment.encode_header(0, 0, {})[: segment.HEADER_PREFIX_BYTES])
    prefix[12:16] = b"\xff\xff\xff\xff"
    with pytest.raises(BadInputError, match="a header body of 4294967295 bytes"):
        segment.header_bytes(bytes(prefix))


def test_another_version_is_named():
    prefix = bytearray(segment.encode_header(0, 0, {}))
    prefix[11] = 2
    with pytest.raises(BadInputError, match="segment version 2, this reader knows 1"):
        segment.header_bytes(bytes(prefix))


def test_the_most_streams_with_the_longest_names_fit():
    long = {Stream(*["é" * 127] * 5, str(n)): StreamPosition(limits.INT64_MAX, n) for n in range(segment.STREAMS_MAX)}
    assert segment.decode_header(segment.encode_header(0, 0, long)).streams == long


@given(POSITION, POSITION, POSITION)
def test_an_end_comes_back(offset, base, position):
    end = End(max(offset, base), min(offset, base), position)
    assert segment.decode_end(segment.encode_end(end)) == end


def test_an_end_cut_or_changed_anywhere_is_refused():
    data = segment.encode_end(End(3, 2, 99))
    assert len(data) == segment.END_BYTES
    bad = [data[:cut] for cut in range(len(data))] + [data + b"\0"]
    bad += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    # What an overwriting writer and a reader at the same time can make of two records.
    other = segment.encode_end(End(700_000, 650_000, 12_345))
    bad += [data[:at] + other[at:] for at in range(1, len(data)) if data[:at] + other[at:] not in (data, other)]
    for each in bad:
        with pytest.raises(BadInputError):
            segment.decode_end(each)
