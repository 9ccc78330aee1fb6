"""Packets of the relay protocol: bytes from WIRE.md, cuts at every byte, garbage, and what is refused."""

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import limits, relay
from schemas.errors import BadInputError
from schemas.relay import Hello, Kind, Packet, Packets, Refused
from schemas.surfaces import TOPIC_LOG
from tests.schemas.golden import vectors

FRAME = vectors.stored("kmsg")
HELLO = Hello("name", "machine", "boot", "host", 1 << 20, {TOPIC_LOG: 7})


# As section 10 of WIRE.md has it, with nothing of the code under test.
def written(kind, topic, link, value, payload, check=None):
    check = zlib.crc32(payload) if check is None else check
    head = b"\xd7HYR" + bytes([kind, topic, 0, 0]) + struct.pack(">IIQI", link, len(payload), value, check)
    return head + struct.pack(">I", zlib.crc32(head)) + payload


PACKETS = {
    "frame": (written(2, 1, 9, 41, FRAME, int.from_bytes(FRAME[-4:], "big")), Kind.FRAME, TOPIC_LOG, 41, FRAME),
    "ack": (written(3, 1, 9, 42, FRAME[-4:]), Kind.ACK, TOPIC_LOG, 42, FRAME[-4:]),
    "ping": (written(4, 0, 9, 1, struct.pack(">q", -5)), Kind.PING, "", 1, struct.pack(">q", -5)),
    "pong": (written(5, 0, 9, 1, bytes(24)), Kind.PONG, "", 1, bytes(24)),
    "times": (written(6, 0, 9, 1, bytes(16)), Kind.TIMES, "", 1, bytes(16)),
    "damaged": (written(7, 3, 9, 1, b""), Kind.DAMAGED, "hypocenter.state", 1, b""),
}
STREAM = b"".join(data for data, *_ in PACKETS.values())


def whole(found):
    return [each for each in found if isinstance(each, Packet)]


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_is_the_bytes_of_the_specification(name):
    data, kind, topic, value, payload = PACKETS[name]
    made = relay.encode(kind, 9, topic=topic, value=value, payload=payload)
    assert made + (payload if kind == Kind.FRAME else b"") == data
    assert [each[:5] for each in Packets().feed(data)] == [(kind, topic, 9, value, payload)]


def test_a_stream_cut_at_every_byte_gives_the_same_packets():
    expected = Packets().feed(STREAM)
    for cut in range(len(STREAM)):
        packets = Packets()
        assert packets.feed(STREAM[:cut]) + packets.feed(STREAM[cut:]) == expected
    packets = Packets()
    assert [each for byte in STREAM for each in packets.feed(bytes([byte]))] == expected


# As a reader of a socket does it; each read brings what `sizes` allows.
def read(packets, data, sizes):
    found, at = [], 0
    while at < len(data):
        room, most = packets.room(), next(sizes)
        asked = min(most, len(room) if room is not None else most)
        part = data[at : at + asked]
        at += len(part)
        if room is None:
            found += packets.feed(part)
        else:
            room[: len(part)] = part
            found += packets.filled(len(part))
    return found


LONG = written(7, 3, 9, 1, random.Random(2).randbytes(100_000))
MIXED = LONG + LONG + STREAM + b"garbage" + LONG + b"\xd7HYR" + STREAM


def test_bytes_read_to_where_they_belong_give_the_same_packets():
    expected, rand = Packets().feed(MIXED), random.Random(3)
    refused = [each[::2] for each in expected if isinstance(each, Refused)]
    assert refused == [("garbage", 7), ("header", 4)]
    for most in (1, 7, 40, 5000, 200_000):
        packets = Packets()
        found = read(packets, MIXED, iter(lambda most=most: rand.randint(1, most), 0))
        assert whole(found) == whole(expected)
        assert [each[::2] for each in found if isinstance(each, Refused)] == refused
        assert not packets.open


@pytest.mark.parametrize("start", range(1, 60))
def test_whoever_comes_in_the_middle_finds_the_next_packet(start):
    packets = Packets()
    found = packets.feed(STREAM[start:])
    assert whole(found)[-5:] == Packets().feed(STREAM)[-5:]


def test_every_flipped_bit_costs_no_other_packet():
    for bit in range(8 * len(PACKETS["ack"][0])):
        damaged = bytearray(PACKETS["ack"][0])
        damaged[bit // 8] ^= 1 << bit % 8
        packets = Packets()
        found = packets.feed(bytes(damaged) + STREAM)
        assert whole(found) == Packets().feed(STREAM)
        assert sum(isinstance(each, Refused) for each in found) >= 1


def test_a_packet_that_does_not_go_on_is_given_up():
    packets = Packets()
    assert packets.feed(STREAM[:100]) == []
    assert packets.open
    assert packets.give_up().reason == "broken-off"
    assert whole(packets.feed(STREAM)) == Packets().feed(STREAM)
    assert Packets().give_up() is None


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([data for data, *_ in PACKETS.values()]), max_size=8),
    st.randoms(),
)
def test_any_bytes_in_any_pieces_raise_nothing_and_lose_no_byte(parts, rand):
    data, packets, at = b"".join(parts), Packets(), 0
    found = []
    while at < len(data):
        size = rand.randint(1, 50)
        found += packets.feed(data[at : at + size])
        at += size
    assert sum(len(each.payload) for each in whole(found)) <= len(data)


def test_garbage_costs_bounded_memory():
    packets, rand = Packets(), random.Random(1)
    reasons = {each.reason for _ in range(64) for each in packets.feed(rand.randbytes(100_000)) if each}
    assert reasons <= {"garbage", "header"}
    assert len(packets._rest) < relay.HEADER_BYTES
    assert len(packets._garbage) <= limits.DEAD_LETTER_BYTES_MAX


@pytest.mark.parametrize(
    "data",
    [
        written(9, 0, 1, 0, b"x"),
        written(2, 0, 1, 0, FRAME),
        written(4, 1, 1, 0, bytes(8)),
        written(2, 4, 1, 0, FRAME),  # no topic of frames
        written(2, 5, 1, 0, FRAME),
        written(4, 0, 1, 1 << 63, bytes(8)),
        written(4, 0, 1, 1, bytes(9)),
        written(1, 0, 1, 0, bytes(limits.RELAY_HELLO_BYTES_MAX + 1)),
    ],
)
def test_a_header_that_says_what_cannot_be_is_none(data):
    assert (
        next(each.reason for each in Packets().feed(data + PACKETS["ack"][0]) if isinstance(each, Refused)) == "header"
    )


def test_a_greeting_comes_back_and_ignores_what_it_does_not_know():
    assert relay.unpack_hello(relay.pack_hello(HELLO)) == HELLO
    body = bytearray(relay.pack_hello(HELLO))
    body[0] += 1
    assert relay.unpack_hello(bytes(body) + b"\xa5later\x93\x01\x02\x03") == HELLO


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        b"\x92\x01",
        relay.pack_hello(HELLO._replace(window_bytes=-1)),
        relay.pack_hello(HELLO._replace(window_bytes=limits.RELAY_WINDOW_BYTES_MAX + 1)),
        relay.pack_hello(HELLO._replace(ends={"t": -1})),
        relay.pack_hello(HELLO._replace(name="x" * 256)),
        relay.pack_hello(HELLO).replace(b"\xa7version\x01", b"\xa7version\x02"),
        relay.pack_hello(HELLO)[:-1],
    ],
)
def test_a_greeting_that_is_none_is_refused(body):
    with pytest.raises(BadInputError):
        relay.unpack_hello(body)
