"""An incident as an alert of Alertmanager's API v2: labels say which it is and never change, annotations may.

Source: Alertmanager, api/v2/openapi.yaml (`postableAlert`). Its fingerprint is over the labels, so nothing stands there
that a later verdict could change. What a guest has written (names of tasks) goes into annotations only, without
control characters and cut.
"""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from consumers.incidents.incident import Incident, State
from consumers.reports.report import Kind, Seconds, panic_reason
from consumers.verdict.verdict import Owner, Verdict
from schemas.stream import Layer

GUEST: Final = "GuestIncident"
HOST: Final = "HostIncident"
_HOST_LAYERS: Final = frozenset((Layer.HOST, Layer.HYPERVISOR, Layer.FIRMWARE))
_TEXT_CHARS_MAX: Final = 256
_SENTENCE_CHARS_MAX: Final = 2048
_LISTED_MAX: Final = 16


class Whose(NamedTuple):
    """What the host's records call the machine: its VM and the host's machine id; empty where nobody knows."""

    vm: str = ""
    host: str = ""


class Alert(NamedTuple):
    """What is to be told of one incident; times are the log's append times (CLOCK_REALTIME), `ended_ns` None if open.

    `version` grows with each change of what is to be told.
    """

    id: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_ns: int
    ended_ns: int | None
    version: int


def labels(incident: Incident, whose: Whose) -> dict[str, str]:
    """Return the labels, those without a value left out: Alertmanager drops these itself."""
    source = incident.source
    host_side = source.layer in _HOST_LAYERS
    found = {
        "alertname": HOST if host_side else GUEST,
        "kind": str(incident.first_kind),
        "layer": source.layer,
        "host": source.machine if host_side else whose.host,
        "vm": whose.vm,
        "machine": source.machine,
        "boot_id": source.boot_id,
        "incident_id": incident.id,
    }
    return {name: text for name, value in found.items() if (text := plain(value))}


def annotations(incident: Incident, verdict: Verdict | None, whose: Whose) -> dict[str, str]:
    """Return what is known so far, in words."""
    found = {
        "summary": _summary(incident, whose),
        "description": plain(verdict.sentence if verdict else "not judged yet", _SENTENCE_CHARS_MAX),
        "state": str(incident.state),
        "ended_by": incident.ended_by,
        "kind": str(incident.kind),
        "length": length(incident.duration),
        "cpus": _listed(incident.cpus),
        "task": plain(f"{incident.task or ''}:{incident.pid}" if incident.pid is not None else incident.task or ""),
        "victims": _listed(incident.victims),
        "reports": str(len(incident.reports) + incident.dropped_reports),
        "owner": str(verdict.owner if verdict else Owner.UNDETERMINED),
    }
    if verdict:
        found |= {
            "shared": str(verdict.shared or ""),
            "beside": _listed(verdict.beside),
            "confidence": str(verdict.confidence),
            "row": verdict.row,
            "rules": str(verdict.rules),
            "missing": _listed([f"{each.id}: {each.text} ({each.remedy})" for each in verdict.missing], "; "),
        }
    return {name: value for name, value in found.items() if value}


def length(duration: Seconds | None) -> str:
    """Return a length for people; a range where the kernel's HZ is not known, empty where nothing is."""
    if duration is None:
        return ""
    low, high = (f"{value:.1f}".removesuffix(".0") for value in duration)
    return f"{low} s" if low == high else f"{low} to {high} s"


def postable(alert: Alert, now_ns: int, ends_ahead_ns: int, *, hold: bool = False) -> dict[str, Any]:
    """Return the JSON values of `alert`; an open one ends `ends_ahead_ns` after `now_ns`, and so does one to `hold`."""
    ends_ns = now_ns + ends_ahead_ns if alert.ended_ns is None or hold else alert.ended_ns
    # Alertmanager refuses an end before the start; clocks of two machines may say so.
    return {
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": _rfc3339(min(alert.starts_ns, ends_ns)),
        "endsAt": _rfc3339(ends_ns),
    }


def plain(text: str, chars_max: int = _TEXT_CHARS_MAX) -> str:
    """Return `text` without what moves a cursor or marks up, cut to `chars_max`."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: chars_max + 1])
    return shown if len(shown) <= chars_max else f"{shown[: chars_max - 3]}..."


def _summary(incident: Incident, whose: Whose) -> str:
    where = f"VM {whose.vm}" if whose.vm else f"machine {incident.source.machine}"
    cpus = f" on CPU {_listed(incident.cpus)}" if incident.cpus else ""
    task = f" of task {incident.task}" if incident.task and not incident.cpus else ""
    took = f", {length(incident.duration)}" if incident.duration else ""
    state = {State.OPEN: "going on", State.STALE: "nothing more was heard", State.ENDED: "over"}[incident.state]
    if incident.joined:
        state = f"part of incident {incident.joined}"
    panicked = ", then a panic" if incident.panicked and incident.kind is not Kind.PANIC else ""
    kind = incident.kind.replace("_", " ") + _reason(incident)
    host = f" on host {whose.host}" if whose.host else ""
    return plain(f"{kind}{cpus}{task} in {incident.source.layer} of {where}{host}{took}{panicked}: {state}")


# All that there is to tell of a panic before it is judged.
def _reason(incident: Incident) -> str:
    why = panic_reason(incident.root) if incident.kind is Kind.PANIC else ""
    return f" ({why})" if why else ""


def _listed(values: Any, between: str = ", ") -> str:
    shown = [plain(str(value)) for value in list(values)[:_LISTED_MAX]]
    more = len(values) - len(shown)
    return between.join(shown) + (f" and {more} more" if more > 0 else "")


def _rfc3339(at_ns: int) -> str:
    seconds, rest_ns = divmod(at_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"
