"""The surface `relay`: what the relay on a host says of its guests and of their clocks; its own records, read nowhere.

Records are of the kinds `relay_guests` (one guest at one moment), `relay_refused` (bytes of a guest that were no frame)
and, on the surface `clocks` under the guest's name, `clock_pings` (one exchange of times with the guest). Heartbeats
say how long the relay watched: of its records one of the stream without an instance, of each guest's port one of the
stream whose instance is the guest's name.
"""

import time
from collections.abc import Mapping
from typing import Final

from producers.clock_readings import ClockReading
from schemas import heartbeat, limits, state
from schemas.frame import Frame
from schemas.heartbeat import Heartbeat
from schemas.segment import StreamPosition
from schemas.state import Record
from schemas.stream import Stream
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION

SURFACE: Final = "relay"
#: The clock surface's name, which is that of its encoding too.
CLOCKS: Final = "clocks"
# Records of one frame: with the longest fields a body still holds them.
_RECORDS_MAX: Final = 256


class StateStream:
    """One stream of state records that this process writes, which goes on where the log `stands`."""

    def __init__(self, stream: Stream, run: str, stands: Mapping[Stream, StreamPosition]) -> None:
        at = stands.get(stream)
        self._stream, self._run = stream, run
        self._next, self._number = (at.next, at.number + 1) if at else (0, 0)
        self._since_realtime_ns, self._since_position = 0, self._next

    def watch(self, realtime_ns: int) -> None:
        """Begin a span of watching, at this CLOCK_REALTIME."""
        self._since_realtime_ns, self._since_position = realtime_ns, self._next

    def beat(self, clocks: ClockReading, counters: dict[str, int]) -> Frame:
        """Return the heartbeat that ends the span of watching at `clocks`, where the next one begins."""
        beat = Heartbeat(
            since_realtime_ns=self._since_realtime_ns,
            until_realtime_ns=clocks.realtime_ns,
            first_position=self._since_position,
            realtime_ns=clocks.realtime_ns,
            monotonic_ns=clocks.monotonic_ns,
            boottime_ns=clocks.boottime_ns,
            bracket_ns=clocks.bracket_ns,
            counters=counters,
        )
        self.watch(clocks.realtime_ns)
        at = (self._number, self._next, self._next, 0)
        self._number += 1
        body = heartbeat.pack(beat)
        how = (HEARTBEAT_ENCODING, HEARTBEAT_VERSION, body)
        return Frame(self._stream, self._run, *at, *how, realtime_ns=clocks.realtime_ns)

    def frames(self, records: list[Record]) -> list[Frame]:
        """Return the frames that hold `records`, which are the stream's next."""
        assert len(state.pack(records[:1])) * _RECORDS_MAX < limits.BODY_BYTES_MAX
        made = []
        for at in range(0, len(records), _RECORDS_MAX):
            taken = records[at : at + _RECORDS_MAX]
            first, self._next = self._next, self._next + len(taken)
            made.append(
                Frame(
                    self._stream,
                    self._run,
                    self._number,
                    first,
                    self._next,
                    len(taken),
                    self._stream.surface,
                    state.VERSION,
                    state.pack(taken),
                    ts_first_ns=taken[0].ts_ns,
                    ts_last_ns=taken[-1].ts_ns,
                    realtime_ns=time.time_ns(),
                )
            )
            self._number += 1
        return made
