"""Commands to paste: the statement that shows a piece of evidence, and the timeline around an incident.

Names come from producers, so what a shell could take for its own is quoted.
"""

import re
import shlex
from typing import Final

from consumers.export.scope import literal
from consumers.verdict.verdict import Record

#: Nothing in double quotes that a shell looks at.
_PLAIN: Final = re.compile(r"[^\"$`\\!\n\r]*")


def records_text(record: Record, names: dict[str, str]) -> str:
    """Return where a piece of evidence is, for people; `names` has what stands for a machine."""
    where = "/".join(part for part in (record.surface, record.instance) if part)
    span = f"{record.first}" if record.first == record.last else f"{record.first} to {record.last}"
    machine = names.get(record.machine, record.machine)
    return f"{record.table}, {_position(record.table)} {span} of {where or 'its only stream'} of {machine}"


def query(lake: str, record: Record, boot_id: str) -> str:
    """Return the command that shows the rows of `record`; without a `boot_id` those of any boot."""
    table = record.table if record.table.isidentifier() else '"' + record.table.replace('"', '""') + '"'
    where = [f"machine = {literal(record.machine)}"]
    where += [f"boot_id = {literal(boot_id)}"] if boot_id else []
    where += [f"surface = {literal(record.surface)}"] if record.surface else []
    where += [f"instance = {literal(record.instance)}"] if record.instance else []
    name = _position(record.table)
    where.append(f"{name} between {record.first} and {record.last}")
    sql = f"select * from {table} where {' and '.join(where)} order by {name}"  # noqa: S608
    return f"hypocenter query --lake {shlex.quote(lake)} {_quoted(sql)}"


def _position(table: str) -> str:
    return "seq" if table == "kmsg" else "page" if table.startswith("trace_") else "position"


def _quoted(text: str) -> str:
    return f'"{text}"' if _PLAIN.fullmatch(text) else shlex.quote(text)
