"""A timeline as one page of HTML: a drawing with a lane for each layer and surface, and a table of all rows below.

It needs nothing from anywhere and runs no script; what guests say is hostile, so it forbids the browser to fetch or
run anything.
"""

from collections.abc import Sequence
from html import escape
from typing import Final, TextIO

from consumers.render import printable
from consumers.timeline.build import Timeline
from consumers.timeline.entries import Entry, Kind, Order
from consumers.timeline.shown import at, bound, cut, head, own_time
from schemas.stream import Layer

_WIDTH: Final = 1400
_LABEL: Final = 260
_ROW: Final = 26
_TOP: Final = 34
_TICKS: Final = 8
_HOVER_MAX: Final = 300
#: By the worst level of a row: errors, warnings, the rest.
_COLOURS: Final = ((3, "bad"), (4, "warn"), (9, "fine"))
_LAYERS: Final = [layer.value for layer in Layer]
STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #1b1f24; background: #fff; }
h1 { font-size: 1.2em; } p { margin: .2em 0; color: #57606a; }
svg { display: block; width: 100%; height: auto; border: 1px solid #d0d7de; margin: 1em 0; }
svg text { font-size: 12px; fill: #1b1f24; } .tick { fill: #57606a; } .line { stroke: #d8dee4; }
.lane { fill: #f6f8fa; } .bad { fill: #cf222e; } .warn { fill: #bf8700; } .fine { fill: #0969da; }
.bound { opacity: .28; } .span { opacity: .55; } .arrival { fill: none; stroke: #57606a; stroke-dasharray: 2 2; }
.blind { fill: url(#hatch); stroke: #8c959f; } .loss { fill: #8250df; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 2px 10px 2px 0; }
th { position: sticky; top: 0; background: #fff; } tr:target { background: #fff8c5; }
td { border-top: 1px solid #eaeef2; } td.n { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.t { white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 12px; }
tr.blind td, tr.loss td { background: #f6f8fa; } tr.bad td.t { color: #cf222e; } tr.warn td.t { color: #9a6700; }
"""
_HATCH: Final = (
    '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="#f6f8fa"/><line x1="0" y1="0" x2="0" y2="7" stroke="#8c959f" stroke-width="3"/>'
    "</pattern></defs>"
)
_COLUMNS: Final = ("at", "bound", "order", "layer", "stream", "own time", "what")
_ORDERS: Final = {Order.KNOWN: "", Order.UNDETERMINED: "undetermined", Order.ARRIVAL: "as it arrived"}
KEY: Final = (
    "Pale bars are error bounds: the time of a row lies within. Dashed marks do not compare and stand where they "
    "arrived. Hatched: nobody watched that stream. Violet: losses."
)
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def write(found: Timeline, out: TextIO) -> None:
    """Write the page of a timeline to `out`."""
    title = shown_text(head(found))
    out.write(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
    )
    told = [*found.notes, *([cut(found)] if found.left_out else []), KEY]
    out.writelines(f"<p>{shown_text(note)}</p>\n" for note in told)
    write_drawing(found, out)
    write_table(found, out)
    out.write("</body></html>\n")


def write_drawing(found: Timeline, out: TextIO) -> None:
    """Write the lanes of a timeline, each mark a link to its row of the table."""
    lanes = _lanes(found.entries)
    height = _TOP + _ROW * len(lanes) + 8
    out.write(f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="lanes of all streams">{_HATCH}\n')
    for i, lane in enumerate(lanes):
        y = _TOP + _ROW * i
        if i % 2 == 0:
            out.write(f'<rect class="lane" x="0" y="{y}" width="{_WIDTH}" height="{_ROW}"/>')
        name = " ".join(lane)
        out.write(f'<text x="6" y="{y + 17}">{shown_text(name[:40])}<title>{shown_text(name)}</title></text>\n')
    _write_ticks(found, height, out)
    places = {lane: _TOP + _ROW * i for i, lane in enumerate(lanes)}
    # What has a length below, what is a moment above it.
    numbered = sorted(
        enumerate(found.entries), key=lambda pair: (pair[1].kind is not Kind.BLIND, pair[1].until_at_ns is None)
    )
    for number, entry in numbered:
        _write_mark(found, number, entry, places[_lane(entry)], out)
    out.write("</svg>\n")


def _write_ticks(found: Timeline, height: int, out: TextIO) -> None:
    since_ns, took_ns = found.window.start_ns, found.until_ns - found.window.start_ns
    for i in range(_TICKS + 1):
        ns = since_ns + took_ns * i // _TICKS
        x, label = _x(found, ns), at(ns, found.window.axis)[-15:]
        anchor = "end" if i == _TICKS else "middle" if i else "start"
        out.write(f'<line class="line" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{height}"/>')
        out.write(f'<text class="tick" x="{x}" y="18" text-anchor="{anchor}">{shown_text(label)}</text>\n')


def _write_mark(found: Timeline, number: int, entry: Entry, y: int, out: TextIO) -> None:
    first, last = _x(found, entry.at_ns), _x(found, entry.at_ns if entry.until_at_ns is None else entry.until_at_ns)
    colour = _colour(entry)
    parts = []
    if entry.kind is Kind.BLIND:
        parts.append(_box("blind", first, y + 5, last - first, _ROW - 10))
    elif entry.bound_ns is None:
        parts.append(_box("arrival", first - 2, y + 6, 4, _ROW - 12))
    else:
        low, high = _x(found, entry.at_ns - entry.bound_ns), _x(found, entry.at_ns + entry.bound_ns)
        parts.append(_box(f"{colour} bound", low, y + 8, high - low, _ROW - 16))
        if last > first:
            parts.append(_box(f"{colour} span", first, y + 8, last - first, _ROW - 16))
        parts.append(_box(colour, first - 0.75, y + 4, 1.5, _ROW - 8))
    told = f"{at(entry.at_ns, found.window.axis)} {bound(entry)}: {entry.text[:_HOVER_MAX]}"
    out.write(f'<a href="#r{number}">{"".join(parts)}<title>{shown_text(told)}</title></a>\n')


def write_table(found: Timeline, out: TextIO) -> None:
    """Write all rows of a timeline."""
    out.write(f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr></thead><tbody>\n")
    for number, entry in enumerate(found.entries):
        cells = [
            at(entry.at_ns, found.window.axis),
            bound(entry),
            _ORDERS[entry.order],
            entry.stream.layer,
            _lane(entry)[1],
            own_time(entry),
        ]
        row = "".join(f'<td class="n">{shown_text(cell)}</td>' for cell in cells)
        why = f' title="{shown_text(entry.reason)}"' if entry.reason else ""
        kind = entry.kind.value if entry.kind in (Kind.BLIND, Kind.LOSS) else _colour(entry)
        out.write(f'<tr id="r{number}" class="{kind}"{why}>{row}<td class="t">{shown_text(entry.text)}</td></tr>\n')
    out.write("</tbody></table>\n")


# From the guest down to the host, as layers lie.
def _lanes(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    places = {name: i for i, name in enumerate(_LAYERS)}
    return sorted({_lane(entry) for entry in entries}, key=lambda lane: (places.get(lane[0], len(places)), lane))


# The CPUs of a ring are one lane.
def _lane(entry: Entry) -> tuple[str, str]:
    stream = entry.stream
    instance = stream.instance.partition("/")[0] if stream.surface == "ftrace" else stream.instance
    return stream.layer, "/".join(part for part in (stream.surface, instance) if part)


def _x(found: Timeline, ns: int) -> float:
    since_ns, took_ns = found.window.start_ns, found.until_ns - found.window.start_ns
    share = (min(max(ns, since_ns), found.until_ns) - since_ns) / max(1, took_ns)
    return round(_LABEL + share * (_WIDTH - _LABEL - 10), 2)


def _box(name: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{name}" x="{x:g}" y="{y:g}" width="{max(width, 0.5):g}" height="{height:g}"/>'


def _colour(entry: Entry) -> str:
    if entry.kind in (Kind.LOSS, Kind.DEAD_LETTER):
        return "loss"
    level = 6 if entry.level is None else entry.level
    return next((name for most, name in _COLOURS if level <= most), "fine")


def shown_text(text: str) -> str:
    """Return `text` without mark-up and what turns or hides text: control and format characters become visible."""
    return escape(printable(text), quote=True)
