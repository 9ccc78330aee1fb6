"""Reports as JSON values, and back: for the state that a consumer keeps and for what it prints."""

from typing import Any

from consumers.reports.report import Kind, Line, Report, Seconds, Shape


def to_json(report: Report) -> dict[str, Any]:
    """Return `report` as JSON values; nothing is lost."""
    values: dict[str, Any] = {name: getattr(report, name) for name in Report.__slots__}
    values |= {name: list(values[name]) for name in ("cpus", "frames", "notes")}
    values["kind"] = report.kind.value
    values["shape"] = None if report.shape is None else report.shape.value
    values["duration"] = None if report.duration is None else list(report.duration)
    values["lines"] = [list(line) for line in report.lines]
    values["numbers"] = dict(report.numbers)
    return values


def from_json(values: dict[str, Any]) -> Report:
    """Return the report that `to_json` made `values` of.

    Raises:
        TypeError: there is a key that no report has.
        ValueError: a kind or a shape is none.
    """
    values = dict(values)
    values |= {name: tuple(values[name]) for name in ("cpus", "frames", "notes")}
    values["kind"] = Kind(values["kind"])
    values["shape"] = None if values["shape"] is None else Shape(values["shape"])
    values["duration"] = None if values["duration"] is None else Seconds(*values["duration"])
    values["lines"] = [Line(*line) for line in values["lines"]]
    values["numbers"] = dict(values["numbers"])
    return Report(**values)
