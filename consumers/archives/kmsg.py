"""A saved dump of the kernel log: reads of /dev/kmsg in one file, one after another as the device gives them.

`dd if=/dev/kmsg of=FILE bs=8k iflag=nonblock` makes one.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from consumers.archives.base import Progress, Tags
from consumers.archives.content import file_digest
from consumers.archives.kmsg_splitter import DumpSplitter
from schemas import kmsg
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.loss import Loss, LossKind
from schemas.stream import Stream
from schemas.surfaces import surface

_SURFACE: Final = "kmsg"
_FRAME_RECORDS: Final = 4096
_FRAME_BYTES: Final = 512 << 10
_CHUNK_BYTES: Final = 1 << 20
_LOOKED_AT: Final = 1000


class KmsgDump:
    """The dump in the file `path`.

    Raises:
        UsageError: the file cannot be read.
        BadInputError: it is something else.
    """

    surface = _SURFACE

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.machine = path.stem
        self.digest = file_digest(path)
        self._path = path
        self._verify()

    # A few bad records are dead letters; a file of nothing else is another sort of file.
    def _verify(self) -> None:
        found = False
        for record in islice(self._records(lambda _done, _total: None), _LOOKED_AT):
            found = True
            try:
                kmsg.header_seq(record)
            except BadInputError:
                continue
            return
        if not found:
            raise BadInputError("empty", f"{self.name} holds no record")
        what = "`prio,seq,usec,flags;text`: the output of dmesg has lost what they say"
        raise BadInputError("format", f"{self.name} holds no record of /dev/kmsg, {what}")

    def _records(self, progress: Progress) -> Iterator[bytes]:
        splitter = DumpSplitter()
        total, done = self._path.stat().st_size, 0
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield from splitter.feed(chunk)
                done += len(chunk)
                progress(done, total)
        yield from splitter.close()

    def frames(self, tags: Tags, now_ns: int, progress: Progress) -> Iterator[Frame]:
        """Yield frames as the agent makes them: contiguous, a jump of the numbers is a loss in front of the next."""
        stream = Stream(tags.machine, tags.boot_id, tags.layer, _SURFACE, "", surface(_SURFACE).clock)
        held: list[bytes] = []
        first = expected = number = size_bytes = 0
        losses: list[Loss] = []
        for record in self._records(progress):
            try:
                seq = kmsg.header_seq(record)
            except BadInputError:
                seq = expected
            if held and (seq != expected or len(held) == _FRAME_RECORDS or size_bytes >= _FRAME_BYTES):
                yield _frame(stream, tags.run, number, first, held, losses, now_ns)
                number, held, losses, size_bytes = number + 1, [], [], 0
                if seq > expected:
                    losses.append(Loss(LossKind.GAP, expected, seq - expected, "missing-in-dump", "import"))
            if not held:
                first = seq
            held.append(record)
            size_bytes += len(record)
            expected = seq + 1
        if held:
            yield _frame(stream, tags.run, number, first, held, losses, now_ns)


def _frame(
    stream: Stream, run: str, number: int, first: int, held: list[bytes], losses: list[Loss], now_ns: int
) -> Frame:
    row = surface(_SURFACE)
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
