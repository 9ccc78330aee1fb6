"""Descriptions to rows of `artifacts`."""

import dataclasses

import pytest

from consumers.decode import ftrace_formats
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import ftrace
from schemas.errors import BadInputError
from tests.consumers._pages import FORMATS, SET, described


def decode(*frames):
    return ftrace_formats.decode_many([FrameIn(each, 77, Partition("t", 2), 5) for each in frames], {})


def test_a_description_is_a_row_under_its_hash_and_no_row_of_the_surface():
    found = decode(described(3))
    table = found.tables["artifacts"]
    assert table.schema == ftrace_formats.spec("artifacts", table.schema).schema
    assert table.to_pylist() == [
        {
            **SET._asdict(), "position": 3, "kind": "ftrace-formats", "sha256": ftrace.descriptor(FORMATS),
            "body": FORMATS, "arrival_ns": 77, "topic": "t", "partition": 2, "offset": 5,
        }
    ]  # fmt: skip
    assert (found.bad, found.rows) == ([], {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"count": 2}, "is one position"), ({"next": 9}, "is one position"), ({"body": b"\x80"}, "lacks")],
)
def test_what_is_none_is_a_bad_record(changes, said):
    bad = dataclasses.replace(described(3), **changes)
    with pytest.raises(BadInputError, match=said):
        ftrace_formats.check(bad)
    found = decode(bad, described(4))
    assert [(each.position, each.reason) for each in found.bad] == [(3, "body")]
    assert found.tables["artifacts"]["position"].to_pylist() == [4]


def test_it_is_never_cut():
    frame = described(3)
    assert ftrace_formats.head(frame, 4) is ftrace_formats.trim(frame, 3) is frame
    assert ftrace_formats.owns("artifacts")
    assert not ftrace_formats.owns("trace_tick")
