"""Store a saved dump: `import kmsg FILE` takes a file of /dev/kmsg reads, one after another as the device gives them.

`dd if=/dev/kmsg of=FILE bs=8k iflag=nonblock` makes one. The file is recognised by its content: imported again it
changes nothing, cut off half way it goes on where it was.
"""

import argparse
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from consumers.cli import add_lake
from consumers.collector import Cut, PartitionCollector
from consumers.kmsg_dump import DumpSplitter
from consumers.lake.chain import Chain
from consumers.lake.layout import open_lake
from consumers.lake.writer import CommitWriter
from consumers.progress import ProgressBar
from consumers.transport.base import Message, Partition
from schemas import bounds, kmsg
from schemas.errors import BadInputError, StorageError, UsageError
from schemas.frame import Frame, encode
from schemas.loss import Loss, LossKind
from schemas.stream import Layer, Stream
from schemas.surfaces import surface

_FRAME_RECORDS: Final = 4096
_FRAME_BYTES: Final = 512 << 10
_CHUNK_BYTES: Final = 1 << 20
_LOOKED_AT: Final = 1000
_TAG: Final = bounds.tag()
_CUT: Final = Cut(bytes_max=64 << 20, rows_max=1_000_000, age_ns=1 << 62)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("surface", choices=("kmsg",), help="what the file holds")
    sub.add_argument("file", type=Path, metavar="FILE", help="the dump")
    add_lake(sub, "the lake's directory, created if absent")
    sub.add_argument("--machine", metavar="ID", help="machine it was taken on; default the file's name")
    sub.add_argument("--boot-id", metavar="ID", help="boot it was taken in; default made from the file's content")
    layers = [each.value for each in Layer]
    sub.add_argument(
        "--layer",
        default=Layer.GUEST_KERNEL.value,
        choices=layers,
        metavar="NAME",
        help=f"layer of that kernel, one of {', '.join(layers)} [{Layer.GUEST_KERNEL.value}]",
    )


def run(args: argparse.Namespace) -> int:
    """Import one file as one commit chain of its own."""
    for flag, tag in (("--machine", args.machine), ("--boot-id", args.boot_id)):
        if tag is not None and not _TAG.allows(tag):
            raise UsageError(f"{flag} is {_TAG.says}, not {tag!r:.60}")
    digest = _digest(args.file)
    _verify(args.file)
    row = surface(args.surface)
    boot_id = args.boot_id or str(uuid.uuid5(uuid.NAMESPACE_OID, digest))
    stream = Stream(args.machine or args.file.stem, boot_id, args.layer, row.name, "", row.clock)
    storage = open_lake(args.lake, create=True)
    partition = Partition(f"import.{row.name}.{digest[:16]}", 0)
    chain = Chain(storage, partition.topic, 0, log_id="import", topic_id=digest, first_offset=0)
    collector = PartitionCollector(partition, chain, CommitWriter(storage), _CUT)
    stored_before, now_ns = collector.position, time.time_ns()
    # The same file gives the same frames: those of an earlier, interrupted import are behind `position`.
    for offset, frame in enumerate(_frames(_records(args.file, ProgressBar("bytes")), stream, digest, now_ns)):
        collector.add([Message(offset, now_ns, encode(frame))], 0)
        if collector.due(0):
            _commit(collector)
    if not collector.buffered and collector.position == stored_before:
        print(f"{args.file}: already imported, nothing to do")
        return 0
    _commit(collector)
    rows = {name: chain.state.totals.get(name, 0) for name in (row.name, "losses", "dead_letters")}
    print(f"{args.file}: {', '.join(f'{count:,} rows of {name}' for name, count in rows.items())}")
    print(f"machine {stream.machine}, boot {boot_id}, into {args.lake}")
    return 0


def _commit(collector: PartitionCollector) -> None:
    if not collector.commit():
        raise StorageError("another import of the same file is under way; run this one again")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from None


# A few bad records are dead letters; a file of nothing else is another sort of file.
def _verify(path: Path) -> None:
    found = False
    for record in islice(_records(path), _LOOKED_AT):
        found = True
        try:
            kmsg.header_seq(record)
        except BadInputError:
            continue
        return
    if not found:
        raise BadInputError("empty", f"{path} holds no record")
    raise BadInputError(
        "format",
        f"{path} holds no record of /dev/kmsg, `prio,seq,usec,flags;text`: the output of dmesg has lost what they say",
    )


def _records(path: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Iterator[bytes]:
    splitter = DumpSplitter()
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield from splitter.feed(chunk)
            done += len(chunk)
            progress(done, total)
    yield from splitter.close()


# Like the agent: contiguous frames, a jump of the numbers is a loss in front of the next one.
def _frames(records: Iterator[bytes], stream: Stream, run: str, now_ns: int) -> Iterator[Frame]:
    held: list[bytes] = []
    first = expected = number = size_bytes = 0
    losses: list[Loss] = []
    for record in records:
        try:
            seq = kmsg.header_seq(record)
        except BadInputError:
            seq = expected
        if held and (seq != expected or len(held) == _FRAME_RECORDS or size_bytes >= _FRAME_BYTES):
            yield _frame(stream, run, number, first, held, losses, now_ns)
            number, held, losses, size_bytes = number + 1, [], [], 0
            if seq > expected:
                losses.append(Loss(LossKind.GAP, expected, seq - expected, "missing-in-dump", "import"))
        if not held:
            first = seq
        held.append(record)
        size_bytes += len(record)
        expected = seq + 1
    if held:
        yield _frame(stream, run, number, first, held, losses, now_ns)


def _frame(
    stream: Stream, run: str, number: int, first: int, held: list[bytes], losses: list[Loss], now_ns: int
) -> Frame:
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
        losses=losses,
        realtime_ns=now_ns,
    )
