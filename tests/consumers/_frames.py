"""Frames of kernel log records, made as the agent makes them."""

from schemas import kmsg
from schemas.frame import Frame, encode
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION

STREAM = Stream("m", "b", "guest-kernel", "kmsg", "", "printk")


def record(seq, text="text"):
    return b"6,%d,%d,-;%s %d\n" % (seq, seq * 10, text.encode(), seq)


def frame(first, next_, number, *, losses=(), run="r", stream=STREAM, text="text", records=None):
    records = [record(seq, text) for seq in range(first, next_)] if records is None else records
    body = kmsg.pack(records)
    return Frame(stream, run, number, first, next_, len(records), "kmsg", 1, body, list(losses), realtime_ns=77)


def heartbeat(at, number, *, losses=(), run="r", stream=STREAM):
    return Frame(stream, run, number, at, at, 0, HEARTBEAT_ENCODING, HEARTBEAT_VERSION, b"", list(losses))


def message_bytes(first, next_, number, **kwargs):
    return encode(frame(first, next_, number, **kwargs))
