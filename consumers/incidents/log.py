"""Lines of one boot of one source become incidents: the assembly of reports and that of incidents, line by line.

A report changes while its lines come, so both are asked after each line: then what comes out does not depend on how the
lines were cut into batches, and a replay gives the same bytes.
"""

from collections.abc import Iterable
from typing import Any

from consumers.incidents.assembly import IncidentAssembler, Limits
from consumers.incidents.incident import Incident, Source
from consumers.reports.assembler import ReportAssembler
from consumers.reports.report import Line


class LogIncidents:
    """`feed` it the lines; every method returns the incidents that changed, each once and in order."""

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self.reports = ReportAssembler()
        self.incidents = IncidentAssembler(source, limits)

    def feed(self, lines: Iterable[Line]) -> list[Incident]:
        """Take lines in the order of the log."""
        changed: dict[str, Incident] = {}
        for line in lines:
            found = self.incidents.apply(self.reports.feed([line]), line.ts_ns)
            changed |= {each.id: each for each in found}
        return list(changed.values())

    def tick(self, now_ns: int) -> list[Incident]:
        """Say that printk's clock is at `now_ns` and no line came."""
        return self.incidents.apply(self.reports.tick(now_ns), now_ns)

    def close(self) -> list[Incident]:
        """Say that no more lines come; nothing ends by that."""
        return self.incidents.apply(self.reports.close(), None)

    def rebooted(self) -> list[Incident]:
        """Say that this boot is over."""
        found = [*self.close(), *self.incidents.rebooted()]
        return list({each.id: each for each in found}.values())

    def state(self) -> dict[str, Any]:
        """Return everything as values of JSON."""
        return {"reports": self.reports.state(), "incidents": self.incidents.state()}

    @classmethod
    def restore(cls, source: Source, state: dict[str, Any], limits: Limits | None = None) -> "LogIncidents":
        """Return what gave `state`."""
        made = cls(source, limits)
        made.reports = ReportAssembler.restore(state["reports"])
        made.incidents = IncidentAssembler.restore(source, state["incidents"], limits)
        made.incidents.relink(made.reports.open_reports)
        return made
