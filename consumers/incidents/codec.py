"""Incidents as JSON: what is stored as state, in the lake's table, and passed on to other programs.

An object has the fields of the dataclass of `incident.py` by their names, and its reports as `reports/codec.py` has
them. Lengths and start lines are arrays in the order of their fields; `root` is an index into `reports`, or the report
itself where it is none of them. A field that is missing has its default: what an older writer stored can be read.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Final

from consumers.incidents.incident import Incident, Source, StartLine, State
from consumers.reports import codec as report_codec
from consumers.reports.report import Kind, Seconds
from schemas.errors import BadInputError

_REASON: Final = "bad-incident"


def _seconds(value: Any) -> Seconds | None:
    return None if value is None else Seconds(*value)


def _start_lines(value: Any) -> list[StartLine]:
    return [StartLine(place, Kind(kind)) for place, kind in value]


# How a field's JSON becomes its value, where it is not the value itself.
_INCIDENT: Final[dict[str, Callable[[Any], Any]]] = {
    "source": lambda value: Source(*value),
    "kind": Kind,
    "first_kind": Kind,
    "duration": _seconds,
    "cpus": tuple,
    "victims": tuple,
    "start_lines": _start_lines,
    "state": State,
    "lengths": lambda value: {name: Seconds(*each) for name, each in value.items()},
}


def to_dict(incident: Incident) -> dict[str, Any]:
    """Return an incident as values of JSON."""
    value = {each.name: getattr(incident, each.name) for each in fields(Incident)}
    value["reports"] = [report_codec.to_json(report) for report in incident.reports]
    at = next((i for i, report in enumerate(incident.reports) if report is incident.root), None)
    if at is None:
        at = next((i for i, report in enumerate(incident.reports) if report == incident.root), None)
    value["root"] = report_codec.to_json(incident.root) if at is None else at
    return value


def from_dict(value: dict[str, Any]) -> Incident:
    """Return the incident that `to_dict` gave; raise BadInputError if it is none."""
    try:
        found = _converted(value)
        reports = found["reports"] = [report_codec.from_json(each) for each in value["reports"]]
        root = value["root"]
        found["root"] = reports[root] if isinstance(root, int) else report_codec.from_json(root)
        return Incident(**found)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as e:
        raise BadInputError(_REASON, f"not an incident: {e!r}") from e


def encode(incident: Incident) -> str:
    """Return an incident as one line of JSON; the same incident gives the same bytes."""
    return json.dumps(to_dict(incident), separators=(",", ":"))


def decode(text: str | bytes) -> Incident:
    """Return the incident that `encode` gave; raise BadInputError if it is none."""
    try:
        value = json.loads(text)
    except ValueError as e:
        raise BadInputError(_REASON, f"not JSON: {e}") from e
    if not isinstance(value, dict):
        raise BadInputError(_REASON, "not an object of JSON")
    return from_dict(value)


def _converted(value: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for each in fields(Incident):
        if each.name in value:
            convert = _INCIDENT.get(each.name)
            found[each.name] = value[each.name] if convert is None else convert(value[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"lacks {each.name}")
    return found
