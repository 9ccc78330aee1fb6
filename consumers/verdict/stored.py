"""An incident out of the lake's table `incidents`, by its id or the beginning of it."""

import difflib
from typing import Final

from consumers.incidents import codec
from consumers.incidents.incident import Incident
from consumers.lake.storage import Storage
from consumers.views import connect
from schemas.errors import BadInputError, StorageError, UsageError

_NAMED_MAX: Final = 5
_IDS: Final = "select incident_id, max(version) from incidents group by all order by all"
_NEWEST: Final = "select max_by(incident_json, version) from incidents where incident_id = ?"


def find(storage: Storage, name: str) -> Incident:
    """Return the newest version of the incident whose id is, or alone begins with, `name`.

    Raises:
        UsageError: there is none, or there are several; the text names the nearest.
        StorageError: the lake cannot be read.
    """
    connection = connect(storage, sql="incidents")
    try:
        known = [incident for incident, _ in connection.execute(_IDS).fetchall()]
        mine = [each for each in known if each == name] or [each for each in known if name and each.startswith(name)]
        if len(mine) != 1:
            raise UsageError(_refusal(name, mine, known))
        ((text,),) = connection.execute(_NEWEST, mine).fetchall()
    finally:
        connection.close()
    try:
        return codec.decode(text)
    except BadInputError as e:
        raise StorageError(f"the incident {mine[0]} is damaged in the lake: {e.detail}") from e


def _refusal(name: str, mine: list[str], known: list[str]) -> str:
    if mine:
        return f"{len(mine)} incidents begin with {name}: {_listed(mine)}"
    if not known:
        return f"the lake has no incidents, so none is {name}: `hypocenter alert` stores them"
    near = difflib.get_close_matches(name, known, n=_NAMED_MAX, cutoff=0)
    return f"the lake has no incident {name}; the nearest is {_listed(near[:1])} of {len(known):,}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED_MAX]) + (", ..." if len(names) > _NAMED_MAX else "")
