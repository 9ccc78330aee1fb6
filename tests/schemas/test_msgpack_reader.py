import contextlib
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import limits
from schemas.errors import BadInputError
from schemas.msgpack_reader import Reader

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 99), inner),
    max_leaves=20,
)
PIECES = {
    "integer": lambda reader: reader.integer(),
    "text": lambda reader: reader.text(),
    "binary": lambda reader: reader.binary(255),
    "map": lambda reader: reader.map_header(99),
    "array": lambda reader: reader.array_header(99),
}
WRITTEN = {
    "integer": [
        0,
        127,
        128,
        255,
        256,
        65535,
        65536,
        (1 << 32) - 1,
        1 << 32,
        limits.INT64_MAX,
        -1,
        -32,
        -33,
        -128,
        -129,
        -32768,
        -32769,
        -(1 << 31),
        -(1 << 31) - 1,
        limits.INT64_MIN,
    ],
    "text": ["", "a", "é" * 15, "é" * 16, "x" * 255],
    "binary": [b"", bytes(255)],
    "map": [{}, {n: n for n in range(15)}, {n: n for n in range(16)}, {n: n for n in range(99)}],
    "array": [[], [0] * 15, [0] * 16, [0] * 99],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in WRITTEN for value in WRITTEN[kind]])
def test_a_piece_is_taken_as_what_it_is_and_as_nothing_else(kind, value):
    data = msgpack.packb(value)
    for name, take in PIECES.items():
        reader = Reader(data, "body")
        if name == kind:
            assert take(reader) == (len(value) if kind in ("map", "array") else value)
        else:
            with pytest.raises(BadInputError):
                take(reader)


@pytest.mark.parametrize("value", [None, True, 1.0, msgpack.ExtType(1, b"x"), msgpack.Timestamp(0)])
@pytest.mark.parametrize("kind", PIECES)
def test_what_is_of_no_kind_is_refused(kind, value):
    with pytest.raises(BadInputError):
        PIECES[kind](Reader(msgpack.packb(value), "body"))


@pytest.mark.parametrize("kind", PIECES)
def test_every_piece_cut_short_is_refused_with_the_callers_reason(kind):
    for value in WRITTEN[kind]:
        head = (
            msgpack.packb(value)
            if kind not in ("map", "array")
            else msgpack.packb(value)[: 3 if len(value) > 15 else 1]
        )
        for cut in range(len(head)):
            with pytest.raises(BadInputError) as caught:
                PIECES[kind](Reader(head[:cut], "body"))
            assert caught.value.reason == "body"


@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - 1])
def test_an_integer_beyond_64_bits_is_refused(value):
    with pytest.raises(BadInputError):
        Reader(msgpack.packb(value), "body").integer()


def test_nil_stands_where_it_may():
    data = msgpack.packb(None)
    assert Reader(data, "body").optional_integer() is None
    assert Reader(data, "body").optional_text() is None
    assert Reader(data, "body").optional_binary(9) is None
    assert Reader(msgpack.packb(5), "body").optional_integer() == 5
    with pytest.raises(BadInputError):
        Reader(b"", "body").optional_integer()


@given(ANY, st.integers(0, 99))
def test_any_object_is_passed_over_exactly(value, after):
    reader = Reader(msgpack.packb(value) + msgpack.packb(after), "body")
    reader.skip()
    assert reader.integer() == after
    reader.end()


@given(st.binary(max_size=40))
def test_passing_over_any_bytes_ends_within_them_or_is_refused(data):
    reader = Reader(data, "body")
    with contextlib.suppress(BadInputError):
        reader.skip()
        assert 0 < reader.at <= len(data)


@pytest.mark.parametrize(
    "data", [b"\xdc\xff\xff" * 900, b"\x91" * (1 << 20), b"\xdd" + b"\xff" * 4 + b"\x90" * (1 << 20)]
)
def test_passing_over_builds_nothing(data):
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError):
            Reader(data, "body").skip()
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_what_follows_the_end_is_refused():
    reader = Reader(b"\x01\x02", "body")
    reader.integer()
    with pytest.raises(BadInputError, match="1 bytes follow"):
        reader.end()


def test_a_map_from_texts_gives_each_key_before_its_value_and_none_twice():
    reader = Reader(msgpack.packb({"a": 1, "b": 2}) + msgpack.packb({}), "poison")
    assert {key: reader.integer() for key in reader.keys(2)} == {"a": 1, "b": 2}
    assert list(reader.keys(0)) == []
    reader.end()
    reader = Reader(b"\x82\xa1a\x01\xa1a\x02", "poison")
    with pytest.raises(BadInputError, match="'a' is there twice") as caught:
        dict.fromkeys(key for key in reader.keys(2) if reader.integer())
    assert caught.value.reason == "poison"
    with pytest.raises(BadInputError, match="at most 1"):
        list(Reader(msgpack.packb({"a": 1, "b": 2}), "poison").keys(1))
