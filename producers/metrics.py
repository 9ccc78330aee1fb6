"""The agent's metrics: what it read, lost, keeps and ships. Counted frame by frame, made into text when asked for."""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from producers import ship_report
from producers.ship_child import ShipperChild
from producers.unshipped import Unshipped
from producers.writer import WriterThread
from schemas.command_line import version
from schemas.errors import StorageError
from schemas.frame import Frame
from schemas.loss import LossUnit
from schemas.metrics import Counts, Family, Type, Values, expose
from schemas.surfaces import HEARTBEAT_ENCODING

_LOSS: Final = ("surface", "kind", "reason")
_COUNTER, _GAUGE = Type.COUNTER, Type.GAUGE

BUILD = Family("hypocenter_agent_build_info", _GAUGE, "Always 1; the version is in the label.", ("version",))
START = Family("hypocenter_agent_start_time_seconds", _GAUGE, "When the agent started, Unix time.")
BEAT = Family("hypocenter_agent_heartbeat_timestamp_seconds", _GAUGE, "When it last said that it watches, Unix time.")
INTERVAL = Family("hypocenter_agent_heartbeat_interval_seconds", _GAUGE, "How often it says so.")
FRAMES = Family("hypocenter_agent_frames_total", _COUNTER, "Frames cut, heartbeats too.", ("surface",))
RECORDS = Family("hypocenter_agent_records_total", _COUNTER, "Records in these frames.", ("surface",))
POSITIONS = Family("hypocenter_agent_positions_total", _COUNTER, "Positions in these frames.", ("surface",))
BODY_BYTES = Family("hypocenter_agent_body_bytes_total", _COUNTER, "Bytes read of a surface.", ("surface",))
LOSSES = Family("hypocenter_agent_losses_total", _COUNTER, "Losses found, each a row of `losses`.", _LOSS)
LOST_POSITIONS = Family("hypocenter_agent_lost_positions_total", _COUNTER, "Positions that these say are lost.", _LOSS)
LOST_EVENTS = Family("hypocenter_agent_lost_events_total", _COUNTER, "Events without a position that are lost.", _LOSS)
UNKNOWN_LOSSES = Family("hypocenter_agent_unknown_losses_total", _COUNTER, "Losses whose count nobody knows.", _LOSS)
QUEUE_BYTES = Family("hypocenter_agent_queue_bytes", _GAUGE, "Frames in memory that wait for the disk.")
QUEUE_LIMIT = Family("hypocenter_agent_queue_limit_bytes", _GAUGE, "Above this the kernel's ring is left to fill.")
LOG_BYTES = Family("hypocenter_agent_log_bytes", _GAUGE, "What the embedded log takes on disk.")
LOG_LIMIT = Family("hypocenter_agent_log_limit_bytes", _GAUGE, "What it may take; then its oldest part is deleted.")
SPOOL_BYTES = Family("hypocenter_agent_spool_bytes", _GAUGE, "What the spool takes on disk.")
SPOOL_LIMIT = Family(
    "hypocenter_agent_spool_limit_bytes", _GAUGE, "What it may take; then it gives up its oldest part."
)
UNSHIPPED = Family("hypocenter_agent_unshipped_age_seconds", _GAUGE, "How long the spool's oldest frame waits; or 0.")
SPOOL_DROPPED = Family(
    "hypocenter_agent_spool_dropped_positions_total", _COUNTER, "Positions that the spool gave up unsent."
)
SPOOL_UNKNOWN = Family(
    "hypocenter_agent_spool_dropped_unknown_total", _COUNTER, "Times that it gave up nobody knows how many."
)
SHIPPED_FRAMES = Family("hypocenter_agent_shipped_frames_total", _COUNTER, "Frames that arrived for good.")
SHIPPED_BYTES = Family("hypocenter_agent_shipped_bytes_total", _COUNTER, "Bytes of these frames.")
SHIPPED_AT = Family("hypocenter_agent_shipped_timestamp_seconds", _GAUGE, "When the newest arrived, Unix time.")
DELIVERY_ERRORS = Family(
    "hypocenter_agent_delivery_errors_total",
    _COUNTER,
    "Connections that broke, stalled or were refused, and frames not taken; all are tried again.",
)
SHIPPER_UP = Family("hypocenter_agent_shipper_up", _GAUGE, "1 while the process that ships runs.")
SHIPPER_RESTARTS = Family("hypocenter_agent_shipper_restarts_total", _COUNTER, "Times that it ended and was restarted.")

