"""What a guest has sent before, frame by frame: so one sent again is known, and one taken back to a snapshot as well.

A guest that is restored from a snapshot goes on with the same boot, runs, numbers and positions, and other content.
From then on its frames are of a new epoch of its boot: the boot id with `+N` behind it, so readers have streams of
their own for what would else be positions that come twice.
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from schemas import frame as frames
from schemas import log_dir
from schemas.errors import BadInputError
from schemas.frame import SHIPPER_RUN, Tags
from schemas.log_cursor import LogCursor, OvertakenError
from schemas.stream import Stream

#: Frames remembered of one run of a stream, runs of one boot, boots of one guest: the newest of each.
_FRAMES_MAX: Final = 4096
_RUNS_MAX: Final = 512
_BOOTS_MAX: Final = 4
_MARK: Final = "+"
#: How much of a log's end is read for what it holds of each guest, in each topic.
_RECALL_BYTES: Final = 64 << 20


def boot_name(boot_id: str, epoch: int) -> str:
    """Return the boot id that readers see in this epoch of `boot_id`."""
    return f"{boot_id}{_MARK}{epoch}" if epoch else boot_id


def split_boot(name: str) -> tuple[str, int]:
    """Return boot id and epoch of what `boot_name` made."""
    boot_id, mark, epoch = name.rpartition(_MARK)
    return (boot_id, int(epoch)) if mark and epoch.isascii() and epoch.isdigit() else (name, 0)


class _Run:
    # Numbers ascend; the content and the epoch of each frame stand beside them.
    def __init__(self) -> None:
        self.numbers, self.contents, self.epochs = array("q"), array("I"), array("I")

    def add(self, number: int, content: int, epoch: int) -> None:
        self.numbers.append(number)
        self.contents.append(content)
        self.epochs.append(epoch)
        if len(self.numbers) >= 2 * _FRAMES_MAX:
            self.cut(0, _FRAMES_MAX)

    def cut(self, start: int, end: int) -> None:
        for column in (self.numbers, self.contents, self.epochs):
            del column[start:end]


class _Boot:
    def __init__(self) -> None:
        self.epoch = 0
        self.runs: OrderedDict[tuple[str, ...], _Run] = OrderedDict()


class History:
    """The history of one guest; holds some ten bytes a frame, within bounds."""

    def __init__(self) -> None:
        self._boots: OrderedDict[str, _Boot] = OrderedDict()
        #: How often the guest was found to be taken back to a snapshot, or to have booted anew.
        self.generation = 0

    def epoch(self, boot_id: str) -> int:
        """Return how often this boot was found taken back to a snapshot."""
        return self._boots[boot_id].epoch if boot_id in self._boots else 0

    def went_back(self, boot_id: str) -> None:
        """Enter that the guest was taken back to a moment of this boot."""
        self._boot(boot_id).epoch += 1
        self.generation += 1

    def is_known(self, tags: Tags, content: int) -> bool:
        """Enter a frame; return True where the same was there before. A contradiction begins a new epoch."""
        if tags.run.startswith(SHIPPER_RUN):
            return False
        boot = self._boot(tags.stream.boot_id)
        run = self._run(boot, tags)
        if not run.numbers or tags.number > run.numbers[-1]:
            run.add(tags.number, content, boot.epoch)
            return False
        at = bisect_left(run.numbers, tags.number)
        if run.numbers[at] != tags.number:
            return False  # older than what is remembered: readers go by its positions
        if run.contents[at] == content:
            return True
        if run.epochs[at] == boot.epoch:
            boot.epoch += 1
            self.generation += 1
        run.cut(at, len(run.numbers))
        run.add(tags.number, content, boot.epoch)
        return False

    def recall(self, tags: Tags, content: int) -> None:
        """Enter a frame that a log holds, under the name of its boot in its epoch; in the order of the log."""
        boot_id, epoch = split_boot(tags.stream.boot_id)
        self.reached(boot_id, epoch)
        run = self._run(self._boot(boot_id), tags)
        at = bisect_left(run.numbers, tags.number)
        if at < len(run.numbers):
            run.cut(at, len(run.numbers))
        run.add(tags.number, content, epoch)

    def reached(self, boot_id: str, epoch: int) -> None:
        """Enter that a log holds frames of this epoch."""
        boot = self._boot(boot_id)
        boot.epoch = max(boot.epoch, epoch)

    def _boot(self, boot_id: str) -> _Boot:
        boot = self._boots.get(boot_id)
        if boot is None:
            boot = self._boots[boot_id] = _Boot()
            while len(self._boots) > _BOOTS_MAX:
                self._boots.popitem(last=False)
        self._boots.move_to_end(boot_id)
        return boot

    def _run(self, boot: _Boot, tags: Tags) -> _Run:
        key = (tags.stream.surface, tags.stream.instance, tags.stream.clock, tags.run)
        run = boot.runs.get(key)
        if run is None:
            run = boot.runs[key] = _Run()
            while len(boot.runs) > _RUNS_MAX:
                boot.runs.popitem(last=False)
        boot.runs.move_to_end(key)
        return run


def recalled(directory: Path, stands: Iterable[Stream]) -> dict[str, History]:
    """Return by machine what the newest part of the log in `directory` holds; `stands` are the streams that it knows.

    Raises:
        StorageError: the disk refuses.
    """
    found: dict[str, History] = {}
    for stream in stands:
        found.setdefault(stream.machine, History()).reached(*split_boot(stream.boot_id))
    for path in sorted(directory.glob("*/0/end")):
        folder = path.parent
        size_bytes, start = 0, None
        for base in reversed(log_dir.segment_bases(folder)):
            start = base
            size_bytes += log_dir.segment_path(folder, base).stat().st_size
            if size_bytes >= _RECALL_BYTES:
                break
        cursor = LogCursor(directory, folder.parent.name, 0)
        if start is not None:
            cursor.seek(start)
        _read(cursor, found)
        cursor.close()
    return found


def _read(cursor: LogCursor, found: dict[str, History]) -> None:
    while True:
        try:
            entries = cursor.read()
        except OvertakenError as e:
            cursor.seek(e.start)
            continue
        if not entries:
            return
        for _, _, payload in entries:
            try:
                tags = frames.decode_tags(payload)
            except BadInputError:
                continue  # damaged: its readers bury it
            if not tags.run.startswith(SHIPPER_RUN):
                history = found.setdefault(tags.stream.machine, History())
                history.recall(tags, frames.content(payload, tags))
