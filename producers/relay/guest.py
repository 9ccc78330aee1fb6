"""One guest as the relay sees it: who it is, what it claims, what it may send, and what became of that.

No byte of a guest says whose it is: the relay knows by the socket, and stamps machine and layer on every frame.
"""

import time
from collections import Counter, OrderedDict
from typing import Any, Final, NamedTuple

from producers.relay.history import History, boot_name, split_boot
from producers.relay.vms import Vm
from schemas import frame as frames
from schemas import limits
from schemas.errors import BadInputError
from schemas.frame import Parts
from schemas.relay import Hello, Refused
from schemas.relay_host import Arrived, Timed
from schemas.segment import StreamPosition
from schemas.state import Record
from schemas.stream import Layer, Stream
from schemas.surfaces import SURFACES

_LAYERS: Final = frozenset({Layer.GUEST_KERNEL, Layer.GUEST_USERSPACE})
#: New streams of one guest in an hour: every one costs the lake a book.
_STREAMS_MAX: Final = 4096
_HOUR_S: Final = 3600.0
#: Refused bytes and pings kept for the next account; of more only the number.
_SAMPLES_MAX: Final = 16
_PINGS_MAX: Final = 256
_OPEN_PINGS_MAX: Final = 32
_SPOOLS_MAX: Final = 4


class Host(NamedTuple):
    """Whose relay this is."""

    machine: str
    boot_id: str


class Taken(NamedTuple):
    """A frame as it goes into the host's log."""

    topic: str
    parts: Parts
    stream: Stream
    at: StreamPosition


