r"""The body encoding "kmsg", version 1: records exactly as read(2) on /dev/kmsg gave them, none parsed by the producer.

    u32   n        number of records, little endian
    u32   length   n times: bytes of each record, little endian
    bytes          the records, concatenated in the order of `length`; nothing follows

The position of a record is the kernel's sequence number. A frame is contiguous: record i has number `frame.first + i`.
A record is `prio,seq,ts_us,flags[,field...];text\n` and then lines ` KEY=value\n`.
Source: Documentation/ABI/testing/dev-kmsg.
"""

import re
import sys
from array import array
from typing import Final

from schemas import limits
from schemas.errors import BadInputError

_WORD_BYTES: Final = 4
_WORD_CODE: Final = next(code for code in "IL" if array(code).itemsize == _WORD_BYTES)
_SEQ: Final = re.compile(rb"[0-9]{1,10},([0-9]{1,19}),")


def pack(records: list[bytes]) -> bytes:
    """Return the body that holds `records` in this order; the caller keeps to the limits of a frame."""
    words = array(_WORD_CODE, [len(records)])
    words.extend(map(len, records))
    if sys.byteorder == "big":
        words.byteswap()
    return b"".join((words.tobytes(), *records))


def unpack(body: bytes) -> "tuple[array[int], memoryview]":
    """Return the lengths of the records in `body` and a view of their bytes; the lengths add up to the view's.

    Raises:
        BadInputError: `reason` is `body`: the body is cut short, too long, or breaks a limit.
    """
    if len(body) < _WORD_BYTES:
        raise BadInputError("body", f"{len(body)} bytes hold no record count")
    count = int.from_bytes(body[:_WORD_BYTES], "little")
    if count > limits.FRAME_RECORDS_MAX:
        raise BadInputError("body", f"{count} records, at most {limits.FRAME_RECORDS_MAX}")
    data_start = _WORD_BYTES * (1 + count)
    if len(body) < data_start:
        raise BadInputError("body", f"{len(body)} bytes are too short for {count} lengths")
    words = body[_WORD_BYTES:data_start]
    lengths = array(_WORD_CODE)
    lengths.frombytes(words)
    if sys.byteorder == "big":
        lengths.byteswap()
    # Below 64 KiB the upper halves of all words are zero: told six times sooner than by `max`.
    if not words[2::4] == words[3::4] == bytes(count) and max(lengths) > limits.RECORD_BYTES_MAX:
        raise BadInputError("body", f"a record of {max(lengths)} bytes, at most {limits.RECORD_BYTES_MAX}")
    if sum(lengths) != len(body) - data_start:
        raise BadInputError("body", f"{len(body) - data_start} bytes of records, {sum(lengths)} stated")
    return lengths, memoryview(body)[data_start:]


def header_seq(record: bytes) -> int:
    """Return the kernel's sequence number in the header of one record.

    Raises:
        BadInputError: `reason` is `record`: the record does not begin with `prio,seq,`.
    """
    match = _SEQ.match(record)
    if match is None or (seq := int(match[1])) > limits.INT64_MAX:
        raise BadInputError("record", f"no sequence number in {record[:40]!r}")
    return seq
