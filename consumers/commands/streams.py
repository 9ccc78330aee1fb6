"""Streams in tables: three short columns instead of one long name, alike in every verb."""

from collections.abc import Sequence
from typing import Final

from consumers.render import short_ids
from schemas.stream import Stream

SHOWN: Final = ("machine", "boot", "stream")


def shown(streams: Sequence[Stream]) -> list[tuple[str, str, str]]:
    """Return the cells under `SHOWN` for each of `streams`: ids shortened; layer, surface and instance in one.

    The clock is left out: it follows from the surface.
    """
    machines = short_ids(stream.machine for stream in streams)
    boots = short_ids(stream.boot_id for stream in streams)
    return [
        (
            machines[stream.machine],
            boots[stream.boot_id],
            "/".join(part for part in (stream.layer, stream.surface, stream.instance) if part),
        )
        for stream in streams
    ]
