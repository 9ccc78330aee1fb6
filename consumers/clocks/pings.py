"""Exchanges of times between a guest and its host to readings of both clocks: the fastest of each burst.

The guest sends at t0, the host receives at t1 and answers at t2, the guest receives at t3; t0 and t3 are of the guest's
clock. Whatever each way took: the host showed at most t1 when the guest showed t0, and at least t2 when it showed t3.
"""

from typing import Final

import numpy as np

from consumers.clocks.edges import Readings
from consumers.clocks.index import Ints

#: Of what was sent within so long one exchange is kept.
BURST_NS: Final = 1_000_000_000


def readings(times_ns: Ints, part: Ints, steady: Ints) -> Readings:
    """Return the readings that the exchanges `times_ns` (n x 4, in the order of sending) are.

    `part` and `steady` are one for each, as in `Readings`. Where the guest stood still in between so that the answer
    seems to have come before it could, the exchange says nothing.
    """
    t0, t1, t2, t3 = times_ns.T
    sound = np.flatnonzero((t3 - t0 >= t2 - t1) & (t2 >= t1) & (t3 > t0))
    kept = sound[_fastest(t0[sound], (t3 - t0 - t2 + t1)[sound], part[sound])] if len(sound) else sound
    return Readings(t0, t3, t2 - t3, t1 - t0, steady, part).take(kept)


def _fastest(t0: Ints, took: Ints, part: Ints) -> Ints:
    kept: list[int] = []
    began = 0
    for number, (at, own, own_part) in enumerate(zip(t0.tolist(), took.tolist(), part.tolist(), strict=True)):
        if kept and own_part == part[kept[-1]] and 0 <= at - began < BURST_NS:
            if own < took[kept[-1]]:
                kept[-1] = number
        else:
            kept.append(number)
            began = at
    return np.array(kept, np.int64)
