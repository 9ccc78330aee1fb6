"""The host's end of one connection to a guest, sans-IO: which packets count, and when the guest went back in time.

The host draws the number of each connection (its `link`), so bytes that were under way when one broke off are known as
such and left alone: the guest sends them again. Within a connection the offsets of a topic only rise; a guest that goes
back was restored from a snapshot, with all that it remembers of this connection.
"""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from schemas import relay
from schemas.errors import BadInputError
from schemas.relay import Hello, Kind, Packet, Packets, Refused


class Greeted(NamedTuple):
    """The guest answered: its claims, and where its spool ends."""

    guest: Hello


class Arrived(NamedTuple):
    """A frame whose checksum holds, or with `damaged` what lay in the spool instead of one; it came by `link`."""

    link: int
    topic: str
    offset: int
    payload: bytes | bytearray
    check: int
    damaged: bool


class Pinged(NamedTuple):
    """Answer with `HostEnd.pong`, soon."""

    number: int
    t0_ns: int


class Timed(NamedTuple):
    """The guest says that it sent ping `number` at `t0_ns` and had the answer at `t3_ns`, by its own clock."""

    number: int
    t0_ns: int
    t3_ns: int


class WentBack(NamedTuple):
    """The guest sent an offset again within one connection: another has begun, for a new epoch; send its `greeting`."""

    topic: str
    offset: int


class Asked(NamedTuple):
    """The guest knows no connection: send the `greeting` of the one that there is now."""


Event = Greeted | Arrived | Pinged | Timed | WentBack | Asked | Refused


def _draw() -> int:
    return secrets.randbelow((1 << 32) - 1) + 1


class HostEnd:
    """One guest's connections, one after another; `draw` gives a number of 32 bits that is not 0."""

    def __init__(self, host: Hello, draw: Callable[[], int] = _draw) -> None:
        self._host = host
        self._draw = draw
        self._packets = Packets()
        self._offsets: dict[str, int] = {}
        self.link = 0
        self.greeted = False
        self.stale = 0  # packets of an earlier connection

    def opened(self) -> bytes:
        """Begin a connection: return the host's greeting, which names it; what comes may still be of the one before."""
        self._renew()
        return self.greeting()

    def greeting(self) -> bytes:
        """Return the greeting of the connection that there is now."""
        return relay.encode(Kind.HELLO, self.link, payload=relay.pack_hello(self._host))

    def closed(self) -> Refused | None:
        """Forget what had begun: the guest's bytes end here."""
        lost, self._packets = self._packets.give_up(), Packets()
        self.greeted = False
        return lost

    @property
    def open(self) -> bool:
        """Whether a packet has begun and is not yet whole."""
        return self._packets.open

    def room(self) -> memoryview | None:
        """Return where to read the next bytes to; None where they are to be fed."""
        return self._packets.room()

    def give_up(self) -> Refused | None:
        """Forget a packet that does not go on, and look for another."""
        return self._packets.give_up()

    def ack(self, topic: str, offset: int, check: int) -> bytes:
        """Return what says that all below `offset` is durable; `check` is that of the frame right below it."""
        return relay.encode(Kind.ACK, self.link, topic=topic, value=offset, payload=check.to_bytes(4, "big"))

    def pong(self, number: int, t0_ns: int, t1_ns: int, t2_ns: int) -> bytes:
        """Return the answer to a ping that was there at `t1_ns`, given at `t2_ns`."""
        return relay.encode(Kind.PONG, self.link, value=number, payload=relay.pack_times(t0_ns, t1_ns, t2_ns))

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the guest and return what they say, in order."""
        return self._events(self._packets.feed(data))

    def filled(self, size_bytes: int) -> list[Event]:
        """Take bytes from the guest, so many, that were read to the `room` for them, and return what they say."""
        return self._events(self._packets.filled(size_bytes))

    def _events(self, packets: list[Packet | Refused]) -> list[Event]:
        found = [each if isinstance(each, Refused) else self._event(each) for each in packets]
        return [each for each in found if each is not None]

    def _event(self, packet: Packet) -> Event | None:
        if packet.kind == Kind.HELLO:
            return self._hello(packet)
        if packet.link != self.link or not self.greeted:
            self.stale += 1
            return None
        if packet.kind in (Kind.FRAME, Kind.DAMAGED):
            return self._arrived(packet)
        if packet.kind == Kind.PING:
            return Pinged(packet.value, *relay.unpack_times(packet.payload))
        if packet.kind == Kind.TIMES:
            return Timed(packet.value, *relay.unpack_times(packet.payload))
        return Refused("direction", bytes(packet.payload), len(packet.payload) + relay.HEADER_BYTES)

    def _arrived(self, packet: Packet) -> Arrived | WentBack:
        # The last offset may be there again: what a spool says of its losses comes right before what it still has.
        if packet.value + 1 < self._offsets.get(packet.topic, 0):
            self._renew()
            return WentBack(packet.topic, packet.value)
        self._offsets[packet.topic] = packet.value + 1
        damaged = packet.kind == Kind.DAMAGED
        return Arrived(packet.link, packet.topic, packet.value, packet.payload, packet.check, damaged)

    def _renew(self) -> None:
        self.link = self._draw()
        self.greeted, self._offsets = False, {}

    def _hello(self, packet: Packet) -> Event | None:
        try:
            guest = relay.unpack_hello(packet.payload)
        except BadInputError as e:
            return Refused(e.reason, bytes(packet.payload), len(packet.payload) + relay.HEADER_BYTES)
        if packet.link == 0:
            # One that was not answered is offered again: the guest may have asked before our greeting got there.
            if self.greeted:
                self._renew()
            return Asked()
        if packet.link != self.link or self.greeted:
            self.stale += 1
            return None
        self.greeted = True
        return Greeted(guest)
