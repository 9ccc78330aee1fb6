"""What time it is on one kernel's printk clock, by its records and by how long its producer waited between them.

That clock may stand apart on two CPUs, fall, or be wrong in one record (kernel/sched/clock.c, an unstable TSC). A fall
is taken as it comes: time that stands back closes nothing. A leap ahead would end all that is open, so it counts when
the next record is there too.
"""

from dataclasses import dataclass
from typing import Final

#: How far ahead a record may be at once: so far the clocks of CPUs stand apart, and a producer may have been held up.
LEAP_NS: Final = 90 * 10**9


@dataclass(slots=True)
class KernelClock:
    """It was `now_ns` at `realtime_ns` of the producer's CLOCK_REALTIME; `told_ns` is what the newest record said."""

    now_ns: int = 0  # none is known
    realtime_ns: int = 0
    told_ns: int = 0

    def at(self, realtime_ns: int) -> int | None:
        """Return what time it is or was at `realtime_ns`, None where no record has told."""
        return max(0, self.now_ns + realtime_ns - self.realtime_ns) if self.now_ns else None

    def hear(self, ts_ns: int, realtime_ns: int) -> int:
        """Take the time of a record that the producer had at `realtime_ns`; return what time it is."""
        before_ns = self.now_ns if ts_ns == self.told_ns else max(self.now_ns, self.told_ns)
        passed_ns = max(0, realtime_ns - self.realtime_ns)
        if not self.now_ns or ts_ns <= before_ns + passed_ns + LEAP_NS:
            self.now_ns = ts_ns
        else:
            self.now_ns += passed_ns
        self.realtime_ns, self.told_ns = realtime_ns, ts_ns
        return self.now_ns
