"""Descriptions of BPF records to rows of `artifacts`."""

import dataclasses

import pytest

from consumers.decode import bpf_types, registry
from consumers.decode.base import FrameIn
from consumers.transport.base import Partition
from schemas import bpf
from schemas.errors import BadInputError
from tests.consumers._records import TYPES, described


def test_a_description_is_a_row_and_what_is_none_a_bad_record():
    frames = [described(), dataclasses.replace(described(1, 1), body=b"\xc0")]
    found = bpf_types.decode_many([FrameIn(each, 5, Partition("t", 2), i) for i, each in enumerate(frames)], {})
    (row,) = found.tables["artifacts"].to_pylist()
    assert (row["instance"], row["kind"], row["position"], row["offset"]) == ("sched-delay/types", "bpf-types", 0, 0)
    assert (row["sha256"], row["body"]) == (bpf.descriptor(TYPES), TYPES)
    assert [(each.position, each.reason, each.offset) for each in found.bad] == [(1, "body", 1)]
    assert found.rows == {}


@pytest.mark.parametrize("changes", [{"count": 2}, {"next": 2}, {"body": TYPES[:-1]}])
def test_a_frame_of_another_form_is_refused(changes):
    with pytest.raises(BadInputError):
        bpf_types.check(dataclasses.replace(described(), **changes))


def test_the_registry_finds_both_decoders_and_the_owner_of_a_programs_table():
    assert registry.decoder_for("bpf-types", 1) is bpf_types
    assert registry.record_decoders()["bpf"].owns("bpf_sched_delay")
