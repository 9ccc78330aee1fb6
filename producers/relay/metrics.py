"""The relay's metrics: what came of each guest and what waits for the disk; read off the guests when asked for.

The label `vm` is the host's name for a guest, so its values are as many as the host configures (`vms.VMS_MAX`).
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from producers.relay.guest import Guest
from producers.writer import WriterThread
from schemas.command_line import version
from schemas.metrics import Family, Type, Values, expose

_COUNTER, _GAUGE = Type.COUNTER, Type.GAUGE
_VM: Final = ("vm",)

BUILD = Family("hypocenter_relay_build_info", _GAUGE, "Always 1; the version is in the label.", ("version",))
START = Family("hypocenter_relay_start_time_seconds", _GAUGE, "When the relay started, Unix time.")
BEAT = Family("hypocenter_relay_heartbeat_timestamp_seconds", _GAUGE, "When its loop last gave a sign, Unix time.")
GUESTS = Family("hypocenter_relay_guests", _GAUGE, "Guests whose ports are watched.")
CONNECTED = Family("hypocenter_relay_guest_connected", _GAUGE, "1 while the guest's port is open on the host.", _VM)
CONNECTIONS = Family("hypocenter_relay_connections_total", _COUNTER, "Times that it was opened.", _VM)
BYTES = Family("hypocenter_relay_bytes_total", _COUNTER, "Bytes read of the guest.", _VM)
FRAMES = Family("hypocenter_relay_frames_total", _COUNTER, "Frames taken into the log.", _VM)
DUPLICATES = Family("hypocenter_relay_duplicates_total", _COUNTER, "Frames sent again, and dropped.", _VM)
REFUSED = Family(
    "hypocenter_relay_refused_total", _COUNTER, "Times that bytes were no packet or no frame.", (*_VM, "reason")
)
MISMATCHES = Family("hypocenter_relay_mismatches_total", _COUNTER, "Frames that claimed to be of somebody else.", _VM)
GENERATION = Family("hypocenter_relay_generation", _GAUGE, "How often the guest booted anew or was restored.", _VM)
STRANGERS = Family("hypocenter_relay_strangers_total", _COUNTER, "Connections of no guest's CID, which were refused.")
QUEUE_BYTES = Family("hypocenter_relay_queue_bytes", _GAUGE, "Frames of all guests that wait for the disk.")
QUEUE_LIMIT = Family("hypocenter_relay_queue_limit_bytes", _GAUGE, "Above this no guest is read.")
LAG = Family("hypocenter_relay_ack_lag_seconds", _GAUGE, "How long the oldest frame that is not durable waits; or 0.")
WAITING = Family("hypocenter_relay_waiting_guests", _GAUGE, "Guests not read, because the disk or the spool is behind.")
LOG_BYTES = Family("hypocenter_relay_log_bytes", _GAUGE, "What its log or spool takes on disk.")

FAMILIES: Final = tuple(each for each in dict(vars()).values() if isinstance(each, Family))
#: What `Guest` counts under names of its own.
_COUNTED: Final = {
    CONNECTED: "connected",
    CONNECTIONS: "connections",
    BYTES: "bytes",
    FRAMES: "frames",
    DUPLICATES: "duplicates",
    MISMATCHES: "mismatches",
}


class Standing(NamedTuple):
    """How a relay stands: its guests, how many of them wait, how long its oldest frame does, when it last looked.

    `strangers` are connections of no guest that were refused.
    """

    guests: list[Guest]
    waiting: int
    lag_s: float
    beat_realtime_ns: int
    strangers: int = 0


class RelayMetrics:
    """All metrics of one relay; `text` is asked for by the server's thread, and calls `standing` there."""

    def __init__(self, thread: WriterThread, queue_bytes_max: int, standing: Callable[[], Standing]) -> None:
        self._thread, self._standing = thread, standing
        self._fixed: dict[Family, float] = {START: time.time(), QUEUE_LIMIT: queue_bytes_max}
        self._version: str | None = None

    def text(self) -> bytes:
        """Return all of it, as it is now."""
        if self._version is None:
            self._version = version() or "unknown"
        return expose(self._values(self._standing()))

    def _values(self, now: Standing) -> Iterable[tuple[Family, float | Values | None]]:
        yield BUILD, {(self._version or "",): 1}
        yield from self._fixed.items()
        yield BEAT, now.beat_realtime_ns / 1e9
        yield GUESTS, len(now.guests)
        for family, name in _COUNTED.items():
            yield family, {(guest.vm.name,): int(getattr(guest, name)) for guest in now.guests}
        yield GENERATION, {(guest.vm.name,): guest.history.generation for guest in now.guests}
        yield (
            REFUSED,
            {(guest.vm.name, reason): count for guest in now.guests for reason, count in dict(guest.refused).items()},
        )
        yield STRANGERS, now.strangers
        yield QUEUE_BYTES, self._thread.queued_bytes
        yield LAG, now.lag_s
        yield WAITING, now.waiting
        yield LOG_BYTES, self._thread.log_bytes
