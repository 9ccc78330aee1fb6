"""Judge a stored incident again, by the rules and the rows of today: which layer owned it, and by which evidence.

Guest and host are put on one clock; the decision table is consumers/verdict/table.py. What was not there to be
consulted is told with how to get it, and owners that were considered with why they are not it. --withhold leaves out a
layer as if nothing of it had come: the answer may become undetermined by that, or less sure, and never another one.

for example:
  hypocenter verdict --lake /srv/lake --incident 7ef35fbef30930cd18f9
  hypocenter verdict --lake /srv/lake --incident 7ef35f --withhold host --format json
"""

import argparse
import io
import sys
from collections.abc import Iterator
from typing import Any

from consumers import render
from consumers.cli import add_lake
from consumers.incidents import stored
from consumers.incidents.incident import Incident
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.verdict.gather import gather
from consumers.verdict.judge import judge
from consumers.verdict.verdict import Evidence, Record, Verdict
from schemas.stream import Layer


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    sub.add_argument("--incident", required=True, metavar="ID", help="which; the beginning of an id is enough")
    sub.add_argument(
        "--withhold",
        action="append",
        default=[],
        choices=[layer.value for layer in Layer],
        metavar="LAYER",
        help=f"judge without this layer, one of {', '.join(Layer)}; again for another",
    )
    sub.add_argument("--format", choices=("text", "json"), default="text", help="text or one JSON object [text]")


def run(args: argparse.Namespace) -> int:
    """Print the verdict."""
    storage = open_lake(args.lake, create=False)
    incident = stored.read(storage, args.incident).incident
    found = judge(incident, gather(storage, incident, frozenset(args.withhold)))
    out = io.StringIO()
    if args.format == "json":
        render.write_json(_as_json(incident, found, sorted(set(args.withhold))), out)
    else:
        out.writelines(line + "\n" for line in _text(incident, found, sorted(set(args.withhold))))
    sys.stdout.write(out.getvalue())
    return exit_code(storage)


def _as_json(incident: Incident, found: Verdict, withheld: list[str]) -> dict[str, Any]:
    return {
        "incident_id": incident.id,
        "version": incident.version,
        "withheld": withheld,
        "owner": found.owner,
        "confidence": found.confidence,
        "row": found.row,
        "rules": found.rules,
        "sentence": found.sentence,
        "shared": found.shared,
        "beside": list(found.beside),
        "evidence": [
            each._asdict() | {"records": [item._asdict() for item in each.records]} for each in found.evidence
        ],
        "missing": [each._asdict() for each in found.missing],
        "rejected": [each._asdict() for each in found.rejected],
    }


def _text(incident: Incident, found: Verdict, withheld: list[str]) -> Iterator[str]:
    yield found.sentence[:1].upper() + found.sentence[1:] + "."
    yield ""
    source = incident.source
    yield f"incident    {incident.id}, {incident.kind} on {source.machine}, boot {source.boot_id[:8]}, {incident.state}"
    yield f"owner       {found.owner}" + (f", shared with {found.shared}" if found.shared else "")
    if found.beside:
        yield f"beside      {', '.join(found.beside)}"
    yield f"confidence  {found.confidence}"
    yield f"row         {found.row} of rules {found.rules}"
    if withheld:
        yield f"withheld    {', '.join(withheld)}"
    yield from _evidence("evidence", [each for each in found.evidence if not each.against])
    yield from _evidence("against", [each for each in found.evidence if each.against])
    yield from _listed("missing", [f"{each.id}  {each.text}\n      {each.remedy}" for each in found.missing])
    yield from _listed("rejected", [f"{each.owner}: {each.reason}" for each in found.rejected])


def _evidence(title: str, found: list[Evidence]) -> Iterator[str]:
    yield from _listed(
        title, ["\n      ".join((f"{each.id}  {each.text}", *map(_where, each.records))) for each in found]
    )


def _where(record: Record) -> str:
    stream = "/".join(part for part in (record.surface, record.instance) if part)
    rows = f"{record.first}" if record.first == record.last else f"{record.first} to {record.last}"
    return f"table {record.table}: {stream} of {record.machine}, {rows}"


def _listed(title: str, texts: list[str]) -> Iterator[str]:
    if texts:
        yield ""
        yield title
        yield from (f"  {line}" for text in texts for line in text.split("\n"))