class Guest:
    """The guest `vm` on `host`, with the `history` that the host's log has of it."""

    def __init__(self, vm: Vm, host: Host, history: History) -> None:
        self.vm, self.history = vm, history
        self.connected = False
        self.connections = 0
        self.bytes = self.frames = self.duplicates = self.mismatches = 0
        self.refused: Counter[str] = Counter()
        #: The highest offset seen by spool and topic; kept over restarts of the relay.
        self.reached: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._host = host
        self._claims = Hello("", "", "", "", 0, {})
        self._stamps: dict[Stream, tuple[int, Stream]] = {}
        self._stamps_s = 0.0
        self._samples: list[Record] = []
        self._pings: dict[int, tuple[int, int, int]] = {}
        self._exchanged: list[tuple[str, Record]] = []
        self._rtt_ns: int | None = None

    @property
    def claimed_boot(self) -> str:
        """The boot that the guest says to be in, as readers see it; empty before it said so."""
        boot_id = self._claims.boot_id
        return boot_name(boot_id, self.history.epoch(boot_id)) if boot_id else ""

    def greeted(self, claims: Hello) -> None:
        """Enter what the guest claims. A spool that ends below what it had is one that went back in time."""
        if self._claims.boot_id and self._claims.boot_id != claims.boot_id:
            self.history.generation += 1
        self._claims = claims
        reached = self.reached.get(claims.name, {})
        if any(claims.ends.get(topic, 0) < offset for topic, offset in reached.items()):
            self.went_back()
        self.reached.setdefault(claims.name, {})
        self.reached.move_to_end(claims.name)
        while len(self.reached) > _SPOOLS_MAX:
            self.reached.popitem(last=False)
        self._pings = {}

    def went_back(self) -> None:
        """Enter that the guest was taken back to a snapshot."""
        self.reached.pop(self._claims.name, None)
        self.history.went_back(self._claims.boot_id)

    def take(self, arrived: Arrived, now_s: float) -> Taken | None:
        """Return the frame that `arrived`, stamped; None where it was known already, or is refused and counted."""
        reached = self.reached.setdefault(self._claims.name, {})
        reached[arrived.topic] = max(reached.get(arrived.topic, 0), arrived.offset + 1)
        if arrived.damaged:
            self._refuse("spool-damaged", arrived)
            return None
        try:
            tags = frames.decode_tags(arrived.payload, checked=True)
            _check_boot(tags.stream.boot_id)
            content = frames.content(arrived.payload, tags)
            if self.history.is_known(tags, content):
                self.duplicates += 1
                return None
            stream = self._stamped(tags.stream, now_s)
            parts = frames.stamp(arrived.payload, tags, stream)
        except BadInputError as e:
            self._refuse(e.reason, arrived)
            return None
        self.frames += 1
        row = SURFACES.get(stream.surface)
        topic = row.topic if row else arrived.topic
        return Taken(topic, parts, stream, StreamPosition(tags.next, tags.number))

    def refuse(self, refused: Refused) -> None:
        """Count bytes that are no packet or no frame, and keep the first of them for the next account."""
        self.refused[refused.reason] += 1
        if len(self._samples) < _SAMPLES_MAX:
            fields = {"reason": refused.reason, "size_bytes": refused.size_bytes, "data": refused.data}
            fields["data"] = refused.data[: limits.DEAD_LETTER_BYTES_MAX]
            self._samples.append(Record("relay_refused", boottime_ns(), self._named(fields)))

    def _refuse(self, reason: str, arrived: Arrived) -> None:
        data = bytes(memoryview(arrived.payload)[: limits.DEAD_LETTER_BYTES_MAX])
        self.refuse(Refused(reason, data, len(arrived.payload)))

    def pinged(self, number: int, t0_ns: int, t1_ns: int, t2_ns: int) -> None:
        """Enter a ping that was answered."""
        while len(self._pings) >= _OPEN_PINGS_MAX:
            del self._pings[next(iter(self._pings))]
        self._pings[number] = (t0_ns, t1_ns, t2_ns)

    def timed(self, times: Timed) -> None:
        """Enter when the guest had the answer to a ping; one that was not answered is left alone."""
        t0_ns, t1_ns, t2_ns = self._pings.pop(times.number, (-1, 0, 0))
        honest = 0 <= t0_ns == times.t0_ns <= times.t3_ns
        if not honest or not self._claims.boot_id or len(self._exchanged) >= _PINGS_MAX:
            return
        rtt_ns = (times.t3_ns - times.t0_ns) - (t2_ns - t1_ns)
        self._rtt_ns = rtt_ns if self._rtt_ns is None else min(rtt_ns, self._rtt_ns)
        fields: dict[str, Any] = {"t0_ns": times.t0_ns, "t1_ns": t1_ns, "t2_ns": t2_ns, "t3_ns": times.t3_ns}
        fields = {"vm": self.vm.name, "generation": self.history.generation, **fields}
        fields |= {"host_machine": self._host.machine, "host_boot_id": self._host.boot_id}
        self._exchanged.append((self.claimed_boot, Record("clock_pings", times.t3_ns, fields)))

    def account(self) -> list[Record]:
        """Return what there is to say of this guest since the last account."""
        fields = {
            "generation": self.history.generation,
            "connected": self.connected,
            "connections": self.connections,
            "bytes": self.bytes,
            "frames": self.frames,
            "duplicates": self.duplicates,
            "refused": dict(self.refused),
            "mismatches": self.mismatches,
            "claimed_machine": self._claims.machine,
            "claimed_layer": self._claims.layer,
            "claimed_boot_id": self._claims.boot_id,
            "rtt_ns": self._rtt_ns,
        }
        samples, self._samples, self._rtt_ns = self._samples, [], None
        return [Record("relay_guests", boottime_ns(), self._named(fields)), *samples]

    def take_pings(self) -> list[tuple[str, Record]]:
        """Return the exchanges of times since the last call, each with the boot that it is of, as readers see it."""
        taken, self._exchanged = self._exchanged, []
        return taken

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        named = {"vm": self.vm.name, "uuid": self.vm.uuid}
        return {**named, "host_machine": self._host.machine, "host_boot_id": self._host.boot_id, **fields}

    # Machine and layer are ours to say; all else the guest knows better.
    def _stamped(self, claimed: Stream, now_s: float) -> Stream:
        epoch = self.history.epoch(claimed.boot_id)
        if claimed.layer not in _LAYERS or claimed.machine != self._claims.machine:
            self.mismatches += 1
        if now_s - self._stamps_s > _HOUR_S:
            self._stamps, self._stamps_s = {}, now_s
        known = self._stamps.get(claimed)
        if known is not None and known[0] == epoch:
            return known[1]
        if len(self._stamps) >= _STREAMS_MAX:
            raise BadInputError("too-many-streams", f"{_STREAMS_MAX} new ones within an hour")
        layer = claimed.layer if claimed.layer in _LAYERS else Layer.GUEST_KERNEL
        boot_id = boot_name(claimed.boot_id, epoch)
        stream = claimed._replace(machine=self.vm.machine, layer=layer, boot_id=boot_id)
        self._stamps[claimed] = (epoch, stream)
        return stream


def _check_boot(boot_id: str) -> None:
    if split_boot(boot_id)[1]:
        raise BadInputError("boot-id", f"{boot_id!r:.60} is a name that only the relay gives")


class Bucket:
    """Lets `per_s` pass each second, and as much at once after a silence."""

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s, self._left, self._at_s = per_s, per_s, now_s

    def take(self, amount: float, now_s: float) -> float:
        """Take `amount`, which has come already, and return for how many seconds nothing more may come."""
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s) - amount
        self._at_s = now_s
        return max(0.0, -self._left / self._per_s)


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
