"""The page of an incident as one file of HTML, for a dark room at night: verdict on top, the timeline's lanes below.

It needs nothing from anywhere and runs no script; what guests say is hostile, so the browser is forbidden to fetch or
run anything, and every text goes through `shown_text` of the timeline's page.
"""

from collections.abc import Iterable
from typing import Final, TextIO

from consumers.incidents.incident import Incident
from consumers.incidents.page_parts import Item, Page, RawReport
from consumers.timeline.page import KEY, POLICY, STYLE, shown_text, write_drawing, write_table
from consumers.timeline.shown import cut, head

#: Of a line of a kernel log, and of all lines of a report, so much is shown.
LINE_CHARS_MAX: Final = 4_000
LINES_MAX: Final = 1_000
_PARAGRAPH_CHARS_MAX: Final = 8_000
_NAME_CHARS_MAX: Final = 64
# Behind the timeline's own style, which is for a bright room.
_DARK: Final = """
:root { color-scheme: dark; }
body { color: #c9d1d9; background: #0d1117; max-width: 1400px; margin: 1.5em auto; padding: 0 1.5em; }
h1 { font-size: 1.35em; margin: .2em 0; color: #f0f6fc; }
h2 { font-size: 1.05em; margin: 1.6em 0 .4em; color: #f0f6fc; }
p { color: #8b949e; } p.told { font-size: 1.1em; color: #e6edf3; margin: .5em 0; max-width: 75em; }
.owner { display: inline-block; padding: .15em .7em; border-radius: 1em; background: #30363d; color: #f0f6fc; }
.high { background: #8e1519; } .medium { background: #7d4e00; } .low { background: #1f4b7a; }
dl { display: grid; grid-template-columns: 8.5em 1fr; gap: .3em 1em; margin: .4em 0; }
dt { color: #8b949e; } dd { margin: 0; overflow-wrap: anywhere; } dd.against { color: #f0b37e; }
ol { padding-left: 1.4em; } ol > li { margin: .5em 0; color: #f0f6fc; } li li { color: #c9d1d9; }
code, pre { font: 12px/1.5 ui-monospace, monospace; background: #161b22; border-radius: 4px; }
code { display: block; padding: .3em .6em; margin: .2em 0; color: #a5d6ff; }
code { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { padding: .6em; white-space: pre-wrap; overflow-wrap: anywhere; color: #c9d1d9; } summary { cursor: pointer; }
svg { border-color: #30363d; background: #0d1117; } svg text { fill: #c9d1d9; } .tick { fill: #8b949e; }
.line { stroke: #21262d; } .lane { fill: #161b22; }
.bad { fill: #ff7b72; } .warn { fill: #e3b341; } .fine { fill: #58a6ff; }
.arrival { stroke: #8b949e; } .blind { stroke: #484f58; } .loss { fill: #bc8cff; }
#hatch rect { fill: #161b22; } #hatch line { stroke: #484f58; }
th { background: #0d1117; } td { border-top-color: #21262d; } tr:target { background: #3b2e00; }
tr.blind td, tr.loss td { background: #161b22; } tr.bad td.t { color: #ff7b72; } tr.warn td.t { color: #e3b341; }
"""


def write(page: Page, incident: Incident, confidence: str, out: TextIO) -> None:
    """Write the page; `confidence` is that of its verdict, empty before there is one."""
    title = _text(page.title)
    out.write(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>{STYLE}{_DARK}</style></head>\n<body><h1>{title}</h1>\n<p>incident {_text(incident.id)}</p>\n"
    )
    owner = page.verdict[0].text
    out.write(f'<p><span class="owner {_text(confidence)}">{_text(owner)}</span></p>\n')
    out.writelines(f'<p class="told">{_text(each)}</p>\n' for each in page.told)
    _write_items("Verdict", page.verdict[1:], out)
    if page.missing:
        _write_items("Missing, and how to get it", page.missing, out)
    _write_questions(page, out)
    _write_timeline(page, out)
    out.write("<h2>Raw report</h2>\n")
    for number, report in enumerate(page.reports):
        _write_report(report, opened=number == 0, out=out)
    out.write(f"<p>All of its lines, and what came between:</p><code>{shown_text(page.raw)}</code>\n")
    _write_items("Versions", page.versions, out)
    out.write("</body></html>\n")


def _write_items(title: str, items: Iterable[Item], out: TextIO) -> None:
    out.write(f"<h2>{title}</h2>\n<dl>\n")
    for item in items:
        codes = "".join(f"<code>{shown_text(code)}</code>" for code in item.codes)
        kind = ' class="against"' if item.label == "against" and item.codes else ""
        out.write(f"<dt>{_text(item.label, _NAME_CHARS_MAX)}</dt><dd{kind}>{_text(item.text)}{codes}</dd>\n")
    out.write("</dl>\n")


def _write_questions(page: Page, out: TextIO) -> None:
    out.write("<h2>Seven questions</h2>\n<ol>\n")
    for question, lines in page.questions:
        told = "".join(f"<li>{_text(line)}</li>" for line in lines)
        out.write(f"<li>{_text(question)}<ul>{told}</ul></li>\n")
    out.write("</ol>\n")


def _write_timeline(page: Page, out: TextIO) -> None:
    out.write("<h2>Timeline</h2>\n")
    if page.timeline.note:
        out.write(f"<p>{_text(page.timeline.note)}</p>\n")
    found = page.timeline.timeline
    if found is not None:
        notes = [head(found), *found.notes, *([cut(found)] if found.left_out else []), KEY]
        out.writelines(f"<p>{_text(note)}</p>\n" for note in notes)
        write_drawing(found, out)
        out.write(f"<details><summary>all {len(found.entries):,} rows</summary>\n")
        write_table(found, out)
        out.write("</details>\n")
    out.write(f"<code>{shown_text(page.timeline.command)}</code>\n")


def _write_report(report: RawReport, *, opened: bool, out: TextIO) -> None:
    out.write(f"<details{' open' if opened else ''}><summary>{_text(report.title)}</summary>\n<pre>")
    for line in report.lines[:LINES_MAX]:
        caller = f" {_text(line.caller, _NAME_CHARS_MAX)}" if line.caller else ""
        out.write(f"{line.seq:>8} [{line.at:>14}]{caller} {_text(line.text, LINE_CHARS_MAX)}\n")
    hidden = max(0, len(report.lines) - LINES_MAX) + report.dropped
    if hidden:
        out.write(f"... and {hidden:,} lines more\n")
    out.write("</pre></details>\n")


def _text(text: str, chars_max: int = _PARAGRAPH_CHARS_MAX) -> str:
    more = len(text) - chars_max
    return shown_text(text[:chars_max]) + (f"… ({more:,} characters more)" if more > 0 else "")
