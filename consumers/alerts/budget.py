"""How many lines of one machine are parsed, by the time at which the log took them in: no machine reads for all.

Machines share a partition, and what a hostile kernel prints costs the others' pages time. So there is a bucket for
each machine: it fills by the log's append times, which no guest writes and which are the same when read again, never by
a clock of ours.
"""

from typing import Final

_S: Final = 10**9
#: Lines of one machine that are parsed in a second, and at once after a time of quiet. 256 CPUs that dump their stacks
#: one after the other are 15,000.
LINES_PER_S_MAX: Final = 2_000
LINES_BURST_MAX: Final = 20_000
#: What opening an incident costs, in lines: it is stored, judged and told. Twenty at once, then two a second.
INCIDENT_LINES: Final = 1_000
_LINE_NS: Final = _S // LINES_PER_S_MAX
_BURST_NS: Final = LINES_BURST_MAX * _LINE_NS


class Budget:
    """`spent_until_ns` is the append time at which everything is given back; 0: nothing is spent, nothing to store.

    `exceeded` says that lines were left out since it was last so.
    """

    __slots__ = ("exceeded", "spent_until_ns")

    def __init__(self, spent_until_ns: int = 0) -> None:
        self.spent_until_ns = spent_until_ns
        self.exceeded = False

    def credit(self, now_ns: int) -> int:
        """Return how many lines may be parsed of what the log took in at `now_ns`."""
        if self.spent_until_ns <= now_ns:
            self.spent_until_ns, self.exceeded = 0, False
            return LINES_BURST_MAX
        # At most all is spent, also where the log's clock was set back.
        self.spent_until_ns = min(self.spent_until_ns, now_ns + _BURST_NS)
        return (now_ns + _BURST_NS - self.spent_until_ns) // _LINE_NS

    def spend(self, now_ns: int, lines: int) -> None:
        """Take that so many lines were parsed."""
        if lines:
            self.spent_until_ns = max(self.spent_until_ns, now_ns) + lines * _LINE_NS
