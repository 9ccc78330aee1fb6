"""A case: an incident with what the alerter adds: whose it is, when its lines came, what was said of it to whom."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from consumers.alerts.payload import Alert, Whose, annotations, labels
from consumers.incidents import codec
from consumers.incidents.incident import Incident, State
from consumers.transport.base import Partition
from consumers.verdict.verdict import Confidence, Evidence, Missing, Owner, Record, Rejected, Verdict


@dataclass(slots=True)
class Case:
    """One incident; times are the log's append times (CLOCK_REALTIME, ns).

    `version` numbers its rows in the table, `changes` what was to be told. `opened_by` and `ended_by` are the
    Alertmanagers that took it as open, and whose taking of its end is known.
    """

    incident: Incident
    whose: Whose
    opened_ns: int
    changed_ns: int
    ended_ns: int | None = None
    verdict: Verdict | None = None
    version: int = 0
    changes: int = 0
    opened_by: set[str] = field(default_factory=set)
    ended_by: set[str] = field(default_factory=set)

    def note(self, incident: Incident, arrival_ns: int) -> None:
        """Take what became of the incident by a message that came at `arrival_ns`."""
        self.incident = incident
        self.changed_ns = max(self.changed_ns, arrival_ns)
        self.changes += 1
        if incident.state is not State.ENDED:
            self.ended_ns = None
            self.ended_by.clear()
        elif self.ended_ns is None:
            self.ended_ns = arrival_ns

    def judged(self, verdict: Verdict) -> bool:
        """Take a verdict; return whether it says something new."""
        if verdict == self.verdict:
            return False
        self.verdict = verdict
        self.changes += 1
        return True

    def alert(self) -> Alert:
        """Return what is to be told."""
        return Alert(
            self.incident.id,
            labels(self.incident, self.whose),
            annotations(self.incident, self.verdict, self.whose),
            self.opened_ns,
            self.ended_ns,
            self.changes,
        )

    def to_json(self, *, whole: bool = True) -> dict[str, Any]:
        """Return the case as values of JSON; not `whole`: of its incident the id alone, because it stands elsewhere."""
        return {
            "id": self.incident.id,
            "incident": codec.to_dict(self.incident) if whole else None,
            "whose": list(self.whose),
            "opened_ns": self.opened_ns,
            "changed_ns": self.changed_ns,
            "ended_ns": self.ended_ns,
            "verdict": verdict_to_json(self.verdict),
            "version": self.version,
            "changes": self.changes,
            "opened_by": sorted(self.opened_by),
            "ended_by": sorted(self.ended_by),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], held: Callable[[str], Incident]) -> "Case":
        """Return the case that gave `value`; `held` finds an incident that is not in it, or raises KeyError."""
        incident = value["incident"]
        return cls(
            held(value["id"]) if incident is None else codec.from_dict(incident),
            Whose(*value["whose"]),
            value["opened_ns"],
            value["changed_ns"],
            value["ended_ns"],
            verdict_from_json(value["verdict"]),
            value["version"],
            value["changes"],
            set(value["opened_by"]),
            set(value["ended_by"]),
        )

    def row(self, partition: Partition, offset: int, arrival_ns: int) -> dict[str, Any]:
        """Return the row of the table `incidents` that this version is; message `offset` came at `arrival_ns`."""
        incident, verdict = self.incident, self.verdict
        low, high = incident.duration or (None, None)
        judged = verdict_to_json(verdict)
        return {
            "incident_id": incident.id,
            "version": self.version,
            **incident.source._asdict(),
            **self.whose._asdict(),
            "kind": str(incident.kind),
            "first_kind": str(incident.first_kind),
            "state": str(incident.state),
            "ended_by": incident.ended_by,
            "opened_ns": self.opened_ns,
            "changed_ns": self.changed_ns,
            "ended_ns": self.ended_ns,
            "since_ns": incident.since_ns,
            "until_ns": incident.until_ns,
            "duration_low_s": low,
            "duration_high_s": high,
            "duration_from": incident.duration_from,
            "cpus": list(incident.cpus),
            "task": incident.task,
            "pid": incident.pid,
            "victims": list(incident.victims),
            "reports": len(incident.reports) + incident.dropped_reports,
            **_judgement(verdict),
            "panicked": incident.panicked,
            "corrupted": incident.corrupted,
            "structured": incident.structured,
            "first_place": incident.first_place,
            "last_place": incident.last_place,
            "incident_json": codec.encode(incident),
            "verdict_json": None if judged is None else json.dumps(judged, separators=(",", ":")),
            "arrival_ns": arrival_ns,
            "topic": partition.topic,
            "partition": partition.number,
            "offset": offset,
        }


def verdict_to_json(verdict: Verdict | None) -> dict[str, Any] | None:
    """Return a verdict as values of JSON: its fields by name; pieces of evidence and records are arrays of theirs."""
    if verdict is None:
        return None
    return {item.name: getattr(verdict, item.name) for item in dataclasses.fields(Verdict)}


def verdict_from_json(value: dict[str, Any] | None) -> Verdict | None:
    """Return the verdict that `verdict_to_json` gave, before or after JSON."""
    if value is None:
        return None
    return Verdict(
        Owner(value["owner"]),
        Confidence(value["confidence"]),
        value["row"],
        value["rules"],
        value["sentence"],
        tuple(
            Evidence(name, text, tuple(Record(*record) for record in records), against)
            for name, text, records, against in value["evidence"]
        ),
        tuple(Missing(*each) for each in value["missing"]),
        tuple(Rejected(Owner(owner), reason) for owner, reason in value["rejected"]),
        None if value["shared"] is None else Owner(value["shared"]),
        tuple(Owner(owner) for owner in value.get("beside", ())),
    )


def _judgement(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    return {
        "owner": str(verdict.owner),
        "shared": None if verdict.shared is None else str(verdict.shared),
        "confidence": str(verdict.confidence),
        "row": verdict.row,
        "rules": verdict.rules,
        "sentence": verdict.sentence,
    }
