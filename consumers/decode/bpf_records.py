"""A stretch of a BPF ring to where its records are.

A record is a header of 8 bytes and its data, padded to 8:

=========  ===========================================================================================================
u32 len    bits 0 to 29: bytes of data; bit 30: its program took it back; bit 31: not committed yet, never sent
u32        in the kernel, how many pages lie in front of it
=========  ===========================================================================================================

Source: kernel/bpf/ringbuf.c (struct bpf_ringbuf_hdr), Documentation/bpf/ringbuf.rst.
"""

from enum import IntEnum
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np

from consumers.decode.slices import Ints
from schemas.errors import BadInputError


class Fault(IntEnum):
    """Why a stretch is none.

    `BUSY`: a record that was not committed. `BEYOND`: a record reaches past the end. `COUNT`: other than so many
    records.
    """

    NONE = 0
    BUSY = 1
    BEYOND = 2
    COUNT = 3


_WORDS: Final = {
    Fault.BUSY: "it was not committed",
    Fault.BEYOND: "it reaches beyond the ring's bytes",
    Fault.COUNT: "there are more or fewer",
}


class Found(NamedTuple):
    """Where the data of each record begins, counted from the stretch's beginning, and how long it is, in bytes."""

    starts: Ints
    lengths: Ints


def walk(data: Any, count: int, *, big_endian: bool) -> Found:
    """Return the `count` records in `data`, a buffer of whole records.

    Raises:
        BadInputError: `reason` is `body`: `data` is something else.
    """
    starts, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    # Not imported above: the compiler takes half a second and 60 MiB, which a command that reads no records need not.
    loop = import_module("consumers.decode.bpf_loops").walk
    found, fault, at = loop(np.frombuffer(data, np.uint8), big_endian, starts, lengths)
    if fault != Fault.NONE:
        raise BadInputError("body", f"byte {at} of the ring, record {found} of {count}: {_WORDS[Fault(fault)]}")
    return Found(starts, lengths)
