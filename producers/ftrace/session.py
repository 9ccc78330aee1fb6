"""What the sources of trace events share: tracefs, the instances, and when each of them goes."""

import contextlib
import logging
import re
from pathlib import Path

from producers.ftrace.instance import PREFIX, Instance
from producers.ftrace.ring import CpuRing
from producers.ftrace.tracefs import Tracefs
from producers.journal import Journal, create, delete, find, others

log = logging.getLogger(__name__)


class Session:
    """Owns `tracefs` and what is added; everything is removed when the last source that it holds is released."""

    def __init__(self, tracefs: Tracefs) -> None:
        self._tracefs = tracefs
        self._left: dict[Path, Instance] = {}
        self._own: dict[Path, Instance] = {}
        self._frozen: set[Path] = set()
        self._rings: dict[Path, list[CpuRing]] = {}
        self._journals: dict[Path, Journal] = {}
        self._gone: list[tuple[str, Journal]] = []
        self._held: set[int] = set()

    @property
    def path(self) -> Path:
        """Where tracefs is."""
        return self._tracefs.path

    def add(self, instance: Instance, *, left_over: bool = False) -> Instance:
        """Own `instance` from now on; a left-over one that is not read to its end stays for the next agent."""
        (self._left if left_over else self._own)[instance.path] = instance
        return instance

    def owns(self, instance: Instance) -> bool:
        """Tell whether `instance` records now; else it is left over."""
        return instance.path in self._own

    def open_ring(self, instance: Instance, cpu: int) -> CpuRing:
        """Return the open ring of one CPU of an instance that was added."""
        journal = self._journals.get(instance.path)
        ring = CpuRing(instance, cpu, journal, left_over=instance.path in self._left)
        self._rings.setdefault(instance.path, []).append(ring)
        return ring

    def open_journals(self, folder: Path, boot_id: str) -> None:
        """Make the journal of each own ring in `folder`, find those of left-over ones and of rings that are gone."""
        known = set()
        for path, instance in self._left.items():
            # Of earlier versions the name has no clock.
            for name in (_name(instance), path.name):
                known.add(name)
                found = find(folder, name, boot_id, instance.cpus()[-1] + 1)
                if found is not None:
                    self._journals.setdefault(path, found)
        # Also of the names of own rings: these are new.
        for name in others(folder, known):
            slots = max(instance.cpus()[-1] + 1 for instance in self._own.values())
            found = find(folder, name, boot_id, slots)
            if found is None or all(found.noted(slot) == (0, 0) for slot in range(slots)):
                delete(folder, name)  # of an earlier boot, or told
            else:
                self._gone.append((name, found))
        for path, instance in self._own.items():
            try:
                made = create(folder, _name(instance), boot_id, instance.cpus()[-1] + 1)
            except OSError as e:
                # Less is known then of what a kill would lose, and nothing else is worse.
                log.warning("%s: %s; what a killed agent had read will be an unknown loss", folder, e.strerror)
            else:
                self._journals[path] = made

    def gone(self, set_name: str, clock: str) -> list[Journal]:
        """Return the journals of rings that ran under this name and clock, and that somebody else has removed since."""
        pattern = re.compile(rf"{re.escape(PREFIX + set_name)}-[0-9-]+\.{re.escape(clock)}")
        return [found for name, found in self._gone if pattern.fullmatch(name)]

    def freeze(self, instance: Instance) -> None:
        """Let `instance` record no more; further calls do nothing."""
        if instance.path not in self._frozen:
            self._frozen.add(instance.path)
            instance.freeze()

    def ring_done(self, ring: CpuRing) -> None:
        """Close a ring that was read to its end; with the last one its instance is removed."""
        ring.close()
        rings = self._rings[ring.instance.path]
        rings.remove(ring)
        if not rings:
            self._left.pop(ring.instance.path)
            self._remove(ring.instance)

    def hold(self, source: object) -> None:
        """Stay until `source` is released."""
        self._held.add(id(source))

    def release(self, source: object) -> None:
        """Forget `source`; with the last one everything goes."""
        if id(source) in self._held:
            self._held.remove(id(source))
            if not self._held:
                self.close()

    def leave(self) -> None:
        """Let own instances stay for the next agent too, and their journals: not all that was read is in the log."""
        for instance in self._own.values():
            self.freeze(instance)
            log.warning(
                "%s stays, with its memory, for the next agent: not all that was read is in the log", instance.path.name
            )
        self._left |= self._own
        self._own = {}

    def close(self) -> None:
        """Remove own instances, let go of left-over ones and of tracefs; idempotent."""
        for ring in [ring for rings in self._rings.values() for ring in rings]:
            ring.close()
        own, self._own = list(self._own.values()), {}
        for instance in own:
            self._remove(instance)
        left, self._left = list(self._left.values()), {}
        for instance in left:
            instance.let_go()
        self._tracefs.close()

    def _remove(self, instance: Instance) -> None:
        instance.remove()
        journal = self._journals.pop(instance.path, None)
        if journal is not None:
            with contextlib.suppress(OSError):
                journal.remove()


# Numbers are those of a stream, which has a clock.
def _name(instance: Instance) -> str:
    return f"{instance.path.name}.{instance.clock}"
