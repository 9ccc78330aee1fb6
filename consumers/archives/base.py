"""What an archive is to the importer: frames that are the same whenever the same content is read."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from schemas.frame import Frame

#: Told bytes done and bytes in all.
Progress = Callable[[int, int], None]


class Tags(NamedTuple):
    """Where the archive was taken, and the id of its import: the same for the same content."""

    machine: str
    boot_id: str
    layer: str
    run: str


class Archive(Protocol):
    """One archive, opened and looked into far enough to know that it is one.

    `name` is what it is called in messages, `surface` the surface of its records, `machine` where it was taken as far
    as it says, `digest` the SHA-256 of all its content in hexadecimal.
    """

    name: str
    surface: str
    machine: str
    digest: str

    def frames(self, tags: Tags, now_ns: int, progress: Progress) -> Iterator[Frame]:
        """Yield its frames in order, of all its streams, as producers would have made them at `now_ns` (REALTIME).

        Raises:
            BadInputError: what is read now is not what was there when the archive was opened.
        """
        ...
