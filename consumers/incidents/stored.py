"""Incidents as the lake has them: the newest version of each, one whole, and how its versions followed one another.

Table: incidents (`consumers/TABLES.md`). A lake in which nobody alerts has none of it, and so no incident.
"""

import difflib
import json
from typing import Any, Final, NamedTuple

import duckdb

from consumers.alerts.case import verdict_from_json
from consumers.alerts.payload import Whose
from consumers.incidents import codec
from consumers.incidents.incident import Incident
from consumers.lake.snapshot import snapshot
from consumers.lake.storage import Storage
from consumers.verdict.verdict import Verdict
from consumers.views import connect
from schemas.errors import BadInputError, StorageError, UsageError

#: Of one incident so many versions are told, the newest.
VERSIONS_MAX: Final = 200
_LISTED_MAX: Final = 8
_SHORT: Final = 8
_TEXTS: Final = "incident_json, verdict_json"
_NEWEST: Final = f"""
select * exclude ({_TEXTS}) from incidents
qualify row_number() over (partition by incident_id order by version desc, arrival_ns desc) = 1
order by opened_ns desc, incident_id
"""  # noqa: S608
_VERSIONS: Final = f"""
select distinct on (version) version, arrival_ns, state, ended_by, owner, confidence, "row", duration_low_s,
       duration_high_s, kind, reports
from incidents where incident_id = ? order by version desc, arrival_ns desc limit {VERSIONS_MAX + 1}
"""  # noqa: S608
_ONE: Final = f"""
select vm, host, opened_ns, changed_ns, ended_ns, version, {_TEXTS} from incidents where incident_id = ?
order by version desc, arrival_ns desc limit 1
"""  # noqa: S608


class Version(NamedTuple):
    """One version as far as it is told; `arrival_ns` is the log's append time of the newest message behind it."""

    number: int
    arrival_ns: int
    state: str
    ended_by: str
    owner: str | None
    confidence: str | None
    row: str | None
    duration_low_s: float | None
    duration_high_s: float | None
    kind: str
    reports: int


class Stored(NamedTuple):
    """The newest version of an incident, and all of its versions in order; times are the log's append times."""

    incident: Incident
    verdict: Verdict | None
    whose: Whose
    opened_ns: int
    changed_ns: int
    ended_ns: int | None
    version: int
    versions: tuple[Version, ...]


def newest(storage: Storage) -> list[dict[str, Any]]:
    """Return the newest version of every incident, the newest incident first: its row but for the JSON.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    connection = _connect(storage)
    try:
        found = connection.execute(_NEWEST)
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    except duckdb.Error as e:
        raise StorageError(f"the lake cannot be read: {e}") from e
    finally:
        connection.close()


def read(storage: Storage, prefix: str) -> Stored:
    """Return the incident whose id begins with `prefix`.

    Raises:
        UsageError: there is none, or there are several; the text says which are near.
        StorageError: the disk refuses, or a stored version cannot be read.
    """
    connection = _connect(storage)
    try:
        key = _find(connection, prefix)
        vm, host, opened_ns, changed_ns, ended_ns, number, incident, verdict = connection.execute(
            _ONE, [key]
        ).fetchall()[0]
        rows = connection.execute(_VERSIONS, [key]).fetchall()
    except duckdb.Error as e:
        raise StorageError(f"the lake cannot be read: {e}") from e
    finally:
        connection.close()
    try:
        found = codec.decode(incident)
        said = verdict_from_json(None if verdict is None else json.loads(verdict))
    except (BadInputError, KeyError, TypeError, ValueError) as e:
        raise StorageError(f"incident {key}, version {number}: what is stored cannot be read: {e}") from e
    versions = tuple(Version(*row) for row in reversed(rows))
    return Stored(found, said, Whose(vm, host), opened_ns, changed_ns, ended_ns, number, versions)


def short_ids(ids: list[str]) -> dict[str, str]:
    """Return of each id as many of its first characters as tell it from the others."""
    size = _SHORT
    while len({each[:size] for each in ids}) < len(set(ids)):
        size += 1
    return {each: each[:size] for each in ids}


def _find(connection: duckdb.DuckDBPyConnection, prefix: str) -> str:
    known: list[str] = [
        key for (key,) in connection.execute("select distinct incident_id from incidents order by all").fetchall()
    ]
    mine = [key for key in known if key == prefix] or [key for key in known if prefix and key.startswith(prefix)]
    if len(mine) == 1:
        return mine[0]
    if not known:
        raise UsageError(f"the lake has no incident, so none is called {prefix}: `hypocenter alert` finds them")
    if mine:
        raise UsageError(f"{len(mine)} incidents begin with {prefix}: {_listed(mine)}")
    short = short_ids(known)
    near = difflib.get_close_matches(prefix[:_SHORT], sorted(short.values()), n=_LISTED_MAX, cutoff=0.5)
    hint = f"did you mean {_listed(near)}?" if near else "`hypocenter incidents` lists them"
    raise UsageError(f"the lake has no incident {prefix}; {hint}")


# Only this table: a kernel can have a thousand kinds of events.
def _connect(storage: Storage) -> duckdb.DuckDBPyConnection:
    return connect(storage, snapshot(storage).of(["incidents"]), "incidents")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED_MAX]) + (", ..." if len(names) > _LISTED_MAX else "")
