"""A written trace read back with Perfetto's own messages, and what the lake's rows say that must stand in it."""

import os
from collections import defaultdict
from typing import NamedTuple

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import FtraceEvent, Trace

from consumers.decode.ftrace_events import FRONT, TAKEN
from consumers.views import connect

MESSAGES = {field.name: field.message_type for field in FtraceEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
DEVICES = ("dev", "s_dev", "old_dev")


class Event(NamedTuple):
    """`fields` by name; of a repeated one a list."""

    ts_ns: int
    pid: int
    flags: int | None
    name: str
    fields: dict


def read(path):
    return Trace.FromString(path.read_bytes())


def bundles(trace):
    return [packet.ftrace_events for packet in trace.packet if packet.HasField("ftrace_events")]


def tracks(trace):
    """Return the names of all tracks by uuid."""
    found = [packet.track_descriptor for packet in trace.packet if packet.HasField("track_descriptor")]
    return {each.uuid: each.name for each in found}


def marks(trace):
    """Return (track, time, type, name, annotations) of every track event, in the file's order."""
    names, found = tracks(trace), []
    for packet in trace.packet:
        if packet.HasField("track_event"):
            event = packet.track_event
            notes = {note.name: note.string_value or note.int_value for note in event.debug_annotations}
            found.append((names[event.track_uuid], packet.timestamp, event.type, event.name, notes))
    return found


def events(trace):
    """Return the events of each CPU in the file's order."""
    found = defaultdict(list)
    for bundle in bundles(trace):
        found[bundle.cpu] += map(_event, bundle.event)
    return dict(found)


def _event(event):
    name = event.WhichOneof("event")
    message = getattr(event, name)
    if name == "generic":
        name, fields = message.event_name, {}
        for field in message.field:
            value = getattr(field, field.WhichOneof("value"))
            fields[field.name] = [*fields[field.name], value] if field.name in fields else [value]
        fields = {key: value[0] if len(value) == 1 else value for key, value in fields.items()}
        name = f"generic {name}"
    else:
        fields = {field.name: list(value) if field.is_repeated else value for field, value in message.ListFields()}
    flags = event.common_flags if event.HasField("common_flags") else None
    return Event(event.timestamp, event.pid, flags, name, fields)


def rows(storage, generic=(), where="true"):
    """Return what the rows of each CPU must have become, in the ring's order; kinds named in `generic` as such."""
    with connect(storage) as connection:
        found = defaultdict(list)
        for (table,) in connection.execute("show tables").fetchall():
            if not table.startswith("trace_"):
                continue
            result = connection.execute(f'select * from "{table}" where {where}')
            columns = [item[0] for item in result.description]
            name = table.removeprefix("trace_")
            for values in result.fetchall():
                row = dict(zip(columns, values, strict=True))
                place = row["instance"], row["page"], row["position"]
                found[row["cpu"]].append((place, _expected(row, name, generic=name in generic)))
    return {cpu: [event for _, event in sorted(each, key=lambda pair: pair[0])] for cpu, each in found.items()}


def _expected(row, name, *, generic):
    front = {each.name for each in FRONT} | TAKEN
    fields = {}
    for column, value in row.items():
        if column in front or value is None or value == []:
            continue
        base = column.removeprefix("event_")
        key = base if base in TAKEN else column
        if generic:
            only = value[0] if isinstance(value, list) and len(value) == 1 else value
            fields[key] = only.hex() if isinstance(only, bytes) else only
        elif key in MESSAGES[name].fields_by_name:
            device = key in DEVICES and MESSAGES[name].fields_by_name[key].type == 4
            fields[key] = os.makedev(value >> 20, value & 0xFFFFF) if device else value
    pid, flags = row.get("pid") or 0, row.get("flags")
    return Event(row["ts_ns"], pid, flags, f"generic {name}" if generic else name, fields)
