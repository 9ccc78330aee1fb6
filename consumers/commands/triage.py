"""Say what stood still in saved kernel logs: console, dmesg or journal as text, or a dump of /dev/kmsg, also as .gz.

Lockups, RCU stalls, hung tasks and what belongs to one failure are one incident, with what the text alone can say of it
and what it cannot. `--json` prints one object a line (`consumers/incidents/TRIAGE.md`). The summary goes to stderr.
Exit code 0: at least one was found; 1: none; 65: a file could not be read to its end, whatever was found in it.
"""

import argparse
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from consumers import render
from consumers.incidents import page
from consumers.incidents.scan import Found, LogScan
from consumers.verdict.facts import Facts
from consumers.verdict.judge import judge
from schemas.errors import BadInputError

_BLOCK_BYTES: Final = 1 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_STDIN: Final = "-"
_NEAR_CHARS: Final = 160
_FOUND, _NONE, _UNREADABLE = 0, 1, 65


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    sub.add_argument("files", nargs="+", metavar="FILE", help="a saved log; - for standard input")
    sub.add_argument("--json", action="store_true", help="one JSON object for each incident, one a line")


def run(args: argparse.Namespace) -> int:
    """Print the incidents of each file; return the exit code."""
    found, unreadable = 0, False
    for file in args.files:
        scan = LogScan()
        number = 0
        try:
            for number, each in enumerate(_incidents(file, scan), start=1):
                _print(each, file, number, as_json=args.json, headed=len(args.files) > 1)
        except BadInputError as e:
            print(f"hypocenter: {e.detail}", file=sys.stderr)
            unreadable = True
        found += number
        _print_summary(file, scan, number)
    return _UNREADABLE if unreadable else _FOUND if found else _NONE


def _incidents(file: str, scan: LogScan) -> Iterator[Found]:
    try:
        for block in _blocks(file):
            yield from scan.feed(block)
    except (OSError, EOFError, zlib.error) as e:
        # What was read of it counts; that it is not all is said, and is the exit code.
        yield from scan.close()
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise BadInputError("unreadable", f"{file} cannot be read to its end: {reason}") from e
    yield from scan.close()


def _blocks(file: str) -> Iterator[bytes]:
    if file == _STDIN:
        yield from _decompressed(sys.stdin.buffer)
        return
    with Path(file).open("rb") as opened:
        yield from _decompressed(opened)


# Packed or not by its first bytes, not by its name. Whatever it unpacks to, memory is that of a block.
def _decompressed(opened: IO[bytes]) -> Iterator[bytes]:
    block = opened.read(_BLOCK_BYTES)
    if not block.startswith(_GZIP_MAGIC):
        while block:
            yield block
            block = opened.read(_BLOCK_BYTES)
        return
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    while block:
        yield unpacker.decompress(block, _BLOCK_BYTES)
        block = unpacker.unconsumed_tail
        if unpacker.eof:
            # Another member may follow, as of a log that was packed in pieces.
            block = unpacker.unused_data.lstrip(b"\0") or opened.read(_BLOCK_BYTES)
            unpacker = zlib.decompressobj(_GZIP_WINDOW) if block else unpacker
        elif not block:
            block = opened.read(_BLOCK_BYTES)
    yield unpacker.flush()
    if not unpacker.eof:
        raise EOFError("it ends in the middle of its packed data")


def _print(found: Found, file: str, number: int, *, as_json: bool, headed: bool) -> None:
    verdict = judge(found.incident, Facts.none())
    if as_json:
        print(json.dumps(page.json_object(found.incident, verdict, file, found.boot)))
        return
    if headed and number == 1:
        print(f"== {file}")
    print(page.text(found.incident, verdict, number))


def _print_summary(file: str, scan: LogScan, number: int) -> None:
    many = f"{number} incident{'' if number == 1 else 's'}" if number else "no incident"
    said = [f"{many} in {scan.lines:,} lines"]
    if scan.boots > 1:
        said.append(f"{scan.boots} boots")
    if scan.copies:
        said.append(f"{scan.copies} stood there again as a copy")
    misses = f"{scan.near} near miss{'' if scan.near == 1 else 'es'}"
    said.append(f"{misses} (looks like a report, and is no wording that is known)" if scan.near else "no near miss")
    print(f"{file}: {', '.join(said)}", file=sys.stderr)
    for line in _distinct(each.text for each in scan.near_lines):
        print(f"  near miss: {render.printable(line[:_NEAR_CHARS])}", file=sys.stderr)


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
