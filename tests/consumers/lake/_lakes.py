"""Small lakes for the tests of this folder."""

import pyarrow as pa

from consumers.decode.kmsg import SPEC
from consumers.lake.chain import Chain
from consumers.lake.writer import Batch
from schemas.stream import Stream

STREAM = Stream("m", "b", "host", "kmsg", "", "printk")
ARRIVAL_NS = 1_800_000_000_000_000_000


def chain(storage, topic_id="t1"):
    found = Chain(storage, "topic", 0, log_id="log", topic_id=topic_id, first_offset=0)
    found.load()
    return found


def batch(start, end, arrival_ns=ARRIVAL_NS):
    rows = [
        {**STREAM._asdict(), "seq": i, "message": f"record {i}", "arrival_ns": arrival_ns} for i in range(start, end)
    ]
    book = {"first": 0, "next": end, "stored": end, "rows": end}
    book |= {"duplicates": 0, "contradicted": 0, "dead": 0, "lost": {}, "lost_events": 0, "unknown_losses": 0}
    return Batch(start, end, {"kmsg": pa.Table.from_pylist(rows, schema=SPEC.schema)}, {STREAM: book}, {})
