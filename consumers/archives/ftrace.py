"""A saved copy of a tracefs instance: raw pages of its CPUs, and the files that say how to read them.

```
DIR/per_cpu/cpuN/trace_pipe_raw     pages, one after another as read(2) gives them
DIR/per_cpu/cpuN/stats              optional: the kernel's counters of that ring
DIR/events/header_page              the form of a page
DIR/events/SYSTEM/EVENT/format      the form of an event; an event without one becomes a row of `trace_unknown`
DIR/trace_clock                     optional: the clock in brackets
DIR/buffer_subbuf_size_kb           optional: the size of a page, else as header_page says
DIR/printk_formats                  optional: constant texts that events point at (not in an instance, but beside it)
```

Source: Documentation/trace/ftrace.rst, Documentation/trace/events.rst.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from consumers.archives import trace, trace_texts
from consumers.archives.base import Progress, Tags
from consumers.archives.content import files_digest
from consumers.archives.octets import FileOctets
from consumers.archives.trace import Buffer, Piece, Ring, SavedTrace
from consumers.decode.ftrace_format import PageHeader
from schemas import limits
from schemas.errors import BadInputError, UsageError
from schemas.frame import Frame

_SET: Final = "saved"
_CPU: Final = re.compile(r"cpu(\d{1,6})")
#: Pages of each CPU that tell the byte order.
_LOOKED_AT: Final = 64
_SMALL_BYTES_MAX: Final = 1 << 16
_FILES: Final = ("events/header_page", "trace_clock", "buffer_subbuf_size_kb", "printk_formats")


class SavedInstance:
    """The copy in the directory `path`.

    Raises:
        UsageError: it cannot be read.
        BadInputError: it lacks what pages cannot be read without, or has no page.
    """

    surface = trace.SURFACE

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.machine = path.resolve().name or _SET
        self._path = path
        raw = self._rings()
        header_text = _small(path / "events/header_page")
        if header_text is None:
            raise BadInputError("format", f"{path} has no events/header_page, and without it no page can be read")
        header = trace.read_header(header_text, str(path))
        page_bytes = self._page_bytes(header)
        trace.check_page_size(page_bytes, header, str(path))
        header.big_endian = _is_big_endian(list(raw.values()), header, page_bytes)
        formats = sorted(path.glob("events/*/*/format"))
        used = [path / name for name in _FILES]
        used += [*raw.values(), *(file.with_name("stats") for file in raw.values()), *formats]
        self.digest = files_digest(path, [file for file in used if file.is_file()])
        clock = trace_texts.current_clock(_small(path / "trace_clock") or "")
        rings = [
            Ring(cpu, partial(_pieces, file, page_bytes), trace_texts.dropped(_small(file.with_name("stats")) or ""))
            for cpu, file in sorted(raw.items())
        ]
        self._saved = SavedTrace(
            header_page=header_text,
            header=header,
            events=dict(filter(None, map(_event, formats))),
            buffers=[Buffer(_SET, clock, page_bytes, rings)],
            archive_bytes=sum(file.stat().st_size for file in raw.values()),
            printk_formats=_small(path / "printk_formats", limits.TRACE_FORMAT_BYTES_MAX) or "",
        )

    def frames(self, tags: Tags, now_ns: int, progress: Progress) -> Iterator[Frame]:
        """Yield the description of events, then the pages of each CPU."""
        return trace.frames(self._saved, tags, now_ns, progress)

    def _rings(self) -> dict[int, Path]:
        if not self._path.is_dir():
            raise UsageError(f"{self._path}: {'Not a directory' if self._path.exists() else 'No such directory'}")
        found = {
            int(match[1]): file
            for file in self._path.glob("per_cpu/cpu*/trace_pipe_raw")
            if (match := _CPU.fullmatch(file.parent.name))
        }
        if not found:
            raise BadInputError("format", f"{self._path} has no per_cpu/cpuN/trace_pipe_raw: no copy of an instance")
        if not any(file.stat().st_size for file in found.values()):
            raise BadInputError(
                "empty", f"{self._path} has no page: every trace_pipe_raw in it is empty, as a live one looks"
            )
        return found

    def _page_bytes(self, header: PageHeader) -> int:
        text = (_small(self._path / "buffer_subbuf_size_kb") or "").strip()
        return int(text) << 10 if re.fullmatch(r"[0-9]{1,6}", text) else header.data_offset + header.data_bytes


def _event(file: Path) -> tuple[str, str] | None:
    text = _small(file, limits.TRACE_FORMAT_BYTES_MAX + 1) or ""
    return trace_texts.event(text, file.parent.parent.name)


def _small(file: Path, bytes_max: int = _SMALL_BYTES_MAX) -> str | None:
    if not file.is_file():
        return None
    return FileOctets(file).read(0, bytes_max).decode("utf-8", "replace")


def _pieces(file: Path, page_bytes: int) -> Iterator[Piece]:
    octets, at = FileOctets(file), 0
    step = max(trace.BODY_BYTES, page_bytes)
    while data := octets.read(at, step):
        at += len(data)
        yield Piece(data, len(data))


# Nothing in the copy says it. Read in the wrong order hardly any header states a size that its page can have.
def _is_big_endian(files: list[Path], header: PageHeader, page_bytes: int) -> bool:
    likely = {"little": 0, "big": 0}
    for file in files:
        data = FileOctets(file).read(0, page_bytes * _LOOKED_AT)
        for at in range(header.commit_offset, len(data) - header.commit_bytes, page_bytes):
            commit = data[at : at + header.commit_bytes]
            for order in likely:
                upper, word = divmod(int.from_bytes(commit, order), 1 << 32)  # type: ignore[arg-type]  # one of the two
                # The flags are a negative int added to a long.
                likely[order] += upper in (0, 0xFFFFFFFF) and word & 0x3FFFFFFF <= page_bytes - header.data_offset
    return likely["big"] > likely["little"]
