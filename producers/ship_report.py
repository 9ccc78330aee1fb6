"""What a shipper tells its agent: six numbers in memory that both have open (memfd_create(2)), and no message.

A shipper that is started again goes on with the numbers of the one before it; the agent looks at them when it is asked
for metrics, so saying something wakes nobody.
"""

import os
import struct
from typing import Final, NamedTuple

_LAYOUT: Final = struct.Struct("=6Q")


class Told(NamedTuple):
    """Since the agent's start: frames and bytes that arrived, failures on the way, what the spool gave up unsent.

    `acked_realtime_ns` is when the newest arrived, 0 before any did. `dropped_unknown` counts losses without a number.
    """

    frames: int = 0
    size_bytes: int = 0
    errors: int = 0
    acked_realtime_ns: int = 0
    dropped_positions: int = 0
    dropped_unknown: int = 0


class ShipReport:
    """The numbers in the file `fd`; with None they are kept here alone, of a shipper that nobody watches."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._told = self._written = read(fd) if fd is not None else Told()

    def arrived(self, frames: int, size_bytes: int, realtime_ns: int) -> None:
        """Enter that so much is acknowledged for good."""
        if frames:
            told = self._told
            self._told = told._replace(
                frames=told.frames + frames, size_bytes=told.size_bytes + size_bytes, acked_realtime_ns=realtime_ns
            )

    def failed(self, count: int = 1) -> None:
        """Enter failures: a connection that broke or was refused, a client that stalled, a frame it did not take."""
        self._told = self._told._replace(errors=self._told.errors + count)

    def dropped(self, positions: int | None) -> None:
        """Enter that the spool gave up so many positions unsent, None where nobody knows how many."""
        told = self._told
        if positions is None:
            self._told = told._replace(dropped_unknown=told.dropped_unknown + 1)
        else:
            self._told = told._replace(dropped_positions=told.dropped_positions + positions)

    def tell(self) -> None:
        """Show what was entered; one write, so that no reader sees half of it."""
        if self._fd is not None and self._told is not self._written:
            os.pwrite(self._fd, _LAYOUT.pack(*self._told), 0)
            self._written = self._told


def create() -> int:
    """Return the descriptor of a new report, for a shipper to inherit; the caller closes it."""
    fd = os.memfd_create("ship-report")
    os.pwrite(fd, _LAYOUT.pack(*Told()), 0)
    return fd


def read(fd: int) -> Told:
    """Return the numbers in the file `fd`."""
    return Told(*_LAYOUT.unpack(os.pread(fd, _LAYOUT.size, 0)))