FAMILIES: Final = tuple(each for each in dict(vars()).values() if isinstance(each, Family))


class Tally:
    """What the agent's loop counts of its frames."""

    def __init__(self) -> None:
        self.beat_realtime_ns: int | None = None
        self._counts: dict[Family, Counts] = {
            family: Counts()
            for family in (
                FRAMES,
                RECORDS,
                POSITIONS,
                BODY_BYTES,
                LOSSES,
                LOST_POSITIONS,
                LOST_EVENTS,
                UNKNOWN_LOSSES,
            )
        }

    def put(self, frame: Frame) -> None:
        """Enter a frame."""
        counts, surface = self._counts, (frame.stream.surface,)
        counts[FRAMES].add(surface)
        if frame.encoding != HEARTBEAT_ENCODING:
            counts[RECORDS].add(surface, frame.count)
            counts[POSITIONS].add(surface, frame.next - frame.first)
            counts[BODY_BYTES].add(surface, len(frame.body))
        for loss in frame.losses:
            labels = (*surface, loss.kind, loss.reason)
            counts[LOSSES].add(labels)
            if loss.count is None:
                counts[UNKNOWN_LOSSES].add(labels)
            else:
                counts[LOST_EVENTS if loss.unit == LossUnit.EVENT else LOST_POSITIONS].add(labels, loss.count)

    def values(self) -> Iterable[tuple[Family, Values]]:
        """Yield the sums; from any thread."""
        for family, counts in self._counts.items():
            yield family, counts.taken()


class Shipping:
    """The spool in `directory`, which `child` ships, and what that reports to the descriptor `report`."""

    def __init__(self, directory: Path, child: ShipperChild, report: int) -> None:
        self._unshipped = Unshipped(directory)
        self._child = child
        self._report = report

    def values(self, now_ns: int) -> Iterable[tuple[Family, float | None]]:
        """Yield what is known now."""
        told = ship_report.read(self._report)
        yield UNSHIPPED, self._age_s(now_ns)
        yield SPOOL_DROPPED, told.dropped_positions
        yield SPOOL_UNKNOWN, told.dropped_unknown
        yield SHIPPED_FRAMES, told.frames
        yield SHIPPED_BYTES, told.size_bytes
        yield SHIPPED_AT, told.acked_realtime_ns / 1e9 if told.acked_realtime_ns else None
        yield DELIVERY_ERRORS, told.errors
        yield SHIPPER_UP, int(self._child.running)
        yield SHIPPER_RESTARTS, self._child.restarts

    # Nobody knows it while the disk refuses, and that is told elsewhere.
    def _age_s(self, now_ns: int) -> float | None:
        with contextlib.suppress(StorageError):
            since_ns = self._unshipped.oldest_ns(now_ns)
            return 0.0 if since_ns is None else max(0, now_ns - since_ns) / 1e9
        return None


class AgentMetrics:
    """All metrics of one agent; `text` is asked for by the server's thread, the rest set by the agent's loop.

    `limit_bytes` is what the log may take on disk; with `shipping` it is a spool.
    """

    def __init__(
        self,
        tally: Tally,
        thread: WriterThread,
        heartbeat_s: float,
        queue_bytes_max: int,
        limit_bytes: int,
        shipping: Shipping | None,
    ) -> None:
        self._tally, self._thread, self._shipping = tally, thread, shipping
        self._fixed: dict[Family, float] = {
            START: time.time(),
            INTERVAL: heartbeat_s,
            QUEUE_LIMIT: queue_bytes_max,
            SPOOL_LIMIT if shipping else LOG_LIMIT: limit_bytes,
        }
        self._version: str | None = None

    def text(self) -> bytes:
        """Return all of it, as it is now."""
        if self._version is None:
            self._version = version() or "unknown"
        return expose(self._values(time.time_ns()))

    def _values(self, now_ns: int) -> Iterable[tuple[Family, float | Values | None]]:
        beat_ns = self._tally.beat_realtime_ns
        yield BUILD, {(self._version or "",): 1}
        yield from self._fixed.items()
        yield BEAT, beat_ns / 1e9 if beat_ns is not None else None
        yield from self._tally.values()
        yield QUEUE_BYTES, self._thread.queued_bytes
        yield SPOOL_BYTES if self._shipping else LOG_BYTES, self._thread.log_bytes
        if self._shipping:
            yield from self._shipping.values(now_ns)
