"""Store a saved dump: `import kmsg FILE` takes a file of /dev/kmsg reads, one record after another as the device gives them.

The same file imported again is recognised by its content and changes nothing.
"""

import argparse
import hashlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from consumers.collector import Cut, PartitionCollector
from consumers.kmsg_dump import Splitter
from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.transport.base import Message, Partition
from schemas import kmsg
from schemas.errors import BadInputError, UsageError
from schemas.frame import Frame, encode
from schemas.loss import Loss, LossKind
from schemas.stream import Layer, Stream
from schemas.surfaces import surface

_FRAME_RECORDS: Final = 4096
_CHUNK_BYTES: Final = 1 << 20


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("surface", choices=("kmsg",), help="what the file holds")
    sub.add_argument("file", type=Path, metavar="FILE", help="the dump")
    sub.add_argument("--lake", type=Path, required=True, metavar="DIR", help="the lake's directory, created if absent")
    sub.add_argument("--machine", metavar="ID", help="where it was taken; default the file's name")
    sub.add_argument("--boot-id", metavar="ID", help="boot it was taken in; default made from the file's content")
    sub.add_argument(
        "--layer", default=Layer.GUEST_KERNEL.value, choices=[each.value for each in Layer], help="layer of that kernel"
    )


def run(args: argparse.Namespace) -> int:
    """Import one file in one commit chain of its own."""
    try:
        digest = hashlib.sha256(args.file.read_bytes()).hexdigest()
        now_ns = time.time_ns()
        storage = open_lake(args.lake, create=True)
        row = surface(args.surface)
        boot_id = args.boot_id or str(uuid.uuid5(uuid.NAMESPACE_OID, digest))
        stream = Stream(args.machine or args.file.stem, boot_id, args.layer, row.name, "", row.clock)
        topic = f"import.{row.name}.{digest[:16]}"
        chain = Chain(storage, topic, 0, log_id="import", topic_id=digest, first_offset=0)
        collector = PartitionCollector(Partition(topic, 0), chain, CommitWriter(storage), Cut(64 << 20, 1_000_000, 0))
        if collector.position:
            print(f"{args.file}: already imported, nothing to do")
            return 0
        frames = list(_frames(_records(args.file), stream, digest, now_ns))
    except OSError as e:
        raise UsageError(f"{args.file}: {e.strerror}") from None
    if not frames:
        raise BadInputError("empty", f"{args.file} holds no record")
    collector.add([Message(i, now_ns, encode(frame)) for i, frame in enumerate(frames)], 0)
    collector.commit()
    print(f"{args.file}: {sum(frame.count for frame in frames):,} records of boot {boot_id} into {args.lake}")
    return 0


def _records(path: Path) -> Iterator[bytes]:
    splitter = Splitter()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield from splitter.feed(chunk)
    yield from splitter.close()


# Like the agent: contiguous frames, a jump of the numbers is a loss in front of the next one.
def _frames(records: Iterator[bytes], stream: Stream, run: str, now_ns: int) -> Iterator[Frame]:
    held: list[bytes] = []
    first = expected = 0
    losses: list[Loss] = []
    number = 0
    for record in records:
        try:
            seq = kmsg.header_seq(record)
        except BadInputError:
            seq = expected
        if held and (seq != expected or len(held) == _FRAME_RECORDS):
            yield _frame(stream, run, number, first, held, losses, now_ns)
            number, held, losses = number + 1, [], []
        if not held:
            if seq > expected and number:
                losses.append(Loss(LossKind.GAP, expected, seq - expected, "missing-in-dump", "import"))
            first = seq
        held.append(record)
        expected = seq + 1
    if held:
        yield _frame(stream, run, number, first, held, losses, now_ns)


def _frame(stream: Stream, run: str, number: int, first: int, held: list[bytes], losses: list[Loss], now_ns: int) -> Frame:
    row = surface(stream.surface)
    return Frame(
        stream=stream,
        run=run,
        number=number,
        first=first,
        next=first + len(held),
        count=len(held),
        encoding=row.encoding,
        encoding_version=row.encoding_version,
        body=kmsg.pack(held),
        losses=list(losses),
        realtime_ns=now_ns,
    )
