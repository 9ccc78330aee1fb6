"""Small logs for tests: frames that say their own number, and all that a cursor hands out."""

from producers.log import LogWriter
from schemas.frame import Frame, decode
from schemas.log_cursor import LogCursor
from schemas.stream import Stream

TOPIC = "hypocenter.log"
STREAM = Stream("machine", "boot", "host", "kmsg", "", "printk")


def frame(number, body=b"", stream=STREAM):
    """Return the frame `number` of `stream`, which covers ten positions."""
    return Frame(stream, "run", number, number * 10, number * 10 + 10, 10, "kmsg", 1, body or b"body %d" % number)


def writer(path, *, segment_bytes=1 << 20, retention_bytes=1 << 40, retention_ms=None, **kwargs):
    return LogWriter(
        path, segment_bytes=segment_bytes, retention_bytes=retention_bytes, retention_ms=retention_ms, **kwargs
    )


def write(path, numbers, *, body=b"", topic=TOPIC, **kwargs):
    """Append the frames `numbers` and close the log."""
    log = writer(path, **kwargs)
    for number in numbers:
        log.append(topic, frame(number, body))
    log.close()


def read_all(path, topic=TOPIC, bytes_max=1 << 20):
    cursor = LogCursor(path, topic, 0)
    found = drain(cursor, bytes_max)
    cursor.close()
    return found


def drain(cursor, bytes_max=1 << 20):
    found = []
    while entries := cursor.read(bytes_max):
        found += entries
    return found


def numbers(entries):
    """Return (offset, frame number) of each entry; every payload must be a whole frame."""
    return [(offset, decode(payload).number) for offset, _, payload in entries]


def segments(path, topic=TOPIC):
    return sorted((path / topic / "0").glob("*.seg"))
