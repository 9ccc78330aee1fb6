"""Small lakes for the tests of this folder."""

import pyarrow as pa

from consumers.lake.chain import Chain
from consumers.lake.tables import TABLES
from consumers.lake.writer import Batch
from schemas.stream import Stream

STREAM = Stream("m", "b", "host", "losses", "", "monotonic")
ARRIVAL_NS = 1_800_000_000_000_000_000


def chain(storage, topic_id="t1"):
    found = Chain(storage, "topic", 0, log_id="log", topic_id=topic_id, first_offset=0)
    found.load()
    return found


def batch(start, end):
    rows = [
        {"machine": "m", "first_position": i, "arrival_ns": ARRIVAL_NS, "topic": "topic", "partition": 0, "offset": i}
        for i in range(start, end)
    ]
    book = {"first": 0, "next": end, "stored": end, "rows": end, "duplicates": 0, "dead": 0, "lost": {}, "unknown_losses": 0}
    table = pa.Table.from_pylist(rows, schema=TABLES["losses"].schema)
    return Batch(start, end, {"losses": table}, {STREAM: book}, {})
