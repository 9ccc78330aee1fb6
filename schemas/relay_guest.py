"""The guest's end of one connection to the relay, sans-IO: what to send, what was acknowledged, when to begin anew.

The host names a connection (a `link`, never 0) in its greeting. The guest answers with its own, sends frames from the
last acknowledged on, and never more than the window ahead of the acknowledgements. An acknowledgement names the check
of the frame that it ends with: one of a frame that was never sent like that is of another history of this machine,
which was taken back to a snapshot since, and is not believed.
"""

from collections import deque
from typing import Final, NamedTuple

from schemas import limits, relay
from schemas.crc import crc32
from schemas.errors import BadInputError
from schemas.relay import Hello, Kind, Packet, Packets, Refused

_NO_LINK: Final = 0


class Greeted(NamedTuple):
    """The host named a new connection: answer with `GuestEnd.hello`, and send from the last acknowledged frame on."""

    host: Hello


class Acked(NamedTuple):
    """The next `frames` of `topic` are durable at the host, up to `offset` of the spool."""

    topic: str
    offset: int
    frames: int


class Ponged(NamedTuple):
    """The ping `number` was answered: sent at `t0_ns` by our clock, there at `t1_ns`, answered at `t2_ns`."""

    number: int
    t0_ns: int
    t1_ns: int
    t2_ns: int


class Diverged(NamedTuple):
    """An acknowledgement was of frames that this end did not send: begin anew with `GuestEnd.opened`."""

    topic: str
    offset: int


Event = Greeted | Acked | Ponged | Diverged


class GuestEnd:
    """One connection; `opened` begins it, and another after it."""

    def __init__(self) -> None:
        self.link = _NO_LINK
        self.unacked_bytes = 0
        self.refused = 0
        self._window_bytes = 0
        self._packets = Packets()
        self._sent: dict[str, deque[tuple[int, int, int]]] = {}  # the offset behind a frame, its check, its bytes

    def opened(self) -> bytes:
        """Return what asks the host for its greeting; nothing of an earlier connection counts any more."""
        self.link, self.unacked_bytes, self._window_bytes = _NO_LINK, 0, 0
        self._sent, self._packets = {}, Packets()
        return relay.encode(Kind.HELLO, _NO_LINK, payload=relay.pack_hello(Hello("", "", "", "", 0, {})))

    @property
    def waiting(self) -> bool:
        """Whether a frame was sent and is not acknowledged."""
        return self.unacked_bytes > 0

    def room(self) -> bool:
        """Return whether another frame may be sent."""
        return self.link != _NO_LINK and self.unacked_bytes < self._window_bytes

    def hello(self, claims: Hello) -> bytes:
        """Return the answer to the host's greeting."""
        return relay.encode(Kind.HELLO, self.link, payload=relay.pack_hello(claims))

    def frame(self, topic: str, offset: int, payload: bytes) -> bytes:
        """Return the header of the packet that brings the spool's entry `offset`; `payload` follows it as it is."""
        kind = Kind.FRAME if _is_framed(payload) else Kind.DAMAGED
        packet = relay.encode(kind, self.link, topic=topic, value=offset, payload=payload)
        size_bytes = len(payload) + relay.HEADER_BYTES
        check = relay.frame_check(payload) if kind == Kind.FRAME else crc32(payload)
        self._sent.setdefault(topic, deque()).append((offset + 1, check, size_bytes))
        self.unacked_bytes += size_bytes
        return packet[: relay.HEADER_BYTES]

    def ping(self, number: int, t0_ns: int) -> bytes:
        """Return a ping, whose number no earlier one had."""
        return relay.encode(Kind.PING, self.link, value=number, payload=relay.pack_times(t0_ns))

    def times(self, number: int, t0_ns: int, t3_ns: int) -> bytes:
        """Return what tells the host when its answer came."""
        return relay.encode(Kind.TIMES, self.link, value=number, payload=relay.pack_times(t0_ns, t3_ns))

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the host and return what they say; what is none of its packets is counted in `refused`."""
        events: list[Event] = []
        for each in self._packets.feed(data):
            event = None if isinstance(each, Refused) else self._event(each)
            if isinstance(each, Refused):
                self.refused += 1
            elif event is not None:
                events.append(event)
        return events

    def _event(self, packet: Packet) -> Event | None:
        if packet.kind == Kind.HELLO:
            return self._greeted(packet)
        if packet.link != self.link or self.link == _NO_LINK:
            return None  # of an earlier connection
        if packet.kind == Kind.ACK:
            return self._acked(packet)
        if packet.kind == Kind.PONG:
            return Ponged(packet.value, *relay.unpack_times(packet.payload))
        self.refused += 1
        return None

    def _greeted(self, packet: Packet) -> Event | None:
        try:
            host = relay.unpack_hello(packet.payload)
        except BadInputError:
            self.refused += 1
            return None
        if packet.link in (_NO_LINK, self.link):
            return None
        self.link = packet.link
        self._window_bytes = min(host.window_bytes, limits.RELAY_WINDOW_BYTES_MAX)
        self._sent, self.unacked_bytes = {}, 0
        return Greeted(host)

    def _acked(self, packet: Packet) -> Event | None:
        sent = self._sent.get(packet.topic)
        if not sent or packet.value < sent[0][0]:
            return None  # an acknowledgement that came before
        wanted, frames = (packet.value, int.from_bytes(packet.payload, "big")), 0
        while sent and sent[0][0] <= packet.value:
            offset, check, size_bytes = sent.popleft()
            self.unacked_bytes -= size_bytes
            frames += 1
            if (offset, check) == wanted:
                return Acked(packet.topic, packet.value, frames)
        self.link = _NO_LINK  # what else it says of this history does not count either
        return Diverged(packet.topic, packet.value)


# A spool hands out damaged bytes in place of what it held; they are told as what they are.
def _is_framed(payload: bytes) -> bool:
    if not 5 < len(payload) <= limits.FRAME_BYTES_MAX or payload[-5] != 0xCE:
        return False
    return crc32(memoryview(payload)[:-5]) == relay.frame_check(payload)
