import contextlib
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import heartbeat, limits
from schemas.errors import BadInputError

INT64 = st.integers(-limits.INT64_MAX - 1, limits.INT64_MAX)
BEAT = heartbeat.Heartbeat(1, 2, 3, 4, 5, 6, 7, {"records": 8})


@given(st.builds(heartbeat.Heartbeat, *[INT64] * 7, st.dictionaries(st.text(max_size=20), INT64, max_size=20)))
def test_heartbeats_come_back(beat):
    assert heartbeat.unpack(heartbeat.pack(beat)) == beat


def test_an_empty_body_says_nothing():
    assert heartbeat.unpack(b"") is None


def test_the_keys_are_those_of_the_contract_and_later_ones_are_ignored():
    fields = msgpack.unpackb(heartbeat.pack(BEAT))
    assert set(fields) == {
        "since_realtime_ns",
        "until_realtime_ns",
        "first_position",
        "realtime_ns",
        "monotonic_ns",
        "boottime_ns",
        "bracket_ns",
        "counters",
    }
    assert heartbeat.unpack(msgpack.packb(fields | {"later": [1, "x"]})) == BEAT


@pytest.mark.parametrize(
    "change",
    [
        {"since_realtime_ns": "1"},
        {"realtime_ns": True},
        {"bracket_ns": limits.INT64_MAX + 1},
        {"first_position": None},
        {"counters": [1]},
        {"counters": {"a": 1.5}},
        {"counters": {b"a": 1}},
        {"counters": {"a" * (limits.TEXT_BYTES_MAX + 1): 1}},
        {"counters": {f"c{i}": 1 for i in range(300)}},
        {f"k{i}": 1 for i in range(80)},
    ],
)
def test_wrong_fields_are_refused(change):
    body = msgpack.packb(msgpack.unpackb(heartbeat.pack(BEAT)) | change)
    with pytest.raises(BadInputError) as caught:
        heartbeat.unpack(body)
    assert caught.value.reason == "body"


@pytest.mark.parametrize("name", list(heartbeat.Heartbeat.__dataclass_fields__))
def test_every_key_is_needed(name):
    fields = msgpack.unpackb(heartbeat.pack(BEAT))
    del fields[name]
    with pytest.raises(BadInputError, match=name):
        heartbeat.unpack(msgpack.packb(fields))


def test_every_shorter_body_is_refused():
    body = heartbeat.pack(BEAT)
    for cut in range(1, len(body)):
        with pytest.raises(BadInputError):
            heartbeat.unpack(body[:cut])


@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_are_refused_or_read(body):
    with contextlib.suppress(BadInputError):
        assert heartbeat.unpack(body) is not None


BODY = heartbeat.pack(BEAT)
WIDE = b"\xdd" + (60_000).to_bytes(4, "big")


@pytest.mark.parametrize(
    "body",
    [
        BODY + b"\x00",
        b"\x89" + BODY[1:] + msgpack.packb("bracket_ns") + b"\x01",
        b"\x89" + BODY[1:] + msgpack.packb("later") + WIDE * 900 + bytes(60_000),
        b"\x81" + msgpack.packb("counters") + WIDE * 900 + bytes(60_000),
        b"\x81" + msgpack.packb("realtime_ns") + WIDE + b"\x90" * 60_000,
        b"\xdf\xff\xff\xff\xff",
        bytes(limits.HEARTBEAT_BYTES_MAX + 1),
        heartbeat.pack(BEAT).replace(b"\x81\xa7records\x08", b"\x82\xa7records\x08\xa7records\x08"),
    ],
    ids=lambda body: body[:20].hex(),
)
def test_hostile_bodies_are_refused_without_taking_memory(body):
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError) as caught:
            heartbeat.unpack(body)
        assert caught.value.reason == "body"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
