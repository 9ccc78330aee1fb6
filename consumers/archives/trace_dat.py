"""A file of trace-cmd's, trace.dat: what all versions begin with, and which reader goes on.

    3 bytes   0x17 0x08 0x44
    7 bytes   "tracing"
    text      the version, NUL behind it
    u8        0 little, 1 big endian
    u8        bytes of a `long` of the machine's programs
    u32       bytes of a page of the machine

Times stay as the ring has them: what the file says to convert them with (a date, an offset, guest and host) is not
applied. Names of threads and kernel symbols are not stored.
Source: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from consumers.archives import trace, trace_dat_v6, trace_dat_v7
from consumers.archives.base import Progress, Tags
from consumers.archives.content import file_digest
from consumers.archives.octets import Cursor, FileOctets
from consumers.archives.trace import SavedTrace
from schemas import bounds
from schemas.errors import BadInputError
from schemas.frame import Frame

_MAGIC: Final = b"\x17\x08\x44tracing"
_VERSION_BYTES_MAX: Final = 16
_READERS: Final = {"6": trace_dat_v6.read, "7": trace_dat_v7.read}
_TAG: Final = bounds.tag()


class TraceDat:
    """The file `path`.

    Raises:
        UsageError: it cannot be read.
        BadInputError: it is no trace.dat, of another version, cut off before its events, or text.
    """

    surface = trace.SURFACE

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        octets = FileOctets(path)
        self._saved, node = _read(octets, self.name)
        self.machine = node if _TAG.allows(node) else path.stem
        self.digest = file_digest(path)

    def frames(self, tags: Tags, now_ns: int, progress: Progress) -> Iterator[Frame]:
        """Yield for each buffer its description of events, then the pages of each CPU."""
        return trace.frames(self._saved, tags, now_ns, progress)


def _read(octets: FileOctets, name: str) -> tuple[SavedTrace, str]:
    if octets.read(0, len(_MAGIC)) != _MAGIC:
        raise BadInputError("format", f"{name} is no trace.dat: it does not begin as one")
    cursor = Cursor(octets, name, len(_MAGIC))
    version = cursor.text(_VERSION_BYTES_MAX)
    if version not in _READERS:
        raise BadInputError("version", f"{name} is a trace.dat version {version:.16}, and 6 and 7 can be read")
    order, word_bytes = cursor.number(1), cursor.number(1)
    if order > 1 or word_bytes not in (4, 8):
        raise BadInputError("format", f"{name} states byte order {order} and words of {word_bytes} bytes: no machine")
    cursor.big_endian = order == 1
    return _READERS[version](cursor, cursor.number(4))
