"""Rows that the collector itself writes: losses and dead letters."""

from typing import NamedTuple

import pyarrow as pa

from consumers.lake.tables import TABLES
from consumers.transport.base import Partition
from schemas.loss import Loss
from schemas.stream import Stream


class LossRow(NamedTuple):
    """One loss; `stream` None where whole messages are missing and nobody knows whose (positions are offsets then)."""

    stream: Stream | None
    loss: Loss
    offset: int
    arrival_ns: int


class DeadRow(NamedTuple):
    """One input nobody could read: a whole message, or one record of a frame."""

    stream: Stream | None
    position: int | None
    reason: str
    detail: str
    size_bytes: int
    head: bytes
    offset: int
    arrival_ns: int


_NO_STREAM = Stream("", "", "", "", "", "")


def losses_table(partition: Partition, losses: list[LossRow]) -> pa.Table:
    """Return `losses` as rows of the `losses` table, sorted by stream and position."""
    rows = [
        {
            **(row.stream or _NO_STREAM)._asdict(),
            **row.loss._asdict(),
            "arrival_ns": row.arrival_ns,
            "topic": partition.topic,
            "partition": partition.number,
            "offset": row.offset,
        }
        for row in sorted(losses, key=lambda row: (row.stream or _NO_STREAM, row.loss.first_position))
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["losses"].schema)


def dead_letters_table(partition: Partition, dead: list[DeadRow]) -> pa.Table:
    """Return `dead` as rows of the `dead_letters` table, in offset order."""
    rows = [
        {
            "topic": partition.topic,
            "partition": partition.number,
            **{key: value for key, value in row._asdict().items() if key != "stream"},
            **(row.stream._asdict() if row.stream else {}),
        }
        for row in sorted(dead, key=lambda row: row.offset)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["dead_letters"].schema)
