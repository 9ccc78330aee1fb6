import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import limits, state
from schemas.errors import BadInputError

INT64 = st.integers(limits.INT64_MIN, limits.INT64_MAX)
SCALAR = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | st.text(max_size=50) | st.binary(max_size=50)
VALUE = SCALAR | st.lists(SCALAR, max_size=5) | st.dictionaries(st.text(max_size=9), SCALAR, max_size=5)
RECORD = st.builds(state.Record, st.text(max_size=9), INT64, st.dictionaries(st.text(max_size=9), VALUE, max_size=9))


@given(st.lists(RECORD, max_size=5))
def test_records_come_back(records):
    assert state.unpack(state.pack(records)) == records


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_refused(body):
    found = []
    with contextlib.suppress(BadInputError):  # any other error fails
        found = state.unpack(body)
    assert len(found) <= len(body)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [["k", 1]],
        [["k", 1, {}, 2]],
        [[1, 1, {}]],
        [["k", "1", {}]],
        [["k", 1, []]],
        [["k", 1, {"a": [[1]]}]],
        [["k", 1, {"a": {"b": {}}}]],
        [["k", 1, {"a": list(range(limits.STATE_ELEMENTS_MAX + 1))}]],
        [["k", 1, {str(i): 1 for i in range(limits.STATE_FIELDS_MAX + 1)}]],
        [["k", 1 << 63, {}]],
    ],
)
def test_what_is_no_list_of_records_is_refused(value):
    with pytest.raises(BadInputError):
        state.unpack(msgpack.packb(value))


@pytest.mark.parametrize("body", [b"", b"\x91", b"\x90\x00", b"\x91\x93\xa1k\x01\x82\xa1a\x01\xa1a\x02"])
def test_a_body_that_is_cut_short_or_says_things_twice_is_refused(body):
    with pytest.raises(BadInputError):
        state.unpack(body)
