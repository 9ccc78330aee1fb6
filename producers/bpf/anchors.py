"""Which record a pinned ring's reader stands in front of, kept where a SIGKILL cannot take it.

The ring, its reader's position among it, outlives the agent; numbers of records are only ours. Before that position is
moved, the journal gets the number of the record there, in the one of two slots that holds the older: so whenever the
agent dies, one slot fits the position that the ring says.
"""

import logging
from pathlib import Path
from typing import Final, NamedTuple

from producers import journal
from producers.journal import Journal
from schemas.errors import StorageError
from schemas.loss import Loss, LossKind, LossUnit

log = logging.getLogger(__name__)
_FOUND_BY: Final = "agent"
#: Slots: the map's id, and two anchors.
_RING, _FIRST, _SECOND, _SLOTS = range(4)


class Anchor(NamedTuple):
    """At the ring's byte `ring_position` begins the record number `position`."""

    ring_position: int
    position: int


class Resumed(NamedTuple):
    """Where a run begins: its first record has the number `position`, and the first `skip` in the ring are stored.

    `losses` are what came between the runs.
    """

    position: int
    skip: int
    losses: list[Loss]


class Anchors:
    """The anchors of one ring in its journal; `ring_id` is the id of its map."""

    def __init__(self, noted: Journal, ring_id: int) -> None:
        self._journal = noted
        self._ring_id = ring_id
        self._turn = _FIRST

    def begin(self, consumed: int, durable: int) -> Resumed:
        """Return where to begin, the ring's reader standing at byte `consumed` and the log at record `durable`."""
        ring_id, _ = self._journal.noted(_RING)
        noted = [Anchor(*self._journal.noted(slot)) for slot in (_FIRST, _SECOND)]
        resumed = resume(noted if ring_id else [], self._ring_id == ring_id, consumed, durable)
        self.note(Anchor(consumed, resumed.position - resumed.skip))
        self._journal.note(_RING, self._ring_id, self._ring_id)
        return resumed

    def note(self, anchor: Anchor) -> None:
        """Note `anchor`; the ring's reader may be moved there from now on."""
        self._journal.note(self._turn, *anchor)
        self._turn = _FIRST + _SECOND - self._turn


def resume(noted: list[Anchor], same_ring: bool, consumed: int, durable: int) -> Resumed:
    """Return where a run begins that finds the anchors `noted`, none where no run was before or nobody knows of it.

    `same_ring` says that they are of the ring that is there, whose reader stands at byte `consumed`; the log holds all
    records below number `durable`.
    """
    if not noted:
        lost = [Loss(LossKind.DROP, durable, None, "agent-died", _FOUND_BY, LossUnit.EVENT)] if durable else []
        return Resumed(durable, 0, lost)
    here = [each.position for each in noted if same_ring and each.ring_position == consumed]
    position = max(here) if here else max(durable, *(each.position for each in noted))
    if position <= durable and here:
        return Resumed(durable, durable - position, [])
    losses = []
    if position > durable:
        losses.append(Loss(LossKind.DROP, durable, position - durable, "agent-died", _FOUND_BY))
    if not here:
        reason = "read-by-another" if same_ring else "ring-replaced"
        losses.append(Loss(LossKind.GAP, position, None, reason, _FOUND_BY, LossUnit.EVENT))
    return Resumed(position, 0, losses)


def of_ring(folder: Path, name: str, boot_id: str, ring_id: int) -> Anchors:
    """Return the anchors of the ring `name` with the map id `ring_id`, kept in `folder`.

    Raises:
        StorageError: the disk refuses, and without them records could come twice or not at all.
    """
    try:
        noted = journal.find(folder, name, boot_id, _SLOTS) or journal.create(folder, name, boot_id, _SLOTS)
    except OSError as e:
        raise StorageError(f"{folder}: {e.strerror}; where a pinned ring was read to must be kept there") from None
    return Anchors(noted, ring_id)
