"""The socket of one guest: read in turns with all others, and written to as far as it takes bytes."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from producers.relay.guest import Bucket, Guest, boottime_ns
from producers.relay.ways import opener
from schemas.config import RelayConfig
from schemas.relay import Hello, Refused
from schemas.relay_host import Arrived, Asked, Event, Greeted, HostEnd, Pinged, Timed, WentBack

log = logging.getLogger(__name__)
#: What is read of one guest before it is the next one's turn, and where nobody waits for one: half as many reads.
READ_BYTES: Final = 128 << 10
ALONE_BYTES: Final = 2 * READ_BYTES
#: What waits for a guest that does not read; of acknowledgements only the newest of each topic waits beside it.
_OUT_BYTES_MAX: Final = 16 << 10
#: A packet that has begun and does not go on for so long: its sender went away in the middle of it.
_BROKEN_OFF_S: Final = 2.0


class Link:
    """Serves `guest`; `on_frame` gets each frame that arrived, and `may_read` is asked before each read how many bytes.

    Who was told 0 is read again after `resume`.
    """

    def __init__(
        self,
        guest: Guest,
        hello: Hello,
        config: RelayConfig,
        on_frame: Callable[["Link", Arrived], None],
        may_read: Callable[["Link"], int],
    ) -> None:
        self.guest = guest
        self.end = HostEnd(hello)
        #: Bytes of frames that are not yet durable; a guest that keeps to its window has no more than that.
        self.queued_bytes = 0
        self._config = config
        self._on_frame, self._may_read = on_frame, may_read
        self._loop = asyncio.get_running_loop()
        now_s = self._loop.time()
        self._byte_rate = Bucket(config.guest_rate_bytes, now_s)
        self._packet_rate = Bucket(config.guest_rate_packets, now_s)
        self._socket: socket.socket | None = None
        self._out = bytearray()
        self._acks: dict[str, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._broken_off: asyncio.TimerHandle | None = None
        self._rest_by_s: float | None = None
        self._opener = opener(guest.vm, self.serve)

    def serve(self, connected: socket.socket) -> None:
        """Go on with this connection to the guest, which does not block; an earlier one is let go."""
        self._disconnect()
        self._socket = connected
        self.guest.connected = True
        self.guest.connections += 1
        self._loop.add_reader(connected, self._readable)
        self._greet(self.end.opened())

    def close(self) -> None:
        """Let go of the socket for good."""
        if self._opener is not None:
            self._opener.close()
        self._disconnect()
        if self._broken_off is not None:
            self._broken_off.cancel()

    def resume(self) -> bool:
        """Read again; return whether there is a connection to read of."""
        if self._socket is None:
            return False
        self._loop.add_reader(self._socket, self._readable)
        self._watch_for_the_rest()
        return True

    def ack(self, topic: str, offset: int, check: int) -> None:
        """Say that all frames of `topic` below `offset` are durable."""
        self._acks[topic] = (offset, check)
        self._send(b"")

    # What is acknowledged from now on is of the new connection.
    def _greet(self, greeting: bytes) -> None:
        self._acks = {}
        self._send(greeting)

    def _disconnect(self) -> None:
        if self._socket is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._socket, self._out, self._acks = None, bytearray(), {}
        self._watch_for_the_rest()
        self.guest.connected = False
        lost = self.end.closed()
        if lost is not None:
            self.guest.refused[lost.reason] += 1

    def _lost(self, why: str) -> None:
        log.info("%s: disconnected: %s", self.guest.vm.name, why)
        self._disconnect()
        if self._opener is not None:
            self._opener.lost()

    def _readable(self) -> None:
        assert self._socket is not None
        size_bytes = self._may_read(self)
        if not size_bytes:
            self._pause()
            return
        read_bytes = packets = 0
        while read_bytes < size_bytes:
            asked_bytes, had_bytes, events = self._read(size_bytes - read_bytes)
            read_bytes += had_bytes
            packets += events
            if had_bytes < asked_bytes:
                break
        if self._socket is not None and read_bytes:
            self._watch_for_the_rest()
            self._keep_to_the_rates(read_bytes, packets)

    # Reads at most so many bytes; returns how many were asked for and came, and how many packets they completed.
    def _read(self, bytes_max: int) -> tuple[int, int, int]:
        assert self._socket is not None
        room = self.end.room()
        try:
            if room is not None:
                asked_bytes = min(bytes_max, len(room))
                had_bytes = self._socket.recv_into(room, asked_bytes)
            else:
                asked_bytes = bytes_max
                data = self._socket.recv(asked_bytes)
                had_bytes = len(data)
        except BlockingIOError:
            return bytes_max, 0, 0
        except OSError as e:
            self._lost(e.strerror or str(e))
            return bytes_max, 0, 0
        t1_ns = boottime_ns()
        if not had_bytes:
            self._lost("the other end is closed")
            return bytes_max, 0, 0
        self.guest.bytes += had_bytes
        events = self.end.feed(data) if room is None else self.end.filled(had_bytes)
        for event in events:
            self._heard(event, t1_ns)
        return asked_bytes, had_bytes, len(events)

    def _heard(self, event: Event, t1_ns: int) -> None:
        if isinstance(event, Arrived):
            self._on_frame(self, event)
        elif isinstance(event, Pinged):
            if not self._out:
                t2_ns = boottime_ns()
                self.guest.pinged(event.number, event.t0_ns, t1_ns, t2_ns)
                self._send(self.end.pong(event.number, event.t0_ns, t1_ns, t2_ns))
        elif isinstance(event, Timed):
            self.guest.timed(event)
        elif isinstance(event, Refused):
            self.guest.refuse(event)
        elif isinstance(event, Greeted):
            self.guest.greeted(event.guest)
        elif isinstance(event, WentBack):
            log.warning("%s was restored from a snapshot: it sends what came before", self.guest.vm.name)
            self.guest.went_back()
            self._greet(self.end.greeting())
        elif isinstance(event, Asked):
            self._greet(self.end.greeting())

    # What does not go on while nobody reads it is not broken off.
    def _pause(self) -> None:
        assert self._socket is not None
        self._loop.remove_reader(self._socket)
        self._rest_by_s = None

    # One timer, which is set anew only when it fires: a packet comes in many pieces.
    def _watch_for_the_rest(self) -> None:
        if self._socket is None or not self.end.open:
            self._rest_by_s = None
            return
        self._rest_by_s = self._loop.time() + _BROKEN_OFF_S
        if self._broken_off is None:
            self._broken_off = self._loop.call_at(self._rest_by_s, self._give_up)

    def _give_up(self) -> None:
        self._broken_off = None
        if self._rest_by_s is None:
            return
        if self._loop.time() < self._rest_by_s:
            self._broken_off = self._loop.call_at(self._rest_by_s, self._give_up)
            return
        lost = self.end.give_up()
        if lost is not None:
            self.guest.refuse(lost)

    def _keep_to_the_rates(self, size_bytes: int, packets: int) -> None:
        now_s = self._loop.time()
        rest_s = max(self._byte_rate.take(size_bytes, now_s), self._packet_rate.take(packets, now_s))
        if rest_s > 0 and self._socket is not None:
            self._pause()
            self._timer = self._loop.call_later(rest_s, self.resume)

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            return
        if len(self._out) + len(data) <= _OUT_BYTES_MAX:
            self._out += data
        self._writable()

    def _writable(self) -> None:
        assert self._socket is not None
        if not self._out:
            for topic, (offset, check) in self._acks.items():
                self._out += self.end.ack(topic, offset, check)
            self._acks = {}
        try:
            del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:  # a socket that is broken says so to its reader, who may have to wait
            self._out, self._acks = bytearray(), {}
        if self._out or self._acks:  # those came while the socket was full
            self._loop.add_writer(self._socket, self._writable)
        else:
            self._loop.remove_writer(self._socket)
