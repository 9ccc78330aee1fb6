"""A saved dump of /dev/kmsg, as `cat /dev/kmsg >FILE` makes it, split back into the records that the reads gave.

A line that begins with a space is a dictionary line of the record before it; every other line begins a record. The last
line may lack its newline.
"""

from typing import Final

from schemas import limits

_NEWLINE: Final = b"\n"
_SPACE: Final = ord(" ")


class DumpSplitter:
    """Splits chunks cut anywhere; does no input itself.

    A record longer than `RECORD_BYTES_MAX` is given out cut there, its rest is dropped; `cut_records` counts these.
    """

    def __init__(self) -> None:
        self.cut_records = 0
        self._record = bytearray()  # the record that the next line may continue
        self._line_start = True
        self._cut = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take `data` and return the records that are now known to be complete."""
        done: list[bytes] = []
        for line in _lines(data):
            if self._line_start and line[0] != _SPACE:
                done += self.close()
            self._append(line)
            self._line_start = line.endswith(_NEWLINE)
        return done

    def close(self) -> list[bytes]:
        """Return the record that the end of the dump completes, if any."""
        done = [bytes(self._record)] if self._record else []
        self._record = bytearray()
        self._cut = False
        self._line_start = True
        return done

    def _append(self, line: bytes) -> None:
        room = limits.RECORD_BYTES_MAX - len(self._record)
        self._record += line[:room]
        if len(line) > room and not self._cut:
            self._cut = True
            self.cut_records += 1


def _lines(data: bytes) -> list[bytes]:
    lines = [line + _NEWLINE for line in data.split(_NEWLINE)]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
