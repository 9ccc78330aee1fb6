"""What a relay writes of its own: accounts of its guests, their exchanges of times, and how long it watched each port.

A guest's stream of `clocks` has no heartbeats: those show the clocks of the machine that they are of, which the host
cannot read, and would make a guest that is long dead look alive. Whether exchanges could be had, the heartbeats of the
host's stream of that guest say.
"""

import time
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Final

from producers.clock_readings import ClockReading, read_clocks
from producers.relay.guest import Guest, Host
from producers.relay.source import CLOCKS, SURFACE, StateStream
from schemas.frame import Frame
from schemas.segment import StreamPosition
from schemas.stream import Layer, Stream
from schemas.surfaces import SURFACES

#: Streams of clocks that go on; those of guests that were gone for longest begin again where the log knows them.
_CLOCKS_MAX: Final = 4096


class Accounts:
    """Those of one `run` on `host`, which go on where the log `stands`."""

    def __init__(self, host: Host, run: str, stands: Mapping[Stream, StreamPosition]) -> None:
        self._host, self._run, self._stands = host, run, stands
        self._clocks: dict[Stream, StateStream] = {}
        self._ports: dict[str, StateStream] = {}
        self._own = self._stream("")
        self._own.watch(time.time_ns())

    def watch(self, guest: Guest) -> None:
        """Enter that the port of `guest` is watched from now on."""
        name = guest.vm.name
        if name not in self._ports:
            self._ports[name] = self._stream(name)
        self._ports[name].watch(time.time_ns())

    def leave(self, guest: Guest) -> list[Frame]:
        """Return the last words about `guest`, whose port nobody watches any more."""
        return [*self._told([guest]), self._port(guest, read_clocks())]

    def frames(self, guests: list[Guest], strangers: int = 0) -> list[Frame]:
        """Return what there is to say since the last call of `guests`, all of whose ports are watched.

        `strangers` are connections that were refused since the start, because they were of no guest.
        """
        made, clocks = self._told(guests), read_clocks()
        made.append(self._own.beat(clocks, {"guests": len(guests), "strangers": strangers}))
        return made + [self._port(guest, clocks) for guest in guests]

    def _told(self, guests: Iterable[Guest]) -> list[Frame]:
        records = [record for guest in guests for record in guest.account()]
        made = self._own.frames(records) if records else []
        for guest in guests:
            pings = sorted(guest.take_pings(), key=itemgetter(0))
            for boot_id, found in groupby(pings, itemgetter(0)):
                stream = Stream(guest.vm.machine, boot_id, Layer.GUEST_KERNEL, CLOCKS, SURFACE, "mono")
                made += self._clock(stream).frames([record for _, record in found])
        return made

    def _port(self, guest: Guest, clocks: ClockReading) -> Frame:
        counters = {"connected": int(guest.connected), "connections": guest.connections, "bytes": guest.bytes}
        return self._ports[guest.vm.name].beat(clocks, counters)

    def _stream(self, instance: str) -> StateStream:
        named = (*self._host, Layer.HOST, SURFACE, instance, SURFACES[SURFACE].clock)
        return StateStream(Stream(*named), self._run, self._stands)

    def _clock(self, stream: Stream) -> StateStream:
        known = self._clocks.pop(stream, None)
        self._clocks[stream] = known or StateStream(stream, self._run, self._stands)
        while len(self._clocks) > _CLOCKS_MAX:
            del self._clocks[next(iter(self._clocks))]
        return self._clocks[stream]
